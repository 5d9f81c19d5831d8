package gateway

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/h2"
	"sluice/gateway/wire"
)

// stage is one gateway between a caller and a backend that both speak frames.
type stage struct {
	t       *testing.T
	g       *node
	client  *peer
	backend *scripted
}

// reach opens a stream and returns the backend's connection and its number there.
func (st *stage) reach(pairs ...string) (*peer, uint32) {
	st.t.Helper()
	st.client.request(1, "/shop.Cart/Get", pairs...)
	p := st.backend.accept(st.t)
	return p, p.awaitRequest().id
}

// oneTooMany has a second RPC turned away while there is a first one, which goes on.
func (st *stage) oneTooMany() {
	st.t.Helper()
	p, id := st.reach()
	st.client.request(3, "/shop.Cart/Get")
	if e := st.client.awaitHeaders(3); !e.end || e.get("grpc-status") != "8" || e.get("grpc-status-details-bin") == "" {
		st.t.Errorf("the second RPC got %v, want RESOURCE_EXHAUSTED and details", e)
	}
	p.reply(id, nil)
	st.client.await("end", func(e event) bool { return e.id == 1 && e.end })
}

// answerHead is the beginning of a good response.
var answerHead = []string{":status", "200", "content-type", "application/grpc"}

// TestOutcomesAreReached plays every way in which an RPC can end, and looks at
// what the caller hears, and at the metrics.
func TestOutcomesAreReached(t *testing.T) {
	t.Parallel()
	tests := map[outcome]struct {
		cfg       Config
		resources func(addr string) []string // nil: one route to the scripted backend
		manners   manners                    // of the caller
		play      func(st *stage)            // nil: one request
		code      wire.Code                  // when it is not the table's
		message   string                     // likewise
		silent    bool                       // the caller gets no status: it has gone, or is reset
	}{
		served: {play: func(st *stage) {
			p, id := st.reach()
			p.reply(id, nil)
		}},
		noHostname: {resources: func(addr string) []string {
			return []string{backendAt("a", addr), strings.Replace(routeTo("a", "a"), "spec:\n", "spec:\n  hostnames: [other.example.com]\n", 1)}
		}},
		noRule: {resources: func(addr string) []string {
			return []string{backendAt("a", addr), routeWith("a", "matches: [{method: {service: other.Thing}}]", "a")}
		}},
		noBackend:  {resources: func(addr string) []string { return []string{backendAt("a", addr), routeTo("a", "a=0")} }},
		unresolved: {resources: func(string) []string { return []string{routeTo("a", "a")} }},
		noEndpoint: {resources: func(string) []string { return []string{backendAt("a"), routeTo("a", "a")} }},
		unreachable: {resources: func(string) []string {
			return []string{backendAt("a", deadAddress()), routeTo("a", "a")}
		}},
		exhausted: {
			resources: func(addr string) []string {
				return []string{backendWith("a", "connection: {maxStreams: 1, maxConnections: 1}", addr), routeTo("a", "a")}
			},
			play: func(st *stage) {
				st.client.request(3, "/shop.Cart/Get")
				p := st.backend.accept(st.t)
				p.awaitRequest()
				st.client.request(5, "/shop.Cart/Get")
				if e := st.client.awaitHeaders(5); e.get("grpc-status") != "14" {
					st.t.Errorf("a stream too many: %v", e)
				}
				p.reply(1, nil)
				st.client.await("end", func(e event) bool { return e.id == 3 && e.end })
			},
			silent: true, // seen on another stream
		},
		refused: {play: func(st *stage) {
			p, id := st.reach()
			p.reset(id, http2.ErrCodeRefusedStream)
			p.reset(p.awaitRequest().id, http2.ErrCodeRefusedStream)
		}},
		backendLost: {play: func(st *stage) {
			p, _ := st.reach()
			p.abort()
		}},
		backendReset: {
			play: func(st *stage) {
				p, id := st.reach()
				p.reset(id, http2.ErrCodeInternal)
			},
			message: "the backend reset the stream with INTERNAL_ERROR",
		},
		backendInvalid: {play: func(st *stage) {
			p, id := st.reach()
			p.data(id, message(nil), false) // before any HEADERS
		}},
		backendNoStatus: {play: func(st *stage) {
			p, id := st.reach()
			p.headers(id, false, answerHead...)
			p.data(id, nil, true)
		}},
		backendHTTP: {
			play: func(st *stage) {
				p, id := st.reach()
				p.headers(id, false, ":status", "502", "content-type", "text/html")
				p.data(id, []byte("<html>Bad Gateway</html>"), true)
			},
			code: wire.Unavailable, message: "the backend answered HTTP 502 Bad Gateway without gRPC",
		},
		responseHeaders: {play: func(st *stage) {
			p, id := st.reach()
			p.headers(id, false, append(answerHead, "x-large", strings.Repeat("x", 20_000))...)
		}},
		requestHeaders: {play: func(st *stage) { st.client.request(1, "/shop.Cart/Get", "x-large", strings.Repeat("x", 20_000)) }},
		badTimeout:     {play: func(st *stage) { st.client.request(1, "/shop.Cart/Get", "grpc-timeout", "soon") }},
		badPath:        {play: func(st *stage) { st.client.request(1, "/shop.Cart/Get/All") }},
		badMetadata:    {play: func(st *stage) { st.client.request(1, "/shop.Cart/Get", "x-bin", "!?") }},
		deadline:       {play: func(st *stage) { st.reach("grpc-timeout", "30m") }},
		cancelled: {
			play: func(st *stage) {
				p, id := st.reach()
				st.client.reset(1, http2.ErrCodeCancel)
				p.awaitReset(id)
			},
			silent: true,
		},
		stalled: {
			cfg:     Config{Limits: h2.Limits{StreamStall: time.Second}},
			manners: manners{noCredit: true, settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 10}}},
			play: func(st *stage) {
				p, id := st.reach()
				p.headers(id, false, answerHead...)
				p.data(id, message(make([]byte, 100)), false)
				if e := st.client.awaitReset(1); e.code != http2.ErrCodeCancel {
					st.t.Errorf("the stalled stream ended by %v", e)
				}
				if e := p.awaitReset(id); e.code != http2.ErrCodeCancel {
					st.t.Errorf("the backend of the stalled stream got %v", e)
				}
			},
			silent: true,
		},
		overloaded: {
			cfg:     Config{Limits: h2.Limits{QueueBudget: 50}},
			manners: manners{noCredit: true, settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 10}}},
			play: func(st *stage) {
				p, id := st.reach()
				p.headers(id, false, answerHead...)
				p.data(id, message(make([]byte, 100)), false)
				if e := st.client.awaitReset(1); e.code != http2.ErrCodeEnhanceYourCalm { // gRPC reads it as RESOURCE_EXHAUSTED
					st.t.Errorf("the largest queue ended by %v", e)
				}
			},
			silent: true,
		},
		draining: {
			cfg: Config{Grace: 50 * time.Millisecond},
			play: func(st *stage) {
				st.reach()
				st.g.cancel()
			},
		},
		limited: {
			resources: func(addr string) []string {
				return []string{backendAt("a", addr), routeTo("a", "a"), policyFor("a", "rateLimits: [{requests: 1, interval: 1h}]")}
			},
			play:   func(st *stage) { st.oneTooMany() },
			silent: true, // seen on another stream
		},
		saturated: {
			resources: func(addr string) []string {
				return []string{backendWith("a", "limits: {maxRequests: 1}", addr), routeTo("a", "a")}
			},
			play:   func(st *stage) { st.oneTooMany() },
			silent: true, // likewise
		},
		evicted: {
			play: func(st *stage) {
				p, id := st.reach()
				st.g.applySet(st.t, drainedSet(parse(st.t, backendAt("a", st.backend.addr), routeTo("a", "a")), st.backend.addr, time.Millisecond))
				if e := p.awaitReset(id); e.code != http2.ErrCodeCancel {
					st.t.Errorf("the backend got %v", e)
				}
			},
		},
	}
	// What takes 4,000 streams has a test of its own, and so have a backend that
	// does not take the request, one whose files are gone, and what only happens where
	// messages are translated, or requests are plain HTTP. Memory is short in a process
	// of its own.
	elsewhere := map[outcome]bool{
		crowded: true, backendStalled: true, unusable: true, idle: true, aged: true,
		badRequest: true, badResponse: true, tooLarge: true, unsupported: true,
		backendTimeout: true, badTarget: true, shed: true,
	}
	for o := range numOutcomes {
		test, ok := tests[o]
		if !ok {
			if !elsewhere[o] {
				t.Errorf("no test for the outcome %v", o)
			}
			continue
		}
		t.Run(o.String(), func(t *testing.T) {
			t.Parallel()
			s := startScript(t, manners{})
			resources := []string{backendAt("a", s.addr), routeTo("a", "a")}
			if test.resources != nil {
				resources = test.resources(s.addr)
			}
			g := startGateway(t, test.cfg, resources...)
			st := &stage{t, g, connect(t, g.address(), test.manners), s}
			if test.play == nil {
				st.client.request(1, "/shop.Cart/Get")
			} else {
				test.play(st)
			}
			code, text := test.code, test.message
			if code == 0 {
				code = outcomes[o].code
			}
			if text == "" {
				text = outcomes[o].message
			}
			if !test.silent {
				e := st.client.await("status", func(e event) bool { return e.id == 1 && e.get("grpc-status") != "" })
				want := "sluice: " + text
				if o == served {
					want = ""
				}
				if !e.end || e.get("grpc-status") != strconv.Itoa(int(code)) || e.get("grpc-message") != want {
					t.Errorf("the caller got %v, want grpc-status %d, grpc-message %q", e, code, want)
				}
			}
			await(t, "the outcome's metric", func() bool { return g.metric(t, "sluice_rpc_outcome_total", "outcome", o.String()) == 1 })
			if got := g.metric(t, "sluice_rpc_ended_total", "code", code.Label()); got != 1 {
				t.Errorf("%v RPCs ended as %v, want 1", got, code)
			}
			if started, ended := g.metric(t, "sluice_rpc_started_total"), g.metric(t, "sluice_rpc_ended_total"); started != ended || g.metric(t, "sluice_rpc_open") != 0 {
				t.Errorf("%v RPCs started and %v ended", started, ended)
			}
		})
	}
}

