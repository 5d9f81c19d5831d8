package route

import (
	"slices"
	"strings"

	"sluice/store"
)

// Compile makes the table of a set, of which prev is the table before; it may be
// nil. The set was validated by package store; a match that is not valid all the
// same matches nothing.
func Compile(set *store.Set, prev *Table) *Table {
	if prev == nil {
		prev = &Table{}
	}
	t, _ := prev.Next(set)
	return t
}

// Changes are the rules by which a table differs from the one before it.
type Changes struct{ Added, Removed []*Rule }

// Next makes the table of a set from the table of another. A route is known by its
// pointer: one that both sets have keeps its rules, so that a change costs what has
// changed and little more. A rule that is new, but goes on where an old one ends,
// with the same shares, shares its turn.
func (t *Table) Next(set *store.Set) (*Table, Changes) {
	next := &Table{routes: make([]*compiled, len(set.GRPCRoutes)), patterns: t.patterns, generation: t.generation + 1}
	removed := keep(t.routes, set.GRPCRoutes, next.routes, func(c *compiled) *store.GRPCRoute { return c.source })
	next.patterns = next.patternsFor(set, t)
	added := next.fill(set.GRPCRoutes, removed)
	http, addedHTTP, removedHTTP := t.http.next(set.HTTPRoutes, next.patterns)
	next.http = *http

	// Where little stays, it is as quick to begin anew as to take away.
	if 2*len(removed) > len(t.routes) {
		next.edit(&Table{}, nil, next.routes)
	} else {
		next.edit(t, removed, added)
	}
	next.exposing = t.exposing + exposing(added) - exposing(removed)
	var c Changes
	for _, r := range added {
		c.Added = append(c.Added, r.rules...)
	}
	for _, r := range addedHTTP {
		c.Added = append(c.Added, r.rules...)
	}
	for _, r := range removed {
		c.Removed = append(c.Removed, r.rules...)
	}
	for _, r := range removedHTTP {
		c.Removed = append(c.Removed, r.rules...)
	}
	return next, c
}

// keep puts those routes of a table into their new places that stay as they are, and
// returns the others. Mostly all places before and behind a change are the same.
func keep[S, C comparable](had []C, sources []S, places []C, source func(C) S) (removed []C) {
	var none C
	for len(had) > 0 && len(sources) > 0 && source(had[0]) == sources[0] {
		places[0] = had[0]
		had, sources, places = had[1:], sources[1:], places[1:]
	}
	for len(had) > 0 && len(sources) > 0 && source(had[len(had)-1]) == sources[len(sources)-1] {
		places[len(sources)-1] = had[len(had)-1]
		had, sources = had[:len(had)-1], sources[:len(sources)-1]
	}
	bySource := make(map[S]C, len(had))
	for _, c := range had {
		if bySource[source(c)] != none { // a set that has a route twice
			removed = append(removed, c)
			continue
		}
		bySource[source(c)] = c
	}
	for i, r := range sources {
		if c := bySource[r]; c != none {
			places[i] = c
			delete(bySource, r)
		}
	}
	for _, c := range had {
		if bySource[source(c)] == c {
			removed = append(removed, c)
		}
	}
	return removed
}

// fill compiles the routes whose places are empty yet, and returns them.
func (t *Table) fill(sources []*store.GRPCRoute, removed []*compiled) (added []*compiled) {
	before := make(map[string]*compiled, len(removed))
	for _, c := range removed {
		before[c.key] = c
	}
	for i, source := range sources {
		if t.routes[i] != nil {
			continue
		}
		c := newCompiled(source, t.patterns)
		if old := before[c.key]; old != nil {
			adoptTurns(c.rules, old.rules)
		}
		t.routes[i] = c
		added = append(added, c)
	}
	return added
}

