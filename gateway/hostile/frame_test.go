package hostile

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// badRequests are what x/net's Framer takes for a request and we must not.
var badRequests = []struct {
	name  string
	block []byte
}{
	{"path without slash", grpcHead(good, "hostile.Honest/Echo")},
	{"empty path", grpcHead(good, "")},
	{"path with a space", grpcHead(good, "/hostile.Honest/Echo x")},
	{"path with a fragment", grpcHead(good, "/hostile.Honest/Echo#x")},
	{"path of 8 bits", grpcHead(good, "/hostile.Honest/Echo\xe4")},
	{"no path", block(":method", "POST", ":scheme", "http", ":authority", good, "content-type", "application/grpc")},
	{"no method", block(":scheme", "http", ":authority", good, ":path", echo, "content-type", "application/grpc")},
	{"no scheme", block(":method", "POST", ":authority", good, ":path", echo, "content-type", "application/grpc")},
	{"request line as method", block(":method", "GET /x HTTP/1.1", ":scheme", "http", ":authority", good, ":path", echo)},
	{"bad scheme", block(":method", "POST", ":scheme", "ht tp", ":authority", good, ":path", echo)},
	{"authority with user", grpcHead("user@"+good, echo)},
	{"authority with slash", grpcHead(good+"/x", echo)},
	{"authority with space", grpcHead(good+" x", echo)},
	{"host differs", grpcHead(good, echo, "host", evil)},
	{"two hosts", grpcHead(good, echo, "host", good, "host", good)},
	{"connection", grpcHead(good, echo, "connection", "x-secret")},
	{"keep-alive", grpcHead(good, echo, "keep-alive", "1")},
	{"proxy-connection", grpcHead(good, echo, "proxy-connection", "close")},
	{"upgrade", grpcHead(good, echo, "upgrade", "h2c")},
	{"transfer-encoding", grpcHead(good, echo, "transfer-encoding", "chunked")},
	{"te: gzip", block(":method", "POST", ":scheme", "http", ":authority", good, ":path", echo, "content-type", "application/grpc", "te", "gzip")},
	{"two te", grpcHead(good, echo, "te", "trailers")},
	{"two content-lengths", grpcHead(good, echo, "content-length", "6", "content-length", "7")},
	{"same content-length twice", grpcHead(good, echo, "content-length", "6", "content-length", "6")},
	{"negative content-length", grpcHead(good, echo, "content-length", "-6")},
	{"content-length with plus", grpcHead(good, echo, "content-length", "+6")},
	{"content-length of 2^64", grpcHead(good, echo, "content-length", "18446744073709551616")},
	{"leading space", grpcHead(good, echo, "x-a", " a")},
	{"trailing space", grpcHead(good, echo, "x-a", "a ")},
	{"trailing tab", grpcHead(good, echo, "x-a", "a\t")},
	{"two grpc-timeouts", grpcHead(good, echo, "grpc-timeout", "1S", "grpc-timeout", "2S")},
	{"two content-types", grpcHead(good, echo, "content-type", "application/grpc")},
	{"two paths", grpcHead(good, echo, ":path", hold)},
	{"unknown pseudo-field", append(block(":protocol", "websocket"), grpcHead(good, echo)...)},
	{"status in a request", append(block(":status", "200"), grpcHead(good, echo)...)},
	{"connect", block(":method", "CONNECT", ":authority", good)},
	{"extended connect", block(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", good, ":path", echo)},
	{"asterisk", grpcHead(good, "*")},
	{"upper case", grpcHead(good, echo, "X-A", "a")},
	{"name with colon", grpcHead(good, echo, "x:a", "a")},
	{"name with space", grpcHead(good, echo, "x a", "a")},
	{"line feed", grpcHead(good, echo, "x-a", "a\nx-b: b")},
	{"carriage return", grpcHead(good, echo, "x-a", "a\rb")},
	{"nul", grpcHead(good, echo, "x-a", "a\x00b")},
}

// What FAULTS 1.0 says a Framer does not check: none of it reaches a backend.
func TestA25RequestsThatAreNone(t *testing.T) {
	r := newRigHere(t, nodeConfig{})
	before := r.counters(t)
	p := r.dial(manners{})
	for _, bad := range badRequests {
		a := p.call(bad.block, message(1))
		if !a.wasReset || a.code != http2.ErrCodeProtocol {
			t.Errorf("%s: %v, want a reset with PROTOCOL_ERROR", bad.name, &a)
		}
	}
	if a := p.call(grpcHead(good, echo), message(1)); a.status() != "0" {
		t.Errorf("an honest RPC behind them: %v", &a)
	}
	d := r.counters(t).since(before)
	if d[rejected("downstream", "malformed")] != float64(len(badRequests)) || d[outcome("served")] != 1 {
		t.Errorf("malformed %v, want %d; served %v, want 1", d[rejected("downstream", "malformed")], len(badRequests), d[outcome("served")])
	}
}

// badFrames end a connection, from whichever side they come.
var badFrames = []struct {
	name   string
	frames script
	reason string
	code   string
}{
	{"max frame size of 0", script{}.settings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 0}), "protocol", "PROTOCOL_ERROR"},
	{"max frame size of 2^24", script{}.settings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 24}), "protocol", "PROTOCOL_ERROR"},
	{"push of 7", script{}.settings(http2.Setting{ID: http2.SettingEnablePush, Val: 7}), "protocol", "PROTOCOL_ERROR"},
	{"window of 2^31", script{}.settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}), "flow_control", "FLOW_CONTROL_ERROR"},
	{"settings of 5 bytes", script{}.frame(http2.FrameSettings, 0, 0, 1, 2, 3, 4, 5), "frame_size", "FRAME_SIZE_ERROR"},
	{"settings ack with payload", script{}.frame(http2.FrameSettings, ack, 0, 0, 1, 0, 0, 0, 0), "frame_size", "FRAME_SIZE_ERROR"},
	{"settings on a stream", script{}.frame(http2.FrameSettings, 0, 1), "protocol", "PROTOCOL_ERROR"},
	{"ping of 7 bytes", script{}.frame(http2.FramePing, 0, 0, make([]byte, 7)...), "frame_size", "FRAME_SIZE_ERROR"},
	{"ping on a stream", script{}.frame(http2.FramePing, 0, 1, make([]byte, 8)...), "protocol", "PROTOCOL_ERROR"},
	{"push promise", script{}.frame(http2.FramePushPromise, endHeaders, 1, 0, 0, 0, 2), "protocol", "PROTOCOL_ERROR"},
	{"reset of an idle stream", script{}.reset(999, http2.ErrCodeCancel), "protocol", "PROTOCOL_ERROR"},
	{"window of an idle stream", script{}.windowUpdate(999, 1), "protocol", "PROTOCOL_ERROR"},
	{"data on an idle stream", script{}.data(999, false, []byte("x")), "protocol", "PROTOCOL_ERROR"},
	{"data on stream 0", script{}.data(0, false, []byte("x")), "protocol", "PROTOCOL_ERROR"},
	{"headers on stream 0", script{}.headers(0, false, block("a", "b")), "protocol", "PROTOCOL_ERROR"},
	{"padding longer than its frame", script{}.frame(http2.FrameData, http2.FlagDataPadded, 1, 9, 0), "protocol", "PROTOCOL_ERROR"},
	{"continuation without headers", script{}.frame(http2.FrameContinuation, endHeaders, 1), "protocol", "PROTOCOL_ERROR"},
	{"ping inside a header section", script{}.frame(http2.FrameHeaders, 0, 1, 0x82).ping(), "protocol", "PROTOCOL_ERROR"},
	{"reset of 3 bytes", script{}.frame(http2.FrameRSTStream, 0, 1, 0, 0, 0), "frame_size", "FRAME_SIZE_ERROR"},
	{"goaway of 7 bytes", script{}.frame(http2.FrameGoAway, 0, 0, make([]byte, 7)...), "frame_size", "FRAME_SIZE_ERROR"},
	{"frame of 16385 bytes", script{}.declare(maxFrame+1, http2.FrameData, 0, 1), "frame_size", "FRAME_SIZE_ERROR"},
	{"frame of 16 MiB", script{}.declare(1<<24-1, http2.FrameHeaders, 0, 3), "frame_size", "FRAME_SIZE_ERROR"},
	{"index beyond the table", script{}.headers(1, false, []byte{0xff, 0x80, 0x01}), "compression", "COMPRESSION_ERROR"},
	{"integer without end", script{}.headers(1, false, []byte{0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80}), "compression", "COMPRESSION_ERROR"},
	{"table of 4 GiB", script{}.headers(1, false, []byte{0x3f, 0xe1, 0xff, 0xff, 0xff, 0x0f}), "compression", "COMPRESSION_ERROR"},
}

