package h2

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// The tests of this file are named TestLimits..., and each limit that removable
// names turns at least one of them red when it is removed: make limits-removed.

func TestLimitsDefault(t *testing.T) {
	removed := removedLimit
	removedLimit = ""
	defer func() { removedLimit = removed }()
	want := Limits{
		MaxConcurrentStreams: 100,
		HeaderBytes:          16 << 10, HeaderFields: 100, Continuations: 8,
		QueuedControl: 1000, Settings: 1000, Pings: 1000, Resets: 200,
		EmptyFrames: 10, TinyData: 1000, SmallData: 100_000,
		Priorities: 100, WindowUpdates: 2, Unknown: 10_000, Informational: 100,
		Window: 64 << 10, MaxWindow: 1 << 20, WindowBudget: 256 << 20, ConnWindow: 4 << 20,
		QueueBudget: 512 << 20, StuckOutput: 4 << 20,
		Preface: 5 * time.Second, SettingsAck: 10 * time.Second, StreamStall: 5 * time.Minute,
		MinRate: 100, RateWindow: time.Minute, Idle: time.Hour, Linger: time.Second,
		MaxUpstreamStreams: 1000,
	}
	if got := NewEngine(Limits{}).Limits(); got != want {
		t.Errorf("limits by default are %+v\nwant %+v", got, want)
	}
	own := Limits{Resets: 7, Idle: time.Minute}
	if got := NewEngine(own).Limits(); got.Resets != 7 || got.Idle != time.Minute || got.Pings != 1000 {
		t.Errorf("limits %+v: fields that were set must stay, the others have their defaults", got)
	}
}

