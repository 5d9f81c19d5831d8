package rest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/gateway/schema"
)

// tableMethods has methods with the paths that are given as "VERB template".
func tableMethods(t testing.TB, paths ...string) []*schema.Method {
	t.Helper()
	var b strings.Builder
	b.WriteString("syntax = \"proto3\"; package library.v1;\n" +
		"message Book { string name = 1; string id = 2; string shelf = 3; Book parent = 4; int32 year = 5; }\n" +
		"service Library {\n")
	for i := range paths {
		fmt.Fprintf(&b, "rpc M%02d(Book) returns (Book);\n", i)
	}
	b.WriteString("}\n")
	s := codecSchema(t, map[string]string{"library.proto": b.String()})
	var methods []*schema.Method
	for i, path := range paths {
		m := *s.Method(fmt.Sprintf("/library.v1.Library/M%02d", i))
		verb, template, _ := strings.Cut(path, " ")
		m.Bindings = []schema.Binding{{Verb: verb, Template: template}}
		methods = append(methods, &m)
	}
	return methods
}

// described is a match as "template field=value …".
func described(m Match) string {
	var b strings.Builder
	if m.Endpoint == nil {
		return "none"
	}
	b.WriteString(m.Binding.Template)
	for i, v := range m.variables {
		value := decodeSegment(m.values[i])
		if v.multi {
			value = decodeSegments(m.values[i])
		}
		fmt.Fprintf(&b, " %s=%s", v.name, value)
	}
	return b.String()
}

func TestTableMatchesTheMostSpecificTemplateFirst(t *testing.T) {
	table, faults := NewTable(tableMethods(t,
		"GET /v1/books", "GET /v1/books/{id}", "GET /v1/{name=books/*}", "GET /v1/books/best", "GET /v1/{name=**}", "POST /v1/books",
		"POST /v1/books/{id}:publish", "POST /v1/{name=**}:publish", "POST /v1/books/{id}", "GET /v1/{shelf}/{id}", "DELETE /v1/books/*", "* /v1/any",
		"GET /", "GET /v2/{name=shelves/*/books/*}", "GET /v2/{shelf=shelves/*}/items/{id}", "GET /v2/caf%C3%A9/{id}", "POST /v2/{id}:a:b", "GET /v3/**",
		"HEAD /v1/books"))
	if len(faults) != 1 || !strings.Contains(faults[0].Error(), "/library.v1.Library/M01 has it already") {
		t.Fatalf("faults %v, want one about /v1/{name=books/*}", faults)
	}
	tests := []struct {
		verb, path string
		want       []string
		allowed    string
	}{
		{"GET", "/v1/books", []string{"/v1/books", "/v1/{name=**} name=books"}, ""},
		{"GET", "/v1/books/best", []string{
			"/v1/books/best", "/v1/books/{id} id=best", "/v1/{name=books/*} name=books/best",
			"/v1/{shelf}/{id} shelf=books id=best", "/v1/{name=**} name=books/best",
		}, ""},
		{"GET", "/v1/b%6Foks/be%73t", []string{
			"/v1/books/best", "/v1/books/{id} id=best", "/v1/{name=books/*} name=books/best",
			"/v1/{shelf}/{id} shelf=books id=best", "/v1/{name=**} name=books/best",
		}, ""},
		{"GET", "/v1", []string{"/v1/{name=**} name="}, ""},
		{"POST", "/v1", nil, "GET"},
		{"PUT", "/v1/books", nil, "GET HEAD POST"},
		{"PATCH", "/v1/books/7", nil, "DELETE GET POST"},
		{"POST", "/v1/books/7:publish", []string{
			"/v1/books/{id}:publish id=7", "/v1/{name=**}:publish name=books/7", "/v1/books/{id} id=7:publish",
		}, ""},
		{"POST", "/v1/books/7:other", []string{"/v1/books/{id} id=7:other"}, ""},
		{"POST", "/v1/books/7%3Apublish", []string{"/v1/books/{id} id=7:publish"}, ""},
		{"POST", "/v1/books/a:b:publish", []string{
			"/v1/books/{id}:publish id=a:b", "/v1/{name=**}:publish name=books/a:b", "/v1/books/{id} id=a:b:publish",
		}, ""},
		{"POST", "/v1/books/:publish", []string{"/v1/books/{id} id=:publish"}, ""},
		{"PURGE", "/v1/any", []string{"/v1/any"}, ""},
		{"GET", "/v1/any", []string{"/v1/any", "/v1/{name=**} name=any"}, ""},
		{"GET", "/", []string{"/"}, ""},
		{"GET", "/v2/shelves/1/books/2", []string{"/v2/{name=shelves/*/books/*} name=shelves/1/books/2"}, ""},
		{"GET", "/v2/shelves/1/items/2", []string{"/v2/{shelf=shelves/*}/items/{id} shelf=shelves/1 id=2"}, ""},
		{"GET", "/v2/shelves/a%2Fb/books/%C3%A4%25", []string{"/v2/{name=shelves/*/books/*} name=shelves/a%2Fb/books/ä%"}, ""},
		{"GET", "/v2/shelves/1/items/a%2fb", []string{"/v2/{shelf=shelves/*}/items/{id} shelf=shelves/1 id=a/b"}, ""},
		{"GET", "/v2/caf%c3%a9/x", []string{"/v2/caf%C3%A9/{id} id=x"}, ""},
		{"POST", "/v2/x:a:b", []string{"/v2/{id}:a:b id=x"}, ""},
		{"POST", "/v2/x:b", nil, ""},
		{"GET", "/v3/" + strings.Repeat("a/", 500) + "b", []string{"/v3/**"}, ""},
		{"GET", "/v1/" + strings.Repeat("a/", 60) + "b", []string{"/v1/{name=**} name=" + strings.Repeat("a/", 60) + "b"}, ""},
		{"POST", "/v1/" + strings.Repeat("a/", 60) + "b:publish", []string{"/v1/{name=**}:publish name=" + strings.Repeat("a/", 60) + "b"}, ""},
		{"GET", "/nowhere", nil, ""},
		{"GET", "/V1/books", nil, ""},
		{"*", "/v1/books", nil, "GET HEAD POST"},
		// What can be read in two ways is not read.
		{"GET", "", nil, ""},
		{"GET", "v1/books", nil, ""},
		{"GET", "/v1//books", nil, ""},
		{"GET", "/v1/books/", nil, ""},
		{"GET", "//v1/books", nil, ""},
		{"GET", "/v1/./books", nil, ""},
		{"GET", "/v1/../v1/books", nil, ""},
		{"GET", "/v1/%2e%2E/books", nil, ""},
		{"GET", "/v1/a%2F..%2Fb", nil, ""},
		{"GET", "/v1/a%00", nil, ""},
		{"GET", "/v1/a%0a", nil, ""},
		{"GET", "/v1/a%7F", nil, ""},
		{"GET", "/v1/a%", nil, ""},
		{"GET", "/v1/a%4", nil, ""},
		{"GET", "/v1/a%zz", nil, ""},
		{"GET", "/v1/%ff", nil, ""},
		{"GET", "/v1/a b", nil, ""},
		{"GET", "/v1/a\\b", nil, ""},
		{"GET", "/v1/ä", nil, ""},
		{"GET", "/v1/a?b", nil, ""},
		{"GET", "/v1/a#b", nil, ""},
		{"POST", "/v1/..:publish", nil, "GET"}, // its last segment is no "..", and what is left without the verb is,
		{"POST", "/v1/" + strings.Repeat("a/", 60) + "..:publish", nil, "GET"},
	}
	for _, test := range tests {
		found, allowed := table.Match(test.verb, test.path)
		var got []string
		for _, m := range found {
			got = append(got, described(m))
		}
		if !slices.Equal(got, test.want) || strings.Join(allowed, " ") != test.allowed {
			t.Errorf("Match(%s %s) = %q, allowed %q, want %q, %q", test.verb, test.path, got, allowed, test.want, test.allowed)
		}
	}
}

