package route

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// HTTPRequest is what a plain HTTP request is looked up by.
type HTTPRequest struct {
	Authority string // with or without a port
	Method    string
	Path      HTTPPath
	Query     string // as it came, without "?"
	Header    Header
}

// HTTPMatch is what a lookup has found.
type HTTPMatch struct {
	Rule *Rule
	// Bare tells that the request was matched by nothing but its hostname: the path
	// prefix "/" and no other condition.
	Bare bool

	segments int // of the prefix that has matched
}

// httpTable is all rules of HTTPRoutes, by what they match. It does not change.
type httpTable struct {
	routes  []*compiledHTTP // in the order of the set
	exact   map[string]*httpHost
	wild    map[string]*httpHost // "*.example.com" as ".example.com"
	longest int                  // bytes of the longest hostname of wild
	any     *httpHost            // routes without hostnames; may be nil
}

// httpHost is all that one hostname matches. It does not change.
type httpHost struct {
	matches  []*httpMatch            // in order of precedence, as each of the lists below
	exact    map[string][]*httpMatch // by path
	prefixes map[string][]*httpMatch // by path, without the slash at its end
	longest  int                     // bytes of the longest prefix
	patterns []*httpMatch
	any      []*httpMatch // the prefix "/"
}

// LookupHTTP finds the rule of highest precedence that matches a request, or says why
// none does. Of hostnames it is as Lookup. A path that leads to one rule as it is
// written, and to another as some server would read it, leads nowhere: TwoReadings.
func (t *Table) LookupHTTP(r *HTTPRequest) (HTTPMatch, Miss) {
	q := httpQuery{req: r, path: r.Path.matched, query: queryParams{raw: r.Query}}
	var buf [maxHostname]byte
	host := hostOf(&buf, r.Authority)
	found, miss := t.http.find(host, &q)
	if found != nil && found.explicit {
		return found.found()
	}
	for _, q.path = range r.Path.readings {
		if other, _ := t.http.find(host, &q); !sameRule(found, other) {
			return HTTPMatch{}, TwoReadings
		}
	}
	if found == nil {
		return HTTPMatch{}, miss
	}
	return found.found()
}

func (m *httpMatch) found() (HTTPMatch, Miss) {
	return HTTPMatch{Rule: m.rule, Bare: m.bare(), segments: m.segments}, Found
}

func sameRule(a, b *httpMatch) bool {
	return a == b || a != nil && b != nil && a.rule == b.rule
}

func (t *httpTable) find(host []byte, q *httpQuery) (*httpMatch, Miss) {
	miss := NoHostname
	if h := t.exact[string(host)]; h != nil {
		if m := h.find(q); m != nil {
			return m, Found
		}
		miss = NoRule
	}
	for dot := 1; dot < len(host); dot++ {
		// The first label that a wildcard stands for is not empty.
		if host[dot] != '.' || len(host)-dot > t.longest {
			continue
		}
		if h := t.wild[string(host[dot:])]; h != nil {
			if m := h.find(q); m != nil {
				return m, Found
			}
			miss = NoRule
		}
	}
	if t.any != nil {
		if m := t.any.find(q); m != nil {
			return m, Found
		}
		miss = NoRule
	}
	return nil, miss
}

// find tries what the path leads to, the best first.
func (h *httpHost) find(q *httpQuery) *httpMatch {
	if m := first(h.exact[q.path], q); m != nil {
		return m
	}
	for prefix := strings.TrimSuffix(q.path, "/"); prefix != "" && h.longest > 0; prefix = prefix[:strings.LastIndexByte(prefix, '/')] {
		if len(prefix) > h.longest {
			continue
		}
		if m := first(h.prefixes[prefix], q); m != nil {
			return m
		}
	}
	if m := first(h.patterns, q); m != nil {
		return m
	}
	return first(h.any, q)
}

func first(list []*httpMatch, q *httpQuery) *httpMatch {
	for _, m := range list {
		if m.matches(q) {
			return m
		}
	}
	return nil
}

// ServesHTTP tells whether some HTTPRoute serves an authority.
func (t *Table) ServesHTTP(authority string) bool {
	if t.http.any != nil {
		return true
	}
	if len(t.http.exact)+len(t.http.wild) == 0 {
		return false
	}
	var buf [maxHostname]byte
	host := hostOf(&buf, authority)
	if t.http.exact[string(host)] != nil {
		return true
	}
	for dot := 1; dot < len(host); dot++ {
		if host[dot] == '.' && t.http.wild[string(host[dot:])] != nil {
			return true
		}
	}
	return false
}

// HTTPRulesOf are the rules of the HTTPRoute of that key, in their order.
func (t *Table) HTTPRulesOf(route string) []*Rule {
	for _, c := range t.http.routes {
		if c.key == route {
			return c.rules
		}
	}
	return nil
}

// write has a line for each match, the hostnames by name within their kind.
func (t *httpTable) write(b *strings.Builder) {
	list := func(prefix string, hosts map[string]*httpHost) {
		for _, name := range slices.Sorted(maps.Keys(hosts)) {
			for _, m := range hosts[name].matches {
				fmt.Fprintf(b, "http %s%s %s -> %s\n", prefix, name, m, m.rule)
			}
		}
	}
	list("", t.exact)
	list("*", t.wild)
	if t.any != nil {
		list("*", map[string]*httpHost{"": t.any})
	}
}
