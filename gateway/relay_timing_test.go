package gateway

import (
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"golang.org/x/net/http2"

	"sluice/gateway/wire"
)

// timedProto has a method of each kind that timeouts tell apart.
const timedProto = `syntax = "proto3";
package shop;
service Cart {
  rpc Hang(Ask) returns (Ask);
  rpc Echo(stream Ask) returns (stream Ask);
}
message Ask {}
`

// TestTimeoutsBoundUnaryMethods: the rule's default, its maximum, and the caller's own
// deadline when that is earlier. The backend is told what holds.
func TestTimeoutsBoundUnaryMethods(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, policy, own string
		want              time.Duration
	}{
		{"default", "timeouts: {default: 100ms}", "", 100 * time.Millisecond},
		{"request, for callers without", "timeouts: {request: 100ms}", "", 100 * time.Millisecond},
		{"request, for callers with a later one", "timeouts: {request: 100ms}", "10S", 100 * time.Millisecond},
		{"the caller's own", "timeouts: {request: 10s, default: 50ms}", "150m", 150 * time.Millisecond},
		{"default below request", "timeouts: {request: 10s, default: 100ms}", "", 100 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startScript(t, manners{})
			g := startTreated(t, Config{}, test.policy, schemaOf(t, timedProto), backendAt("a", s.addr), routeTo("r", "a"))
			client := connect(t, g.address(), manners{})
			var pairs []string
			if test.own != "" {
				pairs = []string{"grpc-timeout", test.own}
			}
			start := time.Now()
			client.request(1, "/shop.Cart/Hang", pairs...)
			up := s.accept(t).awaitRequest()
			if left, ok := wire.ParseTimeout(up.get("grpc-timeout")); !ok || left > test.want {
				t.Errorf("the backend was given %q", up.get("grpc-timeout"))
			}
			e := client.awaitHeaders(1)
			if got := e.at.Sub(start); e.get("grpc-status") != "4" || got < test.want || got > test.want+2*time.Second {
				t.Errorf("%v after %v", e, got)
			}
			await(t, "the end", func() bool { return g.metric(t, "sluice_endpoint_active") == 0 })
		})
	}
}

