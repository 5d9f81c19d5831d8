package hostile

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway"
)

// A stage is where a connection stops before anything is known of it.
type stage struct {
	name  string
	tls   bool          // past the handshake
	alpn  string        // that is agreed on
	first string        // sent at once
	drip  string        // sent byte by byte
	gone  time.Duration // by when it must be closed
}

// The bounds of FAULTS A21: what says nothing is told apart for 3 s, and 5 s after
// accept comes the end of everything that has not come to SETTINGS or a header.
const (
	sniffed = 3 * time.Second
	greeted = 5 * time.Second
	// lateBy is what a sweep, a scheduler and a busy machine add.
	lateBy = 600 * time.Millisecond
)

var stages = []stage{
	{name: "silent", gone: sniffed},
	{name: "a byte of the preface", first: "P", gone: sniffed},
	{name: "preface in drips", drip: http2.ClientPreface, gone: sniffed},
	{name: "preface without settings", first: http2.ClientPreface, gone: greeted},
	{name: "half of settings", first: http2.ClientPreface + "\x00\x00\x06\x04\x00\x00", gone: greeted},
	{name: "start of a TLS record", first: "\x16\x03\x01\x02\x00", gone: greeted},
	{name: "client hello in drips", first: "\x16\x03\x01\x02\x00", drip: strings.Repeat("\x01\x00\x01\xfc\x03\x03", 10), gone: greeted},
	{name: "TLS, then silent", tls: true, alpn: "h2", gone: greeted},
	{name: "TLS, then preface", tls: true, alpn: "h2", first: http2.ClientPreface, gone: greeted},
	{name: "TLS for HTTP/1, then silent", tls: true, alpn: "http/1.1", gone: greeted},
	{name: "HTTP/1 without end", first: "GET / HTTP/1.1\r\nHost: x\r\n", drip: strings.Repeat("A: b\r\n", 20), gone: greeted},
}