// TestLimitsEndFloods sends as much of something as the limit allows, which
// must do no harm, and then once more. Both kinds of peer flood.
func TestLimitsEndFloods(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
		begin  func(p *peer) // before the flood
		write  func(p *peer, i int)
		limit  int
		why    Reason
		client bool // only a client can
		server bool // only a backend can
	}{
		{
			name: "pings", limit: 1000, why: ReasonPings,
			write: func(p *peer, i int) { p.writePing("flood") },
		},
		{
			name: "ping acknowledgements", limit: 1000, why: ReasonPings,
			write: func(p *peer, i int) { p.writePingAck("flood") },
		},
		{
			name: "settings", limit: 1000 - 2, why: ReasonSettings, // the greeting took two
			write: func(p *peer, i int) { p.writeSettings() },
		},
		{
			name: "settings acknowledgements", limit: 1000 - 2, why: ReasonSettings,
			write: func(p *peer, i int) { p.out.WriteSettingsAck() },
		},
		{
			name: "parameters of one SETTINGS", limit: 1, why: ReasonSettings,
			write: func(p *peer, i int) { p.writeFrame(typeSettings, 0, 0, make([]byte, 6*(100+i))) },
		},
		{
			name: "resets", limit: 200, why: ReasonResets, client: true,
			write: func(p *peer, i int) {
				p.writeRequest(uint32(2*i+1), true)
				p.writeReset(uint32(2*i+1), http2.ErrCodeCancel)
			},
		},
		{
			name: "resets that violations force on us", limit: 200, why: ReasonResets, client: true,
			write: func(p *peer, i int) { p.writeHeaders(uint32(2*i+1), true, ":method: GET") },
		},
		{
			name: "frames of closed streams", limit: 200, why: ReasonResets, client: true,
			begin: func(p *peer) {
				for i := range 201 {
					s := p.request(uint32(2*i+1), true)
					sendHeader(s, true, ":status: 200")
				}
			},
			write: func(p *peer, i int) { p.writeData(uint32(2*i+1), "late", false) },
		},
		{
			name: "resets of closed streams", limit: 200 + 10*100, why: ReasonResets, client: true,
			begin: func(p *peer) { sendHeader(p.request(1, true), true, ":status: 200") },
			write: func(p *peer, i int) { p.writeReset(1, http2.ErrCodeCancel) },
		},
		{
			name: "empty DATA", limit: 10, why: ReasonEmptyFrames, begin: flooded,
			write: func(p *peer, i int) { p.writeData(1, "", false) },
		},
		{
			name: "padding around nothing", limit: 10, why: ReasonEmptyFrames, begin: flooded,
			write: func(p *peer, i int) { p.out.WriteDataPadded(1, false, nil, make([]byte, 200)) },
		},
		{
			name: "DATA of 1 byte", limit: 1000, why: ReasonTinyData, begin: flooded,
			write: func(p *peer, i int) { p.writeData(1, "x", false) },
		},
		{
			name: "small DATA", limit: 300, why: ReasonSmallData, begin: flooded,
			limits: Limits{SmallData: 300, TinyData: 10},
			write:  func(p *peer, i int) { p.writeData(1, "small", false) },
		},
		{
			name: "priorities", limit: 100, why: ReasonPriorities,
			write: func(p *peer, i int) {
				p.out.WritePriority(uint32(2*i+1), http2.PriorityParam{Weight: uint8(i)})
			},
		},
		{
			name: "priorities with a stream", limit: 2 * 100, why: ReasonPriorities, client: true,
			begin: func(p *peer) { p.request(1, false) },
			write: func(p *peer, i int) { p.out.WritePriority(1, http2.PriorityParam{Weight: uint8(i)}) },
		},
		{
			name: "window updates", limit: 5, why: ReasonWindowUpdates,
			write: func(p *peer, i int) { p.writeWindowUpdate(0, 1) },
		},
		{
			name: "window updates with a stream and 3 DATA frames", limit: 5 + 2*(1+10*3), why: ReasonWindowUpdates,
			begin: func(p *peer) {
				s := openEither(p)
				for range 3 {
					sendData(s, "data", false)
				}
			},
			write: func(p *peer, i int) { p.writeWindowUpdate(uint32(i%2), 1) },
		},
		{
			name: "unknown frames", limit: 10_000, why: ReasonUnknown,
			write: func(p *peer, i int) { p.writeFrame(0x42, uint8(i), 0, nil) },
		},
		{
			name: "goaways", limit: 10_000, why: ReasonUnknown, client: true,
			write: func(p *peer, i int) { p.writeGoAway(0, http2.ErrCodeNo, "") },
		},
		{
			name: "continuations", limit: 1 + 8, why: ReasonContinuations,
			write: func(p *peer, i int) {
				if i == 0 {
					p.writeFrame(typeHeaders, 0, 1, []byte{0x82})
					return
				}
				p.writeFrame(typeContinuation, 0, 1, []byte{0x82})
			},
		},
		{
			name: "empty continuations", limit: 1 + 3, why: ReasonEmptyFrames, limits: Limits{EmptyFrames: 4},
			write: func(p *peer, i int) {
				if i == 0 {
					p.writeFrame(typeHeaders, 0, 1, nil)
					return
				}
				p.writeFrame(typeContinuation, 0, 1, nil)
			},
		},
		{
			name: "informational responses", limit: 100, why: ReasonInformational, server: true,
			begin: func(p *peer) { p.opened(true) },
			write: func(p *peer, i int) { p.writeHeaders(1, false, ":status: 103") },
		},
	} {
		for _, side := range []Side{Downstream, Upstream} {
			if side == Upstream && tt.client || side == Downstream && tt.server {
				continue
			}
			t.Run(fmt.Sprintf("%s/%v", tt.name, side), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					p := greetedEither(t, side, tt.limits)
					p.rec.credit, p.rec.quiet = true, true
					if tt.begin != nil {
						tt.begin(p)
					}
					for i := range tt.limit {
						tt.write(p, i)
					}
					for _, f := range p.skipFrames() {
						if g, ok := f.(debugGoAway); ok {
							t.Fatalf("%d are one too many: %v%s", tt.limit, g, p.ending())
						}
					}
					if p.ended() {
						t.Fatalf("%d are too many%s", tt.limit, p.ending())
					}
					tt.write(p, tt.limit)
					p.pull()
					p.skipUntil("one more is too many", debugGoAway{p.conn.highest, http2.ErrCodeEnhanceYourCalm})
					p.nc.CloseWrite()
					p.wantClosed("one more is too many", tt.why)
				})
			})
		}
	}
}

// flooded opens the stream that a flood of DATA runs on.
func flooded(p *peer) {
	openEither(p)
	if p.conn.side == Upstream {
		p.writeResponse(1, false)
	}
}

// openEither opens stream 1, whichever side of it we are.
func openEither(p *peer) *Stream {
	p.t.Helper()
	if p.conn.side == Upstream {
		return p.opened(false)
	}
	return p.request(1, false)
}

func greetedEither(t testing.TB, side Side, l Limits, settings ...http2.Setting) *peer {
	t.Helper()
	if side == Upstream {
		return greetedClient(t, l, settings...)
	}
	return greetedServer(t, l, settings...)
}

