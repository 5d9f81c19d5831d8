package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/store"
)

// httpRoutes makes documents of HTTPRoutes, as routes does.
func httpRoutes(lines string) string {
	return strings.ReplaceAll(routes(lines), "kind: GRPCRoute", "kind: HTTPRoute")
}

// lookHTTP looks up "[METHOD ]AUTHORITY/PATH[?QUERY]".
func lookHTTP(t testing.TB, table *Table, request string, hdr headers) (HTTPMatch, Miss) {
	t.Helper()
	method, target, ok := strings.Cut(request, " ")
	if !ok {
		method, target = "GET", request
	}
	target, query, _ := strings.Cut(target, "?")
	slash := strings.IndexByte(target, '/')
	path, err := ParseHTTPPath(target[slash:])
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	return table.LookupHTTP(&HTTPRequest{Authority: target[:slash], Method: method, Path: path, Query: query, Header: hdr})
}

func TestTableFindsHTTPRulesByPrecedence(t *testing.T) {
	t.Parallel()
	table := Compile(parse(t, httpRoutes(`
		host: hostnames: [shop.example.com], rules: [{name: exact, matches: [{path: {type: Exact, value: /cart}}]}, {name: cart, matches: [{path: {value: /cart}}]}, {name: item, matches: [{path: {value: /cart/item/}}]}, {name: pattern, matches: [{path: {type: RegularExpression, value: "/v[0-9]+/.*"}}]}, {name: longer, matches: [{path: {type: RegularExpression, value: "/v[0-9][0-9]*/.*"}}]}, {name: rest}]
		wild: hostnames: ["*.example.com"], rules: [{name: wild, matches: [{path: {value: /wild}}]}]
		all: rules: [{name: post, matches: [{path: {value: /m}, method: POST}]}, {name: two, matches: [{path: {value: /m}, headers: [{name: X-A, value: "1"}, {name: X-B, value: "2"}]}]}, {name: one, matches: [{path: {value: /m}, headers: [{name: X-A, value: "1"}]}]}, {name: param, matches: [{path: {value: /m}, queryParams: [{name: q, value: "a b"}]}]}, {name: re, matches: [{path: {value: /m}, queryParams: [{name: n, type: RegularExpression, value: "[0-9]+"}]}]}]
		young 2024-01-02T00:00:00Z: rules: [{name: young, matches: [{path: {value: /age}}]}]
		old 2024-01-01T00:00:00Z: rules: [{name: old, matches: [{path: {value: /age}}]}, {name: second, matches: [{path: {value: /age}}]}]
	`)), nil)
	tests := []struct {
		request string
		hdr     headers
		want    string // the rule, or why there is none
	}{
		{request: "shop.example.com/cart", want: "exact"},
		{request: "Shop.Example.com.:8080/cart/", want: "cart"},
		{request: "shop.example.com/cart/x", want: "cart"},
		{request: "shop.example.com/cart/item", want: "item"},
		{request: "shop.example.com/cart/items", want: "cart"},
		{request: "shop.example.com/cart/item/5/x", want: "item"},
		{request: "shop.example.com/cartoon", want: "rest bare"},
		{request: "shop.example.com/", want: "rest bare"},
		{request: "shop.example.com/v1/x", want: "longer"},
		{request: "shop.example.com/x/v1/x", want: "rest bare"},
		{request: "shop.example.com/%63art", want: "exact"},
		{request: "a.example.com/wild/x", want: "wild"},
		{request: "b.a.example.com/wild", want: "wild"},
		{request: "example.com/wild", want: NoRule.String()},
		{request: "POST x/m/1", hdr: headers{"x-a": "1", "x-b": "2"}, want: "post"},
		{request: "x/m", hdr: headers{"x-a": "1", "x-b": "2"}, want: "two"},
		{request: "x/m", hdr: headers{"x-a": "1", "x-b": "3"}, want: "one"},
		{request: "x/m?p=1&q=a+b&q=c", want: "param"},
		{request: "x/m?q=%61%20b", want: "param"},
		{request: "x/m?q=c&q=a+b", want: NoRule.String()},
		{request: "x/m?q=a+b&n=7", want: "param"},
		{request: "x/m?n=7;", want: NoRule.String()},
		{request: "x/m?%6e=7", want: "re"},
		{request: "x/m?n=%zz&n=7", want: NoRule.String()},
		{request: "x/age", want: "old"},
		{request: "shop.example.com/age", want: "rest bare"},
	}
	for _, tt := range tests {
		m, miss := lookHTTP(t, table, tt.request, tt.hdr)
		got := miss.String()
		if m.Rule != nil {
			got = m.Rule.Name
			if m.Bare {
				got += " bare"
			}
		}
		if got != tt.want {
			t.Errorf("%s %v: got %s, want %s", tt.request, tt.hdr, got, tt.want)
		}
	}
	if _, miss := lookHTTP(t, Compile(parse(t, httpRoutes(`a: hostnames: [a]`)), nil), "b/", nil); miss != NoHostname {
		t.Errorf("another hostname: got %v", miss)
	}
}

