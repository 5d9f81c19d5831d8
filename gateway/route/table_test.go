package route

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/store"
)

// TestTableIsInOrderOfPrecedence prints the table of each golden file: resources,
// a line of "=", and the result.
func TestTableIsInOrderOfPrecedence(t *testing.T) {
	const line = "========== result\n"
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".golden"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := bytes.Cut(data, []byte(line))
			got := Compile(parse(t, string(input)), nil).String()
			if *update {
				if err := os.WriteFile(file, []byte(string(input)+line+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestTableFindsByHostname(t *testing.T) {
	table := Compile(parse(t, routes(`
		exact: hostnames: [shop.example.com], rules: [{matches: [{method: {service: s.A}}]}]
		wild: hostnames: ["*.example.com"], rules: [{matches: [{method: {service: s.A}}, {method: {service: s.B}}]}]
		deep: hostnames: ["*.shop.example.com", "*.example.org", "*.example.org"], rules: [{}]
		any: rules: [{matches: [{method: {service: s.C}}]}]
	`)), nil)
	long := strings.Repeat("a.", 121) + "example.org"  // 253 bytes
	longer := strings.Repeat("b.", 122) + "xample.org" // 254 bytes
	tests := []struct {
		authority, path string
		want            string // the route, or the reason
	}{
		{"shop.example.com", "/s.A/M", "exact"},
		{"shop.example.com:50051", "/s.A/M", "exact"},
		{"shop.example.com:", "/s.A/M", "exact"},
		{"SHOP.Example.COM:443", "/s.A/M", "exact"},
		{"shop.example.com.", "/s.A/M", "exact"},
		{"shop.example.com.:80", "/s.A/M", "exact"},
		{"shop.example.com", "/s.B/M", "wild"}, // an exact hostname without a matching rule hides nothing
		{"shop.example.com", "/s.C/M", "any"},
		{"shop.example.com", "/s.D/M", "NoRule"},
		{"other.example.com", "/s.A/M", "wild"},
		{"a.b.example.com", "/s.A/M", "wild"}, // "a match for *.example.com would match foo.test.example.com"
		{"a.b.example.com:1", "/s.D/M", "NoRule"},
		{"example.com", "/s.A/M", "NoRule"}, // "but not example.com"
		{".example.com", "/s.A/M", "NoRule"},
		{"xexample.com", "/s.C/M", "any"},
		{"a.shop.example.com", "/s.A/M", "deep"}, // the longer wildcard first
		{"a.shop.example.com", "/s.D/M", "deep"},
		{"shop.example.com:http", "/s.A/M", "NoRule"},
		{"user@shop.example.com", "/s.A/M", "wild"}, // the engine refuses such an authority
		{"[::1]:50051", "/s.C/M", "any"},
		{"10.0.0.1:50051", "/s.A/M", "NoRule"},
		{"", "/s.C/M", "any"},
		{":80", "/s.C/M", "any"},
		{long, "/s.A/M", "deep"},
		{long + ".", "/s.A/M", "deep"},
		{longer, "/s.A/M", "NoRule"},
		{strings.Repeat("x", 20_000), "/s.C/M", "any"},
	}
	for _, tt := range tests {
		checkLookup(t, table, tt.authority, tt.path, nil, tt.want)
	}
}

func TestTableFindsByMethod(t *testing.T) {
	table := Compile(parse(t, routes(`
		path: rules: [{matches: [{method: {service: s.A, method: Get}}]}]
		service: rules: [{matches: [{method: {service: s.A}}]}]
		pattern: rules: [{matches: [{method: {type: RegularExpression, service: "s\\.[AB]"}}]}]
		patterns: rules: [{matches: [{method: {type: RegularExpression, service: "s\\.[AB]", method: "Get|List"}}]}]
		long: rules: [{matches: [{method: {type: RegularExpression, service: "s\\.(B|C|D|E|F|G)", method: "Get"}}]}]
		method: rules: [{matches: [{method: {method: Get}}]}]
		methods: rules: [{matches: [{method: {type: RegularExpression, method: "L.*"}}]}]
		methods-longer: rules: [{matches: [{method: {type: RegularExpression, method: "Lis.*"}}]}]
	`)), nil)
	tests := []struct{ path, want string }{
		{"/s.A/Get", "path"},
		{"/s.A/List", "service"},
		{"/s.A/get", "service"}, // case counts
		{"/s.a/Get", "method"},
		{"/s.B/Get", "long"},      // the longer pattern of a service first
		{"/s.B/List", "patterns"}, // the same service: any pattern of a method before none
		{"/s.B/Watch", "pattern"},
		{"/s.BB/Watch", "NoRule"}, // the whole value
		{"/xs.B/Watch", "NoRule"},
		{"/s.X/Get", "method"},
		{"/s.X/List", "methods-longer"},
		{"/s.X/Listen", "methods-longer"},
		{"/s.X/Look", "methods"},
		{"/s.X/XL", "NoRule"},
	}
	for _, tt := range tests {
		checkLookup(t, table, "any", tt.path, nil, tt.want)
	}
}

func TestTableMeetsOddPathsOnlyWithEverything(t *testing.T) {
	set := parse(t, routes(`
		some: rules: [{matches: [{method: {service: s}}, {method: {method: m}}, {method: {service: a, method: b}}, {method: {type: RegularExpression, service: ".*"}}, {method: {type: RegularExpression, method: ".*"}}]}]
	`))
	some, all := Compile(set, nil), Compile(parse(t, routes(`all: rules: [{}]`)), nil)
	for _, path := range []string{"", "/", "//", "/s", "/s/", "//m", "s/m", "*", "/s/m/", "/s//m", "/a/b/c", "a/b", "/s/m/m"} {
		checkLookup(t, some, "any", path, nil, "NoRule")
		checkLookup(t, all, "any", path, nil, "all")
	}
}

func TestTableFindsByHeader(t *testing.T) {
	table := Compile(parse(t, routes(`
		two: rules: [{matches: [{headers: [{name: X-A, value: "1"}, {name: x-b, value: "2"}]}]}]
		one: rules: [{matches: [{headers: [{name: x-a, value: "1"}]}]}]
		pattern: rules: [{matches: [{headers: [{type: RegularExpression, name: x-c, value: "v[0-9]+"}]}]}]
		first: rules: [{matches: [{headers: [{name: x-d, value: a}, {name: X-D, value: b}]}]}]
		empty: rules: [{matches: [{headers: [{type: RegularExpression, name: x-e, value: ".*"}]}]}]
	`)), nil)
	tests := []struct {
		headers headers
		want    string
	}{
		{headers{"x-a": "1"}, "one"},
		{headers{"x-a": "1", "x-b": "2"}, "two"},
		{headers{"x-a": "1", "x-b": "3"}, "one"},
		{headers{"x-b": "2"}, "NoRule"},
		{headers{"x-a": "11"}, "NoRule"},
		{headers{"x-c": "v12"}, "pattern"},
		{headers{"x-c": "v12 "}, "NoRule"},
		{headers{"x-d": "a"}, "first"}, // only the first entry of a name counts
		{headers{"x-d": "b"}, "NoRule"},
		{headers{"x-e": ""}, "empty"},
		{headers{}, "NoRule"},
		{nil, "NoRule"},
	}
	for _, tt := range tests {
		checkLookup(t, table, "any", "/s/m", tt.headers, tt.want)
	}
	if r, miss := table.Lookup("any", "/s/m", nil); r != nil || miss != NoRule {
		t.Errorf("without metadata: got %v, %v; want NoRule", r, miss)
	}
}

func TestTableOfNothingServesNoHostname(t *testing.T) {
	for name, set := range map[string]*store.Set{
		"no routes":          {},
		"a route of no rule": parse(t, routes("r: hostnames: [a.b]")),
		"another hostname":   parse(t, routes("r: hostnames: [a.b], rules: [{}]")),
	} {
		r, miss := Compile(set, nil).Lookup("c.d", "/s/m", nil)
		if r != nil || miss != NoHostname {
			t.Errorf("%s: got %v, %v; want NoHostname", name, r, miss)
		}
	}
}

func TestMissIsSaid(t *testing.T) {
	for miss, want := range map[Miss]string{
		Found:      "found",
		NoHostname: "no route serves this authority",
		NoRule:     "no rule of the routes that serve this authority matches",
	} {
		if got := miss.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// checkLookup wants the route of that name, or that miss.
func checkLookup(t *testing.T, table *Table, authority, path string, hdr headers, want string) {
	t.Helper()
	r, miss := table.Lookup(authority, path, hdr)
	got := map[Miss]string{NoHostname: "NoHostname", NoRule: "NoRule"}[miss]
	if (r == nil) == (miss == Found) {
		t.Errorf("%.60s %s: rule %v beside miss %v", authority, path, r, miss)
	}
	if r != nil {
		got = strings.TrimPrefix(r.Route, "default/")
	}
	if got != want {
		t.Errorf("%.60s %s %v: got %s, want %s", authority, path, hdr, got, want)
	}
}

func TestCompileKeepsSplits(t *testing.T) {
	set := parse(t, routes(`r: rules: [{name: all, backendRefs: [{name: b, weight: 3}, {name: c, namespace: n, weight: 0}, {name: gone}]}]`)+`---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoints: []}
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: c, namespace: n}
spec: {endpoints: []}
`)
	r := Compile(set, nil).Rules()[0]
	want := []Split{
		{Backend: "default/b", Weight: 3},
		{Backend: "n/c", Weight: 0},
		{Backend: "default/gone", Weight: 1},
	}
	if len(r.Splits) != len(want) {
		t.Fatalf("got %v", r.Splits)
	}
	for i := range want {
		if r.Splits[i] != want[i] {
			t.Errorf("split %d: got %+v, want %+v", i, r.Splits[i], want[i])
		}
	}
	if got, want := r.String(), "default/r/all: default/b=3 n/c=0 default/gone=1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if r.Route != "default/r" || r.Name != "all" || r.Index != 0 {
		t.Errorf("got route %s, name %s, index %d", r.Route, r.Name, r.Index)
	}
}

// TestCompileSkipsWhatWasNotValidated takes sets that no store has let through.
func TestCompileSkipsWhatWasNotValidated(t *testing.T) {
	match := func(m store.GRPCRouteMatch) *store.Set {
		r := &store.GRPCRoute{Meta: store.Meta{Name: "r"}}
		r.Spec.Rules = []store.GRPCRouteRule{{Matches: []store.GRPCRouteMatch{m}}}
		return &store.Set{GRPCRoutes: []*store.GRPCRoute{r}}
	}
	for name, m := range map[string]store.GRPCRouteMatch{
		"method type":     {Method: &store.MethodMatch{Type: "Prefix", Service: "s"}},
		"no method type":  {Method: &store.MethodMatch{Service: "s"}},
		"service pattern": {Method: &store.MethodMatch{Type: store.RegularExpression, Service: "("}},
		"method pattern":  {Method: &store.MethodMatch{Type: store.RegularExpression, Service: "s", Method: "("}},
		"header type":     {Headers: []store.HeaderMatch{{Name: "x", Value: "y"}}},
		"header pattern":  {Headers: []store.HeaderMatch{{Type: store.RegularExpression, Name: "x", Value: "("}}},
	} {
		table := Compile(match(m), nil)
		if r, miss := table.Lookup("a", "/s/m", headers{"x": "y"}); r != nil || miss != NoHostname {
			t.Errorf("%s: got %v, %v; want NoHostname", name, r, miss)
		}
		if len(table.Rules()) != 1 || table.String() != "" {
			t.Errorf("%s: got %d rules and %q, want one rule and no line", name, len(table.Rules()), table)
		}
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	table := Compile(parse(t, routes(`
		a: hostnames: [shop.example.com], rules: [{matches: [{method: {service: s.A, method: M}, headers: [{name: x, value: y}]}]}]
		b: hostnames: ["*.example.com"], rules: [{matches: [{method: {type: RegularExpression, service: "s\\..*"}}]}]
	`)), nil)
	var hdr Header = headers{"x": "y"}
	var found int
	n := testing.AllocsPerRun(200, func() {
		for _, authority := range []string{"SHOP.EXAMPLE.COM:443", "a.b.example.com", "other"} {
			if r, _ := table.Lookup(authority, "/s.A/M", hdr); r != nil {
				r.Pick()
				found++
			}
		}
	})
	if n != 0 || found == 0 || found%2 != 0 {
		t.Errorf("%v allocations and %d found, want none and two each", n, found)
	}
}