// Thousand connections that do not say what they are, or not all of it.
func TestA21Slowloris(t *testing.T) {
	var cfg nodeConfig
	client := secured(t, &cfg)
	r := newRig(t, cfg)
	tr := r.begin("connections that say nothing")
	n := pick(90, 450)
	var work sync.WaitGroup
	var mu sync.Mutex
	longest := make(map[string]time.Duration)
	for i, s := range stages {
		for j := range n {
			work.Go(func() {
				<-time.After(time.Duration(j*len(stages)+i) * 700 * time.Microsecond)
				took, err := s.attack(r.addr, client)
				if err != nil {
					t.Errorf("%s: %v", s.name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				longest[s.name] = max(longest[s.name], took)
			})
		}
	}
	<-time.After(time.Second) // all have come, and half of them have opened TLS
	slowest := r.newcomers(3 * time.Second)
	work.Wait()
	for _, s := range stages {
		if took := longest[s.name]; took > s.gone+lateBy {
			t.Errorf("%s: closed after %v, limit %v", s.name, took, s.gone)
		} else {
			t.Logf("%s: all %d closed within %v", s.name, n, took.Round(time.Millisecond))
		}
	}
	if limit := pick(400*time.Millisecond, 100*time.Millisecond); slowest > limit && !raced {
		t.Errorf("a new client waited %v for its first answer, limit %v", slowest, limit)
	}
	t.Logf("a new client waited at most %v for its first answer", slowest)
	tr.expect(fate("sniff_timeout"), float64(3*n-3))
	tr.expect(fate("handshake_timeout"), float64(2*n-2))
	tr.expect(closed("downstream", "preface"), float64(4*n-4))
	tr.judge(cost{memory: int64(len(stages)*n) * 32 << 10, cpu: 20 * time.Second})
}

func fate(label string) string { return fmt.Sprintf("sluice_listener_conn_total{fate=%q}", label) }

// newcomers connects a client after the other and asks one thing of each; it
// returns how long the slowest took.
func (r *rig) newcomers(during time.Duration) (slowest time.Duration) {
	r.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(during); time.Now().Before(end); <-tick.C {
		start := time.Now()
		p, err := dialPeer(r.addr, manners{})
		if err != nil {
			r.t.Errorf("a new client: %v", err)
			return slowest
		}
		if a := p.call(grpcHead(good, echo), message(10)); a.status() != "0" {
			r.t.Errorf("a new client: %v", &a)
		}
		slowest = max(slowest, time.Since(start))
		p.close()
	}
	return slowest
}

// attack comes to its stage and stays there. It returns when the gateway closes.
func (s stage) attack(addr string, client *tls.Config) (took time.Duration, err error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	start := time.Now()
	if s.tls {
		client = client.Clone()
		client.NextProtos = []string{s.alpn}
		tc := tls.Client(nc, client)
		if err := tc.Handshake(); err != nil {
			return 0, err
		}
		nc = tc
	}
	if _, err := io.WriteString(nc, s.first); err != nil {
		return 0, err
	}
	go func() {
		for i := range len(s.drip) {
			<-time.After(200 * time.Millisecond)
			if _, err := io.WriteString(nc, s.drip[i:i+1]); err != nil {
				return
			}
		}
	}()
	nc.SetReadDeadline(start.Add(3 * greeted))
	_, err = io.Copy(io.Discard, nc)
	took = time.Since(start)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return took, fmt.Errorf("still open after %v", took)
	}
	return took, nil
}

// A PROXY header that does not come to its end, or is not one.
func TestA21ProxyHeader(t *testing.T) {
	cfg := limits(func(c *gateway.Config) { c.Listen.ProxyProtocol = true })
	r := &rig{t: t, honest: startHonest(t, nil)}
	r.start(cfg, nil, startApart)
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11"
	for _, s := range []struct {
		stage
		fate string
	}{
		{stage{name: "silent", gone: sniffed}, "sniff_timeout"},
		{stage{name: "begin of version 1", first: "PROXY TCP4 192.0.2.1", gone: sniffed}, "sniff_timeout"},
		{stage{name: "in drips", drip: "PROXY TCP4 192.0.2.1 198.51.100.1 40000 443", gone: sniffed}, "sniff_timeout"},
		{stage{name: "begin of version 2", first: v2 + "\x00\x0c\x01", gone: sniffed}, "sniff_timeout"},
		{stage{name: "declared 64 KiB", first: v2 + "\xff\xff", gone: time.Second}, "proxy_header"},
		{stage{name: "line of 200 bytes", first: "PROXY TCP4 " + strings.Repeat("1", 200), gone: time.Second}, "proxy_header"},
		{stage{name: "none", first: http2.ClientPreface, gone: time.Second}, "proxy_header"},
		{stage{name: "no address", first: "PROXY TCP4 a b 1 2\r\n", gone: time.Second}, "proxy_header"},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			took, err := s.attack(r.addr, nil)
			if err != nil || took > s.gone+lateBy {
				t.Errorf("closed after %v, limit %v, error %v", took, s.gone, err)
			}
			if c := r.counters(t); c[fate(s.fate)] == 0 {
				t.Errorf("%s is not counted", s.fate)
			}
		})
	}
}

// Descriptors run out: of those for clients the rest of the process keeps some.
func TestA22ConnectionsBeyondTheLimit(t *testing.T) {
	r := newRig(t, nodeConfig{Descriptors: 256})
	tr := r.begin("1000 connections for 256 descriptors")
	crowd := make([]*peer, 0, 1000)
	for range 1000 {
		if p, err := dialPeer(r.addr, manners{deaf: true}); err == nil { // else it was refused already
			crowd = append(crowd, p)
		}
	}
	tr.expect(fate("over_cap"), 800)
	if now := tr.read(t, "figures"); now.Files > 230 {
		t.Errorf("%d descriptors in use, limit 230 of 256", now.Files)
	}
	for _, p := range crowd {
		p.close()
	}
	r.comesBack(2 * time.Second)
	tr.judge(cost{cpu: time.Second})
}

// The same without that limit: accept fails, again and again, and must not be
// tried in a loop.
func TestA22AcceptUnderEMFILE(t *testing.T) {
	cfg := limits(func(c *gateway.Config) { c.Listen.MaxConnections = -1 })
	cfg.Descriptors = 256
	r := newRig(t, cfg)
	tr := r.begin("accept without descriptors")
	crowd := make([]*peer, 0, 1000)
	for range 1000 {
		p, err := dialPeer(r.addr, manners{deaf: true})
		if err != nil {
			break // the queue of the port is full as well
		}
		crowd = append(crowd, p)
	}
	lasts := pick(1500*time.Millisecond, 20*time.Second)
	<-time.After(lasts)
	for _, p := range crowd {
		p.close()
	}
	r.comesBack(2 * time.Second)
	tr.expect(fate("accept_backoff"), 1)
	now := tr.read(t, "figures")
	if used := now.CPU - tr.figures.CPU; used > lasts/5+300*time.Millisecond && !raced {
		t.Errorf("%v of CPU in %v, limit a fifth", used, time.Since(tr.start))
	}
	if n := tr.counters(t)[fate("accept_backoff")]; n > 100 {
		t.Errorf("accept failed %v times, limit 100", n)
	}
	tr.judge(cost{cpu: 2 * time.Second})
}

