package gateway

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"sluice/gateway/h2"
)

func TestGatewayRoutesByWhatTheRequestSays(t *testing.T) {
	t.Parallel()
	var resources []string
	for _, name := range []string{"service", "method", "header", "host", "wild", "pattern", "rest"} {
		resources = append(resources, backendAt(name, startBackend(t, name).addr))
	}
	route := func(name, hosts, match string) string {
		text := routeWith(name, match, name)
		return strings.Replace(text, "spec:\n", "spec:\n"+hosts, 1)
	}
	resources = append(resources,
		route("service", "", "matches: [{method: {service: shop.Cart}}]"),
		route("method", "", "matches: [{method: {service: shop.Cart, method: Who}}]"),
		route("header", "", "matches: [{method: {service: shop.Cart, method: Who}, headers: [{name: X-Tenant, value: blue}]}]"),
		route("pattern", "", "matches: [{method: {type: RegularExpression, service: 'stock\\..+'}}]"),
		route("host", "  hostnames: [exact.example.com]\n", ""),
		route("wild", "  hostnames: ['*.example.com']\n", ""),
		route("rest", "", "matches: [{method: {service: any.Thing}}]"),
	)
	g := startGateway(t, Config{}, resources...)
	tests := []struct {
		name, host, method string
		header             []string
		want               string
	}{
		{name: "service", method: "/shop.Cart/Echo", want: ""},
		{name: "method beats service", method: "/shop.Cart/Who", want: "method"},
		{name: "header beats method", method: "/shop.Cart/Who", header: []string{"x-tenant", "blue"}, want: "header"},
		{name: "another value of the header", method: "/shop.Cart/Who", header: []string{"x-tenant", "red"}, want: "method"},
		{name: "regular expression", method: "/stock.v1.Store/Who", want: "pattern"},
		{name: "hostname", host: "exact.example.com", method: "/what.Ever/Who", want: "host"},
		{name: "wildcard", host: "other.example.com", method: "/what.Ever/Who", want: "wild"},
		{name: "hostname beats method", host: "exact.example.com:8080", method: "/shop.Cart/Who", want: "host"},
		{name: "route without matches of its method", method: "/any.Thing/Who", want: "rest"},
	}
	for _, test := range tests {
		host := test.host
		if host == "" {
			host = "localhost"
		}
		cc := dial(t, g.address(), grpc.WithAuthority(host))
		ctx := metadata.AppendToOutgoingContext(shortly(t), test.header...)
		want := test.want
		if want == "" {
			want = "hello" // the echo of it
		}
		got, err := invoke(ctx, cc, test.method, []byte("hello"))
		if err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", test.name, got, err, want)
		}
	}
	if got := g.metric(t, "sluice_rpc_path_total", "path", "handler"); got != 0 {
		t.Errorf("%v native RPCs took the handler's path", got)
	}
}

func TestGatewayAnswersWhatNoRouteMatches(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	elsewhere := strings.Replace(routeWith("a", "matches: [{method: {service: shop.Cart}}]", "a"), "spec:\n", "spec:\n  hostnames: [shop.example.com]\n", 1)
	g := startGateway(t, Config{}, backendAt("a", b.addr), elsewhere)
	_, err := invoke(shortly(t), dial(t, g.address(), grpc.WithAuthority("other.example.com")), "/shop.Cart/Who", nil)
	wantStatus(t, "another authority", err, codes.Unimplemented, "sluice: no route serves this authority")
	_, err = invoke(shortly(t), dial(t, g.address(), grpc.WithAuthority("shop.example.com")), "/shop.Stock/Who", nil)
	wantStatus(t, "another service", err, codes.Unimplemented, "sluice: no route matches this method")
	if got := g.metric(t, "sluice_rpc_ended_total", "route", "", "code", "UNIMPLEMENTED"); got != 2 {
		t.Errorf("%v RPCs without a route ended with UNIMPLEMENTED, want 2", got)
	}
}

// TestGatewaySplitsExactly counts a 90/10 split at the backends themselves.
func TestGatewaySplitsExactly(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{1, 25} {
		t.Run(fmt.Sprint(conns, " connections"), func(t *testing.T) {
			const total = 10_000
			a, b := startFrugalBackend(t), startFrugalBackend(t)
			g := startGateway(t, Config{}, backendAt("a", a.addr), backendAt("b", b.addr), routeTo("split", "a=90", "b=10"))
			var wg sync.WaitGroup
			for range conns {
				f := newFrugalCaller(t, g.address()) // which makes the first one
				wg.Go(func() { f.run(total/conns-1, 20) })
			}
			wg.Wait()
			if a.served.Load() != 9000 || b.served.Load() != 1000 {
				t.Errorf("a saw %d and b %d, want 9000 and 1000", a.served.Load(), b.served.Load())
			}
			for name, want := range map[string]float64{"default/a": 9000, "default/b": 1000} {
				if got := g.metric(t, "sluice_rpc_ended_total", "route", "default/split", "backend", name, "code", "OK"); got != want {
					t.Errorf("%v RPCs of %s ended well, want %v", got, name, want)
				}
				for _, metric := range []string{"sluice_rpc_started_total", "sluice_rpc_ended_total", "sluice_rpc_seconds"} {
					if got := g.metric(t, metric, "route", "default/split", "backend", name); got != want {
						t.Errorf("%s of %s is %v, want %v", metric, name, got, want)
					}
				}
			}
			if got := g.metric(t, "sluice_rpc_open"); got != 0 {
				t.Errorf("sluice_rpc_open is %v after the last RPC", got)
			}
			if got := g.metric(t, "sluice_conn_opened_total", "side", "downstream"); got != float64(conns) {
				t.Errorf("%v connections of clients, want %d", got, conns)
			}
		})
	}
}