func TestTableSaysWhatIsWrongWithAPath(t *testing.T) {
	tests := []struct{ path, want string }{
		{"/v1/books/a%2Fb:x", ""},
		{"/", ""},
		{"", `path "": it does not begin with "/"`},
		{"/v1//x", `path "/v1//x": it has an empty segment`},
		{"/v1/%2e", `path "/v1/%2e": it has a segment "." or ".."`},
		{"/v1/%zz", `path "/v1/%zz": a "%" without two hexadecimal digits behind it`},
		{"/v1/a%00b", `path "/v1/a%00b": it holds the control character %00`},
		{"/v1/%C3", `path "/v1/%C3": what is percent-encoded in it is not UTF-8`},
		{"/v1/a|b", `path "/v1/a|b": the byte '|' must be percent-encoded`},
	}
	for _, test := range tests {
		got := ""
		if st := PathFault(test.path); st != nil {
			got = strings.TrimPrefix(st.Message, "sluice: ")
			if st.HTTPStatus() != 400 {
				t.Errorf("PathFault(%q) is HTTP %d, want 400", test.path, st.HTTPStatus())
			}
		}
		if got != test.want {
			t.Errorf("PathFault(%q) = %q, want %q", test.path, got, test.want)
		}
	}
}

func TestTableNamesBindingsThatAreLeftOut(t *testing.T) {
	methods := tableMethods(t, "GET v1", "GET /a/{nope}", "GET /b/{id", "GET /c/**/d", "GET /e/{parent}", "GET /ok")
	methods[5].Bindings = append(methods[5].Bindings,
		schema.Binding{Verb: "POST", Template: "/f", Body: "nope"},
		schema.Binding{Verb: "POST", Template: "/g", ResponseBody: "nope"},
		schema.Binding{Template: "/h"},
		schema.Binding{Verb: "GET", Template: "/ok", ResponseBody: "name"})
	table, faults := NewTable(methods)
	want := []string{
		`compiling path GET v1 of /library.v1.Library/M00: reading path template "v1": does not begin with "/"`,
		`compiling path GET /a/{nope} of /library.v1.Library/M01: variable {nope}: library.v1.Book has no field "nope"`,
		`compiling path GET /b/{id of /library.v1.Library/M02: reading path template "/b/{id": a variable is not closed by "}"`,
		`compiling path GET /c/**/d of /library.v1.Library/M03: reading path template "/c/**/d": "**" is not the last segment`,
		`compiling path GET /e/{parent} of /library.v1.Library/M04: variable {parent}: a message cannot be in a path`,
		`compiling path POST /f of /library.v1.Library/M05: body "nope": library.v1.Book has no such field`,
		`compiling path POST /g of /library.v1.Library/M05: response_body "nope": library.v1.Book has no such field`,
		`compiling path  /h of /library.v1.Library/M05: it has no verb`,
		`adding path GET /ok of /library.v1.Library/M05: /library.v1.Library/M05 has it already, and goes before`,
	}
	for i, fault := range faults {
		if i >= len(want) || fault.Error() != want[i] {
			t.Errorf("fault %d is %q, want %q", i, fault, want)
		}
	}
	if len(faults) != len(want) {
		t.Errorf("%d faults, want %d", len(faults), len(want))
	}
	if found, _ := table.Match("GET", "/ok"); len(found) != 1 {
		t.Errorf("GET /ok matches %d endpoints, want 1: the rest must still work", len(found))
	}
}

