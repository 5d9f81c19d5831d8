package gateway

import (
	"maps"
	"slices"
	"strings"

	"sluice/gateway/h2"
	"sluice/gateway/observe"
	"sluice/gateway/policy"
	"sluice/gateway/rest"
	"sluice/gateway/route"
	"sluice/gateway/upstream"
	"sluice/gateway/web"
	"sluice/store"
)

// table is everything that a new RPC has to look up, as of one configuration. It
// does not change; the next configuration is another table, which shares with it
// the rules that stayed.
type table struct {
	routes   *route.Table
	backends []*upstream.Backend // by number; nil when no such backend exists
	guards   []*guard            // by number; nil when nobody has it
	gates    []*gate             // of the rules that have one
}

// targets are where one rule sends its RPCs. They are attached to the rule.
type targets struct {
	splits []target // in the order of the rule's splits
	none   *target  // when the rule has no backend with weight
	cors   *web.CORS
	limits rest.Limits
	gate   *gate // nil when the rule has no limits of its own
}

// target is one backend of one rule.
type target struct {
	backend int // its number
	series  *observe.Series
	guard   *guard
	gate    *gate          // of the rule; nil when it has no limits of its own
	budget  *policy.Budget // of retries
	modify  *modifiers
	treat   *treatment     // nil when no policy speaks of the rule
	rewrite *route.Rewrite // of an HTTPRoute, in place of the rule's; mostly nil
}

// compiler makes tables. It is used by one goroutine at a time.
type compiler struct {
	metrics *observe.Metrics
	numbers map[string]*number // by the backend's key
	free    []int              // below the highest number, and nobody's
	gates   map[gateKey]*gate  // of the rules that have one
	share   *policy.Share      // of limits that the cluster has as a whole
}

// number is what the rules of all tables that have one in common know a backend by.
type number struct {
	at    int
	users int // splits
	guard *guard
}

func newCompiler(m *observe.Metrics, share *policy.Share) *compiler {
	return &compiler{metrics: m, share: share, numbers: make(map[string]*number), gates: make(map[gateKey]*gate)}
}

// next makes the table of a set from the table before, given the backends that have
// changed. The rules that it has no more are to be released when it is in force.
func (c *compiler) next(prev *table, set *store.Set, changed map[string]*upstream.Backend, backend func(key string) *upstream.Backend) (t *table, removed []*route.Rule) {
	routes, changes := prev.routes.Next(set)
	t = &table{routes: routes, backends: slices.Clone(prev.backends), guards: slices.Clone(prev.guards)}
	for key, b := range changed {
		if n := c.numbers[key]; n != nil {
			t.backends[n.at] = b
			n.guard.adopt(limitsOfBackend(b))
		}
	}
	for _, rule := range changes.Added {
		rule.Attached = c.attach(t, rule, backend)
	}
	for _, rule := range changes.Removed {
		c.detach(t, rule)
	}
	t.gates = slices.Collect(maps.Values(c.gates))
	return t, changes.Removed
}

func (c *compiler) attach(t *table, rule *route.Rule, backend func(key string) *upstream.Backend) *targets {
	key := observe.Key{Route: labelOf(rule), Rule: rule.Label()}
	ts := &targets{splits: make([]target, len(rule.Splits)), cors: newCORS(rule.Treatment.CORS), limits: newLimits(&rule.Treatment.Translation)}
	if ts.gate = c.gate(rule); ts.gate != nil {
		c.gates[ts.gate.key] = ts.gate
	}
	if !rule.HasWeight() {
		ts.none = &target{series: c.metrics.Use(key)}
	}
	treat := newTreatment(rule)
	for i := range rule.Splits {
		split := &rule.Splits[i]
		n := c.numbers[split.Backend]
		if n == nil {
			n = c.number(t)
			n.guard = newGuard(split.Backend)
			c.numbers[split.Backend] = n
			t.backends[n.at], t.guards[n.at] = backend(split.Backend), n.guard
			n.guard.adopt(limitsOfBackend(t.backends[n.at]))
		}
		n.users++
		key.Backend = split.Backend
		ts.splits[i] = target{
			backend: n.at, series: c.metrics.Use(key), modify: newModifiers(rule, split), rewrite: split.Rewrite,
			guard: n.guard, gate: ts.gate, budget: n.guard.budget, treat: treat,
		}
		if ts.gate != nil && ts.gate.budget != nil {
			ts.splits[i].budget = ts.gate.budget
		}
	}
	return ts
}

// gate of a rule that is new, or has changed; nil when it needs none.
func (c *compiler) gate(rule *route.Rule) *gate {
	key := gateKey{labelOf(rule), rule.Label()}
	return newGate(key, &rule.Treatment, c.gates[key], c.share)
}

// limitsOfBackend are those of a backend that may not exist.
func limitsOfBackend(b *upstream.Backend) *store.BackendLimits {
	if b == nil {
		return nil
	}
	return b.Limits()
}

