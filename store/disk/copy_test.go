package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRunCopiesEachHour follows a store for some hours: its first copy at once,
// then one an hour, of what has changed since; a copy that has become damaged is
// replaced and kept; one that cannot be made is tried again.
func TestRunCopiesEachHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		db := mustOpen(t, Options{Dir: inMemory(t), Log: slog.New(slog.NewTextHandler(&log, nil))})
		put(t, db, "a/1=one")
		ended := make(chan error)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { ended <- db.Run(ctx) }()
		synctest.Wait()
		mustBeCopied(t, db, 1, rows{"a/1": "one"})

		put(t, db, "a/2=two")
		time.Sleep(time.Hour - time.Second)
		mustBeCopied(t, db, 1, rows{"a/1": "one"})
		time.Sleep(time.Second)
		synctest.Wait()
		mustBeCopied(t, db, 2, rows{"a/1": "one", "a/2": "two"})

		before := readFiles(t, db.opts.Dir)[copyName]
		time.Sleep(time.Hour)
		synctest.Wait()
		if !bytes.Equal(readFiles(t, db.opts.Dir)[copyName], before) {
			t.Error("the copy was made anew, and nothing had changed")
		}

		damage(t, db.path(copyName), 5000)
		time.Sleep(time.Hour)
		synctest.Wait()
		mustBeCopied(t, db, 2, rows{"a/1": "one", "a/2": "two"})
		if aside, _ := filepath.Glob(db.path(copyName + ".damaged-*")); len(aside) != 1 || !strings.Contains(log.String(), aside[0]) {
			t.Errorf("kept aside: %q; log: %s", aside, &log)
		}

		obstacle := db.path(copyName+newSuffix) + "/in the way"
		if err := os.MkdirAll(obstacle, 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, db, "a/3=three")
		time.Sleep(time.Hour)
		synctest.Wait()
		mustBeCopied(t, db, 2, rows{"a/1": "one", "a/2": "two"})
		if !strings.Contains(log.String(), "store not copied") {
			t.Errorf("log: %s", &log)
		}
		if err := os.RemoveAll(filepath.Dir(obstacle)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		mustBeCopied(t, db, 3, rows{"a/1": "one", "a/2": "two", "a/3": "three"})

		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		mustClose(t, db)
	})
}

// mustBeCopied checks the copy, and that the journal begins where it ends.
func mustBeCopied(t *testing.T, db *DB, sequence uint64, want rows) {
	t.Helper()
	got := rows{}
	err := ReadCopy(db.path(copyName), func(bucket string, key, value []byte) error {
		got[got.key(bucket, string(key))] = string(value)
		return nil
	})
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("copy holds %v, want %v (%v)", got, want, err)
	}
	if base, _ := journalOf(db); base != sequence {
		t.Errorf("journal begins behind change %d, want %d", base, sequence)
	}
}

// journalOf returns behind which change the journal begins, and how long it is.
func journalOf(db *DB) (base uint64, size int64) {
	db.writing.Lock()
	defer db.writing.Unlock()
	return db.journal.base, db.journal.size
}

// TestRunCopiesWhenTheJournalIsLong does not wait for the hour.
func TestRunCopiesWhenTheJournalIsLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, Options{Dir: inMemory(t)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- db.Run(ctx) }()
		synctest.Wait()
		for n := range 4 {
			put(t, db, "a/1="+strings.Repeat(fmt.Sprint(n), journalLong/3))
		}
		synctest.Wait()
		if base, size := journalOf(db); base < 3 || size >= journalLong {
			t.Errorf("journal of %d bytes begins behind change %d", size, base)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		mustClose(t, db)
	})
}

