package rest

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"sluice/gateway/schema"
)

var templateSeeds = []string{
	"/", "/v1", "/v1/books", "/v1/*", "/v1/**", "/v1/{name}", "/v1/{name=*}", "/v1/{name=books/*}", "/v1/{name=books/*/pages/*}", "/v1/{name=**}", "/v1/{name=books/**}",
	"/v1/{a.b.c}", "/v1/{a}/{b}", "/v1/{a=x/*}/y/{b}", "/v1/books:list", "/v1/{name}:publish", "/v1/{name=**}:publish", "/v1/*:do", "/v1/a:b/c", "/v1/{name}:a:b", "/v1/a:b:c",
	"/v1/caf%C3%A9", "/v1/a%2Fb", "/v1/a-b_c.d~e", "/v1/!$&'()+,;=@", "/{name=x}", "/v1/{name=a:b/*}",
	"", "v1", "//", "/v1/", "/v1//x", "/v1/{", "/v1/}", "/v1/{}", "/v1/{a", "/v1/{a}b", "/v1/b{a}", "/v1/{a={b}}", "/v1/{a=}", "/v1/{a=/x}", "/v1/{a.}", "/v1/{.a}", "/v1/{1a}", "/v1/{a-b}",
	"/v1/**/x", "/v1/{a=**}/x", "/v1/{a}/{a}", "/v1/{a}/{a.b}", "/v1/a%", "/v1/a%zz", "/v1/a b", "/v1/ä", "/v1/..", "/v1/%2e", "/v1/:x", "/v1/x:", "/v1/a*b", "/v1/***", "/v1/?", "/v1/#",
}

// templateDiffers says why grpc-gateway takes a template that is no template here; empty
// when it should not.
func templateDiffers(s string, err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, `"**" is not the last segment`):
		return `http.proto: "**" must be the last part of the path, except the verb`
	case strings.Contains(text, "captured twice"):
		return "one value would silently be dropped"
	case strings.Contains(text, `mixes text and`):
		return `"*" in a literal is never meant as a letter`
	case strings.Contains(text, `"." or ".."`), strings.Contains(text, "control character"), strings.Contains(text, "not UTF-8"):
		return "no path matches it here"
	case strings.Contains(text, "custom verb: an empty segment"), strings.HasSuffix(s, ":"):
		return "a colon without a verb is a slip"
	case strings.Contains(text, "limit"):
		return "templates are bounded"
	case strings.Contains(text, "an empty segment") && strings.Contains(s, ":"):
		return "a verb of nothing is a slip"
	case strings.Contains(s, "{=") || strings.Contains(s, "=}") || strings.Contains(s, "//") || strings.Contains(s, "=/") || strings.Contains(s, "/}"):
		return "its parser takes a slash for any token"
	}
	return ""
}

// oracleTemplate is the mux of grpc-gateway with one template, nil when it takes it for
// none. It keeps what was captured.
func oracleTemplate(s string, captured *map[string]string) (mux *runtime.ServeMux) {
	defer func() {
		if recover() != nil { // on a few it panics
			mux = nil
		}
	}()
	mux = runtime.NewServeMux(runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptSlash))
	err := mux.HandlePath(http.MethodGet, s, func(_ http.ResponseWriter, _ *http.Request, params map[string]string) {
		*captured = params
	})
	if err != nil {
		return nil
	}
	return mux
}

