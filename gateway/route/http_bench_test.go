package route

import (
	"fmt"
	"testing"

	"sluice/store"
)

// manyHTTPRoutes has n routes on n/10 hostnames, each with a prefix of its own.
func manyHTTPRoutes(n int) *store.Set {
	set := &store.Set{}
	for i := range n {
		r := &store.HTTPRoute{Meta: store.Meta{Name: fmt.Sprintf("route-%d", i)}}
		r.Spec.Hostnames = []string{hostOfRoute(i)}
		r.Spec.Rules = []store.HTTPRouteRule{{
			Matches:     []store.HTTPRouteMatch{{Path: store.PathMatch{Type: store.PathPrefix, Value: fmt.Sprintf("/v1/things-%d", i)}}},
			BackendRefs: []store.BackendRef{{Name: "old", Weight: 90}, {Name: "next", Weight: 10}},
		}}
		set.HTTPRoutes = append(set.HTTPRoutes, r)
	}
	return set
}

// BenchmarkLookupHTTP is flat in the number of routes.
func BenchmarkLookupHTTP(b *testing.B) {
	for _, n := range sizes {
		table := Compile(manyHTTPRoutes(n), nil)
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			requests := make([]HTTPRequest, 10)
			for i := range requests {
				route := i * (n / 10)
				p, err := ParseHTTPPath(fmt.Sprintf("/v1/things-%d/parts/7", route))
				if err != nil {
					b.Fatal(err)
				}
				requests[i] = HTTPRequest{Authority: hostOfRoute(route) + ":8080", Method: "GET", Path: p, Header: headers{}}
			}
			for i := 0; b.Loop(); i = (i + 1) % 10 {
				if m, _ := table.LookupHTTP(&requests[i]); m.Rule == nil {
					b.Fatal("no rule found")
				}
			}
		})
	}
}

// BenchmarkNextHTTP is one change among n routes.
func BenchmarkNextHTTP(b *testing.B) {
	for _, n := range sizes {
		set := manyHTTPRoutes(n)
		table := Compile(set, nil)
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			for b.Loop() {
				changed := *set.HTTPRoutes[n/2]
				set.HTTPRoutes[n/2] = &changed
				table, _ = table.Next(set)
			}
		})
	}
}

// TestLookupHTTPAllocatesNothing, unless a rule looks at the query.
func TestLookupHTTPAllocatesNothing(t *testing.T) {
	table := Compile(manyHTTPRoutes(100), nil)
	p, _ := ParseHTTPPath("/v1/things-55/x")
	r := &HTTPRequest{Authority: hostOfRoute(55), Method: "GET", Path: p, Query: "a=b", Header: headers{}}
	if n := testing.AllocsPerRun(100, func() {
		if m, _ := table.LookupHTTP(r); m.Rule == nil {
			t.Fatal("no rule found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
