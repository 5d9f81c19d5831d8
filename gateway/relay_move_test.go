package gateway

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// TestRelayMovesStreamsThatWereRefused has two endpoints: the one that gets the
// stream refuses it, the other gets it whole, once.
func TestRelayMovesStreamsThatWereRefused(t *testing.T) {
	t.Parallel()
	body := pattern(1, 60_000)
	tests := []struct {
		name   string
		sent   int // bytes of the body before the refusal
		refuse func(p *peer, id uint32)
	}{
		{"REFUSED_STREAM at once", 0, func(p *peer, id uint32) { p.reset(id, http2.ErrCodeRefusedStream) }},
		{"REFUSED_STREAM after DATA", len(body), func(p *peer, id uint32) { p.reset(id, http2.ErrCodeRefusedStream) }},
		{"REFUSED_STREAM after 1xx", 100, func(p *peer, id uint32) {
			p.headers(id, false, ":status", "103")
			p.reset(id, http2.ErrCodeRefusedStream)
		}},
		{"above GOAWAY's last stream", len(body), func(p *peer, id uint32) { p.goAway(id-1, http2.ErrCodeNo, "") }},
		{"GOAWAY with an error, last stream 0", 100, func(p *peer, _ uint32) { p.goAway(0, http2.ErrCodeInternal, "") }},
		{"GOAWAY, then the end", 100, func(p *peer, _ uint32) {
			p.goAway(0, http2.ErrCodeNo, "")
			p.close()
		}},
	}
	for _, test := range tests {
		for _, half := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, half-closed %v", test.name, half), func(t *testing.T) {
				t.Parallel()
				first, second := startScript(t, manners{window: 1 << 20}), startScript(t, manners{window: 1 << 20})
				// Round robin: the first endpoint is the first to be picked.
				g := startGateway(t, Config{}, backendWith("a", "loadBalancing: {policy: RoundRobin}", first.addr, second.addr), routeTo("a", "a"))
				client := connect(t, g.address(), manners{})
				client.request(1, "/shop.Cart/Get", "x-nonce", "one")
				early := message(body[:test.sent])
				ended := half && test.sent == len(body)
				client.data(1, early, ended)

				var p, q *peer
				var other *scripted
				select {
				case p = <-first.peers:
					other = second
				case p = <-second.peers:
					other = first
				}
				id := p.awaitRequest().id
				p.awaitBytes(id, len(early))
				test.refuse(p, id)

				q = other.accept(t)
				again := q.awaitRequest()
				if again.get("x-nonce") != "one" || again.get(":path") != "/shop.Cart/Get" {
					t.Errorf("the other endpoint got %v", again)
				}
				var rest []byte
				if !ended {
					rest = body[:5000]
					client.data(1, rest, true)
				}
				if got, want := q.awaitBytes(again.id, len(early)+len(rest)), append(early, rest...); !bytes.Equal(got, want) {
					t.Errorf("the other endpoint got %d bytes that differ from the %d sent", len(got), len(want))
				}
				q.reply(again.id, []byte("done"))
				if e := client.await("end", func(e event) bool { return e.id == 1 && e.end }); e.get("grpc-status") != "0" {
					t.Errorf("the caller got %v", e)
				}
				if got := p.seen(func(e event) bool { return e.typ == http2.FrameHeaders }); len(got) != 0 {
					t.Errorf("the first endpoint got more streams: %v", got)
				}
				if got := g.metric(t, "sluice_rpc_moved_total"); got != 1 {
					t.Errorf("%v RPCs were moved, want 1", got)
				}
			})
		}
	}
}

