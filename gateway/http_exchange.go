package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/gateway/upstream"
	"sluice/gateway/wire"
)

// exchange is one request of HTTP and its response, by as many trials as it takes. But
// for entry it belongs to the goroutine that calls roundTrip.
type exchange struct {
	g       *Gateway
	target  *target
	backend *upstream.Backend
	draw    draw // to an endpoint of it

	// next is the request of the next trial, which may use what is left of the one before.
	next func(context.Context) (*http.Request, error)
	// movable tells whether all of the request is there for another trial.
	movable func() bool
	// torn tells whether the client did not send what it had promised.
	torn func() bool
	// owed tells whether it is the client that a trial waits for, which has taken so long;
	// nil where it has sent everything before, and somebody else takes the answer.
	owed   func(took time.Duration) bool
	retry  *retries      // nil when it is not sent again
	perTry time.Duration // until a response begins; zero = no bound
	whole  time.Duration // until it ends; likewise

	trial *trial // that has answered; nil as long as none has
	moved bool   // sent once more already, since a backend had not acted on it
	tries int    // after the first, since one had failed

	mu    sync.Mutex // guards the fields below
	entry *entry     // what is held of limits; mostly nil
}

// trial is a request at one endpoint, on which it counts from the choice to its end.
type trial struct {
	endpoint *upstream.Endpoint
	index    int
	began    time.Time
	headed   time.Duration // until the response began; zero = it has not
	response *http.Response
	ctx      context.Context // of the request, until the end of its response
	cancel   context.CancelCauseFunc
	timer    *time.Timer // ends the trial; nil without a bound
	owed     bool        // that it has had its time is the client's doing; fixed once it has
	once     sync.Once
}

// Why a trial ends that has had its time: the backend's doing, or the client's.
var (
	errTrialOver  = errors.New("the backend has had its time")
	errClientLate = errors.New("the backend's time was over before the client had sent the request")
)

// roundTrip asks one endpoint after the other, as long as the request has not left or may
// be sent again.
func (x *exchange) roundTrip(ctx context.Context) (*http.Response, error) {
	var avoid balance.Mask
	var last error   // why an endpoint did not take the request
	var held *trial  // whose answer is no good, and is given if there is none that is better
	var failed error // likewise, of a trial without an answer
	for {
		t, err := x.try(ctx, avoid)
		switch {
		case t == nil:
			if held == nil && failed == nil {
				return nil, &noneLeft{last}
			}
			return x.settle(held, nil, failed)
		case err == nil && !x.again(ctx, wire.FromREST(t.response.StatusCode), t):
			return x.settle(t, held, nil)
		case err == nil:
			held.drop()
			held, failed = t, nil
			t.done(upstream.Failure)
			avoid = avoid.With(t.index)
		case ctx.Err() != nil:
			t.done(upstream.Neutral)
			held.drop()
			return nil, err
		case neverLeft(err):
			t.done(upstream.Neutral)
			last, avoid = err, avoid.With(t.index)
			continue
		case x.refused(err):
			t.done(upstream.Neutral)
			last, avoid = nil, avoid.With(t.index)
			x.moved = true
			x.g.moved.Add(1)
		default:
			blame, code := x.blame(err)
			t.done(blame)
			if blame != upstream.Failure || !x.again(ctx, code, nil) {
				return x.settle(held, nil, err)
			}
			failed, avoid = err, avoid.With(t.index)
		}
		if !x.backend.Others(avoid) {
			avoid = nil // the same endpoint once more is the only elsewhere
		}
	}
}

// blame is what the error of a trial says of its endpoint, and the code that it stands for.
func (x *exchange) blame(err error) (upstream.Verdict, wire.Code) {
	if x.torn() {
		return upstream.Neutral, wire.Canceled
	}
	o := lostOutcome(err)
	return outcomes[o].blame, outcomes[o].code
}

// refused tells whether the backend has not acted on the request, which may then be
// sent once more, if all of its body is there.
func (x *exchange) refused(err error) bool {
	var stream *h2.StreamError
	return !x.moved && errors.As(err, &stream) && stream.Unprocessed && x.movable()
}

// leave gives back what is held of limits, at the request's end.
func (x *exchange) leave(took time.Duration, how outcome) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.entry.leave(took, how)
}

// settle decides for an answer or, when it is nil, for an error.
func (x *exchange) settle(t, other *trial, err error) (*http.Response, error) {
	other.drop()
	if t == nil {
		return nil, err
	}
	x.trial = t
	if name, value, ok := x.draw.binding(x.backend, t.endpoint); ok && t.response.StatusCode < http.StatusInternalServerError {
		t.response.Header.Add(name, value)
	}
	x.mu.Lock()
	x.entry.answered()
	x.mu.Unlock()
	return t.response, nil
}

// try sends the request to an endpoint that is not to be avoided; the trial is nil when
// there is none.
func (x *exchange) try(ctx context.Context, avoid balance.Mask) (*trial, error) {
	e, i := x.draw.pick(x.backend, avoid)
	if e == nil {
		return nil, nil
	}
	t := &trial{endpoint: e, index: i, began: time.Now()}
	if !x.wait(e) {
		return t, upstream.ErrCrowded
	}
	defer x.resume()
	t.ctx, t.cancel = context.WithCancelCause(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { x.resume() }}))
	if bound := x.bound(); bound > 0 {
		t.timer = time.AfterFunc(bound, func() { x.expire(t) })
	}
	out, err := x.next(t.ctx)
	if err == nil {
		t.response, err = e.RoundTrip(out)
	}
	if err != nil {
		if t.over() {
			err = t.expired()
		}
		return t, err
	}
	t.headed = time.Since(t.began)
	if t.timer != nil && t.timer.Stop() && x.whole > 0 {
		t.timer.Reset(max(x.whole-t.headed, 0))
	}
	return t, nil
}