// TestLimitsForgive holds what honest peers do against the floods above: the
// same frames, at their own pace or beside RPCs.
func TestLimitsForgive(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  func(p *peer)
	}{
		{"30 pings a second for a minute", func(p *peer) {
			for range 30 * 60 {
				p.writePing("bdp")
				pass(time.Second / 30)
			}
		}},
		{"a ping for each DATA frame", func(p *peer) {
			s := p.request(1, false)
			for range 3000 {
				sendData(s, "data", false)
				p.writePing("bdp")
				p.skipFrames()
			}
		}},
		{"30 cancelled RPCs a second for a minute", func(p *peer) {
			for i := range 30 * 60 {
				p.writeRequest(uint32(2*i+1), true)
				p.writeReset(uint32(2*i+1), http2.ErrCodeCancel)
				pass(time.Second / 30)
			}
		}},
		{"a burst of cancelled RPCs among many that are not", func(p *peer) {
			for i := range 1000 {
				sendHeader(p.request(uint32(2*i+1), true), true, ":status: 200")
			}
			for i := 1000; i < 1400; i++ {
				p.writeRequest(uint32(2*i+1), true)
				p.writeReset(uint32(2*i+1), http2.ErrCodeCancel)
			}
		}},
		{"RPCs cancelled after a second", func(p *peer) {
			for i := range 10 {
				for j := range 100 {
					p.writeRequest(uint32(200*i+2*j+1), true)
				}
				pass(time.Second)
				for j := range 100 {
					p.writeReset(uint32(200*i+2*j+1), http2.ErrCodeCancel)
				}
			}
		}},
		{"RPCs cancelled after their response header", func(p *peer) {
			for i := range 1000 {
				id := uint32(2*i + 1)
				sendHeader(p.request(id, true), false, ":status: 200")
				p.writeReset(id, http2.ErrCodeCancel)
			}
		}},
		{"resets that we send for our own reasons", func(p *peer) {
			for i := range 1000 {
				id := uint32(2*i + 1)
				reset(p.request(id, false), http2.ErrCodeCancel)
				p.writeData(id, "crosses the reset", true)
			}
		}},
		{"messages of 1 byte, each the end of its stream", func(p *peer) {
			for i := range 2000 {
				id := uint32(2*i + 1)
				s := p.request(id, false)
				p.writeData(id, "x", true)
				sendHeader(s, true, ":status: 200")
			}
		}},
		{"DATA of 6 bytes at 50,000 a second", func(p *peer) {
			p.rec.credit, p.rec.quiet = true, true
			p.request(1, false)
			for range 300 {
				for range 500 {
					p.writeData(1, "\x00\x00\x00\x00\x01x", false)
				}
				pass(10 * time.Millisecond)
			}
		}},
		{"a window update for each DATA frame, for the stream and for the connection", func(p *peer) {
			s := p.request(1, false)
			for range 500 {
				sendData(s, "data", false)
				p.writeWindowUpdate(1, 4)
				p.writeWindowUpdate(0, 4)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedServer(t, Limits{})
				tt.run(p)
				p.skipFrames()
				p.wantIdle("an honest client stays connected")
			})
		})
	}
}

// A backend's resets never count: its RPCs were ours to send.
func TestLimitsForgiveBackendsThatReset(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		for range 1000 {
			s := p.opened(true)
			p.writeReset(s.ID(), http2.ErrCodeRefusedStream)
		}
		p.wantIdle("a backend may refuse whatever it likes")
	})
}

func TestLimitsEndAPeerThatDoesNotReadReplies(t *testing.T) {
	for _, side := range []Side{Downstream, Upstream} {
		t.Run(side.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedEither(t, side, Limits{})
				p.nc.in.setRoom(0)
				for range 500 {
					p.writePing("flood")
					p.writeSettings()
				}
				if p.ended() {
					t.Fatalf("1000 replies may wait%s", p.ending())
				}
				p.writePing("flood")
				pass(p.eng.limits.Linger + time.Second)
				p.wantEnded("1001 replies are too many", ReasonQueuedControl)
			})
		})
	}
}

func TestLimitsKeepStreamsToTheirNumber(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		for i := range 100 {
			p.request(uint32(2*i+1), true)
		}
		p.wantIdle("a hundred streams may be open")
		p.writeRequest(201, false)
		p.wantFrame("no more than a hundred", debugReset{201, http2.ErrCodeRefusedStream})
		p.rec.want(t, "a refused stream is never accepted")
		p.wantRejected(ReasonConcurrency, 1)
		p.writeData(201, "crosses the refusal", true)
		p.wantIdle("the client could not know")

		sendHeader(p.stream(7), true, ":status: 200")
		p.wantFrame("one of them ends", debugHeaders{7, ":status: 200", true})
		p.request(203, true)
		p.wantIdle("and makes room for another")
	})
}

func TestLimitsKeepStreamsToTheirNumberWhileDraining(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		var b Batch
		p.conn.Drain(&b)
		b.Flush()
		p.wantFrame("the first step of a drain", debugGoAway{maxStreamID, http2.ErrCodeNo}, debugPing{"drain"})
		for i := range 100 {
			p.request(uint32(2*i+1), true)
		}
		p.writeRequest(201, true)
		p.wantFrame("a client that never answers the PING gains nothing", debugReset{201, http2.ErrCodeRefusedStream})
	})
}

