package h2

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

func TestStreamCarriesAnExchange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		p.writeRequest(1, false, "te: trailers")
		p.writeData(1, "ping", true)
		s := p.stream(1)
		p.rec.want(t, "a request", "open 1 POST /shop.v1.Cart/Get", `data 1 "ping" end`)
		sendHeader(s, false, ":status: 200")
		sendData(s, "pong", false)
		sendHeader(s, true, "grpc-status: 0")
		p.wantFrame("a response",
			debugHeaders{1, ":status: 200", false}, debugData{1, "pong", false}, debugHeaders{1, "grpc-status: 0", true})
		p.wantIdle("the stream is over")
		p.rec.want(t, "a stream that ends by itself says no more")
		sendData(s, "late", false)
		sendHeader(s, true, "late: yes")
		reset(s, http2.ErrCodeCancel)
		giveCredit(s, 1<<20, true)
		p.wantIdle("the stream is over")
	})
}

func TestStreamCarriesAnExchangeWithABackend(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		s := p.opened(false)
		sendData(s, "ping", false)
		sendHeader(s, true, "x-checksum: 7")
		p.wantFrame("a request", debugData{1, "ping", false}, debugHeaders{1, "x-checksum: 7", true})
		p.writeHeaders(1, false, ":status: 103", "link: x")
		p.writeResponse(1, false)
		p.writeData(1, "pong", false)
		p.writeData(1, "", false) // of no use to anybody
		p.writeHeaders(1, true, "grpc-status: 0")
		p.rec.want(t, "a response",
			"header 1 [:status: 103, link: x]", "header 1 [:status: 200]", `data 1 "pong"`, "header 1 [grpc-status: 0] end")
		if p.conn.OpenStreams() != 0 {
			t.Error("a stream whose halves have both ended is still open")
		}
		p.wantIdle("the stream is over")
	})
}

func TestStreamTrailersOfARequest(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		p.request(1, false)
		p.writeData(1, "body", false)
		p.writeHeaders(1, true, "x-checksum: 7")
		p.rec.want(t, "trailers", `data 1 "body"`, "header 1 [x-checksum: 7] end")
		p.writeRequest(3, false)
		p.writeFrame(typeHeaders, flagEndHeaders|flagEndStream, 3, nil)
		p.rec.want(t, "empty trailers", "open 3 POST /shop.v1.Cart/Get", "header 3 [] end")
	})
}

// HEADERS may be padded and carry a priority, which goes nowhere.
func TestStreamOpensWithPaddingAndPriority(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		p.out.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 3, EndHeaders: true, PadLength: 100, BlockFragment: p.encode(requestLines()...),
			Priority: http2.PriorityParam{StreamDep: 1, Exclusive: true, Weight: 200},
		})
		p.out.WriteDataPadded(3, true, []byte("body"), make([]byte, 255))
		p.rec.want(t, "padding is dropped", "open 3 POST /shop.v1.Cart/Get", `data 3 "body" end`)

		p.out.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 5, EndHeaders: true, BlockFragment: p.encode(requestLines()...),
			Priority: http2.PriorityParam{StreamDep: 5},
		})
		p.wantFrame("it depends on itself", debugReset{5, http2.ErrCodeProtocol})
		p.rec.want(t, "it was never opened")
		p.wantRejected(ReasonMalformed, 1)
	})
}

func TestStreamHeadersInContinuations(t *testing.T) {
	for _, pieces := range []int{1, 2, 9} {
		t.Run(fmt.Sprint(pieces), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedServer(t, Limits{})
				rest := p.encode(append(requestLines(), "x-long: "+strings.Repeat("v", 4000))...)
				typ, flags := typeHeaders, flagEndStream
				for i := range pieces {
					n := len(rest) / (pieces - i)
					if i == pieces-1 {
						flags |= flagEndHeaders
					}
					p.writeFrame(typ, flags, 1, rest[:n])
					rest, typ, flags = rest[n:], typeContinuation, 0
				}
				p.rec.want(t, "one section", "open 1 POST /shop.v1.Cart/Get end")
			})
		})
	}
}

