package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"golang.org/x/net/http2"

	"sluice/gateway/h2"
	"sluice/store"
)

// TestApplyHarmsNoLiveStream changes everything under 1,000 live streams.
func TestApplyHarmsNoLiveStream(t *testing.T) {
	const streams = 1000
	a, b, c := startBackend(t, "a"), startBackend(t, "b"), startBackend(t, "c")
	g := startGateway(t, Config{Limits: h2.Limits{MaxConcurrentStreams: streams + 10}},
		backendAt("x", a.addr, b.addr), routeTo("x", "x"))
	ctx, cancel := context.WithCancel(shortly(t))
	defer cancel()
	cc := dial(t, g.address())
	live := make([]grpc.ClientStream, streams)
	each(streams, 10, func(i int) {
		st, err := cc.NewStream(ctx, bidi, "/shop.Cart/Echo")
		m := []byte("hello")
		if err == nil {
			err = st.SendMsg(&m)
		}
		if err == nil {
			err = st.RecvMsg(&m)
		}
		if err != nil {
			t.Error(err)
		}
		live[i] = st
	})
	if t.Failed() {
		t.FailNow()
	}
	turn := func(what string) {
		t.Helper()
		var failed atomic.Int64
		each(streams, 10, func(i int) {
			m := []byte(fmt.Sprint(what, i))
			want := string(m)
			if live[i].SendMsg(&m) != nil || live[i].RecvMsg(&m) != nil || string(m) != want {
				failed.Add(1)
			}
		})
		if failed.Load() != 0 {
			t.Errorf("%s: %d of %d streams were harmed", what, failed.Load(), streams)
		}
	}
	served := func() string { return string(mustCall(t, cc, "/shop.Cart/Who", nil)) }

	g.apply(t, backendAt("x", a.addr, b.addr), routeTo("x", "x"), routeWith("other", "matches: [{method: {service: other.Thing}}]", "x"))
	turn("another route")
	g.apply(t, backendWith("x", "loadBalancing: {policy: RoundRobin}", a.addr+"=3", b.addr), routeTo("x", "x"))
	turn("another policy and weight")
	g.apply(t, backendAt("x", b.addr, c.addr), routeTo("x", "x"))
	turn("one endpoint replaced")
	for range 20 {
		if got := served(); got == "a" {
			t.Error("a new RPC went to the endpoint that is gone")
		}
	}
	g.apply(t, backendAt("y", c.addr), routeTo("y", "y"))
	turn("another backend and route")
	if got := served(); got != "c" {
		t.Errorf("a new RPC was served by %q, want c", got)
	}
	g.apply(t)
	turn("nothing left")
	_, err := invoke(shortly(t), cc, "/shop.Cart/Who", nil)
	wantStatus(t, "new RPC without a route", err, codes.Unimplemented, "sluice: ")
	if got := g.metric(t, "sluice_rpc_open", "route", "default/x"); got != streams {
		t.Errorf("sluice_rpc_open of the route that is gone is %v, want %d", got, streams)
	}
	if got := g.metric(t, "sluice_conn_opened_total", "side", "upstream"); got > 4 { // x on a, b and c; y on c
		t.Errorf("%v connections to backends were opened, want one for each endpoint of each backend", got)
	}

	for _, st := range live {
		st.CloseSend()
	}
	var failed atomic.Int64
	each(streams, 10, func(i int) {
		var m []byte
		if err := live[i].RecvMsg(&m); err == nil || status.Code(err) == codes.Unavailable {
			failed.Add(1)
		}
	})
	if failed.Load() != 0 {
		t.Errorf("%d streams ended badly", failed.Load())
	}
	await(t, "the connections to the endpoints that are gone to end", func() bool {
		return g.metric(t, "sluice_conn_open", "side", "upstream") == 0
	})
}

