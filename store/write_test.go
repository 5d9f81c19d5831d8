package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestWriteAgainstAnOldRevisionIsRefused(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	first := mustGet(t, s, cart)
	applyText(t, s, splitText("cart", "cart-v1=80", "cart-v2=20"))
	second := mustGet(t, s, cart)

	route := parseText(t, splitText("cart", "cart-v1=70", "cart-v2=30")).GRPCRoutes[0]
	asRead := func(revision string) *GRPCRoute {
		r := *route
		r.ResourceVersion = revision
		return &r
	}
	tests := []struct {
		name string
		op   Op
	}{
		{"apply", Op{Apply: route, IfRevision: first.Revision.String()}},
		{"apply of what was read", Op{Apply: asRead(first.Revision.String())}},
		{"delete", Op{ID: cart, Delete: true, IfRevision: first.Revision.String()}},
		{"state", Op{ID: cart, State: func(s State, _ *Object) (State, error) { s.Disabled = true; return s, nil }, IfRevision: first.Revision.String()}},
		{"exact", Op{Exact: first, IfRevision: first.Revision.String()}},
		{"adopt", Op{ID: cart, Adopt: true, IfRevision: first.Revision.String()}},
		{"nonsense", Op{ID: cart, Delete: true, IfRevision: "nonsense"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := s.Snapshot()
			_, err := s.Write(t.Context(), Txn{Ops: []Op{test.op}})
			var conflict *ConflictError
			if !errors.As(err, &conflict) || conflict.Current != second || conflict.Expected == "" {
				t.Fatalf("error %v, want a conflict with the current object", err)
			}
			if s.Snapshot() != before {
				t.Error("something was changed")
			}
		})
	}
	mustWrite(t, s, Txn{Ops: []Op{{Apply: asRead(second.Revision.String())}}})
	if r := mustGet(t, s, cart).Resource.(*GRPCRoute); r.ResourceVersion != "" || r.Spec.Rules[0].BackendRefs[0].Weight != 70 {
		t.Errorf("kept %+v", r)
	}
	// What is gone has no revision that could be met.
	mustWrite(t, s, Txn{AllowUnresolved: true, Ops: []Op{{ID: cartV1, Delete: true}}})
	_, err := s.Write(t.Context(), Txn{Ops: []Op{{Apply: parseText(t, backendText("cart-v1", "")).Backends[0], IfRevision: first.Revision.String()}}})
	var conflict *ConflictError
	if !errors.As(err, &conflict) {
		t.Errorf("error %v, want a conflict", err)
	}
}

