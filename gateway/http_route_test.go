package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// httpBackend is a plain HTTP/1 server of the tests.
func httpBackend(t testing.TB, f http.HandlerFunc) (address string) {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// httpBackendOfHTTP2 is one that speaks HTTP/2 in clear text.
func httpBackendOfHTTP2(t testing.TB, f http.HandlerFunc) (address string) {
	t.Helper()
	s := httptest.NewUnstartedServer(f)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// namedBackend answers with its name and counts.
func namedBackend(t testing.TB, name string, n *atomic.Int64) (address string) {
	return httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		fmt.Fprintf(w, "%s %s %s %s", name, r.Method, r.Host, r.RequestURI)
	})
}

// http1At is a Backend of protocol http1.
func http1At(name string, endpoints ...string) string {
	return backendWith(name, "protocol: http1", endpoints...)
}

// httpRoute is an HTTPRoute of these rules, in YAML's flow form.
func httpRoute(name, rules string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: " + name + "}\nspec: {rules: [" + rules + "]}\n"
}

// ref is a backendRef.
func ref(name string, weight int) string {
	return fmt.Sprintf("{group: sluice.dev, kind: Backend, name: %s, weight: %d}", name, weight)
}

// plainClient speaks HTTP of one version with a gateway.
func plainClient(t testing.TB, version int) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(version == 1)
	protocols.SetUnencryptedHTTP2(version == 2)
	transport := &http.Transport{Protocols: protocols, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// bothVersions runs a test over HTTP/1 and over HTTP/2.
func bothVersions(t *testing.T, f func(t *testing.T, client *http.Client)) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) { f(t, plainClient(t, version)) })
	}
}

// askPlain is one request; its answer is the status and the body.
func askPlain(t testing.TB, client *http.Client, method, url string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Add(header[i], header[i+1])
	}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

// failure reads a google.rpc.Status.
func failure(t testing.TB, res *http.Response, body string) (code int, message string) {
	t.Helper()
	var st struct {
		Code    int
		Message string
	}
	if err := json.Unmarshal([]byte(body), &st); err != nil || res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%d with %q %q: want a status in JSON", res.StatusCode, res.Header.Get("Content-Type"), body)
	}
	return st.Code, st.Message
}

func TestHTTPRouteMatchesAndRewrites(t *testing.T) {
	t.Parallel()
	var count atomic.Int64
	g := startGateway(t, Config{}, http1At("a", namedBackend(t, "a", &count)), http1At("b", namedBackend(t, "b", &count)),
		httpRoute("r", `
			{matches: [{path: {value: /}}], backendRefs: [`+ref("a", 1)+`]},
			{matches: [{path: {type: Exact, value: /exact}}], backendRefs: [`+ref("b", 1)+`]},
			{matches: [{path: {value: /h}, headers: [{name: X-Tenant, value: blue}]}, {path: {value: /h}, queryParams: [{name: tenant, value: blue}]}], backendRefs: [`+ref("b", 1)+`]},
			{matches: [{path: {value: /put}, method: PUT}], backendRefs: [`+ref("b", 1)+`]},
			{matches: [{path: {value: /old}}], filters: [{type: URLRewrite, urlRewrite: {hostname: new.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}], backendRefs: [`+ref("b", 1)+`]},
			{matches: [{path: {value: /own}}], backendRefs: [{group: sluice.dev, kind: Backend, name: b, filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /whole}}}]}]},
			{matches: [{path: {value: /moved}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.example.com, statusCode: 301}}]},
			{matches: [{path: {value: /none}}]}`))
	at := "http://" + g.address()
	tests := []struct {
		request string
		header  []string
		status  int
		want    string
	}{
		{"GET /", nil, 200, "a GET HOST /"},
		{"GET /x%2fy?q=1&;r=%zz", nil, 200, "a GET HOST /x%2Fy?q=1&;r=%zz"},
		{"GET /exact", nil, 200, "b GET HOST /exact"},
		{"GET /exact/", nil, 200, "a GET HOST /exact/"},
		{"GET /h/1", nil, 200, "a GET HOST /h/1"},
		{"GET /h/1", []string{"X-Tenant", "blue"}, 200, "b GET HOST /h/1"},
		{"GET /h/1?tenant=blue", nil, 200, "b GET HOST /h/1?tenant=blue"},
		{"PUT /put", nil, 200, "b PUT HOST /put"},
		{"POST /put", nil, 200, "a POST HOST /put"},
		{"GET /old/a:b%3Fc?d", []string{"Host", "shop.example.com"}, 200, "b GET new.example.com /new/a:b%3Fc?d"},
		{"GET /own/x?y", nil, 200, "b GET HOST /whole?y"},
		{"GET /moved/x?y=1", nil, 301, "https://new.example.com/moved/x?y=1"},
		{"GET /none", nil, 503, "sluice: the route has no backend"},
		{"GET /a/%2e%2e/b", nil, 400, `sluice: the path is refused: it has "." or ".." as a segment`},
		{"GET /a//b", nil, 400, `sluice: the path is refused: it has an empty segment ("//")`},
		{"GET /put%2f..%2fx", nil, 400, `sluice: the path is refused: it has "." or ".." as a segment`},
		{"GET /old%2fx", nil, 400, "sluice: the path is refused: the path leads to different rules, depending on how a server reads it"},
	}
	bothVersions(t, func(t *testing.T, client *http.Client) {
		for _, tt := range tests {
			method, path, _ := strings.Cut(tt.request, " ")
			res, body := askPlain(t, client, method, at+path, nil, tt.header...)
			got := strings.Replace(body, g.address(), "HOST", 1)
			switch {
			case res.StatusCode == 301:
				got = res.Header.Get("Location")
			case res.StatusCode >= 400:
				_, got = failure(t, res, body)
			}
			if res.StatusCode != tt.status || got != tt.want {
				t.Errorf("%s: got %d %q, want %d %q", tt.request, res.StatusCode, got, tt.status, tt.want)
			}
		}
	})
	if open := g.metric(t, "sluice_rpc_open"); open != 0 {
		t.Errorf("%v requests are open", open)
	}
	if got := g.metric(t, "sluice_rpc_ended_total", "route", "HTTPRoute/default/r", "rule", "6"); got != 2 {
		t.Errorf("%v redirections counted, want 2", got)
	}
}

