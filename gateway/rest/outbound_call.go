package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"sluice/gateway/wire"
)

// outboundCall is a unary RPC that is one exchange of HTTP. The goroutine that receives
// makes it, once the one that sends has given the message.
type outboundCall struct {
	out     *Outbound
	opening OutboundOpening
	ctx     context.Context
	cancel  context.CancelFunc

	ready chan struct{} // closed when the message is complete, or will never be

	// Owned by the goroutine that receives, once the exchange has been made.
	made     bool
	header   http.Header
	trailer  http.Header
	answer   []byte
	received bool

	mu      sync.Mutex // guards the fields below
	message []byte
	given   bool // message
	sent    bool // ready is closed
	over    bool
	status  *wire.Status // once over; nil is OK
}

var _ Call = (*outboundCall)(nil)

// Backend implements Call.
func (c *outboundCall) Backend() string { return c.opening.Backend }

// Limits implements Call.
func (c *outboundCall) Limits() Limits { return c.opening.Limits }

// Encoding implements Call.
func (c *outboundCall) Encoding() string { return "" }

// Send implements Call.
func (c *outboundCall) Send(m Message, last bool) error {
	data, st := c.plain(m)
	c.mu.Lock()
	switch {
	case c.over:
		defer c.mu.Unlock()
		return c.ending()
	case st != nil:
	case c.given:
		st = refusal(wire.Unimplemented, "%s takes one message, and got a second one", c.out.method.Path)
	default:
		c.message, c.given = data, true
	}
	c.mu.Unlock()
	if st != nil {
		return c.Abort(st)
	}
	if last {
		return c.CloseSend()
	}
	return nil
}

// plain is a message as it is, decompressed.
func (c *outboundCall) plain(m Message) ([]byte, *wire.Status) {
	limit := c.opening.Limits.MaxMessage
	if !m.Compressed {
		if len(m.Data) > limit {
			return nil, requestTooLarge(limit)
		}
		return append([]byte(nil), m.Data...), nil
	}
	if c.opening.Encoding != encodingGzip {
		return nil, refusal(wire.Unimplemented, "the message is compressed with %q: want gzip, or none", c.opening.Encoding)
	}
	data, err := gunzip(nil, m.Data, limit)
	switch {
	case errors.Is(err, errTooLong):
		return nil, requestTooLarge(limit)
	case err != nil:
		return nil, refusal(wire.InvalidArgument, "the message is not what gzip has written: %v", err)
	}
	return data, nil
}

// requestTooLarge is a message beyond the limit, which callers of HTTP know as 413.
func requestTooLarge(limit int) *wire.Status {
	st := tooLarge("the message", limit)
	st.HTTP = http.StatusRequestEntityTooLarge
	return st
}

// CloseSend implements Call.
func (c *outboundCall) CloseSend() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.sent {
		c.sent = true
		close(c.ready)
	}
	if c.over {
		return c.ending()
	}
	return nil
}

// ending is how the RPC has ended, as an error. The caller holds mu.
func (c *outboundCall) ending() error {
	if c.status == nil {
		return io.EOF
	}
	return c.status
}

// Header implements Call.
func (c *outboundCall) Header() (http.Header, error) {
	if st := c.exchange(); st != nil {
		return nil, st
	}
	return c.header, nil
}

// Receive implements Call.
func (c *outboundCall) Receive() (Message, error) {
	if st := c.exchange(); st != nil {
		return Message{}, st
	}
	if c.received {
		if st := c.end(nil); st != nil {
			return Message{}, st
		}
		return Message{}, io.EOF
	}
	c.received = true
	return Message{Data: c.answer}, nil
}

// Trailer implements Call.
func (c *outboundCall) Trailer() http.Header { return c.trailer }

// Abort implements Call.
func (c *outboundCall) Abort(st *wire.Status) *wire.Status {
	c.end(st)
	return st
}

// Close implements Call.
func (c *outboundCall) Close() {
	c.end(refusal(wire.Canceled, "the caller has gone"))
	c.cancel()
}

