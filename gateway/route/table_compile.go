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
	t.setLevels(c.hosts)
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

// setLevels sorts the matches of each hostname, so that every list of a level has
// the first to try first.
func (t *Table) setLevels(hosts map[string]*hostMatches) {
	for _, l := range []*level{&t.exact, &t.wild, &t.any} {
		l.literals, l.hosts = make(map[uint64]*literal), make(map[string]*bucket)
	}
	for _, h := range hosts {
		l, host := &t.exact, h.hostname
		if suffix, wildcard := strings.CutPrefix(host, "*"); wildcard {
			l, host = &t.wild, suffix
			t.longest = max(t.longest, len(suffix))
		} else if host == "" {
			l = &t.any
		}
		slices.SortFunc(h.matches, (*match).compare)
		l.hosts[host] = &bucket{}
		for _, m := range h.matches {
			l.add(host, m)
		}
		t.hosts = append(t.hosts, h)
	}
	slices.SortFunc(t.hosts, (*hostMatches).compare)
}