// TestApplyDrainsEndpointsThatAreGone watches from the backend's side.
func TestApplyDrainsEndpointsThatAreGone(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"the backend ends the last stream", "the caller ends it", "the caller resets it", "the backend resets it"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := startScript(t, manners{})
			g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
			client := connect(t, g.address(), manners{})
			client.request(1, "/shop.Cart/Get")
			p := s.accept(t)
			id := p.awaitRequest().id
			p.headers(id, false, answerHead...)
			client.awaitHeaders(1)
			g.apply(t)
			if got := p.seen(func(e event) bool { return e.closed || e.typ == http2.FrameRSTStream }); len(got) != 0 {
				t.Fatalf("the live stream was harmed: %v", got)
			}
			start := time.Now()
			switch how {
			case "the backend ends the last stream":
				client.data(1, message(nil), true)
				p.awaitData(id)
				p.headers(id, true, "grpc-status", "0")
				client.await("end", func(e event) bool { return e.end })
			case "the caller ends it":
				p.headers(id, true, "grpc-status", "0")
				client.await("end", func(e event) bool { return e.end })
			case "the caller resets it":
				client.reset(1, http2.ErrCodeCancel)
				p.awaitReset(id)
			case "the backend resets it":
				client.data(1, message(nil), true)
				p.awaitData(id)
				p.reset(id, http2.ErrCodeInternal)
				client.awaitHeaders(1)
			}
			p.awaitEnd()
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("the connection ended %v after its last stream", d)
			}
			if n := len(s.peers); n != 0 {
				t.Errorf("the endpoint that is gone was dialled %d times more", n)
			}
		})
	}
}

// TestApplyUnderLoad: no RPC fails because the endpoints, the weights or the routes
// are others now.
func TestApplyUnderLoad(t *testing.T) {
	var backends []*backend
	for i := range 4 {
		backends = append(backends, startBackend(t, fmt.Sprint(i)))
	}
	sets := [][]string{
		{backendAt("x", backends[0].addr), routeTo("r", "x")},
		{backendAt("x", backends[1].addr), routeTo("r", "x")},
		{backendAt("y", backends[2].addr, backends[3].addr), routeTo("r", "y")},
		{backendAt("x", backends[3].addr), backendAt("y", backends[0].addr), routeTo("other", "x=50", "y=50")},
		{backendWith("x", "connection: {maxStreams: 2}", backends[0].addr, backends[2].addr), routeTo("r", "x")},
	}
	g := startGateway(t, Config{}, sets[0]...)
	var wg sync.WaitGroup
	var failed, made atomic.Int64
	ctx, cancel := context.WithCancel(shortly(t))
	for range 4 {
		cc := dial(t, g.address())
		for range 5 {
			wg.Go(func() {
				for ctx.Err() == nil {
					made.Add(1)
					if _, err := invoke(shortly(t), cc, "/shop.Cart/Who", nil); err != nil && failed.Add(1) < 5 {
						t.Errorf("an RPC failed: %v", err)
					}
				}
			})
		}
	}
	changes := 0
	for start := time.Now(); time.Since(start) < 2*time.Second; changes++ {
		g.apply(t, sets[changes%len(sets)]...)
	}
	cancel()
	wg.Wait()
	t.Logf("%d of %d RPCs failed across %d changes", failed.Load(), made.Load(), changes)
	g.apply(t, sets[0]...)
	// What is left may be several, of the set that allowed each but two streams.
	await(t, "connections to others to end", func() bool {
		return g.metric(t, "sluice_conn_open", "side", "upstream") <= g.metric(t, "sluice_endpoint_connections", "endpoint", backends[0].addr)
	})
}