// TestTimeoutsBoundTheBeginningOfWhatNobodyKnows: what goes on then is a stream.
func TestTimeoutsBoundTheBeginningOfWhatNobodyKnows(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startTreated(t, Config{}, "timeouts: {request: 150ms}", backendAt("a", s.addr), routeTo("r", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Unknown")
	client.request(3, "/shop.Cart/Unknown")
	client.request(5, "/shop.Cart/Unknown", "grpc-timeout", "400m")
	start := time.Now()
	p := s.accept(t)
	var ups []uint32
	for range 3 {
		e := p.awaitRequest()
		for e.get(":path") != "/shop.Cart/Unknown" { // it is asked for its schema, too
			p.says(e.id)
			e = p.awaitRequest()
		}
		if e.get("grpc-timeout") != "" && e.get("grpc-timeout") < "2" {
			t.Errorf("the backend was given %q of what may be a stream", e.get("grpc-timeout"))
		}
		ups = append(ups, e.id)
	}
	p.headers(ups[1], false, answerHead...)
	p.headers(ups[2], false, answerHead...)
	client.awaitHeaders(3)
	client.awaitHeaders(5)
	if e := client.awaitHeaders(1); e.get("grpc-status") != "4" || e.at.Sub(start) < 100*time.Millisecond {
		t.Errorf("%v after %v", e, e.at.Sub(start))
	}
	if e := client.awaitHeaders(5); e.get("grpc-status") != "4" || e.at.Sub(start) < 300*time.Millisecond {
		t.Errorf("the caller's own deadline: %v after %v", e, e.at.Sub(start))
	}
	p.data(ups[1], message([]byte("still there")), false)
	client.awaitData(3)
	p.headers(ups[1], true, "grpc-status", "0")
	client.await("end", func(e event) bool { return e.id == 3 && e.end })
}

// says refuses a request of the gateway's own.
func (p *peer) says(id uint32) {
	p.headers(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "12")
}

// TestTimeoutsEndSilentStreams, and not those on which either side speaks.
func TestTimeoutsEndSilentStreams(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	const idleFor = 200 * time.Millisecond
	for _, schema := range []bool{true, false} {
		resources := []string{backendAt("a", b.addr), routeTo("r", "a")}
		if schema {
			resources = append(resources, schemaOf(t, timedProto))
		}
		g := startTreated(t, Config{}, "timeouts: {request: 100ms, streamIdle: 200ms}", resources...)
		st := stream(t, shortly(t), dial(t, g.address()), "/shop.Cart/Echo")
		start := time.Now()
		for time.Since(start) < 2*idleFor {
			say(t, st, []byte("hello"))
			hear(t, st)
			<-time.After(20 * time.Millisecond)
		}
		start = time.Now()
		var m []byte
		err := st.RecvMsg(&m)
		wantStatus(t, "a silent stream", err, codes.DeadlineExceeded, "sluice: nothing was said on the stream for too long")
		if took := time.Since(start); took < idleFor-30*time.Millisecond || took > 10*idleFor {
			t.Errorf("it ended after %v of silence", took)
		}
		if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", "idle"); got != 1 {
			t.Errorf("%v RPCs ended so", got)
		}
	}
}

// TestTimeoutsEndSilentStreamsThatBecomeKnown when they have begun.
func TestTimeoutsEndSilentStreamsThatBecomeKnown(t *testing.T) {
	t.Parallel()
	const policy = "timeouts: {streamIdle: 100ms}"
	s := startScript(t, manners{})
	sent := make(chan played, 9)
	s.play(t, func(q played) {
		if q.get(":path") != "/shop.Cart/Echo" {
			q.says("12", "") // it is asked for its schema, too
			return
		}
		sent <- q
	})
	resources := []string{backendAt("a", s.addr), routeTo("r", "a")}
	g := startTreated(t, Config{}, policy, resources...)
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Echo", "grpc-timeout", "5S")
	q := <-sent
	if err := g.Apply(treatedSet(t, policy, append(resources, schemaOf(t, timedProto))...)); err != nil {
		t.Fatal(err)
	}
	await(t, "the schema", func() bool { return g.schemas.facts("default/a", "/shop.Cart/Echo").streams() })
	q.p.headers(q.id, false, answerHead...)
	client.awaitHeaders(1)
	if e := client.awaitHeaders(1); e.get("grpc-message") != "sluice: nothing was said on the stream for too long" {
		t.Errorf("the caller got %v", e)
	}
}

// TestTimeoutsEndOldStreams whatever is said on them, each at a time of its own.
func TestTimeoutsEndOldStreams(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startTreated(t, Config{}, "timeouts: {streamIdle: 20s, streamMaxAge: 500ms}", schemaOf(t, timedProto), backendAt("a", b.addr), routeTo("r", "a"))
	cc := dial(t, g.address())
	each(20, 20, func(i int) {
		start := time.Now()
		st := stream(t, shortly(t), cc, "/shop.Cart/Echo")
		var err error
		for err == nil {
			m := []byte("x")
			if err = st.SendMsg(&m); err == nil || err == io.EOF {
				err = st.RecvMsg(&m)
			}
			<-time.After(5 * time.Millisecond)
		}
		wantStatus(t, "an old stream", err, codes.Unavailable, "sluice: the stream has reached its age: open it again")
		if took := time.Since(start); took < 450*time.Millisecond || took > 5*time.Second {
			t.Errorf("it ended after %v", took)
		}
	})
	if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", "aged"); got != 20 {
		t.Errorf("%v RPCs ended so", got)
	}
	await(t, "the backend to be free", func() bool { return b.open.Load() == 0 })
}

// TestTimeoutsOfStreamsLeaveUnaryMethodsAlone: one that takes its time is not idle.
func TestTimeoutsOfStreamsLeaveUnaryMethodsAlone(t *testing.T) {
	t.Parallel()
	late := startAnswering(t, map[string]answer{"Hang": func(_ *backend, st grpc.ServerStream) error {
		<-time.After(400 * time.Millisecond)
		return echo(nil, st)
	}})
	for _, schema := range []string{"", schemaOf(t, timedProto)} {
		resources := []string{backendAt("a", late.addr), routeTo("r", "a")}
		if schema != "" {
			resources = append(resources, schema)
		}
		g := startTreated(t, Config{}, "timeouts: {streamIdle: 100ms, streamMaxAge: 150ms}", resources...)
		mustCall(t, dial(t, g.address()), "/shop.Cart/Hang", []byte("x"))
	}
}

// TestTimeoutsEndOpenTries: at the end of the gateway's deadline the backend hears of it.
func TestTimeoutsEndOpenTries(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startTreated(t, Config{}, "timeouts: {request: 50ms}", schemaOf(t, timedProto), backendAt("a", s.addr), routeTo("r", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Hang")
	p := s.accept(t)
	if e := p.awaitReset(p.awaitRequest().id); e.code != http2.ErrCodeCancel {
		t.Errorf("the backend got %v", e)
	}
}
