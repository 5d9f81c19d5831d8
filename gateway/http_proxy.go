package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"time"

	"sluice/gateway/h2"
	"sluice/gateway/rest"
	"sluice/gateway/upstream"
	"sluice/gateway/web"
	"sluice/gateway/wire"
)

// errand is a request on its way to a backend that has been chosen.
type errand struct {
	*placement
	path  string // in its one form, as the backend gets it
	query string // as it came
	host  string // for the backend
	rpc   bool   // the path is a method, and the protocol its caller's
}

// url is what is asked for, without the authority.
func (e *errand) url() *url.URL {
	u := &url.URL{RawPath: e.path, RawQuery: e.query}
	u.Path, _ = url.PathUnescape(e.path)
	return u
}

// passage is one request that goes to its backend as it is, and the response. It
// belongs to the handler's goroutine but for what says otherwise.
type passage struct {
	*errand
	g       *Gateway
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	started time.Time
	ctx     context.Context // of the request to the backend: the client's, and what the route allows

	tries    *exchange // nil until it has entered
	limits   spans
	answerBy *time.Timer  // ends the request that is not answered by then; nil without a bound
	watch    *watch       // of a stream, or of what may be one; nil without a bound
	body     *requestBody // nil when the request has none
	upgrade  bool         // the client asks for a WebSocket
	outcome  outcome
	code     wire.Code
	stalling time.Time // when the deadline for writes was last set
	writing  stopwatch // runs while the client takes the response

	mu       sync.Mutex // guards the fields below, and w until answered
	answered bool       // the final response header has come, or nobody waits for it
	hints    int        // informational responses
}

// maxHints bounds the informational responses to one request. Real ones are one or two.
const maxHints = 100

// proxy sends a request whose path is a method's to a backend that speaks the caller's
// protocol itself.
func (g *Gateway) proxy(w http.ResponseWriter, r *http.Request, p *placement) {
	_, query := rawTarget(r)
	g.carry(w, r, &errand{placement: p, path: r.URL.Path, query: query, host: r.Host, rpc: true})
}

