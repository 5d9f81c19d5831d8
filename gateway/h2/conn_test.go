package h2

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// sides are the two kinds of peer: what both may do is tried with both.
var sides = []Side{Downstream, Upstream}

func TestConnGreets(t *testing.T) {
	for _, side := range sides {
		t.Run(side.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedEither(t, side, Limits{})
				p.wantIdle("all has been said")
			})
		})
	}
}

func TestConnTakesThePrefaceInPieces(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newServerPeer(t, Limits{})
		begin := append([]byte(http2.ClientPreface), appendSettings(nil)...)
		for i := range begin {
			p.writeRaw(begin[i : i+1])
			if p.ended() {
				t.Fatalf("ended after %d bytes%s", i+1, p.ending())
			}
		}
		p.wantFrame("greeting", p.wantSettings(), debugWindowUpdate{0, 4<<20 - 65535}, debugSettingsAck{})
	})
}

func TestConnRefusesOtherPrefaces(t *testing.T) {
	for _, begin := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
		"\x16\x03\x01\x02\x00",
		"PRI * HTTP/2.1",
	} {
		t.Run(begin, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newServerPeer(t, Limits{})
				p.writeRaw([]byte(begin))
				p.wantFrame("greeting", p.wantSettings(), debugWindowUpdate{0, 4<<20 - 65535})
				p.wantGoAway("not the preface", 0, http2.ErrCodeProtocol, ReasonProtocol)
			})
		})
	}
}

func TestConnWantsSettingsFirst(t *testing.T) {
	for _, side := range sides {
		for _, first := range []struct {
			name  string
			write func(p *peer)
		}{
			{"PING", func(p *peer) { p.writePing("early") }},
			{"HEADERS", func(p *peer) { p.writeRequest(1, true) }},
			{"an acknowledgement", func(p *peer) { p.out.WriteSettingsAck() }},
			{"an unknown frame", func(p *peer) { p.writeFrame(0x42, 0, 0, nil) }},
		} {
			t.Run(first.name+"/"+side.String(), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					p := newServerPeer
					if side == Upstream {
						p = newClientPeer
					}
					peer := p(t, Limits{})
					if side == Downstream {
						peer.writePreface()
					} else {
						peer.wantPreface()
					}
					first.write(peer)
					peer.wantFrame("greeting", peer.wantSettings(), debugWindowUpdate{0, 4<<20 - 65535})
					peer.wantGoAway("SETTINGS come first", 0, http2.ErrCodeProtocol, ReasonProtocol)
				})
			})
		}
	}
}

