package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/h2"
	"sluice/store"
)

func maxStreams(n uint32) manners {
	return manners{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: n}}}
}

// open opens n streams at e and lets everything settle.
func open(e *Endpoint, n int) (list []*caller) {
	for range n {
		list = append(list, call(e))
	}
	synctest.Wait()
	return list
}

func TestEndpointIsDialledWhenItIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{})
		e := w.put(to("x", "a:1"))[0]
		time.Sleep(time.Minute)
		if n := len(w.dials("a:1")); n != 0 {
			t.Errorf("dialled %d times before anybody asked", n)
		}
		open(e, 1)[0].wantOpen(t)
		open(e, 50)
		if n := len(w.dials("a:1")); n != 1 {
			t.Errorf("dialled %d times for 51 streams, want once", n)
		}
		if got := w.peer(h, 0).got(); strings.Count(got, "HEADERS") != 51 {
			t.Errorf("the backend got %s", got)
		}
		if e.Connections() != 1 || e.Address() != "a:1" || e.Backend() != "default/x" {
			t.Errorf("%d connections to %s of %s", e.Connections(), e.Address(), e.Backend())
		}
	})
}

// A stream that looked for a connection before a dial ended, and asks for a dial
// after it, is to look again.
func TestEndpointDialsNoSecondTimeForWhoLookedTooSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		w.host("a:1", manners{})
		e := w.put(to("x", "a:1"))[0]
		before := e.live.Load()
		open(e, 1)[0].wantOpen(t)
		if err := e.want(before); err != errNoRoom {
			t.Errorf("answered %v, want to be asked again", err)
		}
		synctest.Wait()
		if n := len(w.dials("a:1")); n != 1 {
			t.Errorf("dialled %d times, want once", n)
		}
	})
}

// TestEndpointOpensMoreConnections as the peer's limit on streams, and ours, ask
// for it.
func TestEndpointOpensMoreConnections(t *testing.T) {
	tests := []struct {
		name       string
		peer       uint32 // SETTINGS_MAX_CONCURRENT_STREAMS
		ours, most int    // maxStreams and maxConnections
		streams    int
		conns      int
		refused    int
	}{
		{"peer allows 1", 1, 1000, 0, 10, 10, 0},
		{"peer allows 10", 10, 1000, 0, 25, 3, 0},
		{"peer allows many, we 10", 5000, 10, 0, 25, 3, 0},
		{"peer allows many", 5000, 1000, 0, 1000, 1, 0},
		{"one more than we want on one", 5000, 1000, 0, 1001, 2, 0},
		{"all connections are full", 3, 1000, 2, 9, 2, 3},
		{"one connection only", 100, 1, 1, 3, 1, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				h := w.host("a:1", maxStreams(test.peer))
				b := to("x", "a:1")
				b.Spec.Connection = store.Connection{MaxStreams: test.ours, MaxConnections: test.most}
				e := w.put(b)[0]
				calls := open(e, 1) // and when its limit is known, the others
				calls = append(calls, open(e, test.streams-1)...)
				opened, refused := 0, 0
				for _, c := range calls {
					switch ok, parked, err := c.state(); {
					case ok:
						opened++
					case errors.Is(err, ErrFull):
						refused++
					default:
						t.Errorf("a stream is parked %v, error %v", parked, err)
					}
				}
				if refused != test.refused || opened != test.streams-test.refused {
					t.Errorf("%d streams were opened and %d found no room, want %d to find none", opened, refused, test.refused)
				}
				// One more may be on its way for a stream that has found room meanwhile.
				conns := e.Connections()
				if conns < test.conns || conns > test.conns+1 || test.most > 0 && conns > test.most {
					t.Errorf("%d connections, want %d", conns, test.conns)
				}
				for i := range test.conns {
					if n := strings.Count(w.peer(h, i).got(), "HEADERS"); n > int(test.peer) || n > test.ours {
						t.Errorf("connection %d got %d streams", i, n)
					}
				}
				for _, c := range calls { // and there is room again
					if ok, _, _ := c.state(); ok {
						c.reset()
					}
				}
				open(e, 1)[0].wantOpen(t)
				if e.Connections() != conns {
					t.Errorf("%d connections in the end, want %d", e.Connections(), conns)
				}
			})
		})
	}
}

