package gateway

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"

	"golang.org/x/net/http2"

	"sluice/gateway/wire"
)

// TestRelayEndsAtTheDeadline has a raw caller, which does not watch its own
// deadline, and a backend that never answers.
func TestRelayEndsAtTheDeadline(t *testing.T) {
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	p := s.accept(t)
	p.awaitRequest()

	const timeout = 120 * time.Millisecond
	var late []time.Duration
	for i := range 9 {
		id := uint32(2*i + 3)
		start := time.Now()
		client.request(id, "/shop.Cart/Get", "grpc-timeout", "120m")
		up := p.awaitRequest()
		left, ok := wire.ParseTimeout(up.get("grpc-timeout"))
		if !ok || left > timeout || left < timeout-100*time.Millisecond {
			t.Errorf("the backend was given %q, want less than 120 ms and not much less", up.get("grpc-timeout"))
		}
		if len(up.all("grpc-timeout")) != 1 || up.fields[4].Name != "grpc-timeout" {
			t.Errorf("grpc-timeout does not stand right behind the pseudo-fields: %v", up)
		}
		if i%2 == 1 { // in mid-response
			p.headers(up.id, false, ":status", "200", "content-type", "application/grpc")
			client.awaitHeaders(id)
			p.data(up.id, message([]byte("part")), false)
			client.awaitData(id)
		}
		e := client.awaitHeaders(id)
		if !e.end || e.get("grpc-status") != "4" || e.get("grpc-message") != "sluice: the deadline has passed" {
			t.Errorf("at the deadline: %v", e)
		}
		if early := timeout - e.at.Sub(start); early > 0 {
			t.Errorf("ended %v before the deadline", early)
		}
		late = append(late, e.at.Sub(start)-timeout)
		if got := p.awaitReset(up.id); got.code != http2.ErrCodeCancel {
			t.Errorf("the backend got %v, want CANCEL", got)
		}
	}
	slices.Sort(late)
	t.Logf("late by %v", late)
	if median := late[len(late)/2]; median > 15*time.Millisecond {
		t.Errorf("the median of 9 deadlines was %v late, want 10 ms and the way to here", median)
	}
	if worst := late[len(late)-1]; worst > 50*time.Millisecond {
		t.Errorf("one deadline was %v late, want 50 ms at most", worst)
	}
	if got := g.metric(t, "sluice_rpc_ended_total", "code", "DEADLINE_EXCEEDED"); got != 9 {
		t.Errorf("%v RPCs ended as DEADLINE_EXCEEDED, want 9", got)
	}
}

// TestRelayForwardsTheTimeThatRemains lets time pass before the backend is
// reached: the budget is the whole RPC's.
func TestRelayForwardsTheTimeThatRemains(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get", "grpc-timeout", "10S")
	p := s.accept(t)
	first := p.awaitRequest()
	before, ok := wire.ParseTimeout(first.get("grpc-timeout"))
	if !ok || before > 10*time.Second || before < 5*time.Second {
		t.Errorf("first attempt: %q, want a little less than 10S", first.get("grpc-timeout"))
	}
	<-time.After(30 * time.Millisecond)
	p.reset(first.id, http2.ErrCodeRefusedStream) // sent elsewhere: here it is again
	second := p.awaitRequest()
	after, ok := wire.ParseTimeout(second.get("grpc-timeout"))
	if !ok || after > before-30*time.Millisecond {
		t.Errorf("second attempt: %q, want 30 ms less than %v at least", second.get("grpc-timeout"), before)
	}
	p.reply(second.id, nil)
	client.await("end", func(e event) bool { return e.id == 1 && e.end })
}