// TestConnEndsOnFaults holds every frame that leaves no common state. Most are
// the same from clients and from backends. Stream 1 is open.
func TestConnEndsOnFaults(t *testing.T) {
	const (
		both = iota
		client
		backend
	)
	for _, tt := range []struct {
		name  string
		write func(p *peer)
		code  http2.ErrCode
		why   Reason
		from  int
	}{
		{name: "SETTINGS on a stream", write: frame(typeSettings, 0, 1, 0), code: http2.ErrCodeProtocol},
		{name: "SETTINGS of 5 bytes", write: frame(typeSettings, 0, 0, 5), code: http2.ErrCodeFrameSize},
		{name: "acknowledgement with payload", write: frame(typeSettings, flagAck, 0, 6), code: http2.ErrCodeFrameSize},
		{name: "INITIAL_WINDOW_SIZE of 2^31", write: setting(http2.SettingInitialWindowSize, 1<<31), code: http2.ErrCodeFlowControl},
		{name: "MAX_FRAME_SIZE of 0", write: setting(http2.SettingMaxFrameSize, 0), code: http2.ErrCodeProtocol},
		{name: "MAX_FRAME_SIZE of 16383", write: setting(http2.SettingMaxFrameSize, 16383), code: http2.ErrCodeProtocol},
		{name: "MAX_FRAME_SIZE of 2^24", write: setting(http2.SettingMaxFrameSize, 1<<24), code: http2.ErrCodeProtocol},
		{name: "ENABLE_PUSH of 2", write: setting(http2.SettingEnablePush, 2), code: http2.ErrCodeProtocol},
		{name: "ENABLE_PUSH of 7", write: setting(http2.SettingEnablePush, 7), code: http2.ErrCodeProtocol},
		{name: "ENABLE_PUSH of a server", write: setting(http2.SettingEnablePush, 1), code: http2.ErrCodeProtocol, from: backend},
		{name: "INITIAL_WINDOW_SIZE that lifts a stream over 2^31-1", write: func(p *peer) {
			p.writeWindowUpdate(1, maxWindow-defaultWindow)
			p.writeSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: defaultWindow + 1})
		}, code: http2.ErrCodeFlowControl},

		{name: "PING on a stream", write: frame(typePing, 0, 1, 8), code: http2.ErrCodeProtocol},
		{name: "PING of 7 bytes", write: frame(typePing, 0, 0, 7), code: http2.ErrCodeFrameSize},
		{name: "PING of 9 bytes", write: frame(typePing, 0, 0, 9), code: http2.ErrCodeFrameSize},
		{name: "GOAWAY on a stream", write: frame(typeGoAway, 0, 1, 8), code: http2.ErrCodeProtocol},
		{name: "GOAWAY of 7 bytes", write: frame(typeGoAway, 0, 0, 7), code: http2.ErrCodeFrameSize},

		{name: "WINDOW_UPDATE of 3 bytes", write: frame(typeWindowUpdate, 0, 0, 3), code: http2.ErrCodeFrameSize},
		{name: "WINDOW_UPDATE of 5 bytes on a stream", write: frame(typeWindowUpdate, 0, 1, 5), code: http2.ErrCodeFrameSize},
		{name: "WINDOW_UPDATE by 0", write: frame(typeWindowUpdate, 0, 0, 4), code: http2.ErrCodeProtocol},
		{name: "WINDOW_UPDATE of the connection over 2^31-1", write: func(p *peer) { p.writeWindowUpdate(0, maxWindow) }, code: http2.ErrCodeFlowControl},
		{name: "WINDOW_UPDATE on an idle stream", write: func(p *peer) { p.writeWindowUpdate(3, 1) }, code: http2.ErrCodeProtocol},
		{name: "WINDOW_UPDATE on a stream that a server would open", write: func(p *peer) { p.writeWindowUpdate(2, 1) }, code: http2.ErrCodeProtocol},

		{name: "RST_STREAM on stream 0", write: frame(typeRSTStream, 0, 0, 4), code: http2.ErrCodeProtocol},
		{name: "RST_STREAM of 3 bytes", write: frame(typeRSTStream, 0, 1, 3), code: http2.ErrCodeFrameSize},
		{name: "RST_STREAM of 5 bytes", write: frame(typeRSTStream, 0, 1, 5), code: http2.ErrCodeFrameSize},
		{name: "RST_STREAM on an idle stream", write: frame(typeRSTStream, 0, 3, 4), code: http2.ErrCodeProtocol},
		{name: "PRIORITY on stream 0", write: frame(typePriority, 0, 0, 5), code: http2.ErrCodeProtocol},
		{name: "PRIORITY of 4 bytes on an idle stream", write: frame(typePriority, 0, 3, 4), code: http2.ErrCodeFrameSize, why: ReasonProtocol},
		{name: "PRIORITY of an idle stream on itself", write: func(p *peer) {
			p.out.WritePriority(3, http2.PriorityParam{StreamDep: 3})
		}, code: http2.ErrCodeProtocol},

		{name: "DATA on stream 0", write: frame(typeData, 0, 0, 1), code: http2.ErrCodeProtocol},
		{name: "DATA on an idle stream", write: frame(typeData, 0, 3, 1), code: http2.ErrCodeProtocol},
		{name: "DATA with more padding than payload", write: func(p *peer) {
			p.writeFrame(typeData, flagPadded, 1, []byte{5, 'a', 'b', 'c', 'd'})
		}, code: http2.ErrCodeProtocol},
		{name: "padded DATA without a length", write: frame(typeData, flagPadded, 1, 0), code: http2.ErrCodeProtocol},

		{name: "HEADERS on stream 0", write: frame(typeHeaders, flagEndHeaders, 0, 0), code: http2.ErrCodeProtocol},
		{name: "HEADERS on stream 2", write: func(p *peer) { p.writeRequest(2, true) }, code: http2.ErrCodeProtocol},
		{name: "HEADERS on an idle stream", write: func(p *peer) { p.writeResponse(3, true) }, code: http2.ErrCodeProtocol, from: backend},
		{name: "HEADERS with more padding than payload", write: func(p *peer) {
			p.writeFrame(typeHeaders, flagPadded|flagEndHeaders, 3, []byte{3, 0x82, 0x82})
		}, code: http2.ErrCodeProtocol},
		{name: "HEADERS too short for its priority", write: frame(typeHeaders, flagPriority|flagEndHeaders, 3, 4), code: http2.ErrCodeFrameSize},
		{name: "HEADERS on a stream that has ended", write: func(p *peer) {
			sendHeader(p.request(3, true), true, ":status: 200")
			p.writeRequest(3, true)
		}, code: http2.ErrCodeStreamClosed, why: ReasonProtocol, from: client},
		{name: "HEADERS on a stream that its client has reset", write: func(p *peer) {
			p.request(3, false)
			p.writeReset(3, http2.ErrCodeCancel)
			p.writeRequest(3, true)
		}, code: http2.ErrCodeStreamClosed, why: ReasonProtocol, from: client},
		{name: "HEADERS on a stream that was passed over", write: func(p *peer) {
			p.request(5, false)
			p.writeRequest(3, true)
		}, code: http2.ErrCodeStreamClosed, why: ReasonProtocol, from: client},
		{name: "PUSH_PROMISE", write: frame(typePushPromise, flagEndHeaders, 1, 4), code: http2.ErrCodeProtocol},

		{name: "CONTINUATION without HEADERS", write: frame(typeContinuation, flagEndHeaders, 1, 0), code: http2.ErrCodeProtocol},
		{name: "CONTINUATION after END_HEADERS", write: func(p *peer) {
			p.writeFrame(typeHeaders, flagEndHeaders|flagEndStream, 1, p.encode("x-trailer: v"))
			p.writeFrame(typeContinuation, flagEndHeaders, 1, nil)
		}, code: http2.ErrCodeProtocol},
		{name: "CONTINUATION of another stream", write: func(p *peer) {
			p.writeFrame(typeHeaders, 0, 1, nil)
			p.writeFrame(typeContinuation, flagEndHeaders, 3, nil)
		}, code: http2.ErrCodeProtocol},
		{name: "DATA inside a header block", write: func(p *peer) {
			p.writeFrame(typeHeaders, 0, 1, nil)
			p.writeData(1, "x", false)
		}, code: http2.ErrCodeProtocol},
		{name: "PING inside a header block", write: func(p *peer) {
			p.writeFrame(typeHeaders, 0, 1, nil)
			p.writePing("x")
		}, code: http2.ErrCodeProtocol},
		{name: "an unknown frame inside a header block", write: func(p *peer) {
			p.writeFrame(typeHeaders, 0, 1, nil)
			p.writeFrame(0x42, 0, 1, nil)
		}, code: http2.ErrCodeProtocol},
		{name: "HEADERS inside a header block", write: func(p *peer) {
			p.writeFrame(typeHeaders, 0, 1, nil)
			p.writeFrame(typeHeaders, flagEndHeaders, 1, nil)
		}, code: http2.ErrCodeProtocol},

		{name: "index 0", write: block(0x80), code: http2.ErrCodeCompression},
		{name: "an index beyond the table", write: block(0xfe), code: http2.ErrCodeCompression},
		{name: "a string longer than its block", write: block(0x00, 0x7f), code: http2.ErrCodeCompression},
		{name: "a table larger than ours", write: block(0x3f, 0xe2, 0x1f), code: http2.ErrCodeCompression},
		{name: "a table size update behind a field", write: block(0x82, 0x20), code: http2.ErrCodeCompression},
		{name: "Huffman padding of zeros", write: block(0x00, 0x81, 0x00, 0x01, 'v'), code: http2.ErrCodeCompression},

		{name: "a frame of 16385 bytes", write: frame(typeData, 0, 1, 16385), code: http2.ErrCodeFrameSize},
		{name: "a frame that declares 16 MiB", write: func(p *peer) {
			p.writeRaw(appendFrameHeader(nil, 1<<24-1, 0x42, 0, 0))
		}, code: http2.ErrCodeFrameSize},
	} {
		for _, side := range sides {
			if side == Downstream && tt.from == backend || side == Upstream && tt.from == client {
				continue
			}
			t.Run(tt.name+"/"+side.String(), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					p := greetedEither(t, side, Limits{})
					openEither(p)
					tt.write(p)
					p.pull()
					p.skipUntil("it leaves no common state", debugGoAway{p.conn.highest, tt.code})
					p.nc.CloseWrite()
					why := tt.why
					if why == ReasonNone {
						why = reasonOfCode[tt.code]
					}
					p.wantClosed("it leaves no common state", why)
					if p.err == nil || strings.Contains(p.err.Error(), "%!") || strings.Contains(p.err.Error(), "%d") {
						t.Errorf("Run() = %v; want what the peer did", p.err)
					}
				})
			})
		}
	}
}

