package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/gateway/wire"
)

// startLegacy is a REST backend that does what startGrid's do: it answers on the paths
// of the annotations, and counts what is open.
func startLegacy(t testing.TB, name string) (address string, open *atomic.Int64) {
	t.Helper()
	open = new(atomic.Int64)
	return httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Add(-1)
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/v1/name":
			fmt.Fprintf(w, `{"name": %q, "more": "than was asked for"}`, name+r.Header.Get("X-Say"))
		case "/v1/hang":
			<-r.Context().Done()
		case "/v1/fail":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"code": 9, "message": "the cart is full: 100 %"}`)
		case "/v1/large":
			fmt.Fprintf(w, `{"name": %q}`, strings.Repeat("x", 5<<20))
		default:
			http.NotFound(w, r)
		}
	}), open
}

// awaitIdle waits until nothing is counted as under way at a backend.
func awaitIdle(t testing.TB, g *node, backend string) {
	t.Helper()
	await(t, "the endpoint to be idle", func() bool { return g.pool.Backend("default/" + backend).Endpoints[0].Active() == 0 })
}

// A backend that speaks REST serves callers of every protocol, and a rule shares RPCs
// out between it and one that speaks gRPC: exactly.
func TestOutboundServesEveryProtocol(t *testing.T) {
	t.Parallel()
	legacy, _ := startLegacy(t, "legacy")
	modern := startGrid(t, "modern")
	g := startGateway(t, Config{}, gridSchema(t), http1At("legacy", legacy), backendAt("modern", modern.addr), routeTo("r", "legacy=75", "modern=25"))
	callers := 0
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		callers++
		got := make(map[string]int)
		for range 100 {
			end := c.must(t, gridAsk{method: "Name"})
			got[end.name]++
		}
		if got["legacy"] != 75 || got["modern"] != 25 {
			t.Errorf("got %v of 100", got)
		}
	})
	await(t, "every RPC to be counted", func() bool {
		return g.metric(t, "sluice_rpc_ended_total", "code", "OK") == float64(100*callers) && g.metric(t, "sluice_rpc_open") == 0
	})
	awaitIdle(t, g, "legacy")
}

func TestOutboundTellsErrorsInFull(t *testing.T) {
	t.Parallel()
	legacy, _ := startLegacy(t, "legacy")
	g := startGateway(t, Config{}, gridSchema(t), http1At("legacy", legacy), http1At("down", "127.0.0.1:1"),
		routeTo("r", "legacy"), routeWith("down", "matches: [{headers: [{name: x-down, value: \"1\"}]}]", "down"))
	callers := 0
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		callers++
		if end := c.must(t, gridAsk{method: "Fail"}); end.code != wire.FailedPrecondition || end.message != "the cart is full: 100 %" {
			t.Errorf("the backend's error came as %v", end)
		}
		if end := c.must(t, gridAsk{method: "Large"}); end.code != wire.ResourceExhausted || !strings.Contains(end.message, "4194304") {
			t.Errorf("an answer over the limit came as %v %q", end.code, end.message)
		}
		if end := c.must(t, gridAsk{method: "Name", header: map[string]string{"x-down": "1"}}); end.code != wire.Unavailable || !strings.HasPrefix(end.message, "sluice: ") {
			t.Errorf("a backend that is down came as %v", end)
		}
		if end := c.must(t, gridAsk{method: "Name", header: map[string]string{"x-say": "!"}}); end.name != "legacy!" {
			t.Errorf("with metadata: %v", end)
		}
	})
	for outcome, want := range map[string]int{"served": 2 * callers, "too_large": callers, "unreachable": callers} {
		if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", outcome); got != float64(want) {
			t.Errorf("%v RPCs ended with %s, want %d", got, outcome, want)
		}
	}
	awaitIdle(t, g, "legacy")
	awaitIdle(t, g, "down")
}

func TestOutboundEndsAtTheDeadline(t *testing.T) {
	t.Parallel()
	legacy, open := startLegacy(t, "legacy")
	g := startGateway(t, Config{}, gridSchema(t), http1At("legacy", legacy), routeTo("r", "legacy"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		begin := time.Now()
		end := c.must(t, gridAsk{method: "Hang", timeout: 100 * time.Millisecond})
		if took := time.Since(begin); end.code != wire.DeadlineExceeded || took < 90*time.Millisecond || took > 5*time.Second {
			t.Errorf("%v after %v", end, took)
		}
	})
	await(t, "the backend to be told", func() bool { return open.Load() == 0 })
}

func TestOutboundCancels(t *testing.T) {
	t.Parallel()
	legacy, open := startLegacy(t, "legacy")
	g := startGateway(t, Config{}, gridSchema(t), http1At("legacy", legacy), routeTo("r", "legacy"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() {
			if end, err := c.call(ctx, gridAsk{method: "Hang"}); !errors.Is(err, context.Canceled) && end.code != wire.Canceled {
				t.Errorf("%v, %v", end, err)
			}
		})
		await(t, "the request to arrive", func() bool { return open.Load() == 1 })
		cancel()
		work.Wait()
		await(t, "the backend to hear of it", func() bool { return open.Load() == 0 })
	})
	await(t, "every RPC to be counted", func() bool { return g.metric(t, "sluice_rpc_open") == 0 })
	awaitIdle(t, g, "legacy")
}

// What cannot become a request is refused, and says why.
func TestOutboundRefusesWhatIsNoRequest(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	g := startGateway(t, Config{}, http1At("legacy", namedBackend(t, "legacy", &asked)), routeTo("r", "legacy"),
		schemaOf(t, strings.Replace(gridProto, `option (google.api.http) = {get: "/v1/name"};`, "", 1)))
	call := gridCallers(t, g)[0]
	for method, part := range map[string]string{"Name": "no google.api.http annotation", "Other": "no Schema describes the method /grid.Grid/Other"} {
		if end := call.must(t, gridAsk{method: method}); end.code != wire.Unimplemented || !strings.HasPrefix(end.message, "sluice: ") || !strings.Contains(end.message, part) {
			t.Errorf("%s: %v, want UNIMPLEMENTED with %q", method, end, part)
		}
	}
	if asked.Load() > 0 {
		t.Error("the backend was asked")
	}
	if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", "unsupported"); got != 2 {
		t.Errorf("%v RPCs are counted as unsupported, want 2", got)
	}
}

// The request is one of the gateway's: it says for whom, and has the route's modifiers.
func TestOutboundRequestIsTheGateways(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	legacy := httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		w.Header().Set("X-Inside", "1")
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{}`)
	})
	g := startGateway(t, Config{}, gridSchema(t), http1At("legacy", legacy), routeWith("r",
		"filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: by-route}], remove: [x-gone]}}]", "legacy"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		end := c.must(t, gridAsk{method: "Name", header: map[string]string{"x-gone": "1", "x-kept": "1", "x-forwarded-for": "6.6.6.6"}})
		r := <-seen
		if end.code != wire.OK || r.Method != "GET" || r.URL.Path != "/v1/name" || r.Host != "shop.example.com" {
			t.Errorf("%v, %s %s to %s", end, r.Method, r.URL, r.Host)
		}
		for name, want := range map[string]string{
			"X-Set": "by-route", "X-Gone": "", "X-Kept": "1", "X-Forwarded-For": "127.0.0.1",
			"Grpc-Timeout": "", "Te": "", "Content-Type": "", "Connect-Protocol-Version": "", "Accept": "application/json",
		} {
			if got := strings.Join(r.Header.Values(name), ","); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	})
}

