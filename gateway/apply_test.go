package gateway

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"golang.org/x/net/http2"

	"sluice/gateway/h2"
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
	_, err := call(shortly(t), cc, "/shop.Cart/Who", nil)
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
					if _, err := call(shortly(t), cc, "/shop.Cart/Who", nil); err != nil && failed.Add(1) < 5 {
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

// TestApplyIsAllOrNothing: what cannot be put in force leaves what is.
func TestApplyIsAllOrNothing(t *testing.T) {
	t.Parallel()
	a, b := startBackend(t, "a"), startBackend(t, "b")
	g := startGateway(t, Config{}, backendAt("x", a.addr), routeTo("x", "x"))
	cc := dial(t, g.address())
	mustCall(t, cc, "/shop.Cart/Who", nil)
	bad := parse(t,
		backendAt("x", b.addr), routeTo("x", "x"),
		backendWith("missing", "protocol: tls\ntls: {caFile: /nowhere/ca.pem}", b.addr),
		backendWith("pair", "protocol: tls\ntls: {certFile: /nowhere/cert.pem, keyFile: /nowhere/key.pem}", b.addr))
	err := g.Apply(bad)
	if err == nil {
		t.Fatal("a set without its files was applied")
	}
	for _, want := range []string{`backend "default/missing": reading tls.caFile: open /nowhere/ca.pem`, `backend "default/pair": reading tls.certFile "/nowhere/cert.pem"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %q, want %q in it", err, want)
		}
	}
	for range 20 {
		if got := mustCall(t, cc, "/shop.Cart/Who", nil); string(got) != "a" {
			t.Fatalf("served by %q, want what was in force", got)
		}
	}
	if got := g.metric(t, "sluice_conn_opened_total", "side", "upstream"); got != 1 {
		t.Errorf("%v connections to backends, want the one that was", got)
	}
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
