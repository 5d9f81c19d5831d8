package gateway

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/h2"
	"sluice/gateway/upstream"
	"sluice/gateway/wire"
)

// attempt is one try at one endpoint, on which it counts from the choice to its end. It
// is the source of what it sends, so that the caller's window grows as the backend's
// socket takes bytes, and bytes that are sent twice count once.
type attempt struct {
	h2.Stream
	r *rpc // nil while nobody uses the memory

	// Guarded by r.mu.
	endpoint *upstream.Endpoint // nil once the attempt is over: what comes of it then is nobody's
	held     *[]h2.Field        // the response's header, while it waits for what comes next
	began    time.Duration      // since r.started
	first    time.Duration      // from then to the answer's beginning; zero unless the backend asks for it
	taken    int64              // bytes of the request that the backend's socket has taken
	index    int32              // of endpoint in its backend
	phase    phase
}

// phase is how far an attempt has come.
type phase uint8

const (
	attemptNew     phase = iota
	attemptWaiting       // for a connection: its Resume is called
	attemptOpen          // its stream is
	attemptEnded         // its stream came to an end that was not the RPC's
)

// Credit gives the caller as much window as the backend's socket has taken, unless
// another attempt has had it taken before.
func (a *attempt) Credit(n int32, drained bool, b *h2.Batch) {
	r := a.r
	r.mu.Lock()
	if a.endpoint == nil || r.ended {
		r.mu.Unlock()
		return
	}
	a.taken += int64(n)
	fresh := min(int64(n), a.taken-r.credited)
	if fresh > 0 {
		r.credited += fresh
	}
	r.mu.Unlock()
	if fresh > 0 {
		r.down.Credit(int32(fresh), drained, b)
	}
}

// attemptOf is the attempt that a stream is of; nil when it is over. The caller holds mu.
func (r *rpc) attemptOf(s *h2.Stream) *attempt {
	if a := r.cur; a != nil && s == &a.Stream {
		return a
	}
	if r.care != nil {
		for _, a := range r.care.rivals {
			if s == &a.Stream {
				return a
			}
		}
	}
	return nil
}

// join counts a among the attempts that go on.
func (r *rpc) join(a *attempt) {
	if r.cur == nil {
		r.cur = a
	} else {
		r.care.rivals = append(r.care.rivals, a)
	}
}

// part takes a out of them.
func (r *rpc) part(a *attempt) {
	var rivals []*attempt
	if r.care != nil {
		rivals = r.care.rivals
	}
	switch i := slices.Index(rivals, a); {
	case i >= 0:
		r.care.rivals = slices.Delete(rivals, i, i+1)
	case r.cur != a:
	case len(rivals) > 0:
		r.cur = rivals[0]
		r.care.rivals = slices.Delete(rivals, 0, 1)
	default:
		r.cur = nil
	}
}

// dispatch finds an endpoint and opens the stream there, or parks until there is
// a connection. The caller holds mu.
func (r *rpc) dispatch(b *h2.Batch) {
	if r.launch(b) {
		r.pace()
		return
	}
	if r.hedged() {
		r.unhedge()
	}
	if r.cur == nil {
		r.stranded(b)
	}
}

// launch begins an attempt at an endpoint that was not tried. It is false when there is
// none that takes it. The caller holds mu.
func (r *rpc) launch(b *h2.Batch) bool {
	for !r.lost {
		e, i := r.pick()
		if e == nil {
			return false
		}
		a := r.newAttempt(e, i)
		r.join(a)
		if r.open(a, b) {
			return true
		}
		r.forsake(a, b)
	}
	return false
}

// pick chooses an endpoint that was not tried. When there is no other, those may be tried
// again that could be reached, and whose answer was no good.
func (r *rpc) pick() (*upstream.Endpoint, int) {
	var d draw
	if r.care != nil {
		d = r.care.draw
	}
	if r.hedged() {
		r.avoidLive()
	}
	e, i := d.pick(r.backend, r.avoid)
	if c := r.care; e == nil && c != nil && c.tried != nil && !c.hedging {
		for word := range min(len(c.tried), len(r.avoid)) {
			r.avoid[word] &^= c.tried[word]
		}
		c.tried = nil
		e, i = d.pick(r.backend, r.avoid)
	}
	return e, i
}

// newAttempt is one at an endpoint that counts it already.
func (r *rpc) newAttempt(e *upstream.Endpoint, index int) *attempt {
	a := &r.first
	if a.r != nil {
		a = new(attempt)
	}
	a.r, a.endpoint, a.index, a.phase, a.began, a.first = r, e, int32(index), attemptNew, 0, 0
	if a != &r.first || r.last != nil || r.stream == nil || !e.Usable() {
		// The first of a stream begins with it; who tries an ejected endpoint is told from
		// those of before by this.
		a.began = time.Since(r.started)
	}
	return a
}

// open opens the attempt's stream, or parks there. It is false when that endpoint cannot
// serve. The caller holds mu.
func (r *rpc) open(a *attempt, b *h2.Batch) bool {
	r.countAttempts()
	var tail []h2.Field
	if r.care != nil {
		tail = r.care.requestTail
	}
	opening := h2.Opening{
		Fields: r.fields, Deadline: r.deadline, Sink: r, Source: a,
		End: r.requestEnded && len(r.kept) == 0 && tail == nil,
	}
	err := a.endpoint.Open(&a.Stream, &opening, b)
	if err == nil {
		a.phase = attemptOpen
		if len(r.kept) > 0 {
			a.SendData(r.kept, r.requestEnded && tail == nil, b)
		}
		if tail != nil {
			a.SendHeader(tail, true, b)
		}
		return true
	}
	if err == upstream.ErrConnecting {
		if err = r.park(a); err == nil {
			a.phase = attemptWaiting
			return true
		}
	}
	r.last = err
	return false
}

