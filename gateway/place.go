package gateway

import (
	"sluice/gateway/route"
	"sluice/gateway/upstream"
)

// placement is where one request goes, whatever its protocol. It takes the rule's
// turn, so there is one for each request.
type placement struct {
	how     outcome           // served, or why it goes nowhere
	target  *target           // what counts it; never nil
	rule    *route.Rule       // nil when none matches
	backend *upstream.Backend // nil unless how is served
}

// place finds the rule and the backend of an RPC.
func (g *Gateway) place(authority, path string, hdr route.Header) placement {
	t := g.table.Load()
	rule, miss := t.routes.Lookup(authority, path, hdr)
	switch {
	case rule != nil:
		return t.place(rule, hdr)
	case miss == route.NoHostname:
		return placement{how: noHostname, target: &g.nowhere}
	}
	return placement{how: noRule, target: &g.nowhere}
}

// place takes a turn of the rule.
func (t *table) place(rule *route.Rule, hdr route.Header) placement {
	targets := rule.Attached.(*targets)
	i := t.choose(rule, hdr)
	if i < 0 {
		return placement{how: noBackend, target: targets.none, rule: rule}
	}
	p := placement{target: &targets.splits[i], rule: rule}
	if p.backend = t.backends[p.target.backend]; p.backend == nil {
		p.how = unresolved
	}
	return p
}
