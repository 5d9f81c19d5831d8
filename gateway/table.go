package gateway

import (
	"slices"
	"strings"

	"sluice/gateway/h2"
	"sluice/gateway/observe"
	"sluice/gateway/route"
	"sluice/gateway/upstream"
	"sluice/store"
)

// table is everything that a new RPC has to look up, as of one configuration. It
// does not change; the next configuration is another table.
type table struct {
	routes  *route.Table
	targets map[*route.Rule]*targets
}

// targets are where one rule sends its RPCs.
type targets struct {
	splits []target // in the order of the rule's splits
	none   *target  // when the rule has no backend with weight
}

// target is one backend of one rule.
type target struct {
	backend *upstream.Backend // nil when no such backend exists
	series  *observe.Series
	modify  *modifiers
}

func emptyTable(nowhere *target) *table {
	return &table{routes: route.Compile(&store.Set{}, nil), targets: map[*route.Rule]*targets{}}
}

// compile makes the table of a set, and the list of the series that it uses.
func compile(set *store.Set, prev *table, backends map[string]*upstream.Backend, m *observe.Metrics, nowhere *target) (*table, []observe.Key) {
	t := &table{routes: route.Compile(set, prev.routes), targets: make(map[*route.Rule]*targets)}
	keys := []observe.Key{nowhere.series.Key()}
	for _, rule := range t.routes.Rules() {
		ts := &targets{none: &target{series: m.Series(rule.Route, "")}}
		keys = append(keys, ts.none.series.Key())
		for i := range rule.Splits {
			split := &rule.Splits[i]
			to := target{backend: backends[split.Backend], series: m.Series(rule.Route, split.Backend), modify: newModifiers(rule, split)}
			keys = append(keys, to.series.Key())
			ts.splits = append(ts.splits, to)
		}
		t.targets[rule] = ts
	}
	return t, keys
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
