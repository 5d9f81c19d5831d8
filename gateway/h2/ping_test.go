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

// pings counts those that were sent, dropping everything else.
func pings(p *peer) (n int) {
	for _, f := range p.skipFrames() {
		if (f == debugPing{"alive"}) {
			n++
		}
	}
	return n
}

// A backend that lets RPCs wait is asked once, and not again before HEADERS or DATA
// of its own: only those let grpc's servers forget the PINGs that they have counted.
func TestPingAsksOnceASilence(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		s := p.opened(false)
		for _, tt := range []struct {
			name string
			says func()
			want int
		}{
			{"nothing yet", func() {}, 1},
			{"the answer", func() { p.writePingAck("alive") }, 0},
			{"another answer", func() { p.writePingAck("alive") }, 0},
			{"window", func() { p.writeWindowUpdate(0, 10) }, 0},
			{"SETTINGS", func() { p.writeSettings() }, 0},
			{"an interim response", func() { p.writeHeaders(s.ID(), false, ":status: 103") }, 1},
			{"HEADERS, and the answer before", func() {
				p.writePingAck("alive")
				p.writeHeaders(s.ID(), false, ":status: 200")
			}, 1},
			{"DATA, and the answer before", func() {
				p.writePingAck("alive")
				p.writeData(s.ID(), "x", false)
			}, 1},
			{"the answer before the end of the test", func() { p.writePingAck("alive") }, 0},
		} {
			pings(p)
			tt.says()
			pass(silenceAfter - time.Millisecond)
			if n := pings(p); n != 0 {
				t.Errorf("%s: asked %d times before a second had passed", tt.name, n)
			}
			pass(2*silenceEvery + 20*time.Minute)
			if n := pings(p); n != tt.want {
				t.Errorf("%s: asked %d times in twenty minutes, want %d", tt.name, n, tt.want)
			}
		}
	})
}

// What nobody waits for is not asked about.
func TestPingLeavesTheSilentInPeace(t *testing.T) {
	for _, tt := range []struct {
		name string
		open func(p *peer)
	}{
		{"no stream is open", exchangeWithBackend},
		{"nobody waits for the stream", func(p *peer) {
			var s Stream
			var b Batch
			if err := p.conn.Open(&s, &Opening{Fields: engineFields(requestLines()...), Sink: p.rec, Patient: true}, &b); err != nil {
				p.t.Fatal(err)
			}
			b.Flush()
		}},
		{"PINGs are not wanted", func(p *peer) {
			p.conn.NeverProbe()
			p.opened(false)
		}},
		{"the backend has complained", func(p *peer) {
			p.opened(false)
			p.writeGoAway(1<<30, http2.ErrCodeEnhanceYourCalm, "too_many_pings")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedClient(t, Limits{})
				tt.open(p)
				pass(20 * time.Minute)
				if n := pings(p); n != 0 {
					t.Errorf("asked %d times", n)
				}
			})
		})
	}
}

// Streams that nobody waits for are counted off again.
func TestPingAsksBesideAPatientStream(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		var patient Stream
		var b Batch
		if err := p.conn.Open(&patient, &Opening{Fields: engineFields(requestLines()...), Sink: p.rec, Patient: true}, &b); err != nil {
			t.Fatal(err)
		}
		b.Flush()
		pass(time.Hour)
		p.skipFrames()
		p.opened(false)
		pass(silenceAfter - time.Millisecond)
		if n := pings(p); n != 0 {
			t.Errorf("asked %d times before the stream had waited for a second", n)
		}
		patient.Reset(http2.ErrCodeCancel, &b)
		b.Flush()
		pass(time.Minute)
		if n := pings(p); n != 1 {
			t.Errorf("asked %d times, want once", n)
		}
	})
}