// end ends the RPC, unless it has ended; it returns how it did.
func (c *outboundCall) end(st *wire.Status) *wire.Status {
	c.mu.Lock()
	if c.over {
		defer c.mu.Unlock()
		return c.status
	}
	c.over, c.status = true, st
	c.mu.Unlock()
	if st != nil {
		c.cancel()
	}
	if c.opening.End != nil {
		c.opening.End(st)
	}
	return st
}

// exchange waits for the message, sends the request and reads the answer, once.
func (c *outboundCall) exchange() *wire.Status {
	if !c.made {
		c.made = true
		if st := c.carryOut(); st != nil {
			c.end(st)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *outboundCall) carryOut() *wire.Status {
	select {
	case <-c.ready:
	case <-c.ctx.Done():
		return c.gone()
	}
	c.mu.Lock()
	message, given, over := c.message, c.given, c.over
	c.mu.Unlock()
	switch {
	case over:
		return nil // and its status stands
	case !given:
		return refusal(wire.Unimplemented, "%s takes one message, and got none", c.out.method.Path)
	}
	r, st := c.out.request(message, c.opening.Host, onlyMetadata(c.opening.Metadata))
	if st != nil {
		return st
	}
	response, err := c.opening.Send(r.WithContext(c.ctx))
	if err != nil {
		return c.unanswered(err)
	}
	defer response.Body.Close()
	return c.read(response)
}

// unanswered is an exchange without an answer.
func (c *outboundCall) unanswered(err error) *wire.Status {
	if c.ctx.Err() != nil {
		return c.gone()
	}
	if st, ok := errors.AsType[*wire.Status](err); ok && st != nil {
		return st
	}
	return refusal(wire.Unavailable, "the backend did not answer: %v", err)
}

// gone is an RPC that nobody waits for any more, or not any longer.
func (c *outboundCall) gone() *wire.Status {
	if errors.Is(context.Cause(c.ctx), context.DeadlineExceeded) {
		return refusal(wire.DeadlineExceeded, "the backend did not answer in time")
	}
	if c.opening.Gone != nil {
		return c.opening.Gone()
	}
	return refusal(wire.Canceled, "the caller has gone")
}

// onlyMetadata are the fields that callers and backends mean for each other.
func onlyMetadata(h http.Header) http.Header {
	metadata := make(http.Header, len(h)+4)
	nominated := nominatedBy(h)
	for key, values := range h {
		if name := strings.ToLower(key); isMetadata(name) && !nominated[name] {
			metadata[http.CanonicalHeaderKey(key)] = values
		}
	}
	return metadata
}

// read takes an answer over.
func (c *outboundCall) read(response *http.Response) *wire.Status {
	metadata := onlyMetadata(response.Header)
	body, st := c.readBody(response)
	if response.StatusCode/100 != 2 {
		c.trailer = metadata
		return c.out.failure(response, body)
	}
	if st == nil {
		c.answer, st = c.out.message(response, body, c.opening.Limits)
	}
	if st != nil {
		c.trailer = metadata
		return st
	}
	c.header = metadata
	return nil
}

// readBody reads the whole body, within the limit of messages.
func (c *outboundCall) readBody(response *http.Response) ([]byte, *wire.Status) {
	limit := c.opening.Limits.MaxMessage
	if n := response.ContentLength; n > int64(limit) {
		return nil, tooLarge("the backend's answer", limit)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(limit)+1))
	switch {
	case len(body) > limit:
		return nil, tooLarge("the backend's answer", limit)
	case err != nil && c.ctx.Err() != nil:
		return body, c.gone()
	case err != nil:
		return body, refusal(wire.Unavailable, "the backend's answer broke off: %v", err)
	}
	switch encoding := response.Header.Get("Content-Encoding"); strings.ToLower(encoding) {
	case "", "identity":
		return body, nil
	case encodingGzip, "x-gzip":
		plain, err := gunzip(nil, body, limit)
		switch {
		case errors.Is(err, errTooLong):
			return nil, tooLarge("the backend's answer", limit)
		case err != nil:
			return nil, refusal(wire.Internal, "the backend's answer is not what gzip has written: %v", err)
		}
		return plain, nil
	default:
		return nil, refusal(wire.Internal, "the backend's answer is of Content-Encoding %q, which was not asked for", clip(encoding))
	}
}
