package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// takeOver puts a file made of the copy and of the journal in the place of a file
// of rows that cannot be served, because of cause, and keeps that aside. Nothing
// is touched before what takes over is whole, and was verified.
func (o *opening) takeOver(cause error) error {
	from, err := o.sources()
	if err != nil {
		return err
	}
	if from.err != nil {
		return o.refuse(cause, from.err)
	}
	path := o.path(dbName)
	st, err := from.build(path+newSuffix, from.last)
	if bad := new(badEntry); errors.As(err, &bad) {
		from.last, from.whole = bad.sequence-1, false
		st, err = from.build(path+newSuffix, from.last)
	}
	if err == nil && !from.whole && !from.copied {
		return errors.Join(o.refuse(cause, errors.New(journalName+" is damaged, too, and there is no copy")), os.Remove(path+newSuffix))
	}
	if err != nil {
		return err
	}
	if _, err := o.verify(path + newSuffix); err != nil {
		return errors.Join(err, os.Remove(path+newSuffix))
	}
	return o.replace(cause, from, st)
}

// replace gives the file that takes over its place.
func (o *opening) replace(cause error, from *sources, st state) error {
	path := o.path(dbName)
	if missing(cause) {
		o.say("%s was missing", path)
	} else if err := o.setAside(dbName, cause); err != nil {
		return errors.Join(err, os.Remove(path+newSuffix))
	}
	if err := putInPlace(path); err != nil {
		return err
	}
	o.tookOver = true
	o.lossy = o.lossy || !from.whole
	o.say("%s took over, as of change %d%s", from, st.sequence, at(st))
	if Damaged(from.copyErr) || newer(from.copyErr) {
		return o.setAside(copyName, from.copyErr)
	}
	return nil
}

// at says when a state was written.
func at(st state) string {
	if st.changed == 0 {
		return ""
	}
	return " at " + time.UnixMilli(st.changed).UTC().Format("2006-01-02 15:04:05 UTC")
}

// refuse is the error of a store that cannot be opened, and says what to do.
func (o *opening) refuse(cause, without error) error {
	if newer(cause) {
		return fmt.Errorf("%s is of a later version (%w), and nothing else can take its place: %w; nothing was changed: run that version again, or move all files named sluice.* in this directory elsewhere and restore a backup", dbName, cause, without)
	}
	return fmt.Errorf("%s cannot be used (%w), and nothing else can take its place: %w; nothing was changed: move all files named sluice.* in this directory elsewhere and restore a backup", dbName, cause, without)
}

// sources are what a new file of rows can be made of.
type sources struct {
	o       *opening
	err     error  // why there is nothing, or nil
	copied  bool   // the copy is good; else the journal begins with an empty store
	copyErr error  // why it is not
	base    state  // where the journal is taken up
	last    uint64 // the last entry to take from it; base.sequence for none
	whole   bool   // the journal is whole, and goes on where base ends
}

func (s *sources) String() string {
	switch {
	case s.copied && s.last > s.base.sequence:
		return fmt.Sprintf("the copy and %d changes of the journal", s.last-s.base.sequence)
	case s.copied:
		return "the copy"
	}
	return "the journal"
}

// sources looks at what there is.
func (o *opening) sources() (*sources, error) {
	s := &sources{o: o}
	base, copyErr := o.verify(o.path(copyName))
	if copyErr != nil && !missing(copyErr) && !Damaged(copyErr) && !newer(copyErr) {
		return nil, copyErr
	}
	s.copied, s.copyErr, s.base, s.last = copyErr == nil, copyErr, base, base.sequence
	read, err := o.readJournal(func(entry) error { return nil })
	switch {
	case err != nil && !missing(err) && !Damaged(err) && !newer(err):
		return nil, err
	case err != nil && !s.copied:
		s.err = fmt.Errorf("%s: %w; %s: %w", copyName, copyErr, journalName, err)
		return s, nil
	case err != nil:
		return s, nil
	}
	j := read.journal
	if !s.copied {
		s.base = state{id: j.id}
		if j.base > 0 || read.damage != nil {
			why := read.damage
			if j.base > 0 {
				why = fmt.Errorf("it begins behind change %d", j.base)
			}
			s.err = fmt.Errorf("%s: %w; %s: %w", copyName, copyErr, journalName, why)
			return s, nil
		}
	}
	if j.id == s.base.id && j.base <= s.base.sequence && j.last >= s.base.sequence {
		s.last, s.whole = j.last, read.damage == nil
	}
	return s, nil
}

// badEntry is an entry of the journal that does not lead to where it says.
type badEntry struct {
	sequence uint64
	err      error
}

func (e *badEntry) Error() string { return e.err.Error() }

