package disk

import (
	"errors"
	"fmt"
	"testing"
)

func TestDBKeepsWhatWasWritten(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, Options{Dir: dir})
	put(t, db, "a/1=one", "a/2=two", "b/1=eins")
	put(t, db, "a/2", "a/3=")
	want := rows{"a/1": "one", "a/3": "", "b/1": "eins"}
	mustHold(t, db, want)
	mustClose(t, db)

	db = mustOpen(t, Options{Dir: dir})
	mustHold(t, db, want)
	if db.Recovery() != "" {
		t.Errorf("recovery %q of a store that was closed", db.Recovery())
	}
}

func TestUpdateThatFailsChangesNothing(t *testing.T) {
	db := mustOpen(t, Options{Dir: t.TempDir()})
	put(t, db, "a/1=one")
	before := db.journal.size
	boom := errors.New("boom")
	err := db.Update(func(tx *Tx) error {
		return errors.Join(tx.Put("a", []byte("1"), []byte("two")), boom)
	})
	if !errors.Is(err, boom) {
		t.Errorf("update returned %v, want %v", err, boom)
	}
	mustHold(t, db, rows{"a/1": "one"})
	if db.journal.size != before {
		t.Error("the journal has the update that failed")
	}
}

func BenchmarkUpdate(b *testing.B) {
	db := mustOpen(b, Options{Dir: b.TempDir()})
	for i := 0; b.Loop(); i++ {
		put(b, db, fmt.Sprintf("a/%d=%0200d", i%1000, i))
	}
}
