package route

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/store"
)

// oracle finds a rule as the text of the Gateway API says it: of all matches that
// match, the one that is best by the criteria in their order. It knows nothing of
// buckets; regular expressions stand in for themselves.
func oracle(set *store.Set, authority, path string, hdr headers) (rule string, miss Miss) {
	host, _, _ := strings.Cut(strings.ToLower(authority), ":")
	service, method, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	miss = NoHostname
	var best []int
	for i, r := range set.GRPCRoutes {
		hostnames := r.Spec.Hostnames
		if hostnames == nil {
			hostnames = []string{""}
		}
		for _, hostname := range hostnames {
			if !servesHost(hostname, host) {
				continue
			}
			for j, ru := range r.Spec.Rules {
				miss = max(miss, NoRule)
				for k, m := range append(slices.Clone(ru.Matches), store.GRPCRouteMatch{})[:max(1, len(ru.Matches))] {
					if !meets(m, service, method, hdr) {
						continue
					}
					// Age and name are the route's place in the set.
					score := append(rank(hostname, m), -i, -j, -k)
					if best == nil || slices.Compare(score, best) > 0 {
						best, rule = score, fmt.Sprintf("%s[%d]", r.Key(), j)
					}
				}
			}
		}
	}
	if best != nil {
		miss = Found
	}
	return rule, miss
}

func servesHost(hostname, host string) bool {
	suffix, wildcard := strings.CutPrefix(hostname, "*")
	return hostname == "" || hostname == host || wildcard && strings.HasSuffix(host, suffix) && len(host) > len(suffix)
}

func meets(m store.GRPCRouteMatch, service, method string, hdr headers) bool {
	if mm := m.Method; mm != nil && (!says(mm.Type, mm.Service, service) || !says(mm.Type, mm.Method, method)) {
		return false
	}
	for _, h := range m.Headers {
		if value, ok := hdr[strings.ToLower(h.Name)]; !ok || !says(h.Type, h.Value, value) {
			return false
		}
	}
	return true
}

func says(kind store.MatchType, want, got string) bool {
	if kind == store.RegularExpression && want != "" {
		re, err := store.CompilePattern(want)
		return err == nil && re.MatchString(got)
	}
	return want == "" || want == got
}

func rank(hostname string, m store.GRPCRouteMatch) []int {
	exact := len(hostname)
	if strings.HasPrefix(hostname, "*") {
		exact = 0
	}
	score := []int{exact, len(hostname), 0, 0, len(m.Headers)}
	if m.Method != nil {
		literal := 10_000 // more than any regular expression
		if m.Method.Type == store.RegularExpression {
			literal = 0
		}
		for i, s := range []string{m.Method.Service, m.Method.Method} {
			if s != "" {
				score[2+i] = literal + len(s)
			}
		}
	}
	return score
}

// TestTableAgreesWithTheOracle makes sets of a small vocabulary, so that many
// routes compete for each RPC: anew, and from the table of another set. Explain says
// what Lookup does.
func TestTableAgreesWithTheOracle(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	hits, explained := 0, 0
	var table *Table
	var set *store.Set
	for range 300 {
		set = alter(rng, set)
		before := table.describe()
		prev := table
		table = Compile(set, prev)
		if prev.describe() != before {
			t.Fatal("the table before has changed")
		}
		fresh := Compile(set, nil)
		if got, want := table.describe(), fresh.describe(); got != want {
			t.Fatalf("made from another table:\n%s\nmade anew:\n%s", got, want)
		}
		ordered := &store.Set{GRPCRoutes: slices.Clone(set.GRPCRoutes)}
		slices.SortStableFunc(ordered.GRPCRoutes, byAge) // the oracle takes places for ages
		for range 40 {
			authority := pick(rng, "a.com", "b.a.com", "c.b.a.com", "A.COM:80", "x.org", ".a.com", "")
			path := "/" + pick(rng, "s.A", "s.B", "s.AB") + "/" + pick(rng, "Get", "List", "G")
			hdr := headers{}
			for _, name := range []string{"x", "y", "z"} {
				if rng.IntN(2) == 0 {
					hdr[name] = pick(rng, "1", "12")
				}
			}
			want, wantMiss := oracle(ordered, authority, path, hdr)
			got, miss := table.Lookup(authority, path, hdr)
			if miss != wantMiss || got != nil && got.fullName() != want {
				t.Fatalf("%s %s %v: got %v, %v; want %s, %v\n%s", authority, path, hdr, got, miss, want, wantMiss, table)
			}
			if got != nil {
				hits++
			}
			explained += checkExplained(t, table, authority, path, hdr)
		}
		for _, path := range []string{"", "/", "/s.A", "/s.A/", "//Get", "/s.A/Get/", "s.A/Get", "/s.A/Get/List"} {
			checkExplained(t, table, "a.com", path, headers{"x": "1"})
		}
	}
	if hits < 3000 || explained < 10_000 {
		t.Errorf("%d of 12000 lookups found a rule, with %d candidates in all; the vocabulary is too large", hits, explained)
	}
}

