package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/gateway/wire"
)

// legacy is a service that speaks REST only, on the paths of the grid's annotations.
type legacy struct {
	addr   string
	served atomic.Int64
}

func startREST(t testing.TB) *legacy {
	t.Helper()
	l := new(legacy)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/name", func(w http.ResponseWriter, r *http.Request) {
		l.served.Add(1)
		w.Header().Set("X-Seen", r.Header.Get("X-Mine")+" "+r.Header.Get("X-Forwarded-Host"))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"name": "legacy"}`)
	})
	mux.HandleFunc("GET /v1/fail", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"code": 9, "message": "the cart is full: 100 %", "details": []}`)
	})
	mux.HandleFunc("GET /v1/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("GET /v1/large", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprintf(w, `{"name": %q}`, strings.Repeat("x", 5<<20))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	l.addr = strings.TrimPrefix(s.URL, "http://")
	return l
}

func restAt(name, address string) string {
	return backendWith(name, "protocol: http1", address)
}

// TestRPCsReachRESTBackends: clients move to gRPC before their service does, each in
// its own protocol.
func TestRPCsReachRESTBackends(t *testing.T) {
	t.Parallel()
	l := startREST(t)
	g := startGateway(t, Config{}, gridSchema(t), restAt("legacy", l.addr), routeTo("r", "legacy"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		if end := c.must(t, gridAsk{method: "Name", header: map[string]string{"x-mine": "1"}}); end.name != "legacy" || end.code != wire.OK {
			t.Errorf("got %+v", end)
		}
		if end := c.must(t, gridAsk{method: "Fail"}); end.code != wire.FailedPrecondition || end.message != "the cart is full: 100 %" {
			t.Errorf("the backend's error came as %+v", end)
		}
		if end := c.must(t, gridAsk{method: "None"}); end.code != wire.Unimplemented && end.code != wire.NotFound {
			t.Errorf("a method that is not known came as %+v", end)
		}
		if end := c.must(t, gridAsk{method: "Large"}); end.code != wire.ResourceExhausted {
			t.Errorf("a large answer came as %v %q", end.code, end.message)
		}
	})
	await(t, "every RPC to be over", func() bool { return g.metric(t, "sluice_rpc_open") == 0 })
}

// TestMigrationIsSplitExactly: the same REST call goes to the old service and, translated,
// to the new one; and the same RPC to the new one and, translated, to the old.
func TestMigrationIsSplitExactly(t *testing.T) {
	t.Parallel()
	l, b := startREST(t), startGrid(t, "modern")
	httpRoute := `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: names}
spec:
  hostnames: [rest.example.com]
  rules:
  - name: byheader
    matches: [{path: {type: PathPrefix, value: /v1}, headers: [{name: x-modern, value: "1"}]}]
    backendRefs: [{group: sluice.dev, kind: Backend, name: modern}]
  - name: names
    matches: [{path: {type: PathPrefix, value: /v1}}]
    backendRefs:
    - {group: sluice.dev, kind: Backend, name: legacy, weight: 90}
    - {group: sluice.dev, kind: Backend, name: modern, weight: 10}
`
	g := startGateway(t, Config{}, gridSchema(t), restAt("legacy", l.addr), backendAt("modern", b.addr), httpRoute, routeTo("r", "legacy=90", "modern=10"))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10}}
	defer client.CloseIdleConnections()
	ask := func(header map[string]string) (string, error) {
		r, err := http.NewRequestWithContext(shortly(t), "GET", "http://"+g.address()+"/v1/name", nil)
		if err != nil {
			return "", err
		}
		r.Host = "rest.example.com"
		for k, v := range header {
			r.Header.Set(k, v)
		}
		resp, err := client.Do(r)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return "", err
		}
		var m struct{ Name string }
		if err := json.Unmarshal(body, &m); err != nil || resp.StatusCode != 200 {
			return "", fmt.Errorf("HTTP %d %q: %w", resp.StatusCode, body, err)
		}
		return m.Name, nil
	}
	calls := 10_000
	if raceEnabled {
		calls = 1_000
	}
	count := func(one func() (string, error)) map[string]int {
		var mu sync.Mutex
		got := make(map[string]int)
		var work sync.WaitGroup
		for range 10 {
			work.Go(func() {
				for range calls / 10 {
					name, err := one()
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					got[name]++
					mu.Unlock()
				}
			})
		}
		work.Wait()
		return got
	}
	if got := count(func() (string, error) { return ask(nil) }); got["legacy"] != calls*9/10 || got["modern"] != calls/10 {
		t.Errorf("REST: %v of %d", got, calls)
	}
	if name, err := ask(map[string]string{"x-modern": "1"}); name != "modern" {
		t.Errorf("by header: %q, %v", name, err)
	}
	native := gridCallers(t, g)[0]
	got := count(func() (string, error) {
		end, err := native.call(shortly(t), gridAsk{method: "Name"})
		return end.name, err
	})
	if got["legacy"] != calls*9/10 || got["modern"] != calls/10 {
		t.Errorf("native gRPC: %v of %d", got, calls)
	}
}
