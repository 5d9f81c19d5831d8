package disk

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// copyRetry is how long Run waits after a copy that could not be made.
const copyRetry = time.Minute

// Run looks after the store until ctx is done: it makes a copy every
// Options.CopyEvery, and earlier when the journal has become long. A copy that
// cannot be made is logged and tried again; the journal keeps everything until
// then.
func (db *DB) Run(ctx context.Context) error {
	wait, grown := db.untilCopy(), db.grown
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-grown:
			timer.Stop()
		}
		wait, grown = db.opts.CopyEvery, db.grown
		if err := db.keepCopy(ctx); err != nil && ctx.Err() == nil {
			db.opts.Log.Error("store not copied", "dir", db.opts.Dir, "err", err)
			// Every Update says that the journal is long; once is enough.
			wait, grown = min(wait, copyRetry), nil
		}
	}
}

// untilCopy is the time that the copy at hand is still good for. It is good for
// nothing when the journal does not go on where it ends.
func (db *DB) untilCopy() time.Duration {
	path := db.path(copyName)
	st, err := fileState(path)
	if err != nil {
		return 0
	}
	db.writing.Lock()
	gap := st.id != db.journal.id || st.sequence < db.journal.base
	db.writing.Unlock()
	info, err := os.Stat(path)
	if err != nil || gap {
		return 0
	}
	age := db.opts.Now().Sub(info.ModTime())
	return min(max(db.opts.CopyEvery-age, 0), db.opts.CopyEvery)
}

func (db *DB) path(name string) string { return filepath.Join(db.opts.Dir, name) }

// keepCopy sees to it that there is a copy of the rows as they are now: a new one,
// or the one that is there, when nothing has changed since and it is still good.
func (db *DB) keepCopy(ctx context.Context) error {
	db.copying.Lock()
	defer db.copying.Unlock()
	// Rows that cannot be read say nothing about the copy. It may be all there is.
	now, err := db.state()
	if err != nil {
		return err
	}
	path := db.path(copyName)
	good, err := db.checkCopy(ctx, path, now)
	if good {
		return os.Chtimes(path, time.Time{}, db.opts.Now())
	}
	if err != nil && !missing(err) && !Damaged(err) && !newer(err) {
		return err
	}
	return db.makeCopy(ctx, err)
}

// checkCopy reports whether the copy at hand holds the rows of state now. One that
// may be replaced by another one is no error.
func (db *DB) checkCopy(ctx context.Context, path string, now state) (good bool, err error) {
	if _, err := os.Stat(path); err != nil {
		return false, err
	}
	if err := db.opts.Verify(ctx, path); err != nil {
		return false, err
	}
	st, err := fileState(path)
	if err == nil && st.id != now.id {
		err = damagef("it is of another store")
	}
	return err == nil && st == now, err
}

// setCopyAside keeps a copy that is none, because of cause, when another one is
// about to take its name.
func (db *DB) setCopyAside(path string, cause error) error {
	if cause == nil || missing(cause) {
		return nil
	}
	aside, err := keepAside(path, db.opts.Now())
	if err != nil {
		return err
	}
	db.opts.Log.Error("copy of the store kept aside", "path", aside, "err", cause)
	return nil
}

// state returns what the rows are now.
func (db *DB) state() (st state, err error) {
	err = db.View(func(tx *Tx) error {
		st = tx.state
		return nil
	})
	return st, err
}

// makeCopy replaces the copy by one of the rows as they are now, and has the
// journal drop what the copy holds. What is wrong with the one at hand is old; it
// keeps its name until the new one is whole. The caller holds copying.
func (db *DB) makeCopy(ctx context.Context, old error) error {
	path := db.path(copyName)
	var size int64 // of the journal, as far as the copy holds it
	st, err := build(path+newSuffix, func(b *builder) (state, error) { return db.fill(b, &size) })
	if err != nil {
		return err
	}
	if err := db.opts.Verify(ctx, path+newSuffix); err != nil {
		return errors.Join(err, os.Remove(path+newSuffix))
	}
	if err := db.setCopyAside(path, old); err != nil {
		return errors.Join(err, os.Remove(path+newSuffix))
	}
	if err := putInPlace(path); err != nil {
		return err
	}
	return db.dropJournal(st, size)
}

// fill puts all rows as they are now into a file that is being built, and says how
// long the journal was then.
func (db *DB) fill(b *builder, size *int64) (st state, err error) {
	// Between two Updates, so that rows and journal agree.
	db.writing.Lock()
	btx, err := db.begin(false)
	*size = db.journal.size
	db.writing.Unlock()
	if err != nil {
		return state{}, err
	}
	defer func() { _ = btx.Rollback() }() // returns nothing but that it is closed
	defer db.survive("copy", &err, false)()
	tx, err := newTx(btx)
	if err != nil {
		return state{}, err
	}
	return tx.state, btx.ForEach(func(name []byte, rows *bbolt.Bucket) error {
		if string(name) == ownBucket {
			return nil
		}
		return rows.ForEach(func(key, record []byte) error {
			value, _, err := readRecord(string(name), key, record)
			if err != nil {
				return err
			}
			return b.put(string(name), key, value)
		})
	})
}

// dropJournal begins the journal anew behind what a copy of state st holds, which
// are its first size bytes.
func (db *DB) dropJournal(st state, size int64) error {
	db.writing.Lock()
	defer db.writing.Unlock()
	if db.closed {
		return ErrClosed
	}
	old := db.journal
	kept := io.NewSectionReader(old.file, size, old.size-size)
	j, err := newJournal(db.opts.Dir, st.id, st.sequence, kept, old.last)
	if err != nil {
		return err
	}
	db.journal, db.torn = j, false
	return errors.Join(old.file.Close(), syncDir(db.opts.Dir))
}
