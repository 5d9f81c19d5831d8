package h2

import (
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func drain(c *Conn) {
	var b Batch
	c.Drain(&b)
	b.Flush()
}

// The two steps of a drain, DESIGN section "drain": streams that the client opened
// before it could know are answered, those after are not.
func TestGoAwayDrainsAClientInTwoSteps(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		first := p.request(1, true)
		drain(p.conn)
		drain(p.conn)
		p.wantFrame("the first step", debugGoAway{maxStreamID, http2.ErrCodeNo}, debugPing{"drain"})
		p.wantIdle("once")
		second := p.request(3, true)
		p.writePingAck("other")
		p.wantIdle("this proves nothing")
		p.writePingAck("drain")
		p.wantFrame("the client has read the first GOAWAY", debugGoAway{3, http2.ErrCodeNo})
		p.writePingAck("drain")
		p.wantIdle("once")

		p.writeRequest(5, false)
		p.writeData(5, "late", false)
		p.writeHeaders(5, true, "x-trailer: late")
		p.writeWindowUpdate(5, 1)
		p.writeReset(5, http2.ErrCodeCancel)
		p.wantIdle("streams above the last id are not looked at, RFC 9113 section 6.8")
		p.rec.want(t, "nor accepted")
		p.wantRejected(ReasonDraining, 1)

		sendHeader(first, true, ":status: 200")
		p.wantFrame("an answer", debugHeaders{1, ":status: 200", true})
		p.wantIdle("one stream is open")
		sendHeader(second, true, ":status: 200")
		p.wantFrame("the last answer", debugHeaders{3, ":status: 200", true})
		if !p.pull() {
			t.Fatal("the connection is not closed after its last stream")
		}
		p.nc.Close()
		p.wantClosed("drained", ReasonDrained)
		if p.err != nil {
			t.Errorf("Run() = %v, want nil", p.err)
		}
	})
}

// A fault after a drain does not take back which streams are answered.
func TestGoAwayNeverRaisesTheLastStream(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		p.request(1, true)
		drain(p.conn)
		p.writePingAck("drain")
		p.wantFrame("both steps", debugGoAway{maxStreamID, http2.ErrCodeNo}, debugPing{"drain"}, debugGoAway{1, http2.ErrCodeNo})
		p.writeRequest(3, true)
		p.writeWindowUpdate(0, 0)
		p.wantGoAway("a fault", 1, http2.ErrCodeProtocol, ReasonProtocol)
	})
}

func TestGoAwayClosesWithoutStreams(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		drain(p.conn)
		p.writePingAck("drain")
		p.wantFrame("both steps", debugGoAway{maxStreamID, http2.ErrCodeNo}, debugPing{"drain"}, debugGoAway{0, http2.ErrCodeNo})
		if !p.pull() {
			t.Fatal("the connection is not closed")
		}
		start := time.Now()
		<-p.ran // the client keeps its half open
		if took := time.Since(start); took > time.Second {
			t.Errorf("the connection ended after %v, want at most its linger of 1s", took)
		}
		p.wantClosed("drained", ReasonDrained)
	})
}

// However the last stream of a draining connection ends, the connection ends too.
func TestGoAwayClosesAfterTheLastStream(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(p *peer, s *Stream)
	}{
		{"reset by the client", func(p *peer, s *Stream) { p.writeReset(1, http2.ErrCodeCancel) }},
		{"reset by us", func(p *peer, s *Stream) { reset(s, http2.ErrCodeInternal) }},
		{"broken by the client", func(p *peer, s *Stream) { p.writeWindowUpdate(1, 0) }},
		{"answered, with data that waits", func(p *peer, s *Stream) {
			sendData(s, string(make([]byte, 65536)), true)
			p.skipFrames()
			p.writeWindowUpdate(1, 1)
			p.writeWindowUpdate(0, 1)
		}},
		{"answered early", func(p *peer, s *Stream) { sendHeader(s, true, ":status: 200") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedServer(t, Limits{})
				s := p.request(1, false)
				drain(p.conn)
				p.writePingAck("drain")
				p.skipUntil("the second step", debugGoAway{1, http2.ErrCodeNo})
				tt.end(p, s)
				p.skipFrames()
				if !p.pull() {
					t.Fatal("the connection is not closed")
				}
				p.nc.Close()
				p.wantClosed("drained", ReasonDrained)
			})
		})
	}
}

