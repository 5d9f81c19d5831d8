package gateway

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/h2"
	"sluice/gateway/listen"
)

const maxStreamID = 1<<31 - 1

// TestDrainAsksTwice speaks as a client that answers PINGs when the test says so,
// to see both steps, and what becomes of streams between them and after.
func TestDrainAsksTwice(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{Grace: patience}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{noPong: true})
	client.request(1, "/shop.Cart/Get")
	p := s.accept(t)
	live := p.awaitRequest().id
	if err := g.Ready(); err != nil {
		t.Errorf("ready before the drain: %v", err)
	}
	g.cancel()
	await(t, "readiness to end", func() bool { return g.Ready() != nil })
	if e := client.awaitGoAway(); e.last != maxStreamID || e.code != http2.ErrCodeNo {
		t.Errorf("first step: %v, want GOAWAY with last stream 2^31-1 and NO_ERROR", e)
	}
	ping := client.await("PING", ofType(http2.FramePing, 0))

	client.request(3, "/shop.Cart/Get") // sent before the client could know
	between := p.awaitRequest().id
	client.write(func() { client.fr.WritePing(true, [8]byte(ping.data)) })
	if e := client.awaitGoAway(); e.last != 3 || e.code != http2.ErrCodeNo {
		t.Errorf("second step: %v, want GOAWAY with last stream 3 and NO_ERROR", e)
	}
	client.request(5, "/shop.Cart/Get") // above: nobody looks at it
	p.reply(between, []byte("between"))
	if e := client.await("end", func(e event) bool { return e.id == 3 && e.end }); e.get("grpc-status") != "0" {
		t.Errorf("the stream between the steps: %v", e)
	}
	if got := p.seen(func(e event) bool { return e.get(":path") != "" }); len(got) != 0 {
		t.Errorf("the stream above the last id reached the backend: %v", got)
	}
	select {
	case <-g.ended:
		t.Fatal("the gateway ended under a live stream")
	default:
	}
	p.reply(live, []byte("live"))
	if e := client.await("end", func(e event) bool { return e.id == 1 && e.end }); e.get("grpc-status") != "0" {
		t.Errorf("the live stream: %v", e)
	}
	client.awaitEnd()
	g.end(t)
	if e := p.awaitEnd(); !e.closed {
		t.Error("the connection to the backend is still there")
	}
	if got := g.metric(t, "sluice_conn_closed_total", "side", "downstream", "reason", "drained"); got != 1 {
		t.Errorf("%v connections are counted as drained, want 1", got)
	}
}

// TestDrainEndsWhatIsLeftByStatus at the end of the grace.
func TestDrainEndsWhatIsLeftByStatus(t *testing.T) {
	t.Parallel()
	const grace = 200 * time.Millisecond
	s := startScript(t, manners{})
	g := startGateway(t, Config{Grace: grace}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	client.request(3, "/shop.Cart/Get")
	p := s.accept(t)
	first, second := p.awaitRequest().id, p.awaitRequest().id
	p.headers(first, false, answerHead...)
	client.awaitHeaders(1)
	start := time.Now()
	g.cancel()
	for _, id := range []uint32{1, 3} {
		e := client.awaitHeaders(id)
		if !e.end || e.get("grpc-status") != "14" || e.get("grpc-message") != "sluice: the gateway is shutting down" {
			t.Errorf("stream %d: %v, want UNAVAILABLE", id, e)
		}
		if trailersOnly := e.get(":status") != ""; trailersOnly != (id == 3) {
			t.Errorf("stream %d: %v: a response that has begun goes on with trailers", id, e)
		}
		if d := e.at.Sub(start); d < grace || d > grace+2*time.Second {
			t.Errorf("stream %d ended %v after the drain began, want %v", id, d, grace)
		}
	}
	if got := client.seen(func(e event) bool { return e.typ == http2.FrameRSTStream && e.code != http2.ErrCodeNo }); len(got) != 0 {
		t.Errorf("streams were reset: %v", got)
	}
	client.awaitEnd()
	for _, id := range []uint32{first, second} {
		if e := p.awaitReset(id); e.code != http2.ErrCodeCancel {
			t.Errorf("the backend got %v", e)
		}
	}
	g.end(t)
	if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", "draining"); got != 2 {
		t.Errorf("%v RPCs ended so, want 2", got)
	}
}

