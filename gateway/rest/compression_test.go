package rest

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestGunzipStopsAtItsLimit(t *testing.T) {
	for _, n := range []int{0, 1, growStep - 1, growStep, growStep + 1, 1 << 20} {
		src := gzipped(nil, bytes.Repeat([]byte("x"), n))
		got, err := gunzip([]byte("kept "), src, n)
		if err != nil || len(got) != n+5 || !strings.HasPrefix(string(got), "kept ") {
			t.Errorf("%d bytes within a limit of as many: %d, %v", n, len(got), err)
		}
		if n == 0 {
			continue
		}
		if _, err := gunzip(nil, src, n-1); !errors.Is(err, errTooLong) {
			t.Errorf("%d bytes within a limit of %d: %v, want errTooLong", n, n-1, err)
		}
	}
}

func TestGunzipMemoryIsBoundedByItsLimit(t *testing.T) {
	src := gzipped(nil, make([]byte, 64<<20))
	got, err := gunzip(nil, src, 100_000)
	if !errors.Is(err, errTooLong) || cap(got) > 400_000 {
		t.Errorf("%v with %d bytes reserved for a limit of 100,000", err, cap(got))
	}
}

func TestGunzipRefusesWhatIsNoGzip(t *testing.T) {
	whole := gzipped(nil, []byte("something"))
	for name, src := range map[string][]byte{
		"nothing": nil, "text": []byte("something"), "cut short": whole[:len(whole)-3], "only a head": whole[:5],
		"more behind": append(bytes.Clone(whole), "more"...),
	} {
		if got, err := gunzip(nil, src, 1<<20); err == nil || err == io.EOF {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// A reader that has failed serves the next one.
	if got, err := gunzip(nil, whole, 1<<20); err != nil || string(got) != "something" {
		t.Errorf("after failures: %q, %v", got, err)
	}
}

func TestAppendAllTakesSmallReads(t *testing.T) {
	got, err := appendAll(nil, iotest.OneByteReader(strings.NewReader("abc")), 3)
	if err != nil || string(got) != "abc" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := appendAll(nil, iotest.OneByteReader(strings.NewReader("abcd")), 3); !errors.Is(err, errTooLong) {
		t.Errorf("one byte too many: %v", err)
	}
}