func TestLimitsKeepOurOwnStreamsToTheirNumber(t *testing.T) {
	for _, tt := range []struct {
		name     string
		limits   Limits
		cap      uint32
		settings []http2.Setting
		want     int
	}{
		{name: "by default", want: 1000},
		{name: "by the backend", settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 7}}, want: 7},
		{name: "whatever the backend offers", settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1 << 30}}, want: 1000},
		{name: "by the pool", cap: 5, want: 5},
		{name: "by a backend that takes none", settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 0}}, want: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				eng := NewEngine(tt.limits)
				ours, theirs := newMemoryConns(pipeRoom)
				p := newPeer(t, eng, theirs, newRecorder())
				p.run(eng.NewClient(NewTransport(ours, nil), p.rec, tt.cap))
				p.greet(tt.settings...)
				if got := p.conn.MaxStreams(); got != tt.want {
					t.Errorf("MaxStreams() = %d, want %d", got, tt.want)
				}
				var last *Stream
				for range tt.want {
					last = p.open(true, requestLines()...)
				}
				if !p.conn.Full() || p.conn.OpenStreams() != tt.want {
					t.Errorf("Full() = %v with %d of %d streams open", p.conn.Full(), p.conn.OpenStreams(), tt.want)
				}
				if _, err := p.tryOpen(true, requestLines()...); err != ErrNoSlot {
					t.Fatalf("opening one more: %v; want %v", err, ErrNoSlot)
				}
				if last != nil {
					reset(last, http2.ErrCodeCancel)
					p.open(true, requestLines()...)
				}
			})
		})
	}
}

// sized returns fields that together with what every request has come to n bytes
// as RFC 9113 section 6.5.2 counts them.
func sized(n int, lines []string) []string {
	for _, f := range splitFields(lines...) {
		n -= int(f.Size())
	}
	const name = "x-pad"
	for n > 0 {
		part := min(n, 4000)
		if rest := n - part; rest > 0 && rest < 100 {
			part -= 100
		}
		lines = append(lines, name+": "+strings.Repeat("v", part-len(name)-fieldOverhead))
		n -= part
	}
	return lines
}

func TestLimitsOfHeaderSections(t *testing.T) {
	many := func(n int, lines []string) []string {
		for len(lines) < n {
			lines = append(lines, "x-many: v")
		}
		return lines
	}
	status := []string{":status: 200"}
	for _, tt := range []struct {
		name              string
		request, response []string
		large             bool
	}{
		{"16384 bytes", sized(16<<10, requestLines()), sized(16<<10, status), false},
		{"16385 bytes", sized(16<<10+1, requestLines()), sized(16<<10+1, status), true},
		{"100 fields", many(100, requestLines()), many(100, status), false},
		{"101 fields", many(101, requestLines()), many(101, status), true},
	} {
		t.Run(tt.name+" of a request", func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedServer(t, Limits{})
				p.writeHeaders(1, true, tt.request...)
				want, n := "open 1 POST /shop.v1.Cart/Get", int64(0)
				if tt.large {
					want, n = want+" large", 1
				}
				p.rec.want(t, "the acceptor answers, it knows the caller's protocol", want+" end")
				p.wantRejected(ReasonHeaders, n)
			})
		})
		t.Run(tt.name+" of a response", func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedClient(t, Limits{})
				p.opened(true)
				p.rec.skip()
				p.writeHeaders(1, false, tt.response...)
				if !tt.large {
					p.wantIdle("within the limits")
					return
				}
				p.wantFrame("too large", debugReset{1, http2.ErrCodeCancel})
				p.rec.want(t, "too large", "ended 1 headers large ENHANCE_YOUR_CALM")
				p.wantRejected(ReasonHeaders, 1)
			})
		})
		t.Run(tt.name+" of trailers", func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedClient(t, Limits{})
				p.opened(true)
				p.writeResponse(1, false)
				p.rec.skip()
				// ":status: 200" is as long as this, which trailers may have.
				p.writeHeaders(1, true, append([]string{"xstatus: 200"}, tt.response[1:]...)...)
				if !tt.large {
					p.wantIdle("within the limits")
					return
				}
				p.wantFrame("too large", debugReset{1, http2.ErrCodeCancel})
				p.rec.want(t, "too large", "ended 1 headers large ENHANCE_YOUR_CALM")
			})
		})
	}
}