// comesBack waits until a new client is served.
func (r *rig) comesBack(within time.Duration) {
	r.t.Helper()
	start := time.Now()
	served := eventually(within, func() bool {
		p, err := dialPeer(r.addr, manners{})
		if err != nil {
			return false
		}
		defer p.close()
		id := p.open(false, grpcHead(good, echo))
		p.write(script{}.data(id, true, message(1)))
		a := p.result(id, time.Second)
		return a.status() == "0"
	})
	if !served {
		r.t.Errorf("a new client is not served %v after the attack", within)
	}
	r.t.Logf("a new client is served %v after the attack", time.Since(start).Round(time.Millisecond))
}

// After a fatal error the peer has a second to read why, and then it is over.
func TestA23SilentAfterAFatalError(t *testing.T) {
	backend := settle(t)
	r := newRig(t, nodeConfig{}, backend)
	fault := script{}.windowUpdate(0, 0)
	open := func(side string) float64 { return r.counters(t)[fmt.Sprintf("sluice_conn_open{side=%q}", side)] }

	tr := r.begin("fatal errors, then silence")
	start := time.Now()
	for range 20 {
		p := r.dial(manners{deaf: true, first: script{}.preface().settings().append(fault)})
		defer p.close()
	}
	clogged := r.clog(maxAtOnce, "1000000")
	clogged.write(fault)
	if !eventually(3*time.Second, func() bool {
		return tr.counters(t)[closed("downstream", "protocol")]-tr.counted[closed("downstream", "protocol")] >= 21 && open("downstream") == 1
	}) {
		t.Errorf("%v connections of clients are open 3s after their fault, want the bystander's: %v", open("downstream"), tr.ended())
	}
	t.Logf("21 silent connections gone %v after the first fault", time.Since(start).Round(time.Millisecond))

	backend.become(manners{deaf: true, first: script{}.settings().append(fault)}, nil)
	caller := r.dial(manners{})
	caller.call(grpcHead(evil, hold, "grpc-timeout", "500m"), message(1))
	if !eventually(3*time.Second, func() bool {
		return tr.counters(t)[closed("upstream", "protocol")] >= 1
	}) {
		t.Errorf("a backend's connection is open 3s after its fault: %v", tr.ended())
	}
	caller.close()
	clogged.close()
	backend.leave()
	tr.judge(cost{cpu: 2 * time.Second})
}

// Who does not acknowledge our SETTINGS is not kept.
func TestA21SettingsNeverAcknowledged(t *testing.T) {
	cfg := limits(func(c *gateway.Config) {
		if !*long {
			c.Limits.Preface, c.Limits.SettingsAck = 500*time.Millisecond, 500*time.Millisecond
		}
	})
	backend := settle(t)
	r := newRig(t, cfg, backend)
	tr := r.begin("settings never acknowledged")
	p := r.dial(manners{mute: true})
	backend.become(manners{mute: true}, nil)
	caller := r.dial(manners{})
	a := caller.call(grpcHead(evil, hold), message(1))
	if *long {
		a = caller.result(1, time.Minute)
	}
	if a.status() != "14" {
		t.Errorf("the caller got %v, want status 14", &a)
	}
	p.ended(pick(patience, time.Minute))
	tr.expect(closed("downstream", "settings_ack"), 1)
	tr.expect(closed("upstream", "settings_ack"), 1)
	p.close()
	caller.close()
	backend.leave()
	tr.judge(cost{cpu: 2 * time.Second})
}

// Connections without streams are ended in good time, also those that do not answer
// the question whether they have heard.
func TestA27IdleConnections(t *testing.T) {
	cfg := limits(func(c *gateway.Config) { c.Limits.Idle = time.Second })
	r := newRig(t, cfg)
	tr := r.begin("idle connections")
	polite, mute := r.dial(manners{}), r.dial(manners{mute: true, first: script{}.preface().settings().settingsAck()})
	if !polite.ended(patience) {
		t.Error("an idle connection is open after 10s, limit 1s")
	}
	if code, _ := polite.farewell(); code != "NO_ERROR" {
		t.Errorf("an idle client was told %q, want NO_ERROR", code)
	}
	tr.expect(closed("downstream", "idle"), 1)
	if *long {
		if !mute.ended(20 * time.Second) {
			t.Error("an idle connection that does not answer PING is open after 20s, limit 11s")
		}
		tr.expect(closed("downstream", "idle"), 2)
	}
	mute.close()
	tr.judge(cost{cpu: 2 * time.Second})
}