// TestOutcomesNameTheGateway: whoever reads the message knows whom to ask.
func TestOutcomesNameTheGateway(t *testing.T) {
	labels := make(map[string]bool)
	for o := range numOutcomes {
		if labels[o.String()] || o.String() == "" {
			t.Errorf("outcome %d: label %q is empty or not the only one", o, o)
		}
		labels[o.String()] = true
		if o != served && outcomes[o].message == "" {
			t.Errorf("outcome %v has no message", o)
		}
		if o != served && outcomes[o].code == wire.OK {
			t.Errorf("outcome %v is no error", o)
		}
	}
	if got := statusFields(true, wire.Unavailable, "x"); !strings.HasPrefix(got[1].Value, "sluice: ") {
		t.Errorf("message %q does not name the gateway", got[1].Value)
	}
}

// TestOutcomeOfABackendThatSpeaksNoGRPC covers the bodies that proxies and web
// servers send.
func TestOutcomeOfABackendThatSpeaksNoGRPC(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	tests := []struct {
		status, content string
		code            wire.Code
	}{
		{"400", "text/html", wire.Internal},
		{"401", "text/html", wire.Unauthenticated},
		{"403", "text/html", wire.PermissionDenied},
		{"404", "text/plain", wire.Unimplemented},
		{"429", "application/json", wire.Unavailable},
		{"502", "text/html", wire.Unavailable},
		{"503", "", wire.Unavailable},
		{"504", "text/html", wire.Unavailable},
		{"500", "text/html", wire.Unknown},
		{"200", "text/html", wire.Unknown},
		{"200", "application/grpc-web", wire.Unknown},
		{"204", "", wire.Unknown},
		{"302", "text/html", wire.Unknown},
	}
	var p *peer
	for i, test := range tests {
		for j, end := range []bool{false, true} {
			id := uint32(4*i + 2*j + 1)
			client.request(id, "/shop.Cart/Get")
			if p == nil {
				p = s.accept(t)
			}
			up := p.awaitRequest().id
			head := []string{":status", test.status}
			if test.content != "" {
				head = append(head, "content-type", test.content)
			}
			p.headers(up, end, head...)
			e := client.await("end", func(e event) bool { return e.id == id && e.end })
			if e.get(":status") != "200" || e.get("grpc-status") != strconv.Itoa(int(test.code)) || !strings.HasPrefix(e.get("grpc-message"), "sluice: the backend answered HTTP "+test.status) {
				t.Errorf("HTTP %s %s, end=%v: the caller got %v, want %v", test.status, test.content, end, e, test.code)
			}
			if !end {
				p.data(up, []byte("<html>"), true) // late, and nobody's fault
			}
		}
	}
	if got := client.seen(func(e event) bool { return e.typ == http2.FrameData || e.closed }); got != nil {
		t.Errorf("the caller also got %v", got)
	}
}

