package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxCandidates bounds how many matches an explanation lists.
const maxCandidates = 100

// Explanation is how a lookup comes to its result.
type Explanation struct {
	Rule *Rule // as of Lookup
	Miss Miss
	// Candidates are the matches that come close, in order of precedence: those
	// that match, those whose service is the RPC's but for something else, and at
	// the end those of other hostnames.
	Candidates []Candidate
	More       int // that are not listed
}

// Candidate is one match of one rule on one hostname.
type Candidate struct {
	Route, Rule string // key and label
	Hostname    string // "*" is every authority
	Match       string // as in Table.String
	Wins        bool
	Why         string // it wins or loses
}

// Explain looks an RPC up as Lookup does, and says why the result is what it is. It
// tries every match that there is, one after the other, in the order of precedence:
// so it costs as much as there are routes.
func (t *Table) Explain(authority, path string, hdr Header) Explanation {
	var buf [maxHostname]byte
	e := explainer{q: newQuery(path, hdr), host: string(hostOf(&buf, authority))}
	e.out.Miss = NoHostname
	for _, h := range t.hosts(e.serves) {
		e.out.Miss = max(e.out.Miss, NoRule)
		for _, m := range h.matches {
			e.try(h, m)
		}
	}
	for _, h := range t.hosts(func(hostname string) bool { return !e.serves(hostname) }) {
		for _, m := range h.matches {
			if m.service.rank() == isLiteral && e.whyNot(m) == "" {
				e.list(h, m, false, fmt.Sprintf("the authority %q is not of its hostname", e.host))
			}
		}
	}
	if e.out.Rule != nil {
		e.out.Miss = Found
	}
	return e.out
}

type explainer struct {
	q    query
	host string
	out  Explanation

	winner     *match
	winnerHost *hostMatches
}

// serves tells whether a hostname, as a route has it, is the RPC's.
func (e *explainer) serves(hostname string) bool {
	if suffix, wildcard := strings.CutPrefix(hostname, "*"); wildcard {
		return strings.HasPrefix(suffix, ".") && strings.HasSuffix(e.host, suffix) && len(e.host) > len(suffix)
	}
	return hostname == "" || hostname == e.host
}

// try is called in order of precedence: the first that matches wins.
func (e *explainer) try(h *hostMatches, m *match) {
	why := e.whyNot(m)
	switch {
	case why == "" && e.winner == nil:
		e.winner, e.winnerHost, e.out.Rule = m, h, m.rule
		e.list(h, m, true, "matches, and nothing that matches comes before it")
	case why == "":
		e.list(h, m, false, "matches too, but "+e.behind(h, m))
	case e.q.service != "" && m.service.fits(e.q.service) && m.service.rank() != isNone:
		e.list(h, m, false, why)
	}
}

func (e *explainer) list(h *hostMatches, m *match, wins bool, why string) {
	if len(e.out.Candidates) == maxCandidates && !wins {
		e.out.More++
		return
	}
	e.out.Candidates = append(e.out.Candidates, Candidate{
		Route: m.rule.Route, Rule: m.rule.Label(), Hostname: cmp.Or(h.hostname, "*"), Match: m.String(), Wins: wins, Why: why,
	})
}

// whyNot is what of the match is not so, empty when all is.
func (e *explainer) whyNot(m *match) string {
	q := &e.q
	switch {
	case q.service == "" && m.service.rank()+m.method.rank() != isNone:
		return "the path is no /service/method"
	case !m.service.fits(q.service):
		return fmt.Sprintf("the service is %q", q.service)
	case !m.method.fits(q.method):
		return fmt.Sprintf("the method is %q", q.method)
	}
	for i := range m.headers {
		h := &m.headers[i]
		if h.matches(q.hdr) {
			continue
		}
		if q.hdr != nil {
			if value, ok := q.hdr.Get(h.name); ok {
				return fmt.Sprintf("the metadata %s is %q", h.name, value)
			}
		}
		return fmt.Sprintf("there is no metadata %s", h.name)
	}
	return ""
}

// fits tells whether the segment is what is asked for.
func (s segment) fits(text string) bool {
	switch s.rank() {
	case isNone:
		return true
	case isPattern:
		return s.pattern.MatchString(text)
	}
	return s.text == text
}

// behind is in what a match comes after the winner.
func (e *explainer) behind(h *hostMatches, m *match) string {
	w := e.winner
	switch {
	case h != e.winnerHost:
		return fmt.Sprintf("the hostname %s is more specific", e.winnerHost.hostname)
	case m.service.compare(w.service) != 0:
		return "the winner says more of the service"
	case m.method.compare(w.method) != 0:
		return "the winner says more of the method"
	case len(m.headers) != len(w.headers):
		return fmt.Sprintf("the winner asks for more metadata: %d, not %d", len(w.headers), len(m.headers))
	case m.rule.compareAge(w.rule) != 0:
		return "the winner's route is older"
	case m.rule.Route != w.rule.Route:
		return "the winner's route comes first by its name"
	case m.rule != w.rule:
		return "the winner comes first in the route"
	}
	return "it is of the same rule"
}

// hostMatches is all that one hostname matches, in order of precedence.
type hostMatches struct {
	hostname string // "" is every authority
	matches  []*match
}

// hosts are those that are wanted, in order of precedence; nil means all.
func (t *Table) hosts(wanted func(hostname string) bool) []*hostMatches {
	byName := make(map[string]*hostMatches)
	var list []*hostMatches
	for _, c := range t.routes {
		for _, hostname := range c.hostnames {
			if len(c.matches) == 0 || wanted != nil && !wanted(hostname) {
				continue
			}
			h := byName[hostname]
			if h == nil {
				h = &hostMatches{hostname: hostname}
				byName[hostname] = h
				list = append(list, h)
			}
			h.matches = append(h.matches, c.matches...)
		}
	}
	slices.SortFunc(list, (*hostMatches).compare)
	for _, h := range list {
		slices.SortStableFunc(h.matches, (*match).compare)
	}
	return list
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

// Decision is where an RPC of a rule goes, and why.
type Decision struct {
	Split int // -1 when there is none, or when it goes by turns
	Turns bool
	Keyed bool // by the sticky metadata
	Why   string
}

// Decide says what Choose does for an RPC with this metadata, and takes no turn.
func (r *Rule) Decide(hdr Header) Decision {
	if s := r.steering; s != nil {
		if p := s.pinOf(hdr); p != nil {
			return Decision{Split: p.split, Why: fmt.Sprintf("the metadata %s is %q, which is pinned", p.header, p.value)}
		}
		if value := s.key(hdr); value != "" {
			i := s.sideOf(value)
			return Decision{Split: i, Keyed: true, Why: fmt.Sprintf("the metadata %s is %q, whose hash %08x is on that side", s.sticky, value, keyPoint(value))}
		}
	}
	switch len(r.steps) {
	case 0:
		return Decision{Split: -1, Why: "the rule has no backend with weight"}
	case 1:
		return Decision{Split: r.steps[0].split, Why: "it is the only backend with weight"}
	}
	return Decision{Split: -1, Turns: true, Why: "the backends take turns, by their weights"}
}
