package gateway

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/gateway/observe"
	"sluice/gateway/policy"
	"sluice/gateway/route"
	"sluice/gateway/upstream"
	"sluice/store"
)

// TestCompilerKnowsBackendsByNumber changes routes and backends at random. Every
// split leads to the backend of its key, in the table of the moment and in all that
// there were before, and nothing is kept that no rule has.
func TestCompilerKnowsBackendsByNumber(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(8, 1))
	m := observe.New()
	c := newCompiler(m, new(policy.Share))
	backends := make(map[string]*upstream.Backend)
	table := &table{routes: route.Compile(&store.Set{}, nil)}
	var routes []*store.GRPCRoute
	var checks []func()
	for round := range 300 {
		changed := make(map[string]*upstream.Backend)
		for range rng.IntN(3) {
			key := fmt.Sprintf("default/b%d", rng.IntN(8))
			delete(backends, key)
			if changed[key] = nil; rng.IntN(3) > 0 {
				backends[key] = &upstream.Backend{Key: key}
				changed[key] = backends[key]
			}
		}
		routes = alterRoutes(rng, routes, round)
		next, removed := c.next(table, &store.Set{GRPCRoutes: routes}, changed, func(key string) *upstream.Backend { return backends[key] })
		table = next
		c.release(removed)

		keys, splits := make(map[string]int), make(map[observe.Key]bool)
		for _, rule := range table.routes.Rules() {
			for i, split := range rule.Splits {
				number, want := rule.Attached.(*targets).splits[i].backend, backends[split.Backend]
				check := func() {
					if got := next.backends[number]; got != want {
						t.Fatalf("round %d: %s leads to %+v, want %+v", round, split.Backend, got, want)
					}
				}
				check()
				checks = append(checks, check)
				keys[split.Backend]++
				splits[observe.Key{Route: rule.Route, Rule: rule.Label(), Backend: split.Backend}] = true
			}
		}
		for key, users := range keys {
			if c.numbers[key].users != users {
				t.Fatalf("round %d: %s has %d users, want %d", round, key, c.numbers[key].users, users)
			}
		}
		if len(c.numbers) != len(keys) || len(c.numbers)+len(c.free) != len(table.backends) || len(table.backends) > 12 {
			t.Fatalf("round %d: %d numbers and %d free of %d, for %d backends", round, len(c.numbers), len(c.free), len(table.backends), len(keys))
		}
		for _, at := range c.free {
			if table.backends[at] != nil {
				t.Fatalf("round %d: place %d is free and keeps %+v", round, at, table.backends[at])
			}
		}
		m.Each(func(s *observe.Series) { delete(splits, s.Key()) })
		if len(splits) > 0 {
			t.Fatalf("round %d: no series for %v", round, splits)
		}
	}
	for _, check := range checks {
		check()
	}
}

// alterRoutes takes one away, changes one or adds one, of at most four.
func alterRoutes(rng *rand.Rand, routes []*store.GRPCRoute, round int) []*store.GRPCRoute {
	next := append([]*store.GRPCRoute(nil), routes...)
	r := &store.GRPCRoute{Meta: store.Meta{Namespace: "default", Name: fmt.Sprint("r", round)}}
	for range 1 + rng.IntN(2) {
		var rule store.GRPCRouteRule
		for range rng.IntN(4) {
			rule.BackendRefs = append(rule.BackendRefs, store.BackendRef{Name: fmt.Sprintf("b%d", rng.IntN(8)), Weight: uint32(rng.IntN(3))})
		}
		r.Spec.Rules = append(r.Spec.Rules, rule)
	}
	switch {
	case len(next) == 4 || len(next) > 0 && rng.IntN(3) == 0:
		i := rng.IntN(len(next))
		return append(next[:i:i], next[i+1:]...)
	case len(next) > 0 && rng.IntN(2) == 0:
		i := rng.IntN(len(next))
		r.Name = next[i].Name
		next[i] = r
		return next
	}
	return append(next, r)
}
