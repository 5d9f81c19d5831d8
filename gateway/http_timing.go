package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"sluice/gateway/rest"
	"sluice/gateway/wire"
	"sluice/store"
)

// Why a request ends before its backend and its client have ended it.
var (
	errOvertime = errors.New("the request has had its time")
	errSilent   = errors.New("nothing was said on the stream for too long")
	errOld      = errors.New("the stream has reached its age")
)

// spans are how long a request that is passed on as it is may take; zero is no bound.
type spans struct {
	whole  time.Duration // from the request to the end of its response
	answer time.Duration // from the request to the beginning of its response
	asked  bool          // whole is what the caller itself asks for

	idle, age time.Duration // of a stream: silent, and in all
	streams   bool          // it is known to be one; else it is taken for one once it is answered
}

// why is what a message about the end of a request adds.
func (s *spans) why(o outcome) string {
	if o != deadline || s.asked {
		return ""
	}
	limit := s.whole
	if limit == 0 || s.answer > 0 && s.answer < limit {
		limit = s.answer
	}
	return fmt.Sprintf(" (%v, as the route says)", limit)
}

// spansOf are those of the request. What an HTTPRoute says is of the whole of it, unless
// it becomes a WebSocket; what a policy says of a plain request, of the time until it is
// answered: what goes on after that is taken for a stream.
func (p *passage) spansOf() spans {
	t := &p.rule.Treatment
	switch {
	case p.rpc:
		return p.spansOfRPC(t.Timeouts)
	case t.HTTP == nil || t.HTTP.Request == nil:
		return spans{answer: boundOf(t.Timeouts, 0)}
	case p.upgrade:
		return spans{answer: time.Duration(*t.HTTP.Request)}
	}
	return spans{whole: time.Duration(*t.HTTP.Request)}
}

// spansOfRPC follow the policy and the caller's own deadline as the relay does.
func (p *passage) spansOfRPC(t *store.RPCTimeouts) spans {
	asked, _ := timeAsked(p.r)
	if t == nil {
		return spans{whole: asked, asked: true}
	}
	f := p.g.schemas.facts(p.backend.Key, p.path)
	if !f.known {
		p.g.schemas.registry.LearnSoon(p.backend.Key)
	}
	limit := boundOf(t, asked)
	if f.known && !f.streams() {
		return spans{whole: limit, asked: asked > 0 && limit == asked}
	}
	s := spans{whole: asked, asked: true, idle: time.Duration(t.StreamIdle), age: time.Duration(t.StreamMaxAge), streams: f.known}
	if !f.known {
		s.answer, s.asked = limit, asked > 0 && limit == asked
	}
	return s
}

// boundOf is how long an RPC that is no stream may take whose caller asks for so much
// time; zero is no bound.
func boundOf(t *store.RPCTimeouts, asked time.Duration) time.Duration {
	if t == nil {
		return asked
	}
	limit := time.Duration(t.Request)
	if d := time.Duration(t.Default); d > 0 && asked <= 0 && (limit == 0 || d < limit) {
		limit = d
	}
	if asked > 0 && (limit == 0 || asked < limit) {
		limit = asked
	}
	return limit
}

// The fields by which callers of gRPC-Web and of Connect ask for a time.
const (
	grpcTimeout    = "Grpc-Timeout"
	connectTimeout = "Connect-Timeout-Ms"
	// maxTimeoutDigits is how long a number of milliseconds may be.
	maxTimeoutDigits = 10
)

// timeoutField is the one of the request's protocol.
func timeoutField(r *http.Request) string {
	if rest.IsConnect(r) {
		return connectTimeout
	}
	return grpcTimeout
}