func TestStreamHeadersLeaveInContinuations(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		s := p.request(1, false)
		other := p.request(3, false)
		var lines []string
		for i := range 4 {
			lines = append(lines, fmt.Sprintf("x-long-%d: %s", i, strings.Repeat("~", 10_000)))
		}
		var b Batch
		other.SendHeader(engineFields(":status: 200"), false, &b)
		s.SendHeader(engineFields(append([]string{":status: 200"}, lines...)...), true, &b)
		other.SendData([]byte("behind"), false, &b)
		b.Flush()
		p.pull()

		var frames []string
		for in := p.in.Bytes(); len(in) > 0; {
			h := consumeFrameHeader(in)
			frames = append(frames, fmt.Sprintf("%v %d %d %#x", http2.FrameType(h.typ), h.id, h.length, h.flags))
			in = in[frameHeaderLen+h.length:]
		}
		want := []string{
			"HEADERS 3 1 0x4",
			"HEADERS 1 16384 0x1", "CONTINUATION 1 16384 0x0", "CONTINUATION 1 7285 0x4",
			"RST_STREAM 1 4 0x0", "DATA 3 6 0x0",
		}
		if fmt.Sprint(frames) != fmt.Sprint(want) {
			t.Errorf("sent %v\nwant %v", frames, want)
		}
		p.wantFrame("nothing comes in between",
			debugHeaders{3, ":status: 200", false},
			debugHeaders{1, ":status: 200, " + strings.Join(lines, ", "), true})
	})
}

// A response that is complete before its request lets the client stop: RFC 9113
// section 8.1. What it sends until it knows is no fault.
func TestStreamEndsEarly(t *testing.T) {
	for _, tt := range []struct {
		name string
		send func(s *Stream)
		want []debugFrame
	}{
		{
			"header only", func(s *Stream) { sendHeader(s, true, ":status: 200", "grpc-status: 5") },
			[]debugFrame{debugHeaders{1, ":status: 200, grpc-status: 5", true}},
		},
		{
			"data", func(s *Stream) { sendHeader(s, false, ":status: 200"); sendData(s, "x", true) },
			[]debugFrame{debugHeaders{1, ":status: 200", false}, debugData{1, "x", true}},
		},
		{"trailers behind data", func(s *Stream) {
			sendHeader(s, false, ":status: 200")
			sendData(s, strings.Repeat("x", 20_000), false)
			sendHeader(s, true, "grpc-status: 0")
		}, []debugFrame{
			debugHeaders{1, ":status: 200", false},
			debugData{1, strings.Repeat("x", 16384), false},
			debugData{1, strings.Repeat("x", 20_000-16384), false},
			debugHeaders{1, "grpc-status: 0", true},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedServer(t, Limits{})
				tt.send(p.request(1, false))
				p.wantFrame("the response", tt.want...)
				p.wantFrame("the rest of the request is not wanted", debugReset{1, http2.ErrCodeNo})
				p.writeData(1, "on its way", false)
				p.writeWindowUpdate(1, 100)
				p.writeHeaders(1, true, "x-trailer: on its way")
				p.writeReset(1, http2.ErrCodeCancel)
				p.wantIdle("the client could not know")
				p.rec.want(t, "the stream was over")
			})
		})
	}
}

func TestStreamIsResetByItsClient(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		s := p.request(1, false)
		sendHeader(s, false, ":status: 200")
		sendData(s, strings.Repeat("x", 100_000), false)
		p.skipFrames()
		p.writeReset(1, http2.ErrCodeCancel)
		p.rec.want(t, "a reset", "ended 1 peer reset CANCEL")
		if n := p.eng.Queued(); n != 0 {
			t.Errorf("%d bytes wait for a stream that is gone", n)
		}
		sendData(s, "late", false)
		sendHeader(s, true, "grpc-status: 0")
		reset(s, http2.ErrCodeCancel)
		p.writeWindowUpdate(0, 1<<20)
		p.wantIdle("nothing is sent on a stream that was reset")
		p.writeReset(1, http2.ErrCodeCancel)
		p.writeWindowUpdate(1, 1)
		p.wantIdle("a second reset does no harm")
	})
}