// TestRunCopiesAtOnceWhenTheCopyIsOfNoUse opens a store whose copy does not reach
// the journal.
func TestRunCopiesAtOnceWhenTheCopyIsOfNoUse(t *testing.T) {
	db := mustOpen(t, Options{Dir: inMemory(t)})
	put(t, db, "a/1=one")
	if err := db.keepCopy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if wait := db.untilCopy(); wait < 59*time.Minute {
		t.Errorf("next copy in %v, want an hour", wait)
	}
	old := readFiles(t, db.opts.Dir)[copyName]
	put(t, db, "a/1=two")
	if err := db.keepCopy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(db.path(copyName), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if wait := db.untilCopy(); wait != 0 {
		t.Errorf("next copy in %v, want at once", wait)
	}
	if err := db.keepCopy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestCopyTakesItsPlaceWhenItIsVerified finds each new copy damaged.
func TestCopyTakesItsPlaceWhenItIsVerified(t *testing.T) {
	fails := func(_ context.Context, path string) error {
		if strings.HasSuffix(path, newSuffix) {
			return damagef("damaged when it was written")
		}
		return Verify(path)
	}
	db := mustOpen(t, Options{Dir: inMemory(t)})
	put(t, db, "a/1=one")
	if err := db.keepCopy(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := readFiles(t, db.opts.Dir)
	db.opts.Verify = fails
	put(t, db, "a/1=two")
	if err := db.keepCopy(t.Context()); !Damaged(err) {
		t.Errorf("copy: %v, want that it is damaged", err)
	}
	after := readFiles(t, db.opts.Dir)
	if !bytes.Equal(after[copyName], before[copyName]) || len(after[journalName]) <= len(before[journalName]) {
		t.Error("a damaged copy took the place of a good one, or the journal forgot what only it has")
	}
}

// TestDamagedCopyStaysUntilThereIsAnother has the copy that is to replace it fail
// some times.
func TestDamagedCopyStaysUntilThereIsAnother(t *testing.T) {
	db := mustOpen(t, Options{Dir: inMemory(t)})
	put(t, db, "a/1=one")
	if err := db.keepCopy(t.Context()); err != nil {
		t.Fatal(err)
	}
	damage(t, db.path(copyName), 5000)
	before := readFiles(t, db.opts.Dir)
	full := errors.New("no room")
	db.opts.Verify = func(_ context.Context, path string) error {
		if strings.HasSuffix(path, newSuffix) {
			return full
		}
		return Verify(path)
	}
	for range 2 {
		if err := db.keepCopy(t.Context()); !errors.Is(err, full) {
			t.Errorf("copy: %v, want %v", err, full)
		}
		if after := readFiles(t, db.opts.Dir); !maps.EqualFunc(after, before, bytes.Equal) {
			t.Errorf("files %q, want those of before, %q", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
		}
	}
	db.opts.Verify = func(_ context.Context, path string) error { return Verify(path) }
	if err := db.keepCopy(t.Context()); err != nil {
		t.Error(err)
	}
	mustBeCopied(t, db, 1, rows{"a/1": "one"})
	if aside, _ := filepath.Glob(db.path(copyName + ".damaged-*")); len(aside) != 1 {
		t.Errorf("kept aside: %q", aside)
	}
}

func TestBackupIsWhatThereIs(t *testing.T) {
	db := mustOpen(t, Options{Dir: inMemory(t)})
	for n := 1; n <= 30; n++ {
		put(t, db, step(n)...)
	}
	path := filepath.Join(inMemory(t), "backup")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	// The reader of the backup is slow: many changes come meanwhile.
	n, err := db.Backup(&slowWriter{w: file, each: func() { put(t, db, "slow/1="+time.Now().String()) }})
	if err != nil {
		t.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil || info.Size() != n || n == 0 {
		t.Errorf("backup of %d bytes, said to be %d (%v)", info.Size(), n, err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	// It outlives the loss of either meta page: no journal would make up for it.
	for _, lost := range []int{-1, 20, pageSize + 20} {
		b := readFiles(t, filepath.Dir(path))["backup"]
		if lost >= 0 {
			b[lost] ^= 1
		}
		damaged := filepath.Join(inMemory(t), "backup")
		if err := os.WriteFile(damaged, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Verify(damaged); err != nil {
			t.Error(err)
		}
		got := rows{}
		err = ReadCopy(damaged, func(bucket string, key, value []byte) error {
			got[got.key(bucket, string(key))] = string(value)
			return nil
		})
		if err != nil || !maps.Equal(got, rowsAfter(30)) {
			t.Errorf("backup without the meta page at byte %d holds %d rows, want %d, or others (%v)", lost, len(got), len(rowsAfter(30)), err)
		}
	}
	if _, err := db.Backup(&slowWriter{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("backup to nowhere: %v", err)
	}
}

// slowWriter lets something happen before each write, and fails without a writer.
type slowWriter struct {
	w    io.Writer
	each func()
}

func (s *slowWriter) Write(b []byte) (int, error) {
	if s.w == nil {
		return 0, io.ErrClosedPipe
	}
	s.each()
	return s.w.Write(b)
}

func TestReadCopyYieldsNothingOfADamagedFile(t *testing.T) {
	path := someStore(t)
	damage(t, path, 9000)
	err := ReadCopy(path, func(bucket string, key, _ []byte) error {
		t.Errorf("row %q of bucket %q", key, bucket)
		return nil
	})
	if !Damaged(err) || !strings.Contains(err.Error(), path) {
		t.Errorf("read: %v, want damage of %q", err, path)
	}
	stop := errors.New("stop")
	if err := ReadCopy(someStore(t), func(string, []byte, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("read: %v, want %v", err, stop)
	}
	if err := ReadCopy(path+".none", nil); !missing(err) {
		t.Errorf("read: %v, want a missing file", err)
	}
}

// TestDBServesReadersWhileItIsWrittenAndCopied has all of them at once.
func TestDBServesReadersWhileItIsWrittenAndCopied(t *testing.T) {
	db := mustOpen(t, Options{Dir: inMemory(t)})
	put(t, db, "a/1=0", "a/2=0")
	done := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		go func() {
			var err error
			for err == nil && ctx.Err() == nil {
				var got rows
				if got, err = readAll(db); err == nil && got["a/1"] != got["a/2"] {
					err = fmt.Errorf("half an update: %v", got)
				}
			}
			done <- err
		}()
	}
	go func() {
		var err error
		for err == nil && ctx.Err() == nil {
			err = db.keepCopy(context.Background())
		}
		done <- err
	}()
	for n := range 300 {
		put(t, db, fmt.Sprintf("a/1=%d", n), fmt.Sprintf("a/2=%d", n))
	}
	cancel()
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
