package gateway

import (
	"sync"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/gateway/upstream"
	"sluice/gateway/wire"
)

// caller is who an RPC is for: a stream of HTTP/2, or a handler's call. Its methods
// are called with the RPC's mutex held, and do not block.
type caller interface {
	// SendHeader takes a response header section, or the trailers when end is true.
	SendHeader(f []h2.Field, end bool, b *h2.Batch)
	SendData(p []byte, end bool, b *h2.Batch)
	Reset(code http2.ErrCode, b *h2.Batch)
	// Credit says that the backend's socket has taken n bytes of the request.
	Credit(n int32, drained bool, b *h2.Batch)
	// SetSource says who is to hear what the caller has taken of the response.
	SetSource(h2.Creditor)
}

// rpc is one RPC on the relay: its caller, the backend's stream that answers it, and
// what is needed to try another. Each event comes on some connection's reader, a
// timer or a dial, and does its work under mu, which is taken before a connection's
// own and never held across a flush.
type rpc struct {
	// Fixed when the RPC is accepted.
	g       *Gateway
	down    caller
	stream  *h2.Stream // of the caller, whose events come by it; nil when a handler calls
	web     *webCaller // which down is, of a caller that speaks gRPC-Web; else nil
	started time.Time
	native  bool // gRPC of whatever dialect; false for what is passed on as it is

	mu       sync.Mutex // guards the fields below
	target   *target
	backend  *upstream.Backend // of target, in the table that the RPC has met
	fields   []h2.Field        // of the request, as the backend gets it
	deadline time.Time         // zero = none
	timer    h2.Timer
	entry    *entry // what it holds of limits; mostly nil

	first attempt      // most RPCs have one, so it needs no memory of its own
	cur   *attempt     // whose answer is waited for, or passed on; nil between two
	care  *care        // retries, bounds in time and the like; nil while one plain try is all
	avoid balance.Mask // endpoints that were tried
	last  error        // why the last one did not take the stream

	kept     []byte // request DATA, until the backend commits itself
	credited int64  // of the DATA sent by the caller, given back as window, bytes

	moved        bool // sent elsewhere once already
	lost         bool // kept is incomplete: the RPC cannot be sent again
	requestEnded bool
	committed    bool // the final response header has been passed on
	ended        bool
	how          outcome   // once ended
	code         wire.Code // the backend's grpc-status

	inline [inlineFields]h2.Field
	small  [inlineData]byte
}

const (
	inlineFields = 16  // fields of a request that need no slice of their own
	inlineData   = 176 // bytes of request DATA likewise
	maxKept      = 64 << 10
	maxKeptTotal = 64 << 20
)

// Header is a response header section of the backend, or trailers of either side.
func (r *rpc) Header(s *h2.Stream, h *h2.Head, end bool, b *h2.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s == r.stream {
		if !r.ended {
			r.requestTrailers(h, b)
		}
		return
	}
	switch a := r.attemptOf(s); {
	case r.ended || a == nil:
	case r.committed:
		r.trailers(h, b)
	case a.held != nil:
		r.answer(a, h, b)
	case h.Status < 200:
		if a == r.cur {
			r.down.SendHeader(h.Fields, false, b)
		}
	default:
		r.response(a, h, end, b)
	}
}

// response is the header of an answer, or all of it.
func (r *rpc) response(a *attempt, h *h2.Head, end bool, b *h2.Batch) {
	if r.backend.Timed() {
		a.first = time.Since(r.started) - a.began
	}
	switch {
	case r.native && !wire.IsGRPC(h.ContentType) && h.GRPCStatus == "":
		f := r.made(backendHTTP, wire.FromHTTP(h.Status), "the backend answered HTTP "+statusText(h.Status)+" without gRPC")
		if h.Status < 500 {
			f.verdict = upstream.Neutral // it tells of the request
		}
		r.failed(a, &f, b)
	case end:
		r.answer(a, h, b)
	case r.target.treat != nil && r.holds(a, h):
	default:
		r.commit(a, b)
		r.follow(a)
		r.down.SendHeader(r.headOf(h.Fields), false, b)
	}
}

// answer is the end of an answer of which nothing has been passed on.
func (r *rpc) answer(a *attempt, h *h2.Head, b *h2.Batch) {
	if r.native && h.GRPCStatus == "" {
		f := r.made(backendNoStatus, outcomes[backendNoStatus].code, outcomes[backendNoStatus].message)
		r.failed(a, &f, b)
		return
	}
	f := r.answeredBy(a, h)
	if f.code == wire.OK {
		r.tell(a, &f, b)
		return
	}
	f.pushback, f.pushed = h.Get("grpc-retry-pushback-ms")
	r.failed(a, &f, b)
}