// checkExplained compares an explanation with the lookup, and returns how many
// candidates it has.
func checkExplained(t *testing.T, table *Table, authority, path string, hdr Header) int {
	t.Helper()
	rule, miss := table.Lookup(authority, path, hdr)
	e := table.Explain(authority, path, hdr)
	if e.Rule != rule || e.Miss != miss {
		t.Fatalf("%s %s %v: explained as %v, %v; found %v, %v\n%s", authority, path, hdr, e.Rule, e.Miss, rule, miss, table)
	}
	winners := 0
	for _, c := range e.Candidates {
		if c.Wins {
			winners++
			if c.Route != rule.Route || c.Rule != rule.Label() {
				t.Fatalf("%s %s %v: the winner is %+v, found %v", authority, path, hdr, c, rule)
			}
		}
		if c.Why == "" || c.Hostname == "" || c.Match == "" {
			t.Fatalf("%s %s %v: candidate %+v", authority, path, hdr, c)
		}
	}
	if (winners == 1) != (rule != nil) || winners > 1 {
		t.Fatalf("%s %s %v: %d winners, found %v", authority, path, hdr, winners, rule)
	}
	return len(e.Candidates)
}

// alter takes routes away, adds some and changes the order, or makes another set.
func alter(rng *rand.Rand, set *store.Set) *store.Set {
	fresh := randomSet(rng)
	if set == nil || rng.IntN(20) == 0 {
		return fresh
	}
	next := &store.Set{GRPCRoutes: slices.Clone(set.GRPCRoutes)}
	for range rng.IntN(3) {
		if n := len(next.GRPCRoutes); n > 0 {
			i := rng.IntN(n)
			next.GRPCRoutes = slices.Delete(next.GRPCRoutes, i, i+1)
		}
	}
	used := make(map[string]bool)
	for _, r := range next.GRPCRoutes {
		used[r.Key()] = true
	}
	for _, r := range fresh.GRPCRoutes {
		if len(next.GRPCRoutes) < 8 && !used[r.Key()] && rng.IntN(3) == 0 {
			used[r.Key()] = true
			next.GRPCRoutes = slices.Insert(next.GRPCRoutes, rng.IntN(len(next.GRPCRoutes)+1), r)
		}
	}
	if rng.IntN(5) == 0 {
		rng.Shuffle(len(next.GRPCRoutes), func(i, j int) {
			next.GRPCRoutes[i], next.GRPCRoutes[j] = next.GRPCRoutes[j], next.GRPCRoutes[i]
		})
	}
	return next
}

// describe is all that lookups meet.
func (t *Table) describe() string {
	if t == nil {
		return ""
	}
	var lines []string
	note := func(key string, list *candidates) {
		for i, c := range append([]candidate{list.one}, list.more...) {
			if c.rule != nil {
				lines = append(lines, fmt.Sprintf("%s %d %v: %v, %v", key, i, c.rule.fullName(), c.match, c.rest != nil))
			}
		}
	}
	for name, l := range map[string]*level{"exact": &t.exact, "wild": &t.wild, "any": &t.any} {
		for _, first := range l.literals {
			for e := first; e != nil; e = e.next {
				note(name+" "+e.key, &e.list)
			}
		}
		for host, b := range l.hosts {
			note(name+" services of "+host, &b.servicePatterns)
			note(name+" methods of "+host, &b.methodPatterns)
			note(name+" all of "+host, &b.all)
			lines = append(lines, fmt.Sprintf("%s %s has %d", name, host, b.matches))
		}
		lines = append(lines, fmt.Sprintf("%s uses %v", name, l.used))
	}
	slices.Sort(lines)
	return strings.Join(append(lines, fmt.Sprint("longest ", t.longest)), "\n")
}

