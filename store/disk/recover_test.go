package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestOpenTakesWhatIsGood opens what is left of a store after its files came to
// harm: step 14 was written last, and the copy is of step 8, with the journal
// going on behind it.
func TestOpenTakesWhatIsGood(t *testing.T) {
	bases := mutationBases(t)
	copied, fresh, uncopied := bases[0], bases[1], bases[2]
	later := func(name string, base files) []byte {
		path := filepath.Join(inMemory(t), name)
		if err := os.WriteFile(path, base[name], 0o600); err != nil {
			t.Fatal(err)
		}
		if name == journalName {
			b := slices.Clone(base[name])
			b[8]++
			return reseal(b)
		}
		setFormat(t, path, format+1)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	bad := []byte("not a file of ours")
	misled := func(base files) []byte { return misleadEntry(t, base[journalName], 13) }
	foreign := mutationBases(t)[0]
	for _, tt := range []struct {
		name  string
		base  files
		harm  files
		step  int      // that the rows are of
		says  []string // parts of what Recovery says, or the error
		aside []string // files that are kept aside
		fails bool
	}{
		{name: "nothing", base: copied, step: 14},
		{name: "rows", base: copied, harm: files{dbName: bad}, step: 14, aside: []string{dbName}, says: []string{
			"sluice.db cannot be used (verify", "18 bytes, both meta pages are damaged", "and now lies in sluice.db.damaged-20261121T220000Z",
			"the copy and 6 changes of the journal took over, as of change 14 at 20",
		}},
		{name: "rows missing", base: copied, harm: files{dbName: nil}, step: 14, says: []string{
			"sluice.db was missing", "the copy and 6 changes of the journal took over",
		}},
		{name: "rows before the first copy", base: uncopied, harm: files{dbName: bad}, step: 14, aside: []string{dbName}, says: []string{
			"the journal took over, as of change 14",
		}},
		{name: "rows after a copy", base: fresh, harm: files{dbName: bad}, step: 14, aside: []string{dbName}, says: []string{
			"the copy took over, as of change 14",
		}},
		{name: "rows of before the copy", base: fresh, harm: files{dbName: fresh["older"]}, step: 14, aside: []string{dbName}, says: []string{
			"it ends with change 12, and changes up to 14 had been written", "the copy took over",
		}},
		{name: "rows of before", base: copied, harm: files{dbName: copied["older"]}, step: 14},
		{name: "rows of before, no journal", base: fresh, harm: files{dbName: fresh["older"], journalName: nil}, step: 14, aside: []string{dbName}, says: []string{
			"it ends with change 12, and its copy with change 14", "the rows are those of change 14",
		}},
		{name: "rows and copy", base: copied, harm: files{dbName: bad, copyName: bad}, fails: true, says: []string{
			"sluice.db cannot be used (verify", "sluice.copy: verify", "sluice.journal: it begins behind change 8",
			"nothing was changed: move all files named sluice.* in this directory elsewhere and restore a backup",
		}},
		{name: "rows and copy, whole journal", base: uncopied, harm: files{dbName: bad, copyName: bad}, step: 14, aside: []string{dbName, copyName}, says: []string{
			"the journal took over, as of change 14",
		}},
		{name: "rows, no copy", base: copied, harm: files{dbName: bad, copyName: nil}, fails: true, says: []string{"restore a backup"}},
		{name: "everything but a journal", base: copied, harm: files{dbName: nil, copyName: nil}, fails: true, says: []string{
			"sluice.db cannot be used", "no such file", "it begins behind change 8", "restore a backup",
		}},
		{name: "rows and journal", base: copied, harm: files{dbName: bad, journalName: bad}, step: 8, aside: []string{dbName, journalName}, says: []string{
			"the copy took over, as of change 8", "sluice.journal cannot be used (cut short",
			"the rows are those of change 8 at 20", "what was written after that, if there was anything, is lost",
		}},
		{name: "rows and journal before the first copy", base: uncopied, harm: files{dbName: bad, journalName: bad}, fails: true, says: []string{"restore a backup"}},
		{name: "journal", base: copied, harm: files{journalName: bad}, step: 14, aside: []string{journalName}, says: []string{
			"sluice.journal cannot be used (cut short", "the rows are those of change 14",
		}},
		{name: "rows, and an entry that leads elsewhere", base: copied, harm: files{dbName: bad, journalName: misled(copied)}, step: 12, aside: []string{dbName, journalName}, says: []string{
			"the copy and 4 changes of the journal took over, as of change 12",
			"entry 13: its changes lead to", "it had changes up to 14", "the rows are those of change 12",
		}},
		{name: "rows of before, and an entry that leads elsewhere", base: copied, harm: files{dbName: copied["older"], journalName: misled(copied)}, step: 12, aside: []string{journalName}, says: []string{
			"entry 13: its changes lead to", "it had changes up to 14", "the rows are those of change 12",
		}},
		{name: "rows, no copy, an entry that leads elsewhere", base: uncopied, harm: files{dbName: bad, journalName: misled(uncopied)}, fails: true, says: []string{
			"sluice.journal is damaged", "restore a backup",
		}},
		{name: "journal missing", base: copied, harm: files{journalName: nil}, step: 14, says: []string{"sluice.journal was missing"}},
		{name: "journal missing and rows", base: copied, harm: files{journalName: nil, dbName: bad}, step: 8, aside: []string{dbName}, says: []string{
			"the copy took over, as of change 8", "is lost",
		}},
		{name: "copy", base: copied, harm: files{copyName: bad}, step: 14},
		{name: "later rows", base: copied, harm: files{dbName: later(dbName, copied)}, step: 14, aside: []string{dbName}, says: []string{
			"format 2, this version reads format 1", "the copy and 6 changes of the journal took over",
		}},
		{name: "later rows and copy", base: copied, harm: files{dbName: later(dbName, copied), copyName: later(copyName, copied)}, fails: true, says: []string{
			"sluice.db is of a later version", "run that version again",
		}},
		{name: "later journal", base: copied, harm: files{journalName: later(journalName, copied)}, step: 14, aside: []string{journalName}, says: []string{
			"sluice.journal cannot be used (format 2",
		}},
		{name: "journal of another store", base: copied, harm: files{journalName: foreign[journalName]}, step: 14, aside: []string{journalName}, says: []string{
			"it is of another store",
		}},
		{name: "copy and journal of another store", base: copied, harm: files{dbName: bad, journalName: foreign[journalName]}, step: 8, aside: []string{dbName, journalName}, says: []string{
			"the copy took over, as of change 8", "is lost",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := inMemory(t)
			left := tt.base.with(files{"older": nil}).with(tt.harm)
			writeFiles(t, dir, left)
			now := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
			db, err := Open(Options{Dir: dir, Now: func() time.Time { return now }})
			if tt.fails {
				if err == nil {
					t.Fatal("it was opened")
				}
				mustSay(t, err.Error(), tt.says)
				if now := readFiles(t, dir); !maps.EqualFunc(now, left, slices.Equal[[]byte]) {
					t.Error("files have changed")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { mustClose(t, db) })
			mustSay(t, db.Recovery(), tt.says)
			mustHold(t, db, rowsAfter(tt.step))
			for _, name := range tt.aside {
				if got := readFiles(t, dir)[name+".damaged-20261121T220000Z"]; !slices.Equal(got, left[name]) {
					t.Errorf("%s is not kept aside", name)
				}
			}
			if got, _ := filepath.Glob(filepath.Join(dir, "*.damaged-*")); len(got) != len(tt.aside) {
				t.Errorf("kept aside: %q, want %q", got, tt.aside)
			}
			put(t, db, step(tt.step+1)...)
			if err := db.keepCopy(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

// misleadEntry changes where an entry says that it leads, as no damage would: its
// checksum is right.
func misleadEntry(t *testing.T, journal []byte, sequence uint64) []byte {
	t.Helper()
	changed := slices.Clone(journal[:journalHeader])
	_, err := readJournal(bytes.NewReader(journal), int64(len(journal)), func(e entry) error {
		if e.sequence == sequence {
			e.digest[3] ^= 1
		}
		changed = appendEntry(changed, e.state, e.ops)
		return nil
	})
	if err != nil || len(changed) != len(journal) {
		t.Fatalf("journal of %d bytes, %d before (%v)", len(changed), len(journal), err)
	}
	return changed
}

func mustSay(t *testing.T, said string, parts []string) {
	t.Helper()
	if (said == "") != (len(parts) == 0) {
		t.Errorf("said %q", said)
	}
	for _, part := range parts {
		if !strings.Contains(said, part) {
			t.Errorf("said %q, want %q in it", said, part)
		}
	}
}

// TestOpenMakesUpForTheNewestMetaPage damages the meta page that was written last,
// where bbolt goes by the one before, in silence: an acknowledged change is missing
// then. The journal has it, or else the copy behind which the journal begins.
func TestOpenMakesUpForTheNewestMetaPage(t *testing.T) {
	bases := mutationBases(t)
	for _, tt := range []struct {
		name string
		base files
		says []string
	}{
		{"with a journal", bases[0], nil},
		{"after a copy", bases[1], []string{"it ends with change 13, and changes up to 14 had been written", "the copy took over, as of change 14"}},
		{"before the first copy", bases[2], nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			left := tt.base.with(files{"older": nil})
			b := slices.Clone(left[dbName])
			first, second := b[pageHeader:], b[pageSize+pageHeader:]
			transaction := func(meta []byte) uint64 { return binary.NativeEndian.Uint64(meta[48:]) }
			if transaction(first) > transaction(second) {
				first[50] ^= 1
			} else {
				second[50] ^= 1
			}
			dir := inMemory(t)
			writeFiles(t, dir, left.with(files{dbName: b}))
			db := mustOpen(t, Options{Dir: dir})
			mustSay(t, db.Recovery(), tt.says)
			mustHold(t, db, rowsAfter(mutationSteps))
		})
	}
}

// TestOpenLeavesFilesThatCannotBeChecked takes a check that fails for no damage.
func TestOpenLeavesFilesThatCannotBeChecked(t *testing.T) {
	dir := inMemory(t)
	left := mutationBases(t)[0].with(files{"older": nil})
	writeFiles(t, dir, left)
	_, err := Open(Options{Dir: dir, Verify: inChild("killed")})
	if err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("open: %v, want what became of the check", err)
	}
	if now := readFiles(t, dir); !maps.EqualFunc(now, left, slices.Equal[[]byte]) {
		t.Error("files have changed")
	}
	mustOpenAs(t, dir, "afterwards", mutationSteps)
}

// TestOpenKeepsAllThatWasDamaged damages a store twice in the same second.
func TestOpenKeepsAllThatWasDamaged(t *testing.T) {
	dir := inMemory(t)
	now := func() time.Time { return time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC) }
	mustClose(t, mustOpen(t, Options{Dir: dir, Now: now}))
	for _, content := range []string{"one", "two", "three"} {
		if err := os.WriteFile(filepath.Join(dir, dbName), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		mustClose(t, mustOpen(t, Options{Dir: dir, Now: now}))
	}
	all := readFiles(t, dir)
	for name, want := range map[string]string{"": "one", "-2": "two", "-3": "three"} {
		if got := string(all[dbName+".damaged-20261121T220000Z"+name]); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestOpenKeepsFilesToTheirOwner(t *testing.T) {
	dir := filepath.Join(inMemory(t), "made", "here")
	db := mustOpen(t, Options{Dir: dir})
	put(t, db, "a/1=one")
	if err := db.keepCopy(context.Background()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, want 0700 (%v)", info.Mode(), err)
	}
	for _, name := range []string{dbName, journalName, copyName} {
		if info, err := os.Stat(db.path(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, want 0600 (%v)", name, info.Mode(), err)
		}
	}
}

// TestOpenCompactsWhatIsMostlyFree deletes most of a large store.
func TestOpenCompactsWhatIsMostlyFree(t *testing.T) {
	opts := Options{Dir: inMemory(t)}
	db := mustOpen(t, opts)
	if err := putMany(db, 2500, "x"); err != nil {
		t.Fatal(err)
	}
	put(t, db, "a/1=one")
	err := db.Update(func(tx *Tx) error {
		var keys [][]byte
		err := tx.Ascend("many", nil, func(key, _ []byte) bool {
			keys = append(keys, slices.Clone(key))
			return true
		})
		for _, key := range keys {
			if err == nil {
				err = tx.Delete("many", key)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(db.path(dbName))
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	db = mustOpen(t, opts)
	after, err := os.Stat(db.path(dbName))
	if err != nil {
		t.Fatal(err)
	}
	if after.Size() > 100_000 || before.Size() < 1_500_000 {
		t.Errorf("%d bytes, %d before", after.Size(), before.Size())
	}
	mustHold(t, db, rows{"a/1": "one"})
	put(t, db, "a/2=two")
	mustHold(t, db, rows{"a/1": "one", "a/2": "two"})
}

// TestOpenThatFailsLeavesNothingOpen fails at each stage, many times.
func TestOpenThatFailsLeavesNothingOpen(t *testing.T) {
	base := mutationBases(t)[0].with(files{"older": nil})
	fails := errors.New("fails")
	for _, tt := range []struct {
		name string
		opts Options
		harm func(dir string) error
	}{
		{"no directory", Options{}, func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600))
		}},
		{"no check", Options{Verify: func(context.Context, string) error { return fails }}, func(string) error { return nil }},
		{"refused", Options{}, func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, dbName), nil, 0o600), os.Remove(filepath.Join(dir, copyName)))
		}},
		{"no journal", Options{}, func(dir string) error {
			path := filepath.Join(dir, journalName)
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		}},
		{"no room for a journal", Options{}, func(dir string) error {
			path := filepath.Join(dir, journalName)
			return errors.Join(os.Remove(path), os.MkdirAll(path+newSuffix+"/in the way", 0o700))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := inMemory(t)
			writeFiles(t, dir, base)
			if err := tt.harm(dir); err != nil {
				t.Fatal(err)
			}
			tt.opts.Dir = dir
			tt.opts.LockTimeout = time.Millisecond // who keeps the lock is seen
			before := descriptors()
			for range 20 {
				db, err := Open(tt.opts)
				if err == nil {
					t.Fatal(errors.Join(errors.New("it was opened"), db.Close()))
				}
				if strings.Contains(err.Error(), "in use by") {
					t.Fatal(err)
				}
			}
			if after := descriptors(); after > before+2 {
				t.Errorf("%d descriptors open, %d before", after, before)
			}
		})
	}
}