// headOf is the header of a response as the caller gets it.
func (r *rpc) headOf(fields []h2.Field) []h2.Field { return r.bind(r.target.modify.response(fields)) }

// follow lets the rest of a response come as fast as the caller takes it.
func (r *rpc) follow(a *attempt) {
	r.down.SetSource(&a.Stream)
	if t := r.target.treat; t != nil && t.timeouts != nil {
		if f := r.facts(); !f.known || f.streams() { // known since, perhaps
			r.watch(t.timeouts) // what goes on now is taken for a stream
		}
	}
}

// trailers end the RPC as the backend says.
func (r *rpc) trailers(h *h2.Head, b *h2.Batch) {
	if r.native && h.GRPCStatus == "" {
		r.fail(backendNoStatus, b)
		return
	}
	r.code = codeOf(h)
	r.down.SendHeader(h.Fields, true, b)
	r.finish(served, r.code, b)
}

// codeOf is the backend's grpc-status.
func codeOf(h *h2.Head) wire.Code {
	code, ok := wire.ParseStatus(h.GRPCStatus)
	if !ok {
		code = wire.Unknown
	}
	return code
}

// Data is payload of either side.
func (r *rpc) Data(s *h2.Stream, p []byte, end bool, b *h2.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.ended:
	case s == r.stream && r.web != nil && !r.web.passing:
		r.webData(p, end, b)
	case s == r.stream:
		r.requestData(p, end, b)
	default:
		if a := r.attemptOf(s); a != nil {
			r.responseData(a, p, end, b)
		}
	}
}

// responseData is payload of the backend. There is nothing to be tried again after it.
func (r *rpc) responseData(a *attempt, p []byte, end bool, b *h2.Batch) {
	if a.held != nil {
		r.release(a, b)
	}
	if r.care != nil {
		r.care.spoke = true
	}
	r.down.SendData(p, end && !r.native, b)
	switch {
	case end && r.native:
		// Callers take DATA with END_STREAM for a broken protocol.
		r.fail(backendNoStatus, b)
	case end:
		r.finish(served, wire.OK, b)
	}
}

func (r *rpc) requestData(p []byte, end bool, b *h2.Batch) {
	r.keep(p)
	if end {
		r.whole()
	}
	sent := false
	if a := r.cur; a != nil && a.phase == attemptOpen {
		a.SendData(p, end, b)
		sent = true
	}
	if c := r.care; c != nil {
		c.spoke = true
		for _, a := range c.rivals {
			if a.phase == attemptOpen {
				a.SendData(p, end, b)
				sent = true
			}
		}
	}
	if !sent && r.lost {
		r.stranded(b)
	}
}

func (r *rpc) requestTrailers(h *h2.Head, b *h2.Batch) {
	r.whole()
	if !r.committed {
		r.careful().requestTail = append([]h2.Field(nil), h.Fields...)
	}
	if a := r.cur; a != nil && a.phase == attemptOpen {
		a.SendHeader(h.Fields, true, b)
	}
	if c := r.care; c != nil {
		for _, a := range c.rivals {
			if a.phase == attemptOpen {
				a.SendHeader(h.Fields, true, b)
			}
		}
	}
}

// keep remembers DATA for a second try, as long as there is room for it.
func (r *rpc) keep(p []byte) {
	if r.committed || r.lost {
		return
	}
	if r.kept == nil {
		r.kept = r.small[:0]
	}
	grown := len(r.kept) + len(p)
	if grown > inlineData {
		before := max(len(r.kept), inlineData)
		if grown > maxKept || r.g.kept.Add(int64(grown-before)) > maxKeptTotal {
			if grown <= maxKept {
				r.g.kept.Add(-int64(grown - before))
			}
			r.dropKept()
			r.lost = true
			return
		}
	}
	r.kept = append(r.kept, p...)
}

func (r *rpc) dropKept() {
	if n := len(r.kept); n > inlineData {
		r.g.kept.Add(-int64(n - inlineData))
	}
	r.kept = nil
}

// commit leaves the RPC to the attempt whose answer is passed on, for good. It is nil when
// that has ended.
func (r *rpc) commit(a *attempt, b *h2.Batch) {
	if other := r.cur; other != nil && other != a {
		other.giveUp(upstream.Neutral, b)
	}
	r.committed, r.cur = true, a
	r.entry.answered()
	r.dropKept()
	r.fields = nil
	if r.care != nil {
		r.care.settle(a, b)
	}
}