var reasonOfCode = map[http2.ErrCode]Reason{
	http2.ErrCodeProtocol:    ReasonProtocol,
	http2.ErrCodeFlowControl: ReasonFlowControl,
	http2.ErrCodeFrameSize:   ReasonFrameSize,
	http2.ErrCodeCompression: ReasonCompression,
}

func frame(typ, flags uint8, id uint32, length int) func(p *peer) {
	return func(p *peer) { p.writeFrame(typ, flags, id, make([]byte, length)) }
}

func setting(id http2.SettingID, val uint32) func(p *peer) {
	return func(p *peer) { p.writeSettings(http2.Setting{ID: id, Val: val}) }
}

func block(b ...byte) func(p *peer) {
	return func(p *peer) { p.writeFrame(typeHeaders, flagEndHeaders, 1, b) }
}

// TestConnResetsStreamsOnFaults holds the faults that cost their stream only.
func TestConnResetsStreamsOnFaults(t *testing.T) {
	for _, tt := range []struct {
		name  string
		begin func(p *peer)
		write func(p *peer)
		code  http2.ErrCode
	}{
		{name: "WINDOW_UPDATE by 0", write: frame(typeWindowUpdate, 0, 1, 4), code: http2.ErrCodeProtocol},
		{name: "WINDOW_UPDATE over 2^31-1", write: func(p *peer) { p.writeWindowUpdate(1, maxWindow) }, code: http2.ErrCodeFlowControl},
		{name: "PRIORITY of 4 bytes", write: frame(typePriority, 0, 1, 4), code: http2.ErrCodeFrameSize},
		{name: "PRIORITY of the stream on itself", write: func(p *peer) {
			p.out.WritePriority(1, http2.PriorityParam{StreamDep: 1})
		}, code: http2.ErrCodeProtocol},
		{name: "DATA beyond the window", begin: answered, write: func(p *peer) {
			for left := int(p.conn.window) + 1; left > 0; left -= minMaxFrameSize {
				p.writeData(1, strings.Repeat("x", min(left, minMaxFrameSize)), false)
			}
		}, code: http2.ErrCodeFlowControl},
		{name: "padding beyond the window", begin: answered, write: func(p *peer) {
			for range int(p.conn.window)/(1+200+55) + 1 {
				p.out.WriteDataPadded(1, false, make([]byte, 200), make([]byte, 55))
			}
		}, code: http2.ErrCodeFlowControl},
		{name: "DATA after END_STREAM", begin: answered, write: func(p *peer) {
			p.writeData(1, "x", true)
			p.writeData(1, "x", false)
		}, code: http2.ErrCodeStreamClosed},
		{name: "HEADERS after END_STREAM", begin: answered, write: func(p *peer) {
			p.writeData(1, "x", true)
			p.writeHeaders(1, true, "x-trailer: v")
		}, code: http2.ErrCodeStreamClosed},
		{name: "trailers without END_STREAM", begin: answered, write: func(p *peer) {
			p.writeHeaders(1, false, "x-trailer: v")
		}, code: http2.ErrCodeProtocol},
		{name: "trailers with a pseudo-field", begin: answered, write: func(p *peer) {
			p.writeHeaders(1, true, ":status: 200")
		}, code: http2.ErrCodeProtocol},
		{name: "trailers with an upper-case name", begin: answered, write: func(p *peer) {
			p.writeHeaders(1, true, "X-Trailer: v")
		}, code: http2.ErrCodeProtocol},
	} {
		for _, side := range sides {
			t.Run(tt.name+"/"+side.String(), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					p := greetedEither(t, side, Limits{})
					p.rec.quiet = true
					openEither(p)
					if tt.begin != nil {
						tt.begin(p)
					}
					p.rec.skip()
					tt.write(p)
					p.skipUntil("it costs the stream", debugReset{1, tt.code})
					events := p.rec.events
					if len(events) == 0 || events[len(events)-1] != "ended 1 violation "+tt.code.String() {
						t.Errorf("heard %v; want the violation last", events)
					}
					p.wantRejected(ReasonMalformed, 1)

					p.writeData(1, "crosses the reset", true)
					p.writeWindowUpdate(1, 1)
					p.writeReset(1, http2.ErrCodeCancel)
					p.wantIdle("late frames are no faults, and are not answered")
				})
			})
		}
	}
}

