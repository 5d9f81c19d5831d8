package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/gateway/rest"
	"sluice/gateway/wire"
)

// openCall opens an RPC as a translating handler does.
func openCall(t *testing.T, g *node, ctx context.Context, o *rest.Opening) (rest.Call, error) {
	t.Helper()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, o.Method, nil)
	r.Host = "shop.example.com"
	c, err := (&way{g: g.Gateway}).Open(r, o)
	if err == nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

func mustOpen(t *testing.T, g *node, method string) rest.Call {
	t.Helper()
	c, err := openCall(t, g, shortly(t), &rest.Opening{Method: method, Codec: "proto"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func sendMessage(t *testing.T, c rest.Call, data []byte, last bool) {
	t.Helper()
	if err := c.Send(rest.Message{Data: data}, last); err != nil {
		t.Fatalf("send %d bytes: %v", len(data), err)
	}
}

func receiveMessage(t *testing.T, c rest.Call) []byte {
	t.Helper()
	m, err := c.Receive()
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return m.Data
}

func TestCallIsUnary(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	for _, size := range []int{0, 1, 100, sendUnit - wire.PrefixLen, sendUnit, 100_000, rest.DefaultMaxMessage} {
		c := mustOpen(t, g, "/shop.Cart/Echo")
		want := pattern(size, size)
		sendMessage(t, c, want, true)
		if got := receiveMessage(t, c); !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d others", len(want), len(got))
		}
		if _, err := c.Receive(); err != io.EOF {
			t.Errorf("after %d bytes: %v, want the end", size, err)
		}
		c.Close()
	}
	await(t, "every RPC to have ended well", func() bool {
		return g.metric(t, "sluice_rpc_ended_total", "code", "OK") == 7 && g.metric(t, "sluice_rpc_open") == 0
	})
}

func TestCallIsAConversation(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	c := mustOpen(t, g, "/shop.Cart/Echo")
	for i := range 100 {
		want := pattern(i, 10*i)
		sendMessage(t, c, want, false)
		if got := receiveMessage(t, c); !bytes.Equal(got, want) {
			t.Fatalf("message %d: got %d bytes, want %d", i, len(got), len(want))
		}
	}
	if err := c.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
}

func TestCallCarriesMetadataAndStatus(t *testing.T) {
	t.Parallel()
	b := startAnswering(t, map[string]answer{"Fail": func(_ *backend, st grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(st.Context())
		st.SendHeader(metadata.Pairs("x-head", strings.Join(md.Get("x-mine"), "+")))
		st.SetTrailer(metadata.Pairs("x-tail-bin", "\x00\x01"))
		return status.Error(codes.FailedPrecondition, "the cart is full: 100 %")
	}, "Refuse": func(_ *backend, st grpc.ServerStream) error {
		st.SetTrailer(metadata.Pairs("x-tail", "1"))
		return status.Error(codes.NotFound, "none")
	}})
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	c, err := openCall(t, g, shortly(t), &rest.Opening{Method: "/shop.Cart/Fail", Metadata: http.Header{"X-Mine": {"1", "2"}, "Grpc-Timeout": {"1n"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CloseSend(); err != nil {
		t.Fatal(err)
	}
	header, err := c.Header()
	if err != nil || header.Get("X-Head") != "1+2" || header.Get("Content-Type") != "" {
		t.Errorf("header %v, %v", header, err)
	}
	_, err = c.Receive()
	var st *wire.Status
	if !errors.As(err, &st) || st.Code != wire.FailedPrecondition || st.Message != "the cart is full: 100 %" || st.Gateway {
		t.Errorf("got %v", err)
	}
	if got := c.Trailer(); got.Get("X-Tail-Bin") != "AAE" || got.Get("Grpc-Status") != "" {
		t.Errorf("trailer %v", got)
	}

	c = mustOpen(t, g, "/shop.Cart/Refuse")
	sendMessage(t, c, nil, true)
	if _, err := c.Header(); !errors.As(err, &st) || st.Code != wire.NotFound {
		t.Errorf("trailers-only: header says %v", err)
	}
	if got := c.Trailer(); got.Get("X-Tail") != "1" {
		t.Errorf("trailer %v", got)
	}
}

func TestCallEndsWithItsRequest(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	ctx, cancel := context.WithCancel(shortly(t))
	c, err := openCall(t, g, ctx, &rest.Opening{Method: "/shop.Cart/Hang"})
	if err != nil {
		t.Fatal(err)
	}
	sendMessage(t, c, nil, false)
	await(t, "the RPC to arrive", func() bool { return b.open.Load() == 1 })
	cancel()
	if _, err := c.Receive(); statusOfError(err).Code != wire.Canceled {
		t.Errorf("got %v", err)
	}
	if err := c.Send(rest.Message{}, true); statusOfError(err).Code != wire.Canceled {
		t.Errorf("sending says %v", err)
	}
	await(t, "the backend to hear of it", func() bool { return b.cancelled.Load() == 1 })
}

func TestCallEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	c, err := openCall(t, g, shortly(t), &rest.Opening{Method: "/shop.Cart/Hang", Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	sendMessage(t, c, nil, true)
	if _, err := c.Receive(); statusOfError(err).Code != wire.DeadlineExceeded || time.Since(start) > time.Second {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
}

// TestCallWaitsForSlowBackends: what a backend does not take is not held by us.
func TestCallWaitsForSlowBackends(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a", grpc.InitialWindowSize(64<<10), grpc.InitialConnWindowSize(64<<10), grpc.StaticStreamWindowSize(64<<10))
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	c := mustOpen(t, g, "/shop.Cart/Hang")
	var sent counter
	var work sync.WaitGroup
	work.Go(func() {
		for c.Send(rest.Message{Data: make([]byte, 10_000)}, false) == nil {
			sent.add(10_000)
		}
	})
	await(t, "the sender to be stopped", func() bool { return sent.steady(t) })
	if got := sent.get(); got > 400_000 {
		t.Errorf("%d bytes were taken for a backend that reads none", got)
	}
	c.Close()
	work.Wait()
}

// TestCallHoldsNoMoreThanItsWindow: nor what a handler does not read.
func TestCallHoldsNoMoreThanItsWindow(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	opened := mustOpen(t, g, "/shop.Cart/Source")
	c := opened.(*call)
	sendMessage(t, c, []byte("1000 10000"), true)
	receiveMessage(t, c)
	var held counter
	await(t, "the backend to be stopped", func() bool {
		c.mu.Lock()
		held.n = len(c.in)
		c.mu.Unlock()
		return held.steady(t)
	})
	if held.n > 1<<20+sendUnit {
		t.Errorf("%d bytes wait for a handler that does not read", held.n)
	}
	for i := 1; i < 1000; i++ {
		if got := receiveMessage(t, c); !bytes.Equal(got, pattern(i, 10_000)) {
			t.Fatalf("message %d is another", i)
		}
	}
	if _, err := c.Receive(); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
}

func TestCallRefusesMessagesOverTheLimit(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	c := mustOpen(t, g, "/shop.Cart/Source")
	sendMessage(t, c, fmt.Appendf(nil, "1 %d", rest.DefaultMaxMessage+1), true)
	_, err := c.Receive()
	if st := statusOfError(err); st.Code != wire.ResourceExhausted || !strings.Contains(st.Message, "4194305 bytes, the limit of this route is 4194304") {
		t.Errorf("got %v", err)
	}
	if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", "too_large"); got != 1 {
		t.Errorf("%v RPCs were too large, want 1", got)
	}
	await(t, "the backend to hear of it", func() bool { return b.open.Load() == 0 })
}

// TestCallsAreSplitExactly: turns are taken by whoever calls, in whatever protocol.
func TestCallsAreSplitExactly(t *testing.T) {
	t.Parallel()
	stable, canary := startBackend(t, "stable"), startBackend(t, "canary")
	g := startGateway(t, Config{}, backendAt("stable", stable.addr), backendAt("canary", canary.addr), routeTo("r", "stable=90", "canary=10"))
	cc := dial(t, g.address())
	for range 500 {
		c := mustOpen(t, g, "/shop.Cart/Who")
		sendMessage(t, c, nil, true)
		receiveMessage(t, c)
		c.Close()
		mustCall(t, cc, "/shop.Cart/Who", nil)
	}
	if s, k := stable.served.Load(), canary.served.Load(); s != 900 || k != 100 {
		t.Errorf("%d and %d, want 900 and 100", s, k)
	}
}

func TestCallSaysWhyItGoesNowhere(t *testing.T) {
	t.Parallel()
	g := startGateway(t, Config{})
	_, err := openCall(t, g, shortly(t), &rest.Opening{Method: "/shop.Cart/Echo"})
	if st := statusOfError(err); st == nil || st.Code != wire.Unimplemented || st.HTTP != http.StatusNotFound || !st.Gateway {
		t.Errorf("got %v", err)
	}
	if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", "no_hostname"); got != 1 {
		t.Errorf("%v RPCs went nowhere, want 1", got)
	}
}

// counter counts, and tells when it has stopped.
type counter struct {
	mu sync.Mutex
	n  int
	at time.Time
	is int
}

func (c *counter) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
}

func (c *counter) get() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// steady reports whether it has been the same for 200 ms.
func (c *counter) steady(t *testing.T) bool {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n != c.is || c.at.IsZero() {
		c.is, c.at = c.n, time.Now()
	}
	return c.n > 0 && time.Since(c.at) > 200*time.Millisecond
}