// checkTemplate compares which paths a template matches, and what it captures.
func checkTemplate(t *testing.T, s string, paths []string) {
	t.Helper()
	var want map[string]string
	mux := oracleTemplate(s, &want)
	parsed, err := parseTemplate(s)
	switch {
	case err != nil && mux != nil:
		if templateDiffers(s, err) == "" {
			t.Fatalf("template %q: %v, but grpc-gateway takes it", s, err)
		}
		return
	case err != nil:
		return
	case mux == nil:
		t.Fatalf("template %q is taken, but not by grpc-gateway", s)
	}
	table := tableOf(parsed)
	for _, path := range paths {
		if pathDiffers(s, path) {
			continue
		}
		want = nil
		u := &url.URL{Path: "/x", RawPath: path}
		if u.Path, err = url.PathUnescape(path); err != nil {
			continue
		}
		mux.ServeHTTP(httptest.NewRecorder(), (&http.Request{Method: http.MethodGet, URL: u}))
		var got map[string]string
		if found, _ := table.Match(http.MethodGet, path); len(found) > 0 {
			got = make(map[string]string)
			for i, v := range parsed.variables {
				if v.multi {
					got[v.field] = decodeSegments(found[0].values[i])
				} else {
					got[v.field] = decodeSegment(found[0].values[i])
				}
			}
		}
		for name, value := range want {
			// Of "{name=books/**}", /books is "books" here and "books/" there.
			if strings.Contains(s, "/**") {
				want[name] = strings.TrimSuffix(value, "/")
			}
		}
		if (got == nil) != (want == nil) || !maps.Equal(got, want) {
			t.Fatalf("template %q, path %q: captured %q (match %v), want %q (match %v)", s, path, got, got != nil, want, want != nil)
		}
	}
}

// tableOf is a table of one template, whatever its fields are.
func tableOf(parsed *template) *Table {
	t := new(Table)
	t.add(&Endpoint{Method: new(schema.Method), Binding: &schema.Binding{Verb: http.MethodGet}, template: parsed})
	return t
}

// pathDiffers tells whether a path is read in another way here, each with its reason.
func pathDiffers(template, path string) bool {
	switch {
	case PathFault(path) != nil:
		return true // what can be read in several ways matches nothing
	case strings.Contains(path, "%") && strings.Contains(template, "%"), strings.Contains(path, "%") && !strings.Contains(template, "{"):
		return true // literals are compared decoded, so that "%62ooks" is "books"
	case escapedLiteral(path):
		return true // likewise
	case strings.Contains(strings.ToLower(path), "%2f") && strings.Contains(template, "="):
		// http.proto leaves "%2F" as it is in variables of several segments; there only
		// those with "**" do.
		return true
	case path == "/" || template == "/":
		return true // the root has no segment here, one that is empty there
	case strings.Count(path[strings.LastIndexByte(path, '/'):], ":") > 0 && strings.HasPrefix(path[strings.LastIndexByte(path, '/'):], "/:"):
		return true // a segment that is nothing but a verb stops the search there
	}
	return false
}

// escapedLiteral tells whether a letter that needs no escape has one.
func escapedLiteral(path string) bool {
	for i := range len(path) {
		if path[i] == '%' && plainInSegment[unhex(path[i+1])<<4|unhex(path[i+2])] {
			return true
		}
	}
	return false
}

var templatePaths = []string{
	"/v1", "/v1/books", "/v1/books/7", "/v1/books/7/pages/8", "/v1/books/7/x/8", "/v1/books:list", "/v1/7:publish", "/v1/a/b/c:publish", "/v1/7:do", "/v1/a:b/c", "/v1/7:a:b",
	"/v1/a:b:c", "/v1/a-b_c.d~e", "/v1/!$&'()+,;=@", "/x", "/v1/a%20b", "/v1/books/a%2Fb", "/v1/books/a%2fb%20c", "/v1/%C3%A4", "/v1/x/1/y/2", "/v1/a:b/2", "/v1/:publish", "/v1/7:", "/v1/a/b", "/v1/0%2f",
}

func TestTemplateIsReadAsGRPCGatewayReadsIt(t *testing.T) {
	for _, s := range templateSeeds {
		checkTemplate(t, s, templatePaths)
	}
}