func TestMatchIsThatOfAnotherBackendsMethod(t *testing.T) {
	first := tableMethods(t, "GET /v1/{shelf}/{id}", "GET /v1/x")
	second := tableMethods(t, "GET /v1/{name=*/*}", "GET /v2/x")
	stranger := tableMethods(t, "GET /v1/{id}/{shelf}")
	table, faults := NewTable(append(first, second...))
	if len(faults) != 0 {
		t.Fatalf("faults %v, want none: they are versions of the same methods", faults)
	}
	found, _ := table.Match("GET", "/v1/a/b")
	if len(found) != 1 || found[0].Method != first[0] {
		t.Fatalf("GET /v1/a/b has %d matches, want the first backend's one", len(found))
	}
	for method, want := range map[*schema.Method]string{
		first[0]:    "/v1/{shelf}/{id} shelf=a id=b",
		second[0]:   "/v1/{name=*/*} name=a/b",
		stranger[0]: "/v1/{id}/{shelf} id=a shelf=b",
	} {
		if m, ok := found[0].For(method); !ok || described(m) != want {
			t.Errorf("the match for the other version is %q, %v, want %q", described(m), ok, want)
		}
	}
	if _, ok := found[0].For(second[1]); ok {
		t.Error("a method without the path has a match")
	}
	if m, ok := Implicit(first[0]).For(second[1]); !ok || m.Method != second[1] {
		t.Error("the path that every method has is not found for another version")
	}
}

func TestTableLookupAllocatesNothingButWhatItFinds(t *testing.T) {
	table, _ := NewTable(tableMethods(t, "GET /v1/shelves/{shelf}/books/{id}", "GET /v1/shelves", "POST /v1/shelves/{id}:move"))
	allocs := testing.AllocsPerRun(100, func() {
		if found, _ := table.Match("GET", "/v1/shelves/1/books/2"); len(found) != 1 {
			t.Fatal("no match")
		}
	})
	if allocs > 2 {
		t.Errorf("a lookup allocates %.0f times, want 2: the list of matches and the captured values", allocs)
	}
}

func BenchmarkTableMatch(b *testing.B) {
	for _, n := range []int{10, 1000} {
		var paths []string
		for i := range n / 10 {
			paths = append(paths, fmt.Sprintf("GET /v1/kind%d", i), fmt.Sprintf("GET /v1/kind%d/{id}", i), fmt.Sprintf("POST /v1/kind%d/{id}:do", i),
				fmt.Sprintf("DELETE /v1/kind%d/{id}", i), fmt.Sprintf("GET /v1/kind%d/{id}/parts", i), fmt.Sprintf("GET /v1/kind%d/{id}/parts/{shelf}", i),
				fmt.Sprintf("POST /v1/kind%d", i), fmt.Sprintf("PATCH /v1/kind%d/{id}", i), fmt.Sprintf("PUT /v1/kind%d/{id}", i), fmt.Sprintf("GET /v1/{name=kind%d/*/all/**}", i))
		}
		table, _ := NewTable(tableMethods(b, paths...))
		b.Run(fmt.Sprint(n, " paths"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Match("GET", "/v1/kind0/17/parts/4")
			}
		})
	}
}
