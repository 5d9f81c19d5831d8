package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"sluice/store"
)

// TestGridClaimsNothingOfItsOrigin: what a caller says of where it comes from is not
// passed on, in no protocol.
func TestGridClaimsNothingOfItsOrigin(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen metadata.MD
	b := startAnswering(t, map[string]answer{"Name": func(b *backend, st grpc.ServerStream) error {
		mu.Lock()
		seen, _ = metadata.FromIncomingContext(st.Context())
		mu.Unlock()
		return gridAnswers["Name"](b, st)
	}})
	g := startGateway(t, Config{}, gridSchema(t), backendAt("a", b.addr), routeTo("r", "a"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		c.must(t, gridAsk{method: "Name", header: map[string]string{
			"x-forwarded-for": "6.6.6.6", "x-real-ip": "6.6.6.6", "forwarded": "for=6.6.6.6", "x-forwarded-host": "evil.test",
			"x_forwarded_for": "6.6.6.6", "x-mine": "1",
		}})
		mu.Lock()
		defer mu.Unlock()
		for name, want := range map[string]string{
			"x-forwarded-for": "[127.0.0.1]", "x-forwarded-host": "[shop.example.com]", "x-forwarded-proto": "[http]", "x-mine": "[1]",
			"x-real-ip": "[]", "forwarded": "[]", "x_forwarded_for": "[]",
		} {
			if got := fmt.Sprint(seen.Get(name)); got != want {
				t.Errorf("the backend got %s %s, want %s", name, got, want)
			}
		}
	})
}

// silentBody is a body that nobody sends.
func silentBody(t *testing.T) io.Reader {
	r, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	return r
}

// TestServersMaySpeakFirst: an RPC whose caller has said nothing yet begins all the same,
// and ends at its deadline.
func TestServersMaySpeakFirst(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	forms := []struct{ content, timeout, unit string }{
		{"application/grpc-web+proto", "Grpc-Timeout", "m"},
		{"application/connect+proto", "Connect-Timeout-Ms", ""},
	}
	var work sync.WaitGroup
	for _, form := range forms {
		for _, version := range []int{1, 2} {
			work.Go(func() {
				name := fmt.Sprintf("%s HTTP/%d", form.content, version)
				protocols := new(http.Protocols)
				protocols.SetHTTP1(version == 1)
				protocols.SetUnencryptedHTTP2(version == 2)
				client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
				defer client.CloseIdleConnections()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				r, err := http.NewRequestWithContext(ctx, "POST", "http://"+g.address()+"/shop.Cart/Hold", silentBody(t))
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("Content-Type", form.content)
				r.Header.Set(form.timeout, "2000"+form.unit)
				resp, err := client.Do(r)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				defer resp.Body.Close()
				got := make([]byte, 6)
				if _, err := io.ReadFull(resp.Body, got); err != nil || string(got[5:]) != "a" {
					t.Errorf("%s: the first message is %q, %v", name, got, err)
					return
				}
				begin := time.Now()
				rest, _ := io.ReadAll(resp.Body)
				if !strings.Contains(string(rest), "grpc-status: 4") && !strings.Contains(string(rest), "deadline_exceeded") || time.Since(begin) > 7*time.Second {
					t.Errorf("%s: after %v the end is %q", name, time.Since(begin), rest)
				}
			})
		}
	}
	work.Wait()
	await(t, "every RPC to be over", func() bool { return b.open.Load() == 0 && g.metric(t, "sluice_rpc_open") == 0 })
}

