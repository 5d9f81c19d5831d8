package disk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Options say where a store lies and how it is looked after.
type Options struct {
	// Dir holds the files; it is made when it is not there.
	Dir string

	// LockTimeout bounds the wait for another process that holds Dir. Zero means 2s.
	LockTimeout time.Duration

	// MaxSize bounds the file of rows, in bytes; deletions may take an eighth, and
	// at least 1 MiB, beyond it. Zero means 1 GiB.
	MaxSize int64

	// CopyEvery is how often Run makes a copy. Zero means 1h.
	CopyEvery time.Duration

	// Verify checks a file before it is mapped, as the function of that name does;
	// nil means that function, in this process. A file can be so damaged that
	// whoever maps it dies: a program passes InChild. An error that is not
	// Damaged means that the file could not be checked, and ends Open.
	Verify func(ctx context.Context, path string) error

	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // of what Run and Open did by themselves; nil means none
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

// DB is an open store. Its methods may be called from any goroutine.
type DB struct {
	// Fixed at construction.
	opts     Options
	bolt     *bbolt.DB
	recovery string
	lossy    bool
	unlock   func() error
	grown    chan struct{} // tells Run that the journal is long

	copying sync.Mutex // held by the one that makes a copy; before writing

	writing sync.Mutex // guards the fields below; held by the one Update at a time
	journal *journal
	torn    bool // the journal may hold an entry that must not come back
	closed  bool

	// Why nothing can be written any more until the store is opened again. Set
	// by whoever finds out, read by Update.
	failed atomic.Pointer[error]

	// Set when bbolt ended in the midst of its own locks: it is not called again.
	stuck atomic.Bool
}

// Recovery says what was wrong with the files when they were opened, what took
// over, and where what was damaged lies now. It is empty when nothing was.
func (db *DB) Recovery() string { return db.recovery }

// Lossy tells whether something that was written may be missing since the files were
// opened: an older file took over, and no journal says what came after it.
func (db *DB) Lossy() bool { return db.lossy }

// Close waits for the transactions that are under way, and lets go of the files.
func (db *DB) Close() error {
	db.copying.Lock()
	defer db.copying.Unlock()
	db.writing.Lock()
	defer db.writing.Unlock()
	if db.closed {
		return nil
	}
	db.closed = true
	var err error
	if !db.stuck.Load() {
		err = db.bolt.Close()
	}
	err = errors.Join(err, db.journal.file.Close(), db.unlock())
	if err != nil {
		return fmt.Errorf("close store %q: %w", db.opts.Dir, err)
	}
	return nil
}

// begin begins a transaction of bbolt.
func (db *DB) begin(writable bool) (btx *bbolt.Tx, err error) {
	if db.stuck.Load() {
		return nil, fmt.Errorf("store %q: %w", db.opts.Dir, *db.failed.Load())
	}
	defer func() {
		if Damaged(err) {
			db.stuck.Store(true)
		}
	}()
	defer db.survive("begin to read", &err, true)()
	btx, err = db.bolt.Begin(writable)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		err = ErrClosed
	}
	if err != nil {
		err = fmt.Errorf("store %q: %w", db.opts.Dir, err)
	}
	return btx, err
}

// View calls fn with all rows as they are now. What is written meanwhile waits
// for nobody and is not seen; the space of what is deleted meanwhile is not used
// again before View returns.
func (db *DB) View(fn func(*Tx) error) (err error) {
	btx, err := db.begin(false)
	if err != nil {
		return err
	}
	defer func() { _ = btx.Rollback() }() // returns nothing but that it is closed
	defer db.survive("read", &err, false)()
	tx, err := newTx(btx)
	if err != nil {
		return err
	}
	return fn(tx)
}

// Update calls fn with all rows and keeps what it changes, all of it or nothing.
// It is on the disk when Update returns nil. One Update runs at a time.
func (db *DB) Update(fn func(*Tx) error) error {
	db.writing.Lock()
	defer db.writing.Unlock()
	if err := db.writable(); err != nil {
		return err
	}
	btx, err := db.begin(true)
	if err != nil {
		return err
	}
	defer func() { _ = btx.Rollback() }() // of nothing, after a commit
	tx, err := db.change(btx, fn)
	if err != nil || len(tx.ops) == 0 {
		return err
	}
	if err := db.room(btx, tx); err != nil {
		return err
	}
	tx.state.sequence++
	tx.state.changed = db.opts.Now().UnixMilli()
	if err := tx.putState(); err != nil {
		return fmt.Errorf("write store %q: %w", db.opts.Dir, err)
	}
	return db.commit(btx, tx)
}

