package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestDBOutlivesFileCutShort cuts the file while it is mapped, where reading it
// would end the process.
func TestDBOutlivesFileCutShort(t *testing.T) {
	for _, tt := range []struct {
		size   int64
		copied int // the step that a copy is made after
	}{{size: 8192}, {size: 0}, {size: 8192, copied: 49}, {size: 0, copied: 49}, {size: 0, copied: 50}} {
		t.Run(fmt.Sprintf("%d, copied after %d", tt.size, tt.copied), func(t *testing.T) {
			dir := t.TempDir()
			db := mustOpen(t, Options{Dir: dir})
			for n := 1; n <= 50; n++ {
				put(t, db, step(n)...)
				if n != tt.copied {
					continue
				}
				if err := db.keepCopy(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Truncate(db.path(dbName), tt.size); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := readAll(db); !Damaged(err) {
					t.Errorf("read: %v, want damage", err)
				}
				if err := tryPut(db, "a/1=one"); !Damaged(err) {
					t.Errorf("write: %v, want damage", err)
				}
				if _, err := db.Backup(io.Discard); !Damaged(err) {
					t.Errorf("backup: %v, want damage", err)
				}
				if err := db.keepCopy(context.Background()); !Damaged(err) {
					t.Errorf("copy: %v, want damage", err)
				}
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			mustRecoverAs(t, dir, "file cut short", 50)
		})
	}
}

// TestDBGoesOnWhenCallerPanics lets the panic through, and nothing else.
func TestDBGoesOnWhenCallerPanics(t *testing.T) {
	db := mustOpen(t, Options{Dir: t.TempDir()})
	for name, call := range map[string]func(func(*Tx) error) error{"view": db.View, "update": db.Update} {
		func() {
			defer func() {
				if p := recover(); p != "mine" {
					t.Errorf("%s: panic %v, want the caller's", name, p)
				}
			}()
			_ = call(func(*Tx) error { panic("mine") })
		}()
	}
	put(t, db, "a/1=one")
	mustHold(t, db, rows{"a/1": "one"})
}

// TestUpdateAfterFailedSyncOfMetaPage has bbolt fail when all is written: the change
// is there and stays, and nothing more is written.
func TestUpdateAfterFailedSyncOfMetaPage(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, Options{Dir: dir})
	err := db.Update(func(tx *Tx) error {
		tx.bolt.OnCommit(func() { panic("sync failed") })
		return tx.Put("a", []byte("1"), []byte("one"))
	})
	if err != nil {
		t.Errorf("update: %v, but it is in the journal and to be seen", err)
	}
	if err := tryPut(db, "a/2=two"); err == nil || !strings.Contains(err.Error(), "sync failed") {
		t.Errorf("next update: %v, want the reason why it cannot be written", err)
	}
	mustHold(t, db, rows{"a/1": "one"})
	mustClose(t, db)
	db = mustOpen(t, Options{Dir: dir})
	put(t, db, "a/2=two")
	mustHold(t, db, rows{"a/1": "one", "a/2": "two"})
}

// badFile is the file of a journal on a disk that fails.
type badFile struct {
	journalFile
	write, sync, truncate error
}

func (f *badFile) WriteAt(b []byte, at int64) (int, error) {
	if f.write == nil {
		return f.journalFile.WriteAt(b, at)
	}
	n, _ := f.journalFile.WriteAt(b[:len(b)/2], at)
	return n, f.write
}

func (f *badFile) Sync() error {
	if f.sync != nil {
		return f.sync
	}
	return f.journalFile.Sync()
}

func (f *badFile) Truncate(size int64) error {
	if f.truncate != nil {
		return f.truncate
	}
	return f.journalFile.Truncate(size)
}

func TestUpdateWhenJournalCannotBeWritten(t *testing.T) {
	full := &os.PathError{Op: "write", Path: "journal", Err: syscall.ENOSPC}
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		bad  badFile
		want error
	}{
		{"full", badFile{write: full}, ErrFull},
		{"quota", badFile{write: syscall.EDQUOT}, ErrFull},
		{"sync", badFile{sync: broken}, broken},
		{"full, not to be cut", badFile{write: full, truncate: broken}, ErrFull},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			db := mustOpen(t, Options{Dir: dir})
			put(t, db, "a/1=one")
			good := db.journal.file
			tt.bad.journalFile = good
			db.journal.file = &tt.bad
			for range 2 {
				if err := tryPut(db, "a/1=two", "a/2=two"); err == nil || !errors.Is(err, tt.want) && tt.bad.truncate == nil {
					t.Errorf("update: %v, want %v", err, tt.want)
				}
				mustHold(t, db, rows{"a/1": "one"})
			}
			if left := len(readFiles(t, dir)[journalName]); tt.bad.truncate == nil && int64(left) != db.journal.size {
				t.Errorf("journal of %d bytes, want %d: what was refused could come back", left, db.journal.size)
			}
			db.journal.file = good
			put(t, db, "a/3=three")
			mustHold(t, db, rows{"a/1": "one", "a/3": "three"})
			mustClose(t, db)
			db = mustOpen(t, Options{Dir: dir})
			mustHold(t, db, rows{"a/1": "one", "a/3": "three"})
		})
	}
}