// answered has a backend's response begin; a client's request has begun already.
func answered(p *peer) {
	if p.conn.side == Upstream {
		p.writeResponse(1, false)
	}
}

// A header block is decoded whatever becomes of its stream, because the next one
// builds on it.
func TestConnKeepsCompressionStateOverRefusedStreams(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{MaxConcurrentStreams: 1})
		p.request(1, false)
		p.writeRequest(3, true, "x-remembered: by both")
		p.wantFrame("too many", debugReset{3, http2.ErrCodeRefusedStream})
		p.writeHeaders(5, true, ":method: GET", "x-also: remembered") // malformed
		p.wantFrame("malformed", debugReset{5, http2.ErrCodeProtocol})
		p.writeHeaders(1, true, "x-remembered: by both", "x-also: remembered")
		p.rec.want(t, "fields by index", "header 1 [x-remembered: by both, x-also: remembered] end")
	})
}

func TestConnIgnoresUnknownFrames(t *testing.T) {
	for _, side := range sides {
		t.Run(side.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedEither(t, side, Limits{})
				openEither(p)
				for typ := 0x0a; typ <= 0xff; typ++ {
					for _, length := range []int{0, 1, 64} {
						p.writeFrame(uint8(typ), uint8(typ*31), uint32(typ%3), make([]byte, length))
					}
				}
				p.writePing("alive")
				p.wantFrame("unknown frames are skipped", debugPingAck{"alive"})
				p.wantIdle("unknown frames are skipped")
			})
		})
	}
}