// Ended is the end of either stream before its time.
func (r *rpc) Ended(s *h2.Stream, e h2.Ending, b *h2.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.ended:
	case s == r.stream && e.How == h2.DrainEnded:
		r.fail(draining, b)
	case s == r.stream && e.How == h2.AgeEnded:
		r.fail(aged, b)
	case e.How == h2.Evicted:
		r.evict(s, b)
	case s == r.stream:
		r.callerGone(e, b)
	default:
		if a := r.attemptOf(s); a != nil {
			a.phase = attemptEnded
			r.attemptGone(a, e, b)
		}
	}
}

// attemptGone goes on after the end of an attempt's stream before its time.
func (r *rpc) attemptGone(a *attempt, e h2.Ending, b *h2.Batch) {
	if e.Unprocessed && !r.committed && !r.lost && !r.moved {
		r.move(a, b)
		return
	}
	r.backendFailed(a, e, b)
}

// callerGone ends the RPC of a caller that no longer listens. One whose deadline
// has passed goes away for that reason, and mostly before our own timer fires.
func (r *rpc) callerGone(e h2.Ending, b *h2.Batch) {
	o := outcomeOfCaller(e)
	if e.How == h2.PeerReset && r.nearDeadline() {
		o = deadline
	}
	r.finish(o, outcomes[o].code, b)
}

// move sends the RPC elsewhere, once: the backend has not acted on it.
func (r *rpc) move(a *attempt, b *h2.Batch) {
	r.moved, r.last = true, nil
	r.g.moved.Add(1)
	r.forsake(a, b)
	if !r.backend.Others(r.avoid) {
		r.avoid = nil // a new connection to the same endpoint is the only elsewhere
		if r.care != nil {
			r.care.tried = nil // which is a part of avoid
		}
	}
	r.dispatch(b)
}

func (r *rpc) backendFailed(a *attempt, e h2.Ending, b *h2.Batch) {
	o, code := outcomeOf(e)
	if o == backendReset && e.Code == http2.ErrCodeCancel && r.nearDeadline() {
		o, code = deadline, outcomes[deadline].code
	}
	if !r.native && (r.web == nil || r.committed) {
		r.down.Reset(e.Code, b)
		r.finish(o, code, b)
		return
	}
	msg := outcomes[o].message
	if o == backendReset {
		msg += " with " + e.Code.String()
	}
	f := r.made(o, code, msg)
	if r.committed || o == deadline {
		r.tell(a, &f, b)
	} else {
		r.failed(a, &f, b)
	}
}

// deadlineSlack is how much earlier than we the others may find that the deadline
// has passed: the backend was told the time that remained, rounded down, when the
// request left, and the caller began to count before us. gRPC's servers and clients
// both say so by RST_STREAM with CANCEL.
const deadlineSlack = 10 * time.Millisecond

func (r *rpc) nearDeadline() bool {
	return !r.deadline.IsZero() && time.Until(r.deadline) < deadlineSlack
}

// Expire ends the RPC at its deadline.
func (r *rpc) Expire() {
	var b h2.Batch
	r.mu.Lock()
	if at := r.until(); !r.ended && !at.IsZero() && !time.Now().Before(at) {
		r.fail(deadline, &b)
	}
	r.mu.Unlock()
	b.Flush()
}

// fail ends the RPC for a reason of the gateway's. The caller holds mu.
func (r *rpc) fail(o outcome, b *h2.Batch) { r.failAs(o, outcomes[o].code, outcomes[o].message, b) }

func (r *rpc) failAs(o outcome, code wire.Code, message string, b *h2.Batch) {
	r.how = o
	if a := r.cur; a != nil && a.held != nil {
		r.release(a, b) // the end comes behind it
	}
	switch {
	case !r.native && r.web != nil && !r.committed:
		r.web.passing = false
		r.web.SendHeader(statusFields(false, code, message), true, b)
	case !r.native && r.committed:
		r.down.Reset(http2.ErrCodeInternal, b)
	case !r.native:
		r.down.SendHeader(plainError(code), true, b)
	default:
		r.down.SendHeader(statusFields(r.committed, code, message), true, b)
	}
	r.finish(o, code, b)
}

// finish is how every RPC ends, once: nothing of it is left anywhere. The caller
// holds mu.
func (r *rpc) finish(o outcome, code wire.Code, b *h2.Batch) {
	r.ended, r.how = true, o
	took := time.Since(r.started)
	if a := r.cur; a != nil {
		if a.phase == attemptOpen && (o != served || !r.requestEnded) {
			a.Reset(http2.ErrCodeCancel, b)
		}
		a.done(r.verdict(o, code), took)
	}
	if r.care != nil {
		r.care.end(b)
	}
	if !r.deadline.IsZero() {
		r.g.engine.Wheel().Stop(&r.timer)
	}
	r.dropKept()
	r.fields = nil
	r.entry.leave(took, o)
	r.target.series.End(code, took)
	r.g.ended[o].Add(1)
}