// TestApplyLeavesOutWhatItMust: what cannot be put in force stays as it is, or is
// answered for when it is new; everything else is in force.
func TestApplyLeavesOutWhatItMust(t *testing.T) {
	t.Parallel()
	a, b := startBackend(t, "a"), startBackend(t, "b")
	g := startGateway(t, Config{}, backendAt("x", a.addr), backendAt("old", a.addr), routeOf("x"), routeOf("old"))
	cc := dial(t, g.address())
	missing := "protocol: tls\ntls: {caFile: /nowhere/ca.pem}"
	bad := parse(t,
		backendAt("x", b.addr), routeOf("x"),
		backendWith("old", missing, b.addr), routeOf("old"),
		backendWith("new", missing, b.addr), routeOf("new"),
		backendWith("pair", "protocol: tls\ntls: {certFile: /nowhere/cert.pem, keyFile: /nowhere/key.pem}", b.addr))
	for range 2 {
		var problems Problems
		if err := g.Apply(bad); !errors.As(err, &problems) {
			t.Fatalf("the error is %v, want problems", err)
		}
		const want = `backend "default/new": reading tls.caFile: open /nowhere/ca.pem: no such file or directory
backend "default/old": reading tls.caFile: open /nowhere/ca.pem: no such file or directory
backend "default/pair": reading tls.certFile: open /nowhere/cert.pem: no such file or directory`
		if problems.Error() != want {
			t.Errorf("the problems are\n%v\nwant\n%s", problems, want)
		}
		if got := string(mustCall(t, cc, "/svc.x/Who", nil)); got != "b" {
			t.Errorf("x is served by %q, want b: it has no problem", got)
		}
		if got := string(mustCall(t, cc, "/svc.old/Who", nil)); got != "a" {
			t.Errorf("old is served by %q, want a as before", got)
		}
		_, err := invoke(shortly(t), cc, "/svc.new/Who", nil)
		wantStatus(t, "new", err, codes.Unavailable, "sluice: the backend's TLS files cannot be used")
	}
	if err := g.Apply(parse(t, backendAt("x", b.addr), backendAt("new", b.addr), routeOf("x"), routeOf("new"))); err != nil {
		t.Errorf("without the bad ones: %v", err)
	}
	if got := string(mustCall(t, cc, "/svc.new/Who", nil)); got != "b" {
		t.Errorf("new is served by %q, want b", got)
	}
}

// TestCheckChangesNothing and tells of those that it is asked about.
func TestCheckChangesNothing(t *testing.T) {
	t.Parallel()
	a := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("x", a.addr), routeOf("x"))
	cc := dial(t, g.address())
	set := parse(t, backendWith("x", "protocol: tls\ntls: {caFile: /nowhere/ca.pem}", a.addr), backendAt("fine", a.addr),
		backendWith("unasked", "protocol: tls\ntls: {caFile: /nowhere/ca.pem}", a.addr), routeOf("x"))
	faults := g.Check(set, []store.ID{
		{Kind: store.BackendKind, Namespace: "default", Name: "x"},
		{Kind: store.BackendKind, Namespace: "default", Name: "fine"},
		{Kind: store.BackendKind, Namespace: "default", Name: "gone"},
		{Kind: store.GRPCRouteKind, Namespace: "default", Name: "x"},
	})
	const want = "test.yaml:1: spec.tls.caFile: open /nowhere/ca.pem: no such file or directory"
	if got := faults.Error(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	mustCall(t, cc, "/svc.x/Who", nil)
}

// TestApplyKeepsTheTurns: a split goes on where it was when another route changes.
func TestApplyKeepsTheTurns(t *testing.T) {
	t.Parallel()
	a, b := startBackend(t, "a"), startBackend(t, "b")
	set := []string{backendAt("a", a.addr), backendAt("b", b.addr), routeTo("split", "a=90", "b=10")}
	g := startGateway(t, Config{}, set...)
	cc := dial(t, g.address())
	for i := range 500 {
		if i%7 == 0 {
			g.apply(t, append(set, routeWith(fmt.Sprint("other", i), "matches: [{method: {service: other.Thing}}]", "a"))...)
		}
		mustCall(t, cc, "/shop.Cart/Who", nil)
	}
	if a.served.Load() != 450 || b.served.Load() != 50 {
		t.Errorf("%d and %d, want 450 and 50", a.served.Load(), b.served.Load())
	}
}