func TestTemplateSaysWhatIsWrong(t *testing.T) {
	tests := []struct{ template, want string }{
		{"", `does not begin with "/"`},
		{"/v1//x", "an empty segment"},
		{"/v1/", "an empty segment"},
		{"/v1/{a", `a variable is not closed by "}"`},
		{"/v1/{a}b", `a variable is followed by "b", want "/"`},
		{"/v1/{a={b}}", "a variable within a variable"},
		{"/v1/{a-b}", `variable {a-b}: "a-b" is no name of a field`},
		{"/v1/{a}/{a}", `field "a" is captured twice`},
		{"/v1/{a}/{a.b}", `field "a.b" is captured twice`},
		{"/v1/**/x", `"**" is not the last segment`},
		{"/v1/a*b", `"a*b" mixes text and "*"`},
		{"/v1/a%zz", `"a%zz": a "%" without two hexadecimal digits behind it`},
		{"/v1/..", `"..": it has a segment "." or ".."`},
		{"/v1/x:", "custom verb: an empty segment"},
		{"/v1/{x}:a:b:c:d:e:f:g:h:i", "9 colons in the custom verb, limit 8"},
		{strings.Repeat("/x", 40), "40 segments, limit 32"},
	}
	for _, test := range tests {
		_, err := parseTemplate(test.template)
		want := fmt.Sprintf("reading path template %q: %s", test.template, test.want)
		if err == nil || err.Error() != want {
			t.Errorf("parseTemplate(%q) = %v, want %s", test.template, err, want)
		}
	}
	if _, err := parseTemplate("/" + strings.Repeat("x", 5000)); err == nil || err.Error() != "reading path template of 5001 bytes: limit 2048" {
		t.Errorf("a template of 5,001 bytes: %v", err)
	}
}

func FuzzTemplate(f *testing.F) {
	for i, s := range templateSeeds {
		f.Add(s, templatePaths[i%len(templatePaths)])
	}
	f.Fuzz(func(t *testing.T, s, path string) {
		// What the oracle panics on, or takes a NUL for its own, is not compared.
		if strings.ContainsAny(s, "\x00") {
			_, _ = parseTemplate(s)
			return
		}
		checkTemplate(t, s, append(templatePaths, path))
	})
}

// canonical is a path whose segments are escaped as little as can be.
func canonical(path string) string {
	var b strings.Builder
	last := strings.LastIndexByte(path, '/')
	for i := 0; i < len(path); i++ {
		if path[i] != '%' {
			b.WriteByte(path[i])
			continue
		}
		c := unhex(path[i+1])<<4 | unhex(path[i+2])
		switch {
		case c == ':' && i > last: // it begins no verb
			b.WriteString("%3A")
		case plainInSegment[c]:
			b.WriteByte(c)
		case c == '/': // as it was written
			b.WriteString(path[i : i+3])
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
		i += 2
	}
	return b.String()
}

func FuzzTableMatch(f *testing.F) {
	table, _ := NewTable(tableMethods(f,
		"GET /v1/books", "GET /v1/books/{id}", "GET /v1/{name=books/*}", "POST /v1/{name=**}:publish", "POST /v1/books/{id}:publish",
		"GET /v1/{shelf}/{id}", "GET /v1/caf%C3%A9/{id}", "DELETE /v2/**", "POST /v2/{id}:a:b"))
	for _, path := range append(templatePaths, "/v1/..", "/v1/%2e%2e/x", "/v1//", "/v1/a%00", "/v1/b%6foks", "/v1/books/7%3Apublish", "/v1/%63af%c3%a9/x") {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		for _, verb := range []string{"GET", "POST", "DELETE"} {
			found, allowed := table.Match(verb, path)
			if PathFault(path) != nil {
				if len(found)+len(allowed) > 0 {
					t.Fatalf("%q matches, and is at fault: %v", path, PathFault(path))
				}
				continue
			}
			again, allowedAgain := table.Match(verb, canonical(path))
			if fmt.Sprint(allowed) != fmt.Sprint(allowedAgain) || len(found) != len(again) {
				t.Fatalf("%q has %d matches, its canonical form %q %d", path, len(found), canonical(path), len(again))
			}
			for i := range found {
				if a, b := described(found[i]), described(again[i]); a != b {
					t.Fatalf("%q is %q, its canonical form %q is %q", path, a, canonical(path), b)
				}
			}
		}
	})
}
