package web

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestCORSAllowsTheOriginsOfItsPolicy(t *testing.T) {
	const exact, below, ported = "https://shop.example.com", "https://*.example.com", "http://localhost:5173"
	for _, tc := range []struct {
		name        string
		origins     []string
		credentials bool
		origin      string
		want        bool
	}{
		{"the same", []string{exact}, false, "https://shop.example.com", true},
		{"the same, its port said", []string{exact}, false, "https://shop.example.com:443", true},
		{"a policy that says the port", []string{exact + ":443"}, false, "https://shop.example.com", true},
		{"upper case in the policy", []string{"https://Shop.Example.com"}, false, "https://shop.example.com", true},
		{"upper case in the request", []string{exact}, false, "https://SHOP.example.com", true},
		{"a second of two", []string{exact, ported}, false, ported, true},
		{"another scheme", []string{exact}, false, "http://shop.example.com", false},
		{"another port", []string{ported}, false, "http://localhost:5174", false},
		{"no port", []string{ported}, false, "http://localhost", false},
		{"a name that ends in it", []string{exact}, false, "https://evil.com.shop.example.com", false},
		{"a name that begins with it", []string{exact}, false, "https://shop.example.com.evil.com", false},
		{"a name behind a user", []string{exact}, false, "https://shop.example.com@evil.com", false},
		{"a path", []string{exact}, false, "https://shop.example.com/", false},
		{"a blank", []string{exact}, false, "https://shop.example.com ", false},
		{"none", []string{exact}, false, "", false},
		{"null", []string{exact}, false, "null", false},

		{"below", []string{below}, false, "https://shop.example.com", true},
		{"far below", []string{below}, false, "https://a.b.example.com", true},
		{"the name itself", []string{below}, false, "https://example.com", false},
		{"nothing but a dot before it", []string{below}, false, "https://.example.com", false},
		{"a longer name", []string{below}, false, "https://evilexample.com", false},
		{"below, another scheme", []string{below}, false, "http://shop.example.com", false},
		{"below, another port", []string{below}, false, "https://shop.example.com:8443", false},
		{"below, its port", []string{below + ":8443"}, false, "https://shop.example.com:8443", true},
		{"a host that ends the name early", []string{below}, false, "https://evil.com#.example.com", false},
		{"a host of a path", []string{below}, false, "https://evil.com/.example.com", false},
		{"a host with a user", []string{below}, false, "https://evil.com@a.example.com", false},
		{"a host with a port before the end", []string{below}, false, "https://evil.com:1.example.com", false},
		{"the pattern itself", []string{below}, false, below, false},
		{"every host of a scheme", []string{"https://*"}, false, "https://any.where", true},
		{"every host of another scheme", []string{"https://*"}, false, "http://any.where", false},

		{"all", []string{"*"}, false, "https://any.where", true},
		{"all, but no other origin", []string{"*"}, false, "", false},
		{"all, and null", []string{"*"}, false, "null", true},
		{"all, with credentials", []string{"*"}, true, "https://any.where", true},
		{"all, an application", []string{"*"}, true, "capacitor://localhost", true},
		{"all, an address", []string{"*"}, true, "http://[::1]:8080", true},
		{"null, with credentials", []string{"*"}, true, "null", false},
		{"garbage, with credentials", []string{"*"}, true, "https://a\x01b", false},
		{"nobody", nil, false, "https://any.where", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := CompileCORS(CORSPolicy{AllowOrigins: tc.origins, AllowCredentials: tc.credentials})
			if got := c.Allow(tc.origin); got != tc.want {
				t.Errorf("Allow(%q) = %v, want %v", tc.origin, got, tc.want)
			}
		})
	}
	if (*CORS)(nil).Allow("https://any.where") {
		t.Error("no policy lets another origin in")
	}
}