// Of many that change one object on what they have read, each time one wins; no
// change is lost and none is doubled.
func TestWriteLetsOneOfManyWin(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, splitText("cart", "cart-v1=0"))
	const writers, rounds = 8, 25
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < rounds; {
				o, _ := s.Snapshot().Get(cart)
				r := *o.Resource.(*GRPCRoute)
				r.Spec.Rules = []GRPCRouteRule{r.Spec.Rules[0]}
				ref := r.Spec.Rules[0].BackendRefs[0]
				ref.Weight++
				r.Spec.Rules[0].BackendRefs = []BackendRef{ref}
				_, err := s.Write(context.Background(), Txn{Ops: []Op{{Apply: &r, IfRevision: o.Revision.String()}}})
				var conflict *ConflictError
				switch {
				case err == nil:
					done++
				case !errors.As(err, &conflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := mustGet(t, s, cart).Resource.(*GRPCRoute).Spec.Rules[0].BackendRefs[0].Weight; got != writers*rounds {
		t.Errorf("counted to %d, want %d", got, writers*rounds)
	}
	if got := s.Snapshot().Seq(); got != 2+writers*rounds {
		t.Errorf("sequence %d, want %d", got, 2+writers*rounds)
	}
}

func TestWriteIsAllOrNothing(t *testing.T) {
	s := openStore(t, Options{Check: func(_ *Set, changed []ID) Faults {
		for _, id := range changed {
			if id.Name == "unusable" {
				return Faults{{Message: "unusable"}}
			}
		}
		return nil
	}})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	mustSync(t, s, backendText("of-a-file", ""))
	good := func() []Op { return applyOps(parseText(t, splitText("new", "new-v1=1"))) }
	failed := errors.New("failed")
	tests := []struct {
		name string
		op   Op
		want string
	}{
		{"a reference to nothing", Op{Apply: parseText(t, splitText("broken", "nowhere=1")).GRPCRoutes[0]}, "refers to Backend default/nowhere"},
		{"an old revision", Op{ID: cart, Delete: true, IfRevision: "1.0@a"}, "written against revision"},
		{"an object of a file", Op{Apply: parseText(t, splitText("x", "of-a-file=1")).Backends[0]}, "declared by file"},
		{"nothing to delete", Op{ID: ID{BackendKind, "", "nothing"}, Delete: true}, "there is no such object"},
		{"what others need", Op{ID: cartV1, Delete: true}, "GRPCRoute default/cart refers to Backend default/cart-v1"},
		{"a state that cannot be", Op{ID: cart, State: func(s State, _ *Object) (State, error) { return s, failed }}, "failed"},
		{"what the gateway refuses", Op{Apply: parseText(t, backendText("unusable", "")).Backends[0]}, "unusable"},
		{"a kind that there is not", Op{ID: ID{"Gateway", "", "x"}, Delete: true}, "want one of"},
		{"a name that is none", Op{ID: ID{BackendKind, "", "a/../b"}, Delete: true}, "want lower-case letters"},
		{"an operation that says nothing", Op{ID: cart}, "asks for 0 things"},
		{"an operation that says two things", Op{ID: cart, Delete: true, Adopt: true}, "asks for 2 things"},
	}
	for _, test := range tests {
		for _, place := range []string{"first", "last"} {
			t.Run(test.name+", "+place, func(t *testing.T) {
				before := s.Snapshot()
				ops := append(good(), test.op)
				if place == "first" {
					ops = append([]Op{test.op}, good()...)
				}
				_, err := s.Write(t.Context(), Txn{Ops: ops})
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("error %v, want %q in it", err, test.want)
				}
				if s.Snapshot() != before {
					t.Error("something was changed")
				}
			})
		}
	}
}

func TestWriteThatChangesNothingIsNone(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	text := splitText("cart", "cart-v1=90", "cart-v2=10")
	applyText(t, s, text)
	before := s.Snapshot()
	wall.pass(time.Hour)
	result := applyText(t, s, text)
	if len(result.Changes) != 0 || len(result.Unchanged) != 3 || result.Seq != 3 {
		t.Errorf("result %+v", result)
	}
	o := mustGet(t, s, cart)
	mustWrite(t, s, Txn{Ops: []Op{
		{Exact: o},
		setState(cart, State{}),
		{ID: cartV1, Adopt: true},
		{Exact: &Object{ID: ID{BackendKind, "default", "never-was"}, Deleted: true}},
	}})
	if s.Snapshot() != before {
		t.Error("there is another snapshot")
	}
	if changes, err := s.History(ID{}, 0, 0); err != nil || len(changes) != 3 {
		t.Errorf("%d changes, %v", len(changes), err)
	}
}

func TestWriteTellsWhoDidWhat(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	author := Author{"alice", "cli", "10.0.0.1:5", "because"}
	result := mustWrite(t, s, Txn{Author: author, Ops: applyOps(parseText(t, splitText("cart", "cart-v1=1")))})
	created := wall.Now()
	for i, c := range result.Changes {
		if c.Seq != uint64(i+1) || c.Action != ActionCreate || c.Before != nil || c.After.Author != author || !c.Time.Equal(created) {
			t.Errorf("change %+v", c)
		}
	}
	wall.pass(time.Minute)
	bob := Author{Actor: "bob", Via: "page"}
	result = mustWrite(t, s, Txn{Author: bob, Action: "split", Ops: []Op{splitOp(cart, SplitEdit{Shares: []Share{{"cart-v1", 7}}})}})
	c := result.Changes[0]
	if c.Action != "split" || c.Before.Author != author || c.After.Author != bob || !c.After.Created.Equal(created) || !c.After.Changed.Equal(wall.Now()) {
		t.Errorf("change %+v", c)
	}
	s = reopen(t, s)
	if o := mustGet(t, s, cart); o.Author != bob || !o.Created.Equal(created) || !o.Changed.Equal(wall.Now()) {
		t.Errorf("after a restart %+v", o)
	}
}

func TestWriteNamesActions(t *testing.T) {
	s := openStore(t, Options{})
	one := func(txn Txn) string {
		t.Helper()
		result := mustWrite(t, s, txn)
		if len(result.Changes) != 1 {
			t.Fatalf("changes %+v", result.Changes)
		}
		return result.Changes[0].Action
	}
	backend := func(weight int) Resource {
		return parseText(t, fmt.Sprintf("apiVersion: %s\nkind: Backend\nmetadata: {name: cart-v1}\nspec: {endpoints: [{address: \"a:1\", weight: %d}]}\n", BackendVersion, weight)).Backends[0]
	}
	for _, step := range []struct {
		want string
		txn  Txn
	}{
		{ActionCreate, Txn{Ops: []Op{{Apply: backend(1)}}}},
		{ActionUpdate, Txn{Ops: []Op{{Apply: backend(2)}}}},
		{"drain", Txn{Action: "drain", Ops: []Op{setState(cartV1, State{Drains: []Drain{{}}})}}},
		{ActionUpdate, Txn{Ops: []Op{setState(cartV1, State{})}}},
		{ActionDelete, Txn{Ops: []Op{{ID: cartV1, Delete: true}}}},
		{ActionCreate, Txn{Ops: []Op{{Apply: backend(1)}}}},
	} {
		if got := one(step.txn); got != step.want {
			t.Errorf("action %s, want %s", got, step.want)
		}
	}
}

func TestWriteDryRunChangesNothing(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	before := s.Snapshot()
	ops := append(applyOps(parseText(t, splitText("cart", "cart-v1=50", "cart-v2=10"))), applyOps(parseText(t, backendText("more", "")))...)
	result := mustWrite(t, s, Txn{DryRun: true, Ops: ops})
	if len(result.Changes) != 2 || result.Seq != before.Seq() {
		t.Fatalf("result %+v", result)
	}
	for _, c := range result.Changes {
		if c.Seq != 0 || !c.After.Revision.IsZero() {
			t.Errorf("change %d has revision %s", c.Seq, c.After.Revision)
		}
	}
	if s.Snapshot() != before {
		t.Error("there is another snapshot")
	}
	if _, err := s.Write(t.Context(), Txn{DryRun: true, Ops: []Op{{ID: cartV1, Delete: true}}}); err == nil {
		t.Error("a dry run accepts what the run would not")
	}
	// What it found holds for the run.
	again := mustWrite(t, s, Txn{Ops: ops})
	if len(again.Changes) != 2 {
		t.Errorf("result %+v", again)
	}
}

func TestWriteAllowsReferencesToNothingWhenAsked(t *testing.T) {
	s := openStore(t, Options{})
	route := parseText(t, splitText("cart", "cart-v1=1"))
	result := mustWrite(t, s, Txn{AllowUnresolved: true, Ops: []Op{{Apply: route.GRPCRoutes[0]}}})
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "in.yaml:8:") {
		t.Errorf("warnings %q", result.Warnings)
	}
	if faults := s.Snapshot().Unresolved(mustGet(t, s, cart)); len(faults) != 1 || faults[0].Field != "spec.rules[0].backendRefs[0].name" {
		t.Errorf("unresolved %v", faults)
	}
	// Who does not touch the route need not mend it.
	applyText(t, s, backendText("other", ""))
	mustWrite(t, s, Txn{Action: "disable", Ops: []Op{setState(cart, State{Disabled: true})}})
	mustWrite(t, s, Txn{Ops: []Op{{Apply: route.Backends[0]}}})
	if faults := s.Snapshot().Unresolved(mustGet(t, s, cart)); len(faults) != 0 {
		t.Errorf("unresolved %v", faults)
	}
	// A whole that is deleted leaves nothing behind that leads nowhere.
	mustWrite(t, s, Txn{Ops: []Op{{ID: cartV1, Delete: true}, {ID: cart, Delete: true}}})
	if n := s.Snapshot().Len(""); n != 1 {
		t.Errorf("%d objects, want 1", n)
	}
}