// park has an attempt wait for a connection, unless as many RPCs as may do so already.
// The caller holds mu.
func (r *rpc) park(a *attempt) error {
	if !r.target.guard.wait(r.entry) {
		return upstream.ErrCrowded
	}
	err := a.endpoint.Wait(a)
	if err != nil {
		r.waited()
	}
	return err
}

// waited ends what an attempt's wait counts for. An RPC counts once, until none of its
// attempts waits. The caller holds mu.
func (r *rpc) waited() {
	waiting := r.cur != nil && r.cur.phase == attemptWaiting
	if r.care != nil {
		for _, a := range r.care.rivals {
			waiting = waiting || a.phase == attemptWaiting
		}
	}
	if !waiting {
		r.entry.resume()
	}
}

// Resume goes on with an attempt that waits for a connection.
func (a *attempt) Resume(err error) {
	r := a.r
	var b h2.Batch
	r.mu.Lock()
	if !r.ended && a.phase == attemptWaiting {
		a.phase = attemptNew
		r.waited()
		a.began = time.Since(r.started) // the wait was not the endpoint's work
		if err != nil {
			r.last = err
		}
		if err != nil || r.lost || !r.open(a, &b) {
			r.forsake(a, &b)
			r.dispatch(&b)
		}
	}
	r.mu.Unlock()
	b.Flush()
}

// forsake gives up an attempt that the backend has not acted on. Its endpoint is not
// picked again. The caller holds mu.
func (r *rpc) forsake(a *attempt, b *h2.Batch) {
	left := a.phase != attemptNew
	a.giveUp(upstream.Neutral, b)
	r.avoid = r.avoid.With(int(a.index))
	r.part(a)
	if !left {
		a.r = nil // nobody knows of it
	}
}

// giveUp ends an attempt that is not the RPC's end. The caller holds mu.
func (a *attempt) giveUp(v upstream.Verdict, b *h2.Batch) {
	switch a.phase {
	case attemptOpen:
		a.Reset(http2.ErrCodeCancel, b)
	case attemptWaiting:
		a.phase = attemptEnded
		a.r.waited()
	}
	a.done(v, 0)
}

// done ends what the attempt counts for at its endpoint, once. now is since the RPC has
// started, zero if nobody has looked. The caller holds mu.
func (a *attempt) done(v upstream.Verdict, now time.Duration) {
	e := a.endpoint
	if e == nil {
		return
	}
	a.endpoint, a.phase = nil, attemptEnded
	result := upstream.Result{Verdict: v, FirstByte: a.first, Doubtful: v == upstream.Neutral && a.r.answered()}
	if v != upstream.Neutral || !e.Usable() {
		if now == 0 {
			now = time.Since(a.r.started)
		}
		result.Age = now - a.began
	}
	if v != upstream.Neutral {
		result.Took = a.r.workTime(result.Age)
	}
	e.Done(result)
}

// answered tells whether the RPC has ended with a status of its endpoint.
func (r *rpc) answered() bool { return r.native && r.ended && r.how == served }

const (
	// longWork is from when on it is looked whether an RPC is a stream, which says nothing
	// of its endpoint by how long it takes.
	longWork = 100 * time.Millisecond
	// endlessWork is from when on one is taken for a stream that no schema tells of.
	endlessWork = 10 * time.Second
)

// workTime is how long an RPC of that length kept its endpoint at work; zero of a stream.
func (r *rpc) workTime(took time.Duration) time.Duration {
	if took < longWork {
		return took
	}
	if f := r.facts(); f.streams() || !f.known && took > endlessWork {
		return 0
	}
	return took
}

// verdict is what an ending of the RPC says about the endpoint that had it.
func (r *rpc) verdict(o outcome, code wire.Code) upstream.Verdict {
	if o != served {
		return outcomes[o].blame
	}
	if !r.native {
		return upstream.Neutral // nobody has looked at the answer
	}
	if r.backend.Counts(code) {
		return upstream.Failure
	}
	switch code {
	case wire.Unknown, wire.DeadlineExceeded, wire.Canceled, wire.ResourceExhausted:
		return upstream.Neutral // it may be for the endpoint, or for the request
	}
	return upstream.Success
}

// noneLeft names the ending of an RPC for which no endpoint is left.
func (r *rpc) noneLeft() outcome {
	if r.moved && r.last == nil {
		return refused
	}
	return noneLeftOutcome(r.backend, r.last)
}

// noneLeftOutcome is the same by what the last endpoint did not take a request for; last
// is nil when there was none.
func noneLeftOutcome(b *upstream.Backend, last error) outcome {
	switch {
	case last == nil && b.Problem != nil:
		return unusable
	case last == nil:
		return noEndpoint
	case errors.Is(last, upstream.ErrFull):
		return exhausted
	case errors.Is(last, upstream.ErrCrowded):
		return crowded
	}
	return unreachable
}
