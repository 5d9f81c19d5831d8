package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"sluice/gateway/web"
	"sluice/store"
)

// drainedSet has the endpoint of an address drained, in whatever backend it is.
func drainedSet(set *store.Set, address string, grace time.Duration) *store.Set {
	for i, b := range set.Backends {
		own := *b
		own.Spec.Endpoints = append([]store.Endpoint(nil), b.Spec.Endpoints...)
		for j := range own.Spec.Endpoints {
			if e := &own.Spec.Endpoints[j]; e.Address == address {
				e.Weight, e.Drain = 0, &store.Drain{Endpoint: address, Since: time.Now(), Grace: store.Duration(grace), By: "test"}
			}
		}
		set.Backends[i] = &own
	}
	return set
}

func (n *node) applySet(t testing.TB, set *store.Set) {
	t.Helper()
	if err := n.Apply(set); err != nil {
		t.Fatal(err)
	}
}

// startHolding is a backend of the service Steps whose streams say its name, and go on
// until their caller is gone.
func startHolding(t *testing.T, name string) *backend {
	b := startAnswering(t, map[string]answer{"Step": func(b *backend, st grpc.ServerStream) error {
		m := told(b.name)
		if err := st.SendMsg(&m); err != nil {
			return err
		}
		<-st.Context().Done()
		return st.Context().Err()
	}})
	b.name = name
	return b
}

// heldStream is one that has begun, of some caller.
type heldStream struct {
	form string
	on   string        // the backend that answers it
	rest func() string // what is still to come of it, until its end
}

// holdStreams opens a stream in each protocol, and waits for the first message of each.
func holdStreams(t *testing.T, g *node) (streams []heldStream) {
	t.Helper()
	native := stream(t, t.Context(), dial(t, g.address()), "/grid.Steps/Step")
	say(t, native, nil)
	streams = append(streams, heldStream{"native gRPC", nameIn(hear(t, native)), func() string {
		var m []byte
		return native.RecvMsg(&m).Error()
	}})
	for form := range streamForms {
		for _, version := range []int{1, 2} {
			resp := askStream(t, g, version, form, "Step")
			var got []byte
			buf := make([]byte, 1000)
			for len(bytes.TrimLeft(got, "[")) == 0 {
				n, err := resp.Body.Read(buf)
				if got = append(got, buf[:n]...); err != nil {
					t.Fatalf("%s over HTTP/%d, after %q: %v", streamForms[form].name, version, got, err)
				}
			}
			on := "" // of base64
			for _, name := range []string{"aaa", "bbb"} {
				if bytes.Contains(got, []byte(name)) {
					on = name
				}
			}
			streams = append(streams, heldStream{fmt.Sprintf("%s HTTP/%d", streamForms[form].name, version), on, func() string {
				rest, err := io.ReadAll(resp.Body)
				if err != nil {
					return string(rest) + err.Error()
				}
				if strings.Contains(streamForms[form].name, "text") {
					raw, err := new(web.TextDecoder).Append(nil, rest)
					if err != nil {
						return err.Error()
					}
					rest = raw
				}
				return string(rest)
			}})
		}
	}
	return streams
}

// TestEvictionEndsStreamsInTheirCallersProtocol: streams on a drained endpoint go on for
// their grace, and then end by a status that says what to do. New ones go elsewhere at
// once.
func TestEvictionEndsStreamsInTheirCallersProtocol(t *testing.T) {
	t.Parallel()
	const grace = 500 * time.Millisecond
	a, b := startHolding(t, "aaa"), startHolding(t, "bbb")
	resources := []string{schemaOf(t, stepsProto), backendAt("x", a.addr, b.addr+"=0"), routeTo("r", "x")}
	g := startGateway(t, Config{}, resources...)
	streams := holdStreams(t, g)

	resources[1] = backendAt("x", a.addr, b.addr)
	set := drainedSet(parse(t, resources...), a.addr, grace)
	begun := time.Now()
	g.applySet(t, set)
	for _, s := range holdStreams(t, g) {
		if s.on == "aaa" {
			t.Errorf("%s: a new stream went to the endpoint that is drained", s.form)
		}
	}
	if d := time.Since(begun); d < grace && a.open.Load() != int64(len(streams)) {
		t.Errorf("%d of %d streams are open %v after the drain began", a.open.Load(), len(streams), d)
	}
	for _, s := range streams {
		text := s.rest()
		if d := time.Since(begun); d < grace {
			t.Errorf("%s: ended after %v, in its grace of %v", s.form, d, grace)
		}
		if !strings.Contains(text, "sluice: the endpoint is being drained, or streams move: open it again") {
			t.Errorf("%s: ended with %q", s.form, text)
		}
		if !strings.Contains(strings.ToLower(text), "unavailable") && !strings.Contains(text, "14") {
			t.Errorf("%s: %q does not say UNAVAILABLE", s.form, text)
		}
	}
	await(t, "the backend's streams to be cancelled", func() bool { return a.cancelled.Load() == int64(len(streams)) })
	if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", "evicted"); got != float64(len(streams)) {
		t.Errorf("%v RPCs are counted as evicted, want %d", got, len(streams))
	}
	if n := strings.Count(g.log.String(), "grace of drained endpoint over"); n != 1 {
		t.Errorf("the log tells of the grace %d times, want once", n)
	}
	if got := b.open.Load(); got != int64(len(streams)) {
		t.Errorf("%d streams are open on the other endpoint, want %d", got, len(streams))
	}
}