// RFC 9113 section 4.1: the reserved bit and flags without meaning are ignored.
func TestConnIgnoresReservedBits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		p.writeFrame(typeHeaders, flagEndHeaders|0xd2, 1|1<<31, p.encode(requestLines()...))
		p.writeFrame(typePing, 0xfe, 1<<31, []byte("12345678"))
		p.writeFrame(typeData, 0xf7&^flagPadded, 1|1<<31, []byte("data"))
		p.writeFrame(typeWindowUpdate, 0xff, 1<<31, []byte{0x80, 0, 0, 1})
		p.rec.want(t, "bits without meaning", "open 1 POST /shop.v1.Cart/Get", `data 1 "data" end`)
		p.wantFrame("bits without meaning", debugPingAck{"12345678"})
		p.wantIdle("bits without meaning")
	})
}

func TestConnEndsWithItsPeer(t *testing.T) {
	for _, side := range sides {
		t.Run(side.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedEither(t, side, Limits{})
				openEither(p)
				p.rec.skip()
				p.nc.Close()
				p.wantEnded("the peer has closed", ReasonClosed)
				if p.err != nil {
					t.Errorf("Run() = %v, want nil", p.err)
				}
				want := []string{"ended 1 connection lost NO_ERROR"}
				if side == Upstream {
					want = append([]string{"draining"}, want...)
				}
				p.rec.want(t, "streams end with their connection", want...)
				<-p.conn.Done()
			})
		})
	}
}