// What HPACK can make of few bytes ends the connection, and until then is not
// kept (CVE-2016-6581, CVE-2026-49975).
func TestLimitsEndHeaderBombs(t *testing.T) {
	for _, tt := range []struct {
		name  string
		block func(refs int) []byte
		refs  int // the most that are only large
		last  int // that bring the connection down
	}{
		{"large entry", func(refs int) []byte {
			return append(hpackBlock(splitFields("x-bomb: "+strings.Repeat("v", 960))...), strings.Repeat("\xbe", refs)...)
		}, 64, 65},
		{"empty cookie crumbs", func(refs int) []byte {
			return append(hpackBlock(splitFields("x-crumb: ")...), strings.Repeat("\xa0", refs)...)
		}, 399, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedServer(t, Limits{})
				p.writeFrame(typeHeaders, flagEndHeaders|flagEndStream, 1, tt.block(tt.refs))
				p.rec.want(t, "large", "open 1   large end")
				p.writeFrame(typeHeaders, flagEndHeaders|flagEndStream, 3, tt.block(tt.last))
				p.wantGoAway("a bomb", 1, http2.ErrCodeEnhanceYourCalm, ReasonHeaderBomb)
			})
		})
	}
}

func TestLimitsOfTime(t *testing.T) {
	const sweep = sweepEvery + time.Millisecond
	for _, tt := range []struct {
		name  string
		begin func(t *testing.T) *peer
		step  func(p *peer) // once a second
		after time.Duration // nothing may happen before
		late  time.Duration // than after, at most
		why   Reason
	}{
		{
			name:  "a client that is silent",
			begin: func(t *testing.T) *peer { return newServerPeer(t, Limits{}) },
			after: 5 * time.Second, why: ReasonPreface,
		},
		{
			name: "a client that drips its preface",
			begin: func(t *testing.T) *peer {
				p := newServerPeer(t, Limits{})
				p.writeRaw([]byte(http2.ClientPreface[:11]))
				return p
			},
			step: func(p *peer) {
				n := 10 + int(time.Since(p.conn.since)/time.Second)
				p.writeRaw([]byte(http2.ClientPreface[n : n+1]))
			},
			after: 5 * time.Second, why: ReasonPreface,
		},
		{
			name: "a client that sends no SETTINGS",
			begin: func(t *testing.T) *peer {
				p := newServerPeer(t, Limits{})
				p.writePreface()
				return p
			},
			after: 5 * time.Second, why: ReasonPreface,
		},
		{
			name: "a client that sends half of its SETTINGS",
			begin: func(t *testing.T) *peer {
				p := newServerPeer(t, Limits{})
				p.writePreface()
				p.writeRaw(appendSettings(nil, http2.Setting{ID: http2.SettingInitialWindowSize})[:12])
				return p
			},
			after: 5 * time.Second, why: ReasonPreface,
		},
		{
			name:  "a backend that is silent",
			begin: func(t *testing.T) *peer { return newClientPeer(t, Limits{}) },
			after: 5 * time.Second, why: ReasonPreface,
		},
		{
			name: "a client that does not end a header section",
			begin: func(t *testing.T) *peer {
				p := greetedServer(t, Limits{})
				p.writeFrame(typeHeaders, flagEndStream, 1, p.encode(requestLines()...))
				return p
			},
			step: func(p *peer) {
				if time.Since(p.conn.since) == 2*time.Second {
					p.writeFrame(typeContinuation, 0, 1, p.encode("x: y"))
				}
			},
			after: 5 * time.Second, late: time.Second, why: ReasonContinuations,
		},
		{
			name: "a backend that does not end a header section",
			begin: func(t *testing.T) *peer {
				p := greetedClient(t, Limits{})
				p.opened(true)
				p.writeFrame(typeHeaders, 0, 1, p.encode(":status: 200"))
				return p
			},
			after: 5 * time.Second, late: time.Second, why: ReasonContinuations,
		},
		{
			name: "a client that does not acknowledge our SETTINGS",
			begin: func(t *testing.T) *peer {
				p := newServerPeer(t, Limits{})
				p.writePreface()
				p.writeSettings()
				return p
			},
			after: 15 * time.Second, late: sweep, why: ReasonSettingsAck,
		},
		{
			name: "a peer that does not read",
			begin: func(t *testing.T) *peer {
				p := greetedServer(t, Limits{})
				s := p.request(1, true)
				p.nc.in.setRoom(0)
				sendData(s, strings.Repeat("x", 60_000), false)
				return p
			},
			after: time.Minute, late: sweep, why: ReasonMinRate,
		},
		{
			name: "a peer that reads 90 bytes a second",
			begin: func(t *testing.T) *peer {
				p := greetedServer(t, Limits{})
				s := p.request(1, true)
				p.nc.in.setRoom(0)
				sendData(s, strings.Repeat("x", 60_000), false)
				return p
			},
			step: func(p *peer) {
				p.nc.in.setRoom(90)
				p.ended()
				p.nc.in.take(-1)
				p.nc.in.setRoom(0)
			},
			after: time.Minute, late: sweep, why: ReasonMinRate,
		},
		{
			name:  "a client without streams",
			begin: func(t *testing.T) *peer { return greetedServer(t, Limits{}) },
			step:  answerPings,
			after: time.Hour, late: 3 * sweep, why: ReasonIdle,
		},
		{
			name:  "a client without streams that answers nothing",
			begin: func(t *testing.T) *peer { return greetedServer(t, Limits{}) },
			after: time.Hour, late: 3*sweep + probeTimeout, why: ReasonIdle,
		},
		{
			name:  "a backend without streams",
			begin: func(t *testing.T) *peer { return greetedClient(t, Limits{}) },
			after: time.Hour, late: 3 * sweep, why: ReasonIdle,
		},
		{
			name: "a client whose last stream ended half an hour ago",
			begin: func(t *testing.T) *peer {
				p := greetedServer(t, Limits{})
				pass(30 * time.Minute)
				sendHeader(p.request(1, true), true, ":status: 200")
				return p
			},
			step:  answerPings,
			after: time.Hour, late: 3 * sweep, why: ReasonIdle,
		},
		{
			name: "a peer that neither reads its GOAWAY nor closes",
			begin: func(t *testing.T) *peer {
				p := greetedServer(t, Limits{})
				p.nc.in.setRoom(0)
				p.writeRaw(appendWindowUpdate(nil, 0, 0))
				return p
			},
			after: time.Second, why: ReasonProtocol,
		},
		{
			name: "a peer that reads its GOAWAY and does not close",
			begin: func(t *testing.T) *peer {
				p := greetedServer(t, Limits{})
				p.writeRaw(appendWindowUpdate(nil, 0, 0))
				return p
			},
			after: time.Second, why: ReasonProtocol,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := tt.begin(t)
				start := time.Now()
				for time.Since(start) < tt.after-time.Second {
					pass(time.Second)
					if tt.step != nil {
						tt.step(p)
					}
				}
				pass(tt.after - time.Since(start) - time.Millisecond)
				if p.ended() {
					t.Fatalf("ended before %v had passed%s", tt.after, p.ending())
				}
				for time.Since(start) < tt.after+tt.late+time.Millisecond {
					pass(min(time.Second, tt.after+tt.late+time.Millisecond-time.Since(start)))
					if tt.step != nil {
						tt.step(p)
					}
				}
				p.wantEnded(fmt.Sprintf("%v have passed", tt.after), tt.why)
			})
		})
	}
}

