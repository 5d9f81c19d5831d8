package gateway

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// observed are the endpoints of a backend by their address.
func observed(g *node, backend string) map[string]ObservedEndpoint {
	list := make(map[string]ObservedEndpoint)
	for _, e := range g.Endpoints(backend) {
		list[e.Address] = e
	}
	return list
}

// One endpoint that refuses everything at once looks like the one with the least to do.
// It gets as many RPCs as it takes to find out, and all others end well.
func TestEndpointsThatFailFastAreEjected(t *testing.T) {
	t.Parallel()
	good, other := startBackend(t, "good"), startBackend(t, "other")
	bad := startAnswering(t, map[string]answer{"Echo": func(*backend, grpc.ServerStream) error {
		return status.Error(codes.Unavailable, "no disk")
	}})
	g := startGateway(t, Config{}, backendAt("a", good.addr, other.addr, bad.addr), routeTo("all", "a"))
	conn := dial(t, g.address())
	begun := time.Now()
	const rpcs, workers = 600, 8
	var mu sync.Mutex
	failed := 0
	each(rpcs, workers, func(int) {
		if _, err := invoke(shortly(t), conn, "/shop.Cart/Echo", []byte("x")); err != nil {
			mu.Lock()
			failed++
			mu.Unlock()
		}
	})
	if n := int(bad.served.Load()); n != failed || n < 5 || n > 5+workers {
		t.Errorf("it had %d RPCs, %d failed; want 5, and at most as many more as were on their way", n, failed)
	}
	await(t, "every RPC to be over", func() bool { return g.metric(t, "sluice_rpc_open") == 0 })
	list := observed(g, "default/a")
	if len(list) != 3 {
		t.Fatalf("%d endpoints are shown, want 3", len(list))
	}
	total := uint64(0)
	for address, e := range list {
		total += e.RPCs
		want, success := "healthy", 1.0
		if address == bad.addr {
			want, success = "ejected", 0
			if !strings.Contains(e.Why, " RPCs in a row failed; one RPC will try it in ") {
				t.Errorf("it is ejected: %s", e.Why)
			}
		}
		if e.State != want || e.Success != success || e.Since.Before(begun.Add(-time.Second)) || e.Connections == 0 || e.Active != 0 || e.Weight != 1 {
			t.Errorf("%s is shown as %+v, want %s", address, e, want)
		}
		if (e.P99 > 0) != (success > 0) {
			t.Errorf("%s: 99 of 100 took %v", address, e.P99)
		}
	}
	if total != rpcs {
		t.Errorf("%d RPCs are shown, there were %d", total, rpcs)
	}
	if n := g.metric(t, "sluice_endpoint_ejections_total", "endpoint", bad.addr); n != 1 {
		t.Errorf("%v ejections are counted", n)
	}
	if n := g.metric(t, "sluice_endpoint_states", "state", "healthy"); n != 2 {
		t.Errorf("%v endpoints are counted as healthy", n)
	}
	if g.Endpoints("default/nobody") != nil {
		t.Error("a backend that is not there has endpoints")
	}
}

// What a server of grpc-go says of its health by Watch holds at once, and the server can
// go although somebody watches.
func TestEndpointsAreWatched(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, word := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, word)
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(l) })
	t.Cleanup(wg.Wait)
	t.Cleanup(server.Stop)
	address := l.Addr().String()
	g := startGateway(t, Config{}, backendWith("a", "healthCheck: {grpc: {service: shop}, interval: 1h, timeout: 5s}", address), routeTo("all", "a"))
	await(t, "the Watch to be open", func() bool {
		return strings.Contains(observed(g, "default/a")[address].Why, "SERVICE_UNKNOWN")
	})
	for _, serving := range []bool{true, false, true} {
		state, said := "healthy", healthpb.HealthCheckResponse_SERVING
		if !serving {
			state, said = "unhealthy", healthpb.HealthCheckResponse_NOT_SERVING
		}
		word.SetServingStatus("shop", said)
		await(t, "the endpoint to be "+state, func() bool { return observed(g, "default/a")[address].State == state })
	}
	gone := make(chan struct{})
	go func() {
		server.GracefulStop()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the server waits for the one who watches")
	}
}

// An endpoint that is taken out of a backend is shown as long as RPCs are open on it.
func TestEndpointsThatLeaveAreShownUntilTheyAreEmpty(t *testing.T) {
	t.Parallel()
	first, second := startScript(t, manners{}), startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", first.addr), routeTo("all", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	p := first.accept(t)
	live := p.awaitRequest().id
	g.apply(t, backendAt("a", second.addr), routeTo("all", "a"))
	for range 2 { // while it may be wanted still, and when it is not
		e, shown := observed(g, "default/a")[first.addr]
		if !shown || e.State != "draining" || e.Active != 1 || e.Weight != 0 || !strings.Contains(e.Why, "it is no endpoint any more") {
			t.Errorf("shown %v: %+v", shown, e)
		}
		<-time.After(3 * time.Second / 2)
	}
	p.reply(live, []byte("live"))
	if e := client.await("end", func(e event) bool { return e.id == 1 && e.end }); e.get("grpc-status") != "0" {
		t.Errorf("its RPC: %v", e)
	}
	await(t, "the endpoint to be forgotten", func() bool { return len(g.Endpoints("default/a")) == 1 })
}