// TestEndpointDialsForThoseWhoWait: as many connections at once as the streams that
// arrive before the first is up will need.
func TestEndpointDialsForThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		w.host("a:1", maxStreams(100))
		e := w.put(to("x", "a:1"))[0]
		for _, c := range open(e, 450) {
			c.wantOpen(t)
		}
		if n := len(w.dials("a:1")); n < 5 || n > 6 {
			t.Errorf("%d dials for 450 streams of 100 a connection, want 5", n)
		}
	})
}

func TestEndpointLetsNoMoreWaitThanItShould(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{})
		h.mute = true
		e := w.put(to("x", "a:1"))[0]
		for range maxWaiting {
			call(e).wantParked(t)
		}
		call(e).wantError(t, ErrCrowded)
		time.Sleep(6 * time.Second) // and the dial has had its time
		call(e).wantError(t, ErrDown)
	})
}

// TestEndpointBacksOff looks at when an endpoint that is down is tried.
func TestEndpointBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		e := w.put(to("x", "a:1"))[0]
		waiting := open(e, 1)[0]
		waiting.wantError(t, ErrDown)
		if waiting.resumed > 1 {
			t.Errorf("who waits was told %d times, want once at most, at the first failure", waiting.resumed)
		}
		for range 100 { // nobody waits for one that does not answer
			call(e).wantError(t, ErrDown)
		}
		if e.Usable() {
			t.Error("an endpoint that is down looks usable")
		}
		time.Sleep(2 * time.Minute)
		tries := w.dials("a:1")
		wait := backoffMin
		for i := 1; i < len(tries); i++ {
			if pause := tries[i].Sub(tries[i-1]); pause < wait/2 || pause > wait {
				t.Errorf("try %d came after %v, want %v to %v", i+1, pause, wait/2, wait)
			}
			wait = min(2*wait, backoffMax)
		}
		if n := len(tries); n < 12 || n > 40 {
			t.Errorf("%d tries in two minutes", n)
		}
		if tried, failed := e.Dials(); tried != failed || int(tried) != len(tries) {
			t.Errorf("%d tried and %d failed, want %d both", tried, failed, len(tries))
		}
		if n := strings.Count(w.log.String(), "endpoint not reached"); n != 1 {
			t.Errorf("the log tells it %d times, want once:\n%s", n, w.log)
		}

		w.host("a:1", manners{})
		time.Sleep(backoffMax)
		if !e.Usable() || e.Connections() != 1 {
			t.Errorf("10 s after it is back: usable %v, %d connections", e.Usable(), e.Connections())
		}
		c := call(e)
		c.wantOpen(t)
		if n := len(w.dials("a:1")); n != len(tries)+1 {
			t.Errorf("%d dials to come back, want 1", n-len(tries))
		}
	})
}

// placed is a connection to somewhere.
type placed struct {
	net.Conn
	at     netip.AddrPort
	closed *atomic.Int64
}

func (c placed) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.at) }

func (c placed) Close() error {
	c.closed.Add(1)
	return c.Conn.Close()
}

// TestEndpointIsNotTheGatewayItself: where a connection has led counts, and not how the
// address is spelled.
func TestEndpointIsNotTheGatewayItself(t *testing.T) {
	own := netip.MustParseAddrPort("127.0.0.1:8080")
	for _, test := range []struct {
		at   string
		self bool
	}{
		{"127.0.0.1:8080", true},
		{"[::ffff:127.0.0.1]:8080", true},
		{"127.0.0.1:8081", false}, // another listener of the same host
		{"127.0.0.2:8080", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, h2.Limits{})
			w.Own = func(a netip.AddrPort) bool { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) == own }
			w.host("myself.internal:8080", manners{})
			var closed atomic.Int64
			w.Pool.dial = func(ctx context.Context, address string) (net.Conn, error) {
				nc, err := w.reach(ctx, address)
				return placed{nc, netip.MustParseAddrPort(test.at), &closed}, err
			}
			e := w.put(to("x", "myself.internal:8080"))[0]
			c := open(e, 1)[0]
			if !test.self {
				c.wantOpen(t)
				return
			}
			c.wantError(t, ErrDown)
			const want = `"myself.internal:8080" leads to ` + "127.0.0.1:8080: the endpoint is this gateway itself"
			if s := e.Status(); s.State != StateDown || !strings.Contains(s.Why, want) {
				t.Errorf("%s: state %q because %q, want %q", test.at, s.State, s.Why, want)
			}
			if err := e.checkTCP(t.Context()); !errors.Is(err, errItself) {
				t.Errorf("%s: a health check says %v", test.at, err)
			}
			for range 100 { // nobody waits for it
				call(e).wantError(t, ErrDown)
			}
			time.Sleep(2 * time.Minute)
			n := len(w.dials("myself.internal:8080"))
			if n < 12 || n > 40 {
				t.Errorf("%s: %d dials in two minutes", test.at, n)
			}
			if int(closed.Load()) != n {
				t.Errorf("%s: of %d connections %d were closed", test.at, n, closed.Load())
			}
		})
	}
}