// answerPings reads what we send and acknowledges each PING; it closes when we
// have.
func answerPings(p *peer) {
	for f := p.next(); f != nil; f = p.next() {
		if ping, ok := f.(debugPing); ok {
			p.writePingAck(ping.data)
		}
	}
	if p.pull() {
		p.nc.Close()
	}
}

func TestLimitsKeepAPeerThatReadsSlowly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		s := p.request(1, true)
		p.nc.in.setRoom(0)
		sendData(s, strings.Repeat("x", 60_000), false)
		for range 400 {
			p.nc.in.setRoom(200)
			p.ended()
			p.nc.in.take(-1)
			p.nc.in.setRoom(0)
			pass(time.Second)
		}
		if p.ended() {
			t.Errorf("200 bytes a second are enough%s", p.ending())
		}
	})
}

// A stream whose peer grants a byte a second is ended, the others go on.
func TestLimitsEndStalledStreams(t *testing.T) {
	for _, drip := range []bool{false, true} {
		t.Run(fmt.Sprintf("drip %v", drip), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedServer(t, Limits{}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
				s := p.request(1, true)
				sendHeader(s, false, ":status: 200")
				sendData(s, strings.Repeat("x", 1000), false)
				other := p.request(3, true)
				p.skipFrames()
				for range 5*60 - 1 {
					pass(time.Second)
					if drip {
						p.writeWindowUpdate(1, 1)
						p.wantFrame("as much as there is window", debugData{1, "x", false})
					}
				}
				p.wantIdle("not before five minutes have passed")
				pass(3 * sweepEvery)
				p.wantFrame("five minutes have passed", debugReset{1, http2.ErrCodeCancel})
				p.rec.want(t, "five minutes have passed", "ended 1 stalled CANCEL")
				p.wantRejected(ReasonStalled, 1)
				sendHeader(other, true, ":status: 200")
				p.wantFrame("the other stream goes on", debugHeaders{3, ":status: 200", true})
			})
		})
	}
}

// A client that withholds the connection's window holds streams no longer.
func TestLimitsEndStreamsThatTheConnectionStalls(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		for i := range 3 {
			sendData(p.request(uint32(2*i+1), true), strings.Repeat("x", 40_000), false)
		}
		pass(5*time.Minute + 3*sweepEvery)
		p.skipFrames()
		p.wantRejected(ReasonStalled, 2)
		if n := p.conn.OpenStreams(); n != 1 {
			t.Errorf("%d streams are open; want the one that had its data sent", n)
		}
	})
}

