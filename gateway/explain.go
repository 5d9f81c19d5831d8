package gateway

import (
	"fmt"
	"strings"

	"sluice/gateway/route"
	"sluice/gateway/wire"
)

// Explanation is what would become of an RPC, and why.
type Explanation struct {
	// Candidates are the matches that come close, in order of precedence.
	Candidates []route.Candidate
	Verdict    string // a sentence
	// Backend is where the RPC would go when that is decided by more than whose
	// turn it is; Because says by what, or that turns decide.
	Backend, Because string
	Shares           []ObservedShare // of the rule that wins
}

// headerList is metadata as somebody has written it.
type headerList [][2]string

// Get returns the first value of a name, which is in lower case.
func (l headerList) Get(name string) (value string, ok bool) {
	for _, h := range l {
		if strings.ToLower(h[0]) == name {
			return h[1], true
		}
	}
	return "", false
}

// Explain says where a native gRPC request would go now. It sends nothing, counts
// nothing and takes nobody's turn.
func (g *Gateway) Explain(authority, path string, headers [][2]string) Explanation {
	if !wire.ValidPath(path) {
		return Explanation{Verdict: answered(badPath) + fmt.Sprintf(": the path %q is not /package.Service/Method", path)}
	}
	t := g.table.Load()
	hdr := headerList(headers)
	found := t.routes.Explain(authority, path, hdr)
	e := Explanation{Candidates: found.Candidates}
	switch found.Miss {
	case route.NoHostname:
		e.Verdict = answered(noHostname) + fmt.Sprintf(": no route serves the authority %q", authority)
		return e
	case route.NoRule:
		e.Verdict = answered(noRule) + fmt.Sprintf(": routes serve the authority %q, and none of their rules matches %s", authority, path)
		return e
	}
	e.Verdict = fmt.Sprintf("rule %s of route %s wins", found.Rule.Label(), found.Rule.Route)
	e.Shares = g.observe(t, found.Rule)
	g.explainChoice(&e, t, found.Rule, hdr)
	if found.More > 0 {
		e.Verdict += fmt.Sprintf("; %d more that lose are not listed", found.More)
	}
	return e
}

// explainChoice says which backend of the rule it would be.
func (g *Gateway) explainChoice(e *Explanation, t *table, rule *route.Rule, hdr route.Header) {
	d := rule.Decide(hdr)
	e.Because = d.Why
	if d.Split < 0 {
		if !d.Turns {
			e.Verdict += "; " + answered(noBackend)
		}
		return
	}
	splits := rule.Attached.(*targets).splits
	i := d.Split
	_, problem := g.condition(t, &splits[i], rule.Splits[i].Backend)
	switch ready := readiness(t.backends[splits[i].backend]); {
	case ready == route.Ready:
	case !rule.SpillOver:
		e.Verdict += fmt.Sprintf("; UNAVAILABLE: %s: %s", rule.Splits[i].Backend, problem)
	default:
		all := t.readiness(nil, splits)
		able := rule.Able(nil, i, all)
		if len(able) == 0 {
			e.Verdict += fmt.Sprintf("; UNAVAILABLE: %s: %s, and no other backend can take its RPCs", rule.Splits[i].Backend, problem)
			break
		}
		e.Because += fmt.Sprintf("; but %s: %s, so others take its RPCs", rule.Splits[i].Backend, problem)
		if !d.Keyed && len(able) > 1 {
			return // whose turn it is decides
		}
		i = rule.Spill(i, hdr, all)
	}
	e.Backend = rule.Splits[i].Backend
}

// answered is how an RPC ends that does not come to a backend.
func answered(o outcome) string { return outcomes[o].code.Label() }