// Settings that are wrong, from either side, are answered within a second and set
// nothing spinning; so is everything else that leaves no common state.
func TestA16FramesThatEndTheConnection(t *testing.T) {
	for _, bad := range badFrames {
		t.Run(bad.name, func(t *testing.T) {
			backend := settle(t)
			r := newRigHere(t, nodeConfig{}, backend)
			before := r.counters(t)
			p := r.dial(manners{})
			p.open(false, grpcHead(good, hold))
			p.write(bad.frames)
			endsWith(t, p, bad.code)

			attacker := make(chan *peer, 10)
			backend.become(manners{}, func(p *peer) {
				if _, ok := p.stream(0); ok {
					p.write(bad.frames)
					attacker <- p
				}
			})
			caller := r.dial(manners{})
			if a := caller.call(grpcHead(evil, hold), message(1)); a.status() != "14" || a.took > time.Second {
				t.Errorf("the caller got %v after %v, want status 14 within 1s", &a, a.took)
			}
			endsWith(t, <-attacker, bad.code)
			caller.close()
			for _, side := range []string{"downstream", "upstream"} {
				if !eventually(patience, func() bool { return r.counters(t).since(before)[closed(side, bad.reason)] == 1 }) {
					t.Errorf("connections ended %s: %v, want one for %s", side, r.counters(t).since(before), bad.reason)
				}
			}
		})
	}
}

