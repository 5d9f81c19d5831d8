package gateway

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"sluice/gateway/h2"
	"sluice/gateway/route"
	"sluice/gateway/upstream"
	"sluice/gateway/wire"
	"sluice/store"
)

// treatment is how the RPCs of a rule are treated that a policy speaks of.
type treatment struct {
	timeouts *store.RPCTimeouts // nil bounds nothing
	retry    *retries
	hedging  *store.Hedging // nil hedges nothing
}

// newTreatment is nil for a rule of which no policy speaks.
func newTreatment(rule *route.Rule) *treatment {
	from := &rule.Treatment
	if from.Timeouts == nil && from.Retry == nil && from.Hedging == nil {
		return nil
	}
	t := &treatment{timeouts: from.Timeouts, retry: defaultRetries, hedging: from.Hedging}
	if from.Retry != nil {
		t.retry = newRetries(from.Retry)
		t.retry.asked = true
	}
	return t
}

// retries is a retry policy, compiled.
type retries struct {
	attempts   int // after the first
	codes      wire.CodeSet
	perTry     time.Duration // zero = no bound
	base, max  time.Duration // of the pause
	idempotent bool          // only methods of which a schema says that they may be called twice
	asked      bool          // by a policy: answers are looked at before they go on
}

var defaultRetries = newRetries(store.DefaultRetry())

func newRetries(p *store.RetryPolicy) *retries {
	return &retries{
		attempts: p.Attempts, codes: wire.CodesNamed(p.Codes), perTry: time.Duration(p.PerTryTimeout),
		base: time.Duration(p.Backoff.Base), max: time.Duration(p.Backoff.Max),
		idempotent: p.Methods == store.IdempotentMethods,
	}
}

// retries is the policy that holds for RPCs to the target.
func (t *target) retries() *retries {
	if t.treat == nil {
		return defaultRetries
	}
	return t.treat.retry
}

// setback is what an attempt has come to that did not bring what the caller wants.
type setback struct {
	how     outcome
	code    wire.Code
	message string
	verdict upstream.Verdict
	// The backend's own answer, when how is served: its last section, and the one before
	// it unless it was the only one.
	tail, head []h2.Field
	pushback   string // the backend's grpc-retry-pushback-ms
	pushed     bool   // it has sent one
}

// made is a setback of the gateway's making.
func (r *rpc) made(o outcome, code wire.Code, message string) setback {
	return setback{how: o, code: code, message: message, verdict: outcomes[o].blame}
}

// answeredBy is an answer of the backend. Its fields are the reader's.
func (r *rpc) answeredBy(a *attempt, h *h2.Head) setback {
	f := setback{how: served, code: codeOf(h), tail: h.Fields}
	if a.held != nil {
		f.head = *a.held
	}
	f.verdict = r.verdict(served, f.code)
	return f
}

// kept is the setback for later: with fields of its own.
func (f *setback) kept() *setback {
	k := *f
	k.tail = slices.Clone(f.tail)
	return &k
}

// failed goes on after an attempt that has failed: the RPC is sent again, left to other
// attempts, or ends so. The caller holds mu.
func (r *rpc) failed(a *attempt, f *setback, b *h2.Batch) {
	if r.hedged() {
		r.hedgeFailed(a, f, b)
		return
	}
	pause, again := r.again(f)
	if !again {
		r.tell(a, f, b)
		return
	}
	r.setAside(a, f, b)
	if pause <= 0 {
		r.dispatch(b)
		return
	}
	r.care.after(stepPause, pause, time.Now())
}

// setAside gives up an attempt that is to be followed by another, at another endpoint if
// there is one. The caller holds mu.
func (r *rpc) setAside(a *attempt, f *setback, b *h2.Batch) {
	c := r.careful()
	c.unstep()
	c.unhold()
	c.answer = f.kept()
	a.giveUp(f.verdict, b)
	r.part(a)
	r.avoid = r.avoid.With(int(a.index))
	c.tried = c.tried.With(int(a.index))
}

