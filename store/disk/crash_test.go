package disk

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
)

// A crash of the machine keeps of what was not synced any part. These tests make
// the files that it can leave behind, from those before and after, and open them.

// TestDBOpensAfterPowerCutInUpdate cuts an Update at its three stages: in the
// journal, in the pages of bbolt, in its meta page. An entry that is whole in the
// journal is there, one that is not is not, and neither is a recovery.
func TestDBOpensAfterPowerCutInUpdate(t *testing.T) {
	dir, scratch := inMemory(t), filepath.Join(inMemory(t), "cut")
	random := rand.New(rand.NewPCG(1, 2))
	db := mustOpen(t, Options{Dir: dir})
	for n := 1; n <= 40; n++ {
		before := readFiles(t, dir)
		put(t, db, step(n)...)
		after := readFiles(t, dir)
		for _, cut := range cuts(before, after, random) {
			writeFiles(t, scratch, cut.left)
			want := n
			if !cut.done {
				want = n - 1
			}
			mustOpenAs(t, scratch, "update "+cut.name, want)
		}
		if n%17 == 0 {
			if err := db.keepCopy(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// mustOpenAs opens a store that must hold what the first n steps lead to, without
// a recovery.
func mustOpenAs(t *testing.T, dir, what string, n int) {
	t.Helper()
	db, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatalf("%s, step %d: %v", what, n, err)
	}
	defer mustClose(t, db)
	if db.Recovery() != "" {
		t.Errorf("%s, step %d: recovery: %s", what, n, db.Recovery())
	}
	if got, want := content(t, db), rowsAfter(n); !maps.Equal(got, want) {
		t.Errorf("%s: %d rows, want the %d of step %d, or others", what, len(got), len(want), n)
	}
}

// A cut is what a crash in an Update left behind.
type cut struct {
	name string
	left files
	done bool // the entry was whole in the journal
}

func cuts(before, after files, random *rand.Rand) []cut {
	old, all := before[journalName], after[journalName]
	var made []cut
	for _, n := range []int{len(old), len(old) + 1, len(old) + entryHeader, len(all) - 1, len(old) + random.IntN(len(all)-len(old))} {
		torn := all[:n]
		made = append(made, cut{name: "torn journal", left: before.with(files{journalName: torn})})
		// The size of a file may reach the disk before its content.
		zeros := append(slices.Clone(torn), make([]byte, len(all)-n)...)
		// Once in a while it was zeros that were cut off.
		whole := bytes.Equal(zeros, all)
		made = append(made, cut{name: "journal with zeros", left: before.with(files{journalName: zeros}), done: whole})
	}
	written := after.with(files{dbName: before[dbName]})
	made = append(made, cut{name: "no page", left: written, done: true})
	for range 4 {
		db := somePages(before[dbName], after[dbName], random)
		made = append(made, cut{name: "some pages", left: written.with(files{dbName: db}), done: true})
	}
	for _, n := range []int{16, 16 + 48, 16 + 56, 16 + 60, 16 + 64} {
		db := tornMeta(before[dbName], after[dbName], n)
		made = append(made, cut{name: "torn meta page", left: written.with(files{dbName: db}), done: true})
	}
	return made
}

const pageSize = 4096

// somePages returns before with any of the pages of after but the meta pages, some
// of them in part.
func somePages(before, after []byte, random *rand.Rand) []byte {
	db := slices.Clone(before)
	if len(db) < len(after) && random.IntN(2) == 0 {
		db = append(db, make([]byte, len(after)-len(db))...)
	}
	for at := 2 * pageSize; at < len(db); at += pageSize {
		if random.IntN(3) > 0 {
			copy(db[at:at+pageSize-512*random.IntN(8)], after[at:])
		}
	}
	return db
}

// tornMeta returns after with only the first n bytes of what is new in its meta
// pages.
func tornMeta(before, after []byte, n int) []byte {
	db := slices.Clone(after)
	for _, at := range []int{0, pageSize} {
		if !bytes.Equal(before[at:at+pageSize], after[at:at+pageSize]) {
			copy(db[at+n:at+pageSize], before[at+n:])
		}
	}
	return db
}

// TestDBOpensAfterPowerCutInCopy cuts the making of a copy between any two of its
// renamings, with and without the file of rows being lost at the same time.
func TestDBOpensAfterPowerCutInCopy(t *testing.T) {
	dir, scratch := inMemory(t), filepath.Join(inMemory(t), "cut")
	db := mustOpen(t, Options{Dir: dir})
	n := 0
	write := func() files {
		for range 9 {
			n++
			put(t, db, step(n)...)
		}
		return readFiles(t, dir)
	}
	write()
	if err := db.keepCopy(context.Background()); err != nil {
		t.Fatal(err)
	}
	old := write()
	if err := db.keepCopy(context.Background()); err != nil {
		t.Fatal(err)
	}
	now := readFiles(t, dir)
	for _, tt := range []struct {
		name string
		left files
	}{
		{"before", old},
		{"half a copy", old.with(files{copyName + newSuffix: now[copyName][:5000]})},
		{"copy not renamed", old.with(files{copyName + newSuffix: now[copyName]})},
		{"copy renamed", old.with(files{copyName: now[copyName]})},
		{"half a journal", old.with(files{copyName: now[copyName], journalName + newSuffix: now[journalName][:20]})},
		{"journal renamed", now},
		{"half a backup", now.with(files{"sluice.backup.123.new": now[copyName][:100]})},
	} {
		writeFiles(t, scratch, tt.left)
		mustOpenAs(t, scratch, tt.name, n)
		for name, db := range map[string][]byte{"lost": nil, "emptied": {}, "halved": tt.left[dbName][:9000]} {
			writeFiles(t, scratch, tt.left.with(files{dbName: db}))
			mustRecoverAs(t, scratch, tt.name+", rows "+name, n)
		}
	}
}

// mustRecoverAs opens a store that must hold what the first n steps lead to, and
// say that it was not well.
func mustRecoverAs(t *testing.T, dir, what string, n int) {
	t.Helper()
	db, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer mustClose(t, db)
	if db.Recovery() == "" {
		t.Errorf("%s: no recovery", what)
	}
	if got, want := content(t, db), rowsAfter(n); !maps.Equal(got, want) {
		t.Errorf("%s: %d rows, want the %d of step %d, or others; recovery: %s", what, len(got), len(want), n, db.Recovery())
	}
}

// TestDBBeginsAfterCrashInFirstOpen leaves what each moment of the very first
// opening can leave behind.
func TestDBBeginsAfterCrashInFirstOpen(t *testing.T) {
	dir, scratch := inMemory(t), filepath.Join(inMemory(t), "cut")
	db := mustOpen(t, Options{Dir: dir})
	begun := readFiles(t, dir)
	for name, left := range map[string]files{
		"empty directory":        {},
		"nothing written":        {dbName + newSuffix: {}},
		"half a file of rows":    {dbName + newSuffix: begun[dbName][:5000]},
		"no journal":             {dbName: begun[dbName]},
		"half a journal":         {dbName: begun[dbName], journalName + newSuffix: begun[journalName][:10]},
		"journal, not yet named": {dbName: begun[dbName], journalName + newSuffix: begun[journalName]},
		"all":                    begun,
	} {
		writeFiles(t, scratch, left)
		mustOpenAs(t, scratch, name, 0)
	}
	mustClose(t, db)
}
