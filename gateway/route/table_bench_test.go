package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/store"
)

var sizes = []int{10, 100, 1000, 10_000}

// manyRoutes has n routes: each its own service, on one of n/10 hostnames, with a
// split of two backends, as in a gateway before many teams.
func manyRoutes(n int) *store.Set {
	set := &store.Set{}
	for i := range n {
		r := &store.GRPCRoute{Meta: store.Meta{Name: fmt.Sprintf("route-%d", i)}}
		r.Spec.Hostnames = []string{hostOfRoute(i)}
		r.Spec.Rules = []store.GRPCRouteRule{{
			Matches: []store.GRPCRouteMatch{{Method: &store.MethodMatch{Type: store.Exact, Service: serviceOfRoute(i)}}},
			BackendRefs: []store.BackendRef{
				{Name: fmt.Sprintf("backend-%d", i), Weight: 90},
				{Name: fmt.Sprintf("backend-%d-canary", i), Weight: 10},
			},
		}}
		set.GRPCRoutes = append(set.GRPCRoutes, r)
	}
	return set
}

func hostOfRoute(i int) string    { return fmt.Sprintf("team-%d.example.com", i/10) }
func serviceOfRoute(i int) string { return fmt.Sprintf("shop.v1.Service%d", i) }

type request struct{ authority, path string }

// requests are for count routes of n, spread over all of them, in random order.
func requests(n, count int) []request {
	rng := rand.New(rand.NewPCG(1, 1))
	list := make([]request, count)
	for i := range list {
		route := i * (n / count)
		list[i] = request{hostOfRoute(route) + ":8080", "/" + serviceOfRoute(route) + "/Get"}
	}
	rng.Shuffle(count, func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// BenchmarkLookup is flat in the number of routes: "busy" asks for ten routes
// whatever the size of the table, and so sees what the lookup itself costs.
// "spread" asks for all of them in turn, and so sees the processor's caches too:
// 10,000 routes that are all in use do not fit into the nearest ones. Compare the
// best of several runs: what else the machine does counts more than the size.
func BenchmarkLookup(b *testing.B) {
	for _, n := range sizes {
		table := Compile(manyRoutes(n), nil)
		b.Run(fmt.Sprintf("busy/routes=%d", n), func(b *testing.B) { benchmarkLookup(b, table, requests(n, 10)) })
		b.Run(fmt.Sprintf("spread/routes=%d", n), func(b *testing.B) { benchmarkLookup(b, table, requests(n, n)) })
	}
}

func benchmarkLookup(b *testing.B, table *Table, list []request) {
	b.ReportAllocs()
	hdr := Header(headers{})
	i := 0
	for b.Loop() {
		if r, _ := table.Lookup(list[i].authority, list[i].path, hdr); r == nil {
			b.Fatal("no rule found")
		}
		if i++; i == len(list) {
			i = 0
		}
	}
}

// BenchmarkExplain may take as long as an operator does not notice.
func BenchmarkExplain(b *testing.B) {
	for _, n := range sizes {
		table := Compile(manyRoutes(n), nil)
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			for b.Loop() {
				if e := table.Explain(hostOfRoute(1), "/"+serviceOfRoute(1)+"/Get", nil); e.Rule == nil {
					b.Fatal("no rule found")
				}
			}
		})
	}
}

func BenchmarkPick(b *testing.B) {
	for _, weights := range [][]uint32{{1}, {90, 10}, {34, 33, 33}, {1, 2, 3, 4, 5, 6, 7, 8}} {
		r := rule(weights...)
		b.Run(fmt.Sprint(weights), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Pick()
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range sizes {
		set := manyRoutes(n)
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Compile(set, nil)
			}
		})
	}
}

// BenchmarkNext changes one route of many: on a hostname of ten routes, and where
// all routes serve every authority.
func BenchmarkNext(b *testing.B) {
	for _, n := range sizes {
		for _, hostnames := range []string{"many", "none"} {
			set := manyRoutes(n)
			if hostnames == "none" {
				for _, r := range set.GRPCRoutes {
					r.Spec.Hostnames = nil
				}
			}
			b.Run(fmt.Sprintf("hostnames=%s/routes=%d", hostnames, n), func(b *testing.B) {
				b.ReportAllocs()
				table := Compile(set, nil)
				for i := 0; b.Loop(); i++ {
					next := &store.Set{GRPCRoutes: slices.Clone(set.GRPCRoutes)}
					changed := *next.GRPCRoutes[i%n]
					next.GRPCRoutes[i%n] = &changed
					table = Compile(next, table)
					set = next
				}
			})
		}
	}
}