// carry sends a request to its backend as it is, and the response to the client. It is
// counted once, however it ends.
func (g *Gateway) carry(w http.ResponseWriter, r *http.Request, e *errand) {
	p := &passage{errand: e, g: g, w: w, r: r, control: http.NewResponseController(w), started: time.Now()}
	// Until it is known better: a handler that does not come to its end is the caller's doing.
	p.note(cancelled)
	e.target.series.Start()
	defer p.finish()
	if r.Method == http.MethodConnect {
		p.fail(unsupported, "CONNECT is not served")
		return
	}
	if !p.enter() {
		return
	}
	p.upgrade = wantsWebSocket(r)
	if p.upgrade && !e.backend.HTTP() {
		p.fail(unsupported, "the backend speaks HTTP/2, and WebSockets are passed on over HTTP/1 only")
		return
	}
	defer p.bound()()
	p.repeat()
	p.takeBody()
	res, err := p.tries.roundTrip(httptrace.WithClientTrace(p.ctx, &httptrace.ClientTrace{Got1xxResponse: p.hint}))
	if p.answerBy != nil {
		p.answerBy.Stop()
	}
	p.mu.Lock()
	p.answered = true
	p.mu.Unlock()
	if err != nil {
		p.refuse(err)
		return
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusSwitchingProtocols {
		p.switchProtocols(p.tries.trial.ctx, res)
		return
	}
	p.respond(res)
}

// enter is false when limits do not let the request in, which then has its answer.
func (p *passage) enter() bool {
	from := &requester{p.g.sessionOf(p.r), httpHeader{p.r}, headerOf(p.r.Header)}
	e, how, after := p.g.enter(p.target, p.started, from)
	if how != served {
		p.note(how)
		p.answer(how.refusal(after))
		return false
	}
	p.tries = &exchange{
		g: p.g, target: p.target, backend: p.backend, draw: drawOf(p.backend, p.path, from), entry: e,
		next:    func(ctx context.Context) (*http.Request, error) { return p.request(ctx), nil },
		movable: func() bool { return p.body == nil || p.body.whole() },
		torn:    func() bool { return p.body != nil && p.body.failed() },
		owed:    p.owed,
	}
	return true
}

// owed tells whether it is the client that has kept a trial from its end: it has not sent
// all of the request, or takes its time to read the response. It is called beside the
// handler.
func (p *passage) owed(took time.Duration) bool {
	now := time.Now()
	return p.body != nil && p.body.owed(now.Add(-took/2)) || p.writing.mostly(now)
}

// repeat has the request sent again as a policy says, if it is one that may be.
func (p *passage) repeat() {
	if r := p.target.retries(); r.asked && repeatable(p.r.Method) && !p.upgrade {
		p.tries.retry, p.tries.perTry = r, r.perTry
	}
}

// wantsWebSocket tells whether a request asks for the one protocol that is switched to.
// An offer of any other is not passed on, which a server may do (RFC 9110, section 7.8):
// what is spoken then would be nobody's to route.
func wantsWebSocket(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.ProtoAtLeast(1, 1) && r.Method == http.MethodGet && r.ContentLength == 0 &&
		listHas(r.Header["Connection"], "upgrade") && len(r.Header["Upgrade"]) == 1 && strings.EqualFold(r.Header["Upgrade"][0], "websocket")
}

// request is what the backend gets.
func (p *passage) request(ctx context.Context) *http.Request {
	r := p.r
	out := &http.Request{
		Method: r.Method, Host: p.host, Header: r.Header.Clone(), ContentLength: r.ContentLength,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		URL: p.url(),
	}
	dropHopFields(out.Header)
	dropFramingAliases(out.Header)
	if listHas(r.Header["Te"], "trailers") {
		out.Header.Set("Te", "trailers")
	}
	if p.upgrade {
		out.Header["Connection"], out.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	if !p.backend.HTTP() {
		out.Header.Del("Expect") // there is no waiting for an answer to it
	}
	p.g.address(out, r, p.target)
	p.timeLeft(ctx, out.Header)
	if p.body != nil {
		p.carryBody(out)
	}
	return out.WithContext(ctx)
}

// takeBody takes the client's body over, if there is one.
func (p *passage) takeBody() {
	r := p.r
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return
	}
	p.body = &requestBody{in: r.Body, r: r, heard: p.watch.heard}
	if r.ProtoMajor == 1 {
		p.body.control, p.body.patience = p.control, p.g.engine.Limits().Idle
	}
	if p.tries.retry != nil {
		p.body.room = &p.g.kept
	}
}

// carryBody has the request's body, and its trailers, go along.
func (p *passage) carryBody(out *http.Request) {
	out.Trailer = make(http.Header, len(p.r.Trailer))
	for name := range p.r.Trailer {
		out.Trailer[name] = nil
	}
	out.Body = p.body.view(out.Trailer)
}

// hint passes an informational response on. It comes on the transport's goroutine.
func (p *passage) hint(status int, header textproto.MIMEHeader) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hints++; p.hints > maxHints {
		return errTooManyHints
	}
	if p.answered || status == http.StatusContinue || !p.r.ProtoAtLeast(1, 1) {
		return nil // 100 is said by whoever reads the body
	}
	if p.r.ProtoMajor == 1 && p.r.Header["Expect"] != nil {
		return nil // and may be said at this very moment
	}
	h := p.w.Header()
	kept := maps.Clone(h)
	clear(h)
	maps.Copy(h, http.Header(header))
	dropHopFields(h)
	p.w.WriteHeader(status)
	clear(h)
	maps.Copy(h, kept)
	return nil
}

var errTooManyHints = fmt.Errorf("more than %d informational responses", maxHints)

func neverLeft(err error) bool {
	for _, why := range []error{upstream.ErrDown, upstream.ErrFull, upstream.ErrRetired, upstream.ErrCrowded, upstream.ErrConnecting} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

// noneLeft is the error of a request for which there is no further endpoint; last is
// what the one before it failed of, nil when there was none.
type noneLeft struct{ last error }

func (e *noneLeft) Error() string { return "no endpoint left" }

// refuse answers a request that has got no response.
func (p *passage) refuse(err error) {
	if p.r.Context().Err() != nil {
		o, ours := p.closing()
		if !ours {
			panic(http.ErrAbortHandler) // nobody is there to read an answer
		}
		p.fail(o, outcomes[o].message)
		return
	}
	if o, over := p.overtime(); over {
		p.fail(o, outcomes[o].message+p.limits.why(o))
		return
	}
	o := p.outcomeOf(err)
	message := outcomes[o].message
	switch {
	case errors.Is(err, errClientLate):
		message += fmt.Sprintf(" (%v for one backend, and the request was not whole by then)", p.tries.bound())
	case o == backendTimeout:
		message += fmt.Sprintf(" (%v)", cmp.Or(p.tries.bound(), upstream.ResponseTimeout))
	}
	p.g.log.Debug("request not answered by backend", "backend", p.backend.Key, "outcome", o.String(), "error", err)
	p.fail(o, message)
}

// closing tells whether it was us who ended the request, since some grace was over.
func (p *passage) closing() (o outcome, ours bool) { return closedBy(p.r.Context()) }

// closedBy names the ending of a request that we have ended.
func closedBy(ctx context.Context) (o outcome, ours bool) {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, h2.ErrShutDown):
		return draining, true
	case errors.Is(cause, h2.ErrAged):
		return aged, true
	}
	return cancelled, false
}

