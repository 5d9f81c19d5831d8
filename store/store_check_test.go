package store

import (
	"context"
	"testing"
)

// openStore opens a store in a folder of the test's, and checks its consistency at
// the end.
func openStore(t testing.TB, opts Options) *Store {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.isClosed() {
			return
		}
		if err := s.CheckConsistency(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *Store) isClosed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.closed
}

// applyText declares what a text says.
func applyText(t testing.TB, s *Store, text string) *Result {
	t.Helper()
	set, faults := Parse("in.yaml", []byte(text))
	if faults != nil {
		t.Fatal(faults)
	}
	return mustWrite(t, s, Txn{Ops: applyOps(set)})
}

func applyOps(set *Set) []Op {
	var ops []Op
	for _, r := range set.Resources() {
		ops = append(ops, Op{Apply: r})
	}
	return ops
}

func mustWrite(t testing.TB, s *Store, txn Txn) *Result {
	t.Helper()
	result, err := s.Write(context.Background(), txn)
	if err != nil {
		t.Fatal(err)
	}
	return result
}