func byAge(a, b *store.GRPCRoute) int {
	age := func(r *store.GRPCRoute) time.Time {
		if r.CreationTimestamp.IsZero() {
			return time.Unix(1<<40, 0)
		}
		return r.CreationTimestamp
	}
	return cmp.Or(age(a).Compare(age(b)), cmp.Compare(a.Key(), b.Key()))
}

func pick(rng *rand.Rand, words ...string) string { return words[rng.IntN(len(words))] }

// some is between none and n words.
func some(rng *rand.Rand, n int, words ...string) (chosen []string) {
	for range rng.IntN(n + 1) {
		chosen = append(chosen, pick(rng, words...))
	}
	return chosen
}

func randomSet(rng *rand.Rand) *store.Set {
	set := &store.Set{}
	for i := range 1 + rng.IntN(8) {
		r := &store.GRPCRoute{Meta: store.Meta{Namespace: pick(rng, "m", "n"), Name: fmt.Sprintf("r%d", i)}}
		if rng.IntN(2) == 0 {
			r.CreationTimestamp = time.Unix(int64(1+rng.IntN(3)), 0)
		}
		r.Spec.Hostnames = some(rng, 2, "a.com", "b.a.com", "*.a.com", "*.b.a.com")
		for range rng.IntN(4) {
			var ru store.GRPCRouteRule
			for range rng.IntN(3) {
				ru.Matches = append(ru.Matches, randomMatch(rng))
			}
			r.Spec.Rules = append(r.Spec.Rules, ru)
		}
		set.GRPCRoutes = append(set.GRPCRoutes, r)
	}
	return set
}

func randomMatch(rng *rand.Rand) (m store.GRPCRouteMatch) {
	switch rng.IntN(4) {
	case 0:
		m.Method = &store.MethodMatch{Type: store.Exact, Service: pick(rng, "", "s.A", "s.B"), Method: pick(rng, "", "Get", "List")}
	case 1:
		m.Method = &store.MethodMatch{Type: store.RegularExpression, Service: pick(rng, "", `s\.[AB]`, `s\.A.*`, ".*"), Method: pick(rng, "", "G.*", "Get|List")}
	}
	for _, name := range []string{"X", "y", "z"}[:rng.IntN(4)] {
		kind := store.MatchType(pick(rng, "Exact", "RegularExpression"))
		m.Headers = append(m.Headers, store.HeaderMatch{Type: kind, Name: name, Value: pick(rng, "1", "12")})
	}
	return m
}

// FuzzLookup compiles what the store accepts and looks anything up: no panic, and
// a rule or a reason.
func FuzzLookup(f *testing.F) {
	f.Add(routes(`a: hostnames: ["*.a.b"], rules: [{matches: [{method: {service: s}}]}]`), "x.a.b:80", "/s/m", "x", "y")
	f.Add(routes(`a: rules: [{matches: [{method: {type: RegularExpression, method: "\\Q("}, headers: [{name: X, value: y}]}]}]`), "[::1]", "/s/(", "x", "y")
	f.Add(routes(`a: rules: [{}]`), ":", "//", "", "")
	f.Fuzz(func(t *testing.T, text, authority, path, name, value string) {
		set, faults := store.Parse("f", []byte(text))
		if faults != nil {
			set = &store.Set{}
		}
		table := Compile(set, Compile(set, nil))
		r, miss := table.Lookup(authority, path, headers{name: value})
		if (r == nil) == (miss == Found) {
			t.Fatalf("rule %v beside miss %v", r, miss)
		}
		checkExplained(t, table, authority, path, headers{name: value})
		if r != nil && (r.Pick() >= len(r.Splits) || !strings.Contains(table.String(), r.String())) {
			t.Fatalf("rule %v of\n%s", r, table)
		}
	})
}