func TestWriteChecksThePolicysTargets(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, splitText("cart", "cart-v1=1"))
	policy := parseText(t, policyText(", split: {whenNoEndpoints: SpillOver}")).RPCPolicies[0]
	r := *policy
	r.Spec.TargetRefs = []TargetRef{{Group: GatewayGroup, Kind: GRPCRouteKind, Name: "nowhere"}}
	if _, err := s.Write(t.Context(), Txn{Ops: []Op{{Apply: &r}}}); err == nil || !strings.Contains(err.Error(), "spec.targetRefs[0].name") {
		t.Errorf("error %v", err)
	}
}

// An object of the API says since when it is there, whatever is applied afterwards.
func TestWriteKeepsTheCreationTimestamp(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	created := func() time.Time { return mustGet(t, s, cartV1).Resource.Metadata().CreationTimestamp }
	applyText(t, s, backendText("cart-v1", ""))
	first := created()
	if !first.Equal(wall.Now()) {
		t.Errorf("created %v, want %v", first, wall.Now())
	}
	wall.pass(time.Hour)
	applyText(t, s, backendText("cart-v1", ", labels: {a: b}"))
	if !created().Equal(first) {
		t.Errorf("created %v after an update, want %v", created(), first)
	}
	applyText(t, s, backendText("cart-v1", ", creationTimestamp: \"2001-01-01T00:00:00Z\""))
	if got := created(); got.Year() != 2001 {
		t.Errorf("created %v, want what the text says", got)
	}
}