// TestHTTPRouteSplitsExactly: of ten thousand requests, a thousand.
func TestHTTPRouteSplitsExactly(t *testing.T) {
	t.Parallel()
	var old, next atomic.Int64
	g := startGateway(t, Config{}, http1At("old", namedBackend(t, "old", &old)), http1At("next", namedBackend(t, "next", &next)),
		httpRoute("r", `{name: all, backendRefs: [`+ref("old", 90)+`, `+ref("next", 10)+`]}`))
	const workers = 8
	calls := 10_000
	if raceEnabled {
		calls = 1_000
	}
	done := make(chan error, workers)
	for i := range workers {
		client := plainClient(t, 1+i%2)
		go func() {
			for range calls / workers {
				res, err := client.Get("http://" + g.address() + "/v1/things")
				if err != nil {
					done <- err
					return
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			done <- nil
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if int(old.Load()) != calls*9/10 || int(next.Load()) != calls/10 {
		t.Errorf("got %d and %d of %d", old.Load(), next.Load(), calls)
	}
	for backend, want := range map[string]float64{"default/old": float64(calls * 9 / 10), "default/next": float64(calls / 10)} {
		await(t, "the last request to be counted", func() bool {
			return g.metric(t, "sluice_rpc_ended_total", "route", "HTTPRoute/default/r", "rule", "all", "backend", backend, "code", "OK") == want
		})
	}
}

// TestHTTPRouteTellsWhoIsAtFault: 503 when nobody could be asked, 502 when the answer
// was wrong.
func TestHTTPRouteTellsWhoIsAtFault(t *testing.T) {
	t.Parallel()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	whole := func(c *rawConn) { // else the connection is reset
		c.readHead()
		io.CopyN(io.Discard, c, int64(len("body")))
	}
	rude := rawBackend(t, func(c *rawConn) { whole(c) })
	babble := rawBackend(t, func(c *rawConn) {
		whole(c)
		c.write("SMTP\r\n\r\n")
	})
	long := rawBackend(t, func(c *rawConn) {
		whole(c)
		c.write("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n")
	})
	hints := rawBackend(t, func(c *rawConn) {
		whole(c)
		c.write(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 1000))
	})
	tests := []struct {
		name, resource string
		status, code   int
		message        string
	}{
		{"unresolved", "", 503, 14, "sluice: the route's backend does not exist"},
		{"empty", http1At("empty"), 503, 14, "sluice: the backend has no endpoint"},
		{"down", http1At("down", nobody.Addr().String()), 503, 14, "sluice: no endpoint of the backend can be reached"},
		{"rude", http1At("rude", rude.addr), 502, 14, "sluice: the connection to the backend was lost"},
		{"babble", http1At("babble", babble.addr), 502, 13, "sluice: the backend broke the protocol"},
		{"long", http1At("long", long.addr), 502, 8, "sluice: the backend's metadata is larger than the limit"},
		{"hints", http1At("hints", hints.addr), 502, 13, "sluice: the backend broke the protocol"},
	}
	var resources, rules []string
	for _, tt := range tests {
		if tt.resource != "" {
			resources = append(resources, tt.resource)
		}
		rules = append(rules, fmt.Sprintf("{name: %s, matches: [{path: {value: /%s}}], backendRefs: [%s]}", tt.name, tt.name, ref(tt.name, 1)))
	}
	g := startGateway(t, Config{}, append(resources, httpRoute("r", strings.Join(rules, ", ")))...)
	bothVersions(t, func(t *testing.T, client *http.Client) {
		for _, tt := range tests {
			res, body := askPlain(t, client, "POST", "http://"+g.address()+"/"+tt.name, strings.NewReader("body"))
			if code, message := failure(t, res, body); res.StatusCode != tt.status || code != tt.code || message != tt.message {
				t.Errorf("%s: got %d %d %q, want %d %d %q", tt.name, res.StatusCode, code, message, tt.status, tt.code, tt.message)
			}
		}
	})
	if open := g.metric(t, "sluice_rpc_open"); open != 0 {
		t.Errorf("%v requests are open", open)
	}
}
