package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func policyFor(name, target, split string) string {
	return "apiVersion: sluice.dev/v1alpha1\nkind: RPCPolicy\nmetadata: {name: " + name + "}\n" +
		"spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, " + target + "}], split: {" + split + "}}\n"
}

func TestEffectiveSteersByPolicies(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	applyText(t, s, twoRules+"---\n"+backendText("cart-v1", "")+"---\n"+backendText("cart-v2", "")+"---\n"+backendText("cart-v1", ", namespace: other"))
	rule := func(index int) Steering {
		return s.Snapshot().Effective().GRPCRoute("default/cart").Spec.Rules[index].Steering
	}
	expect := func(step string, index int, sticky string, spillOver bool) {
		t.Helper()
		if got := rule(index); got.Sticky != sticky || got.SpillOver != spillOver || got.Overridden {
			t.Errorf("%s: rule %d is steered by %+v, want sticky %q, spill over %v", step, index, got, sticky, spillOver)
		}
	}
	expect("no policy", 0, "", false)
	applyText(t, s, policyFor("younger", "name: cart", "sticky: {header: by-younger}, whenNoEndpoints: SpillOver"))
	expect("a policy for the route", 0, "by-younger", true)
	expect("a policy for the route", 1, "by-younger", true)
	wall.pass(time.Hour)
	applyText(t, s, policyFor("a-second", "name: cart", "sticky: {header: by-second}"))
	expect("the older of two", 0, "by-younger", true)
	applyText(t, s, policyFor("section", "name: cart, sectionName: all", "sticky: {header: by-section}"))
	expect("the one that names the rule", 0, "by-section", false)
	expect("the one that names another rule", 1, "by-younger", true)
	mustWrite(t, s, Txn{Ops: []Op{{ID: ID{RPCPolicyKind, "", "younger"}, Delete: true}}})
	expect("the next one", 1, "by-second", false)
	mustWrite(t, s, Txn{Ops: []Op{splitOp(cart, SplitEdit{Sticky: ptr(""), SpillOver: ptr(true)})}})
	expect("what an operator says", 0, "", true)
	expect("what an operator says", 1, "by-second", false)
	mustWrite(t, s, Txn{Ops: []Op{splitOp(cart, SplitEdit{Sticky: ptr("By-Operator"), SpillOver: ptr(false)})}})
	expect("what an operator says", 0, "by-operator", false)
	// What is declared stays as it was declared.
	if declared := mustGet(t, s, cart).Resource.(*GRPCRoute).Spec.Rules[0].Steering; declared.Sticky != "" {
		t.Errorf("the declaration has steering %+v", declared)
	}
}

func TestEffectiveLeavesOutWhatIsDisabledAndDrained(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10")+"---\n"+httpText("backendRefs: [{group: sluice.dev, kind: Backend, name: cart-v1}]"))
	web := ID{HTTPRouteKind, "default", "r"}
	mustWrite(t, s, Txn{Ops: []Op{setState(cart, State{Disabled: true}), setState(web, State{Disabled: true})}})
	set := s.Snapshot().Effective()
	if len(set.GRPCRoutes) != 0 || len(set.HTTPRoutes) != 0 || len(set.Backends) != 2 {
		t.Errorf("effective %+v", set)
	}
	mustWrite(t, s, Txn{Ops: []Op{
		setState(cart, State{}), setState(web, State{}),
		setState(cartV1, State{Drains: []Drain{{}}}), setState(cartV2, State{Drains: []Drain{{Endpoint: "cart-v2:2"}}}),
	}})
	set = s.Snapshot().Effective()
	if len(set.GRPCRoutes) != 1 || len(set.HTTPRoutes) != 1 {
		t.Errorf("effective %+v", set)
	}
	weights := func(key string) (list []uint32) {
		for _, e := range set.Backend(key).Spec.Endpoints {
			list = append(list, e.Weight)
		}
		return list
	}
	if got := weights("default/cart-v1"); !slices.Equal(got, []uint32{0, 0}) {
		t.Errorf("drained as a whole: weights %v", got)
	}
	if got := weights("default/cart-v2"); !slices.Equal(got, []uint32{1, 0}) {
		t.Errorf("one endpoint drained: weights %v", got)
	}
	if got := mustGet(t, s, cartV1).Resource.(*Backend).Spec.Endpoints[0].Weight; got != 1 {
		t.Errorf("the declaration has weight %d", got)
	}
}