// A sink hears of a reset also when it was the one too many.
func TestStreamHearsOfTheResetThatEndsItsConnection(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{Resets: 1})
		for _, id := range []uint32{1, 3} {
			p.request(id, false)
			p.writeReset(id, http2.ErrCodeCancel)
			p.rec.want(t, "a reset", fmt.Sprintf("ended %d peer reset CANCEL", id))
		}
		p.wantGoAway("one reset is allowed", 3, http2.ErrCodeEnhanceYourCalm, ReasonResets)
	})
}

func TestStreamIsResetByUs(t *testing.T) {
	for _, side := range sides {
		t.Run(side.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedEither(t, side, Limits{})
				s := openEither(p)
				p.rec.skip()
				reset(s, http2.ErrCodeInternal)
				reset(s, http2.ErrCodeCancel)
				p.wantFrame("once", debugReset{1, http2.ErrCodeInternal})
				if side == Upstream {
					p.writeResponse(1, false)
				}
				p.writeData(1, strings.Repeat("x", 100), false)
				p.writeHeaders(1, true, "x-trailer: late")
				p.writeWindowUpdate(1, 5)
				p.writeReset(1, http2.ErrCodeCancel)
				p.wantIdle("the peer could not know")
				p.rec.want(t, "who resets knows")
			})
		})
	}
}

func TestStreamIsResetByItsBackend(t *testing.T) {
	for _, tt := range []struct {
		name  string
		begin func(p *peer)
		code  http2.ErrCode
		want  string
	}{
		{"refused", nil, http2.ErrCodeRefusedStream, "ended 1 peer reset REFUSED_STREAM unprocessed"},
		{
			"refused after an informational response", func(p *peer) { p.writeHeaders(1, false, ":status: 100") },
			http2.ErrCodeRefusedStream, "ended 1 peer reset REFUSED_STREAM unprocessed",
		},
		{"refused after its response has begun", answered, http2.ErrCodeRefusedStream, "ended 1 peer reset REFUSED_STREAM"},
		{"cancelled", nil, http2.ErrCodeCancel, "ended 1 peer reset CANCEL"},
		{"of an unknown code", nil, 0xdead, "ended 1 peer reset unknown error code 0xdead"},
		{
			"without error, its response being complete", func(p *peer) { p.writeResponse(1, true) },
			http2.ErrCodeNo, "ended 1 peer reset NO_ERROR",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedClient(t, Limits{})
				s := p.opened(false)
				if tt.begin != nil {
					tt.begin(p)
				}
				p.rec.skip()
				p.writeReset(1, tt.code)
				p.rec.want(t, tt.name, tt.want)
				sendData(s, "late", true)
				p.wantIdle("nothing is sent on a stream that was reset")
			})
		})
	}
}

// The response may end before the request does; the stream goes on until we end
// or reset it.
func TestStreamSendsOnAfterItsResponse(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		s := p.opened(false)
		p.writeResponse(1, true)
		p.rec.want(t, "a response", "header 1 [:status: 200] end")
		sendData(s, "more", true)
		p.wantFrame("the request goes on", debugData{1, "more", true})
		if p.conn.OpenStreams() != 0 {
			t.Error("a stream whose halves have both ended is still open")
		}
	})
}

func TestStreamFramesAfterTheEndOfAResponse(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		p.opened(true)
		p.writeResponse(1, true)
		p.rec.skip()
		p.writeData(1, "more", false)
		p.wantGoAway("the stream came to its own end", 0, http2.ErrCodeStreamClosed, ReasonProtocol)
	})
}

