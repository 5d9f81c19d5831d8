package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"sluice/gateway/rest"
	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// openHTTP begins an RPC to a backend that speaks REST: the annotation of the method
// says which request it becomes.
func (g *Gateway) openHTTP(r *http.Request, o *rest.Opening, p *placement) (rest.Call, error) {
	compiled, err := g.schemas.outboundOf(r.Context(), p.backend.Key, o.Method)
	if err != nil {
		g.count(p.target, unsupported)
		return nil, err
	}
	out := g.newOutbound(r, p, g.schemas.facts(p.backend.Key, o.Method).idempotent)
	p.target.series.Start()
	from := &requester{g.sessionOf(r), rpcHeader{headerOf(o.Metadata), headerOf(r.Header)}, headerOf(r.Header)}
	e, how, after := g.enter(p.target, out.started, from)
	if how != served {
		st := how.refusal(after)
		out.fail(how)
		out.end(st)
		return nil, st
	}
	out.tries.entry, out.tries.draw = e, drawOf(p.backend, o.Method, from)
	return compiled.Open(rest.OutboundOpening{
		Context: r.Context(), Timeout: boundOf(p.rule.Treatment.Timeouts, o.Timeout), Backend: p.backend.Key, Host: r.Host,
		Metadata: o.Metadata, Encoding: o.Encoding, Limits: limitsOf(p.rule),
		Send: out.send, Gone: out.gone, End: out.end,
	}), nil
}

// outboundOf is a method as a backend that speaks REST has it. Such a backend cannot
// tell of itself: a Schema does.
func (s *schemas) outboundOf(ctx context.Context, backend, path string) (*rest.Outbound, error) {
	method, err := s.registry.Method(ctx, backend, path)
	if err != nil || method == nil {
		st := unsupported.status()
		st.Message = fmt.Sprintf("sluice: the backend %q speaks REST, and no Schema describes the method %s, of which a request is to be made: push one with sluice schema push", backend, path)
		return nil, st
	}
	return s.current.Load().outboundFor(method)
}

// outboundFor compiles a method once.
func (m *methods) outboundFor(method *schema.Method) (*rest.Outbound, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o := m.outbound[method]; o != nil {
		return o, nil
	}
	o, err := rest.NewOutbound(method)
	if err != nil {
		return nil, err
	}
	if m.outbound == nil {
		m.outbound = make(map[*schema.Method]*rest.Outbound)
	}
	m.outbound[method] = o
	return o, nil
}

// outbound is one RPC that has become a request.
type outbound struct {
	*placement
	g       *Gateway
	caller  *http.Request
	started time.Time
	tries   exchange
	again   func(method string) bool // whether a request of that HTTP method may be sent again
	how     atomic.Uint32            // the outcome, where no status tells it
}

// newOutbound is an RPC to a method of which it is known whether it may be called twice.
func (g *Gateway) newOutbound(r *http.Request, p *placement, idempotent bool) *outbound {
	o := &outbound{g: g, placement: p, caller: r, started: time.Now()}
	o.tries = exchange{
		g: g, target: p.target, backend: p.backend,
		movable: func() bool { return true }, // the message is in memory
		torn:    func() bool { return false },
	}
	retry := p.target.retries()
	o.again = func(method string) bool {
		return idempotent || retry.asked && (!retry.idempotent || repeatable(method))
	}
	return o
}

// send sends the request to one endpoint after the other, as long as it has not left or
// may be sent again.
func (o *outbound) send(r *http.Request) (*http.Response, error) {
	o.address(r)
	if o.again(r.Method) {
		o.tries.retry = o.target.retries()
		o.tries.perTry = o.tries.retry.perTry
	}
	o.tries.next = func(ctx context.Context) (*http.Request, error) {
		out := r.WithContext(ctx)
		if r.GetBody == nil {
			return out, nil
		}
		var err error
		out.Body, err = r.GetBody()
		return out, err
	}
	res, err := o.tries.roundTrip(r.Context())
	if err != nil {
		if none, ok := errors.AsType[*noneLeft](err); ok {
			return nil, o.fail(noneLeftOutcome(o.backend, none.last))
		}
		return nil, o.lost(err)
	}
	o.target.modify.responseHeader(res.Header)
	res.Body = &trialBody{ReadCloser: res.Body, trial: o.tries.trial}
	return res, nil
}

// address adds to a request what the gateway says of it.
func (o *outbound) address(r *http.Request) {
	if se := o.g.sessionOf(o.caller); se.hops > 0 {
		for _, f := range se.believed(nil, o.caller.Header) {
			r.Header.Add(f.Name, f.Value)
		}
	}
	o.g.address(r, o.caller, o.target)
}

// fail notes an outcome that its status alone does not tell.
func (o *outbound) fail(how outcome) *wire.Status {
	o.how.Store(uint32(how))
	return how.status()
}

// lost is a request that may have reached the backend, and has no answer.
func (o *outbound) lost(err error) error {
	if o.caller.Context().Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err // the call knows
	}
	o.g.log.Debug("request not answered by backend", "backend", o.backend.Key, "error", err)
	return o.fail(lostOutcome(err))
}

// gone is why the caller's request has ended.
func (o *outbound) gone() *wire.Status {
	how, ours := closedBy(o.caller.Context())
	if !ours && errors.Is(context.Cause(o.caller.Context()), context.DeadlineExceeded) {
		how = deadline
	}
	return o.fail(how)
}

// end counts the RPC.
func (o *outbound) end(st *wire.Status) {
	how, code := served, wire.OK
	if st != nil {
		code = st.Code
		if st.Gateway {
			how = outcomeOfTranslation(st)
		}
	}
	if noted := outcome(o.how.Load()); noted != served {
		how = noted
	}
	took := time.Since(o.started)
	o.tries.leave(took, how)
	o.target.series.End(code, took)
	o.g.ended[how].Add(1)
}