// TestTableRefusesPathsThatLeadTwoWays: what one server takes for /admin and another
// does not is let through to neither, unless all of it belongs to one rule.
func TestTableRefusesPathsThatLeadTwoWays(t *testing.T) {
	t.Parallel()
	table := Compile(parse(t, httpRoutes(`
		r: rules: [{name: rest}, {name: admin, matches: [{path: {value: /admin}}]}, {name: colon, matches: [{path: {value: "/x:y"}}]}, {name: params, matches: [{path: {type: Exact, value: "/a;b"}}]}]
	`)), nil)
	for request, want := range map[string]string{
		"x/admin%2fx": "", "x/admin;v/x": "", "x/admin;v": "", "x/admin%3bv": "", "x/admin%5Cx": "", "x/%61dmin;v=%2F": "", "x/x;/admin": "rest", "x/%2fadmin": "", "x/b;/%2Fadmin": "rest",
		"x/admin/x%2Fy": "admin", "x/admin/a;b/c": "admin", "x/projects/group%2Fproject": "rest", "x/m;v=1/n": "rest",
		"x/x%3ay/z": "colon", "x/x:y": "colon", "x/a;b": "params", "x/a;c": "rest",
	} {
		m, miss := lookHTTP(t, table, request, nil)
		got := ""
		if miss == Found {
			got = m.Rule.Name
		} else if miss != TwoReadings {
			got = miss.String()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", request, got, want)
		}
	}
}

// TestTableDecidesAsOfTheCanonicalPath: a path and its one form lead to the same rule,
// and no spelling of a path leads away from the rule of what a server may read.
func TestTableDecidesAsOfTheCanonicalPath(t *testing.T) {
	t.Parallel()
	table := Compile(parse(t, httpRoutes(`
		r: rules: [{name: rest}, {name: deny, matches: [{path: {value: /deny}}, {path: {value: /a/deny}}, {path: {type: Exact, value: /b/deny}}]}]
	`)), nil)
	rng := rand.New(rand.NewPCG(3, 5))
	pieces := []string{"/", "/", "/", "a", "b", "deny", "%64eny", "de%6Ey", "%2F", "%2f", "%5c", ";", ";x=1", "%3B", ".", "..", "%2e", "%2E%2e", "//", "%00", "%", "\\", ":", "%3a", "DENY"}
	refused, found := 0, 0
	for range 50_000 {
		var raw strings.Builder
		for range 1 + rng.IntN(7) {
			raw.WriteString(pieces[rng.IntN(len(pieces))])
		}
		p, err := ParseHTTPPath(raw.String())
		if err != nil {
			refused++
			continue
		}
		canon, err := ParseHTTPPath(p.String())
		if err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		m, miss := table.LookupHTTP(&HTTPRequest{Path: p})
		if m2, miss2 := table.LookupHTTP(&HTTPRequest{Path: canon}); m2 != m || miss2 != miss {
			t.Fatalf("%q: got %v, and of its form %q %v", raw.String(), m.Rule, p, m2.Rule)
		}
		if miss == Found {
			found++
		}
		if miss == Found && m.Rule.Name == "rest" {
			for _, reading := range serverReadings(raw.String()) {
				if denied(reading) {
					t.Fatalf("%q was let through as %q, and a server may take it for %q", raw.String(), p, reading)
				}
			}
		}
	}
	if refused < 1000 || found < 1000 {
		t.Errorf("%d refused, %d found: want many of both", refused, found)
	}
}

