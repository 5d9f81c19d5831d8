package disk

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// TestMain refuses goroutines and descriptors that outlive the tests, and makes the
// test binary one of the processes of children when it is told to.
func TestMain(m *testing.M) {
	if child, ok := children[os.Getenv(childEnv)]; ok {
		os.Exit(child())
	}
	before := descriptors()
	code := m.Run()
	if left := leftGoroutines(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines left behind:\n"+left)
		code = 1
	}
	if after := descriptors(); code == 0 && after > before+8 { // the runtime and testing keep a few
		fmt.Fprintf(os.Stderr, "%d descriptors open, %d before the tests\n", after, before)
		code = 1
	}
	os.Exit(code)
}

// childEnv names the child process that the test binary is to be.
const childEnv = "SLUICE_DISK_CHILD"

// children are what the test binary can be instead of the tests; each returns
// what to exit with.
var children = map[string]func() int{}

func descriptors() int {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0 // not here
	}
	return len(open)
}

// leftGoroutines gives those that are on their way out a moment.
func leftGoroutines() string {
	for deadline := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
		buf := make([]byte, 1<<20)
		stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
		left := strings.Join(slices.DeleteFunc(stacks[1:], func(s string) bool {
			return !strings.Contains(s, "sluice/store/disk.") && !strings.Contains(s, "go.etcd.io/bbolt.")
		}), "\n\n")
		if left == "" || time.Now().After(deadline) {
			return left
		}
	}
}

// rows are the content of a store, by bucket and key.
type rows map[string]string

func (r rows) key(bucket, key string) string { return bucket + "/" + key }

// mustOpen opens a store; the test ends with its consistency check.
func mustOpen(t testing.TB, opts Options) *DB {
	t.Helper()
	db, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustClose(t, db) })
	return db
}

// mustClose closes a store and checks its files: the rows, and that copy and
// journal hold the same.
func mustClose(t testing.TB, db *DB) {
	t.Helper()
	if db.closed {
		return
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	mustBeWhole(t, db.opts.Dir)
}

func mustBeWhole(t testing.TB, dir string) {
	t.Helper()
	o := &opening{opts: Options{Dir: dir}.withDefaults()}
	st, err := o.verify(o.path(dbName))
	if err != nil {
		t.Fatal(err)
	}
	if read, err := o.readJournal(func(entry) error { return nil }); err != nil || read.torn > 0 || read.damage != nil {
		t.Errorf("journal: %v, or its end: %+v", err, read)
	}
	from, err := o.sources()
	if err != nil || from.err != nil || !from.whole {
		t.Fatalf("what would take over: whole %v, %v %v", from.whole, from.err, err)
	}
	rebuilt, err := from.build(filepath.Join(inMemory(t), "rebuilt"), from.last)
	if err != nil || rebuilt.sequence != st.sequence || rebuilt.digest != st.digest || rebuilt.rows != st.rows {
		t.Errorf("copy and journal lead to change %d and %d rows, want %d and %d, or to others (%v)",
			rebuilt.sequence, rebuilt.rows, st.sequence, st.rows, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*"+newSuffix)); len(left) > 0 {
		t.Errorf("unfinished files left behind: %q", left)
	}
}

// put sets rows "bucket/key=value" in one Update; without "=" it deletes.
func put(t testing.TB, db *DB, changes ...string) {
	t.Helper()
	if err := tryPut(db, changes...); err != nil {
		t.Fatal(err)
	}
}

func tryPut(db *DB, changes ...string) error {
	return db.Update(func(tx *Tx) error {
		for _, change := range changes {
			row, value, isPut := strings.Cut(change, "=")
			bucket, key, _ := strings.Cut(row, "/")
			var err error
			if isPut {
				err = tx.Put(bucket, []byte(key), []byte(value))
			} else {
				err = tx.Delete(bucket, []byte(key))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// content reads all rows.
func content(t testing.TB, db *DB) rows {
	t.Helper()
	got, err := readAll(db)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func readAll(db *DB) (rows, error) {
	got := rows{}
	err := db.View(func(tx *Tx) error {
		var names []string
		if err := tx.bolt.ForEach(nameInto(&names)); err != nil {
			return err
		}
		for _, bucket := range names {
			err := tx.Ascend(bucket, nil, func(key, value []byte) bool {
				got[got.key(bucket, string(key))] = string(value)
				return true
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return got, err
}

// mustHold compares all rows of a store.
func mustHold(t testing.TB, db *DB, want rows) {
	t.Helper()
	if got := content(t, db); !maps.Equal(got, want) {
		t.Errorf("store holds %v, want %v", got, want)
	}
}

// nameInto collects the names of the buckets that are not ours.
func nameInto(names *[]string) func([]byte, *bbolt.Bucket) error {
	return func(name []byte, _ *bbolt.Bucket) error {
		if string(name) != ownBucket {
			*names = append(*names, string(name))
		}
		return nil
	}
}

// inMemory is a directory whose syncs cost nothing, where the machine has one.
func inMemory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sluice-disk-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// files are the content of a directory, by name.
type files map[string][]byte

func readFiles(t testing.TB, dir string) files {
	t.Helper()
	found := files{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		b, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[entry.Name()] = b
	}
	return found
}

// with returns the files with some of them replaced; nil stands for none.
func (f files) with(changes files) files {
	changed := maps.Clone(f)
	maps.Copy(changed, changes)
	maps.DeleteFunc(changed, func(_ string, b []byte) bool { return b == nil })
	return changed
}

// writeFiles makes dir hold these files and no others.
func writeFiles(t testing.TB, dir string, all files) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range all {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
