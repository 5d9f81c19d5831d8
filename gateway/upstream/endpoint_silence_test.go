package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
)

// stops is a backend that says nothing on its first connection, and none on further ones.
func stops(w *world, address string) *host {
	h := w.host(address, manners{noPong: true})
	before := w.Pool.dial
	w.Pool.dial = func(ctx context.Context, a string) (net.Conn, error) {
		nc, err := before(ctx, a)
		w.set(func() { h.mute = h.mute || a == address })
		return nc, err
	}
	return h
}

// A backend that hangs gets no new RPCs after two and a half seconds, and is back with
// the first byte that it says. What is open on it goes on.
func TestEndpointStandsBackWhileItHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := stops(w, "a:1")
		w.host("a:2", manners{})
		list := w.put(to("x", "a:1", "a:2"))
		e := list[0]
		waiting := open(e, 1)[0]
		open(list[1], 1)
		time.Sleep(1900 * time.Millisecond)
		if e.Condition() != 0 {
			t.Errorf("it is %s after 1.9s", e.Status().State)
		}
		time.Sleep(650 * time.Millisecond)
		if s := e.Status(); e.Condition() != balance.Stalled || s.State != StateStalled || s.Why == "" {
			t.Errorf("after 2.5s it is %s: %s", s.State, s.Why)
		}
		if got := share(w, 100); got[0] != 0 {
			t.Errorf("the RPCs go to %v", got)
		}
		p := w.peer(h, 0)
		time.Sleep(10 * time.Minute)
		if got := p.got(); got != "HEADERS 1, PING" || p.over() || waiting.end() != nil {
			t.Errorf("the backend got %s, the connection is over: %v, the stream ended: %v", got, p.over(), waiting.end())
		}
		if n := len(w.dials("a:1")); n < 10 || n > 25 {
			t.Errorf("dialled %d times in ten minutes", n)
		}
		p.reply(1)
		synctest.Wait()
		if e.Condition() != 0 {
			t.Errorf("it was heard, and is %s", e.Status().State)
		}
		if got := share(w, 100); got[0] < 30 {
			t.Errorf("it was heard, and the RPCs go to %v", got)
		}
		time.Sleep(time.Second)
		for _, want := range []string{`msg="endpoint fell silent"`, `msg="endpoint came back"`} {
			if n := strings.Count(w.log.String(), want); n != 1 {
				t.Errorf("the log has %d times %s:\n%s", n, want, w.log)
			}
		}
	})
}

// One connection of several may be lost on its way: while another is heard the endpoint
// is well, and new streams go there.
func TestEndpointPrefersTheConnectionThatIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{noPong: true, settings: maxStreams(2).settings})
		e := w.put(to("x", "a:1"))[0]
		open(e, 2)
		open(e, 1)
		second := w.peer(h, 1)
		for range 60 {
			time.Sleep(100 * time.Millisecond)
			second.data(1, "x") // no response header: the stream ends, and the connection is heard
		}
		synctest.Wait()
		if e.Condition() != 0 {
			t.Errorf("one of two connections is silent, and the endpoint is %s", e.Status().State)
		}
		w.peer(h, 0).got()
		second.got()
		open(e, 1)[0].wantOpen(t)
		if got := second.got(); !strings.Contains(got, "HEADERS") {
			t.Errorf("the connection that is heard got %q", got)
		}
		time.Sleep(3 * time.Second)
		if e.Condition() != balance.Stalled {
			t.Errorf("both are silent, and the endpoint is %s", e.Status().State)
		}
		w.peer(h, 0).nc.Close()
		w.peer(h, 1).nc.Close()
		synctest.Wait()
		if e.Condition()&balance.Stalled != 0 {
			t.Error("there is no connection that could be silent")
		}
	})
}

