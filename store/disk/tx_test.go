package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestTxAscendsAndDescends(t *testing.T) {
	db := mustOpen(t, Options{Dir: t.TempDir()})
	put(t, db, "a/b=1", "a/d=2", "a/f=3", "b/a=other", "0/z=other")
	for _, tt := range []struct {
		bucket, from, want string
		down               bool
		stopAfter          int
	}{
		{bucket: "a", want: "b1 d2 f3"},
		{bucket: "a", from: "d", want: "d2 f3"},
		{bucket: "a", from: "c", want: "d2 f3"},
		{bucket: "a", from: "g", want: ""},
		{bucket: "a", want: "b1 d2", stopAfter: 2},
		{bucket: "a", down: true, want: "f3 d2 b1"},
		{bucket: "a", down: true, from: "d", want: "d2 b1"},
		{bucket: "a", down: true, from: "e", want: "d2 b1"},
		{bucket: "a", down: true, from: "z", want: "f3 d2 b1"},
		{bucket: "a", down: true, from: "a", want: ""},
		{bucket: "a", down: true, want: "f3", stopAfter: 1},
		{bucket: "none", want: ""},
		{bucket: "none", down: true, want: ""},
	} {
		var got []string
		err := db.View(func(tx *Tx) error {
			walk, from := tx.Ascend, []byte(nil)
			if tt.down {
				walk = tx.Descend
			}
			if tt.from != "" {
				from = []byte(tt.from)
			}
			return walk(tt.bucket, from, func(key, value []byte) bool {
				got = append(got, string(key)+string(value))
				return len(got) != tt.stopAfter
			})
		})
		if text := strings.Join(got, " "); err != nil || text != tt.want {
			t.Errorf("%+v: %q (%v), want %q", tt, text, err, tt.want)
		}
	}
}

func TestTxRefusesWhatCannotBeKept(t *testing.T) {
	db := mustOpen(t, Options{Dir: t.TempDir()})
	put(t, db, "a/1=one")
	long := strings.Repeat("k", maxKey+1)
	for _, tt := range []struct {
		name, bucket, key string
		want              string
	}{
		{"no bucket", "", "1", `"" is not a name for a bucket`},
		{"our own bucket", ownBucket, "1", "is not a name for a bucket"},
		{"no key", "a", "", "key of 0 bytes in bucket of 1 bytes, limit 1 to 32768"},
		{"long key", "a", long, "key of 32769 bytes in bucket of 1 bytes"},
		{"long bucket", long, "1", "key of 1 bytes in bucket of 32769 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, do := range []func(tx *Tx) error{
				func(tx *Tx) error { return tx.Put(tt.bucket, []byte(tt.key), nil) },
				func(tx *Tx) error { return tx.Delete(tt.bucket, []byte(tt.key)) },
				// One who does not look at errors commits nothing.
				func(tx *Tx) error { _ = tx.Put(tt.bucket, []byte(tt.key), nil); return tx.Put("a", []byte("1"), nil) },
			} {
				if err := db.Update(do); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("update: %v, want %q in it", err, tt.want)
				}
			}
		})
	}
	err := db.View(func(tx *Tx) error { return tx.Put("a", []byte("1"), nil) })
	if err == nil || !strings.Contains(err.Error(), "only reads") {
		t.Errorf("put in a view: %v", err)
	}
	mustHold(t, db, rows{"a/1": "one"})
}

func TestTxKeepsNothingOfItsCaller(t *testing.T) {
	db := mustOpen(t, Options{Dir: t.TempDir()})
	key, value := []byte("1"), []byte("one")
	err := db.Update(func(tx *Tx) error {
		err := tx.Put("a", key, value)
		copy(key, "2")
		copy(value, "two")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	err = db.View(func(tx *Tx) error {
		got, _, err = tx.Get("a", []byte("1"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, "a/1=three")
	if string(got) != "one" {
		t.Errorf("value %q, want %q", got, "one")
	}
}

func TestUpdateWithoutChangeWritesNothing(t *testing.T) {
	db := mustOpen(t, Options{Dir: t.TempDir()})
	put(t, db, "a/1=one")
	before, err := db.state()
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, "a/1=one", "a/2")
	put(t, db)
	if now, err := db.state(); err != nil || now != before {
		t.Errorf("state %+v, want %+v (%v)", now, before, err)
	}
}

func TestDBAnswersAfterClose(t *testing.T) {
	db := mustOpen(t, Options{Dir: t.TempDir()})
	mustClose(t, db)
	if err := db.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if _, err := readAll(db); !errors.Is(err, ErrClosed) {
		t.Errorf("view: %v, want %v", err, ErrClosed)
	}
	if err := tryPut(db, "a/1=one"); !errors.Is(err, ErrClosed) {
		t.Errorf("update: %v, want %v", err, ErrClosed)
	}
	if err := db.keepCopy(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("copy: %v, want %v", err, ErrClosed)
	}
}

// TestDBAgreesWithMap makes random changes to a store and to a map, with failed
// transactions, copies, restarts and losses of the file of rows in between.
func TestDBAgreesWithMap(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	opts := Options{Dir: inMemory(t)}
	db, want := mustOpen(t, opts), rows{}
	for n := range 800 {
		next := maps.Clone(want)
		err := db.Update(func(tx *Tx) error { return randomChanges(tx, next, random) })
		switch {
		case err == nil:
			want = next
		case !errors.Is(err, errRolledBack):
			t.Fatal(err)
		default:
			err = nil
		}
		switch random.IntN(40) {
		case 0:
			err = db.keepCopy(context.Background())
		case 1:
			err = db.Close()
			db = mustOpen(t, opts)
		case 2:
			err = db.Close()
			damage(t, db.path(dbName), random.IntN(20_000))
			db = mustOpen(t, opts)
		case 3:
			mustHold(t, db, want)
		}
		if err != nil {
			t.Fatalf("round %d: %v", n, err)
		}
	}
	mustHold(t, db, want)
}

var errRolledBack = errors.New("rolled back")

func randomChanges(tx *Tx, want rows, random *rand.Rand) error {
	for range random.IntN(12) {
		bucket, key := fmt.Sprint("b", random.IntN(3)), fmt.Sprint("k", random.IntN(60))
		switch got, found, err := tx.Get(bucket, []byte(key)); {
		case err != nil:
			return err
		case string(got) != want[want.key(bucket, key)] || found != slices.Contains(slices.Collect(maps.Keys(want)), want.key(bucket, key)):
			return fmt.Errorf("row %q of bucket %q: %q, want %q", key, bucket, got, want[want.key(bucket, key)])
		}
		if random.IntN(3) == 0 {
			delete(want, want.key(bucket, key))
			if err := tx.Delete(bucket, []byte(key)); err != nil {
				return err
			}
			continue
		}
		value := strings.Repeat("v", random.IntN(900))
		want[want.key(bucket, key)] = value
		if err := tx.Put(bucket, []byte(key), []byte(value)); err != nil {
			return err
		}
	}
	if random.IntN(10) == 0 {
		return errRolledBack
	}
	return nil
}