func TestConnEndsWithItsContext(t *testing.T) {
	for _, side := range sides {
		t.Run(side.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedEither(t, side, Limits{})
				openEither(p)
				p.rec.skip()
				p.stop()
				p.wantEnded("the context is done", ReasonClosed)
				if p.err != nil {
					t.Errorf("Run() = %v, want nil", p.err)
				}
				if side == Upstream {
					if _, err := p.tryOpen(true, requestLines()...); err != ErrGoingAway {
						t.Errorf("opening a stream on it: %v, want %v", err, ErrGoingAway)
					}
				}
			})
		})
	}
}

// brokenConn fails as a socket does whose peer is gone.
type brokenConn struct {
	net.Conn
	readErr, writeErr error
}

func (c *brokenConn) Read(p []byte) (int, error) {
	if c.readErr != nil {
		return 0, c.readErr
	}
	return c.Conn.Read(p)
}

func (c *brokenConn) Write(p []byte) (int, error) {
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	return c.Conn.Write(p)
}

func TestConnEndsWhenItsSocketBreaks(t *testing.T) {
	reset := errors.New("connection reset by peer")
	for _, tt := range []struct {
		name       string
		read, send error
	}{{"reading", reset, nil}, {"writing", nil, reset}} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				ours, theirs := newMemoryConns(pipeRoom)
				p := newPeer(t, NewEngine(Limits{}), theirs, newRecorder())
				p.run(p.eng.NewServer(NewTransport(&brokenConn{ours, tt.read, tt.send}, nil), p.rec, time.Now()))
				p.wantEnded("the socket is broken", ReasonIO)
				if p.err == nil || errors.Is(p.err, io.EOF) {
					t.Errorf("Run() = %v; want what broke", p.err)
				}
			})
		})
	}
}

// While a connection takes leave of a peer that broke the rules, no stream is
// opened on it: it would be lost.
func TestConnOpensNothingWhileItTakesLeave(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		p.writeRaw(appendWindowUpdate(nil, 0, 0))
		p.wantFrame("a fault", debugGoAway{0, http2.ErrCodeProtocol})
		if p.ended() {
			t.Fatal("the connection does not linger")
		}
		if _, err := p.tryOpen(true, requestLines()...); err != ErrGoingAway {
			t.Errorf("opening a stream: %v, want %v", err, ErrGoingAway)
		}
	})
}

func TestConnDescribesItself(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		s := p.request(1, false)
		if got, want := s.String(), "downstream memory stream 1"; got != want {
			t.Errorf("stream is %q, want %q", got, want)
		}
		if got, want := new(Stream).String(), "no connection stream 0"; got != want {
			t.Errorf("stream is %q, want %q", got, want)
		}
		if s.Conn() != p.conn || p.conn.Transport().RemoteAddr() != (memoryAddr{}) {
			t.Error("a stream does not know its connection, or that its transport")
		}
	})
}
