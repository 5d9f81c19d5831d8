package disk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// verifyLimit bounds the check of one file. A gigabyte takes seconds.
	verifyLimit = 5 * time.Minute

	// growStep is by how much the file of rows grows, in bytes.
	growStep = 1 << 20

	// A file of rows of this many bytes, half of them free or more, is written
	// anew when the store is opened: bbolt never makes a file smaller.
	compactFrom = 1 << 20
)

// Open opens the store in opts.Dir, and makes one when there is none. A file that
// is damaged, cut short or of a later version is kept aside, and the last copy
// takes its place, with what the journal says came after it: Recovery tells. When
// that cannot be done, Open changes nothing and returns an error that says what to
// do.
func Open(opts Options) (*DB, error) {
	o := &opening{opts: opts.withDefaults()}
	db, err := o.open()
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", opts.Dir, err)
	}
	return db, nil
}

// An opening is one call of Open.
type opening struct {
	opts Options

	said     []string // sentences of the recovery
	tookOver bool     // the copy or the journal did
	lossy    bool     // what was written last may be missing
	oneMeta  bool     // one of the meta pages of the file of rows is not valid
	began    uint64   // change that the file of rows ended with, before the journal
}

func (o *opening) path(name string) string { return filepath.Join(o.opts.Dir, name) }

func (o *opening) say(form string, args ...any) {
	o.said = append(o.said, fmt.Sprintf(form, args...))
}

func (o *opening) open() (db *DB, err error) {
	if err := makeDir(o.opts.Dir); err != nil {
		return nil, err
	}
	if err := refuseNetwork(o.opts.Dir); err != nil {
		return nil, err
	}
	unlock, err := lock(o.opts.Dir, o.opts.LockTimeout)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unlock())
		}
	}()
	if err := removeUnfinished(o.opts.Dir); err != nil {
		return nil, err
	}
	if err := o.provide(); err != nil {
		return nil, err
	}
	bolt, err := o.openBolt()
	if err != nil {
		return nil, err
	}
	j, err := o.openJournal(bolt)
	if err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	return o.finish(bolt, j, unlock)
}

// finish makes the DB of what was opened. A journal that could not be read is
// replaced by an empty one, behind a copy that holds everything: nil stands for it.
func (o *opening) finish(bolt *bbolt.DB, j *journal, unlock func() error) (*DB, error) {
	db := &DB{opts: o.opts, bolt: bolt, unlock: unlock, journal: j, grown: make(chan struct{}, 1)}
	if j == nil {
		if err := db.beginJournal(); err != nil {
			if db.stuck.Load() {
				return nil, err
			}
			return nil, errors.Join(err, bolt.Close())
		}
	}
	db.recovery, db.lossy = strings.Join(o.said, "; "), o.lossy
	return db, nil
}

// beginJournal begins an empty journal, and makes the copy behind which it begins.
// Without room for that the store is opened nevertheless, because the file of rows
// is good, and Run tries again.
func (db *DB) beginJournal() error {
	st, err := db.state()
	if err != nil {
		return err
	}
	j, err := newJournal(db.opts.Dir, st.id, st.sequence, strings.NewReader(""), st.sequence)
	if err != nil {
		return err
	}
	if err := syncDir(db.opts.Dir); err != nil {
		return errors.Join(err, j.file.Close())
	}
	db.journal = j
	if st.sequence == 0 {
		return nil
	}
	if err := db.keepCopy(context.Background()); err != nil {
		db.opts.Log.Error("store not copied", "dir", db.opts.Dir, "err", err)
	}
	return nil
}

// verify checks a file before anything maps it.
func (o *opening) verify(path string) (state, error) {
	if _, err := os.Stat(path); err != nil {
		return state{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), verifyLimit)
	defer cancel()
	if err := o.opts.Verify(ctx, path); err != nil {
		return state{}, err
	}
	return fileState(path)
}

// fileState returns what the file at path says that it holds.
func fileState(path string) (state, error) {
	im, file, err := openImage(path)
	if err != nil {
		return state{}, err
	}
	defer file.Close()
	return im.state()
}

// provide sees to it that the file of rows is there and good.
func (o *opening) provide() error {
	st, err := o.verify(o.path(dbName))
	if err == nil {
		err = o.outdated(st)
	}
	switch {
	case err == nil:
		o.oneMeta, err = oneMeta(o.path(dbName))
		return err
	case missing(err) && o.empty():
		return o.create()
	case missing(err), Damaged(err), newer(err):
		return o.takeOver(err)
	}
	return err
}