// outcomeOf says what an error of a round trip means.
func (p *passage) outcomeOf(err error) outcome {
	var none *noneLeft
	switch {
	case errors.As(err, &none):
		return noneLeftOutcome(p.backend, none.last)
	case p.body != nil && p.body.failed():
		return cancelled
	}
	return lostOutcome(err)
}

// lostOutcome is how a request ends that may have reached its backend, and has no
// response.
func lostOutcome(err error) outcome {
	var stream *h2.StreamError
	var timeout net.Error
	switch {
	case errors.As(err, &stream):
		o, _ := outcomeOf(stream.Ending)
		return o
	case errors.Is(err, upstream.ErrEvicted):
		return evicted
	case errors.Is(err, errTooManyHints):
		return backendInvalid
	case errors.Is(err, errTrialOver):
		return backendTimeout
	case errors.Is(err, errClientLate):
		return deadline
	case errors.As(err, &timeout) && timeout.Timeout():
		return backendTimeout
	case strings.Contains(err.Error(), "response headers exceeded"): // net/http has no value for it
		return responseHeaders
	case strings.Contains(err.Error(), "malformed"):
		return backendInvalid
	}
	return backendLost
}

// fail answers with an error of the gateway's.
func (p *passage) fail(o outcome, message string) {
	p.note(o)
	p.answer(plainStatus(o, message))
}

// answer says a status in the caller's protocol.
func (p *passage) answer(st *wire.Status) {
	switch {
	case wire.IsGRPCWeb(p.r.Header.Get("Content-Type")):
		web.Fail(p.w, p.r, nil, st)
	case rest.IsConnect(p.r):
		rest.FailConnect(p.w, p.r, st)
	default:
		p.g.rest.Fail(p.w, p.r, st)
	}
}

func (p *passage) note(o outcome) { p.outcome, p.code = o, outcomes[o].code }

// respond passes the response on. One that breaks off must not look complete.
func (p *passage) respond(res *http.Response) {
	p.writeHeader(res)
	if !p.limits.streams {
		p.watch.begin() // what goes on now is taken for one
	}
	if err := p.copyBody(res); err != nil {
		p.note(p.brokenBy(err))
		panic(http.ErrAbortHandler)
	}
	p.writeTrailers(res)
	p.outcome, p.code = served, wire.FromREST(res.StatusCode)
}

// brokenBy tells whose doing it is that a response broke off.
func (p *passage) brokenBy(err error) outcome {
	var wrote *writeError
	var stream *h2.StreamError
	o, ours := p.closing()
	late, over := p.overtime()
	switch {
	case ours:
		return o
	case errors.Is(err, upstream.ErrEvicted), errors.As(err, &stream) && stream.How == h2.Evicted:
		return evicted
	case p.r.Context().Err() != nil:
		return cancelled
	case over:
		return late
	case p.tries.trial.over():
		return lostOutcome(p.tries.trial.expired())
	case errors.As(err, &wrote):
		if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			return stalled
		}
		return cancelled
	}
	return backendLost
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func (p *passage) writeHeader(res *http.Response) {
	dropHopFields(res.Header)
	p.target.modify.responseHeader(res.Header)
	h := p.w.Header()
	for name, values := range res.Header {
		switch {
		case name == "Vary":
			h[name] = append(h[name], values...)
		default:
			h[name] = values
		}
	}
	if len(res.Header["Content-Type"]) == 0 {
		h["Content-Type"] = nil // else it would be guessed
	}
	if len(res.Trailer) > 0 {
		names := make([]string, 0, len(res.Trailer))
		for name := range res.Trailer {
			names = append(names, name)
		}
		h["Trailer"] = []string{strings.Join(names, ", ")}
		if p.r.ProtoMajor == 1 && p.r.Method != http.MethodHead {
			h.Del("Content-Length") // which leaves no place for trailers there
		}
	}
	p.w.WriteHeader(res.StatusCode)
	if res.ContentLength < 0 || res.ContentLength > proxyBuffer {
		p.control.Flush() // the body may be long in coming
	}
}

