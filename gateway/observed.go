package gateway

import (
	"fmt"

	"sluice/gateway/route"
	"sluice/store"
)

// ObservedRule is what is seen of one rule of a route.
type ObservedRule struct {
	Rule       string // its name, or its number
	Overridden bool   // the weights are an operator's, not the declared ones
	Shares     []ObservedShare
}

// ObservedShare is one backend's part in a rule.
type ObservedShare struct {
	Backend   string // its key
	Weight    uint32 // in force
	RPCs      uint64 // begun in the last minute
	Endpoints int    // that take new RPCs
	Problem   string // why the share is not served as it should be; empty when it is
}

// Observed is what the rules of a route do, in their order. It reads what is
// counted anyway. A route that is not in force has none.
func (g *Gateway) Observed(id store.ID) []ObservedRule {
	t := g.table.Load()
	rules := t.routes.RulesOf(id.Key())
	if id.Kind == store.HTTPRouteKind {
		rules = t.routes.HTTPRulesOf(id.Key())
	}
	var list []ObservedRule
	for _, rule := range rules {
		list = append(list, ObservedRule{rule.Label(), rule.Overridden, g.observe(t, rule)})
	}
	return list
}

// observe makes one share of all splits to the same backend: they are counted
// together.
func (g *Gateway) observe(t *table, rule *route.Rule) []ObservedShare {
	shares := make([]ObservedShare, 0, len(rule.Splits))
	at := make(map[string]int, len(rule.Splits))
	splits := rule.Attached.(*targets).splits
	for i := range rule.Splits {
		split := &rule.Splits[i]
		if j, seen := at[split.Backend]; seen {
			shares[j].Weight += split.Weight
			continue
		}
		at[split.Backend] = len(shares)
		s := ObservedShare{Backend: split.Backend, Weight: split.Weight, RPCs: g.metrics.Recent(splits[i].series)}
		s.Endpoints, s.Problem = g.condition(t, &splits[i], split.Backend)
		shares = append(shares, s)
	}
	return shares
}

// condition is how many endpoints of a backend take new RPCs, and what is wrong
// with it.
func (g *Gateway) condition(t *table, to *target, key string) (endpoints int, problem string) {
	b := t.backends[to.backend]
	if b == nil {
		return 0, "no such Backend"
	}
	weighted, usable := b.Takers()
	switch err := g.pool.Problem(key); {
	case err != nil && b.Problem == nil:
		return usable, fmt.Sprintf("%v; what was in force before stays", err)
	case err != nil:
		return 0, err.Error()
	case len(b.Endpoints) == 0:
		return 0, "no endpoint"
	case weighted == 0:
		return 0, "no endpoint with weight"
	case usable == 0:
		problem = "no endpoint can be reached"
		if err := b.Down(); err != nil {
			problem += ": " + err.Error()
		}
	}
	return usable, problem
}
