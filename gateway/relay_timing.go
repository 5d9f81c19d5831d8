package gateway

import (
	"math/rand/v2"
	"time"

	"sluice/gateway/h2"
	"sluice/store"
)

// bound puts the rule's timeouts in force. The caller's own deadline, if there is one, is
// known. The caller holds mu.
func (r *rpc) bound() {
	t := r.target.treat
	if t == nil || t.timeouts == nil {
		return
	}
	f := r.factsOrLearn()
	if f.streams() {
		r.watch(t.timeouts)
		return
	}
	asked := time.Duration(0)
	if !r.deadline.IsZero() {
		asked = max(r.deadline.Sub(r.started), 1)
	}
	limit := boundOf(t.timeouts, asked)
	until := r.started.Add(limit)
	switch {
	case limit == asked: // the caller's own, or none
	case f.known:
		r.deadline = until
	default: // it may be a stream, whose backend is not to hear of it
		r.careful().answerBy = until
	}
}

// until is when the RPC ends if nothing else ends it; zero is never. The caller holds mu.
func (r *rpc) until() time.Time {
	if c := r.care; c != nil && !c.answerBy.IsZero() && (r.deadline.IsZero() || c.answerBy.Before(r.deadline)) {
		return c.answerBy
	}
	return r.deadline
}

// rearm follows a change of until. The caller holds mu.
func (r *rpc) rearm() {
	if at := r.until(); at.IsZero() {
		r.g.engine.Wheel().Stop(&r.timer)
	} else {
		r.g.engine.Wheel().Set(&r.timer, at, r)
	}
}

// watch begins to look whether a stream is silent for too long, or too old. The caller
// holds mu.
func (r *rpc) watch(t *store.RPCTimeouts) {
	if t.StreamIdle == 0 && t.StreamMaxAge == 0 || r.care != nil && r.care.watching {
		return
	}
	c := r.careful()
	c.watching, c.idle = true, time.Duration(t.StreamIdle)
	c.quietSince = time.Now()
	if age := time.Duration(t.StreamMaxAge); age > 0 {
		// Streams that began together are not to end together.
		c.agesAt = r.started.Add(age - age/10 + rand.N(age/5+1))
	}
	c.lookAgain(c.quietSince)
}

// lookAgain sets the time of the next look: silence is noticed a quarter of its limit
// late at most, and DATA costs no more than a note.
func (c *care) lookAgain(now time.Time) {
	at := c.agesAt
	if next := now.Add(max(c.idle/4, time.Millisecond)); c.idle > 0 && (at.IsZero() || next.Before(at)) {
		at = next
	}
	c.r.g.engine.Wheel().Set(&c.look, at, (*lookTimer)(c))
}

func (c *care) unwatch() {
	if c.watching {
		c.watching = false
		c.r.g.engine.Wheel().Stop(&c.look)
	}
}

// Expire looks at the stream.
func (t *lookTimer) Expire() {
	c := (*care)(t)
	r := c.r
	var b h2.Batch
	r.mu.Lock()
	if !r.ended && c.watching {
		c.inspect(time.Now(), &b)
	}
	r.mu.Unlock()
	b.Flush()
}

func (c *care) inspect(now time.Time, b *h2.Batch) {
	if c.spoke {
		c.spoke, c.quietSince = false, now
	}
	switch {
	case !c.agesAt.IsZero() && !now.Before(c.agesAt):
		c.r.fail(aged, b)
	case c.idle > 0 && now.Sub(c.quietSince) >= c.idle:
		c.r.fail(idle, b)
	default:
		c.lookAgain(now)
	}
}
