package route

import (
	"cmp"
	"slices"
	"strings"

	"sluice/store"
)

// Compile makes the table of a set. Rules that are in prev too, with the same
// shares, share their turn with it; prev may be nil. The set was validated by
// package store; a match that is not valid all the same matches nothing.
func Compile(set *store.Set, prev *Table) *Table {
	backends := set.BackendsByKey()
	resolved := func(key string) bool { return backends[key] != nil }
	c := compiler{
		hosts:    make(map[string]*hostMatches),
		patterns: make(patterns),
	}
	t := &Table{turns: make(map[string]*turn)}
	for _, r := range set.GRPCRoutes {
		for i := range r.Spec.Rules {
			rule := newRule(r, i, resolved)
			t.rules = append(t.rules, rule)
			t.adopt(rule, prev)
			c.add(r, rule)
		}
	}
	t.setBuckets(c.hosts)
	return t
}

// adopt gives the rule the turn it had, or a new one.
func (t *Table) adopt(rule *Rule, prev *Table) {
	id := rule.identity()
	if prev != nil && t.turns[id] == nil {
		rule.turn = prev.turns[id]
	}
	if rule.turn == nil {
		rule.turn = new(turn)
	}
	t.turns[id] = rule.turn
}

// compiler gathers what each hostname matches.
type compiler struct {
	hosts    map[string]*hostMatches // "" is every authority
	patterns patterns
}

// hostMatches is all that one hostname matches.
type hostMatches struct {
	hostname string // as a route has it; "" is every authority
	matches  []*match
}

// compare orders by precedence: more characters of a hostname without wildcard,
// more characters of a hostname.
func (h *hostMatches) compare(other *hostMatches) int {
	return cmp.Or(
		-cmp.Compare(h.exactLen(), other.exactLen()),
		-cmp.Compare(len(h.hostname), len(other.hostname)),
		cmp.Compare(h.hostname, other.hostname),
	)
}

func (h *hostMatches) exactLen() int {
	if strings.HasPrefix(h.hostname, "*") {
		return 0
	}
	return len(h.hostname)
}

var everything = []store.GRPCRouteMatch{{}}

func (c *compiler) add(r *store.GRPCRoute, rule *Rule) {
	specs := r.Spec.Rules[rule.Index].Matches
	if len(specs) == 0 {
		specs = everything
	}
	hostnames := r.Spec.Hostnames
	if len(hostnames) == 0 {
		hostnames = []string{""}
	}
	for i := range specs {
		m := newMatch(rule, i, &specs[i], c.patterns)
		if m == nil {
			continue
		}
		for j, hostname := range hostnames {
			if !slices.Contains(hostnames[:j], hostname) {
				c.addTo(hostname, m)
			}
		}
	}
}

func (c *compiler) addTo(hostname string, m *match) {
	hostname = strings.ToLower(hostname)
	h := c.hosts[hostname]
	if h == nil {
		h = &hostMatches{hostname: hostname}
		c.hosts[hostname] = h
	}
	h.matches = append(h.matches, m)
}

func (t *Table) setBuckets(hosts map[string]*hostMatches) {
	t.hostnames, t.wildcards = make(map[string]*bucket), make(map[string]*bucket)
	for _, h := range hosts {
		b := newBucket(h.matches)
		t.hosts = append(t.hosts, h)
		suffix, wildcard := strings.CutPrefix(h.hostname, "*")
		switch {
		case h.hostname == "":
			t.any = b
		case wildcard:
			t.wildcards[suffix] = b
			t.longest = max(t.longest, len(suffix))
		default:
			t.hostnames[h.hostname] = b
		}
	}
	slices.SortFunc(t.hosts, (*hostMatches).compare)
}

// newBucket sorts the matches, so that every list has the first to try first.
func newBucket(matches []*match) *bucket {
	slices.SortFunc(matches, (*match).compare)
	b := &bucket{}
	for _, m := range matches {
		b.add(m)
	}
	return b
}

func (b *bucket) add(m *match) {
	c := m.candidate()
	switch service, method := m.service.rank(), m.method.rank(); {
	case service == 1:
		b.servicePatterns = append(b.servicePatterns, c)
	case service == 0 && method == 1:
		b.methodPatterns = append(b.methodPatterns, c)
	case service == 0 && method == 0:
		b.all = append(b.all, c)
	case service == 0:
		put(&b.methods, m.method.text, c)
	case method == 0:
		put(&b.services, m.service.text, c)
	default:
		put(&b.paths, "/"+m.service.text+"/"+m.method.text, c)
	}
}

func put(to *map[string][]candidate, key string, c candidate) {
	if *to == nil {
		*to = make(map[string][]candidate)
	}
	(*to)[key] = append((*to)[key], c)
}