// TestEndpointIsAskedAgainWhenItRefused: where nobody listens somebody may, a moment
// later. A stream that has nowhere else to go waits for that.
func TestEndpointIsAskedAgainWhenItRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{})
		h.refuse = fmt.Errorf("connect: %w", syscall.ECONNREFUSED)
		e := w.put(to("x", "a:1"))[0]
		first := open(e, 1)[0]
		time.Sleep(askAgain + time.Microsecond) // it may have come when the first dial had failed
		synctest.Wait()
		first.wantError(t, ErrDown)
		time.Sleep(time.Minute) // the pauses are long by now
		n := len(w.dials("a:1"))
		for range 100 {
			c := call(e)
			c.wantParked(t)
			call(e).wantParked(t)
			time.Sleep(askAgain + time.Microsecond)
			synctest.Wait()
			c.wantError(t, ErrDown)
		}
		if more := len(w.dials("a:1")) - n; more < 100 || more > 101 {
			t.Errorf("%d dials for streams that came in 100 moments of %v", more, askAgain)
		}
		w.set(func() { h.refuse = nil })
		back := call(e)
		back.wantParked(t)
		time.Sleep(askAgain + time.Microsecond)
		synctest.Wait()
		back.wantOpen(t)
	})
}

// TestEndpointGivesUpADial that does not come to SETTINGS in time.
func TestEndpointGivesUpADial(t *testing.T) {
	tests := []struct {
		name string
		make func(h *host)
		want string
	}{
		{"no answer to SYN", func(h *host) { h.mute = true }, "context deadline exceeded"},
		{"no SETTINGS", func(h *host) { h.manners.silent = true }, `http/2 with "a:1": no SETTINGS within 2s`},
		{"closed before SETTINGS", func(h *host) { h.manners = manners{silent: true, hangUp: true} }, `http/2 with "a:1": connection ended before SETTINGS: `},
		{"HTTP/1", func(h *host) { h.manners.says = "HTTP/1.1 400 Bad Request\r\n\r\n" }, `http/2 with "a:1": connection ended before SETTINGS: connection ended with PROTOCOL_ERROR (protocol): the backend speaks HTTP/1, not HTTP/2`},
		{"TLS", func(h *host) { h.manners.says = "\x15\x03\x01\x00\x02\x02\x46\x00\x00" }, "the backend speaks TLS, not HTTP/2"},
		{"refused", func(h *host) { h.refuse = errors.New("connection refused") }, "connection refused"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				test.make(w.host("a:1", manners{}))
				b := to("x", "a:1")
				b.Spec.ConnectTimeout = store.Duration(2 * time.Second)
				c := call(w.put(b)[0])
				time.Sleep(2*time.Second + time.Millisecond)
				c.wantError(t, ErrDown)
				if _, _, err := c.state(); !strings.Contains(err.Error(), test.want) {
					t.Errorf("the error is %q, want %q in it", err, test.want)
				}
			})
		})
	}
}

