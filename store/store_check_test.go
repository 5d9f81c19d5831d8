package store

import (
	"context"
	"sync"
	"testing"
	"time"
)

// openStore opens a store, in a folder of the test's unless opts name one, and checks
// its consistency at the end. With a testClock time stands still.
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
		if !s.isClosed() {
			closeStore(t, s)
		}
	})
	return s
}

// closeStore checks the consistency of a store and closes it.
func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.CheckConsistency(); err != nil {
		t.Errorf("the store is not consistent: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// reopen closes a store and opens it again.
func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	closeStore(t, s)
	return openStore(t, s.opts)
}

func (s *Store) isClosed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.closed
}

// testClock is a clock that somebody else moves.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func newTestClock() *testClock {
	return &testClock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// pass moves the clock, also back.
func (c *testClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// applyText declares what a text says.
func applyText(t testing.TB, s *Store, text string) *Result {
	t.Helper()
	return mustWrite(t, s, Txn{Ops: applyOps(parseText(t, text))})
}

func parseText(t testing.TB, text string) *Set {
	t.Helper()
	set, faults := Parse("in.yaml", []byte(text))
	if faults != nil {
		t.Fatal(faults)
	}
	return set
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

func mustSync(t testing.TB, s *Store, text string) *Result {
	t.Helper()
	result, err := s.SyncFiles(context.Background(), parseText(t, text), Author{Actor: "files", Via: "file"})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func mustGet(t testing.TB, s *Store, id ID) *Object {
	t.Helper()
	o, ok := s.Snapshot().Get(id)
	if !ok {
		t.Fatalf("there is no %s", id)
	}
	return o
}

// setState is an operation that makes the state what it was given.
func setState(id ID, state State) Op {
	return Op{ID: id, State: func(State, *Object) (State, error) { return state, nil }}
}

// drainedWhole is the state of a Backend that is drained as a whole, or not at all.
func drainedWhole(drained bool) State {
	if !drained {
		return State{}
	}
	return State{Drains: []Drain{{}}}
}

// splitOp is an operation that splits the rule "all".
func splitOp(id ID, edit SplitEdit) Op {
	return Op{ID: id, State: func(state State, o *Object) (State, error) {
		return EditSplit(o.Resource.(*GRPCRoute), state, "all", edit)
	}}
}

var (
	cart   = ID{GRPCRouteKind, "default", "cart"}
	cartV1 = ID{BackendKind, "default", "cart-v1"}
	cartV2 = ID{BackendKind, "default", "cart-v2"}
)