// ask1 makes one request over HTTP/1.
func ask1(t *testing.T, g *node, method, path, body string, header map[string]string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(shortly(t), method, "http://"+g.address()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		if k == "Host" {
			r.Host = v
			continue
		}
		r.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return resp, string(got)
}

const shopPage = "https://shop.example.com"

// TestPagesSeeWhatTheRuleSays: preflights and errors too, whatever the rule asks for.
func TestPagesSeeWhatTheRuleSays(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "site ", r.Method) }))
	t.Cleanup(site.Close)
	g := startGateway(t, Config{})
	set := parse(t, gridSchema(t), backendAt("a", b.addr), restSite(site.URL), `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: site}
spec:
  rules: [{backendRefs: [{group: sluice.dev, kind: Backend, name: site}]}]
`, routeWith("r", "matches: [{method: {service: grid.Grid}, headers: [{name: x-tenant, value: a}]}]", "a"))
	set.GRPCRoutes[0].Spec.Rules[0].Treatment.CORS = &store.CORS{AllowOrigins: []string{shopPage}}
	if err := g.Apply(set); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, method, path string
		header             map[string]string
		status             int
		allowed            string
	}{
		{"a preflight of REST", "OPTIONS", "/v1/name", map[string]string{"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-tenant"}, 204, shopPage},
		{"a preflight of gRPC-Web", "OPTIONS", "/grid.Grid/Name", map[string]string{"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-grpc-web,x-tenant"}, 204, shopPage},
		{"a preflight for the site", "OPTIONS", "/other", map[string]string{"Access-Control-Request-Method": "GET"}, 200, ""},
		{"REST", "GET", "/v1/name", map[string]string{"X-Tenant": "a"}, 200, shopPage},
		{"a bad timeout of REST", "GET", "/v1/name", map[string]string{"X-Tenant": "a", "X-Server-Timeout": "soon"}, 400, shopPage},
		{"a bad timeout of Connect", "POST", "/grid.Grid/Name", map[string]string{"X-Tenant": "a", "Content-Type": "application/proto", "Connect-Timeout-Ms": "soon"}, 400, shopPage},
		{"a bad timeout of gRPC-Web", "POST", "/grid.Grid/Name", map[string]string{"X-Tenant": "a", "Content-Type": "application/grpc-web", "Grpc-Timeout": "soon"}, 200, shopPage},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.header["Origin"] = shopPage
			resp, body := ask1(t, g, test.method, test.path, "", test.header)
			if got := resp.Header.Get("Access-Control-Allow-Origin"); resp.StatusCode != test.status || got != test.allowed {
				t.Errorf("HTTP %d %q, allowed is %q", resp.StatusCode, body, got)
			}
		})
	}
	if resp, _ := ask1(t, g, "GET", "/v1/name", "", map[string]string{"X-Tenant": "a"}); resp.Header.Get("Vary") == "" {
		t.Error("an answer that may be kept does not say that it varies by origin")
	}
}

func restSite(url string) string {
	return backendWith("site", "protocol: http1", strings.TrimPrefix(url, "http://"))
}

// TestSitesSpeakWhatTheyLike: where no GRPCRoute leads, a request of a web protocol is
// the HTTPRoute's.
func TestSitesSpeakWhatTheyLike(t *testing.T) {
	t.Parallel()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "site ", r.Header.Get("Content-Type"))
	}))
	t.Cleanup(site.Close)
	g := startGateway(t, Config{}, restSite(site.URL), `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: site}
spec:
  rules: [{matches: [{path: {value: /hook}}], backendRefs: [{group: sluice.dev, kind: Backend, name: site}]}]
`)
	for _, content := range []string{"application/json", "application/proto", "application/connect+json", "application/grpc-web+proto"} {
		if resp, body := ask1(t, g, "POST", "/hook/in", "x", map[string]string{"Content-Type": content}); resp.StatusCode != 200 || body != "site "+content {
			t.Errorf("%s: HTTP %d %q", content, resp.StatusCode, body)
		}
	}
	client := connect(t, g.address(), manners{})
	client.headers(1, true, ":method", "POST", ":scheme", "http", ":path", "/hook/in", ":authority", "a", "content-type", "application/grpc-web")
	if e := client.awaitHeaders(1); e.get(":status") != "200" || e.get("grpc-status") != "" {
		t.Errorf("gRPC-Web over HTTP/2: %v", e)
	}
}

