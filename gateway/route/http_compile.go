package route

import (
	"maps"
	"slices"
	"strings"

	"sluice/store"
)

// compiledHTTP is one HTTPRoute of a table.
type compiledHTTP struct {
	source    *store.HTTPRoute
	key       string
	hostnames []string // in lower case, each once; "" is every authority
	rules     []*Rule
	matches   []*httpMatch
}

// next makes the table of a set's HTTPRoutes from that of another.
func (t *httpTable) next(sources []*store.HTTPRoute, known patterns) (*httpTable, []*compiledHTTP, []*compiledHTTP) {
	next := &httpTable{routes: make([]*compiledHTTP, len(sources)), exact: t.exact, wild: t.wild, any: t.any}
	removed := keep(t.routes, sources, next.routes, func(c *compiledHTTP) *store.HTTPRoute { return c.source })
	before := make(map[string][]*Rule, len(removed))
	for _, c := range removed {
		before[c.key] = c.rules
	}
	var added []*compiledHTTP
	for i, source := range sources {
		if next.routes[i] != nil {
			continue
		}
		c := newCompiledHTTP(source, known)
		adoptTurns(c.rules, before[c.key])
		next.routes[i] = c
		added = append(added, c)
	}
	next.edit(removed, added)
	return next, added, removed
}

func newCompiledHTTP(r *store.HTTPRoute, p patterns) *compiledHTTP {
	c := &compiledHTTP{source: r, key: r.Key(), hostnames: hostnamesOf(r.Spec.Hostnames)}
	for i := range r.Spec.Rules {
		rule := newHTTPRule(r, c.key, i)
		c.rules = append(c.rules, rule)
		for j := range r.Spec.Rules[i].Matches {
			if m := newHTTPMatch(rule, j, &r.Spec.Rules[i].Matches[j], p); m != nil {
				c.matches = append(c.matches, m)
			}
		}
	}
	return c
}

func newHTTPRule(r *store.HTTPRoute, key string, index int) *Rule {
	spec := &r.Spec.Rules[index]
	rule := newRule(&ruleSource{
		kind: store.HTTPRouteKind, route: key, name: spec.Name, index: index, created: r.CreationTimestamp,
		filters: spec.Filters, refs: spec.BackendRefs, backendKey: r.BackendKey, steering: &spec.Steering, treatment: spec.Treatment,
	})
	rule.Rewrite, rule.Redirect = newURLFilters(spec.Filters)
	for i := range spec.BackendRefs {
		if own, _ := newURLFilters(spec.BackendRefs[i].Filters); own != nil {
			rule.Splits[i].Rewrite = own
		}
	}
	return rule
}

// hostEdit is what changes of one hostname.
type hostEdit struct {
	gone map[*httpMatch]bool
	come []*httpMatch
}

// edit makes the hosts anew that a route is on that has gone or come.
func (t *httpTable) edit(without, with []*compiledHTTP) {
	if len(without)+len(with) == 0 {
		t.setLongest()
		return
	}
	edits := make(map[string]*hostEdit)
	each := func(list []*compiledHTTP, f func(e *hostEdit, m *httpMatch)) {
		for _, c := range list {
			for _, hostname := range c.hostnames {
				e := edits[hostname]
				if e == nil {
					e = &hostEdit{gone: make(map[*httpMatch]bool)}
					edits[hostname] = e
				}
				for _, m := range c.matches {
					f(e, m)
				}
			}
		}
	}
	each(without, func(e *hostEdit, m *httpMatch) { e.gone[m] = true })
	each(with, func(e *hostEdit, m *httpMatch) { e.come = append(e.come, m) })
	t.exact, t.wild = cloneHosts(t.exact), cloneHosts(t.wild)
	for hostname, e := range edits {
		suffix, wildcard := strings.CutPrefix(hostname, "*")
		switch {
		case hostname == "":
			t.any = e.apply(t.any)
		case wildcard:
			setHost(t.wild, suffix, e)
		default:
			setHost(t.exact, hostname, e)
		}
	}
	t.setLongest()
}

func cloneHosts(hosts map[string]*httpHost) map[string]*httpHost {
	if hosts == nil {
		return make(map[string]*httpHost)
	}
	return maps.Clone(hosts)
}

func setHost(hosts map[string]*httpHost, name string, e *hostEdit) {
	if h := e.apply(hosts[name]); h != nil {
		hosts[name] = h
		return
	}
	delete(hosts, name)
}

func (t *httpTable) setLongest() {
	for name := range t.wild {
		t.longest = max(t.longest, len(name))
	}
}

// apply makes a host of one that goes on as it is; nil is one without matches.
func (e *hostEdit) apply(h *httpHost) *httpHost {
	next := &httpHost{}
	if h != nil {
		next.matches = slices.DeleteFunc(slices.Clone(h.matches), func(m *httpMatch) bool { return e.gone[m] })
	}
	next.matches = append(next.matches, e.come...)
	if len(next.matches) == 0 {
		return nil
	}
	slices.SortStableFunc(next.matches, (*httpMatch).compare)
	next.index()
	return next
}

func (h *httpHost) index() {
	for _, m := range h.matches {
		switch m.kind {
		case exactPath:
			if h.exact == nil {
				h.exact = make(map[string][]*httpMatch)
			}
			h.exact[m.path] = append(h.exact[m.path], m)
		case prefixPath:
			if h.prefixes == nil {
				h.prefixes = make(map[string][]*httpMatch)
			}
			h.prefixes[m.path] = append(h.prefixes[m.path], m)
			h.longest = max(h.longest, len(m.path))
		case patternPath:
			h.patterns = append(h.patterns, m)
		default:
			h.any = append(h.any, m)
		}
	}
}