// A backend that hangs is known to within two and a half seconds, whatever the phase
// of the sweep, and is well again with the first byte. Its streams are not cut.
func TestPingFindsABackendThatHangs(t *testing.T) {
	for phase := range 8 {
		inBubble(t, func(t *testing.T) {
			p := greetedClient(t, Limits{})
			pass(time.Duration(phase) * silenceEvery / 8)
			s := p.opened(false)
			p.writeHeaders(s.ID(), false, ":status: 200")
			p.rec.skip()
			pass(silenceAfter + silenceAnswer - time.Millisecond)
			p.rec.want(t, "two seconds of silence may be the network's")
			pass(501 * time.Millisecond)
			p.rec.want(t, "two and a half may not", "silent")
			pass(5 * time.Minute)
			p.rec.want(t, "it is said once, and the stream goes on")
			if n := pings(p); n != 1 {
				t.Errorf("asked %d times, want once", n)
			}
			p.writePingAck("alive")
			p.rec.want(t, "it is heard", "heard again")
			if p.conn.Silent() {
				t.Error("the connection is silent still")
			}
		})
	}
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
					p.writeWindowUpdate(0, 10)
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

// cancelled opens a stream, lets it wait, and gives it up: nothing was answered.
func cancelled(p *peer, wait time.Duration) {
	p.t.Helper()
	s := p.open(true, requestLines()...)
	pass(wait)
	var b Batch
	s.Reset(http2.ErrCodeCancel, &b)
	b.Flush()
}

// A subscription on which nothing happens spends the PING of its silence. A stream that
// is opened after that and waits is worth one more; after that, only HEADERS, DATA or
// five minutes are.
func TestPingAsksOnceMoreForALaterStream(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		subscription := p.opened(false)
		want := func(n int, why string) {
			t.Helper()
			if got := pings(p); got != n {
				t.Errorf("%s: asked %d times, want %d", why, got, n)
			}
			p.writePingAck("alive")
		}
		pass(time.Minute)
		want(1, "the subscription")
		pass(10 * time.Minute)
		want(0, "nothing was opened since")
		cancelled(p, silenceAfter-time.Millisecond)
		pass(time.Millisecond)
		want(0, "a stream that waited for less than a second, so far")
		cancelled(p, silenceAfter+2*silenceEvery)
		want(1, "a stream that waits")
		for range 9 {
			cancelled(p, 30*time.Second)
			want(0, "streams that wait, again and again")
		}
		cancelled(p, 45*time.Second)
		want(1, "five minutes have passed")
		cancelled(p, 30*time.Second)
		want(0, "the one that was left is still spent")
		p.writeHeaders(subscription.ID(), false, ":status: 200")
		pass(2 * time.Second)
		want(1, "HEADERS")
		cancelled(p, 30*time.Second)
		want(1, "a stream after that")
	})
}

// A backend that answered for the sake of a subscription and hangs afterwards is found
// as fast as any.
func TestPingFindsWhoHangsBesideASubscription(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		p.opened(false)
		pass(time.Minute)
		p.writePingAck("alive")
		pass(time.Minute)
		p.skipFrames()
		p.opened(false)
		p.rec.skip()
		pass(silenceAfter + silenceAnswer + 2*silenceEvery)
		p.rec.want(t, "two and a half seconds after the stream", "silent")
	})
}

// Whoever has not answered the PING of a silence is dead when it answers nothing to the
// next stream that comes alone, as if there had been no such PING.
func TestPingTimesOutAfterASilence(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(p *peer) // to the PING of the silence
		want   int           // PINGs after that
	}{
		{"never heard again", func(*peer) {}, 0},
		{"heard, and then not", func(p *peer) { p.writePingAck("alive") }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedClient(t, Limits{})
				cancelled(p, 2*time.Second)
				if n := pings(p); n != 1 {
					t.Fatalf("asked %d times", n)
				}
				tt.answer(p)
				pass(probeAfter)
				p.rec.skip()
				p.open(true, requestLines()...)
				pass(probeTimeout - time.Second)
				if n := pings(p); n != tt.want {
					t.Errorf("asked %d times beside the stream, want %d", n, tt.want)
				}
				p.wantIdle("ten seconds have not passed")
				pass(time.Second + 2*sweepEvery)
				p.wantEnded("the backend is dead", ReasonPingTimeout)
			})
		})
	}
}

// The PING comes behind the stream: servers count one that comes while they have none
// for two hours.
func TestPingComesBehindItsStream(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		pass(time.Minute)
		p.skipFrames()
		p.open(true, requestLines()...)
		frames := p.skipFrames()
		if len(frames) < 2 || (frames[len(frames)-1] != debugPing{"alive"}) {
			t.Errorf("sent %v", frames)
		}
	})
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