// TestEvictionOfRPCsThatMayBeSentAgain: where a policy says that they are, their callers
// hear nothing of it.
func TestEvictionOfRPCsThatMayBeSentAgain(t *testing.T) {
	t.Parallel()
	a, b := startBackend(t, "a"), startAnswering(t, map[string]answer{"Hang": who})
	resources := []string{
		backendAt("x", a.addr, b.addr), routeTo("r", "x"),
		policyFor("r", "retry: {attempts: 1, codes: [UNAVAILABLE]}"),
	}
	g := startGateway(t, Config{}, resources...)
	cc := dial(t, g.address())
	var work sync.WaitGroup
	await(t, "an RPC to go to the endpoint that hangs", func() bool {
		work.Go(func() {
			if m, err := invoke(shortly(t), cc, "/shop.Cart/Hang", nil); err != nil || string(m) != "own" {
				t.Errorf("the caller got %q, %v, want the answer of the other endpoint", m, err)
			}
		})
		return a.open.Load() > 0
	})
	g.applySet(t, drainedSet(parse(t, resources...), a.addr, time.Millisecond))
	work.Wait()
	await(t, "the drained endpoint to be empty", func() bool { return a.open.Load() == 0 })
	if a.cancelled.Load() == 0 {
		t.Error("none of its streams was cancelled")
	}
}

// TestEvictionWithoutGraceWaits: who drains without a grace gives as much time as it takes,
// and who takes a drain back takes its end back.
func TestEvictionWithoutGraceWaits(t *testing.T) {
	t.Parallel()
	a, b := startBackend(t, "a"), startBackend(t, "b")
	resources := []string{backendAt("x", a.addr, b.addr+"=0"), routeTo("r", "x")}
	g := startGateway(t, Config{}, resources...)
	st := stream(t, t.Context(), dial(t, g.address()), "/shop.Cart/Echo")
	say(t, st, []byte("1"))
	hear(t, st)
	g.applySet(t, drainedSet(parse(t, resources...), a.addr, 0))
	if list, next := g.pool.Overdue(time.Now().Add(time.Hour)); len(list) > 0 || next >= 0 {
		t.Errorf("%d endpoints are overdue, and more in %v", len(list), next)
	}
	g.applySet(t, drainedSet(parse(t, resources...), a.addr, time.Minute))
	if list, _ := g.pool.Overdue(time.Now().Add(time.Hour)); len(list) != 1 {
		t.Errorf("%d endpoints are overdue in an hour, want 1", len(list))
	}
	g.apply(t, resources...)
	if list, next := g.pool.Overdue(time.Now().Add(time.Hour)); len(list) > 0 || next >= 0 {
		t.Errorf("after the drain was taken back %d endpoints are overdue, and more in %v", len(list), next)
	}
	say(t, st, []byte("2"))
	hear(t, st)
}

// TestEvictionEndsRequestsOfHTTP1: whoever waits for an answer of HTTP/1 is told as well.
func TestEvictionEndsRequestsOfHTTP1(t *testing.T) {
	t.Parallel()
	waiting := make(chan struct{}, 1)
	s := rawBackend(t, func(c *rawConn) {
		for c.readHead() != "" {
			waiting <- struct{}{}
		}
	})
	resources := []string{backendWith("x", "protocol: http1", s.addr), httpRoute("r", "{backendRefs: [{group: sluice.dev, kind: Backend, name: x}]}")}
	g := startGateway(t, Config{}, resources...)
	answer := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + g.address() + "/")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- resp.Status + " " + string(body)
	}()
	<-waiting
	g.applySet(t, drainedSet(parse(t, resources...), s.addr, time.Millisecond))
	if got := <-answer; !strings.HasPrefix(got, "503 ") || !strings.Contains(got, outcomes[evicted].message) {
		t.Errorf("the caller got %q", got)
	}
	if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", "evicted"); got != 1 {
		t.Errorf("%v requests are counted as evicted, want 1", got)
	}
}