// oneMeta reports whether only one meta page of a good file is valid.
func oneMeta(path string) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return false, err
	}
	_, both, err := newestMeta(file, info.Size())
	return !both, err
}

// outdated tells when a good file of rows is not the last one: somebody put an
// older one there, or its later meta page is damaged and bbolt would go by the
// earlier one, in silence. The journal would make up for what it still has; what it
// dropped is in the copy.
func (o *opening) outdated(st state) error {
	id, base, err := o.journalHeader()
	if err == nil && id == st.id {
		if base > st.sequence {
			return damagef("it ends with change %d, and changes up to %d had been written", st.sequence, base)
		}
		return nil
	}
	if err != nil && !missing(err) && !Damaged(err) && !newer(err) {
		return err
	}
	// Without a journal of this store the copy is what is left to compare with.
	copied, err := o.verify(o.path(copyName))
	switch {
	case err == nil && copied.id == st.id && copied.sequence > st.sequence:
		return damagef("it ends with change %d, and its copy with change %d", st.sequence, copied.sequence)
	case err == nil, missing(err), Damaged(err), newer(err):
		return nil
	}
	return err
}

// empty reports whether there is nothing of a store yet.
func (o *opening) empty() bool {
	for _, name := range []string{copyName, journalName} {
		if _, err := os.Lstat(o.path(name)); !missing(err) {
			return false
		}
	}
	return true
}

// create makes the file of a new store. A crash meanwhile leaves nothing that
// counts: it has its name only when it is whole.
func (o *opening) create() error {
	var st state
	rand.Read(st.id[:]) // never fails
	_, err := build(o.path(dbName)+newSuffix, func(*builder) (state, error) { return st, nil })
	if err != nil {
		return err
	}
	return putInPlace(o.path(dbName))
}

// openBolt maps the file of rows, and writes it anew when most of it is free.
func (o *opening) openBolt() (*bbolt.DB, error) {
	bolt, err := o.mapBolt()
	if err != nil || !mostlyFree(bolt) {
		return bolt, err
	}
	if err := bolt.Close(); err != nil {
		return nil, err
	}
	if err := o.compact(); err != nil {
		o.opts.Log.Warn("store not compacted", "dir", o.opts.Dir, "err", err)
	}
	return o.mapBolt()
}

func (o *opening) mapBolt() (*bbolt.DB, error) {
	// bbolt counts the next step that the file will grow by.
	limit := o.opts.MaxSize + max(o.opts.MaxSize/8, growStep) + growStep
	bolt, err := bbolt.Open(o.path(dbName), 0o600, &bbolt.Options{
		Timeout:        o.opts.LockTimeout,
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		MaxSize:        int(min(limit, math.MaxInt)),
		// Mapped once for as large as it may become: a mapping that grows
		// waits for all readers, and all readers then wait for it.
		InitialMmapSize: mapSize(limit),
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = fmt.Errorf("it is in use by %s, waited %v; end that process, or choose another directory", holder(o.path(dbName)), o.opts.LockTimeout)
	}
	if err != nil {
		return nil, err
	}
	bolt.AllocSize = growStep
	return bolt, nil
}

// mapSize is what is mapped of a file that may become max bytes long: all of it
// where addresses are plenty.
func mapSize(max int64) int {
	if math.MaxInt == math.MaxInt32 {
		return 0
	}
	return int(max)
}

func mostlyFree(bolt *bbolt.DB) bool {
	stats := bolt.Stats()
	free := int64(stats.FreePageN+stats.PendingPageN) * int64(bolt.Info().PageSize)
	var size int64
	err := bolt.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	return err == nil && size >= compactFrom && free > size/2
}

// compact puts a file with the same rows and no free pages in the place of the
// file of rows.
func (o *opening) compact() error {
	path := o.path(dbName)
	im, file, err := openImage(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = build(path+newSuffix, func(b *builder) (state, error) { return im.verify(b.put) })
	if err != nil {
		return err
	}
	if _, err := o.verify(path + newSuffix); err != nil {
		return errors.Join(err, os.Remove(path+newSuffix))
	}
	return putInPlace(path)
}
