package gateway

import (
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/gateway/upstream"
)

// care is what an RPC has that is more than one plain try: retries, hedges, bounds in
// time, a place that it belongs to. It is made when it is first needed, and guarded by the
// RPC's mutex.
type care struct {
	r *rpc

	draw    draw // to one endpoint rather than to others
	hedging bool // further attempts are made while the first goes on

	tries   int          // attempts beyond the first, without those that never left
	before  int          // that the caller says to have made before
	counted bool         // the request says how many
	tried   balance.Mask // endpoints whose answer was no good
	rivals  []*attempt   // of a hedged RPC, beside cur
	answer  *setback     // the last of an earlier attempt, if nothing better comes

	requestTail []h2.Field // trailers of the request, until the RPC is committed

	step   step
	stepAt time.Time
	timer  h2.Timer // of step

	holdUntil time.Time // how long the response's header may wait; zero unless it does
	hold      h2.Timer

	answerBy   time.Time // the answer has to begin; zero = no matter
	idle       time.Duration
	agesAt     time.Time // the stream ends; zero = never
	quietSince time.Time
	spoke      bool // DATA has passed since the last look
	watching   bool
	look       h2.Timer
}

// step is what the RPC waits for that time brings.
type step uint8

const (
	stepNone  step = iota
	stepPause      // the end of the pause before a further attempt
	stepTry        // the attempt has no answer in time
	stepHedge      // a further attempt beside those that go on
)

// careful returns the RPC's care. The caller holds mu.
func (r *rpc) careful() *care {
	if r.care == nil {
		r.care = &care{r: r}
	}
	return r.care
}

// The Expirers of a care's timers: types of their own, so that none needs memory. A
// timer may have been set anew, or its reason be gone, by the time that it is heard.
type (
	stepTimer care
	holdTimer care
	lookTimer care
)

// after has the RPC do a step in a while.
func (c *care) after(what step, pause time.Duration, now time.Time) {
	c.step, c.stepAt = what, now.Add(pause)
	c.r.g.engine.Wheel().Set(&c.timer, c.stepAt, (*stepTimer)(c))
}

// unstep takes back what the RPC waits for.
func (c *care) unstep() {
	if c.step != stepNone {
		c.step = stepNone
		c.r.g.engine.Wheel().Stop(&c.timer)
	}
}

// Expire does the step that is due.
func (t *stepTimer) Expire() {
	c := (*care)(t)
	r := c.r
	var b h2.Batch
	r.mu.Lock()
	if now := time.Now(); !r.ended && c.step != stepNone && !now.Before(c.stepAt) {
		due := c.step
		c.step = stepNone
		switch due {
		case stepPause:
			r.dispatch(&b)
		case stepTry:
			r.tryTimedOut(&b)
		case stepHedge:
			r.hedge(now, &b)
		}
	}
	r.mu.Unlock()
	b.Flush()
}

// settle leaves the RPC to the attempt whose answer counts. The caller holds mu.
func (c *care) settle(a *attempt, b *h2.Batch) {
	c.unstep()
	c.unhold()
	c.answer, c.tried, c.requestTail = nil, nil, nil
	c.dismiss(a, b)
	if !c.answerBy.IsZero() {
		c.answerBy = time.Time{}
		c.r.rearm()
	}
}

// dismiss gives up the attempts other than a.
func (c *care) dismiss(a *attempt, b *h2.Batch) {
	for _, rival := range c.rivals {
		if rival != a {
			rival.giveUp(upstream.Neutral, b)
		}
	}
	c.rivals = nil
}

// end leaves nothing of the care anywhere. The caller holds mu.
func (c *care) end(b *h2.Batch) {
	c.unstep()
	c.unhold()
	c.unwatch()
	c.dismiss(nil, b)
	c.answer, c.requestTail = nil, nil
	if !c.answerBy.IsZero() {
		c.r.g.engine.Wheel().Stop(&c.r.timer)
	}
}
