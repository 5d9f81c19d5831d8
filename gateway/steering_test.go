package gateway

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/store"
)

// steer applies resources with every rule steered so.
func (n *node) steer(t testing.TB, s store.Steering, resources ...string) {
	t.Helper()
	set := parse(t, resources...)
	for _, r := range set.GRPCRoutes {
		for i := range r.Spec.Rules {
			r.Spec.Rules[i].Steering = s
		}
	}
	if err := n.Apply(set); err != nil {
		t.Fatal(err)
	}
}

// whoFor is who serves an RPC with these pairs of metadata, or the status' code.
func whoFor(t testing.TB, cc *grpc.ClientConn, pairs ...string) string {
	t.Helper()
	reply, err := invoke(metadata.AppendToOutgoingContext(shortly(t), pairs...), cc, "/shop.Cart/Who", nil)
	if err != nil {
		return status.Code(err).String()
	}
	return string(reply)
}

func TestSteeringPinsByMetadata(t *testing.T) {
	t.Parallel()
	a, b, c := startBackend(t, "a"), startBackend(t, "b"), startBackend(t, "c")
	g := startGateway(t, Config{})
	backends := []string{backendAt("a", a.addr), backendAt("b", b.addr), backendAt("c", c.addr)}
	g.steer(t, store.Steering{Pins: []store.Pin{
		{Header: "x-tester", Value: "canary", Backend: "default/b"},
		{Header: "x-tester", Value: "next", Backend: "default/c"},
		{Header: "x-tester", Value: "nobody", Backend: "default/nobody"},
	}}, append(backends, routeTo("split", "a=100", "b=0"))...)
	cc := dial(t, g.address())
	for range 20 {
		for value, want := range map[string]string{"canary": "b", "next": "c", "nobody": "Unavailable", "other": "a", "Canary": "a", "": "a"} {
			if got := whoFor(t, cc, "x-tester", value); got != want {
				t.Errorf("x-tester %q: served by %s, want %s", value, got, want)
			}
		}
		if got := whoFor(t, cc); got != "a" {
			t.Errorf("without metadata: served by %s, want a", got)
		}
	}
	g.apply(t, append(backends, routeTo("split", "a=100", "b=0"))...)
	if got := whoFor(t, cc, "x-tester", "canary"); got != "a" {
		t.Errorf("without pins: served by %s, want a", got)
	}
}

// TestSteeringSticks: 10,000 users stay where they are, but for the share that has to
// move.
func TestSteeringSticks(t *testing.T) {
	t.Parallel()
	const users = 10_000
	a, b := startBackend(t, "a"), startBackend(t, "b")
	g := startGateway(t, Config{})
	resources := func(refs ...string) []string {
		return []string{backendAt("a", a.addr), backendAt("b", b.addr), routeTo("split", refs...)}
	}
	conns := []*grpc.ClientConn{dial(t, g.address()), dial(t, g.address())}
	on := func() (canary [users]bool) {
		each(users, 40, func(i int) {
			ctx := metadata.AppendToOutgoingContext(shortly(t), "x-user", fmt.Sprint("user-", i))
			reply, err := invoke(ctx, conns[i%2], "/shop.Cart/Who", nil)
			if err != nil {
				t.Error(err)
			}
			canary[i] = string(reply) == "b"
		})
		return canary
	}
	count := func(canary [users]bool) (n int) {
		for _, on := range canary {
			if on {
				n++
			}
		}
		return n
	}
	sticky := store.Steering{Sticky: "x-user"}
	g.steer(t, sticky, resources("a=90", "b=10")...)
	before := on()
	g.steer(t, sticky, resources("a=80", "b=20")...)
	after := on()
	moved := 0
	for i := range users {
		if before[i] && !after[i] {
			t.Errorf("user %d moved back", i)
		}
		if before[i] != after[i] {
			moved++
		}
	}
	if n := count(before); n < 900 || n > 1100 {
		t.Errorf("%d users on the canary, want about 1000", n)
	}
	if grown := count(after) - count(before); moved != grown || moved < 900 || moved > 1100 {
		t.Errorf("%d users moved and the canary has %d more, want the same, about 1000", moved, grown)
	}
	// A store that has parted the space in another way is obeyed.
	sticky.Sides = []store.Side{{End: 1 << 30, Backend: "default/b"}, {End: 1 << 32, Backend: "default/a"}}
	g.steer(t, sticky, resources("a=80", "b=20")...)
	e := g.Explain("x", "/shop.Cart/Who", [][2]string{{"X-User", "user-1"}})
	if got := "default/" + whoFor(t, conns[0], "x-user", "user-1"); got != e.Backend || !strings.Contains(e.Because, "x-user") {
		t.Errorf("served by %s, and the explanation is %+v", got, e)
	}
}