// TestRebalanceGivesNewEndpointsTheirShareOfLongStreams, which would have stayed where they
// are for days: from those that have more, and no more than that.
func TestRebalanceGivesNewEndpointsTheirShareOfLongStreams(t *testing.T) {
	t.Parallel()
	const streams = 60
	a, b := startBackend(t, "a"), startBackend(t, "b")
	g := startGateway(t, Config{}, backendAt("x", a.addr), routeTo("r", "x"))
	g.moving.spread = 300 * time.Millisecond
	cc := dial(t, g.address())
	var moved atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	for range streams {
		st := stream(t, ctx, cc, "/shop.Cart/Hold")
		hear(t, st)
		work.Go(func() { holdOn(t, ctx, cc, st, &moved) })
	}
	opened := time.Now()
	g.apply(t, backendAt("x", a.addr, b.addr), routeTo("r", "x"))
	if n, err := g.Rebalance("default/x", 100); err != nil || n != 0 {
		t.Errorf("of streams that are young %d move, %v", n, err)
	}
	g.moving.long = 100 * time.Millisecond
	await(t, "the streams to be long ones", func() bool { return time.Since(opened) > g.moving.long })
	if n, err := g.Rebalance("default/x", 10); err != nil || n != streams/10 {
		t.Errorf("of ten percent %d streams move, %v, want %d", n, err, streams/10)
	}
	if _, err := g.Rebalance("default/x", 10); !errors.Is(err, ErrRebalancing) {
		t.Errorf("a second one meanwhile: %v", err)
	}
	await(t, "the first streams to move", func() bool { return b.open.Load() == streams/10 && a.open.Load() == streams-streams/10 })

	// Those that have moved are young, and the others are more than the half that is too much.
	begun, n := time.Now(), 0
	await(t, "the rebalance to be over", func() bool {
		var err error
		n, err = g.Rebalance("default/x", 100)
		return err == nil
	})
	if n != streams/2-streams/10 {
		t.Errorf("%d streams move, want %d: no endpoint gets below its share", n, streams/2-streams/10)
	}
	await(t, "the streams to move", func() bool { return a.open.Load() == streams/2 && b.open.Load() == streams/2 })
	if d := time.Since(begun); d < g.moving.spread/2 {
		t.Errorf("they moved within %v, want them spread over %v", d, g.moving.spread)
	}
	if got := moved.Load(); got != streams/2 {
		t.Errorf("%d streams were ended, want %d", got, streams/2)
	}
	await(t, "the rebalance to be over", func() bool {
		n, err := g.Rebalance("default/x", 100)
		return err == nil && n == 0
	})
}

// holdOn keeps a stream open, and opens it again when it is told to.
func holdOn(t *testing.T, ctx context.Context, cc *grpc.ClientConn, st grpc.ClientStream, moved *atomic.Int64) {
	for {
		var m []byte
		err := st.RecvMsg(&m)
		if ctx.Err() != nil {
			return
		}
		wantStatus(t, "the end of a stream", err, codes.Unavailable, "sluice: the endpoint is being drained, or streams move: open it again")
		moved.Add(1)
		if st, err = cc.NewStream(ctx, bidi, "/shop.Cart/Hold"); err == nil {
			err = st.RecvMsg(&m)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.Errorf("opening it again: %v", err)
			return
		}
	}
}

func TestRebalanceRefuses(t *testing.T) {
	t.Parallel()
	a := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("x", a.addr), routeTo("r", "x"))
	mustCall(t, dial(t, g.address()), "/shop.Cart/Who", nil)
	if _, err := g.Rebalance("default/none", 50); !errors.Is(err, ErrNoBackend) {
		t.Errorf("a backend that does not exist: %v", err)
	}
	for _, percent := range []int{0, -1, 101} {
		if _, err := g.Rebalance("default/x", percent); err == nil {
			t.Errorf("%d percent are moved", percent)
		}
	}
	if n, err := g.Rebalance("default/x", 100); n != 0 || err != nil {
		t.Errorf("of the only endpoint %d streams move, %v", n, err)
	}
	g.end(t)
	if _, err := g.Rebalance("default/x", 50); !errors.Is(err, ErrNotServing) {
		t.Errorf("a gateway that has ended: %v", err)
	}
}