func TestA27MemoryPerConnection(t *testing.T) {
	var cfg nodeConfig
	client := secured(t, &cfg)
	for _, test := range []struct {
		name  string
		m     manners
		calls int
		n     int
	}{
		{"clear, never used", manners{}, 0, pick(1000, 10_000)},
		{"clear, after an RPC", manners{}, 1, pick(1000, 10_000)},
		{"TLS, after an RPC", manners{tls: client}, 1, pick(300, 3000)},
	} {
		r := newRig(t, cfg)
		tr := r.begin("idle: " + test.name)
		crowd := make([]*peer, test.n)
		for i := range crowd {
			crowd[i] = r.dial(test.m)
			for range test.calls {
				crowd[i].call(grpcHead(good, echo), message(10))
			}
			crowd[i].await(patience, func() bool { return crowd[i].frames[http2.FrameSettings] >= 2 })
		}
		now := tr.read(t, "collected")
		per := (now.Memory - tr.figures.Memory) / int64(test.n)
		t.Logf("%s: %.1f KiB for each of %d connections", test.name, float64(per)/1024, test.n)
		if per > 32<<10 && !raced {
			t.Errorf("%s: %d bytes for each connection, limit 32 KiB", test.name, per)
		}
		for _, p := range crowd {
			p.close()
		}
		tr.judge(cost{memory: int64(test.n) * 64 << 10, cpu: time.Minute})
	}
}

// HTTP/1 that would become HTTP/2, or a tunnel, becomes neither.
func TestA25UpgradeAndTunnel(t *testing.T) {
	backend := settle(t)
	r := newRigHere(t, nodeConfig{}, backend)
	for name, request := range map[string]string{
		"h2c":       "GET / HTTP/1.1\r\nHost: " + evil + "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"h2c POST":  "POST " + echo + " HTTP/1.1\r\nHost: " + evil + "\r\nContent-Type: application/grpc\r\nTE: trailers\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 6\r\n\r\n\x00\x00\x00\x00\x01x",
		"websocket": "GET / HTTP/1.1\r\nHost: " + evil + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
		"connect":   "CONNECT " + evil + ":80 HTTP/1.1\r\nHost: " + evil + "\r\n\r\n",
		"absolute":  "POST http://" + evil + echo + " HTTP/1.1\r\nHost: " + good + "\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n",
	} {
		nc, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(patience))
		io.WriteString(nc, request+string(script{}.preface().settings().headers(1, true, grpcHead(evil, echo))))
		answer := make([]byte, 4096)
		n, _ := io.ReadAtLeast(nc, answer, 12)
		if got := string(answer[:n]); !strings.HasPrefix(got, "HTTP/1.1 ") || strings.HasPrefix(got, "HTTP/1.1 1") || strings.HasPrefix(got, "HTTP/1.1 2") {
			t.Errorf("%s: answered %s, want a refusal", name, printable(got))
		}
		nc.Close()
	}
	judge := func() {
		t.Helper()
		// The gateway itself may ask the backend what it serves, since one of these
		// could be a path of REST.
		if n := backend.accepted(); n > 1 {
			t.Errorf("%d connections to the backend, want one at most", n)
		}
		for name, n := range r.counters(t) {
			if strings.HasPrefix(name, "sluice_rpc_started_total{") && !strings.Contains(name, `backend=""`) && n > 0 {
				t.Errorf("%s is %v, want none", name, n)
			}
		}
	}
	judge()
	p := r.dial(manners{})
	for name, head := range map[string][]byte{
		"connect":          block(":method", "CONNECT", ":authority", evil),
		"extended connect": block(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", evil, ":path", "/"),
		"upgrade":          grpcHead(evil, echo, "upgrade", "h2c", "http2-settings", "AAMAAABkAAQAAP__"),
	} {
		if a := p.call(head, nil); !a.wasReset {
			t.Errorf("%s: %v, want a reset", name, &a)
		}
	}
	judge()
}