// A connection that died above TCP is replaced: new RPCs have a further one within nine
// seconds, and the old one is drained when it is silent for ten. Its streams go on.
func TestEndpointReplacesAConnectionThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		old := w.host("a:1", manners{noPong: true})
		spec := to("x", "a:1")
		spec.Spec.Connection.MaxConnections = 1
		e := w.put(spec)[0]
		waiting := call(e)
		synctest.Wait()
		now := w.host("a:1", manners{answer: func(p *peer, id uint32, _ string) { p.reply(id) }})
		lost := w.peer(old, 0)
		w.t.Cleanup(old.close)
		time.Sleep(6 * time.Second)
		if s := e.State(); s != StateStalled || len(w.dials("a:1")) != 1 {
			t.Errorf("after 6s it is %s, and was dialled %d times", s, len(w.dials("a:1")))
		}
		time.Sleep(2500 * time.Millisecond)
		if e.Condition() != 0 || e.Connections() != 2 {
			t.Errorf("after 8.5s it is %s, with %d connections", e.State(), e.Connections())
		}
		for range 10 {
			c := call(e)
			synctest.Wait()
			if !c.over() {
				t.Error("an RPC went to the connection that hangs")
			}
		}
		if got := lost.got(); got != "HEADERS 1, PING" {
			t.Errorf("it was given up too early: %s", got)
		}
		time.Sleep(3500 * time.Millisecond)
		if got := lost.got(); got != "GOAWAY" || lost.over() || waiting.end() != nil || e.Connections() != 1 {
			t.Errorf("it got %q, is over: %v, its stream ended: %v, %d connections take streams", got, lost.over(), waiting.end(), e.Connections())
		}
		if n := strings.Count(w.log.String(), `msg="silent connections replaced"`); n != 1 {
			t.Errorf("told %d times:\n%s", n, w.log)
		}
		lost.reply(1)
		time.Sleep(time.Hour)
		if !waiting.over() || !lost.over() {
			t.Errorf("the stream is over: %v, and with it the connection: %v", waiting.over(), lost.over())
		}
		if n := len(w.dials("a:1")); n != 2 || len(now.peers) != 1 {
			t.Errorf("dialled %d times", n)
		}
	})
}

// An endpoint whose every connection falls silent is dialled less and less often, and at
// its own pace again when it has been well for a while.
func TestEndpointReplacesNoFasterThanIsOfUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{noPong: true})
		e := w.put(to("x", "a:1"))[0]
		for range 600 {
			call(e)
			time.Sleep(time.Second)
		}
		n := len(w.dials("a:1"))
		if n < 10 || n > 25 {
			t.Errorf("dialled %d times in ten minutes", n)
		}
		w.set(func() {
			for _, p := range h.peers {
				p.nc.Close()
			}
			h.manners = manners{answer: func(p *peer, id uint32, _ string) { p.reply(id) }}
		})
		time.Sleep(5 * time.Minute)
		if e.Condition() != 0 {
			t.Fatalf("it is well, and %s", e.State())
		}
		w.set(func() { h.manners.noPong, h.manners.answer = true, nil })
		for _, c := range *e.live.Load() {
			c.Transport().Close()
		}
		synctest.Wait()
		n = len(w.dials("a:1"))
		for range 30 {
			call(e)
			time.Sleep(time.Second)
		}
		if more := len(w.dials("a:1")) - n; more < 2 || more > 4 {
			t.Errorf("dialled %d times in the first 30s of a new silence", more)
		}
	})
}

// Nobody is dialled for the sake of an endpoint that is heard again, or is to have no RPCs.
func TestEndpointReplacesOnlyWhatItNeeds(t *testing.T) {
	for name, end := range map[string]func(w *world, p *peer){
		"heard again": func(_ *world, p *peer) { p.reply(1) },
		"left":        func(w *world, _ *peer) { w.put() },
		"without weight": func(w *world, _ *peer) {
			spec := to("x", "a:1")
			spec.Spec.Endpoints[0].Weight = 0
			w.put(spec)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				h := w.host("a:1", manners{noPong: true})
				call(w.put(to("x", "a:1"))[0])
				time.Sleep(6 * time.Second)
				end(w, w.peer(h, 0))
				time.Sleep(time.Minute)
				if n := len(w.dials("a:1")); n != 1 {
					t.Errorf("dialled %d times", n)
				}
			})
		})
	}
}

// A backend that has complained of PINGs is never asked, on no connection of its.
func TestEndpointDoesNotAskWhoComplains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{noPong: true})
		e := w.put(to("x", "a:1"))[0]
		open(e, 1)
		w.peer(h, 0).goAway(1, http2.ErrCodeEnhanceYourCalm, "too_many_pings")
		synctest.Wait()
		open(e, 1)[0].wantOpen(t)
		time.Sleep(time.Minute)
		if got := w.peer(h, 1).got(); got != "HEADERS 1" {
			t.Errorf("the backend got %s", got)
		}
		if e.Condition() != 0 {
			t.Errorf("it is %s", e.Status().State)
		}
	})
}

