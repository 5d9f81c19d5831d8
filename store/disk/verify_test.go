package disk

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
)

func init() {
	children["verify"] = func() int { return VerifyChild(os.Args[1], os.Stderr) }
	children["bus"] = func() int { return endBy(syscall.SIGBUS) }
	children["killed"] = func() int { return endBy(syscall.SIGKILL) }
	children["panic"] = func() int { panic("page 3 already freed") }
	children["memory"] = func() int { return endLikeRuntime("fatal error: failed to reserve page summary memory") }
	children["threads"] = func() int { return endLikeRuntime("runtime: failed to create new OS thread", "fatal error: newosproc") }
	children["usage"] = func() int { return endLikeRuntime("Error: unknown command") }
	children["fault"] = func() int {
		return endLikeRuntime("unexpected fault address 0x7f0000002000", "fatal error: fault", "[signal SIGBUS: bus error code=0x2]")
	}
	children["signal"] = func() int { return endLikeRuntime("fatal error: fault", "[signal SIGSEGV: segmentation violation]") }
	children["hang"] = func() int { select {} }
}

func endBy(s os.Signal) int {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(s)
	}
	if err != nil {
		return 0
	}
	select {}
}

// endLikeRuntime ends as the Go runtime does, which says so in its lines.
func endLikeRuntime(lines ...string) int {
	fmt.Fprintln(os.Stderr, strings.Join(lines, "\n"))
	return 2
}

// inChild verifies in a child of that name.
func inChild(name string) func(ctx context.Context, path string) error {
	return InChild(func(ctx context.Context, path string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, os.Args[0], path)
		cmd.Env = append(os.Environ(), childEnv+"="+name)
		return cmd
	})
}

