package upstream

import (
	"time"

	"sluice/gateway/balance"
)

// Verdict is what one attempt says about its endpoint.
type Verdict uint8

// Neutral says nothing: it never left, or the caller went away, or its deadline passed.
// Success and Failure count for and against the endpoint; an answer that tells of the
// request, such as NOT_FOUND, is a Success: the endpoint has done its work.
const (
	Neutral Verdict = iota
	Success
	Failure
)

// Result is how an attempt at an endpoint ended.
type Result struct {
	Verdict Verdict
	// Took is from the attempt's beginning to its end; zero for a stream, of which it
	// says nothing.
	Took time.Duration
	// Age is from the attempt's beginning to now, of streams too, and whatever the
	// verdict: it tells who tries an ejected endpoint from those who were there before.
	Age time.Duration
	// FirstByte is from the attempt's beginning to the response's; zero when none came, or
	// nobody has looked: see Backend.Timed.
	FirstByte time.Duration
	// Doubtful is an answer that is no good, maybe for the endpoint's sake: that it came
	// fast is no merit.
	Doubtful bool
}

// Done ends an attempt that Pick has counted. It is what follows each Pick, once, in
// place of Release. It takes a few nanoseconds, unless the verdict changes what is
// thought of the endpoint.
func (e *Endpoint) Done(r Result) {
	row := e.tally.add(r)
	switch {
	case r.Verdict == Failure || e.Condition()&balance.Ejected != 0:
		e.doubt(r, row)
	case r.FirstByte == 0: // nobody wants to know
	case r.Doubtful:
		e.ObserveDoubt(time.Now(), r.FirstByte)
	default:
		e.Observe(time.Now(), r.FirstByte)
	}
	e.Release()
}

// doubt looks at what may change what is thought of the endpoint.
func (e *Endpoint) doubt(r Result, row uint32) {
	if r.Verdict == Failure && e.timed.Load() {
		e.ObserveFailure(time.Now())
	}
	if g := e.group.Load(); g != nil {
		g.ended(e, r, row)
	}
}