// TestDBIsFullAtItsLimit fills the file of rows up to MaxSize: what makes room can
// still be written.
func TestDBIsFullAtItsLimit(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, Options{Dir: dir, MaxSize: 1 << 20})
	want := rows{}
	var err error
	for n := 0; err == nil; n++ {
		row, value := fmt.Sprintf("a/%d", n), strings.Repeat("x", 20_000)
		if err = tryPut(db, row+"="+value); err == nil {
			want[row] = value
		}
	}
	if !errors.Is(err, ErrFull) || Damaged(err) {
		t.Errorf("write: %v, want %v", err, ErrFull)
	}
	if len(want) < 30 || db.journal.last != uint64(len(want)) {
		t.Errorf("%d rows written, the journal ends with change %d", len(want), db.journal.last)
	}
	mustHold(t, db, want)
	put(t, db, "a/1", "a/2", "a/3", "a/4") // room again
	put(t, db, "a/1=one")
	for _, gone := range []string{"a/2", "a/3", "a/4"} {
		delete(want, gone)
	}
	want["a/1"] = "one"
	mustHold(t, db, want)
	mustClose(t, db)
	mustHold(t, mustOpen(t, Options{Dir: dir}), want)
}

// TestUpdateThatBboltRefuses goes beyond the reserve: bbolt fails when the journal
// has the entry already, and the journal forgets it.
func TestUpdateThatBboltRefuses(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, Options{Dir: dir, MaxSize: 1 << 20})
	put(t, db, "a/1=one", "a/2=two")
	db.opts.MaxSize = 1 << 30 // bbolt keeps to what it was told
	before := db.journal.size
	err := tryPut(db, "a/2=", "a/3="+strings.Repeat("x", 5<<20))
	if !errors.Is(err, ErrFull) {
		t.Errorf("write: %v, want %v", err, ErrFull)
	}
	if db.journal.size != before || db.journal.last != 1 {
		t.Error("the journal has the update that bbolt refused")
	}
	mustHold(t, db, rows{"a/1": "one", "a/2": "two"})
	put(t, db, "a/3=three")
	mustHold(t, db, rows{"a/1": "one", "a/2": "two", "a/3": "three"})
}

// seenFile tells what is done to the file of a journal.
type seenFile struct {
	journalFile
	did func(what string)
}

func (f seenFile) WriteAt(b []byte, at int64) (int, error) {
	f.did("write")
	return f.journalFile.WriteAt(b, at)
}

func (f seenFile) Sync() error {
	f.did("sync")
	return f.journalFile.Sync()
}

// TestUpdateIsInTheJournalFirst: on the disk, before bbolt has anything of it.
func TestUpdateIsInTheJournalFirst(t *testing.T) {
	db := mustOpen(t, Options{Dir: t.TempDir()})
	put(t, db, "a/1=one")
	var did []string
	before := readFiles(t, db.opts.Dir)[dbName]
	db.journal.file = seenFile{db.journal.file, func(what string) {
		did = append(did, what)
		if !bytes.Equal(readFiles(t, db.opts.Dir)[dbName], before) {
			t.Errorf("%s of the journal: bbolt has written", what)
		}
	}}
	put(t, db, "a/1=two")
	if got := strings.Join(did, " "); got != "write sync" {
		t.Errorf("the journal: %s, want one write and one sync", got)
	}
	if db.bolt.NoSync || db.bolt.NoGrowSync {
		t.Error("bbolt does not sync")
	}
}