func TestStreamChecksResponses(t *testing.T) {
	length := func(n int) string { return fmt.Sprintf("content-length: %d", n) }
	for _, tt := range []struct {
		name   string
		method string
		write  func(p *peer)
		want   []string // events, nil for a violation
	}{
		{"DATA before HEADERS", "GET", func(p *peer) { p.writeData(1, "x", false) }, nil},
		{"DATA before HEADERS, to the end", "GET", func(p *peer) { p.writeData(1, "x", true) }, nil},
		{"DATA after an informational response", "GET", func(p *peer) {
			p.writeHeaders(1, false, ":status: 100")
			p.writeData(1, "x", false)
		}, nil},
		{"informational response with END_STREAM", "GET", func(p *peer) { p.writeHeaders(1, true, ":status: 103") }, nil},
		{"second final response", "GET", func(p *peer) {
			p.writeResponse(1, false)
			p.writeResponse(1, false)
		}, nil},
		{"informational response after the final one", "GET", func(p *peer) {
			p.writeResponse(1, false)
			p.writeHeaders(1, false, ":status: 103")
		}, nil},
		{"as long as declared", "GET", func(p *peer) {
			p.writeResponse(1, false, length(3))
			p.writeData(1, "ab", false)
			p.writeData(1, "c", true)
		}, []string{"header 1 [:status: 200, content-length: 3]", `data 1 "ab"`, `data 1 "c" end`}},
		{"as long as declared, then trailers", "GET", func(p *peer) {
			p.writeResponse(1, false, length(2))
			p.writeData(1, "ab", false)
			p.writeHeaders(1, true, "x: y")
		}, []string{"header 1 [:status: 200, content-length: 2]", `data 1 "ab"`, "header 1 [x: y] end"}},
		{"longer than declared", "GET", func(p *peer) {
			p.writeResponse(1, false, length(3))
			p.writeData(1, "abcd", false)
		}, nil},
		{"shorter than declared", "GET", func(p *peer) {
			p.writeResponse(1, false, length(3))
			p.writeData(1, "ab", true)
		}, nil},
		{"shorter than declared, then trailers", "GET", func(p *peer) {
			p.writeResponse(1, false, length(3))
			p.writeData(1, "ab", false)
			p.writeHeaders(1, true, "x: y")
		}, nil},
		{"nothing of what was declared", "GET", func(p *peer) { p.writeResponse(1, true, length(3)) }, nil},
		{
			"nothing, as declared", "GET", func(p *peer) { p.writeResponse(1, true, length(0)) },
			[]string{"header 1 [:status: 200, content-length: 0] end"},
		},
		{
			"the length of what HEAD leaves out", "HEAD", func(p *peer) { p.writeResponse(1, true, length(3)) },
			[]string{"header 1 [:status: 200, content-length: 3] end"},
		},
		{"the length of what HEAD leaves out, by an empty DATA", "HEAD", func(p *peer) {
			p.writeResponse(1, false, length(3))
			p.writeData(1, "", true)
		}, []string{"header 1 [:status: 200, content-length: 3]", `data 1 "" end`}},
		{
			"the length of what has not been modified", "GET", func(p *peer) { p.writeHeaders(1, true, ":status: 304", length(3)) },
			[]string{"header 1 [:status: 304, content-length: 3] end"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedClient(t, Limits{})
				p.open(true, ":method: "+tt.method, ":scheme: http", ":path: /", ":authority: x")
				p.skipFrames()
				p.rec.skip()
				tt.write(p)
				if tt.want != nil {
					p.rec.want(t, "a good response", tt.want...)
					p.wantIdle("a good response")
					return
				}
				synctest.Wait()
				p.rec.mu.Lock()
				events := p.rec.events
				p.rec.mu.Unlock()
				if n := len(events); n == 0 || !strings.HasPrefix(events[n-1], "ended 1 violation") {
					t.Errorf("heard %v; want a violation last", events)
				}
				p.skipFrames()
				p.wantRejected(ReasonMalformed, 1)
			})
		})
	}
}