// TestRelayMovesAStreamOnce: the second refusal is the caller's to hear.
func TestRelayMovesAStreamOnce(t *testing.T) {
	t.Parallel()
	var scripts []*scripted
	var addrs []string
	for range 3 {
		s := startScript(t, manners{})
		scripts, addrs = append(scripts, s), append(addrs, s.addr)
	}
	g := startGateway(t, Config{}, backendAt("a", addrs...), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	for range 2 {
		var p *peer
		select {
		case p = <-scripts[0].peers:
		case p = <-scripts[1].peers:
		case p = <-scripts[2].peers:
		}
		p.reset(p.awaitRequest().id, http2.ErrCodeRefusedStream)
	}
	if e := client.awaitHeaders(1); e.get("grpc-status") != "14" || e.get("grpc-message") != "sluice: the backend refused the stream" {
		t.Errorf("after two refusals the caller got %v", e)
	}
	if len(scripts[0].peers)+len(scripts[1].peers)+len(scripts[2].peers) != 0 {
		t.Error("a third endpoint was tried")
	}
}

// TestRelayMovesNothingThatWasActedOn: a response, even only its header, means that
// the backend has begun.
func TestRelayMovesNothingThatWasActedOn(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	p := s.accept(t)
	id := p.awaitRequest().id
	p.headers(id, false, answerHead...)
	client.awaitHeaders(1)
	p.reset(id, http2.ErrCodeRefusedStream)
	if e := client.awaitHeaders(1); e.get("grpc-status") != "14" || !e.end {
		t.Errorf("the caller got %v", e)
	}
	if got := g.metric(t, "sluice_rpc_moved_total"); got != 0 {
		t.Errorf("%v RPCs were moved", got)
	}
}

// TestRelayMovesNoMoreThanItKept: beyond 64 KiB there is no second try.
func TestRelayMovesNoMoreThanItKept(t *testing.T) {
	t.Parallel()
	settings := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1 << 20}}
	for _, size := range []int{64 << 10, 64<<10 + 1} {
		s := startScript(t, manners{window: 1 << 20, settings: settings})
		g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
		client := connect(t, g.address(), manners{})
		client.request(1, "/shop.Cart/Get")
		p := s.accept(t)
		id := p.awaitRequest().id
		body := pattern(1, size)
		// The window lets through 64 KiB; the last byte waits for more of it.
		client.data(1, body[:60_000], false)
		p.awaitBytes(id, 60_000)
		client.await("window", ofType(http2.FrameWindowUpdate, 1))
		client.data(1, body[60_000:], false)
		p.awaitBytes(id, size-60_000)
		if kept := g.metric(t, "sluice_rpc_kept_bytes"); size <= 64<<10 && kept < 65_000 || size > 64<<10 && kept != 0 {
			t.Errorf("%v bytes are kept of %d", kept, size)
		}
		p.reset(id, http2.ErrCodeRefusedStream)
		if size > 64<<10 {
			if e := client.awaitHeaders(1); e.get("grpc-status") != "14" || e.get("grpc-message") != "sluice: the backend refused the stream" {
				t.Errorf("%d bytes: the caller got %v", size, e)
			}
			if got := g.metric(t, "sluice_rpc_moved_total"); got != 0 {
				t.Errorf("%d bytes: %v RPCs were moved", size, got)
			}
		} else {
			again := p.awaitRequest().id
			if got := p.awaitBytes(again, size); !bytes.Equal(got, body) {
				t.Error("the second try got other bytes")
			}
			p.reply(again, nil)
			client.await("end", func(e event) bool { return e.id == 1 && e.end })
		}
		if kept := g.metric(t, "sluice_rpc_kept_bytes"); kept != 0 {
			t.Errorf("%v bytes are kept after the end", kept)
		}
		g.end(t)
	}
}

// TestRelayKeepsWindowsRightAcrossAMove uploads a lot after a refusal: window that
// was lost on the way would stop it, window that was granted twice would show.
func TestRelayKeepsWindowsRightAcrossAMove(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{window: 1 << 24, settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1 << 24}}})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{noCredit: true})
	client.request(1, "/shop.Cart/Put")
	body := pattern(3, 4<<20)
	p := s.accept(t)
	id := p.awaitRequest().id
	const before = 50_000
	client.data(1, body[:before], false)
	p.awaitBytes(id, before)
	p.reset(id, http2.ErrCodeRefusedStream)
	id = p.awaitRequest().id
	sent, window := before, 65_536-before
	conn := 4<<20 - before // as the gateway's first WINDOW_UPDATE says
	var got []byte
	granted := 65_536
	for sent < len(body) {
		for window <= 0 || conn <= 0 {
			e := client.await("window", func(e event) bool { return e.typ == http2.FrameWindowUpdate && e.inc > 0 && !e.closed })
			if e.id == 0 {
				conn += int(e.inc)
				continue
			}
			window += int(e.inc)
			granted += int(e.inc)
		}
		n := min(window, conn, len(body)-sent, 16<<10)
		client.data(1, body[sent:sent+n], sent+n == len(body))
		sent += n
		window -= n
		conn -= n
		if n := sent - len(got); n > 256<<10 {
			got = append(got, p.awaitBytes(id, n)...)
		}
	}
	got = append(got, p.awaitBytes(id, len(body)-len(got))...)
	if !bytes.Equal(got, body) {
		t.Error("the backend got other bytes")
	}
	if granted > len(body)+(1<<20) {
		t.Errorf("%d bytes of window were granted for %d sent, want 1 MiB more at most", granted, len(body))
	}
	p.reply(id, nil)
	client.await("end", func(e event) bool { return e.id == 1 && e.end })
}