// labelOf is how metrics name the route of a rule. Routes of both kinds may have one
// name; most are GRPCRoutes.
func labelOf(rule *route.Rule) string {
	if rule.Kind == store.HTTPRouteKind {
		return store.HTTPRouteKind + "/" + rule.Route
	}
	return rule.Route
}

// number is one that no rule has.
func (c *compiler) number(t *table) *number {
	if last := len(c.free) - 1; last >= 0 {
		n := &number{at: c.free[last]}
		c.free = c.free[:last]
		return n
	}
	t.backends, t.guards = append(t.backends, nil), append(t.guards, nil)
	return &number{at: len(t.backends) - 1}
}

// detach gives back the numbers that only this rule had.
func (c *compiler) detach(t *table, rule *route.Rule) {
	if gate := rule.Attached.(*targets).gate; gate != nil && c.gates[gate.key] == gate {
		delete(c.gates, gate.key)
	}
	for i := range rule.Splits {
		key := rule.Splits[i].Backend
		n := c.numbers[key]
		if n.users--; n.users == 0 {
			delete(c.numbers, key)
			c.free = append(c.free, n.at)
			t.backends[n.at], t.guards[n.at] = nil, nil
		}
	}
}

// release lets go of the series of rules that no RPC can find any more.
func (c *compiler) release(rules []*route.Rule) {
	for _, rule := range rules {
		ts := rule.Attached.(*targets)
		if ts.none != nil {
			c.metrics.Release(ts.none.series)
		}
		for i := range ts.splits {
			c.metrics.Release(ts.splits[i].series)
		}
	}
}

// choose is the split of a rule that an RPC goes to, or -1.
func (t *table) choose(rule *route.Rule, hdr route.Header) int {
	i := rule.Choose(hdr)
	if i < 0 || !rule.SpillOver {
		return i
	}
	splits := rule.Attached.(*targets).splits
	if readiness(t.backends[splits[i].backend]) == route.Ready {
		return i
	}
	var buf [maxInlineSplits]route.Readiness
	return rule.Spill(i, hdr, t.readiness(buf[:0], splits))
}

// maxInlineSplits is how many splits need no memory of their own when an RPC spills.
const maxInlineSplits = 16

// readiness appends how ready the backend of each split is.
func (t *table) readiness(ready []route.Readiness, splits []target) []route.Readiness {
	for i := range splits {
		ready = append(ready, readiness(t.backends[splits[i].backend]))
	}
	return ready
}

func readiness(b *upstream.Backend) route.Readiness {
	if b == nil {
		return route.NotReady
	}
	switch weighted, usable := b.Able(); {
	case usable:
		return route.Ready
	case weighted:
		return route.Unreached
	}
	return route.NotReady
}

// modifiers are the header changes of one target. A nil one changes nothing.
type modifiers struct {
	requests, responses []change
}

// change is one modifier, compiled.
type change struct {
	drop map[string]bool // names that are removed, or set anew
	add  []h2.Field
}

func newModifiers(rule *route.Rule, split *route.Split) *modifiers {
	m := &modifiers{}
	m.requests = changes(rule.Request, split.Request)
	m.responses = changes(rule.Response, split.Response)
	if m.requests == nil && m.responses == nil {
		return nil
	}
	return m
}

func changes(list ...*route.Modifier) (out []change) {
	for _, m := range list {
		if m == nil {
			continue
		}
		c := change{drop: make(map[string]bool)}
		for _, name := range m.Remove {
			c.drop[name] = true
		}
		for _, h := range m.Set {
			c.drop[h.Name] = true
			c.add = append(c.add, h2.IndexedField(h.Name, h.Value))
		}
		for _, h := range m.Add {
			c.add = append(c.add, h2.IndexedField(h.Name, h.Value))
		}
		out = append(out, c)
	}
	return out
}

// request changes fields in place.
func (m *modifiers) request(fields []h2.Field) []h2.Field {
	if m == nil {
		return fields
	}
	for i := range m.requests {
		fields = m.requests[i].withoutAliases(fields)
		fields = m.requests[i].apply(fields)
	}
	return fields
}

// withoutAliases takes out of a request what some servers would read as a field
// that is set or removed here: they take an underscore for a dash.
func (c *change) withoutAliases(fields []h2.Field) []h2.Field {
	return slices.DeleteFunc(fields, func(f h2.Field) bool {
		return strings.IndexByte(f.Name, '_') >= 0 && c.drop[strings.ReplaceAll(f.Name, "_", "-")]
	})
}

// response returns changed fields, and leaves the given ones as they are.
func (m *modifiers) response(fields []h2.Field) []h2.Field {
	if m == nil || m.responses == nil {
		return fields
	}
	fields = append([]h2.Field(nil), fields...)
	for i := range m.responses {
		fields = m.responses[i].apply(fields)
	}
	return fields
}

func (c *change) apply(fields []h2.Field) []h2.Field {
	kept := fields[:0]
	for i := range fields {
		if !c.drop[fields[i].Name] {
			kept = append(kept, fields[i])
		}
	}
	return append(kept, c.add...)
}