// timeAsked is how much time the caller gives, a nanosecond when it leaves none; zero is
// no bound. It is false of what is malformed, of which the backend has to tell the caller.
func timeAsked(r *http.Request) (d time.Duration, ok bool) {
	name := timeoutField(r)
	lines := r.Header[name]
	switch {
	case len(lines) == 0:
		return 0, true
	case len(lines) > 1:
		return 0, false
	case name == grpcTimeout:
		d, ok = wire.ParseTimeout(lines[0])
	default:
		n, err := strconv.ParseUint(lines[0], 10, 64)
		d, ok = time.Duration(n)*time.Millisecond, err == nil && len(lines[0]) <= maxTimeoutDigits
	}
	if !ok {
		return 0, false
	}
	return max(d, 1), true
}

// timeLeft tells the backend of an RPC how much time is left for it.
func (p *passage) timeLeft(ctx context.Context, h http.Header) {
	until, bounded := ctx.Deadline()
	if !p.rpc || !bounded {
		return
	}
	if _, ok := timeAsked(p.r); !ok {
		return
	}
	left := max(time.Until(until), 0)
	name := timeoutField(p.r)
	text := string(wire.AppendTimeout(nil, left))
	if name == connectTimeout {
		if text = strconv.FormatInt(left.Milliseconds(), 10); len(text) > maxTimeoutDigits {
			return
		}
	}
	h[name] = []string{text}
}

// bound puts in force how long the request may take. The function that it returns ends
// the request.
func (p *passage) bound() (end context.CancelFunc) {
	t := &p.rule.Treatment
	if t.HTTP != nil && t.HTTP.BackendRequest != nil {
		if attempt := time.Duration(*t.HTTP.BackendRequest); p.upgrade {
			p.tries.perTry = attempt
		} else {
			p.tries.whole = attempt
		}
	}
	p.limits = p.spansOf()
	parent, free := p.r.Context(), context.CancelFunc(func() {})
	if p.limits.whole > 0 {
		parent, free = context.WithDeadlineCause(parent, p.started.Add(p.limits.whole), errOvertime)
	}
	ctx, cancel := context.WithCancelCause(parent)
	if p.limits.answer > 0 {
		p.answerBy = time.AfterFunc(time.Until(p.started.Add(p.limits.answer)), func() { cancel(errOvertime) })
	}
	if p.limits.idle > 0 || p.limits.age > 0 {
		p.watch = &watch{limits: &p.limits, started: p.started, cancel: cancel}
		if p.limits.streams {
			p.watch.begin()
		}
	}
	p.ctx = ctx
	return func() {
		cancel(nil)
		free()
	}
}

// overtime tells whether the request has had the time that it may take, and how it ends
// then.
func (p *passage) overtime() (how outcome, over bool) {
	switch cause := context.Cause(p.ctx); {
	case errors.Is(cause, errOvertime):
		return deadline, true
	case errors.Is(cause, errSilent):
		return idle, true
	case errors.Is(cause, errOld):
		return aged, true
	}
	return served, false
}

// watch ends a stream that is silent for too long, or too old. It is begun and ended by
// the handler's goroutine; a nil one does nothing.
type watch struct {
	limits  *spans
	started time.Time
	cancel  context.CancelCauseFunc

	aging *time.Timer
	quiet atomic.Pointer[time.Timer] // nil before begin
}

func (w *watch) begin() {
	if w == nil {
		return
	}
	if age := w.limits.age; age > 0 {
		// Streams that began together are not to end together.
		at := w.started.Add(age - age/10 + rand.N(age/5+1))
		w.aging = time.AfterFunc(time.Until(at), func() { w.cancel(errOld) })
	}
	if idle := w.limits.idle; idle > 0 {
		w.quiet.Store(time.AfterFunc(idle, func() { w.cancel(errSilent) }))
	}
}

// heard is told of bytes that have come, from either side. It is not called after end.
func (w *watch) heard(n int) {
	if w == nil || n == 0 {
		return
	}
	if t := w.quiet.Load(); t != nil {
		t.Reset(w.limits.idle)
	}
}

func (w *watch) end() {
	if w == nil {
		return
	}
	if w.aging != nil {
		w.aging.Stop()
	}
	if t := w.quiet.Load(); t != nil {
		t.Stop()
	}
}
