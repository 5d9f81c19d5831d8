package h2

import (
	"testing"
	"time"
)

// asks reports whether the connection lets itself be asked.
func asks(p *peer) bool {
	var b Batch
	defer b.Flush()
	return p.conn.Ask(&b)
}

// Somebody doubts a backend that nobody waits for: it is asked once, and once more only
// after it has answered an RPC, since servers count.
func TestAskAsksAnIdleBackendOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		if asks(p) {
			t.Error("asked though it was heard just now")
		}
		pass(time.Minute)
		p.rec.skip()
		if !asks(p) || asks(p) || pings(p) != 1 {
			t.Error("not asked once")
		}
		pass(silenceAnswer / 2)
		p.writePingAck("alive")
		pass(10 * time.Minute)
		p.rec.want(t, "it has answered")
		if asks(p) || pings(p) != 0 {
			t.Error("asked again before it has answered an RPC")
		}
		exchangeWithBackend(p)
		p.rec.skip()
		pass(time.Minute)
		if !asks(p) {
			t.Error("not asked again after it has answered an RPC")
		}
	})
}

// One that does not answer is silent in a second and a quarter, and dead in ten.
func TestAskFindsAnIdleBackendThatHangs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		pass(time.Minute)
		p.rec.skip()
		if !asks(p) {
			t.Fatal("not asked")
		}
		pass(silenceAnswer - time.Millisecond)
		p.rec.want(t, "a second may be the network's")
		pass(silenceEvery + 2*time.Millisecond)
		p.rec.want(t, "more may not", "silent")
		p.writePingAck("alive")
		p.rec.want(t, "it is heard", "heard again")
		exchangeWithBackend(p)
		pass(time.Minute)
		p.rec.skip()
		if !asks(p) {
			t.Fatal("not asked the second time")
		}
		pass(probeTimeout + 2*time.Second)
		p.wantEnded("it has not answered for ten seconds", ReasonPingTimeout)
	})
}

// Who does not bear PINGs, or takes leave, is not asked.
func TestAskLeavesOthersInPeace(t *testing.T) {
	for name, do := range map[string]func(p *peer){
		"PINGs are not wanted": func(p *peer) { p.conn.NeverProbe() },
		"it goes":              func(p *peer) { p.writeGoAway(1<<30, 0, "") },
	} {
		inBubble(t, func(t *testing.T) {
			p := greetedClient(t, Limits{})
			do(p)
			pass(time.Minute)
			p.skipFrames()
			if asks(p) || pings(p) != 0 {
				t.Errorf("%s: asked", name)
			}
		})
	}
}
