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
// routes compete for each RPC.
func TestTableAgreesWithTheOracle(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	hits := 0
	for range 300 {
		set := randomSet(rng)
		table := Compile(set, nil)
		slices.SortStableFunc(set.GRPCRoutes, byAge) // the oracle takes places for ages
		for range 40 {
			authority := pick(rng, "a.com", "b.a.com", "c.b.a.com", "A.COM:80", "x.org")
			path := "/" + pick(rng, "s.A", "s.B", "s.AB") + "/" + pick(rng, "Get", "List", "G")
			hdr := headers{}
			for _, name := range []string{"x", "y", "z"} {
				if rng.IntN(2) == 0 {
					hdr[name] = pick(rng, "1", "12")
				}
			}
			want, wantMiss := oracle(set, authority, path, hdr)
			got, miss := table.Lookup(authority, path, hdr)
			if miss != wantMiss || got != nil && got.fullName() != want {
				t.Fatalf("%s %s %v: got %v, %v; want %s, %v\n%s", authority, path, hdr, got, miss, want, wantMiss, table)
			}
			if got != nil {
				hits++
			}
		}
	}
	if hits < 3000 {
		t.Errorf("%d of 12000 lookups found a rule; the vocabulary is too large", hits)
	}
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
		if r != nil && (r.Pick() >= len(r.Splits) || !strings.Contains(table.String(), r.String())) {
			t.Fatalf("rule %v of\n%s", r, table)
		}
	})
}