func endsWith(t *testing.T, p *peer, code string) {
	t.Helper()
	if !p.ended(time.Second) {
		t.Errorf("connection is still open after 1s")
	}
	if got, detail := p.farewell(); got != code {
		t.Errorf("GOAWAY with %q (%s), want %q", got, printable(detail), code)
	}
	p.close()
}

// A backend that is wrong from the start is not dialled in a loop.
func TestA16BackendThatIsWrongFromTheStart(t *testing.T) {
	tests := []struct {
		name  string
		first script
		run   func(p *peer)
		most  int // dials
	}{
		{"wrong settings", badFrames[0].frames, nil, 20},
		{"not http/2", script("HTTP/1.1 400 Bad Request\r\n\r\n"), nil, 20},
		{"settings, then a fault", script{}.settings().append(badFrames[0].frames), nil, 20},
		{"settings, then the end", nil, func(p *peer) { p.close() }, 20},
		{"settings, then goaway", script{}.settings().goAway(0, http2.ErrCodeNo), nil, 20},
		// As many connections as one endpoint may have, none of which is of use.
		{"settings for no stream", script{}.settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0}), nil, 256},
	}
	backends := settleAll(t, len(tests))
	r := newRig(t, nodeConfig{}, backends...)
	for i, test := range tests {
		backends[i].become(manners{first: test.first}, test.run)
		tr := r.begin(test.name)
		caller := r.dial(manners{})
		start := time.Now()
		for n := 0; n < 20 || time.Since(start) < pick(300*time.Millisecond, 10*time.Second); n++ {
			a := caller.call(grpcHead(backends[i].authority, hold, "grpc-timeout", "300m"), message(1))
			if code := a.status(); code != "14" && code != "4" {
				t.Errorf("%s: the caller got %v, want status 14 or 4", test.name, &a)
				break
			}
		}
		n := backends[i].accepted()
		t.Logf("%s: dialled %d times in %v", test.name, n, time.Since(start))
		if n > test.most {
			t.Errorf("%s: dialled %d times, limit %d", test.name, n, test.most)
		}
		caller.close()
		backends[i].leave()
		tr.judge(cost{cpu: 2 * time.Second})
	}
}

func (s script) append(other script) script { return append(s, other...) }

// Every type, with any flags and any length, on a stream that is open, one that is
// not, and none: the gateway may end the connection, and nothing else.
func TestA14AllFrames(t *testing.T) {
	backend := settle(t)
	r := newRig(t, nodeConfig{}, backend)
	tr := r.begin("all frames")
	rng := rand.New(rand.NewPCG(7, 14))
	p, conns := (*peer)(nil), 0
	send := func(s script) {
		if p == nil || p.write(s) != nil {
			p = r.dial(manners{deaf: true})
			p.open(false, grpcHead(good, hold))
			p.write(s)
			conns++
		}
	}
	frames := 0
	for typ := range 256 {
		for flags := range 256 {
			for length := range 65 {
				// A short run takes frames by chance, of the ten known types more.
				if chance := pick(1500, 1); rng.IntN(chance) > 0 && (typ > 9 || rng.IntN(max(1, chance/30)) > 0) {
					continue
				}
				payload := make([]byte, length)
				for i := range payload {
					payload[i] = byte(rng.Uint32())
				}
				send(script{}.frame(http2.FrameType(typ), http2.Flags(flags), uint32(rng.IntN(4)), payload...))
				frames++
			}
		}
	}
	p.close()
	t.Logf("%d frames on %d connections", frames, conns)

	backend.become(manners{}, func(p *peer) {
		if _, ok := p.stream(0); !ok {
			return
		}
		rng := rand.New(rand.NewPCG(7, uint64(backend.accepted())))
		for {
			payload := make([]byte, rng.IntN(65))
			typ := rng.IntN(11)
			if p.write(script{}.frame(http2.FrameType(typ), http2.Flags(rng.IntN(256)), uint32(rng.IntN(4)), payload...)) != nil {
				return
			}
		}
	})
	caller := r.dial(manners{})
	for range pick(100, 10_000) {
		if a := caller.call(grpcHead(evil, hold), message(1)); a.status() == "" || a.status() == "0" {
			t.Fatalf("the caller got %v, want an error status", &a)
		}
	}
	caller.close()
	backend.leave()
	tr.judge(cost{cpu: time.Minute, memory: 128 << 20})
}