// expire ends a trial that has had its time.
func (x *exchange) expire(t *trial) {
	t.owed = x.owed != nil && x.owed(time.Since(t.began))
	t.cancel(errTrialOver)
}

// bound is how long a trial may take to begin its answer; zero is no bound.
func (x *exchange) bound() time.Duration {
	if x.perTry == 0 || x.whole > 0 && x.whole < x.perTry {
		return x.whole
	}
	return x.perTry
}

// wait counts the request as one that waits for a connection, where it seems to, unless
// as many do as may.
func (x *exchange) wait(e *upstream.Endpoint) bool {
	if n := e.Connections(); n > 0 && (!x.backend.HTTP() || e.Active() <= n) {
		return true
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.target.guard.wait(x.entry)
}

func (x *exchange) resume() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.entry.resume()
}

// again tells whether the request is sent once more after a trial that has come to a
// code, and waits for as long as that takes; t is nil when there is no answer.
func (x *exchange) again(ctx context.Context, code wire.Code, t *trial) bool {
	p := x.retry
	if p == nil || x.tries >= p.attempts || !x.movable() {
		return false
	}
	if t != nil {
		status := t.response.StatusCode
		if status < 400 || !p.codes.Has(code) && !(p.codes.Has(wire.Unavailable) && unavailable(status)) || asksForPause(t.response) {
			return false
		}
	} else if !p.codes.Has(code) && code != outcomes[backendTimeout].code {
		return false
	}
	pause, _ := p.pause(x.tries, &setback{})
	now := time.Now()
	if end, ok := ctx.Deadline(); ok && !now.Add(pause).Before(end) {
		return false // the answer that there is is better than none in time
	}
	x.mu.Lock()
	paid := x.target.retry(now, x.entry)
	x.mu.Unlock()
	if !paid {
		return false
	}
	x.tries++
	return sleep(ctx, pause)
}

// sleep is false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// unavailable tells the statuses by which a server, or a proxy before it, says that it
// could not serve the request just now.
func unavailable(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// asksForPause tells a response that names a time before which nobody should come back.
func asksForPause(r *http.Response) bool {
	after := r.Header.Get("Retry-After")
	return after != "" && after != "0"
}

// drop gives up an answer that there is a better one for.
func (t *trial) drop() {
	if t != nil {
		t.response.Body.Close()
		t.end()
	}
}

// end lets go of what bounds the trial.
func (t *trial) end() {
	if t.timer != nil {
		t.timer.Stop()
	}
	if t.cancel != nil {
		t.cancel(nil)
	}
}

// done ends what the trial counts for at its endpoint, once. One that has no answer is
// over with it.
func (t *trial) done(v upstream.Verdict) {
	t.once.Do(func() {
		if t.response == nil {
			t.end()
		}
		t.endpoint.Done(upstream.Result{Verdict: v, Took: t.took(), Age: time.Since(t.began), FirstByte: t.headed, Doubtful: t.doubtful()})
	})
}

// doubtful tells of an answer that came fast because nothing was done for it, maybe.
func (t *trial) doubtful() bool {
	return t.response != nil && (t.response.StatusCode == http.StatusTooManyRequests || t.response.StatusCode >= 500)
}

// took is how long the trial kept its endpoint at work; zero of a response that may have
// been a stream.
func (t *trial) took() time.Duration {
	took := time.Since(t.began)
	if t.response != nil && (t.response.StatusCode == http.StatusSwitchingProtocols || t.response.ContentLength < 0 && took > endlessWork) {
		return 0
	}
	return took
}

// close ends the trial that has answered, given how its request has ended.
func (t *trial) close(how outcome) {
	v := outcomes[how].blame
	if how == served {
		switch status := t.response.StatusCode; {
		case unavailable(status):
			v = upstream.Failure
		case status < http.StatusInternalServerError:
			v = upstream.Success
		}
	}
	t.done(v)
	t.end()
}

// over tells whether the trial has had its time.
func (t *trial) over() bool { return errors.Is(context.Cause(t.ctx), errTrialOver) }

// expired is what a trial fails of that is over.
func (t *trial) expired() error {
	if t.owed {
		return errClientLate
	}
	return errTrialOver
}

// repeatable tells a method that may be used again without another effect (RFC 9110,
// section 9.2.2).
func repeatable(method string) bool {
	return slices.Contains([]string{
		http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodTrace,
	}, method)
}

// trialBody is the body of an answer; the endpoint is at work until it is closed. It
// belongs to the goroutine that reads it.
type trialBody struct {
	io.ReadCloser
	trial *trial
	how   outcome
}

func (b *trialBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		switch b.how = cancelled; {
		case b.trial.over():
			b.how = backendTimeout
		case b.trial.ctx.Err() == nil:
			b.how = backendLost
		}
	}
	return n, err
}

// Close implements io.Closer.
func (b *trialBody) Close() error {
	err := b.ReadCloser.Close()
	b.trial.close(b.how)
	return err
}