// patternsFor has the regular expressions of all routes, each compiled once. It is
// the list of the table before as long as that has all that are needed.
func (t *Table) patternsFor(set *store.Set, prev *Table) patterns {
	var needed []string
	for i, c := range t.routes {
		if c == nil {
			needed = appendPatterns(needed, set.GRPCRoutes[i])
		}
	}
	had := make(map[*store.HTTPRoute]bool, len(prev.http.routes))
	for _, c := range prev.http.routes {
		had[c.source] = true
	}
	for _, r := range set.HTTPRoutes {
		if !had[r] {
			needed = appendHTTPPatterns(needed, r)
		}
	}
	if !slices.ContainsFunc(needed, func(text string) bool { return prev.patterns[text] == nil }) {
		return prev.patterns
	}
	for _, c := range t.routes {
		if c != nil {
			needed = appendPatterns(needed, c.source)
		}
	}
	for _, r := range set.HTTPRoutes {
		if had[r] {
			needed = appendHTTPPatterns(needed, r)
		}
	}
	all := make(patterns)
	for _, text := range needed {
		all.add(text, prev.patterns)
	}
	return all
}

// compiled is one route of a table.
type compiled struct {
	source    *store.GRPCRoute
	key       string
	hostnames []string // in lower case, each once; "" is every authority
	rules     []*Rule
	matches   []*match
	exposing  bool // some rule may be described to callers
}

// exposing counts those that may be described to callers.
func exposing(routes []*compiled) (n int) {
	for _, c := range routes {
		if c.exposing {
			n++
		}
	}
	return n
}

var (
	everyAuthority = []string{""}
	everything     = []store.GRPCRouteMatch{{}}
)

func newCompiled(r *store.GRPCRoute, p patterns) *compiled {
	c := &compiled{source: r, key: r.Key(), hostnames: hostnamesOf(r.Spec.Hostnames)}
	for i := range r.Spec.Rules {
		rule := newGRPCRule(r, c.key, i)
		c.rules = append(c.rules, rule)
		c.exposing = c.exposing || rule.Treatment.Expose != store.Expose{}
		specs := r.Spec.Rules[i].Matches
		if len(specs) == 0 {
			specs = everything
		}
		for j := range specs {
			if m := newMatch(rule, j, &specs[j], p); m != nil {
				c.matches = append(c.matches, m)
			}
		}
	}
	return c
}

// hostnamesOf are the hostnames of a route, in lower case, each once.
func hostnamesOf(declared []string) []string {
	if len(declared) == 0 {
		return everyAuthority
	}
	list := make([]string, 0, len(declared))
	for _, hostname := range declared {
		if hostname = strings.ToLower(hostname); !slices.Contains(list, hostname) {
			list = append(list, hostname)
		}
	}
	return list
}

// adoptTurns has the rules of a route go on with the turns that the same rules had
// before.
func adoptTurns(rules, before []*Rule) {
	for _, r := range rules {
		for _, old := range before {
			if old.turn != nil && r.continues(old) {
				r.turn = old.turn
			}
		}
	}
}

// edit makes t's levels of those of another table, without some routes and with
// some others.
func (t *Table) edit(from *Table, without, with []*compiled) {
	edits := [...]*levelEdit{
		newLevelEdit(&t.exact, from.exact, t.generation),
		newLevelEdit(&t.wild, from.wild, t.generation),
		newLevelEdit(&t.any, from.any, t.generation),
	}
	each := func(c *compiled, f func(e *levelEdit, host string, m *match)) {
		for _, hostname := range c.hostnames {
			e, host := edits[0], hostname
			if suffix, wildcard := strings.CutPrefix(host, "*"); wildcard {
				e, host = edits[1], suffix
			} else if host == "" {
				e = edits[2]
			}
			for _, m := range c.matches {
				f(e, host, m)
			}
		}
	}
	for _, c := range without {
		each(c, (*levelEdit).remove)
	}
	for _, c := range with {
		each(c, (*levelEdit).add)
	}
	for _, e := range edits {
		e.finish()
	}
	for host := range t.wild.hosts {
		t.longest = max(t.longest, len(host))
	}
}
