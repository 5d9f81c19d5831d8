package h2

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func TestPingIsAnswered(t *testing.T) {
	for _, side := range sides {
		t.Run(side.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedEither(t, side, Limits{})
				p.writePing("one")
				p.writePing("two")
				p.wantFrame("in order", debugPingAck{"one"}, debugPingAck{"two"})
				p.writePingAck("nobody asked")
				p.writePing("drain") // as in ours
				p.wantFrame("a client may say what it likes", debugPingAck{"drain"})
				p.wantIdle("no drain has begun")
			})
		})
	}
}

// exchange opens a stream and has it answered.
func exchangeWithBackend(p *peer) {
	p.t.Helper()
	s := p.open(true, requestLines()...)
	p.skipFrames()
	p.writeResponse(s.ID(), true)
	p.ended()
}

// sentPing reports whether a PING was sent, dropping everything else.
func sentPing(p *peer) bool {
	for _, f := range p.skipFrames() {
		if (f == debugPing{"alive"}) {
			return true
		}
	}
	return false
}

// A backend is asked whether it lives only beside a stream, only when it has been
// silent, and never twice within five minutes: grpc's servers count.
func TestPingProbesASilentBackendBeforeUse(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		open := func() bool {
			s := p.open(true, requestLines()...)
			sent := sentPing(p)
			if sent {
				p.writePingAck("alive")
			}
			p.writeResponse(s.ID(), true)
			p.ended()
			return sent
		}
		var last time.Time
		for _, tt := range []struct {
			silent time.Duration
			want   bool
			why    string
		}{
			{29 * time.Second, false, "silent for less than 30s"},
			{31 * time.Second, true, "silent for 30s"},
			{31 * time.Second, false, "asked half a minute ago"},
			{4 * time.Minute, false, "asked less than five minutes ago"},
			{time.Minute, true, "asked five minutes ago"},
			{20 * time.Minute, true, "silent for long"},
			{time.Second, false, "not silent"},
		} {
			pass(tt.silent)
			if p.skipFrames() != nil {
				t.Fatalf("%s: something is sent while nobody needs the connection", tt.why)
			}
			if got := open(); got != tt.want {
				t.Errorf("%s: PING sent %v, want %v", tt.why, got, tt.want)
			} else if got {
				if !last.IsZero() && time.Since(last) < 5*time.Minute {
					t.Errorf("%s: %v after the last one", tt.why, time.Since(last))
				}
				last = time.Now()
			}
		}
	})
}

// An RPC that is open is not used to ask: the connection is not idle.
func TestPingDoesNotProbeBesideOpenStreams(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		p.opened(false)
		pass(10 * time.Minute)
		p.open(true, requestLines()...)
		if sentPing(p) {
			t.Error("a PING was sent beside an open stream")
		}
	})
}

func TestPingTimesOut(t *testing.T) {
	for _, answer := range []string{"", "ping", "other frames"} {
		t.Run(fmt.Sprintf("answer %q", answer), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedClient(t, Limits{})
				pass(time.Minute)
				p.open(true, requestLines()...)
				if !sentPing(p) {
					t.Fatal("no PING was sent")
				}
				p.rec.skip()
				pass(probeTimeout - time.Second)
				switch answer {
				case "ping":
					p.writePingAck("alive")
				case "other frames":
					p.writeHeaders(1, false, ":status: 103")
				}
				p.wantIdle("ten seconds have not passed")
				p.rec.skip()
				pass(time.Second + 2*sweepEvery)
				if answer != "" {
					p.wantIdle("the backend lives")
					return
				}
				p.wantEnded("the backend is dead", ReasonPingTimeout)
				p.rec.want(t, "its streams are lost", "draining", "ended 1 connection lost NO_ERROR")
			})
		})
	}
}

// A backend that complains of pings is never asked again.
func TestPingStopsAfterAComplaint(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		exchangeWithBackend(p)
		p.opened(false) // keeps the connection open for the test
		p.writeGoAway(1<<30, http2.ErrCodeEnhanceYourCalm, "too_many_pings")
		p.ended()
		if !p.conn.probe.never {
			t.Error("the complaint was not noted")
		}
	})
}

// A client is never asked: its silence costs nothing.
func TestPingDoesNotProbeClients(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		for range 3 {
			pass(10 * time.Minute)
			sendHeader(p.request(uint32(time.Now().Minute()/10*2+1), true), true, ":status: 200")
			for _, f := range p.skipFrames() {
				if _, ok := f.(debugPing); ok {
					t.Errorf("sent %v to a client", f)
				}
			}
		}
	})
}