// TestPassedThroughIsToldInItsOwnWords, and with what the rule says of other origins.
func TestPassedThroughIsToldInItsOwnWords(t *testing.T) {
	t.Parallel()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://backend.test")
		fmt.Fprint(w, "as it is")
	}))
	t.Cleanup(up.Close)
	g := startGateway(t, Config{})
	set := parse(t, backendWith("up", "protocol: http1\naccepts: [HTTP, Connect, GRPCWeb]", strings.TrimPrefix(up.URL, "http://")),
		backendWith("gone", "protocol: http1\naccepts: [HTTP, Connect, GRPCWeb]", "127.0.0.1:1"), routeOf("up"), routeOf("gone"))
	for _, r := range set.GRPCRoutes {
		r.Spec.Rules[0].Treatment.CORS = &store.CORS{AllowOrigins: []string{shopPage}}
	}
	if err := g.Apply(set); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		service, content string
		status           int
		body             string
	}{
		{"up", "application/proto", 200, "as it is"},
		{"up", "application/grpc-web+proto", 200, "as it is"},
		{"gone", "application/proto", 503, `"code":"unavailable"`},
		{"gone", "application/grpc-web+proto", 200, ""},
	} {
		resp, body := ask1(t, g, "POST", "/svc."+test.service+"/Get", "x", map[string]string{"Content-Type": test.content, "Origin": shopPage})
		if resp.StatusCode != test.status || !strings.Contains(body, test.body) || resp.Header.Get("Access-Control-Allow-Origin") != shopPage {
			t.Errorf("%s %s: HTTP %d %v %q", test.service, test.content, resp.StatusCode, resp.Header, body)
		}
		if test.service == "gone" && strings.Contains(test.content, "web") && resp.Header.Get("Grpc-Status") != "14" {
			t.Errorf("gRPC-Web was told %v %q", resp.Header, body)
		}
	}
}

// TestTrailersClaimNothing: a server may add a request's trailers to its header.
func TestTrailersClaimNothing(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	site := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		seen <- r.Trailer
	}))
	t.Cleanup(site.Close)
	g := startGateway(t, Config{}, restSite(site.URL), `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: site}
spec:
  rules: [{backendRefs: [{group: sluice.dev, kind: Backend, name: site}]}]
`)
	r, err := http.NewRequestWithContext(shortly(t), "POST", "http://"+g.address()+"/x", io.NopCloser(strings.NewReader("body")))
	if err != nil {
		t.Fatal(err)
	}
	r.Trailer = http.Header{"X-Sum": {"1"}, "X-Forwarded-For": {"6.6.6.6"}, "X-Real-Ip": {"6.6.6.6"}, "Authorization": {"Bearer x"}}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for name, values := range <-seen {
		if (name == "X-Sum") != (len(values) == 1) {
			t.Errorf("trailer %s: %q", name, values)
		}
	}
}

// TestRuleSpeaksOfOtherOriginsAlone: what a backend says of them gives way, or a page
// would see two origins, which browsers take for none.
func TestRuleSpeaksOfOtherOriginsAlone(t *testing.T) {
	t.Parallel()
	b := startAnswering(t, map[string]answer{"Name": func(b *backend, st grpc.ServerStream) error {
		st.SetHeader(metadata.Pairs("access-control-allow-origin", "https://backend.test"))
		return gridAnswers["Name"](b, st)
	}})
	g := startGateway(t, Config{})
	set := parse(t, gridSchema(t), backendAt("a", b.addr), routeTo("r", "a"))
	set.GRPCRoutes[0].Spec.Rules[0].Treatment.CORS = &store.CORS{AllowOrigins: []string{shopPage}}
	if err := g.Apply(set); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ method, path, content, body string }{
		{"GET", "/v1/name", "", ""},
		{"POST", "/grid.Grid/Name", "application/json", "{}"},
		{"POST", "/grid.Grid/Name", "application/proto", ""},
		{"POST", "/grid.Grid/Name", "application/grpc-web+proto", "\x00\x00\x00\x00\x00"},
	} {
		header := map[string]string{"Origin": shopPage}
		if test.content != "" {
			header["Content-Type"] = test.content
		}
		resp, body := ask1(t, g, test.method, test.path, test.body, header)
		if got := resp.Header["Access-Control-Allow-Origin"]; resp.StatusCode != 200 || len(got) != 1 || got[0] != shopPage {
			t.Errorf("%s %s: HTTP %d %q, allowed are %q", test.method, test.content, resp.StatusCode, body, got)
		}
	}
	client := connect(t, g.address(), manners{})
	head, _ := asked(t, client, 1, "/grid.Grid/Name", "web", message(nil), "origin", shopPage)
	if got := head.all("access-control-allow-origin"); len(got) != 1 || got[0] != shopPage {
		t.Errorf("gRPC-Web over HTTP/2: allowed are %q", got)
	}
}