// TestOutboundSendsAgain: by default what a schema says may be called twice, once; with a
// policy, what it says.
func TestOutboundSendsAgain(t *testing.T) {
	t.Parallel()
	var failing atomic.Int64
	bad := httpBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		failing.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	good, _ := startLegacy(t, "legacy")
	tests := []struct {
		name, policy string
		want         wire.Code
	}{
		{"by default", "", wire.OK},
		{"as a policy says", "retry: {attempts: 1, codes: [UNAVAILABLE], backoff: {base: 1ms, max: 1ms}}", wire.OK},
		{"not what it does not say", "retry: {attempts: 1, codes: [ABORTED]}", wire.Unavailable},
	}
	for _, test := range tests {
		resources := []string{
			gridSchema(t), routeTo("r", "legacy"),
			backendWith("legacy", "protocol: http1\nloadBalancing: {policy: RoundRobin}\noutlierDetection: {disabled: true}", bad, good),
		}
		if test.policy != "" {
			resources = append(resources, policyFor("r", test.policy))
		}
		g := startGateway(t, Config{}, resources...)
		before := failing.Load()
		codes := make(map[wire.Code]int)
		caller := gridCallers(t, g)[0]
		for range 4 {
			codes[caller.must(t, gridAsk{method: "Name"}).code]++
		}
		if got := codes[wire.OK]; test.want == wire.OK && got != 4 || test.want != wire.OK && codes[test.want] != 2 {
			t.Errorf("%s: %v", test.name, codes)
		}
		if failing.Load() == before {
			t.Errorf("%s: nothing has failed", test.name)
		}
		awaitIdle(t, g, "legacy")
	}
}
