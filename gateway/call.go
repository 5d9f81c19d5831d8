package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/h2"
	"sluice/gateway/rest"
	"sluice/gateway/wire"
)

// call is an RPC of a handler: what the relay does for a stream, for somebody who
// waits. It is the caller of its rpc, which routes, retries, ends and counts it as
// any other.
type call struct {
	r      rpc
	ctx    context.Context // of the request; its end is the RPC's
	unbind func() bool     // stops following ctx
	limits rest.Limits
	bound  http.Header // of the response, where what binds the caller to an endpoint goes; mostly nil

	// Owned by the goroutine that sends.
	out   []byte
	begun bool // the request is on its way; guarded by r.mu

	// Owned by the goroutine that receives.
	cur  []byte // of the response, what has been taken over and not read
	part []byte // a message that came in parts

	mu       sync.Mutex // guards the fields below; taken after r.mu, and before nothing
	moved    sync.Cond  // on mu: bytes have left or come, or the RPC has ended
	inFlight int        // bytes sent that the backend's socket has not taken
	in       []byte     // of the response, what nobody has taken over
	spare    []byte     // the buffer before, to be used again
	source   h2.Creditor
	head     []h2.Field // of the response
	tail     []h2.Field // trailers, or the header section of a trailers-only response
	headed   bool
	over     bool
	status   *wire.Status // once over; nil is OK
}

// maxInFlight is how far a handler may run ahead of the backend's socket, bytes. It
// is what an rpc keeps for a second try.
const maxInFlight = maxKept

// sendUnit is how much of a large message is handed over at a time, bytes.
const sendUnit = 16 << 10

var _ rest.Call = (*call)(nil)