// grpcServer is a server of grpc-go, as it comes, behind the world's address; its
// handler thinks for a while before it answers, and between its messages.
func grpcServer(t *testing.T, w *world, address string) (accepted func() int) {
	server := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, st grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(st)
		var request []byte
		if err := st.RecvMsg(&request); err != nil && err != io.EOF {
			return err
		}
		think, messages := 20*time.Second, 1
		switch {
		case strings.HasSuffix(method, "Stream"):
			think, messages = 1500*time.Millisecond, 400
		case strings.HasSuffix(method, "Subscribe"):
			<-st.Context().Done()
			return st.Context().Err()
		}
		for range messages {
			time.Sleep(think)
			if err := st.SendMsg(&request); err != nil {
				return err
			}
		}
		return nil
	}))
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(l) })
	t.Cleanup(func() {
		w.stop()
		server.Stop()
		wg.Wait()
	})
	before := w.Pool.dial
	dialled := 0
	w.Pool.dial = func(ctx context.Context, a string) (net.Conn, error) {
		if a != address {
			return before(ctx, a)
		}
		dialled++
		near, far := net.Pipe()
		select {
		case l.conns <- far:
			return near, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return func() int { return dialled }
}

type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (rawCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}

func (rawCodec) Name() string { return "proto" }

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, errors.New("closed")
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// A server of grpc-go with the policy that it comes with takes three PINGs too many for
// an attack. Handlers that think for long, one after the other and beside one another,
// and streams with pauses do not make us send them.
func TestEndpointAsksAsServersOfGRPCAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		dialled := grpcServer(t, w, "a:1")
		e := w.put(to("x", "a:1"))[0]
		var all []*caller
		begin := func(path string) {
			c := &caller{e: e, request: requestTo(path), message: []byte(prefixed("hello"))}
			c.try()
			all = append(all, c)
		}
		for range 10 {
			begin("/a.B/Think")
			time.Sleep(7 * time.Second)
			begin("/a.B/Think")
			time.Sleep(25 * time.Second)
		}
		begin("/a.B/Stream") // ten minutes of it
		time.Sleep(5 * time.Minute)
		begin("/a.B/Think")
		time.Sleep(10 * time.Minute)
		for i, c := range all {
			if !c.over() || c.end() != nil {
				t.Errorf("RPC %d: over %v, ended early %v", i, c.over(), c.end())
			}
		}
		if n := dialled(); n != 1 || e.Connections() != 1 {
			t.Errorf("%d connections were made, %d are open; want the first to live\n%s", n, e.Connections(), w.log)
		}
		if n := strings.Count(w.log.String(), "fell silent"); n != 0 {
			t.Errorf("it was taken for silent:\n%s", w.log)
		}
	})
}

// A quiet subscription, and beside it calls that are answered late or given up: each
// silence has its PINGs, and the server bears them. One after the other they would be
// too many.
func TestEndpointAsksBesideASubscriptionAsServersOfGRPCAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		dialled := grpcServer(t, w, "a:1")
		e := w.put(to("x", "a:1"))[0]
		begin := func(path string) *caller {
			c := &caller{e: e, request: requestTo(path), message: []byte(prefixed("hello"))}
			c.try()
			return c
		}
		subscription := begin("/a.B/Subscribe")
		for minute := range 120 {
			answered := minute%20 < 5 // three quarters of the time the server sends nothing at all
			for range 3 {
				c := begin("/a.B/Think")
				if !answered {
					time.Sleep(8 * time.Second)
					c.reset()
				}
				time.Sleep(20*time.Second + time.Duration(minute)*time.Millisecond)
			}
		}
		if subscription.end() != nil || dialled() != 1 || e.Connections() != 1 {
			t.Errorf("the subscription ended: %v, %d connections were made, %d are open; want the first to live\n%s",
				subscription.end(), dialled(), e.Connections(), w.log)
		}
		if n := strings.Count(w.log.String(), "fell silent"); n != 0 {
			t.Errorf("it was taken for silent:\n%s", w.log)
		}
		subscription.reset()
	})
}