func TestLimitsKeepAStreamThatMoves(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		s := p.request(1, true)
		p.writeWindowUpdate(0, 1<<20)
		sendData(s, strings.Repeat("x", 200_000), false)
		for range 1000 {
			pass(time.Second)
			p.writeWindowUpdate(1, 120)
			p.wantFrame("as much as there is window", debugData{1, strings.Repeat("x", 120), false})
		}
		p.wantIdle("120 bytes a second are enough")
	})
}

func TestLimitsKeepWindowGrowthToItsBudget(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{WindowBudget: 192 << 10})
		first, second := p.request(1, false), p.request(3, false)
		giveCredit(first, 32<<10, true)
		p.wantFrame("half the window was taken: it grows four times",
			debugWindowUpdate{1, 32<<10 + 192<<10})
		giveCredit(second, 32<<10, true)
		p.wantFrame("the budget is spent", debugWindowUpdate{3, 32 << 10})
		giveCredit(first, 128<<10, true)
		p.wantFrame("the budget is spent", debugWindowUpdate{1, 128 << 10})
		p.writeReset(1, http2.ErrCodeCancel)
		p.ended()
		giveCredit(second, 32<<10, true)
		p.wantFrame("the budget is back", debugWindowUpdate{3, 32<<10 + 192<<10})
	})
}

func TestLimitsEndTheLargestQueueWhenMemoryRunsOut(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		eng, rec := NewEngine(Limits{QueueBudget: 100_000}), newRecorder()
		p := newServerPeerOn(t, eng, rec)
		p.greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		sizes := []int{20_000, 30_000, 50_000}
		for i, n := range sizes {
			sendData(p.request(uint32(2*i+1), true), strings.Repeat("x", n), false)
		}
		pass(2 * sweepEvery)
		p.wantIdle("the budget holds")
		sendData(p.request(7, true), "x", false)
		pass(2 * sweepEvery)
		p.wantFrame("the largest has to go", debugReset{5, http2.ErrCodeEnhanceYourCalm})
		p.wantIdle("the others stay")
		p.rec.want(t, "its sink knows why", "ended 5 overloaded ENHANCE_YOUR_CALM")
		p.wantRejected(ReasonOverload, 1)
		if got := eng.Queued(); got != 50_001 {
			t.Errorf("%d bytes are queued, want 50001", got)
		}
	})
}

func TestLimitsHaveReasonsAndCounters(t *testing.T) {
	counts := NewEngine(Limits{}).Counts(Downstream)
	seen := map[string]bool{}
	for _, name := range Reasons() {
		if name == "" || seen[name] {
			t.Errorf("reason %q is empty or comes twice", name)
		}
		seen[name] = true
		if _, ok := counts.Closed[name]; !ok {
			t.Errorf("no counter of connections closed for %q", name)
		}
		if _, ok := counts.Rejected[name]; !ok {
			t.Errorf("no counter of streams rejected for %q", name)
		}
	}
}

func TestLimitsAreInTheErrors(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{Pings: 3})
		for range 4 {
			p.writePing("flood")
		}
		p.skipFrames()
		p.nc.CloseWrite()
		<-p.ran
		var ce *connError
		if !errors.As(p.err, &ce) {
			t.Fatalf("Run() = %v; want a connection error", p.err)
		}
		const want = "connection ended with ENHANCE_YOUR_CALM (pings): more than 3 PING frames"
		if got := p.err.Error(); got != want {
			t.Errorf("Run() = %q, want %q", got, want)
		}
	})
}

// Requests have no window: a backend that does not read is sent no more of them
// than a bounded part of memory holds, though each may be given up at once.
func TestLimitsStopRequestsToABackendThatIsStuck(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{StuckOutput: 100_000})
		p.nc.in.setRoom(0)
		large := append(requestLines(), "x-large: "+strings.Repeat("v", 4000))
		opened := 0
		for ; opened < 200; opened++ {
			s, err := p.tryOpen(true, large...)
			if err == ErrStuck {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			reset(s, http2.ErrCodeCancel)
		}
		// One more parcel is with the writer.
		if opened < 20 || opened > 40 {
			t.Errorf("%d requests of 4 KiB went out, want about 100,000 bytes of them", opened)
		}
		p.nc.in.setRoom(pipeRoom)
		p.skipFrames()
		p.opened(true)
	})
}