// SendHeader implements caller.
func (c *call) SendHeader(f []h2.Field, end bool, _ *h2.Batch) {
	if !end && len(f) > 0 && f[0].Name == ":status" && f[0].Value[0] == '1' {
		return
	}
	f = append([]h2.Field(nil), f...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if end {
		c.tail, c.over, c.status = f, true, statusOf(f, c.r.how)
	} else {
		c.head, c.headed = f, true
	}
	c.moved.Broadcast()
}

// SendData implements caller. The stream's window bounds what waits here: it is
// given back when it is read.
func (c *call) SendData(p []byte, _ bool, _ *h2.Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.in = append(c.in, p...)
	c.moved.Broadcast()
}

// Reset implements caller. Of gRPC every ending comes as a header section.
func (c *call) Reset(http2.ErrCode, *h2.Batch) {}

// Credit implements caller.
func (c *call) Credit(n int32, _ bool, _ *h2.Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight -= int(n)
	c.moved.Broadcast()
}

// SetSource implements caller.
func (c *call) SetSource(s h2.Creditor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.source = s
}

// follow ends the RPC with its request.
func (c *call) follow(ctx context.Context) {
	c.ctx = ctx
	c.unbind = context.AfterFunc(ctx, func() {
		var b h2.Batch
		c.r.mu.Lock()
		if !c.r.ended {
			c.r.fail(c.whyDone(), &b)
		}
		c.r.mu.Unlock()
		b.Flush()
	})
}

// whyDone names the ending of an RPC whose request has ended.
func (c *call) whyDone() outcome {
	o, ours := closedBy(c.ctx)
	if !ours && (errors.Is(context.Cause(c.ctx), context.DeadlineExceeded) || c.r.nearDeadline()) {
		return deadline
	}
	return o
}

// Backend implements rest.Call.
func (c *call) Backend() string { return c.r.backend.Key }

// Limits implements rest.Call.
func (c *call) Limits() rest.Limits { return c.limits }

// Send implements rest.Call.
func (c *call) Send(m rest.Message, last bool) error {
	var flag byte
	if m.Compressed {
		flag = wire.FlagCompressed
	}
	first := min(len(m.Data), sendUnit-wire.PrefixLen)
	c.out = wire.AppendPrefix(c.out[:0], wire.Prefix{Flags: flag, Length: uint32(len(m.Data))})
	c.out = append(c.out, m.Data[:first]...)
	if err := c.write(c.out, last && first == len(m.Data)); err != nil {
		return err
	}
	for rest := m.Data[first:]; len(rest) > 0; {
		n := min(len(rest), sendUnit)
		if err := c.write(rest[:n], last && n == len(rest)); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// CloseSend implements rest.Call.
func (c *call) CloseSend() error { return c.write(nil, true) }

// write hands bytes of the request's body over, as soon as there is room for them.
// There are no more of them than sendUnit.
func (c *call) write(p []byte, end bool) error {
	c.mu.Lock()
	for c.inFlight > 0 && c.inFlight+len(p) > maxInFlight && !c.over {
		c.moved.Wait()
	}
	if c.over {
		defer c.mu.Unlock()
		return c.ending()
	}
	c.inFlight += len(p)
	c.mu.Unlock()
	var b h2.Batch
	c.r.mu.Lock()
	if !c.r.ended {
		c.r.requestData(p, end, &b)
	}
	c.begin(&b)
	c.r.mu.Unlock()
	b.Flush()
	return nil
}

// begin sends the request on its way, once: with its first bytes, or without any when
// somebody waits for the answer already. A server may speak first. The caller holds
// r.mu.
func (c *call) begin(b *h2.Batch) {
	if !c.begun && !c.r.ended {
		c.begun = true
		c.r.dispatch(b)
	}
}

// beginNow is begin for who waits for the answer.
func (c *call) beginNow() {
	var b h2.Batch
	c.r.mu.Lock()
	c.begin(&b)
	c.r.mu.Unlock()
	b.Flush()
}

// ending is how the RPC has ended, as an error. The caller holds mu.
func (c *call) ending() error {
	if c.status == nil {
		return io.EOF
	}
	return c.status
}

// Header implements rest.Call.
func (c *call) Header() (http.Header, error) {
	c.beginNow()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.headed && !c.over {
		c.moved.Wait()
	}
	switch {
	case c.headed:
		md := metadataOf(c.head)
		if c.bound != nil {
			rebind(c.bound, md, c.r.backend.Affinity())
		}
		return md, nil
	case c.status != nil:
		return nil, c.status
	}
	return make(http.Header), nil
}

// Encoding implements rest.Call.
func (c *call) Encoding() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.head {
		if f := &c.head[i]; f.Name == "grpc-encoding" {
			return f.Value
		}
	}
	return ""
}

// Trailer implements rest.Call.
func (c *call) Trailer() http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return metadataOf(c.tail)
}

// Receive implements rest.Call.
func (c *call) Receive() (rest.Message, error) {
	raw, err := c.next(wire.PrefixLen)
	if err != nil {
		return rest.Message{}, err
	}
	prefix, ok := wire.ParsePrefix(raw)
	if !ok || prefix.Flags&^wire.FlagCompressed != 0 {
		return rest.Message{}, c.Abort(&wire.Status{Code: wire.Internal, Message: "sluice: the backend sent a message with unknown flags", Gateway: true})
	}
	if int64(prefix.Length) > int64(c.limits.MaxMessage) {
		return rest.Message{}, c.Abort(tooLong("the backend's message", int64(prefix.Length), c.limits.MaxMessage))
	}
	data, err := c.next(int(prefix.Length))
	if err == io.EOF {
		err = c.cutShort()
	}
	return rest.Message{Data: data, Compressed: prefix.Flags&wire.FlagCompressed != 0}, err
}

func (c *call) cutShort() error {
	return c.Abort(&wire.Status{Code: wire.Internal, Message: "sluice: the backend ended in the middle of a message", Gateway: true})
}

// next is the next n bytes of the response, valid until the call after. It is io.EOF
// when there are none.
func (c *call) next(n int) ([]byte, error) {
	if len(c.cur) >= n {
		p := c.cur[:n]
		c.cur = c.cur[n:]
		return p, nil
	}
	c.part = c.part[:0]
	for {
		take := min(n-len(c.part), len(c.cur))
		c.part = append(c.part, c.cur[:take]...)
		if c.cur = c.cur[take:]; len(c.part) == n {
			return c.part, nil
		}
		if err := c.fill(); err != nil {
			if err == io.EOF && len(c.part) > 0 {
				err = c.cutShort()
			}
			return nil, err
		}
		if len(c.part) == 0 && len(c.cur) >= n {
			p := c.cur[:n]
			c.cur = c.cur[n:]
			return p, nil
		}
	}
}

// chunk is what has come of the response, at least a byte, valid until the next
// call. It is for those who pass bytes on and do not look for messages.
func (c *call) chunk() ([]byte, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	p := c.cur
	c.cur = nil
	return p, nil
}

// fill takes over what has come, and gives it back as window.
func (c *call) fill() error {
	c.mu.Lock()
	waited := false
	if len(c.in) == 0 && !c.over && !c.headed { // perhaps nobody has sent anything
		c.mu.Unlock()
		c.beginNow()
		c.mu.Lock()
	}
	for len(c.in) == 0 && !c.over {
		c.moved.Wait()
		waited = true
	}
	if len(c.in) == 0 {
		defer c.mu.Unlock()
		return c.ending()
	}
	c.cur, c.in, c.spare = c.in, c.spare[:0], c.in[:0]
	source, over := c.source, c.over
	c.mu.Unlock()
	if source != nil && !over {
		var b h2.Batch
		source.Credit(int32(len(c.cur)), waited, &b)
		b.Flush()
	}
	return nil
}

// idle tells that nothing more has come yet, so that it pays to send what there is.
func (c *call) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.in) == 0 && !c.over
}

// Abort implements rest.Call.
func (c *call) Abort(st *wire.Status) *wire.Status {
	var b h2.Batch
	c.r.mu.Lock()
	if !c.r.ended {
		c.r.finish(outcomeOfTranslation(st), st.Code, &b)
		c.mu.Lock()
		c.over, c.status = true, st
		c.moved.Broadcast()
		c.mu.Unlock()
	}
	c.r.mu.Unlock()
	b.Flush()
	return st
}

// Close implements rest.Call.
func (c *call) Close() {
	c.unbind()
	var b h2.Batch
	c.r.mu.Lock()
	if !c.r.ended {
		c.r.finish(cancelled, wire.Canceled, &b)
		c.mu.Lock()
		c.over, c.status = true, cancelled.status()
		c.moved.Broadcast()
		c.mu.Unlock()
	}
	c.r.mu.Unlock()
	b.Flush()
}

// newCall makes a call that has been placed; its fields are yet to be written.
func newCall(g *Gateway, p *placement, limits rest.Limits) *call {
	c := &call{limits: limits}
	c.moved.L = &c.mu
	c.r.g, c.r.down, c.r.native = g, c, true
	c.r.started, c.r.target, c.r.backend = time.Now(), p.target, p.backend
	return c
}
