package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"sluice/store"
)

// legacyName is a REST server that answers as the method of the grid does.
func legacyName(t testing.TB) (address string) {
	return httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/name" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"name":"legacy"}`)
	})
}

// TestMigrationSplitsOneCallBetweenRESTAndGRPC: of ten thousand calls of one REST path, a
// thousand become RPCs.
func TestMigrationSplitsOneCallBetweenRESTAndGRPC(t *testing.T) {
	t.Parallel()
	next := startGrid(t, "next")
	g := startGateway(t, Config{}, gridSchema(t), http1At("legacy", legacyName(t)), backendAt("next", next.addr),
		httpRoute("r", `{name: all, matches: [{path: {value: /v1}}], backendRefs: [`+ref("legacy", 90)+`, `+ref("next", 10)+`]}`))
	calls := 10_000
	if raceEnabled {
		calls = 1_000
	}
	const workers = 8
	var mu sync.Mutex
	got := make(map[string]int)
	var work sync.WaitGroup
	for i := range workers {
		client := plainClient(t, 1+i%2)
		work.Go(func() {
			for range calls / workers {
				res, err := client.Get("http://" + g.address() + "/v1/name")
				if err != nil {
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				mu.Lock()
				got[fmt.Sprint(res.StatusCode, " ", strings.ReplaceAll(string(body), " ", ""))]++
				mu.Unlock()
			}
		})
	}
	work.Wait()
	if got[`200 {"name":"legacy"}`] != calls*9/10 || got[`200 {"name":"next"}`] != calls/10 {
		t.Errorf("got %v of %d", got, calls)
	}
	for backend, want := range map[string]int{"default/legacy": calls * 9 / 10, "default/next": calls / 10} {
		await(t, "the last call to be counted", func() bool {
			return g.metric(t, "sluice_rpc_ended_total", "route", "HTTPRoute/default/r", "rule", "all", "backend", backend, "code", "OK") == float64(want)
		})
	}
}

// TestMigrationGoesByMoreThanWeight: pins, sticky keys and a backend that is gone are as
// for RPCs; and each side answers errors in the same words.
func TestMigrationGoesByMoreThanWeight(t *testing.T) {
	t.Parallel()
	next := startGrid(t, "next")
	set := parse(t, gridSchema(t), http1At("legacy", legacyName(t)), backendAt("next", next.addr), backendAt("none"),
		httpRoute("r", `{name: all, matches: [{path: {value: /v1}}], backendRefs: [`+ref("legacy", 1)+`, `+ref("next", 0)+`]},
			{name: sticky, matches: [{path: {value: /sticky}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v1}}}], backendRefs: [`+ref("legacy", 1)+`, `+ref("next", 1)+`]},
			{name: spill, matches: [{path: {value: /spill}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v1}}}], backendRefs: [`+ref("none", 1)+`, `+ref("next", 1)+`]}`))
	rules := set.HTTPRoutes[0].Spec.Rules
	rules[0].Steering.Pins = []store.Pin{{Header: "x-tester", Value: "yes", Backend: "default/next"}}
	rules[1].Steering.Sticky = "x-user"
	rules[2].Steering.SpillOver = true
	g := startGateway(t, Config{})
	if err := g.Apply(set); err != nil {
		t.Fatal(err)
	}
	bothVersions(t, func(t *testing.T, client *http.Client) {
		name := func(path string, header ...string) string {
			res, body := askPlain(t, client, "GET", "http://"+g.address()+path, nil, header...)
			if res.StatusCode != 200 {
				t.Errorf("%s: %d %s", path, res.StatusCode, body)
			}
			return strings.Trim(strings.TrimPrefix(strings.ReplaceAll(strings.TrimSpace(body), " ", ""), `{"name":`), `"}`)
		}
		if a, b := name("/v1/name"), name("/v1/name", "X-Tester", "yes"); a != "legacy" || b != "next" {
			t.Errorf("not pinned %s, pinned %s", a, b)
		}
		seen := make(map[string]bool)
		for i := range 20 {
			user := fmt.Sprint("user-", i)
			first := name("/sticky/name", "X-User", user)
			seen[first] = true
			for range 3 {
				if again := name("/sticky/name", "X-User", user); again != first {
					t.Errorf("%s went to %s, then to %s", user, first, again)
				}
			}
		}
		if len(seen) != 2 {
			t.Errorf("all users went to %v", seen)
		}
		for range 10 {
			if got := name("/spill/name"); got != "next" {
				t.Errorf("spilt to %s", got)
			}
		}
		res, body := askPlain(t, client, "GET", "http://"+g.address()+"/v1/fail", nil, "X-Tester", "yes")
		if code, message := failure(t, res, body); res.StatusCode != 400 || code != 9 || message != "the cart is full: 100 %" {
			t.Errorf("an error of the RPC: %d %d %q", res.StatusCode, code, message)
		}
		res, body = askPlain(t, client, "DELETE", "http://"+g.address()+"/v1/name", nil, "X-Tester", "yes")
		if failure(t, res, body); res.StatusCode != 405 {
			t.Errorf("another verb: %d %s", res.StatusCode, body)
		}
		res, body = askPlain(t, client, "GET", "http://"+g.address()+"/v1/nowhere", nil, "X-Tester", "yes")
		if failure(t, res, body); res.StatusCode != 404 {
			t.Errorf("a path of no method: %d %s", res.StatusCode, body)
		}
	})
	await(t, "nothing to be open", func() bool { return g.metric(t, "sluice_rpc_open") == 0 })
}

// TestPlainRulesComeInOrder: a rule that says more than "/" comes before the methods'
// REST paths, and one that does not comes after.
func TestPlainRulesComeInOrder(t *testing.T) {
	t.Parallel()
	rpcs := startGrid(t, "rpcs")
	var site, part http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "site") }, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "part") }
	g := startGateway(t, Config{}, gridSchema(t), http1At("site", httpBackend(t, site)), http1At("part", httpBackend(t, part)), backendAt("rpcs", rpcs.addr), routeTo("rpcs", "rpcs"),
		httpRoute("r", `{backendRefs: [`+ref("site", 1)+`]}, {matches: [{path: {value: /v1/large}}], backendRefs: [`+ref("part", 1)+`]}`))
	bothVersions(t, func(t *testing.T, client *http.Client) {
		for request, want := range map[string]string{
			"GET /":                "site",
			"GET /v1/names":        "site",
			"POST /grid.Grid/No":   "site",
			"GET /v1/large":        "part",
			"GET /v1/name":         `{"name":"rpcs"}`,
			"POST /grid.Grid/Name": `{"name":"rpcs"}`,
		} {
			method, path, _ := strings.Cut(request, " ")
			var body io.Reader
			var header []string
			if method == "POST" {
				body, header = strings.NewReader("{}"), []string{"Content-Type", "application/json"}
			}
			_, got := askPlain(t, client, method, "http://"+g.address()+path, body, header...)
			if got = strings.ReplaceAll(strings.TrimSpace(got), " ", ""); got != want {
				t.Errorf("%s: got %q, want %q", request, got, want)
			}
		}
	})
}