// TestEndpointThatFlapsIsDialledSlowly: it takes connections and ends them at once.
func TestEndpointThatFlapsIsDialledSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{hangUp: true})
		e := w.put(to("x", "a:1"))[0]
		call(e)
		time.Sleep(time.Minute)
		n := len(w.dials("a:1"))
		if n < 8 || n > 30 {
			t.Errorf("%d dials in a minute", n)
		}
		call(e).wantError(t, ErrDown)
		w.set(func() { h.manners.hangUp = false })
		time.Sleep(backoffMax)
		c := call(e)
		c.wantOpen(t)
		// It is well for a while: a loss is made good at once.
		time.Sleep(time.Minute)
		before := len(w.dials("a:1"))
		w.peer(h, before-1).nc.Close()
		synctest.Wait()
		if n := len(w.dials("a:1")); n != before+1 || e.Connections() != 1 {
			t.Errorf("after a loss %d dials and %d connections at once, want 1 and 1", n-before, e.Connections())
		}
		if end := c.end(); end == nil || end.How != h2.ConnectionLost || end.Unprocessed {
			t.Errorf("the stream on the lost connection: %+v", end)
		}
	})
}

// TestEndpointReplacesAConnectionThatGoesAway: streams that are open go on, new ones
// find another connection, also where only one is allowed.
func TestEndpointReplacesAConnectionThatGoesAway(t *testing.T) {
	for _, most := range []int{0, 1} {
		t.Run(fmt.Sprintf("maxConnections %d", most), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				h := w.host("a:1", manners{})
				b := to("x", "a:1")
				b.Spec.Connection.MaxConnections = most
				e := w.put(b)[0]
				old := append(append(open(e, 1), open(e, 1)...), open(e, 1)...)
				first := w.peer(h, 0)
				first.goAway(1<<31-1, http2.ErrCodeNo, "")
				synctest.Wait()
				if e.Connections() != 1 || len(w.dials("a:1")) != 2 {
					t.Errorf("%d connections after %d dials, want a new one at once", e.Connections(), len(w.dials("a:1")))
				}
				open(e, 1)[0].wantOpen(t)
				if got := w.peer(h, 1).got(); got != "HEADERS 1" {
					t.Errorf("the new connection got %s", got)
				}
				first.goAway(old[1].ID(), http2.ErrCodeNo, "")
				synctest.Wait()
				if end := old[2].end(); end == nil || end.How != h2.PeerGoneAway || !end.Unprocessed {
					t.Errorf("the stream above the last id: %+v", end)
				}
				for _, c := range old[:2] {
					if end := c.end(); end != nil {
						t.Errorf("a stream at or below the last id: %+v", end)
					}
					first.reply(c.ID())
				}
				synctest.Wait()
				time.Sleep(2 * time.Second)
				if !first.over() {
					t.Error("the connection that went away did not end with its last stream")
				}
				if e.Connections() != 1 || w.peer(h, 1).over() {
					t.Error("the new connection is gone")
				}
			})
		})
	}
}

func TestEndpointIsNotUsableWhileItsConnectionIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{})
		e := w.put(to("x", "a:1"))[0]
		open(e, 1)[0].wantOpen(t)
		w.set(func() { h.mute = true })
		w.peer(h, 0).nc.Close()
		synctest.Wait()
		if e.Usable() {
			t.Error("it looks usable without a connection")
		}
		call(e).wantParked(t) // where there is no other
	})
}

// TestEndpointSendsWhatNeverLeftElsewhere: the frames were with us still when the
// connection ended.
func TestEndpointTellsWhatNeverLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{})
		e := w.put(to("x", "a:1"))[0]
		left := open(e, 1)[0]
		stays := &caller{e: e}
		var b h2.Batch
		if err := e.Open(&stays.Stream, &h2.Opening{Fields: request, End: true, Sink: stays}, &b); err != nil {
			t.Fatal(err)
		}
		w.peer(h, 0).nc.Close() // before b is flushed
		synctest.Wait()
		if end := left.end(); end == nil || end.How != h2.ConnectionLost || end.Unprocessed {
			t.Errorf("the stream whose HEADERS were written: %+v", end)
		}
		if end := stays.end(); end == nil || end.How != h2.ConnectionLost || !end.Unprocessed {
			t.Errorf("the stream whose HEADERS were not: %+v", end)
		}
		b.Flush()
	})
}

func TestEndpointProbesBeforeUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{})
		e := w.put(to("x", "a:1"))[0]
		use := func() string {
			c := open(e, 1)[0]
			c.wantOpen(t)
			p := w.peer(h, 0)
			p.reply(c.ID())
			synctest.Wait()
			return p.got()
		}
		if got := use(); got != "HEADERS 1" {
			t.Errorf("the first use: %s, want no PING", got)
		}
		time.Sleep(29 * time.Second)
		if got := use(); got != "HEADERS 3" {
			t.Errorf("after 29 s of silence: %s, want no PING", got)
		}
		time.Sleep(31 * time.Second)
		if got := use(); got != "HEADERS 5, PING" {
			t.Errorf("after 31 s of silence: %s, want a PING beside the stream", got)
		}
		for i := range 9 {
			time.Sleep(31 * time.Second)
			if got := use(); got != fmt.Sprint("HEADERS ", 7+2*i) {
				t.Errorf("%v after the last PING: %s, want none in 5 min", time.Duration(i+1)*31*time.Second, got)
			}
		}
		time.Sleep(31 * time.Second)
		if got := use(); got != "HEADERS 25, PING" {
			t.Errorf("5 min after the last PING: %s, want another", got)
		}
	})
}

// TestEndpointProbesOnceUnderLongStreams: an hour's silence is asked about once, which
// earns no too_many_pings.
func TestEndpointProbesOnceUnderLongStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{Idle: 2 * time.Hour})
		h := w.host("a:1", manners{})
		e := w.put(to("x", "a:1"))[0]
		open(e, 1)[0].wantOpen(t)
		time.Sleep(time.Hour)
		open(e, 1)[0].wantOpen(t)
		if got := w.peer(h, 0).got(); got != "HEADERS 1, PING, HEADERS 3" {
			t.Errorf("the backend got %s, want one PING", got)
		}
	})
}

func TestEndpointFindsADeadConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{noPong: true})
		e := w.put(to("x", "a:1"))[0]
		c := open(e, 1)[0]
		w.peer(h, 0).reply(c.ID())
		time.Sleep(time.Minute)
		c = open(e, 1)[0]
		c.wantOpen(t)
		time.Sleep(12 * time.Second)
		if end := c.end(); end == nil || end.How != h2.ConnectionLost {
			t.Errorf("12 s after a PING without answer the stream is %+v, want its connection lost", end)
		}
		if e.Connections() != 1 || len(w.dials("a:1")) != 2 {
			t.Errorf("%d connections after %d dials, want a second one", e.Connections(), len(w.dials("a:1")))
		}
	})
}

// TestEndpointProbesNoMoreAfterAComplaint: also not on its other connections.
func TestEndpointProbesNoMoreAfterAComplaint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{})
		e := w.put(to("x", "a:1"))[0]
		c := open(e, 1)[0]
		w.peer(h, 0).reply(c.ID())
		time.Sleep(time.Minute)
		c = open(e, 1)[0]
		if got := w.peer(h, 0).got(); got != "HEADERS 1, HEADERS 3, PING" {
			t.Fatalf("the backend got %s", got)
		}
		w.peer(h, 0).goAway(c.ID(), http2.ErrCodeEnhanceYourCalm, "too_many_pings")
		w.peer(h, 0).reply(c.ID())
		synctest.Wait()
		for i := range 5 {
			time.Sleep(time.Hour / 2)
			c = open(e, 1)[0]
			c.wantOpen(t)
			p := w.peer(h, 1)
			if got := p.got(); got != fmt.Sprint("HEADERS ", 1+2*i) {
				t.Errorf("%v after the complaint the new connection got %s, want no PING ever", time.Duration(i+1)*time.Hour/2, got)
			}
			p.reply(c.ID())
			synctest.Wait()
		}
	})
}

// TestEndpointServesAMomentLonger than the table mentions it: RPCs that found it
// there are on their way.
func TestEndpointServesAMomentLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{})
		slow := w.host("b:1", manners{})
		slow.mute = true
		list := w.put(to("x", "a:1", "b:1"))
		a, b := list[0], list[1]
		live := open(a, 1)[0]
		waiting := open(b, 1)[0]
		waiting.wantParked(t)

		w.put() // nothing left
		call(a).wantOpen(t)
		waiting.wantParked(t)
		time.Sleep(linger / 2)
		late := call(a)
		late.wantOpen(t)
		time.Sleep(2 * linger)
		call(a).wantError(t, ErrRetired)
		waiting.wantParked(t) // it has the time of the dial
		p := w.peer(h, 0)
		if p.over() || live.end() != nil {
			t.Error("the live stream was harmed")
		}
		if got := strings.ReplaceAll(p.got(), "PING, ", ""); got != "HEADERS 1, HEADERS 3, HEADERS 5, GOAWAY" {
			t.Errorf("the backend got %s", got)
		}
		for _, id := range []uint32{1, 3, 5} {
			p.reply(id)
		}
		time.Sleep(2 * time.Second) // a pipe has no half to close
		if !p.over() {
			t.Error("the connection did not end with its last stream")
		}
		if n := len(w.dials("a:1")); n != 1 {
			t.Errorf("dialled %d times, an endpoint that has left is not dialled again", n)
		}
		time.Sleep(10 * time.Second)
		waiting.wantError(t, ErrDown)
		call(b).wantError(t, ErrRetired)
		if n := len(w.dials("b:1")); n != 1 {
			t.Errorf("dialled %d times, an endpoint that has left is not tried again", n)
		}
	})
}