// Answers without content have no window either: a client that does not read them
// gets no more streams than it may have open, twice over.
func TestLimitsStopAClientThatDoesNotReadAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		p.rec.onOpen = func(s *Stream, h *Head, b *Batch) { s.SendHeader(engineFields(":status: 200"), true, b) }
		p.nc.in.setRoom(0)
		for i := range 300 {
			p.writeRequest(uint32(2*i+1), true)
		}
		p.ended()
		p.rec.mu.Lock()
		accepted := len(p.rec.events)
		p.rec.events = nil
		p.rec.mu.Unlock()
		if accepted != 200 {
			t.Errorf("%d requests were taken, want 200", accepted)
		}
		p.nc.in.setRoom(pipeRoom)
		answered, refused := 0, 0
		for _, f := range p.skipFrames() {
			switch f.(type) {
			case debugHeaders:
				answered++
			case debugReset:
				refused++
			}
		}
		if answered != 200 || refused != 100 {
			t.Errorf("%d answers and %d refusals, want 200 and 100", answered, refused)
		}
		p.request(1001, true)
		p.wantFrame("a client that has read", debugHeaders{1001, ":status: 200", true})
	})
}

// Informational responses together are no larger than one header section may be.
func TestLimitsOfInformationalResponsesInBytes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		p.opened(true)
		for range 4 {
			p.writeHeaders(1, false, sized(4096, []string{":status: 103"})...)
		}
		p.wantIdle("16 KiB")
		p.writeHeaders(1, false, ":status: 103")
		p.wantGoAway("more than 16 KiB", 0, http2.ErrCodeEnhanceYourCalm, ReasonInformational)
	})
}

// A client may make us reset its own streams, by any fault that costs a stream
// (CVE-2025-8671): it counts as if the client had sent the resets. No sink is left
// without an end.
func TestLimitsEndResetsThatAreProvoked(t *testing.T) {
	for _, tt := range []struct {
		name  string
		write func(p *peer, id uint32)
	}{
		{"WINDOW_UPDATE by 0", func(p *peer, id uint32) {
			p.writeRequest(id, false)
			p.out.WriteWindowUpdate(id, 0)
		}},
		{"WINDOW_UPDATE over 2^31-1", func(p *peer, id uint32) {
			p.writeRequest(id, false)
			p.writeWindowUpdate(id, maxWindow)
		}},
		{"DATA after END_STREAM", func(p *peer, id uint32) {
			p.writeRequest(id, true)
			p.writeData(id, "x", true)
		}},
		{"HEADERS after END_STREAM", func(p *peer, id uint32) {
			p.writeRequest(id, true)
			p.writeHeaders(id, true, "x: y")
		}},
		{"PRIORITY of 4 bytes", func(p *peer, id uint32) {
			p.writeRequest(id, true)
			p.writeFrame(typePriority, 0, id, make([]byte, 4))
		}},
		{"PRIORITY of 4 bytes on a closed stream", func(p *peer, id uint32) {
			if id == 1 {
				sendHeader(p.request(1, true), true, ":status: 200")
			}
			p.writeFrame(typePriority, 0, 1, make([]byte, 4))
		}},
		{"PRIORITY of a stream on itself", func(p *peer, id uint32) {
			p.writeRequest(id, true)
			p.out.WritePriority(id, http2.PriorityParam{StreamDep: id})
		}},
		{"HEADERS of a stream on itself", func(p *peer, id uint32) {
			p.out.WriteHeaders(http2.HeadersFrameParam{
				StreamID: id, EndHeaders: true, BlockFragment: p.encode(requestLines()...),
				Priority: http2.PriorityParam{StreamDep: id},
			})
		}},
		{"DATA against content-length", func(p *peer, id uint32) {
			p.writeRequest(id, false, "content-length: 1")
			p.writeData(id, "two", true)
		}},
		{"malformed trailers", func(p *peer, id uint32) {
			p.writeRequest(id, false)
			p.writeHeaders(id, true, ":path: /")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedServer(t, Limits{})
				resets := 0
				for i := uint32(0); !p.ended() && i < 1000; i++ {
					tt.write(p, 2*i+1)
					for _, f := range p.skipFrames() {
						switch f := f.(type) {
						case debugReset:
							resets++
						case debugGoAway:
							if f.code != http2.ErrCodeEnhanceYourCalm {
								t.Errorf("got %v", f)
							}
							p.nc.CloseWrite()
						}
					}
				}
				p.wantEnded("a flood", ReasonResets)
				if resets != 200 {
					t.Errorf("%d resets were forced on us, want 200", resets)
				}
				opened, ended := 0, 0
				p.rec.mu.Lock()
				defer p.rec.mu.Unlock()
				for _, e := range p.rec.events {
					opened += strings.Count(e[:5], "open ")
					ended += strings.Count(e[:5], "ended")
				}
				if tt.name != "PRIORITY of 4 bytes on a closed stream" && opened != ended {
					t.Errorf("%d streams were opened, %d ends were told", opened, ended)
				}
			})
		})
	}
}