// TestGatewaySplitsForGRPCClients is the same for real ones, who agree on who served
// them.
func TestGatewaySplitsForGRPCClients(t *testing.T) {
	t.Parallel()
	const total = 1000
	a, b := startBackend(t, "a"), startBackend(t, "b")
	g := startGateway(t, Config{}, backendAt("a", a.addr), backendAt("b", b.addr), routeTo("split", "a=90", "b=10"))
	conns := []*grpc.ClientConn{dial(t, g.address()), dial(t, g.address()), dial(t, g.address())}
	var fromA, fromB atomic.Int64
	each(total, 20, func(i int) {
		switch reply, err := invoke(shortly(t), conns[i%3], "/shop.Cart/Who", nil); {
		case err != nil:
			t.Error(err)
		case string(reply) == "a":
			fromA.Add(1)
		case string(reply) == "b":
			fromB.Add(1)
		}
	})
	if fromA.Load() != 900 || fromB.Load() != 100 {
		t.Errorf("%d from a and %d from b, want 900 and 100", fromA.Load(), fromB.Load())
	}
}

func TestGatewayBalancesOpenStreams(t *testing.T) {
	t.Parallel()
	const streams = 300
	backends := []*backend{startBackend(t, "a"), startBackend(t, "b"), startBackend(t, "c")}
	g := startGateway(t, Config{Limits: h2.Limits{MaxConcurrentStreams: streams}},
		backendAt("all", backends[0].addr, backends[1].addr, backends[2].addr), routeTo("all", "all"))
	cc := dial(t, g.address())
	ctx, cancel := context.WithCancel(shortly(t))
	defer cancel()
	each(streams, 10, func(int) {
		st, err := cc.NewStream(ctx, bidi, "/shop.Cart/Hold")
		var m []byte
		if err == nil {
			err = st.RecvMsg(&m)
		}
		if err != nil {
			t.Error(err)
		}
	})
	for _, b := range backends {
		if n := b.open.Load(); n < 99 || n > 101 {
			t.Errorf("%s holds %d of %d streams, want 100 ± 1", b.name, n, streams)
		}
		if got := g.metric(t, "sluice_endpoint_active", "endpoint", b.addr); got != float64(b.open.Load()) {
			t.Errorf("sluice_endpoint_active of %s is %v, it holds %d", b.name, got, b.open.Load())
		}
	}
	cancel()
	for _, b := range backends {
		await(t, "streams to end", func() bool { return b.open.Load() == 0 })
	}
	await(t, "the count of streams to be 0", func() bool {
		return g.metric(t, "sluice_stream_open") == 0 && g.metric(t, "sluice_endpoint_active") == 0
	})
}

func TestGatewayBalancesByPolicyAndWeight(t *testing.T) {
	t.Parallel()
	const rpcs = 300
	tests := []struct {
		name, spec string
		weights    []string
		want       []int64
		tolerance  int64
	}{
		{"round robin", "loadBalancing: {policy: RoundRobin}", []string{"1", "1", "1"}, []int64{100, 100, 100}, 0},
		{"round robin by weight", "loadBalancing: {policy: RoundRobin}", []string{"1", "2", "3"}, []int64{50, 100, 150}, 0},
		{"weight 0 is never picked", "loadBalancing: {policy: RoundRobin}", []string{"1", "0", "1"}, []int64{150, 0, 150}, 0},
		// One RPC at a time meets idle endpoints: they are drawn by weight.
		{"least request by weight", "", []string{"1", "2", "3"}, []int64{50, 100, 150}, 40},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var backends []*backend
			var endpoints []string
			for i, w := range test.weights {
				b := startBackend(t, fmt.Sprint(i))
				backends = append(backends, b)
				endpoints = append(endpoints, b.addr+"="+w)
			}
			g := startGateway(t, Config{}, backendWith("all", test.spec, endpoints...), routeTo("all", "all"))
			cc := dial(t, g.address())
			for range rpcs {
				mustCall(t, cc, "/shop.Cart/Who", nil)
			}
			for i, b := range backends {
				if got := b.served.Load(); got < test.want[i]-test.tolerance || got > test.want[i]+test.tolerance {
					t.Errorf("endpoint %d of weight %s got %d RPCs, want %d ± %d", i, test.weights[i], got, test.want[i], test.tolerance)
				}
			}
		})
	}
}

func TestGatewayAnswersForABackendThatDoesNotExist(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("split", "a=90", "nobody=10"))
	cc := dial(t, g.address())
	served, unavailable := 0, 0
	for range 200 {
		_, err := invoke(shortly(t), cc, "/shop.Cart/Who", nil)
		if err == nil {
			served++
			continue
		}
		unavailable++
		wantStatus(t, "share of the missing backend", err, codes.Unavailable, "sluice: the route's backend does not exist")
	}
	if served != 180 || unavailable != 20 {
		t.Errorf("%d served and %d not, want 180 and 20", served, unavailable)
	}
	if got := g.metric(t, "sluice_rpc_ended_total", "backend", "default/nobody", "code", "UNAVAILABLE"); got != 20 {
		t.Errorf("%v RPCs counted for the missing backend, want 20", got)
	}
}