func TestCORSFieldsOfAResponse(t *testing.T) {
	const exposed = "grpc-status, grpc-message, grpc-status-details-bin"
	for _, tc := range []struct {
		name   string
		policy CORSPolicy
		origin string
		want   []string
	}{
		{
			"an origin of the policy",
			CORSPolicy{AllowOrigins: []string{"https://a.example"}},
			"https://a.example",
			[]string{"access-control-allow-origin: https://a.example", "access-control-expose-headers: " + exposed + ", x-served-by", "vary: Origin"},
		},
		{
			"credentials",
			CORSPolicy{AllowOrigins: []string{"*"}, AllowCredentials: true},
			"https://a.example",
			[]string{"access-control-allow-origin: https://a.example", "access-control-allow-credentials: true", "access-control-expose-headers: " + exposed + ", x-served-by", "vary: Origin"},
		},
		{
			"everybody",
			CORSPolicy{AllowOrigins: []string{"*"}, ExposeHeaders: []string{"X-Trace", "Grpc-Status"}},
			"https://a.example",
			[]string{"access-control-allow-origin: *", "access-control-expose-headers: " + exposed + ", x-trace, x-served-by"},
		},
		{
			"another origin",
			CORSPolicy{AllowOrigins: []string{"https://a.example"}},
			"https://b.example",
			[]string{"vary: Origin"},
		},
		{
			"no origin",
			CORSPolicy{AllowOrigins: []string{"https://a.example"}},
			"",
			[]string{"vary: Origin"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			names := []string{"Content-Type", "X-Served-By", "date", "Set-Cookie", "Vary", "grpc-status", ":status", "Trailer:X-End", "Access-Control-Max-Age"}
			var got []string
			for _, f := range CompileCORS(tc.policy).Fields(tc.origin, names) {
				got = append(got, f[0]+": "+f[1])
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
	if got := (*CORS)(nil).Fields("https://a.example", nil); got != nil {
		t.Errorf("without a policy: %q", got)
	}
}

func TestCORSSetReplacesWhatABackendSays(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/shop.v1.Cart/Add", nil)
	r.Header.Set("Origin", "https://b.example")
	backend := http.Header{"Access-Control-Allow-Origin": {"*"}, "X-A": {"1"}, "Vary": {"Accept"}}

	h := backend.Clone()
	CompileCORS(CORSPolicy{AllowOrigins: []string{"https://a.example"}}).Set(h, r)
	if h.Get("Access-Control-Allow-Origin") != "" || !slices.Equal(h["Vary"], []string{"Accept", "Origin"}) {
		t.Errorf("with a policy: %q", h)
	}
	h = backend.Clone()
	(*CORS)(nil).Set(h, r)
	if len(h) != len(backend) || h.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("without one: %q", h)
	}
	h = backend.Clone()
	r.Header.Add("Origin", "https://a.example")
	CompileCORS(CORSPolicy{AllowOrigins: []string{"https://a.example", "https://b.example"}}).Set(h, r)
	if h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("with two origins: %q", h)
	}
}

// preflight is a browser's question for gRPC-Web.
func preflight(origin string, fields ...string) *http.Request {
	r := httptest.NewRequest(http.MethodOptions, "/shop.v1.Cart/Add", nil)
	r.Header.Set("Origin", origin)
	r.Header.Set("Access-Control-Request-Method", "POST")
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

const askHeaders = "Access-Control-Request-Headers"

func TestCORSPreflightIsAnsweredByThePolicy(t *testing.T) {
	shop := []string{"https://shop.example.com"}
	many := strings.Repeat("x-a,", 10_000) + "x-a"
	for _, tc := range []struct {
		name    string
		policy  *CORSPolicy
		request *http.Request
		status  int
		want    map[string]string // of Access-Control-Allow-…, all of them
		body    string
	}{
		{
			"echoes what is asked for", &CORSPolicy{AllowOrigins: shop, MaxAge: 600},
			preflight("https://shop.example.com", askHeaders, "content-type,x-grpc-web,x-tenant"), 204,
			map[string]string{"Origin": "https://shop.example.com", "Methods": "POST", "Headers": "content-type,x-grpc-web,x-tenant", "Max-Age": "600"},
			"",
		},
		{
			"without any header", &CORSPolicy{AllowOrigins: shop, AllowCredentials: true},
			preflight("https://shop.example.com"), 204,
			map[string]string{"Origin": "https://shop.example.com", "Methods": "POST", "Credentials": "true"},
			"",
		},
		{
			"lists of the policy", &CORSPolicy{AllowOrigins: []string{"*"}, AllowMethods: []string{"POST", "GET"}, AllowHeaders: []string{"X-Tenant", "Authorization"}},
			preflight("https://any.where", askHeaders, many), 204,
			map[string]string{"Origin": "*", "Methods": "POST, GET", "Headers": "X-Tenant, Authorization"},
			"",
		},
		{
			"everything allowed means what is asked for", &CORSPolicy{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}},
			preflight("null", askHeaders, "authorization"), 204,
			map[string]string{"Origin": "*", "Methods": "POST", "Headers": "authorization"},
			"",
		},
		{"another origin", &CORSPolicy{AllowOrigins: shop}, preflight("https://evil.com.shop.example.com"), 403, nil, `the origin "https://evil.com.shop.example.com" may not call`},
		{"null", &CORSPolicy{AllowOrigins: shop, AllowCredentials: true}, preflight("null"), 403, nil, `the origin "null" may not`},
		{"no policy", nil, preflight("https://shop.example.com"), 403, nil, "may not call this route"},
		{"a very long origin", &CORSPolicy{AllowOrigins: []string{"*"}, AllowCredentials: true}, preflight("https://" + strings.Repeat("a", 100_000)), 403, nil, "aaa\"… may not call"},
		{"10,000 headers", &CORSPolicy{AllowOrigins: shop}, preflight("https://shop.example.com", askHeaders, many), 400, nil, "more than 4096 bytes"},
		{"10,000 lines of headers", &CORSPolicy{AllowOrigins: shop}, preflight("https://shop.example.com", slices.Repeat([]string{askHeaders, "a"}, 10_000)...), 400, nil, "more than 4096 bytes"},
		{"101 headers", &CORSPolicy{AllowOrigins: shop}, preflight("https://shop.example.com", askHeaders, strings.Repeat("a,", 100)+"a"), 400, nil, "more than 100 names"},
		{"a line break in the headers", &CORSPolicy{AllowOrigins: shop}, preflight("https://shop.example.com", askHeaders, "x-a\r\nset-cookie: a=b"), 400, nil, `has "x-a\r\nset-cookie: a=b"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c *CORS
			if tc.policy != nil {
				c = CompileCORS(*tc.policy)
			}
			if !IsPreflight(tc.request) {
				t.Fatal("not recognised")
			}
			w := httptest.NewRecorder()
			c.Preflight(w, tc.request)
			got := map[string]string{}
			for name, values := range w.Header() {
				if rest, ok := strings.CutPrefix(name, "Access-Control-"); ok {
					got[strings.TrimPrefix(rest, "Allow-")] = strings.Join(values, "|")
				}
			}
			if w.Code != tc.status || fmt.Sprint(got) != fmt.Sprint(tc.want) || !strings.Contains(w.Body.String(), tc.body) || w.Body.Len() > 1000 {
				t.Errorf("status %d, %q, body %.300q; want %d, %q, %q", w.Code, got, w.Body, tc.status, tc.want, tc.body)
			}
			if varies := strings.Contains(w.Header().Get("Vary"), "Origin"); varies != (c != nil) {
				t.Errorf("Vary: %q", w.Header().Get("Vary"))
			}
		})
	}
}

func TestCORSPreflightRefusesAForgedMethod(t *testing.T) {
	c := CompileCORS(CORSPolicy{AllowOrigins: []string{"*"}})
	for _, method := range []string{"", "POST\r\nx: y", "GET, POST", strings.Repeat("A", 33)} {
		r := preflight("https://any.where")
		r.Header["Access-Control-Request-Method"] = []string{method}
		w := httptest.NewRecorder()
		c.Preflight(w, r)
		if w.Code != http.StatusBadRequest || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%q: status %d, %q", method, w.Code, w.Header())
		}
	}
}

func TestIsPreflightWantsAllThreeSigns(t *testing.T) {
	for _, tc := range []struct {
		name, without string
	}{{"no origin", "Origin"}, {"no method", "Access-Control-Request-Method"}} {
		r := preflight("https://a.example")
		r.Header.Del(tc.without)
		if IsPreflight(r) {
			t.Errorf("%s: taken for a preflight", tc.name)
		}
	}
	r := preflight("https://a.example")
	r.Method = http.MethodPost
	if IsPreflight(r) {
		t.Error("a POST was taken for a preflight")
	}
}

func TestCORSAllowSocketLooksAtTheOrigin(t *testing.T) {
	policy := CompileCORS(CORSPolicy{AllowOrigins: []string{"https://shop.example.com"}})
	for _, tc := range []struct {
		name    string
		c       *CORS
		tls     bool
		host    string
		origins []string
		want    bool
	}{
		{"no browser", nil, false, "api.example.com", nil, true},
		{"the same origin", nil, false, "api.example.com:8080", []string{"http://api.example.com:8080"}, true},
		{"the same origin, in capitals", nil, false, "API.example.com", []string{"http://api.example.com"}, true},
		{"TLS that ended before", nil, false, "api.example.com", []string{"https://api.example.com"}, true},
		{"TLS, its port said", nil, true, "api.example.com:443", []string{"https://api.example.com"}, true},
		{"clear, then TLS", nil, true, "api.example.com", []string{"http://api.example.com"}, false},
		{"another port", nil, false, "api.example.com:8080", []string{"http://api.example.com"}, false},
		{"another host", nil, false, "api.example.com", []string{"https://evil.com"}, false},
		{"null", nil, false, "api.example.com", []string{"null"}, false},
		{"empty", nil, false, "", []string{""}, false},
		{"two origins", policy, false, "api.example.com", []string{"https://shop.example.com", "https://shop.example.com"}, false},
		{"the policy's", policy, false, "api.example.com", []string{"https://shop.example.com"}, true},
		{"not the policy's", policy, false, "api.example.com", []string{"https://evil.com.shop.example.com"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/shop.v1.Cart/Add", nil)
			r.Host, r.Header["Origin"] = tc.host, tc.origins
			if tc.tls {
				r.TLS = &tls.ConnectionState{}
			}
			if tc.origins == nil {
				r.Header.Del("Origin")
			}
			if got := tc.c.AllowSocket(r); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func FuzzCORSOrigin(f *testing.F) {
	f.Add("https://a.example.com")
	f.Add("https://evil.com.shop.example.com")
	f.Add("https://[::1]:8080")
	f.Add("null")
	exact := CompileCORS(CORSPolicy{AllowOrigins: []string{"https://shop.example.com"}})
	below := CompileCORS(CORSPolicy{AllowOrigins: []string{"https://*.example.com"}, AllowCredentials: true})
	f.Fuzz(func(t *testing.T, origin string) {
		lower := strings.TrimSuffix(strings.ToLower(origin), ":443")
		if exact.Allow(origin) != (lower == "https://shop.example.com") {
			t.Fatalf("exact.Allow(%q) = %v", origin, exact.Allow(origin))
		}
		host := strings.TrimPrefix(lower, "https://")
		if below.Allow(origin) && (host == lower || !strings.HasSuffix(host, ".example.com") || strings.ContainsAny(host, "/\\@#?%*: \r\n")) {
			t.Fatalf("below.Allow(%q)", origin)
		}
	})
}

func BenchmarkCORSFields(b *testing.B) {
	c := CompileCORS(CORSPolicy{AllowOrigins: []string{"https://shop.example.com"}})
	names := []string{"content-type", "x-served-by"}
	b.ReportAllocs()
	for b.Loop() {
		if len(c.Fields("https://shop.example.com", names)) != 3 {
			b.Fatal("not allowed")
		}
	}
}
