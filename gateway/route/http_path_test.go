package route

import (
	"slices"
	"strings"
	"testing"
)

func TestParseHTTPPath(t *testing.T) {
	t.Parallel()
	tests := []struct {
		raw, text, matched string
		readings           string // by blanks
	}{
		{raw: "/", text: "/"},
		{raw: "/a/b.c/~d/", text: "/a/b.c/~d/"},
		{raw: "/a:b@c!$&'()*+,=", text: "/a:b@c!$&'()*+,="},
		{raw: "/..a/b../...", text: "/..a/b../..."},
		{raw: "/%61%2d%7E", text: "/a-~"},
		{raw: "/a%3ab", text: "/a%3Ab", matched: "/a:b"},
		{raw: "/a%2bb", text: "/a%2Bb", matched: "/a+b"},
		{raw: "/a b|{c}\"ü", text: "/a%20b%7C%7Bc%7D%22%C3%BC"},
		{raw: "/%25%32%65", text: "/%252e"},
		{raw: "/a%2fb", text: "/a%2Fb", readings: "/a/b"},
		{raw: "/a%2f%2fb", text: "/a%2F%2Fb", readings: "/a/b"},
		{raw: "/a%5cb", text: "/a%5Cb", readings: "/a/b"},
		{raw: "/a;v=1/b;w", text: "/a;v=1/b;w", readings: "/a/b"},
		{raw: "/a;v%2fb", text: "/a;v%2Fb", readings: "/a;v/b /a /a/b"},
		{raw: "/a%3bv/b", text: "/a%3Bv/b", readings: "/a;v/b /a/b"},
		{raw: "/%c3%a9", text: "/%C3%A9"},
		{raw: "/caf%e9", text: "/caf%E9"},
	}
	for _, tt := range tests {
		p, err := ParseHTTPPath(tt.raw)
		if err != nil {
			t.Errorf("%q: %v", tt.raw, err)
			continue
		}
		if tt.matched == "" {
			tt.matched = tt.text
		}
		if p.text != tt.text || p.matched != tt.matched {
			t.Errorf("%q: got %q, matched %q; want %q and %q", tt.raw, p.text, p.matched, tt.text, tt.matched)
		}
		if got := strings.Join(p.readings, " "); got != tt.readings {
			t.Errorf("%q: got readings %q, want %q", tt.raw, got, tt.readings)
		}
	}
}

func TestParseHTTPPathRefusesWhatServersDisagreeOn(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]error{
		"": errNotAbsolute, "*": errNotAbsolute, "a/b": errNotAbsolute, "http://a/b": errNotAbsolute,
		"/a%": errEscape, "/a%4": errEscape, "/a%4g": errEscape, "/%%41": errEscape, "/%u0041": errEscape,
		"/a%00b": errNUL, "/a\x00b": errControl, "/a\r\nb": errControl, "/a\tb": errControl, "/\x7f": errControl,
		`/a\b`: errBackslash, "/a#b": errFragment,
		"/%c0%ae%c0%ae/a": errOverlong, "/%C1%9C": errOverlong,
		"//": errEmptySegment, "//a": errEmptySegment, "/a//b": errEmptySegment, "/a//": errEmptySegment,
		"/.": errDotSegment, "/..": errDotSegment, "/a/..": errDotSegment, "/a/./b": errDotSegment, "/../a": errDotSegment,
		"/%2e%2e/a": errDotSegment, "/a/%2E": errDotSegment, "/.%2e/": errDotSegment,
		"/a/..%2fb": errDotSegment, "/a%2f..%2fb": errDotSegment, "/a%5c..%5cb": errDotSegment,
		"/..;/a": errDotSegment, "/..;x=1/a": errDotSegment, "/.;/a": errDotSegment, "/%2e%2e;/a": errDotSegment, "/..%3b/a": errDotSegment,
	} {
		if p, err := ParseHTTPPath(raw); err != want {
			t.Errorf("%q: got %q, %v; want %v", raw, p, err, want)
		}
	}
}

// FuzzParseHTTPPath: the form is one form, and nothing in it can be read as a way up.
func FuzzParseHTTPPath(f *testing.F) {
	for _, seed := range []string{"/", "/a%2fb", "/a;v=1/b", "/%2e%2e/", "/..%2f", "/a%3bb%5c", "/\xff", "/%25%32%66"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := ParseHTTPPath(raw)
		if err != nil {
			return
		}
		again, err := ParseHTTPPath(p.text)
		if err != nil || again.text != p.text || again.matched != p.matched || !slices.Equal(again.readings, p.readings) {
			t.Fatalf("%q: got %+v, and of that %+v, %v", raw, p, again, err)
		}
		for _, reading := range append(p.readings, p.text, p.matched) {
			for _, segment := range strings.Split(reading, "/") {
				if segment == ".." || segment == "." {
					t.Fatalf("%q can be read as %q", raw, reading)
				}
			}
			if reading[0] != '/' || strings.Contains(reading, "//") {
				t.Fatalf("%q can be read as %q", raw, reading)
			}
		}
	})
}
