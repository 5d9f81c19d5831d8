package gateway

import (
	"encoding/binary"
	"time"

	"sluice/gateway/h2"
	"sluice/gateway/wire"
)

// hedged tells whether further attempts are made while the first goes on.
func (r *rpc) hedged() bool { return r.care != nil && r.care.hedging }

// hedges decides it: where the rule asks for it, and the method's schema says that it may
// be called twice. The caller holds mu.
func (r *rpc) hedges() {
	if t := r.target.treat; t != nil && t.hedging != nil && r.native {
		if f := r.factsOrLearn(); f.idempotent && !f.streams() {
			r.careful().hedging = true
		}
	}
}

// pace has time bring what comes after an attempt has begun: the next beside it, or its
// end. The caller holds mu.
func (r *rpc) pace() {
	t := r.target.treat
	if t == nil || r.ended || r.care != nil && r.care.step != stepNone {
		return
	}
	switch {
	case r.hedged():
		if c := r.careful(); c.tries < t.hedging.Attempts {
			c.after(stepHedge, time.Duration(t.hedging.Delay), time.Now())
		}
	case t.retry.perTry > 0 && r.requestEnded && !r.talks():
		r.careful().after(stepTry, t.retry.perTry, time.Now())
	}
}

// whole notes that all of the request is there. The time of a try begins now: what its
// caller takes to send it says nothing of an endpoint. The caller holds mu.
func (r *rpc) whole() {
	r.requestEnded = true
	if !r.committed && r.cur != nil && !r.hedged() {
		r.pace()
	}
}

// talks tells whether the RPC is a stream, whose answer may begin whenever it likes: its
// schema says so, or, without one, several messages do, or so many bytes that nobody has
// counted. The request is whole. The caller holds mu.
func (r *rpc) talks() bool {
	if f := r.facts(); f.known {
		return f.streams()
	}
	return r.native && (r.lost || severalMessages(r.kept))
}

// severalMessages tells whether payload of gRPC goes on behind its first message.
func severalMessages(p []byte) bool {
	return len(p) > wire.PrefixLen && int64(len(p)) > wire.PrefixLen+int64(binary.BigEndian.Uint32(p[1:]))
}

// hedge makes one more attempt beside those that go on, at another endpoint, if there is
// one and the budget allows it. The caller holds mu.
func (r *rpc) hedge(now time.Time, b *h2.Batch) {
	c := r.care
	r.avoidLive()
	if c.tries < r.target.treat.hedging.Attempts && r.replayable() && r.backend.Others(r.avoid) && r.afford(now) {
		c.tries++
		r.dispatch(b)
	} else if r.cur == nil {
		r.stranded(b)
	}
}

// unhedge takes back a further try that no endpoint has taken, and what it has cost. The
// caller holds mu.
func (r *rpc) unhedge() {
	if c := r.care; c.tries > 0 {
		c.tries--
		r.target.giveBack(time.Now(), r.entry, c.tries == 0)
	}
}

// avoidLive keeps further attempts from the endpoints that are at work.
func (r *rpc) avoidLive() {
	if r.cur != nil {
		r.avoid = r.avoid.With(int(r.cur.index))
	}
	for _, a := range r.care.rivals {
		r.avoid = r.avoid.With(int(a.index))
	}
}

// hedgeFailed goes on after an attempt of a hedged RPC. One that is to be tried again is
// so at once; the others go on. The caller holds mu.
func (r *rpc) hedgeFailed(a *attempt, f *setback, b *h2.Batch) {
	if !r.target.treat.retry.covers(f) || !r.replayable() {
		r.tell(a, f, b)
		return
	}
	last := r.cur == a && len(r.careful().rivals) == 0
	pause, wanted := r.target.treat.retry.pause(0, f)
	if last && (r.care.tries >= r.target.treat.hedging.Attempts || f.pushed && !r.inTime(pause)) {
		r.tell(a, f, b) // the answer that there is is better than none in time
		return
	}
	r.setAside(a, f, b)
	if !wanted { // by a backend that has had enough
		r.care.tries = r.target.treat.hedging.Attempts
	}
	if wanted && f.pushed {
		r.care.after(stepHedge, pause, time.Now())
		return
	}
	r.hedge(time.Now(), b)
}
