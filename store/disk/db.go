package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// Options say where a store lies and how it is looked after.
type Options struct {
	// Dir holds the files; it is made when it is not there.
	Dir string

	// LockTimeout bounds the wait for another process that holds Dir. Zero means 2s.
	LockTimeout time.Duration

	// MaxSize bounds the file of rows, in bytes. Zero means 1 GiB.
	MaxSize int

	// CopyEvery is how often Run makes a copy. Zero means 1h.
	CopyEvery time.Duration

	// Verify checks a file before it is mapped, as the function of that name
	// does; nil means that function. A file can be so damaged that whoever maps it
	// dies: a program passes a child process.
	Verify func(ctx context.Context, path string) error

	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // of what Run did; nil means none
}

// DB is an open store. Its methods may be called from any goroutine.
type DB struct {
	// Fixed at construction.
	opts Options
	bolt *bbolt.DB

	writing sync.Mutex // held by the one Update at a time
}

// Open opens the store in opts.Dir.
func Open(opts Options) (*DB, error) {
	opts = opts.withDefaults()
	db, err := open(opts)
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", opts.Dir, err)
	}
	return db, nil
}

func (o Options) withDefaults() Options {
	if o.LockTimeout == 0 {
		o.LockTimeout = 2 * time.Second
	}
	if o.MaxSize == 0 {
		o.MaxSize = 1 << 30
	}
	if o.CopyEvery == 0 {
		o.CopyEvery = time.Hour
	}
	if o.Verify == nil {
		o.Verify = func(_ context.Context, path string) error { return Verify(path) }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func open(opts Options) (*DB, error) {
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, err
	}
	bolt, err := bbolt.Open(filepath.Join(opts.Dir, "sluice.db"), 0o600, &bbolt.Options{
		Timeout: opts.LockTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, MaxSize: opts.MaxSize,
	})
	if err != nil {
		return nil, err
	}
	db := &DB{opts: opts, bolt: bolt}
	err = bolt.Update(func(btx *bbolt.Tx) error {
		if btx.Bucket([]byte(ownBucket)) != nil {
			return nil
		}
		tx := &Tx{bolt: btx}
		return tx.putState()
	})
	if err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	return db, nil
}

// Recovery says what was wrong with the files when they were opened, what took
// over, and where what was damaged lies now. It is empty when nothing was.
func (db *DB) Recovery() string { return "" }

// Run looks after the store until ctx is done: it makes copies.
func (db *DB) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Close waits for the transactions that are under way, and lets go of the files.
func (db *DB) Close() error { return db.bolt.Close() }

// View calls fn with all rows as they are now. What is written meanwhile waits
// for nobody and is not seen.
func (db *DB) View(fn func(*Tx) error) error {
	return db.bolt.View(func(btx *bbolt.Tx) error {
		tx, err := begin(btx)
		if err != nil {
			return err
		}
		return fn(tx)
	})
}

// Update calls fn with all rows and keeps what it changes, all of it or nothing.
// It is on the disk when Update returns nil. One Update runs at a time.
func (db *DB) Update(fn func(*Tx) error) error {
	db.writing.Lock()
	defer db.writing.Unlock()
	return asFull(db.bolt.Update(func(btx *bbolt.Tx) error {
		tx, err := begin(btx)
		if err != nil {
			return err
		}
		if err := errors.Join(fn(tx), tx.err); err != nil {
			return err
		}
		tx.state.sequence++
		return tx.putState()
	}))
}

// Backup writes the store to w, as one file that ReadCopy reads, and says how many
// bytes that took.
func (db *DB) Backup(w io.Writer) (int64, error) {
	var n int64
	err := db.bolt.View(func(btx *bbolt.Tx) (err error) {
		n, err = btx.WriteTo(w)
		return err
	})
	return n, err
}

// Verify checks the file at path: nothing of it is believed.
func Verify(path string) error {
	return ReadCopy(path, func(string, []byte, []byte) error { return nil })
}

// ReadCopy verifies the file at path, a copy or a backup, and then yields its rows.
func ReadCopy(path string, yield func(bucket string, key, value []byte) error) error {
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: 2 * time.Second})
	if err != nil {
		return err
	}
	defer bolt.Close()
	return bolt.View(func(btx *bbolt.Tx) error {
		return btx.ForEach(func(name []byte, rows *bbolt.Bucket) error {
			return rows.ForEach(func(key, record []byte) error {
				value, _, err := readRecord(string(name), key, record)
				if err != nil || string(name) == ownBucket {
					return err
				}
				return yield(string(name), key, value)
			})
		})
	})
}