// again tells whether the RPC is sent again after a failure, and how long after. It then
// has been paid for. The caller holds mu.
func (r *rpc) again(f *setback) (pause time.Duration, again bool) {
	p := r.target.retries()
	tries := 0
	if r.care != nil {
		tries = r.care.tries
	}
	if tries >= p.attempts || r.hedged() || !r.replayable() || !p.covers(f) || p.idempotent && !r.factsOfRetry(p).idempotent {
		return 0, false
	}
	pause, ok := p.pause(tries, f)
	now := time.Now()
	if !ok || !r.inTime(pause) {
		return 0, false // the answer that there is is better than none in time
	}
	if !r.afford(now) {
		return 0, false
	}
	r.careful().tries++
	return pause, true
}

// inTime tells whether the RPC goes on for longer than that.
func (r *rpc) inTime(pause time.Duration) bool {
	at := r.until()
	return at.IsZero() || time.Now().Add(pause).Before(at)
}

// replayable tells whether the request could be sent once more.
func (r *rpc) replayable() bool {
	return !r.committed && !r.lost && (r.native || r.web != nil)
}

// factsOfRetry are the method's. By default nobody is asked for a schema.
func (r *rpc) factsOfRetry(p *retries) facts {
	if p.asked {
		return r.factsOrLearn()
	}
	return r.facts()
}

// covers tells whether the policy is about such a failure.
func (p *retries) covers(f *setback) bool {
	switch f.how {
	case backendTimeout:
		return p.perTry > 0 // what else would the bound be for
	case unreachable:
		return p.asked && p.codes.Has(f.code)
	case served, refused, evicted:
		return p.codes.Has(f.code)
	}
	return outcomes[f.how].blame == upstream.Failure && p.codes.Has(f.code)
}

// maxPushback is the longest pause that a backend may ask for: until it is over, the
// request is in memory.
const maxPushback = 30 * time.Second

// pause is how long to wait before a further attempt. It is false when the backend does
// not want one; what is not a number says so, too (gRFC A6).
func (p *retries) pause(tries int, f *setback) (time.Duration, bool) {
	if f.pushed {
		ms, err := strconv.ParseInt(f.pushback, 10, 32)
		d := time.Duration(ms) * time.Millisecond
		return d, err == nil && ms >= 0 && d <= maxPushback
	}
	limit := min(p.base, p.max)
	for ; tries > 0 && limit < p.max; tries-- {
		limit = min(2*limit, p.max)
	}
	if limit <= 0 {
		return 0, true
	}
	return rand.N(limit), true
}

// afford takes one attempt from the budget that holds for the RPC, if it has any left.
func (r *rpc) afford(now time.Time) bool { return r.target.retry(now, r.entry) }

// tell ends the RPC with a failure. The caller holds mu.
func (r *rpc) tell(a *attempt, f *setback, b *h2.Batch) {
	if f.how != served {
		r.blame(a, f.verdict, b)
		r.failAs(f.how, f.code, f.message, b)
		return
	}
	r.code = f.code
	r.commit(a, b)
	switch {
	case f.head == nil && f.code != wire.OK:
		r.down.SendHeader(r.target.modify.response(f.tail), true, b) // nobody is to come back to that
	case f.head == nil:
		r.down.SendHeader(r.headOf(f.tail), true, b)
	default:
		r.down.SendHeader(r.headOf(f.head), false, b)
		r.down.SendHeader(f.tail, true, b)
	}
	r.finish(served, r.code, b)
}

// blame has the attempt that has failed, which may be nil, answer for the RPC's end, and
// none other. The caller holds mu.
func (r *rpc) blame(a *attempt, v upstream.Verdict, b *h2.Batch) {
	if a != nil {
		a.giveUp(v, b)
	}
	if other := r.cur; other != nil && other != a {
		other.giveUp(upstream.Neutral, b)
		other.held = nil // the end is not its own
		if a != nil {
			r.part(a)
		}
		r.cur = nil
	}
}