func TestA19StreamsBeforeTheLimitIsKnown(t *testing.T) {
	backend := settle(t)
	r := newRig(t, nodeConfig{}, backend)
	tr := r.begin("1000 streams at once")
	r.honest.peak.Store(0)
	p := r.dial(manners{})
	var s script
	for i := range uint32(1000) {
		s = s.headers(2*i+1, false, grpcHead(good, hold))
	}
	p.write(s)
	if !p.await(patience, func() bool { return p.resets >= 900 }) {
		t.Errorf("%d streams refused, want 900", p.resets)
	}
	for id, a := range p.streams {
		if a.wasReset && a.code != http2.ErrCodeRefusedStream {
			t.Errorf("stream %d: %v, want REFUSED_STREAM", id, a)
		}
	}
	if !eventually(patience, func() bool { return r.honest.peak.Load() == maxAtOnce }) {
		t.Errorf("backend has %d RPCs, want %d", r.honest.peak.Load(), maxAtOnce)
	}
	tr.expect(rejected("downstream", "concurrency"), 900)
	p.close()
	tr.judge(cost{cpu: 200 * time.Millisecond})
}

// The limit on what we open at one backend holds, whatever it allows.
func TestA19BackendThatAllowsEverything(t *testing.T) {
	backend := settle(t)
	r := newRigHere(t, nodeConfig{}, backend)
	backend.become(manners{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1<<32 - 1}}}, nil)
	for range 12 {
		p := r.dial(manners{})
		for range maxAtOnce {
			p.open(false, grpcHead(evil, hold))
		}
	}
	onConn := func() (total, most int) {
		backend.mu.Lock()
		defer backend.mu.Unlock()
		for _, p := range backend.peers {
			p.mu.Lock()
			total, most = total+len(p.order), max(most, len(p.order))
			p.mu.Unlock()
		}
		return total, most
	}
	if !eventually(patience, func() bool { total, _ := onConn(); return total == 1200 }) {
		total, _ := onConn()
		t.Errorf("backend has %d streams, want 1200", total)
	}
	if _, most := onConn(); most > 1000 {
		t.Errorf("one connection carries %d streams, limit 1000", most)
	}
}

func TestA20DeclaredFrame(t *testing.T) {
	backend := settle(t)
	r := newRig(t, nodeConfig{}, backend)
	n := pick(500, 1000)
	for name, head := range map[string]script{
		"settings of 16 MiB": script{}.preface().declare(1<<24-1, http2.FrameSettings, 0, 0),
		"headers of 16 MiB":  script{}.preface().declare(1<<24-1, http2.FrameHeaders, endHeaders, 1),
	} {
		tr := r.begin(name)
		for range n {
			p := r.dial(manners{first: head})
			defer p.close()
		}
		tr.expect(closed("downstream", "frame_size"), float64(n))
		tr.judge(cost{memory: int64(n) * 32 << 10, cpu: 5 * time.Second})
	}
	tr := r.begin("declared by a backend")
	backend.become(manners{first: script{}.settings().declare(1<<24-1, http2.FrameHeaders, endHeaders, 1)}, nil)
	caller := r.dial(manners{})
	if a := caller.call(grpcHead(evil, hold), message(1)); a.status() != "14" {
		t.Errorf("the caller got %v, want status 14", &a)
	}
	tr.expect(closed("upstream", "frame_size"), 1)
	caller.close()
	backend.leave()
	tr.judge(cost{})
}

// A frame that has begun and does not go on takes what it is long, not more.
func TestA20FramesThatStop(t *testing.T) {
	r := newRig(t, nodeConfig{})
	tr := r.begin("frames that stop")
	n := pick(500, 1000)
	first := script{}.preface().settings().settingsAck().declare(maxFrame, http2.FrameHeaders, endHeaders, 1)
	for range n {
		p := r.dial(manners{first: append(first, strings.Repeat("x", 200)...)})
		defer p.close()
		p.await(patience, func() bool { return p.frames[http2.FrameSettings] >= 2 })
	}
	tr.weigh(cost{memory: int64(n) * 32 << 10, cpu: 5 * time.Second})
}