// TestOutcomeOfAStatusInTheHeader: a status that came with other than 200 is a
// status all the same.
func TestOutcomeOfAStatusInTheHeader(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	p := s.accept(t)
	p.headers(p.awaitRequest().id, true, ":status", "503", "content-type", "text/html", "grpc-status", "9", "grpc-message", "mine")
	if e := client.awaitHeaders(1); e.get("grpc-status") != "9" || e.get("grpc-message") != "mine" || !e.end {
		t.Errorf("the caller got %v", e)
	}
}

// TestOutcomeIsNeverABareReset ends streams that have begun to answer in every way
// that a backend can.
func TestOutcomeIsNeverABareReset(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		end     func(p *peer, id uint32)
		status  string
		message string
	}{
		{"RST", func(p *peer, _ uint32) { p.abort() }, "14", "sluice: the connection to the backend was lost"},
		{"FIN", func(p *peer, _ uint32) { p.close() }, "14", "sluice: the connection to the backend was lost"},
		{"half a frame, then FIN", func(p *peer, id uint32) {
			p.write(func() { p.nc.Write([]byte{0, 0, 100, 0, 0, 0, 0, 0, byte(id), 1, 2, 3}) })
			p.close()
		}, "14", "sluice: the connection to the backend was lost"},
		{"rubbish", func(p *peer, _ uint32) { p.write(func() { p.nc.Write([]byte(strings.Repeat("HTTP/1.1 400 ", 10))) }) }, "14", "sluice: the connection to the backend was lost"},
		{"GOAWAY below the stream", func(p *peer, _ uint32) { p.goAway(0, http2.ErrCodeInternal, "") }, "14", "sluice: the connection to the backend was lost"},
		{"NO_ERROR", func(p *peer, id uint32) { p.reset(id, http2.ErrCodeNo) }, "13", "sluice: the backend reset the stream with NO_ERROR"},
		{"CANCEL", func(p *peer, id uint32) { p.reset(id, http2.ErrCodeCancel) }, "1", "sluice: the backend reset the stream with CANCEL"},
		{"ENHANCE_YOUR_CALM", func(p *peer, id uint32) { p.reset(id, http2.ErrCodeEnhanceYourCalm) }, "8", "sluice: the backend reset the stream with ENHANCE_YOUR_CALM"},
		{"INADEQUATE_SECURITY", func(p *peer, id uint32) { p.reset(id, http2.ErrCodeInadequateSecurity) }, "7", "sluice: the backend reset the stream with INADEQUATE_SECURITY"},
		{"REFUSED_STREAM too late", func(p *peer, id uint32) { p.reset(id, http2.ErrCodeRefusedStream) }, "14", "sluice: the backend reset the stream with REFUSED_STREAM"},
		{"unknown reset", func(p *peer, id uint32) { p.reset(id, 4711) }, "13", "sluice: the backend reset the stream with unknown error code 0x1267"},
		{"END_STREAM on DATA", func(p *peer, id uint32) { p.data(id, message(nil), true) }, "2", "sluice: the backend ended the stream without grpc-status"},
		{"trailers without status", func(p *peer, id uint32) { p.headers(id, true, "x-a", "1") }, "2", "sluice: the backend ended the stream without grpc-status"},
		{"second response", func(p *peer, id uint32) { p.headers(id, false, answerHead...) }, "13", "sluice: the backend broke the protocol"},
		{"upper-case field", func(p *peer, id uint32) { p.headers(id, true, "Grpc-Status", "0") }, "13", "sluice: the backend broke the protocol"},
		{"large trailers", func(p *peer, id uint32) { p.headers(id, true, "grpc-status", "0", "x", strings.Repeat("x", 20_000)) }, "8", "sluice: the backend's metadata is larger than the limit"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startScript(t, manners{})
			g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
			client := connect(t, g.address(), manners{})
			client.request(1, "/shop.Cart/Get")
			client.data(1, message([]byte("all")), true)
			p := s.accept(t)
			id := p.awaitRequest().id
			p.headers(id, false, answerHead...)
			p.data(id, message([]byte("part")), false)
			client.awaitHeaders(1)
			client.awaitBytes(1, 9)
			start := time.Now()
			test.end(p, id)
			e := client.await("end of the stream", func(e event) bool {
				return e.id == 1 && (e.end || e.typ == http2.FrameRSTStream)
			})
			if e.typ != http2.FrameHeaders || e.get("grpc-status") != test.status || e.get("grpc-message") != test.message || e.get(":status") != "" {
				t.Errorf("the caller got %v, want trailers with status %s, %q", e, test.status, test.message)
			}
			if d := e.at.Sub(start); d > time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// TestOutcomeOfATornResponse cuts the backend's connection after every number of
// bytes: what is not whole is never OK, and what is OK is whole.
func TestOutcomeOfATornResponse(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	body := message(pattern(1, 1000))
	size := 1
	for cut := 0; cut <= size; cut += 1 + cut/7 {
		id := uint32(2*cut + 1)
		client.request(id, "/shop.Cart/Get")
		client.data(id, message(nil), true)
		p := s.accept(t)
		up := p.awaitRequest().id
		p.wmu.Lock()
		p.cork = new(bytes.Buffer)
		p.wmu.Unlock()
		p.headers(up, false, answerHead...)
		p.data(up, body[:500], false)
		p.data(up, body[500:], false)
		p.headers(up, true, "grpc-status", "0", "x-sum", "1")
		p.write(func() {
			size = p.cork.Len()
			p.nc.Write(p.cork.Bytes()[:min(cut, size)])
			p.cork = nil
		})
		if cut%2 == 0 && cut < size {
			p.abort()
		} else {
			p.close()
		}
		end := client.await("end", func(e event) bool {
			return e.id == id && (e.end || e.typ == http2.FrameRSTStream && e.code != http2.ErrCodeNo)
		})
		var got []byte
		for _, e := range client.seen(ofType(http2.FrameData, id)) {
			got = append(got, e.data...)
		}
		switch status := end.get("grpc-status"); {
		case status == "0" && (!bytes.Equal(got, body) || cut < size):
			t.Errorf("cut after %d of %d bytes: OK with %d bytes of %d", cut, size, len(got), len(body))
		case status != "0" && (status != "14" || cut >= size):
			t.Errorf("cut after %d of %d bytes: %v", cut, size, end)
		}
	}
}

// TestOutcomeCrowded parks more streams than may wait for a connection.
func TestOutcomeCrowded(t *testing.T) {
	t.Parallel()
	const streams = 4010
	g := startGateway(t, Config{Limits: h2.Limits{MaxConcurrentStreams: streams, Resets: 2 * streams}}, backendAt("a", listenMute(t)), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	for i := range streams {
		client.request(uint32(2*i+1), "/shop.Cart/Get")
	}
	for _, e := range client.gather("refusals", 10, func(e event) bool { return e.end }) {
		if e.get("grpc-status") != "14" || e.get("grpc-message") != "sluice: "+outcomes[crowded].message {
			t.Errorf("one too many got %v", e)
		}
	}
	if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", "crowded"); got != 10 {
		t.Errorf("%v were turned away, want 10", got)
	}
	client.close()
	await(t, "every RPC to be over", func() bool { return g.metric(t, "sluice_rpc_open") == 0 })
}

// TestOutcomeOfABackendThatTakesNoRequest: it is not the caller's fault.
func TestOutcomeOfABackendThatTakesNoRequest(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{noCredit: true, settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 10}}})
	g := startGateway(t, Config{Limits: h2.Limits{StreamStall: time.Second}}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	client.data(1, message(make([]byte, 100)), true)
	p := s.accept(t)
	id := p.awaitRequest().id
	if e := client.awaitHeaders(1); !e.end || e.get("grpc-status") != "14" || e.get("grpc-message") != "sluice: the backend did not take the request" {
		t.Errorf("the caller got %v", e)
	}
	if e := p.awaitReset(id); e.code != http2.ErrCodeCancel {
		t.Errorf("the backend got %v", e)
	}
	if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", "backend_stalled"); got != 1 {
		t.Errorf("%v RPCs ended so, want 1", got)
	}
}