// writable says why nothing can be written, after trying to make it so.
func (db *DB) writable() error {
	if failed := db.failed.Load(); failed != nil {
		return fmt.Errorf("write store %q: %w", db.opts.Dir, *failed)
	}
	if db.torn && !db.closed {
		if err := db.journal.cut(db.journal.size, db.journal.last); err != nil {
			return asFull(err)
		}
		db.torn = false
	}
	return nil
}

// change has fn make its changes.
func (db *DB) change(btx *bbolt.Tx, fn func(*Tx) error) (tx *Tx, err error) {
	defer db.survive("change", &err, false)()
	tx, err = newTx(btx)
	if err != nil {
		return nil, err
	}
	if err := fn(tx); err != nil {
		return nil, err
	}
	return tx, tx.err
}

// room refuses what would fill the file of rows up to MaxSize. What makes room may
// still use the reserve that bbolt has beyond that: to delete rows it writes
// their pages anew before it frees the old ones.
func (db *DB) room(btx *bbolt.Tx, tx *Tx) error {
	stats := db.bolt.Stats()
	free := int64(stats.FreePageN+stats.PendingPageN) * int64(db.bolt.Info().PageSize)
	// Twice what is added is at most what it takes, in pages that are not full.
	if tx.grown <= 0 || btx.Size()-free+2*int64(tx.grown) <= db.opts.MaxSize {
		return nil
	}
	return fmt.Errorf("write %q: limit %d bytes: %w", db.bolt.Path(), db.opts.MaxSize, ErrFull)
}

// commit makes what tx changed durable: in the journal first, then in bbolt. When
// bbolt cannot take it, the journal forgets it again.
func (db *DB) commit(btx *bbolt.Tx, tx *Tx) error {
	size, last := db.journal.size, db.journal.last
	err := db.journal.append(appendEntry(nil, tx.state, tx.ops), tx.state.sequence)
	if err != nil {
		db.torn = isTorn(err)
		return err
	}
	err = db.commitBolt(btx)
	if err == nil {
		db.tellGrown()
		return nil
	}
	if db.reads(tx.state.sequence) {
		// All was written but the last sync, of the meta page: readers see the
		// change, and the journal has it. Only nobody knows any more what of
		// the file is on the disk.
		db.fail(fmt.Errorf("the disk failed when %q was synced; open the store again: %w", db.bolt.Path(), err))
		return nil
	}
	err = fmt.Errorf("write %q: %w", db.bolt.Path(), asFull(err))
	if cut := db.journal.cut(size, last); cut != nil {
		db.torn = true
		err = errors.Join(err, cut)
	}
	return err
}

func (db *DB) commitBolt(btx *bbolt.Tx) (err error) {
	defer db.survive("commit", &err, true)()
	return btx.Commit()
}

// reads reports whether readers see the Update of sequence.
func (db *DB) reads(sequence uint64) bool {
	seen := false
	err := db.View(func(tx *Tx) error {
		seen = tx.state.sequence == sequence
		return nil
	})
	return err == nil && seen
}

func (db *DB) fail(err error) {
	if db.failed.CompareAndSwap(nil, &err) {
		db.opts.Log.Error("store stopped writing", "dir", db.opts.Dir, "err", err)
	}
}

// survive is deferred, called, around whatever reads the mapping of a file that
// somebody may cut short, or that lies on a disk that may fail, while it is
// mapped: the fault is an error then and not the end of the process. It also
// catches what bbolt says of a file that is not what it should be, in a panic,
// when all panics are bbolt's.
func (db *DB) survive(doing string, err *error, all bool) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		p := recover()
		if p == nil {
			return
		}
		if !all && !isFault(p) {
			panic(p)
		}
		*err = damagef("%s %q: %v", doing, db.bolt.Path(), p)
		db.fail(*err)
	}
}

// isFault reports whether a panic is of memory that could not be read.
func isFault(p any) bool {
	fault, ok := p.(runtime.Error)
	if !ok {
		return false
	}
	_, ok = fault.(interface{ Addr() uintptr })
	return ok
}

// tellGrown tells Run when the journal is so long that a copy is worth its while.
func (db *DB) tellGrown() {
	if db.journal.size < journalLong {
		return
	}
	select {
	case db.grown <- struct{}{}:
	default: // it knows
	}
}