// TestEndpointThatComesBackKeepsItsConnections within that moment.
func TestEndpointThatComesBackKeepsItsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		w.host("a:1", manners{})
		w.host("b:1", manners{})
		a := w.put(to("x", "a:1"))[0]
		open(a, 1)[0].wantOpen(t)
		w.put(to("x", "b:1"))
		time.Sleep(linger / 2)
		again := w.put(to("x", "a:1", "b:1"))[0]
		time.Sleep(10 * linger)
		if again != a {
			t.Error("it is another endpoint")
		}
		open(again, 1)[0].wantOpen(t)
		if n := len(w.dials("a:1")); n != 1 {
			t.Errorf("dialled %d times, want once", n)
		}
	})
}

// TestEndpointThatComesBackIsTried: it was down when it left, and nobody has looked
// since.
func TestEndpointThatComesBackIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		a := w.put(to("x", "a:1"))[0]
		call(a)
		synctest.Wait()
		w.put()
		time.Sleep(linger / 2)
		w.host("a:1", manners{})
		w.put(to("x", "a:1"))
		if !a.Usable() {
			time.Sleep(backoffMax) // or somebody is at it
		}
		if !a.Usable() {
			t.Fatal("it never becomes usable again")
		}
		open(a, 1)[0].wantOpen(t)
	})
}

// TestEndpointLetsIdleConnectionsGo: a backend that ends what is idle is not dialled
// again before there is something to do, and is as good as any other until then.
func TestEndpointLetsIdleConnectionsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{})
		e := w.put(to("x", "a:1"))[0]
		for i := range 10 {
			c := open(e, 1)[0]
			c.wantOpen(t)
			p := w.peer(h, i)
			p.reply(c.ID())
			synctest.Wait()
			p.goAway(c.ID(), http2.ErrCodeNo, "max_idle")
			p.nc.Close()
			time.Sleep(time.Second / 4)
			if n := len(w.dials("a:1")); n != i+1 || !e.Usable() {
				t.Fatalf("%d dials after %d uses, usable %v", n, i+1, e.Usable())
			}
		}
	})
}

// TestEndpointClosesWhatIsIdle, and is there when it is wanted again.
func TestEndpointClosesWhatIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{Idle: time.Minute})
		h := w.host("a:1", manners{})
		e := w.put(to("x", "a:1"))[0]
		c := open(e, 1)[0]
		w.peer(h, 0).reply(c.ID())
		time.Sleep(2 * time.Minute)
		if !w.peer(h, 0).over() {
			t.Error("the connection is open after two minutes, the limit is one")
		}
		open(e, 1)[0].wantOpen(t)
	})
}

func TestPoolEndsWhatItStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{})
		w.host("b:1", manners{}).mute = true
		list := w.put(to("x", "a:1", "b:1", "c:1"))
		live, parked := open(list[0], 1)[0], open(list[1], 1)[0]
		open(list[2], 1)[0].wantError(t, ErrDown)
		w.put(to("x", "a:1")) // two are leaving
		w.stop()
		synctest.Wait()
		if end := live.end(); end == nil || end.How != h2.ConnectionLost {
			t.Errorf("the live stream: %+v", end)
		}
		parked.wantError(t, ErrDown)
		if !w.peer(h, 0).over() {
			t.Error("the connection is open still")
		}
		call(list[0]).wantError(t, ErrRetired)
		for _, e := range w.put(to("y", "d:1")) { // a change that comes too late
			call(e).wantError(t, ErrRetired)
		}
	})
}