func TestGoAwayDrainsABackend(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		s := p.opened(true)
		drain(p.conn)
		p.wantFrame("one step is enough", debugGoAway{0, http2.ErrCodeNo})
		if _, err := p.tryOpen(true, requestLines()...); err != ErrGoingAway {
			t.Errorf("opening a stream: %v, want %v", err, ErrGoingAway)
		}
		p.rec.skip()
		p.writeResponse(s.ID(), false)
		p.writeData(s.ID(), "to the end", true)
		p.rec.want(t, "what is open goes on", "header 1 [:status: 200]", `data 1 "to the end" end`)
		if !p.pull() {
			t.Fatal("the connection is not closed after its last stream")
		}
		p.nc.Close()
		p.wantClosed("drained", ReasonDrained)
	})
}

// A connection that is asked to go before it was greeted still goes.
func TestGoAwayBeforeTheGreeting(t *testing.T) {
	for _, side := range sides {
		t.Run(side.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newServerPeer(t, Limits{})
				if side == Upstream {
					p = newClientPeer(t, Limits{})
				}
				drain(p.conn)
				if side == Downstream {
					p.writePreface()
				} else {
					p.wantPreface()
				}
				p.writeSettings()
				p.out.WriteSettingsAck()
				p.writePingAck("drain")
				p.skipFrames()
				<-p.ran // though the peer keeps its half open
				p.wantEnded("drained", ReasonDrained)
			})
		})
	}
}

func TestGoAwayOfABackend(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		for range 4 {
			p.opened(true)
		}
		p.writeResponse(3, false)
		p.writeResponse(5, false)
		p.rec.skip()
		p.writeGoAway(3, http2.ErrCodeNo, "")
		p.wantIdle("a GOAWAY needs no answer")
		p.rec.wantUnordered(t, "streams above the last id were not looked at, but for one that was answered all the same",
			"draining", "ended 5 peer gone away NO_ERROR", "ended 7 peer gone away NO_ERROR unprocessed")
		if _, err := p.tryOpen(true, requestLines()...); err != ErrGoingAway {
			t.Errorf("opening a stream: %v, want %v", err, ErrGoingAway)
		}
		p.writeData(5, "late", true)
		p.writeResponse(7, true)
		p.writeReset(7, http2.ErrCodeRefusedStream)
		p.wantIdle("what the backend still says of them is no fault")

		p.writeResponse(1, true)
		p.writeGoAway(1, http2.ErrCodeInternal, "")
		p.rec.want(t, "a second GOAWAY may lower the last id",
			"header 1 [:status: 200] end", "draining", "ended 3 peer gone away INTERNAL_ERROR")
		if !p.pull() {
			t.Fatal("the connection is not closed after its last stream")
		}
		p.nc.Close()
		p.wantClosed("as the backend wished", ReasonDrained)
	})
}

// A backend's two steps: the first one already stops new streams.
func TestGoAwayOfABackendInTwoSteps(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		p.opened(true)
		p.rec.skip()
		p.writeGoAway(maxStreamID, http2.ErrCodeNo, "")
		p.rec.want(t, "the first step", "draining")
		if _, err := p.tryOpen(true, requestLines()...); err != ErrGoingAway {
			t.Errorf("opening a stream: %v, want %v", err, ErrGoingAway)
		}
		p.writeGoAway(1, http2.ErrCodeNo, "")
		p.rec.want(t, "the second step", "draining")
		p.writeResponse(1, true)
		p.rec.want(t, "the stream ends", "header 1 [:status: 200] end")
		if !p.pull() {
			t.Error("the connection is not closed after its last stream")
		}
	})
}

func TestGoAwayOfABackendWithoutStreams(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		p.writeGoAway(0, http2.ErrCodeNo, "")
		if !p.pull() {
			t.Fatal("the connection is not closed")
		}
		<-p.ran
		p.wantClosed("as the backend wished", ReasonDrained)
	})
}

func TestGoAwayOfAClientChangesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		s := p.request(1, true)
		p.writeGoAway(0, http2.ErrCodeNo, "bye")
		p.wantIdle("it speaks of streams that we would open")
		sendHeader(s, true, ":status: 200")
		p.wantFrame("an answer", debugHeaders{1, ":status: 200", true})
	})
}

// When the grace is over each sink is told, and may still end its stream politely.
func TestGoAwayEndsStreams(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		s := p.request(1, true)
		p.request(3, true)
		var b Batch
		p.conn.EndStreams(&b)
		b.Flush()
		p.rec.wantUnordered(t, "the grace is over", "ended 1 drain ended CANCEL", "ended 3 drain ended CANCEL")
		sendHeader(s, true, ":status: 200", "grpc-status: 14")
		p.wantFrame("polite", debugHeaders{1, ":status: 200, grpc-status: 14", true})
		p.writeReset(3, http2.ErrCodeCancel)
		p.rec.want(t, "the end itself is still told", "ended 3 peer reset CANCEL")
	})
}
