package store

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// cartProcess is a registration of the tests.
var cartProcess = ID{RegistrationKind, DefaultNamespace, RegistrationName("cart-v1", "10.0.0.5:80")}

func TestStoreForgetsTombstonesByTheirKind(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	applyText(t, s, strings.Replace(backendText("cart-v1", ""), "endpoints: []", "endpoints: [], registration: {}", 1))
	mustWrite(t, s, Txn{Ops: []Op{{Apply: registration("cart-v1", "10.0.0.5:80")}}})
	mustWrite(t, s, Txn{Ops: []Op{{ID: cartProcess, Delete: true}, {ID: cartV1, Delete: true}}})
	for _, step := range []struct {
		pass time.Duration
		left int
	}{{59 * time.Minute, 2}, {2 * time.Minute, 1}, {22 * time.Hour, 1}, {2 * time.Hour, 0}} {
		wall.pass(step.pass)
		if err := s.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.Snapshot().Tombstones(); len(got) != step.left {
			t.Errorf("%s later %d are left, want %d", step.pass, len(got), step.left)
		}
	}
}

// A deletion is as old as its revision says: the clock of who made it may have been set back.
func TestStoreRemembersDeletionsOfAClockThatIsBehind(t *testing.T) {
	wall, late := newTestClock(), newTestClock()
	a, b, c := openStore(t, Options{Now: wall.Now}), openStore(t, Options{Now: late.Now}), openStore(t, Options{Now: wall.Now})
	applyText(t, a, backendText("cart-v1", ""))
	exchange(t, a, b)
	late.pass(-30 * time.Hour) // it is set back
	mustWrite(t, b, Txn{Ops: []Op{{ID: cartV1, Delete: true}}})
	send(t, a, b.Snapshot().Tombstones()...)
	send(t, c, a.Snapshot().Tombstones()...)
	for i, s := range []*Store{a, c} {
		if err := s.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.Snapshot().Tombstones(); len(got) != 1 {
			t.Errorf("store %d has %d tombstones, want 1", i, len(got))
		}
	}
}

// Of registrations those that were ended last are remembered, whatever their names.
func TestSnapshotBoundsTombstonesOfRegistrations(t *testing.T) {
	now := newTestClock().Now()
	buried := func(kind string, i int) *Object {
		return &Object{
			ID: ID{kind, DefaultNamespace, fmt.Sprintf("n%05d", (i*7919)%100_000)}, Deleted: true, Changed: now,
			Revision: Revision{now.UnixMilli(), uint32(i), "a"},
		}
	}
	snap := &Snapshot{superseded: make(chan struct{})}
	list := []*Object{buried(BackendKind, 0), buried(SchemaKind, 0)}
	for i := range maxRegistrationTombstones + 5 {
		list = append(list, buried(RegistrationKind, i))
	}
	snap = snap.with(1, list)
	if n := len(snap.buriedRegistrations()); n != maxRegistrationTombstones+5 {
		t.Fatalf("%d are of registrations", n)
	}
	old := snap.forgettable(now)
	for _, o := range old {
		if o.ID.Kind != RegistrationKind || o.Revision.Counter >= 5 {
			t.Errorf("forgets %s of %s", o.ID, o.Revision)
		}
	}
	if left := snap.without(old); len(old) != 5 || len(left.Tombstones()) != maxRegistrationTombstones+2 {
		t.Errorf("%d are forgotten, %d left", len(old), len(left.Tombstones()))
	}
	s := &Store{crowded: make(chan struct{}, 1)}
	s.crowds(snap)
	for i := range maxRegistrationTombstones/10 + 1 {
		list = append(list, buried(RegistrationKind, maxRegistrationTombstones+5+i))
	}
	if len(s.crowded) != 0 {
		t.Error("a few too many ask for a sweep at once")
	}
	if s.crowds(snap.with(2, list)); len(s.crowded) != 1 {
		t.Error("a tenth too many asks for none")
	}
}

func TestSnapshotForgetsManyTombstonesQuickly(t *testing.T) {
	if raceDetector {
		t.Skip("it measures time")
	}
	snap := &Snapshot{superseded: make(chan struct{})}
	var list []*Object
	for i := range 50_000 {
		list = append(list, &Object{ID: ID{BackendKind, DefaultNamespace, fmt.Sprintf("n%05d", i)}, Deleted: true})
	}
	snap = snap.with(1, list)
	begin := time.Now()
	if n := len(snap.without(snap.Tombstones()).Tombstones()); n != 0 {
		t.Errorf("%d are left", n)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %s", took)
	}
}