// TestPlainBackendsTakeWhatTheyUnderstand: requests of a protocol that the backend
// speaks itself are passed on as they are.
func TestPlainBackendsTakeWhatTheyUnderstand(t *testing.T) {
	t.Parallel()
	echo := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.Header().Set("X-Backend", r.Proto+" "+r.RequestURI)
		w.Write(body)
	}
	g := startGateway(t, Config{}, backendWith("h2", "accepts: [GRPC, Connect, GRPCWeb]", httpBackendOfHTTP2(t, echo)),
		backendWith("h1", "protocol: http1\naccepts: [HTTP, Connect]", httpBackend(t, echo)),
		routeWith("two", "matches: [{method: {service: svc.Two}}]", "h2"), routeWith("one", "matches: [{method: {service: svc.One}}]", "h1"))
	for _, tt := range []struct{ path, content, want string }{
		{"/svc.Two/Do", "application/connect+proto", "HTTP/2.0 /svc.Two/Do"},
		{"/svc.Two/Do", "application/grpc-web+proto", "HTTP/2.0 /svc.Two/Do"},
		{"/svc.One/Do", "application/connect+proto", "HTTP/1.1 /svc.One/Do"},
	} {
		res, body := askPlain(t, plainClient(t, 1), "POST", "http://"+g.address()+tt.path, strings.NewReader("\x00\x00\x00\x00\x03odd"), "Content-Type", tt.content)
		if got := res.Header.Get("X-Backend"); got != tt.want || body != "\x00\x00\x00\x00\x03odd" || res.Header.Get("Content-Type") != tt.content {
			t.Errorf("%s %s: got %d from %q, %q", tt.content, tt.path, res.StatusCode, got, body)
		}
	}
}

// TestPlainRulesSayWhichPagesMayCall: in place of the backend, which knows less.
func TestPlainRulesSayWhichPagesMayCall(t *testing.T) {
	t.Parallel()
	addr := httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Vary", "Accept")
		w.Header().Set("X-Extra", "1")
		io.WriteString(w, r.Method)
	})
	set := parse(t, http1At("a", addr), httpRoute("r", `{matches: [{path: {value: /ruled}}], backendRefs: [`+ref("a", 1)+`]}, {matches: [{path: {value: /free}}], backendRefs: [`+ref("a", 1)+`]}`))
	set.HTTPRoutes[0].Spec.Rules[0].Treatment.CORS = &store.CORS{AllowOrigins: []string{"https://shop.example.com"}, ExposeHeaders: []string{"X-Extra"}, MaxAge: 5}
	g := startGateway(t, Config{})
	if err := g.Apply(set); err != nil {
		t.Fatal(err)
	}
	bothVersions(t, func(t *testing.T, client *http.Client) {
		for _, tt := range []struct{ path, origin, allowed string }{
			{"/ruled", "https://shop.example.com", "https://shop.example.com"},
			{"/ruled", "https://evil.example.com", ""},
			{"/free", "https://evil.example.com", "*"},
		} {
			res, body := askPlain(t, client, "GET", "http://"+g.address()+tt.path, nil, "Origin", tt.origin)
			if got := strings.Join(res.Header["Access-Control-Allow-Origin"], "|"); got != tt.allowed || body != "GET" || !strings.Contains(strings.Join(res.Header["Vary"], ","), "Accept") {
				t.Errorf("%s from %s: got %q, want %q: %v", tt.path, tt.origin, got, tt.allowed, res.Header)
			}
			res, body = askPlain(t, client, "OPTIONS", "http://"+g.address()+tt.path, nil, "Origin", tt.origin, "Access-Control-Request-Method", "GET")
			if got := strings.Join(res.Header["Access-Control-Allow-Origin"], "|"); got != tt.allowed || (body == "OPTIONS") != (tt.path == "/free") {
				t.Errorf("preflight of %s from %s: got %q %q, want %q", tt.path, tt.origin, got, body, tt.allowed)
			}
		}
	})
}