// stranded goes on with an RPC for which no endpoint is left. The caller holds mu.
func (r *rpc) stranded(b *h2.Batch) {
	o := r.noneLeft()
	if r.lost {
		o = overloaded
	}
	f := r.made(o, outcomes[o].code, outcomes[o].message)
	if pause, again := r.again(&f); again {
		r.avoid, r.care.tried = nil, nil
		r.care.after(stepPause, pause, time.Now())
		return
	}
	if r.care != nil && r.care.answer != nil {
		r.tell(nil, r.care.answer, b)
		return
	}
	r.fail(o, b)
}

// tryTimedOut ends an attempt that has not begun to answer in time. The caller holds mu.
func (r *rpc) tryTimedOut(b *h2.Batch) {
	a := r.cur
	if a == nil || r.committed || r.facts().streams() {
		return
	}
	f := r.made(backendTimeout, outcomes[backendTimeout].code, outcomes[backendTimeout].message)
	if a.phase == attemptWaiting {
		f.verdict = upstream.Neutral
	}
	r.failed(a, &f, b)
}

// holdUnknown is how long the header of a response waits for what comes next, when no
// schema tells whether there is but one message. The wheel may be as late again, and then
// some.
const holdUnknown = 4 * time.Millisecond

// holds keeps the header of a response back, because trailers may follow that say that the
// RPC is to be sent again: many servers send a header before they fail. The caller holds
// mu.
func (r *rpc) holds(a *attempt, h *h2.Head) bool {
	p := r.target.treat.retry
	f := r.facts()
	switch hedged := r.hedged(); {
	case !r.native || r.lost || f.clientStreams:
		return false // the caller may wait for the header to go on
	case !hedged && (!p.asked || p.idempotent && !f.idempotent || r.care != nil && r.care.tries >= p.attempts):
		return false
	}
	a.held = new(slices.Clone(h.Fields))
	if !f.known || f.streams() {
		c := r.careful()
		if c.step == stepTry {
			c.unstep() // the answer has begun
		}
		c.holdUntil = time.Now().Add(holdUnknown)
		r.g.engine.Wheel().Set(&c.hold, c.holdUntil, (*holdTimer)(c))
	}
	return true
}

func (c *care) unhold() {
	if !c.holdUntil.IsZero() {
		c.holdUntil = time.Time{}
		c.r.g.engine.Wheel().Stop(&c.hold)
	}
}

// Expire lets the header go that has waited long enough.
func (t *holdTimer) Expire() {
	c := (*care)(t)
	r := c.r
	var b h2.Batch
	r.mu.Lock()
	if a := r.cur; !r.ended && a != nil && a.held != nil && !c.holdUntil.IsZero() && !time.Now().Before(c.holdUntil) {
		r.release(a, &b)
	}
	r.mu.Unlock()
	b.Flush()
}

// release lets a header go that was held. The caller holds mu.
func (r *rpc) release(a *attempt, b *h2.Batch) {
	held := *a.held
	a.held = nil
	r.commit(a, b)
	r.follow(a)
	r.down.SendHeader(r.headOf(held), false, b)
}

// previousAttempts is how gRPC tells a server that an RPC was sent before.
const previousAttempts = "grpc-previous-rpc-attempts"

// countAttempts writes into the request how often it was sent before.
func (r *rpc) countAttempts() {
	c := r.care
	if c == nil || c.tries == 0 && !c.counted {
		return
	}
	at := slices.IndexFunc(r.fields, func(f h2.Field) bool { return f.Name == previousAttempts })
	switch {
	case at < 0:
		r.fields = append(r.fields, h2.Field{})
		at = len(r.fields) - 1
	case !c.counted:
		if n, err := strconv.ParseUint(r.fields[at].Value, 10, 16); err == nil {
			c.before = int(n)
		}
	}
	c.counted = true
	r.fields[at] = h2.IndexedField(previousAttempts, strconv.Itoa(c.before+c.tries))
}