func TestWriteRefusesAuthorsThatCannotBeKept(t *testing.T) {
	s := openStore(t, Options{})
	for _, author := range []Author{
		{Reason: strings.Repeat("x", 1025)}, {Actor: "a\nb"}, {Via: "\xff"}, {Address: "\x00"},
	} {
		_, err := s.Write(t.Context(), Txn{Author: author, Ops: applyOps(parseText(t, backendText("a", "")))})
		if _, ok := err.(Faults); !ok {
			t.Errorf("%+v: error %v, want a fault", author, err)
		}
	}
}

// Many objects are taken over, and given back, in one go.
func TestWriteAdoptsManyAtOnce(t *testing.T) {
	s := openStore(t, Options{})
	n := 2000
	if raceDetector {
		n = 200
	}
	if _, err := s.SyncFiles(t.Context(), routeSet(n), Author{}); err != nil {
		t.Fatal(err)
	}
	var adopt, release []Op
	for _, o := range s.Snapshot().All(GRPCRouteKind) {
		adopt, release = append(adopt, Op{ID: o.ID, Adopt: true}), append(release, Op{ID: o.ID, Release: true})
	}
	mustWrite(t, s, Txn{Ops: adopt})
	result, err := s.SyncFiles(t.Context(), routeSet(n), Author{})
	if err != nil || len(result.Changes) != 0 || len(result.Warnings) != maxFaults+1 {
		t.Errorf("%d changes, %d warnings, %v", len(result.Changes), len(result.Warnings), err)
	}
	if result := mustWrite(t, s, Txn{Ops: release}); len(result.Changes) != n {
		t.Errorf("%d were given back", len(result.Changes))
	}
}

func TestWriteEndsWithItsContext(t *testing.T) {
	s := openStore(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Write(ctx, Txn{Ops: applyOps(parseText(t, backendText("a", "")))}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if s.Snapshot().Len("") != 0 {
		t.Error("something was written")
	}
	closeStore(t, s)
	if _, err := s.Write(t.Context(), Txn{}); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v after Close", err)
	}
	if err := s.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v of the second Close", err)
	}
	if _, err := s.History(ID{}, 0, 0); err != nil && !errors.Is(err, ErrClosed) {
		t.Errorf("error %v of History", err)
	}
	if err := s.Records("a").Put("b", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v of Records", err)
	}
	if err := s.CheckConsistency(); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v of CheckConsistency", err)
	}
}

// A tombstone is kept for a day, through restarts, and then forgotten; history stays.
func TestStoreForgetsTombstonesAfterADay(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	applyText(t, s, backendText("cart-v1", "")+"---\n"+backendText("cart-v2", ""))
	mustWrite(t, s, Txn{Ops: []Op{{ID: cartV1, Delete: true}}})
	wall.pass(time.Hour)
	mustWrite(t, s, Txn{Ops: []Op{{ID: cartV2, Delete: true}}})
	count := func(want int) {
		t.Helper()
		if err := s.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, s)
		if got := len(s.Snapshot().Tombstones()); got != want {
			t.Errorf("%d tombstones, want %d", got, want)
		}
		if _, ok := s.Snapshot().Get(cartV1); ok {
			t.Error("a tombstone is found as an object")
		}
	}
	count(2)
	wall.pass(23 * time.Hour)
	count(2)
	wall.pass(time.Second)
	count(1)
	wall.pass(time.Hour)
	count(0)
	if changes, err := s.History(cartV1, 0, 0); err != nil || len(changes) != 2 {
		t.Errorf("history %v, %v", changes, err)
	}
	// A deletion may be taken back at any time.
	o, err := s.Version(cartV1, "")
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, s, Txn{Action: "rollback", Ops: []Op{{Exact: o}}})
	mustGet(t, s, cartV1)
}

func TestStoreRunEndsWithItsContext(t *testing.T) {
	s := openStore(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
