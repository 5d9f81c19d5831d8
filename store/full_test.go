package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// A full disk is an error to whoever writes: what is served stays, nobody hears of a
// change that is none, and when there is room writes work again.
func TestStoreSurvivesAFullDisk(t *testing.T) {
	s := openStore(t, Options{maxSize: 1 << 20})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	big := strings.Repeat("x", 20_000)
	var err error
	written := 0
	for ; err == nil && written < 1000; written++ {
		b := parseText(t, backendText(fmt.Sprintf("big%d", written), ", annotations: {a: "+big+"}")).Backends[0]
		before := s.Snapshot()
		if _, err = s.Write(t.Context(), Txn{Ops: []Op{{Apply: b}}}); err != nil && s.Snapshot() != before {
			t.Error("what failed is served")
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("error %v after %d objects, want ErrFull", err, written)
	}
	if err := s.CheckConsistency(); err != nil {
		t.Error(err)
	}
	seq, revision := s.Snapshot().Seq(), s.clock.seen()
	if _, err := s.Watch(seq - 1).Next(t.Context()); err != nil {
		t.Error(err)
	}
	s.opts.maxSize = 0
	s = reopen(t, s)
	if s.Snapshot().Seq() != seq || s.clock.seen() != revision {
		t.Errorf("sequence %d after a restart, want %d", s.Snapshot().Seq(), seq)
	}
	if result := applyText(t, s, backendText("more", "")); result.Seq != seq+1 {
		t.Errorf("sequence %d, want %d", result.Seq, seq+1)
	}
}