// TestSteeringByShareOfABackendWithoutEndpoints: its share is answered UNAVAILABLE, or
// spills over.
func TestSteeringByShareOfABackendWithoutEndpoints(t *testing.T) {
	t.Parallel()
	a, b, reserve := startBackend(t, "a"), startBackend(t, "b"), startBackend(t, "reserve")
	up := func(b *backend) []string { return []string{b.addr} }
	drained := func(b *backend) []string { return []string{b.addr + "=0"} }
	tests := []struct {
		name                   string
		spill                  bool
		refs                   []string
		endpointsA, endpointsB []string
		want                   map[string]int // of 100
	}{
		{"none: its share", false, []string{"a=90", "b=10"}, up(a), nil, map[string]int{"a": 90, "Unavailable": 10}},
		{"all of weight 0: its share", false, []string{"a=90", "b=10"}, up(a), drained(b), map[string]int{"a": 90, "Unavailable": 10}},
		{"it does not exist: its share", false, []string{"a=90", "nobody=10"}, up(a), nil, map[string]int{"a": 90, "Unavailable": 10}},
		{"weight 0 is a reserve and gets nothing", false, []string{"a=100", "reserve=0"}, nil, nil, map[string]int{"Unavailable": 100}},
		{"spills to the other", true, []string{"a=90", "b=10"}, up(a), nil, map[string]int{"a": 100}},
		{"spills when drained", true, []string{"a=90", "b=10"}, drained(a), up(b), map[string]int{"b": 100}},
		{"spills when it does not exist", true, []string{"nobody=90", "b=10"}, nil, up(b), map[string]int{"b": 100}},
		{"spills to weight before reserve", true, []string{"a=50", "b=50", "reserve=0"}, nil, up(b), map[string]int{"b": 100}},
		{"spills to the reserve at last", true, []string{"a=50", "b=50", "reserve=0"}, nil, nil, map[string]int{"reserve": 100}},
		{"nothing to spill to", true, []string{"a=50", "b=50"}, nil, drained(b), map[string]int{"Unavailable": 100}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, Config{})
			g.steer(t, store.Steering{SpillOver: test.spill}, backendAt("a", test.endpointsA...), backendAt("b", test.endpointsB...),
				backendAt("reserve", reserve.addr), routeTo("split", test.refs...))
			cc := dial(t, g.address())
			got := make(map[string]int)
			for range 100 {
				got[whoFor(t, cc)]++
			}
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// TestSteeringSpillsOverFromWhoIsDown once that is known: who asks first finds out.
func TestSteeringSpillsOverFromWhoIsDown(t *testing.T) {
	t.Parallel()
	a := startBackend(t, "a")
	g := startGateway(t, Config{})
	g.steer(t, store.Steering{SpillOver: true}, backendAt("a", a.addr), backendAt("down", deadAddress()), routeTo("split", "a=50", "down=50"))
	cc := dial(t, g.address())
	await(t, "the first to find out", func() bool {
		whoFor(t, cc)
		return g.metric(t, "sluice_endpoint_usable", "backend", "default/down") == 0
	})
	for range 20 {
		if got := whoFor(t, cc); got != "a" {
			t.Errorf("served by %s, want a", got)
		}
	}
	want := []ObservedShare{{Backend: "default/a", Weight: 50, Endpoints: 1}, {Backend: "default/down", Weight: 50, Problem: "no endpoint can be reached"}}
	for i, got := range g.Observed(store.ID{Kind: store.GRPCRouteKind, Namespace: "default", Name: "split"})[0].Shares {
		if got.Backend != want[i].Backend || got.Weight != want[i].Weight || got.Endpoints != want[i].Endpoints || !strings.HasPrefix(got.Problem, want[i].Problem) || (got.Problem == "") != (want[i].Problem == "") {
			t.Errorf("observed %+v, want %+v", got, want[i])
		}
	}
}

// TestObservedSharesAreThoseOfTheRPCs, rule by rule.
func TestObservedSharesAreThoseOfTheRPCs(t *testing.T) {
	t.Parallel()
	a, b := startBackend(t, "a"), startBackend(t, "b")
	const route = `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: shop}
spec:
  rules:
  - name: cart
    matches: [{method: {service: shop.Cart}}]
    backendRefs: [{name: a, weight: 90}, {name: b, weight: 10}]
  - matches: [{method: {service: shop.Stock}}]
    backendRefs: [{name: b, weight: 1}, {name: gone, weight: 1}, {name: b, weight: 2}, {name: idle, weight: 0}]
`
	g := startGateway(t, Config{}, backendAt("a", a.addr), backendAt("b", b.addr), backendAt("idle"), route)
	cc := dial(t, g.address())
	for range 100 {
		mustCall(t, cc, "/shop.Cart/Who", nil)
		invoke(shortly(t), cc, "/shop.Stock/Who", nil)
	}
	want := []ObservedRule{
		{Rule: "cart", Shares: []ObservedShare{
			{Backend: "default/a", Weight: 90, RPCs: 90, Endpoints: 1},
			{Backend: "default/b", Weight: 10, RPCs: 10, Endpoints: 1},
		}},
		{Rule: "1", Shares: []ObservedShare{
			{Backend: "default/b", Weight: 3, RPCs: 75, Endpoints: 1},
			{Backend: "default/gone", Weight: 1, RPCs: 25, Problem: "no such Backend"},
			{Backend: "default/idle", Problem: "no endpoint"},
		}},
	}
	if got := g.Observed(store.ID{Kind: store.GRPCRouteKind, Namespace: "default", Name: "shop"}); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, share := range want[0].Shares {
		if got := g.metric(t, "sluice_rpc_started_total", "route", "default/shop", "rule", "cart", "backend", share.Backend); got != float64(share.RPCs) {
			t.Errorf("%s: the metric is %v, observed %d", share.Backend, got, share.RPCs)
		}
	}
	if got := g.Observed(store.ID{Kind: store.GRPCRouteKind, Namespace: "default", Name: "other"}); got != nil {
		t.Errorf("a route that is not there: %+v", got)
	}
}

func TestExplainSaysWhatBecomesOfAnRPC(t *testing.T) {
	t.Parallel()
	a, b := startBackend(t, "a"), startBackend(t, "b")
	g := startGateway(t, Config{})
	g.steer(t, store.Steering{Pins: []store.Pin{{Header: "x-tester", Value: "1", Backend: "default/b"}}},
		backendAt("a", a.addr), backendAt("b", b.addr), backendAt("empty"),
		routeWith("one", "matches: [{method: {service: svc.one}}]", "a"),
		routeWith("two", "matches: [{method: {service: svc.two}}, {method: {service: svc.two, method: Get}, headers: [{name: x, value: y}]}]", "a=90", "b=10"),
		routeWith("none", "matches: [{method: {service: svc.none}}]", "empty"),
		routeWith("zero", "matches: [{method: {service: svc.zero}}]", "a=0"))
	cc := dial(t, g.address())
	tests := []struct {
		path    string
		headers [][2]string
		verdict string
		backend string
		because string
		served  string // by whom, or the code; empty is by turns
	}{
		{"/svc.one/Who", nil, "rule all of route default/one wins", "default/a", "only backend with weight", "a"},
		{"/svc.one/Who", [][2]string{{"X-Tester", "1"}}, "rule all of route default/one wins", "default/b", "pinned", "b"},
		{"/svc.two/Who", nil, "rule all of route default/two wins", "", "take turns", ""},
		{"/svc.none/Who", nil, "rule all of route default/none wins; UNAVAILABLE: default/empty: no endpoint", "default/empty", "only backend with weight", "Unavailable"},
		{"/svc.zero/Who", nil, "rule all of route default/zero wins; UNAVAILABLE", "", "no backend with weight", "Unavailable"},
		{"/svc.other/Who", nil, `UNIMPLEMENTED: routes serve the authority "x", and none of their rules matches /svc.other/Who`, "", "", "Unimplemented"},
		{"/svc.one", nil, `UNIMPLEMENTED: the path "/svc.one" is not /package.Service/Method`, "", "", ""},
	}
	for _, test := range tests {
		e := g.Explain("x", test.path, test.headers)
		if e.Verdict != test.verdict || e.Backend != test.backend || !strings.Contains(e.Because, test.because) {
			t.Errorf("%s %v: got %q, %q because %q", test.path, test.headers, e.Verdict, e.Backend, e.Because)
		}
		if test.served == "" {
			continue
		}
		ctx := shortly(t)
		for _, h := range test.headers {
			ctx = metadata.AppendToOutgoingContext(ctx, h[0], h[1])
		}
		reply, err := invoke(ctx, cc, test.path, nil)
		if got := string(reply); err == nil && got != test.served || err != nil && status.Code(err).String() != test.served {
			t.Errorf("%s %v: served by %q, %v; want %s", test.path, test.headers, got, err, test.served)
		}
	}
	e := g.Explain("x", "/svc.two/Get", nil)
	if len(e.Candidates) != 2 || e.Candidates[0].Wins || e.Candidates[0].Why != "there is no metadata x" || !e.Candidates[1].Wins || len(e.Shares) != 2 {
		t.Errorf("got %+v", e)
	}
}

// TestApplyMovesASplitUnderLoad: with 1,000 changes of weights, no RPC is harmed and
// each goes to one of the two.
func TestApplyMovesASplitUnderLoad(t *testing.T) {
	a, b := startFrugalBackend(t), startFrugalBackend(t)
	g := startGateway(t, Config{})
	set := manyRoutes(1000)
	backends := parse(t, backendAt("a", a.addr), backendAt("b", b.addr), routeTo("split", "a=90", "b=10"))
	set.Backends = append(set.Backends, backends.Backends...)
	set.GRPCRoutes = append(set.GRPCRoutes, backends.GRPCRoutes...)
	last := len(set.GRPCRoutes) - 1
	if err := g.Apply(set); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var made atomic.Int64
	for range 2 {
		f := newFrugalCaller(t, g.address())
		wg.Go(func() {
			for ctx.Err() == nil {
				f.run(20, 20)
				made.Add(20)
			}
		})
	}
	for i := range 1000 {
		next := &store.Set{GRPCRoutes: append([]*store.GRPCRoute(nil), set.GRPCRoutes...), Backends: set.Backends}
		changed := *next.GRPCRoutes[last]
		changed.Spec.Rules = append([]store.GRPCRouteRule(nil), changed.Spec.Rules...)
		changed.Spec.Rules[0].BackendRefs = append([]store.BackendRef(nil), changed.Spec.Rules[0].BackendRefs...)
		changed.Spec.Rules[0].BackendRefs[0].Weight = uint32(1 + i%99)
		changed.Spec.Rules[0].BackendRefs[1].Weight = uint32(99 - i%99)
		next.GRPCRoutes[last] = &changed
		next.GRPCRoutes[i%1000] = routeOfMany(i%1000, uint32(i%100))
		if err := g.Apply(next); err != nil {
			t.Fatal(err)
		}
		set = next
	}
	cancel()
	wg.Wait()
	served := a.served.Load() + b.served.Load()
	ok := g.metric(t, "sluice_rpc_ended_total", "code", "OK")
	all := g.metric(t, "sluice_rpc_ended_total")
	if ok != all || float64(served) != all || made.Load() < 1000 {
		t.Errorf("%v of %v RPCs ended well, the backends saw %d", ok, all, served)
	}
	if n := len(g.compiler.numbers); n != 2002 || len(g.table.Load().backends) > 2010 {
		t.Errorf("%d numbers of backends, %d places; want 2002", n, len(g.table.Load().backends))
	}
	t.Logf("%d RPCs across 1,000 changes", served)
}

// TestApplyIsInForceAtOnce: the first RPC after it obeys.
func TestApplyIsInForceAtOnce(t *testing.T) {
	t.Parallel()
	a, b := startBackend(t, "a"), startBackend(t, "b")
	g := startGateway(t, Config{})
	sets := [2]*store.Set{}
	for i, refs := range [][]string{{"a=1", "b=0"}, {"a=0", "b=1"}} {
		sets[i] = parse(t, backendAt("a", a.addr), backendAt("b", b.addr), routeTo("split", refs...))
	}
	cc := dial(t, g.address())
	for i := range 200 {
		if err := g.Apply(sets[i%2]); err != nil {
			t.Fatal(err)
		}
		if got, want := string(mustCall(t, cc, "/shop.Cart/Who", nil)), []string{"a", "b"}[i%2]; got != want {
			t.Fatalf("after change %d: served by %s, want %s", i, got, want)
		}
	}
}

// TestSteeringCountsWhereRPCsWent, and not where they were to go.
func TestSteeringCountsWhereRPCsWent(t *testing.T) {
	t.Parallel()
	a := startBackend(t, "a")
	g := startGateway(t, Config{})
	g.steer(t, store.Steering{SpillOver: true}, backendAt("a", a.addr), backendAt("b"), routeTo("split", "a=50", "b=50"))
	cc := dial(t, g.address())
	for range 10 {
		mustCall(t, cc, "/shop.Cart/Who", nil)
	}
	if got := g.metric(t, "sluice_rpc_ended_total", "backend", "default/a", "code", "OK"); got != 10 {
		t.Errorf("%v RPCs counted for the backend that has taken them, want 10", got)
	}
	if got := g.metric(t, "sluice_rpc_ended_total", "backend", "default/b"); got != 0 {
		t.Errorf("%v RPCs counted for the one that has not, want none", got)
	}
}