// TestDrainDelayKeepsServing: load balancers have yet to notice.
func TestDrainDelayKeepsServing(t *testing.T) {
	t.Parallel()
	const delay = 300 * time.Millisecond
	b := startBackend(t, "a")
	g := startGateway(t, Config{Grace: patience, DrainDelay: delay}, backendAt("a", b.addr), routeTo("a", "a"))
	old := dial(t, g.address())
	mustCall(t, old, "/shop.Cart/Who", nil)
	g.cancel()
	await(t, "readiness to end", func() bool { return g.Ready() != nil })
	start := time.Now()
	late := connect(t, g.address(), manners{})
	mustCall(t, old, "/shop.Cart/Who", nil)
	late.headers(1, false, opening("/shop.Cart/Who")...)
	late.data(1, message(nil), true)
	if e := late.await("end", func(e event) bool { return e.id == 1 && e.end }); e.get("grpc-status") != "0" {
		t.Errorf("an RPC during the delay: %v", e)
	}
	if time.Since(start) < delay {
		if nc, err := net.Dial("tcp", g.address()); err != nil && time.Since(start) < delay {
			t.Errorf("during the delay the port is closed: %v", err)
		} else if err == nil {
			nc.Close()
		}
	}
	await(t, "the port to close", func() bool {
		nc, err := net.Dial("tcp", g.address())
		if err == nil {
			nc.Close()
		}
		return err != nil
	})
	if d := time.Since(start); d < delay-50*time.Millisecond {
		t.Errorf("the port closed after %v, want %v", d, delay)
	}
	late.awaitEnd()
	g.end(t)
}

// TestDrainOfAConnectionThatJustArrived: SETTINGS come first, whatever is said.
func TestDrainOfAConnectionThatJustArrived(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{Grace: patience, DrainDelay: 500 * time.Millisecond}, backendAt("a", b.addr), routeTo("a", "a"))
	g.cancel()
	await(t, "readiness to end", func() bool { return g.Ready() != nil })
	for range 20 {
		client := connect(t, g.address(), manners{})
		first := client.await("first frame", func(event) bool { return true })
		if first.closed || first.typ != http2.FrameSettings || first.ack {
			t.Fatalf("the first frame is %v, want SETTINGS", first)
		}
	}
	g.end(t)
}

// TestRunLeavesNothingBehind ends a gateway in the midst of everything that it can be
// at: streams both ways, a dial that goes on, one that is waited for, requests of
// HTTP/1 and of HTTP/2 that a handler answers, TLS that was not agreed on.
func TestRunLeavesNothingBehind(t *testing.T) {
	ca := newAuthority(t)
	_, cert, key := ca.issue(t, "shop.example.com")
	b := startBackend(t, "a")
	handling := make(chan struct{}, 2)
	g := startGateway(t, Config{
		Listen: listen.Config{Address: "127.0.0.1:0", TLSCert: cert, TLSKey: key},
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			handling <- struct{}{}
			<-r.Context().Done()
		}),
	}, backendAt("a", b.addr), backendAt("mute", listenMute(t)), backendAt("dead", deadAddress()),
		routeWith("mute", "matches: [{method: {service: mute.Thing}}]", "mute"),
		routeWith("dead", "matches: [{method: {service: dead.Thing}}]", "dead"),
		routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Hold")
	client.data(1, message(nil), true)
	client.awaitHeaders(1)
	client.request(3, "/mute.Thing/Get")
	client.request(5, "/dead.Thing/Get")
	client.awaitHeaders(5)
	client.headers(7, false, ":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a")
	<-handling
	plain, err := net.Dial("tcp", g.address())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	io.WriteString(plain, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-handling
	hello, err := net.Dial("tcp", g.address())
	if err != nil {
		t.Fatal(err)
	}
	defer hello.Close()
	io.WriteString(hello, "\x16\x03\x01\x02\x00\x01") // the beginning of a ClientHello
	g.end(t)
	if left := goroutinesLeft("sluice/gateway.(*Gateway)", "sluice/gateway/h2.", "sluice/gateway/upstream.", "sluice/gateway/listen.", "cmux."); left != "" {
		t.Errorf("goroutines are left after Run:\n\n%s", left)
	}
	client.awaitEnd()
}

// TestDrainUnderLoad: every RPC that a client of grpc makes ends well, while one
// gateway goes and another takes over behind the same name.
func TestDrainUnderLoad(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{Grace: patience, Limits: h2.Limits{MaxConcurrentStreams: 1000}}, backendAt("a", b.addr), routeTo("a", "a"))
	cc := dial(t, g.address())
	st := stream(t, shortly(t), cc, "/shop.Cart/Echo")
	say(t, st, []byte("before"))
	hear(t, st)
	started := make(chan struct{})
	go func() {
		<-started
		g.cancel()
	}()
	each(2000, 20, func(i int) {
		if i == 300 {
			close(started)
		}
		// The port is closed after a while, and then there is nobody to call.
		if _, err := invoke(shortly(t), cc, "/shop.Cart/Who", nil); err != nil && !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("RPC %d: %v", i, err)
		}
	})
	for range 10 {
		say(t, st, []byte("during"))
		hear(t, st)
	}
	st.CloseSend()
	var m []byte
	st.RecvMsg(&m)
	g.end(t)
}
