package gateway

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"testing"
	"time"

	"sluice/gateway/listen"
	"sluice/store"
)

// manyRoutes has n routes, each its own service on one of n/10 hostnames, with a
// split of two backends of its own, as in a gateway before many teams.
func manyRoutes(n int) *store.Set {
	set := &store.Set{}
	for i := range n {
		set.GRPCRoutes = append(set.GRPCRoutes, routeOfMany(i, 90))
		for _, name := range []string{backendOfMany(i), backendOfMany(i) + "-canary"} {
			b := &store.Backend{Meta: store.Meta{Name: name}}
			b.Spec.Endpoints = []store.Endpoint{{Address: fmt.Sprintf("10.%d.%d.1:50051", i/250, i%250), Weight: 1}, {Address: fmt.Sprintf("10.%d.%d.2:50051", i/250, i%250), Weight: 1}}
			b.Spec.SetDefaults()
			set.Backends = append(set.Backends, b)
		}
	}
	return set
}

func routeOfMany(i int, weight uint32) *store.GRPCRoute {
	r := &store.GRPCRoute{Meta: store.Meta{Name: fmt.Sprintf("route-%d", i)}}
	r.Spec.Hostnames = []string{fmt.Sprintf("team-%d.example.com", i/10)}
	r.Spec.Rules = []store.GRPCRouteRule{{
		Matches: []store.GRPCRouteMatch{{Method: &store.MethodMatch{Type: store.Exact, Service: fmt.Sprintf("shop.v1.Service%d", i)}}},
		BackendRefs: []store.BackendRef{
			{Name: backendOfMany(i), Weight: weight},
			{Name: backendOfMany(i) + "-canary", Weight: 100 - weight},
		},
	}}
	return r
}

func backendOfMany(i int) string { return fmt.Sprintf("backend-%d", i) }

// idleGateway has applied a set and does not run, nor has it a port any more.
func idleGateway(tb testing.TB, set *store.Set) *Gateway {
	tb.Helper()
	g, err := New(Config{Listen: listen.Config{Address: "127.0.0.1:0"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	g.listener.StopAccepting()
	if err := g.Apply(set); err != nil {
		tb.Fatal(err)
	}
	return g
}

// BenchmarkApply is what a change costs: of everything, at the start, and of one
// route's weights among the others.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		set := manyRoutes(n)
		b.Run(fmt.Sprintf("all/routes=%d", n), func(b *testing.B) {
			for b.Loop() {
				idleGateway(b, set)
			}
		})
		b.Run(fmt.Sprintf("one/routes=%d", n), func(b *testing.B) {
			g := idleGateway(b, set)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				next := &store.Set{GRPCRoutes: append([]*store.GRPCRoute(nil), set.GRPCRoutes...), Backends: set.Backends}
				next.GRPCRoutes[i%n] = routeOfMany(i%n, uint32(i%100))
				if err := g.Apply(next); err != nil {
					b.Fatal(err)
				}
				set, i = next, i+1
			}
		})
	}
}

// BenchmarkApplyToFirstRPC is how long a split among 10,000 routes takes from Apply
// until an RPC that obeys has been answered.
func BenchmarkApplyToFirstRPC(b *testing.B) {
	first, second := startFrugalBackend(b), startFrugalBackend(b)
	g := startGateway(b, Config{})
	set := manyRoutes(10_000)
	sets := [2]*store.Set{}
	for i, refs := range [][]string{{"a=1", "b=0"}, {"a=0", "b=1"}} {
		split := parse(b, backendAt("a", first.addr), backendAt("b", second.addr), routeTo("split", refs...))
		if i > 0 {
			split.Backends = sets[0].Backends[:2]
		}
		sets[i] = &store.Set{Backends: append(split.Backends[:2:2], set.Backends...), GRPCRoutes: append(split.GRPCRoutes, set.GRPCRoutes...)}
	}
	if err := g.Apply(sets[1]); err != nil {
		b.Fatal(err)
	}
	f := newFrugalCaller(b, g.address())
	if err := g.Apply(sets[0]); err != nil {
		b.Fatal(err)
	}
	f.run(1, 1)
	var took []time.Duration
	i := 0
	for b.Loop() {
		i++
		served := [2]int64{first.served.Load(), second.served.Load()}
		start := time.Now()
		if err := g.Apply(sets[i%2]); err != nil {
			b.Fatal(err)
		}
		f.run(1, 1)
		took = append(took, time.Since(start))
		served[i%2]++
		if got := [2]int64{first.served.Load(), second.served.Load()}; got != served {
			b.Fatalf("change %d: served %v, want %v", i, got, served)
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
}

// BenchmarkMemoryOfRoutes is what 10,000 routes with 20,000 backends and 40,000
// endpoints take, beside what the store has of them: 5.4 KB for a route with its two
// backends, their four endpoints and two series, before any of them has had an RPC.
// The first RPC of a series adds 2.3 KB for its histogram.
func BenchmarkMemoryOfRoutes(b *testing.B) {
	const n = 10_000
	set := manyRoutes(n)
	for b.Loop() {
		before := heap()
		g := idleGateway(b, set)
		b.ReportMetric(float64(heap()-before)/n, "B/route")
		runtime.KeepAlive(g)
	}
	runtime.KeepAlive(set)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