// writeError is one of the client's side.
type writeError struct{ err error }

func (e *writeError) Error() string { return "writing to the client: " + e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// stopwatch adds up how long something has taken. One goroutine uses it, and others ask.
type stopwatch struct {
	mu      sync.Mutex // guards the fields below
	begun   time.Time  // zero = not yet
	running time.Time  // since when; zero = it stands
	total   time.Duration
}

func (s *stopwatch) begin(now time.Time) {
	s.mu.Lock()
	s.begun = now
	s.mu.Unlock()
}

func (s *stopwatch) start(now time.Time) {
	s.mu.Lock()
	s.running = now
	s.mu.Unlock()
}

func (s *stopwatch) stop(now time.Time) {
	s.mu.Lock()
	s.total += now.Sub(s.running)
	s.running = time.Time{}
	s.mu.Unlock()
}

// mostly tells whether it has run for most of the time since it was begun.
func (s *stopwatch) mostly(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun.IsZero() {
		return false
	}
	total := s.total
	if !s.running.IsZero() {
		total += now.Sub(s.running)
	}
	return 2*total > now.Sub(s.begun)
}

// proxyBuffer is what one response holds at a time, in bytes.
const proxyBuffer = 32 << 10

var proxyBuffers = sync.Pool{New: func() any { return new([proxyBuffer]byte) }}

// copyBody passes on what comes, when it comes.
func (p *passage) copyBody(res *http.Response) error {
	if p.r.ProtoMajor == 1 {
		defer p.control.SetWriteDeadline(time.Time{})
	}
	p.writing.begin(time.Now())
	buf := proxyBuffers.Get().(*[proxyBuffer]byte)
	defer proxyBuffers.Put(buf)
	for written := int64(0); ; {
		n, err := res.Body.Read(buf[:])
		p.watch.heard(n)
		written += int64(n)
		last := written == res.ContentLength && len(res.Trailer) == 0
		if werr := p.pass(buf[:n], n > 0 && !last || n == 0 && err == nil); werr != nil {
			return &writeError{werr}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// pass writes a part of the response, and sees to it that it leaves.
func (p *passage) pass(part []byte, flush bool) error {
	now := time.Now()
	p.writing.start(now)
	defer func() { p.writing.stop(time.Now()) }()
	if len(part) > 0 {
		p.boundWrite(now)
		if _, err := p.w.Write(part); err != nil {
			return err
		}
	}
	if flush {
		return p.control.Flush()
	}
	return nil
}

// boundWrite gives a client of HTTP/1 its time to take what is written, which for one
// of HTTP/2 the engine does.
func (p *passage) boundWrite(now time.Time) {
	if p.r.ProtoMajor != 1 {
		return
	}
	stall := p.g.engine.Limits().StreamStall
	if now.Sub(p.stalling) > stall/10 {
		p.stalling = now
		p.control.SetWriteDeadline(now.Add(stall))
	}
}

// writeTrailers passes the trailers on, those too that were not announced.
func (p *passage) writeTrailers(res *http.Response) {
	h := p.w.Header()
	announced := make(map[string]bool)
	for name := range strings.SplitSeq(strings.Join(h["Trailer"], ","), ",") {
		announced[strings.TrimSpace(name)] = true
	}
	for name, values := range res.Trailer {
		if !announced[name] {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

// finish is how every passage ends, once.
func (p *passage) finish() {
	if p.body != nil {
		p.body.end()
	}
	p.watch.end()
	took := time.Since(p.started)
	if p.tries != nil {
		if p.tries.trial != nil {
			p.tries.trial.close(p.outcome)
		}
		p.tries.leave(took, p.outcome)
	}
	p.target.series.End(p.code, took)
	p.g.ended[p.outcome].Add(1)
}