func TestVerifyInChildTellsDamageFromFailure(t *testing.T) {
	good, damaged, later := someStore(t), someStore(t), someStore(t)
	damage(t, damaged, 9000)
	setFormat(t, later, format+1)
	for _, tt := range []struct {
		child, path    string
		want           string
		damaged, newer bool
	}{
		{child: "verify", path: good},
		{child: "verify", path: damaged, want: "sluice.db", damaged: true},
		{child: "verify", path: later, want: "format 2, this version reads format 1", newer: true},
		{child: "verify", path: good + ".none", want: "no such file"},
		{child: "verify", path: filepath.Dir(good), want: "not a regular file"},
		{child: "bus", path: good, want: "died of it", damaged: true},
		{child: "panic", path: good, want: "page 3 already freed", damaged: true},
		{child: "fault", path: good, want: "unexpected fault address", damaged: true},
		{child: "signal", path: good, want: "died of it", damaged: true},
		{child: "memory", path: good, want: "could not be checked: exit status 2: fatal error: failed to reserve page summary memory"},
		{child: "threads", path: good, want: "failed to create new OS thread"},
		{child: "usage", path: good, want: "unknown command"},
		{child: "killed", path: good, want: "signal: killed"},
	} {
		t.Run(tt.child+" "+tt.want, func(t *testing.T) {
			err := inChild(tt.child)(t.Context(), tt.path)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("verify: %v, want %q in it", err, tt.want)
			}
			if Damaged(err) != tt.damaged || newer(err) != tt.newer {
				t.Errorf("verify: %v: damaged %v, newer %v; want %v, %v", err, Damaged(err), newer(err), tt.damaged, tt.newer)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := inChild("hang")(ctx, good); err == nil || Damaged(err) {
		t.Errorf("verify that was cancelled: %v", err)
	}
	none := InChild(func(ctx context.Context, path string) *exec.Cmd { return exec.CommandContext(ctx, good+".none") })
	if err := none(t.Context(), good); err == nil || Damaged(err) {
		t.Errorf("verify in a child that does not start: %v", err)
	}
}

// someStore makes a store and returns the path of its file of rows.
func someStore(t testing.TB) string {
	t.Helper()
	db := mustOpen(t, Options{Dir: inMemory(t)})
	for n := 1; n <= 10; n++ {
		put(t, db, step(n)...)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return db.path(dbName)
}

// damage flips a bit in each of three pages, of which at least one is in use.
func damage(t testing.TB, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{at, 100, pageSize + 100} {
		b[at%len(b)] ^= 4
	}
	b[40] ^= 1 // root
	b[pageSize+40] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// setFormat makes a file one of another version.
func setFormat(t testing.TB, path string, format byte) {
	t.Helper()
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = bolt.Update(func(tx *bbolt.Tx) error {
		record, _ := appendRecord(ownBucket, []byte(formatKey), []byte{format, 0, 0, 0})
		return tx.Bucket([]byte(ownBucket)).Put([]byte(formatKey), record)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bolt.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyMissesNoKindOfDamage makes what a checksum of each row alone would not
// see.
func TestVerifyMissesNoKindOfDamage(t *testing.T) {
	record := func(bucket, key, value string) []byte {
		r, _ := appendRecord(bucket, []byte(key), []byte(value))
		return r
	}
	for _, tt := range []struct {
		name string
		do   func(rows *bbolt.Bucket) error
		want string
	}{
		{"row missing", func(b *bbolt.Bucket) error { return b.Delete([]byte("3")) }, "9 rows, 10 wanted"},
		{"row of another time", func(b *bbolt.Bucket) error { return b.Put([]byte("3"), record("a", "3", "old")) }, "not all of them those that were written last"},
		{"row of another place", func(b *bbolt.Bucket) error { return b.Put([]byte("3"), record("a", "4", "x")) }, `row "3" of bucket "a": its checksum does not match`},
		{"row without checksum", func(b *bbolt.Bucket) error { return b.Put([]byte("3"), []byte("short")) }, `row "3" of bucket "a": 5 bytes, shorter than its checksum`},
		{"row too many", func(b *bbolt.Bucket) error { return b.Put([]byte("99"), record("a", "99", "x")) }, "11 rows, 10 wanted"},
		{"bucket in a bucket", func(b *bbolt.Bucket) error { _, err := b.CreateBucket([]byte("in")); return err }, `bucket "a": holds bucket "in"`},
		{"list of free pages", func(b *bbolt.Bucket) error { b.Tx().DB().NoFreelistSync = false; return nil }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := someStore(t)
			bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := bolt.Update(func(tx *bbolt.Tx) error { return tt.do(tx.Bucket([]byte("a"))) }); err != nil {
				t.Fatal(err)
			}
			if err := bolt.Close(); err != nil {
				t.Fatal(err)
			}
			err = Verify(path)
			if (err == nil) != (tt.want == "") || err != nil && (!Damaged(err) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("verify: %v, want %q in it", err, tt.want)
			}
			if err := ReadCopy(path, func(string, []byte, []byte) error { return nil }); (err == nil) != (tt.want == "") {
				t.Errorf("read: %v, want %q in it", err, tt.want)
			}
		})
	}
}

// BenchmarkOpen opens a store of 10,000 rows, after verifying it in a child.
func BenchmarkOpen(b *testing.B) {
	opts := Options{Dir: b.TempDir(), Verify: inChild("verify")}
	db := mustOpen(b, opts)
	if err := putMany(db, 10_000, "x"); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		db = mustOpen(b, opts)
	}
}

// BenchmarkUpdateOfMany changes 10,000 rows in one Update.
func BenchmarkUpdateOfMany(b *testing.B) {
	db := mustOpen(b, Options{Dir: b.TempDir()})
	for n := 0; b.Loop(); n++ {
		if err := putMany(db, 10_000, fmt.Sprint(n)); err != nil {
			b.Fatal(err)
		}
	}
}

// putMany sets rows of the size that a route has.
func putMany(db *DB, n int, value string) error {
	return db.Update(func(tx *Tx) error {
		for i := range n {
			if err := tx.Put("many", fmt.Appendf(nil, "GRPCRoute default/route-%05d", i), fmt.Appendf(nil, "%600s", value)); err != nil {
				return err
			}
		}
		return nil
	})
}