// What did not change has the same pointer in the next set: the gateway compares by it.
func TestEffectiveKeepsPointers(t *testing.T) {
	s := openStore(t, Options{})
	for i := range 20 {
		applyText(t, s, splitText(fmt.Sprintf("r%d", i), "b0=1", "b1=1"))
	}
	applyText(t, s, policyFor("p", "name: r3", "sticky: {header: x-user}"))
	mustWrite(t, s, Txn{Ops: []Op{
		splitOp(ID{GRPCRouteKind, "", "r4"}, SplitEdit{Shares: []Share{{"b0", 1}}}),
		setState(ID{BackendKind, "", "b1"}, State{Drains: []Drain{{}}}),
	}})
	rng := rand.New(rand.NewPCG(2, 2))
	before := s.Snapshot()
	for range 50 {
		id := ID{GRPCRouteKind, "default", fmt.Sprintf("r%d", rng.IntN(20))}
		mustWrite(t, s, Txn{Ops: []Op{splitOp(id, SplitEdit{Shares: []Share{{"b0", 1 + rng.Uint32N(3)}, {"b1", rng.Uint32N(3)}}})}})
		after := s.Snapshot()
		was := before.Effective().GRPCRoutesByKey()
		for _, r := range after.Effective().GRPCRoutes {
			same := r == was[r.Key()]
			old, _ := before.Get(ResourceID(r))
			now, _ := after.Get(ResourceID(r))
			if same != (old == now) {
				t.Fatalf("%s: same pointer %v, same object %v", r.Key(), same, old == now)
			}
		}
		for i, b := range after.Effective().Backends {
			if b != before.Effective().Backends[i] {
				t.Errorf("backend %s has another pointer", b.Key())
			}
		}
		if set := after.Effective(); set != after.Effective() {
			t.Error("the set is made twice")
		}
		before = after
	}
}

func TestSnapshotDoesNotChange(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	then := s.Snapshot()
	digest, o := then.Digest(), mustGet(t, s, cart)
	all := slices.Clone(then.All(""))
	applyText(t, s, splitText("cart", "cart-v1=1", "cart-v2=1")+"---\n"+backendText("a", ""))
	mustWrite(t, s, Txn{AllowUnresolved: true, Ops: []Op{{ID: cartV1, Delete: true}}})
	if got, ok := then.Get(ID{GRPCRouteKind, "", "cart"}); !ok || got != o || then.Digest() != digest || !slices.Equal(then.All(""), all) {
		t.Error("an earlier snapshot changed")
	}
	if then.Len("") != 3 || then.Len(BackendKind) != 2 || then.Len("Nothing") != 0 || len(then.All("Nothing")) != 0 {
		t.Errorf("%d objects", then.Len(""))
	}
	if s.Snapshot().Digest() == digest {
		t.Error("other objects have the same digest")
	}
}

// Two stores with the same objects have the same digest, by whatever way they came to
// them, and whoever owns them.
func TestDigestIsThatOfTheObjects(t *testing.T) {
	wall := newTestClock()
	a, b := openStore(t, Options{Now: wall.Now}), openStore(t, Options{Now: wall.Now})
	text := splitText("cart", "cart-v1=90", "cart-v2=10")
	applyText(t, a, text)
	applyText(t, b, splitText("cart", "cart-v1=1", "cart-v2=10", "cart-v3=1"))
	if a.Snapshot().Digest() == b.Snapshot().Digest() {
		t.Error("other objects have the same digest")
	}
	applyText(t, b, text)
	mustWrite(t, b, Txn{Ops: []Op{{ID: ID{BackendKind, "", "cart-v3"}, Delete: true}}})
	if a.Snapshot().Digest() != b.Snapshot().Digest() {
		t.Error("the same objects have another digest")
	}
	edit := SplitEdit{Shares: []Share{{"cart-v1", 1}}, By: "alice", At: time.Now()}
	mustWrite(t, a, Txn{Ops: []Op{splitOp(cart, edit)}})
	if a.Snapshot().Digest() == b.Snapshot().Digest() {
		t.Error("another state has the same digest")
	}
	edit.By = "bob"
	mustWrite(t, b, Txn{Ops: []Op{splitOp(cart, edit)}})
	if a.Snapshot().Digest() != b.Snapshot().Digest() {
		t.Error("who made a split is part of the digest")
	}
}
