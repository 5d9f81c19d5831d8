package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"

	"sluice/gateway/h2"
)

// TestConnectionAgeIsNoticedByNobody: a client of grpc under steady load, of RPCs and of new
// streams, sees no failure while its connections are replaced several times a second.
func TestConnectionAgeIsNoticedByNobody(t *testing.T) {
	t.Parallel()
	const age, lasting = 300 * time.Millisecond, 2 * time.Second
	b := startBackend(t, "a")
	g := startGateway(t, Config{MaxConnectionAge: age, Limits: h2.Limits{MaxConcurrentStreams: 1000}}, backendAt("a", b.addr), routeTo("a", "a"))
	cc := dial(t, g.address())
	begun := time.Now()
	var done atomic.Int64
	each(16, 16, func(int) {
		for time.Since(begun) < lasting && !t.Failed() {
			if n := done.Add(1); n%4 == 0 {
				echoThrice(t, cc, fmt.Append(nil, "nonce-", n))
			} else {
				echoOnce(t, cc, fmt.Append(nil, "nonce-", n))
			}
		}
	})
	opened := g.metric(t, "sluice_conn_opened_total", "side", "downstream")
	t.Logf("%d RPCs and streams, %v connections", done.Load(), opened)
	if opened < 4 {
		t.Errorf("%v connections in %v, want one each %v or so", opened, lasting, age)
	}
	// Whoever is first to see that nothing is left on a connection closes it.
	await(t, "old connections to end", func() bool {
		return g.metric(t, "sluice_conn_closed_total", "side", "downstream") >= opened-1
	})
	if got := g.metric(t, "sluice_conn_closed_total", "side", "downstream", "reason", "aged"); got == 0 {
		t.Error("none is counted as too old")
	}
}

// echoOnce makes an RPC whose answer is its request.
func echoOnce(t *testing.T, cc *grpc.ClientConn, nonce []byte) {
	if m, err := invoke(shortly(t), cc, "/shop.Cart/Echo", nonce); err != nil || !bytes.Equal(m, nonce) {
		t.Errorf("RPC %s: %q, %v", nonce, m, err)
	}
}

// echoThrice does the same on a stream of its own.
func echoThrice(t *testing.T, cc *grpc.ClientConn, nonce []byte) {
	st, err := cc.NewStream(shortly(t), bidi, "/shop.Cart/Echo")
	for range 3 {
		var m []byte
		if err == nil {
			err = st.SendMsg(&nonce)
		}
		if err == nil {
			err = st.RecvMsg(&m)
		}
		if err != nil || !bytes.Equal(m, nonce) {
			t.Errorf("stream %s: %q, %v", nonce, m, err)
			return
		}
	}
	st.CloseSend()
	var m []byte
	if err := st.RecvMsg(&m); !errors.Is(err, io.EOF) {
		t.Errorf("the end of stream %s: %v", nonce, err)
	}
}

// TestConnectionAgeGivesStreamsTheirGrace: GOAWAY comes with the age, a stream that is open
// then has the grace, and ends by a status.
func TestConnectionAgeGivesStreamsTheirGrace(t *testing.T) {
	t.Parallel()
	const age, grace = 200 * time.Millisecond, 400 * time.Millisecond
	s := startScript(t, manners{})
	g := startGateway(t, Config{MaxConnectionAge: age, MaxConnectionAgeGrace: grace}, backendAt("a", s.addr), routeTo("a", "a"))
	begun := time.Now()
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	p := s.accept(t)
	id := p.awaitRequest().id
	p.headers(id, false, answerHead...)
	client.awaitHeaders(1)
	if e := client.awaitGoAway(); e.last != maxStreamID || e.code != http2.ErrCodeNo || time.Since(begun) < age*9/10 {
		t.Errorf("%v after %v, want GOAWAY with last stream 2^31-1 and NO_ERROR after %v, a tenth less or more", e, time.Since(begun), age)
	}
	if e := client.awaitGoAway(); e.last != 1 || e.code != http2.ErrCodeNo {
		t.Errorf("second step: %v, want GOAWAY with last stream 1", e)
	}
	e := client.awaitHeaders(1)
	if !e.end || e.get("grpc-status") != "14" || !strings.HasPrefix(e.get("grpc-message"), "sluice: ") {
		t.Errorf("the stream ended with %v, want UNAVAILABLE", e)
	}
	if d := time.Since(begun); d < age*9/10+grace {
		t.Errorf("it ended after %v, want age %v and grace %v", d, age, grace)
	}
	if e := p.awaitReset(id); e.code != http2.ErrCodeCancel {
		t.Errorf("the backend got %v", e)
	}
	client.awaitEnd()
}

// TestConnectionAgeWithoutGraceCutsNothing.
func TestConnectionAgeWithoutGraceCutsNothing(t *testing.T) {
	t.Parallel()
	const age = 100 * time.Millisecond
	b := startBackend(t, "a")
	g := startGateway(t, Config{MaxConnectionAge: age}, backendAt("a", b.addr), routeTo("a", "a"))
	cc := dial(t, g.address())
	st := stream(t, t.Context(), cc, "/shop.Cart/Echo")
	begun := time.Now()
	for n := 0; time.Since(begun) < 5*age; n++ {
		say(t, st, fmt.Append(nil, n))
		if got := hear(t, st); string(got) != fmt.Sprint(n) {
			t.Fatalf("got %q for %d", got, n)
		}
		mustCall(t, cc, "/shop.Cart/Who", nil)
	}
	if got := g.metric(t, "sluice_conn_opened_total", "side", "downstream"); got < 3 {
		t.Errorf("%v connections, want a new one each %v", got, age)
	}
}

// TestConnectionAgeOfHTTP1: the answer after it is the last one of the connection.
func TestConnectionAgeOfHTTP1(t *testing.T) {
	t.Parallel()
	const age = 200 * time.Millisecond
	g := startGateway(t, Config{MaxConnectionAge: age})
	nc, err := net.Dial("tcp", g.address())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	in := bufio.NewReader(nc)
	begun := time.Now()
	for {
		asked := time.Since(begun)
		if _, err := io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("after %v: %v", asked, err)
		}
		io.Copy(io.Discard, resp.Body)
		if told := time.Since(begun); resp.Close && told < age*8/10 {
			t.Errorf("the connection closes after %v, want %v, a tenth less or more", told, age)
		}
		if resp.Close {
			break
		}
		if asked > 2*age {
			t.Fatalf("the connection lives on after %v", asked)
		}
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v", err)
	}
}

// TestConnectionAgeEndsRequestsOfHTTP1 when their grace is over, in their own protocol.
func TestConnectionAgeEndsRequestsOfHTTP1(t *testing.T) {
	t.Parallel()
	a := startHolding(t, "aaa")
	g := startGateway(t, Config{MaxConnectionAge: 100 * time.Millisecond, MaxConnectionAgeGrace: 200 * time.Millisecond},
		schemaOf(t, stepsProto), backendAt("x", a.addr), routeTo("r", "x"))
	for _, s := range holdStreams(t, g) {
		if text := s.rest(); !strings.Contains(text, "sluice: "+outcomes[aged].message) {
			t.Errorf("%s: ended with %q", s.form, text)
		}
	}
}