func denied(path string) bool {
	return path == "/b/deny" || strings.HasPrefix(path+"/", "/deny/") || strings.HasPrefix(path+"/", "/a/deny/")
}

// serverReadings is what servers make of a path that decode, drop parameters, merge
// slashes and resolve dots in one order or another.
func serverReadings(raw string) (list []string) {
	steps := []func(string) string{
		func(s string) string { return unescape(s, func(byte) bool { return true }) },
		dropParameters,
		func(s string) string { return strings.ReplaceAll(s, `\`, "/") },
	}
	for _, order := range [][]int{{}, {0}, {1}, {2}, {0, 1}, {1, 0}, {0, 2}, {1, 0, 2}, {0, 2, 1}, {0, 1, 2}} {
		s := raw
		for _, i := range order {
			s = steps[i](s)
		}
		list = append(list, resolve(s))
	}
	return list
}

func resolve(s string) string {
	var out []string
	for _, segment := range strings.Split(mergeSlashes(s), "/") {
		switch segment {
		case "..":
			out = out[:max(0, len(out)-1)]
		case ".", "":
		default:
			out = append(out, segment)
		}
	}
	if strings.HasSuffix(s, "/") && len(out) > 0 {
		out = append(out, "")
	}
	return "/" + strings.Join(out, "/")
}

// TestTableKeepsHTTPRulesAndTurns: a change of one route leaves the rules of the
// others, and says what has come and gone.
func TestTableKeepsHTTPRulesAndTurns(t *testing.T) {
	t.Parallel()
	spec := func(second string) *store.Set {
		return parse(t, httpRoutes(`
			a: hostnames: [a], rules: [{backendRefs: [{name: x, weight: 9}, {name: y, weight: 1}]}]
			b: `+second))
	}
	before := spec(`hostnames: [a, "*.b"], rules: [{name: n, matches: [{path: {value: /p}}, {path: {type: RegularExpression, value: "/q.*"}}], backendRefs: [{name: x, weight: 9}, {name: y, weight: 1}]}]`)
	first := Compile(before, nil)
	old := first.HTTPRulesOf("default/b")[0]
	for range 5 {
		old.Pick()
	}
	set := spec(`hostnames: [c], rules: [{name: n, matches: [{path: {value: /r}}], backendRefs: [{name: x, weight: 9}, {name: y, weight: 1}]}]`)
	set.HTTPRoutes[0] = before.HTTPRoutes[0]
	text := first.String()
	next, changes := first.Next(set)
	if first.String() != text {
		t.Error("the table before has changed")
	}
	if got, want := next.String(), Compile(set, nil).String(); got != want {
		t.Errorf("made from another table:\n%s\nmade anew:\n%s", got, want)
	}
	rule := next.HTTPRulesOf("default/b")[0]
	if !slices.Equal(changes.Added, []*Rule{rule}) || !slices.Equal(changes.Removed, []*Rule{old}) {
		t.Errorf("got %v come and %v gone", changes.Added, changes.Removed)
	}
	if rule.turn != old.turn || next.HTTPRulesOf("default/a")[0] != first.HTTPRulesOf("default/a")[0] {
		t.Error("a turn, or a rule, has not gone on")
	}
	if rule.Kind != store.HTTPRouteKind || rule.Route != "default/b" || len(next.Rules()) != 2 {
		t.Errorf("got %s %s of %d rules", rule.Kind, rule.Route, len(next.Rules()))
	}
	if m, _ := lookHTTP(t, next, "a/p", nil); m.Rule != next.HTTPRulesOf("default/a")[0] || !m.Bare {
		t.Errorf("got %v of what has gone", m.Rule)
	}
	last, changes := next.Next(&store.Set{})
	if len(changes.Removed) != 2 || last.String() != "" {
		t.Errorf("%v gone, left %q", changes.Removed, last)
	}
}

// TestTableAgreesWithTheHTTPOracle has many routes compete for each request.
func TestTableAgreesWithTheHTTPOracle(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(13, 17))
	pick := func(words ...string) string { return words[rng.IntN(len(words))] }
	day := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	var table *Table
	hits := 0
	for range 300 {
		set := &store.Set{}
		for i := range 1 + rng.IntN(8) {
			r := &store.HTTPRoute{Meta: store.Meta{Namespace: "n", Name: fmt.Sprint("r", i), CreationTimestamp: day.AddDate(0, 0, rng.IntN(2))}}
			if h := pick("", "a.b.c", "*.b.c", "*.c"); h != "" {
				r.Spec.Hostnames = []string{h}
			}
			for range 1 + rng.IntN(2) {
				m := store.HTTPRouteMatch{Path: store.PathMatch{Type: store.MatchType(pick("Exact", "PathPrefix", "PathPrefix")), Value: pick("/", "/x", "/x/", "/x/y", "/x/y/z")}, Method: pick("", "", "PUT")}
				if rng.IntN(4) == 0 {
					m.Path = store.PathMatch{Type: store.RegularExpression, Value: pick("/x.*", "/x/./z")}
				}
				for range rng.IntN(2) {
					m.Headers = append(m.Headers, store.HeaderMatch{Type: store.Exact, Name: pick("H", "I"), Value: pick("1", "2")})
				}
				for range rng.IntN(2) {
					m.QueryParams = append(m.QueryParams, store.QueryParamMatch{Type: store.Exact, Name: pick("p", "q"), Value: pick("1", "2")})
				}
				r.Spec.Rules = append(r.Spec.Rules, store.HTTPRouteRule{Matches: []store.HTTPRouteMatch{m}})
			}
			set.HTTPRoutes = append(set.HTTPRoutes, r)
		}
		table = Compile(set, table)
		for range 60 {
			request := pick("GET ", "PUT ") + pick("a.b.c", "z.b.c", "c", "y.c") + pick("/", "/x", "/x/", "/x/y", "/x/yy", "/x/y/z", "/x/y/z/w", "/w") + pick("", "?p=1", "?p=2&q=1")
			hdr := headers{pick("h", "i"): pick("1", "2")}
			m, _ := lookHTTP(t, table, request, hdr)
			got := ""
			if m.Rule != nil {
				hits++
				got = m.Rule.fullName()
			}
			if want := httpOracle(set, request, hdr); got != want {
				t.Fatalf("%s %v: got %q, want %q of\n%s", request, hdr, got, want, table)
			}
		}
	}
	if hits < 5000 {
		t.Errorf("only %d requests found a rule", hits)
	}
}

// httpOracle tries every match and takes the best by the Gateway API's criteria.
func httpOracle(set *store.Set, request string, hdr headers) (rule string) {
	method, target, _ := strings.Cut(request, " ")
	target, query, _ := strings.Cut(target, "?")
	slash := strings.IndexByte(target, '/')
	host, path := target[:slash], target[slash:]
	params := headers{}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		params[name] = value
	}
	var best []int
	for i, r := range set.HTTPRoutes {
		hostname := ""
		if len(r.Spec.Hostnames) > 0 {
			hostname = r.Spec.Hostnames[0]
		}
		if !servesHost(hostname, host) {
			continue
		}
		for j := range r.Spec.Rules {
			m := &r.Spec.Rules[j].Matches[0]
			fits := m.Method == "" || m.Method == method
			for _, h := range m.Headers {
				fits = fits && hdr[strings.ToLower(h.Name)] == h.Value
			}
			for _, p := range m.QueryParams {
				fits = fits && params[p.Name] == p.Value
			}
			rank := 0
			prefix := strings.TrimSuffix(m.Path.Value, "/")
			switch m.Path.Type {
			case store.Exact:
				fits, rank = fits && path == m.Path.Value, 30_000
			case store.RegularExpression:
				fits, rank = fits && says(m.Path.Type, m.Path.Value, path), 10_000+len(m.Path.Value)
			case store.PathPrefix:
				if fits = fits && strings.HasPrefix(path+"/", prefix+"/"); prefix != "" {
					rank = 20_000 + len(prefix)
				}
			}
			exact := len(hostname)
			if strings.HasPrefix(hostname, "*") {
				exact = 0
			}
			score := []int{exact, len(hostname), rank, min(1, len(m.Method)), len(m.Headers), len(m.QueryParams), -int(r.CreationTimestamp.Unix()), -i, -j}
			if fits && (best == nil || slices.Compare(score, best) > 0) {
				best, rule = score, fmt.Sprintf("%s[%d]", r.Key(), j)
			}
		}
	}
	return rule
}

func TestRewriteAndRedirect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ prefix, replacement, path, want string }{
		{"/foo", "/xyz", "/foo/bar", "/xyz/bar"},
		{"/foo", "/xyz/", "/foo/bar", "/xyz/bar"},
		{"/foo/", "/xyz", "/foo/bar", "/xyz/bar"},
		{"/foo/", "/xyz/", "/foo/bar", "/xyz/bar"},
		{"/foo", "/xyz", "/foo", "/xyz"},
		{"/foo", "/xyz", "/foo/", "/xyz/"},
		{"/foo", "", "/foo/bar", "/bar"},
		{"/foo", "", "/foo/", "/"},
		{"/foo", "", "/foo", "/"},
		{"/foo", "/", "/foo/", "/"},
		{"/foo", "/", "/foo", "/"},
		{"/", "/xyz", "/a%2Fb", "/xyz/a%2Fb"},
		{"/f:o/b", "/x", "/f%3ao/b/c", "/x/c"},
	} {
		set := parse(t, httpRoutes(fmt.Sprintf(`r: rules: [{matches: [{path: {value: %q}}], filters: [{type: URLRewrite, urlRewrite: {hostname: h, path: {type: ReplacePrefixMatch, replacePrefixMatch: %q}}}]}]`, tt.prefix, tt.replacement)))
		m, miss := lookHTTP(t, Compile(set, nil), "x"+tt.path, nil)
		if miss != Found {
			t.Fatalf("%s: %v", tt.path, miss)
		}
		p, _ := ParseHTTPPath(tt.path)
		if got := m.Rule.Rewrite.Path(&m, p); got != tt.want || m.Rule.Rewrite.Hostname != "h" {
			t.Errorf("%s for %s of %s: got %s, want %s", tt.replacement, tt.prefix, tt.path, got, tt.want)
		}
	}
	for filter, want := range map[string]string{
		`{hostname: other}`: "302 http://other:8080/a/b?q=1",
		`{scheme: https}`:   "302 https://shop/a/b?q=1",
		`{scheme: https, port: 443, statusCode: 301}`:                  "301 https://shop/a/b?q=1",
		`{scheme: https, port: 8443}`:                                  "302 https://shop:8443/a/b?q=1",
		`{port: 80}`:                                                   "302 http://shop/a/b?q=1",
		`{path: {type: ReplaceFullPath, replaceFullPath: /c}}`:         "302 http://shop:8080/c?q=1",
		`{path: {type: ReplacePrefixMatch, replacePrefixMatch: /c}}`:   "302 http://shop:8080/c/b?q=1",
		`{scheme: http, hostname: other, port: 8080, statusCode: 308}`: "308 http://other:8080/a/b?q=1",
	} {
		set := parse(t, httpRoutes(`r: rules: [{matches: [{path: {value: /a}}], filters: [{type: RequestRedirect, requestRedirect: `+filter+`}]}]`))
		m, _ := lookHTTP(t, Compile(set, nil), "shop:8080/a/b", nil)
		p, _ := ParseHTTPPath("/a/b")
		r := m.Rule.Redirect
		if got := fmt.Sprint(r.Status, " ", r.Location(&m, "http", "shop:8080", p, "q=1")); got != want {
			t.Errorf("%s: got %s, want %s", filter, got, want)
		}
	}
}