// TestRelayTakesEveryTimeout covers the units, and what is not a timeout.
func TestRelayTakesEveryTimeout(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	tests := []struct{ timeout, status string }{
		{"99999999H", "0"},
		{"1M", "0"},
		{"20S", "0"},
		{"20000m", "0"},
		{"20000000u", "0"},
		{"99999999n", "0"}, // 100 ms, and the answer is at once
		{"0S", "4"},
		{"1n", "4"},
		{"", "13"},
		{"1", "13"},
		{"S", "13"},
		{"-1S", "13"},
		{"123456789S", "13"},
		{"1s", "13"},
		{"1.5S", "13"},
	}
	for i, test := range tests {
		id := uint32(2*i + 1)
		client.request(id, "/shop.Cart/Echo", "grpc-timeout", test.timeout)
		client.data(id, message(nil), true)
		if e := client.await("end", func(e event) bool { return e.id == id && e.end }); e.get("grpc-status") != test.status {
			t.Errorf("grpc-timeout %q: %v, want grpc-status %s", test.timeout, e, test.status)
		}
	}
}

// TestRelayKeepsTheDeadlineOfParkedRPCs: the backend takes connections and never
// says a word.
func TestRelayKeepsTheDeadlineOfParkedRPCs(t *testing.T) {
	t.Parallel()
	l := listenMute(t)
	g := startGateway(t, Config{}, backendAt("a", l), routeTo("a", "a"))
	conn := dial(t, g.address())
	conn.Connect() // else a busy machine spends the 100 ms on it, and nothing ever comes
	await(t, "the connection", func() bool { return conn.GetState() == connectivity.Ready })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var err error
	d := took(func() { _, err = invoke(ctx, conn, "/shop.Cart/Who", nil) })
	wantStatus(t, "parked", err, codes.DeadlineExceeded, "")
	if d < 100*time.Millisecond || d > time.Second {
		t.Errorf("it took %v, want 100 ms", d)
	}
	await(t, "the RPC to end", func() bool { return g.metric(t, "sluice_rpc_ended_total", "code", "DEADLINE_EXCEEDED") == 1 })
	await(t, "the endpoint to be free", func() bool { return g.metric(t, "sluice_endpoint_active") == 0 })
}

// TestRelayAgreesWithTheClientOnDeadlines: whoever is first, the code is the same.
func TestRelayAgreesWithTheClientOnDeadlines(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	conns := []*grpc.ClientConn{dial(t, g.address()), dial(t, g.address())}
	each(200, 50, func(i int) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+i)*time.Millisecond)
		defer cancel()
		_, err := invoke(ctx, conns[i%2], "/shop.Cart/Hang", nil)
		wantStatus(t, "hanging RPC", err, codes.DeadlineExceeded, "")
	})
	await(t, "the backend to be free", func() bool { return b.open.Load() == 0 })
	await(t, "every RPC to be over", func() bool { return g.metric(t, "sluice_rpc_open") == 0 })
}

// TestRelayTellsTheBackendsDeadlineFromItsCancel: a backend that watches the
// deadline too ends the stream by CANCEL, a moment before we do.
func TestRelayTellsTheBackendsDeadlineFromItsCancel(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	p := s.accept(t)
	p.awaitRequest()

	start := time.Now()
	client.request(3, "/shop.Cart/Get", "grpc-timeout", "300m")
	up := p.awaitRequest()
	<-time.After(time.Until(start.Add(294 * time.Millisecond)))
	p.reset(up.id, http2.ErrCodeCancel)
	if e := client.awaitHeaders(3); e.get("grpc-status") != "4" || e.get("grpc-message") != "sluice: the deadline has passed" {
		t.Errorf("CANCEL 6 ms before the deadline: %v, want DEADLINE_EXCEEDED", e)
	}

	client.request(5, "/shop.Cart/Get", "grpc-timeout", "1H")
	p.reset(p.awaitRequest().id, http2.ErrCodeCancel)
	if e := client.awaitHeaders(5); e.get("grpc-status") != "1" || e.get("grpc-message") != "sluice: the backend reset the stream with CANCEL" {
		t.Errorf("CANCEL an hour before the deadline: %v, want CANCELLED", e)
	}
}
