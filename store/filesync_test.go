package store

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSyncFilesMakesWhatTheFilesSay(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	result := mustSync(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	if len(result.Changes) != 3 {
		t.Fatalf("changes %+v", result.Changes)
	}
	o := mustGet(t, s, cart)
	if o.Owner != (Owner{OwnerFile, "in.yaml:1"}) || o.Author.Via != "file" {
		t.Errorf("owner %v, author %v", o.Owner, o.Author)
	}
	if !o.Resource.Metadata().CreationTimestamp.IsZero() {
		t.Error("a file's object was given a time that the file does not say: nodes with the same files would differ")
	}
	wall.pass(time.Hour)
	before := s.Snapshot()
	if result := mustSync(t, s, splitText("cart", "cart-v1=90", "cart-v2=10")); len(result.Changes) != 0 || s.Snapshot() != before {
		t.Errorf("the same files again change %+v", result.Changes)
	}
	s = reopen(t, s)
	before = s.Snapshot()
	if result := mustSync(t, s, splitText("cart", "cart-v1=90", "cart-v2=10")); len(result.Changes) != 0 || s.Snapshot() != before {
		t.Errorf("the same files after a restart change %+v", result.Changes)
	}
	// A line more: who owns it has moved, nothing has changed.
	result = mustSync(t, s, "\n"+splitText("cart", "cart-v1=90", "cart-v2=10"))
	if o := mustGet(t, s, cart); len(result.Changes) != 0 || o.Owner.File != "in.yaml:2" {
		t.Errorf("changes %+v, owner %v", result.Changes, o.Owner)
	}
	result = mustSync(t, s, splitText("cart", "cart-v1=90"))
	if len(result.Changes) != 2 {
		t.Errorf("changes %+v", result.Changes)
	}
	if _, ok := s.Snapshot().Get(cartV2); ok {
		t.Error("what no file declares any more is still there")
	}
	s = reopen(t, s)
	mustSync(t, s, "")
	if n := s.Snapshot().Len(""); n != 0 {
		t.Errorf("%d objects left", n)
	}
}

func TestSyncFilesRefusesReferencesToNothing(t *testing.T) {
	set := func() *Set {
		return &Set{GRPCRoutes: parseText(t, splitText("cart", "cart-v1=1")).GRPCRoutes}
	}
	s := openStore(t, Options{})
	if _, err := s.SyncFiles(t.Context(), set(), Author{}); err == nil || !strings.Contains(err.Error(), "in.yaml:8:") {
		t.Errorf("error %v", err)
	}
	// A backend of the API will do.
	applyText(t, s, backendText("cart-v1", ""))
	if _, err := s.SyncFiles(t.Context(), set(), Author{}); err != nil {
		t.Error(err)
	}
	// That it is deleted in spite of the file does not stop the file's next change.
	mustWrite(t, s, Txn{AllowUnresolved: true, Ops: []Op{{ID: cartV1, Delete: true}}})
	with := set()
	with.Backends = parseText(t, backendText("more", "")).Backends
	if _, err := s.SyncFiles(t.Context(), with, Author{}); err != nil {
		t.Error(err)
	}
	lenient := openStore(t, Options{AllowUnresolved: true})
	if result, err := lenient.SyncFiles(t.Context(), set(), Author{}); err != nil || len(result.Warnings) != 1 {
		t.Errorf("result %+v, %v", result, err)
	}
}

func TestOwnersAreKept(t *testing.T) {
	s := openStore(t, Options{})
	text := splitText("cart", "cart-v1=90", "cart-v2=10")
	mustSync(t, s, text)
	applyText(t, s, backendText("of-the-api", ""))

	edited := parseText(t, splitText("cart", "cart-v1=1", "cart-v2=1")).GRPCRoutes[0]
	refused := []Op{
		{Apply: edited},
		{ID: cart, Delete: true},
		{Exact: &Object{ID: cart, Resource: edited}},
		{Exact: &Object{ID: cart, Deleted: true}},
	}
	for i, op := range refused {
		_, err := s.Write(t.Context(), Txn{Ops: []Op{op}})
		if owned, ok := err.(*OwnedError); !ok || owned.ID != cart || owned.Owner.File != "in.yaml:1" {
			t.Errorf("operation %d: error %v, want that a file owns it", i, err)
		}
	}
	// What it is already may be said by anybody.
	if result := applyText(t, s, text); len(result.Changes) != 0 {
		t.Errorf("changes %+v", result.Changes)
	}
	// Operational state is nobody's declaration.
	mustWrite(t, s, Txn{Action: "split", Ops: []Op{splitOp(cart, SplitEdit{Shares: []Share{{"cart-v1", 3}, {"cart-v2", 1}}})}})
	mustSync(t, s, splitText("cart", "cart-v1=80", "cart-v2=20"))
	o := mustGet(t, s, cart)
	if len(o.State.Splits) != 1 || o.Owner.Kind != OwnerFile {
		t.Errorf("after a reload: %+v", o)
	}
	if w := s.Snapshot().Effective().GRPCRoute("default/cart").Spec.Rules[0]; w.BackendRefs[0].Weight != 3 || !w.Steering.Overridden {
		t.Errorf("after a reload: rule %+v", w)
	}
	// What the API owns is not the files' to change.
	result := mustSync(t, s, text+"---\n"+backendText("of-the-api", ", labels: {a: b}"))
	api := mustGet(t, s, ID{BackendKind, "default", "of-the-api"})
	if api.Owner.Kind != OwnerAPI || len(api.Resource.Metadata().Labels) != 0 || len(result.Warnings) != 1 {
		t.Errorf("object %+v, warnings %q", api, result.Warnings)
	}
}

func TestAdoptAndRelease(t *testing.T) {
	s := openStore(t, Options{})
	text := splitText("cart", "cart-v1=90", "cart-v2=10")
	mustSync(t, s, text)
	mustWrite(t, s, Txn{Ops: []Op{splitOp(cart, SplitEdit{Shares: []Share{{"cart-v1", 3}, {"cart-v2", 1}}})}})

	result := mustWrite(t, s, Txn{Ops: []Op{{ID: cart, Adopt: true}}})
	if c := result.Changes[0]; c.Action != ActionAdopt || c.Before.Owner.Kind != OwnerFile || c.After.Owner.Kind != OwnerAPI || len(c.After.State.Splits) != 1 {
		t.Errorf("change %+v", c)
	}
	applyText(t, s, splitText("cart", "cart-v1=7", "cart-v2=10"))
	mustSync(t, s, text)
	weight := func() uint32 {
		return mustGet(t, s, cart).Resource.(*GRPCRoute).Spec.Rules[0].BackendRefs[0].Weight
	}
	if weight() != 7 {
		t.Errorf("weight %d after a reload, want what the API said", weight())
	}
	// Given back, it is what the file says at once, and its state stays.
	result = mustWrite(t, s, Txn{Ops: []Op{{ID: cart, Release: true}}})
	o := mustGet(t, s, cart)
	if result.Changes[0].Action != ActionRelease || weight() != 90 || o.Owner != (Owner{OwnerFile, "in.yaml:1"}) || len(o.State.Splits) != 1 {
		t.Errorf("change %+v", result.Changes[0])
	}
	if result := mustSync(t, s, text); len(result.Changes) != 0 || len(result.Warnings) != 0 {
		t.Errorf("the files again: %+v", result)
	}
	// Taken over in one go.
	edited := parseText(t, splitText("cart", "cart-v1=5", "cart-v2=10")).GRPCRoutes[0]
	result = mustWrite(t, s, Txn{TakeOver: true, Ops: []Op{{Apply: edited}}})
	if o := mustGet(t, s, cart); o.Owner.Kind != OwnerAPI || weight() != 5 || result.Changes[0].Action != ActionUpdate {
		t.Errorf("taken over: %+v", o)
	}
	// A restart does not change who owns it, and what the file says is known again
	// once the files were read.
	s = reopen(t, s)
	if _, err := s.Write(t.Context(), Txn{Ops: []Op{{ID: cart, Release: true}}}); err == nil {
		t.Error("given back to a file that was not read yet")
	}
	mustSync(t, s, text)
	result = mustWrite(t, s, Txn{DryRun: true, Ops: []Op{{ID: cart, Release: true}}})
	if len(result.Changes) != 1 || weight() != 5 {
		t.Errorf("dry run: %+v", result)
	}
	mustWrite(t, s, Txn{Ops: []Op{{ID: cart, Release: true}}})
	if weight() != 90 {
		t.Errorf("weight %d after the release", weight())
	}
	// Also before the files were read it is known where an object came from.
	s = reopen(t, s)
	mustWrite(t, s, Txn{Ops: []Op{{ID: cart, Adopt: true}}})
	mustWrite(t, s, Txn{Ops: []Op{{ID: cart, Release: true}}})
	if o := mustGet(t, s, cart); o.Owner != (Owner{OwnerFile, "in.yaml:1"}) {
		t.Errorf("owner %v", o.Owner)
	}
	mustSync(t, s, text)
	// Nobody declares this one: there is nobody to give it to.
	applyText(t, s, backendText("of-the-api", ""))
	if _, err := s.Write(t.Context(), Txn{Ops: []Op{{ID: ID{BackendKind, "", "of-the-api"}, Release: true}}}); err == nil || !strings.Contains(err.Error(), "no file of this node declares it") {
		t.Errorf("error %v", err)
	}
	// Deleted though a file declares it, it comes back with the next reading.
	mustWrite(t, s, Txn{Ops: []Op{{ID: cart, Adopt: true}}})
	result = mustWrite(t, s, Txn{Ops: []Op{{ID: cart, Delete: true}}})
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "in.yaml:1") {
		t.Errorf("warnings %q", result.Warnings)
	}
	mustSync(t, s, text)
	if o := mustGet(t, s, cart); o.Owner.Kind != OwnerFile || len(o.State.Splits) != 0 {
		t.Errorf("come back as %+v", o)
	}
	// What is adopted outlives its file.
	mustWrite(t, s, Txn{Ops: []Op{{ID: cart, Adopt: true}, {ID: cartV1, Adopt: true}, {ID: cartV2, Adopt: true}}})
	mustSync(t, s, "")
	if n := s.Snapshot().Len(""); n != 4 {
		t.Errorf("%d objects, want 4", n)
	}
}

