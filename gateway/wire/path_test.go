package wire

import (
	"strings"
	"testing"
)

func TestSplitPathTakesServiceAndMethod(t *testing.T) {
	for _, tc := range []struct{ in, service, method string }{
		{"/shop.v1.Cart/Add", "shop.v1.Cart", "Add"},
		{"/Cart/Add", "Cart", "Add"},
		{"/a/b", "a", "b"},
		{"/shop.v1.Cart/add-one_2~x", "shop.v1.Cart", "add-one_2~x"},
		{"/.hidden/x.", ".hidden", "x."},
		{"/a:b/c@d!$&'()*+,=", "a:b", "c@d!$&'()*+,="},
	} {
		service, method, ok := SplitPath(tc.in)
		if service != tc.service || method != tc.method || !ok {
			t.Errorf("SplitPath(%q) = %q, %q, %v; want %q, %q, true", tc.in, service, method, ok, tc.service, tc.method)
		}
	}
}

func TestValidPathRefusesWhatCouldBeReadTwice(t *testing.T) {
	for _, in := range []string{
		"", "/", "//", "/a", "/a/", "//a", "//a/b", "/a//b", "/a/b/", "/a/b/c", "/a/b//",
		"a/b", "shop.v1.Cart/Add", "*", "http://h/a/b",
		"/a/%62", "/a%2fb", "/a/b%00", "/%2e%2e/b",
		"/../b", "/a/..", "/./b", "/a/.", "/a/../b", "/a..b/c", "/a/b..", "/.../b",
		"/a/b;x", "/a;x/b", "/a/b?q=1", "/a/b#f", "/a?/b", `/a\b/c`, `/a/b\..\c`,
		"/a/b ", " /a/b", "/a b/c", "/a/b\t", "/a/b\r\n", "/a/\x00b", "/a/b\x7f", "/a/é", "/a/\xff",
		`/a/"b"`, "/a/<b>", "/a/{b}", "/a/b|c", "/a/b^c", "/a/b`c", "/a/[b]",
	} {
		if ValidPath(in) {
			t.Errorf("ValidPath(%q) = true", in)
		}
		if service, method, ok := SplitPath(in); ok || service != "" || method != "" {
			t.Errorf("SplitPath(%q) = %q, %q, %v; want nothing", in, service, method, ok)
		}
	}
}

// Every byte, in every position of a path, either stands for itself or is refused.
func TestValidPathKnowsEveryByte(t *testing.T) {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,=:@"
	for c := range 256 {
		b := string([]byte{byte(c)})
		want := strings.Contains(allowed, b)
		for _, in := range []string{"/" + b + "x/y", "/x" + b + "/y", "/x/" + b + "y", "/x/y" + b} {
			if got := ValidPath(in); got != want {
				t.Errorf("ValidPath(%q) = %v, want %v", in, got, want)
			}
		}
	}
}

func FuzzValidPath(f *testing.F) {
	for _, s := range []string{"/a.B/C", "/a/b/c", "/a/%2e", "/a/..", "//", "/a/b;c", "a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		service, method, ok := SplitPath(path)
		if !ok {
			return
		}
		if "/"+service+"/"+method != path || service == "" || method == "" || strings.Contains(method, "/") {
			t.Fatalf("SplitPath(%q) = %q, %q", path, service, method)
		}
		if strings.Contains(path, "..") || strings.ContainsAny(path, "%;?#\\ \t\r\n\x00") {
			t.Fatalf("SplitPath takes %q", path)
		}
	})
}
