package store

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// exchange gives each of two stores what the other has, in the form in which it travels.
func exchange(t testing.TB, a, b *Store) {
	t.Helper()
	for _, way := range [][2]*Store{{a, b}, {b, a}} {
		snap := way[0].Snapshot()
		send(t, way[1], append(snap.All(""), snap.Tombstones()...)...)
	}
}

// send merges objects into a store that takes all of them, but for ends of leases that it
// takes later.
func send(t testing.TB, to *Store, objects ...*Object) *MergeResult {
	t.Helper()
	sent := make([]*Object, len(objects))
	for i, o := range objects {
		sent[i] = travelled(t, o)
	}
	result, err := to.Merge(t.Context(), sent)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range result.Refused {
		if !errors.Is(r.Err, ErrNotNow) {
			t.Errorf("refused %s: %v", r.ID, r.Err)
		}
	}
	return result
}

// travelled is an object as another node reads it.
func travelled(t testing.TB, o *Object) *Object {
	t.Helper()
	row, err := EncodeForeign(o)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeForeign(o.ID, row)
	if err != nil {
		t.Fatalf("%v\n%s", err, row)
	}
	if got.VersionSum() != o.VersionSum() {
		t.Errorf("%s: another version has arrived", o.ID)
	}
	revision, seen, deleted, changed, err := PeekForeign(row)
	if err != nil || revision != o.Revision || !seen.covers(o.Vector) || deleted != o.Deleted || !changed.Equal(o.Changed) {
		t.Errorf("%s: peeked at %s, %v, %v, %s, %v", o.ID, revision, seen, deleted, changed, err)
	}
	return got
}

func TestStoreMergeReportsConflicts(t *testing.T) {
	wall := newTestClock()
	a, b := openStore(t, Options{Now: wall.Now}), openStore(t, Options{Now: wall.Now})
	applyText(t, a, backendText("cart-v1", ""))
	exchange(t, a, b)
	if o := mustGet(t, b, cartV1); o.Owner.Kind != OwnerPeer {
		t.Errorf("owner %v", o.Owner)
	}
	wall.pass(time.Second)
	applyText(t, a, backendText("cart-v1", ", labels: {by: a}"))
	wall.pass(time.Second)
	applyText(t, b, backendText("cart-v1", ", labels: {by: b}"))
	exchange(t, a, b)
	for _, s := range []*Store{a, b} {
		if got := mustGet(t, s, cartV1).Resource.Metadata().Labels["by"]; got != "b" {
			t.Errorf("%s won", got)
		}
	}
	// Whoever hears of the other first finds the conflict, and the other follows.
	changes, err := b.History(cartV1, 0, 1)
	if err != nil || changes[0].Action != ActionConflict || changes[0].Lost.Resource.Metadata().Labels["by"] != "a" {
		t.Errorf("history %+v, %v", changes, err)
	}
	wall.pass(time.Second)
	applyText(t, b, backendText("cart-v1", ", labels: {by: b2}"))
	exchange(t, a, b)
	changes, err = a.History(cartV1, 0, 1)
	if err != nil || changes[0].Action != ActionUpdate {
		t.Errorf("history %+v, %v", changes, err)
	}
}

func TestStoreMergeRefusesWhatCannotBe(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	now := wall.Now().UnixMilli()
	backend := func(name string) Resource { return parseText(t, backendText(name, "")).Backends[0] }
	object := func(name string, change func(*Object)) *Object {
		r := Revision{now, 0, "peer"}
		o := &Object{ID: ID{BackendKind, "default", name}, Revision: r, Vector: Vector{}.with(r), Resource: backend(name)}
		o.Owner, o.Created, o.Changed = Owner{Kind: OwnerPeer}, wall.Now(), wall.Now()
		change(o)
		return o
	}
	ahead := Revision{now + 61_000, 0, "peer"}
	refused := []*Object{
		object("ahead", func(o *Object) { o.Revision, o.Vector = ahead, Vector{}.with(ahead) }),
		object("no-revision", func(o *Object) { o.Revision = Revision{} }),
		object("not-of-its-past", func(o *Object) { o.Vector = Vector{} }),
		object("has-seen-the-future", func(o *Object) { o.Vector = o.Vector.with(Revision{now + 1, 0, "other"}) }),
		object("neither", func(o *Object) { o.Resource = nil }),
		object("both", func(o *Object) { o.Deleted = true }),
		object("another", func(o *Object) { o.Resource = backend("somebody-else") }),
		object("bad", func(o *Object) { o.ID.Kind = "Nothing" }),
		object("no-namespace", func(o *Object) { o.ID.Namespace = "" }),
		object("another-node", func(o *Object) { o.Vector["x"] = Revision{1, 0, "y"} }),
		object("no-node", func(o *Object) { o.Vector["A B"] = Revision{1, 0, "A B"} }),
		object("many-nodes", func(o *Object) {
			for i := range 1001 {
				o.Vector = o.Vector.with(Revision{1, 0, fmt.Sprintf("n%d", i)})
			}
		}),
		object("not-strict", func(o *Object) { o.Resource.(*Backend).Spec.Protocol = "carrier-pigeon" }),
	}
	result, err := s.Merge(t.Context(), append(refused, object("good", func(*Object) {}), object("good", func(*Object) {})))
	if err != nil || len(result.Refused) != len(refused) || len(result.Changes) != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	if !errors.Is(result.Refused[0].Err, ErrClockAhead) {
		t.Errorf("refused because %v, want ErrClockAhead", result.Refused[0].Err)
	}
	// What comes next is later than what was merged.
	wall.pass(-time.Hour)
	applyText(t, s, backendText("mine", ""))
	if r := mustGet(t, s, ID{BackendKind, "", "mine"}).Revision; r.Wall < now {
		t.Errorf("revision %s after a merge of %d", r, now)
	}
}

// A deletion of what was never here is kept all the same: it must not come back from
// a third node.
func TestStoreMergeKeepsForeignTombstones(t *testing.T) {
	wall := newTestClock()
	a, b, late := openStore(t, Options{Now: wall.Now}), openStore(t, Options{Now: wall.Now}), openStore(t, Options{Now: wall.Now})
	applyText(t, a, backendText("cart-v1", ""))
	exchange(t, a, late)
	mustWrite(t, a, Txn{Ops: []Op{{ID: cartV1, Delete: true}}})
	exchange(t, a, b)
	changes, err := b.History(cartV1, 0, 0)
	if err != nil || len(changes) != 1 || changes[0].Action != ActionDelete || changes[0].Before != nil {
		t.Errorf("history %+v, %v", changes, err)
	}
	exchange(t, late, b)
	for _, s := range []*Store{b, late} {
		if n := s.Snapshot().Len(""); n != 0 {
			t.Errorf("%d objects", n)
		}
	}
}