func TestStateIsCheckedAgainstTheObject(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	for _, test := range []struct {
		id    ID
		state State
		want  string
	}{
		{cart, State{Drains: []Drain{{}}}, "only a Backend can be drained"},
		{cart, State{Drains: []Drain{{Endpoint: "a:1"}}}, "only a Backend can be drained"},
		{cartV1, State{Disabled: true}, "only a route can be disabled"},
		{cartV1, State{Splits: []RuleSplit{{Rule: "all", Turns: true}}}, "only a route can be split"},
		{cartV1, State{Drains: []Drain{{Endpoint: "cart-v1:1"}, {Endpoint: "elsewhere:1"}}}, `no endpoint "elsewhere:1"`},
	} {
		if _, err := s.Write(t.Context(), Txn{Ops: []Op{setState(test.id, test.state)}}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %+v: error %v, want %q", test.id, test.state, err, test.want)
		}
	}
	mustWrite(t, s, Txn{Ops: []Op{setState(cartV1, State{Drains: []Drain{{Endpoint: "cart-v1:2"}, {Endpoint: "cart-v1:1"}, {Endpoint: "cart-v1:2", By: "bob"}}})}})
	if got, want := mustGet(t, s, cartV1).State.Drains, []Drain{{Endpoint: "cart-v1:1"}, {Endpoint: "cart-v1:2", By: "bob"}}; !slices.Equal(got, want) {
		t.Errorf("drained %+v, want %+v", got, want)
	}
	// An endpoint that is gone may stay drained: it can come back.
	applyText(t, s, backendText("cart-v1", ""))
	mustWrite(t, s, Txn{Ops: []Op{setState(cartV1, State{Drains: []Drain{{Endpoint: "cart-v1:1"}}})}})
}