// build makes the file at path of the sources, with the journal up to the entry
// last.
func (s *sources) build(path string, last uint64) (state, error) {
	return build(path, func(b *builder) (state, error) {
		st := s.base
		if s.copied {
			if err := s.o.fillFromCopy(b); err != nil {
				return state{}, err
			}
		}
		b.tx.state = st
		if last == st.sequence {
			return st, nil
		}
		_, err := s.o.readJournal(func(e entry) error {
			if e.sequence <= s.base.sequence || e.sequence > last {
				return nil
			}
			if err := b.apply(e); err != nil {
				return &badEntry{sequence: e.sequence, err: err}
			}
			return nil
		})
		return b.tx.state, err
	})
}

func (o *opening) fillFromCopy(b *builder) error {
	im, file, err := openImage(o.path(copyName))
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = im.verify(b.put)
	return err
}

// readJournal reads the journal of the store.
func (o *opening) readJournal(yield func(entry) error) (*reading, error) {
	file, err := os.Open(o.path(journalName))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return readJournal(file, info.Size(), yield)
}

// doubt says what cannot be excluded without a journal.
func (o *opening) doubt(bolt *bbolt.DB) error {
	o.lossy = true
	st, err := boltState(bolt)
	o.say("the rows are those of change %d%s, and what was written after that, if there was anything, is lost", st.sequence, at(st))
	return err
}

// journalHeader returns which store the journal is of, and behind which change it
// begins.
func (o *opening) journalHeader() (id [16]byte, base uint64, err error) {
	file, err := os.Open(o.path(journalName))
	if err != nil {
		return id, 0, err
	}
	defer file.Close()
	j, err := readHeader(file)
	if err != nil {
		return id, 0, err
	}
	return j.id, j.base, nil
}

// openJournal opens the journal for appending, after making the changes in it that
// the file of rows lacks: a crash came between the two. It returns nil for a
// journal that cannot be gone on with, which is kept aside.
func (o *opening) openJournal(bolt *bbolt.DB) (*journal, error) {
	path := o.path(journalName)
	st, err := boltState(bolt)
	if err != nil {
		return nil, err
	}
	o.began = st.sequence
	read, err := o.replay(bolt, st)
	switch {
	case missing(err):
		if st.sequence > 0 {
			o.say("%s was missing", path)
			return nil, o.doubt(bolt)
		}
		return nil, nil
	case err == nil:
		err = o.unusable(read, bolt)
	}
	if Damaged(err) || newer(err) {
		if err := o.setAside(journalName, err); err != nil {
			return nil, err
		}
		return nil, o.doubt(bolt)
	}
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	j := read.journal
	j.file, j.path = durable{file}, path
	if read.torn > 0 {
		if err := j.cut(j.size, j.last); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	return j, nil
}

// replay makes the changes of the journal that come after st.
func (o *opening) replay(bolt *bbolt.DB, st state) (*reading, error) {
	if id, _, err := o.journalHeader(); err == nil && id != st.id {
		return nil, damagef("it is of another store")
	}
	return o.readJournal(func(e entry) error {
		if e.sequence <= st.sequence {
			return nil
		}
		err := bolt.Update(func(btx *bbolt.Tx) error {
			tx, err := newTx(btx)
			if err != nil {
				return err
			}
			if err := e.apply(tx); err != nil {
				return err
			}
			return tx.putState()
		})
		return asFull(err)
	})
}

// unusable says why a journal that could be read cannot be gone on with: after the
// entries in it, its next one must be the next change of the rows.
func (o *opening) unusable(read *reading, bolt *bbolt.DB) error {
	st, err := boltState(bolt)
	if err != nil {
		return err
	}
	switch {
	case read.highest > st.sequence:
		return damagef("%v; it had changes up to %d", read.damage, read.highest)
	case read.damage != nil:
		return read.damage
	case read.journal.last < st.sequence:
		return damagef("it ends with change %d, the rows with %d", read.journal.last, st.sequence)
	case read.torn > 0 && (o.tookOver || o.oneMeta && read.journal.last == o.began):
		// A crash leaves only one of these behind.
		return damagef("its last %d bytes are not whole", read.torn)
	}
	return nil
}

// setAside keeps a file that cannot be gone on with. It stays under its own name,
// too, until another one takes its place.
func (o *opening) setAside(name string, cause error) error {
	path := o.path(name)
	aside, err := keepAside(path, o.opts.Now())
	if err != nil {
		return fmt.Errorf("keep %q aside: %w", path, err)
	}
	o.say("%s cannot be used (%v) and now lies in %s", path, cause, filepath.Base(aside))
	return nil
}

func boltState(bolt *bbolt.DB) (st state, err error) {
	err = bolt.View(func(btx *bbolt.Tx) error {
		tx, err := newTx(btx)
		if err == nil {
			st = tx.state
		}
		return err
	})
	return st, err
}