// TestRelayTriesAnotherEndpoint when nobody listens at the first ones.
func TestRelayTriesAnotherEndpoint(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "alive")
	g := startGateway(t, Config{}, backendAt("a", deadAddress(), deadAddress(), b.addr), routeTo("a", "a"))
	cc := dial(t, g.address())
	for range 50 {
		if got := mustCall(t, cc, "/shop.Cart/Who", nil); string(got) != "alive" {
			t.Fatalf("served by %q", got)
		}
	}
	if got := g.metric(t, "sluice_rpc_ended_total", "code", "OK"); got != 50 {
		t.Errorf("%v RPCs ended well, want 50", got)
	}
	if got := g.metric(t, "sluice_endpoint_usable"); got != 1 {
		t.Errorf("%v endpoints look usable, want 1", got)
	}
}

// TestRelayFindsTheBackendAgain after it was away.
func TestRelayFindsTheBackendAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	g := startGateway(t, Config{}, backendAt("a", addr), routeTo("a", "a"))
	cc := dial(t, g.address())
	_, err = invoke(shortly(t), cc, "/shop.Cart/Who", nil)
	if err == nil || !strings.Contains(err.Error(), "sluice: no endpoint of the backend can be reached") {
		t.Errorf("nobody listens: %v", err)
	}
	for range 2 {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		b := serveBackend(t, "back", l, nil)
		await(t, "the backend to be found", func() bool {
			_, err := invoke(shortly(t), cc, "/shop.Cart/Who", nil)
			return err == nil
		})
		b.grpc.Stop()
		await(t, "the loss to be seen", func() bool {
			_, err := invoke(shortly(t), cc, "/shop.Cart/Who", nil)
			return err != nil
		})
	}
	if n := strings.Count(g.log.String(), "endpoint not reached"); n < 1 || n > 3 {
		t.Errorf("the log tells %d times that the endpoint is not reached, want once each time it goes:\n%s", n, g.log)
	}
}

// TestRelayOutlivesConnectionAges: a backend that ends its connections all the time,
// in the way that gRPC's servers do, costs nobody an RPC.
func TestRelayOutlivesConnectionAges(t *testing.T) {
	var addrs []string
	for i := range 2 {
		b := startBackend(t, fmt.Sprint(i), grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 100 * time.Millisecond, MaxConnectionAgeGrace: patience}))
		addrs = append(addrs, b.addr)
	}
	g := startGateway(t, Config{}, backendAt("a", addrs...), routeTo("a", "a"))
	cc := dial(t, g.address())
	st := stream(t, shortly(t), cc, "/shop.Cart/Echo")
	start := time.Now()
	var made atomic.Int64
	each(8, 8, func(int) {
		for time.Since(start) < 2*time.Second {
			made.Add(1)
			if _, err := invoke(shortly(t), cc, "/shop.Cart/Echo", pattern(1, 2000)); err != nil {
				t.Errorf("an RPC failed: %v", err)
				return
			}
		}
	})
	say(t, st, []byte("still there"))
	hear(t, st)
	st.CloseSend()
	opened := g.metric(t, "sluice_conn_opened_total", "side", "upstream")
	if opened < 10 {
		t.Errorf("%v connections were opened: the test did not test", opened)
	}
	t.Logf("%d RPCs over %v connections, %v moved", made.Load(), opened, g.metric(t, "sluice_rpc_moved_total"))
}