func TestStreamChecksRequests(t *testing.T) {
	for _, tt := range []struct {
		name  string
		write func(p *peer)
		good  bool
	}{
		{"as long as declared", func(p *peer) {
			p.writeRequest(1, false, "content-length: 3")
			p.writeData(1, "abc", true)
		}, true},
		{"as long as declared, then an empty end", func(p *peer) {
			p.writeRequest(1, false, "content-length: 3")
			p.writeData(1, "abc", false)
			p.writeData(1, "", true)
		}, true},
		{"longer than declared", func(p *peer) {
			p.writeRequest(1, false, "content-length: 3")
			p.writeData(1, "abcd", true)
		}, false},
		{"shorter than declared", func(p *peer) {
			p.writeRequest(1, false, "content-length: 3")
			p.writeData(1, "ab", true)
		}, false},
		{"shorter than declared, then trailers", func(p *peer) {
			p.writeRequest(1, false, "content-length: 3")
			p.writeHeaders(1, true, "x: y")
		}, false},
		{"nothing of what was declared", func(p *peer) { p.writeRequest(1, true, "content-length: 3") }, false},
		{"nothing, as declared", func(p *peer) { p.writeRequest(1, true, "content-length: 0") }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedServer(t, Limits{})
				tt.write(p)
				if tt.good {
					p.wantIdle("a good request")
					return
				}
				p.wantFrame("a bad request", debugReset{1, http2.ErrCodeProtocol})
				p.wantRejected(ReasonMalformed, 1)
			})
		})
	}
}

// The deadline that remains is computed when the frame is encoded, and stands
// right behind the pseudo-fields.
func TestStreamSendsTheTimeThatRemains(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		for _, tt := range []struct {
			deadline time.Duration
			fields   []string
			want     string
		}{
			{1500 * time.Millisecond, []string{":method: POST", "te: trailers"}, ":method: POST, grpc-timeout: 1500000u, te: trailers"},
			{time.Second + 999*time.Nanosecond, []string{":method: POST"}, ":method: POST, grpc-timeout: 1000000u"},
			{-time.Second, []string{":method: POST"}, ":method: POST, grpc-timeout: 0n"},
		} {
			s := new(Stream)
			var b Batch
			o := Opening{Fields: engineFields(tt.fields...), Deadline: time.Now().Add(tt.deadline), End: true, Sink: p.rec}
			if err := p.conn.Open(s, &o, &b); err != nil {
				t.Fatal(err)
			}
			b.Flush()
			got := p.next().(debugHeaders).fields
			if got != tt.want {
				t.Errorf("with %v left: sent %q, want %q", tt.deadline, got, tt.want)
			}
		}
		if n := len(p.conn.enc.table.fields); n > 1 {
			t.Errorf("%d fields entered the table, want :method at most", n)
		}
	})
}

// What is new for each RPC is not remembered, and what is secret at no hop.
func TestStreamKeepsVolatileFieldsOutOfTheTable(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		p.open(true, ":method: GET", "traceparent: 00-1", "tracestate: x", "x-request-id: 7", "!authorization: Bearer x", "!cookie: a=b")
		p.wantFrame("as they are", debugHeaders{1, ":method: GET, traceparent: 00-1, tracestate: x, x-request-id: 7, !authorization: Bearer x, !cookie: a=b", true})
		if n := len(p.conn.enc.table.fields); n != 0 {
			t.Errorf("%d fields entered the table, want none", n)
		}
	})
}

// A connection whose stream numbers are half used up lets its streams end and goes.
func TestStreamNumbersRunOut(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		p.conn.mu.Lock()
		p.conn.nextID = retireID - 1
		p.conn.mu.Unlock()
		last := p.opened(true)
		if last.ID() != retireID-1 {
			t.Errorf("opened stream %d, want %d", last.ID(), uint32(retireID-1))
		}
		for range 2 {
			if _, err := p.tryOpen(true, requestLines()...); err != ErrGoingAway {
				t.Errorf("opening one more: %v, want %v", err, ErrGoingAway)
			}
		}
		p.wantFrame("the backend may know, once", debugGoAway{0, http2.ErrCodeNo})
		p.wantIdle("the last stream is open")
		p.writeResponse(last.ID(), true)
		if !p.pull() {
			t.Fatal("the connection is not closed after its last stream")
		}
		p.nc.Close()
		p.wantClosed("retired", ReasonRetired)
		if p.err != nil {
			t.Errorf("Run() = %v, want nil", p.err)
		}
	})
}
