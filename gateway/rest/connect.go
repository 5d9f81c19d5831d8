package rest

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// Connect answers requests of the Connect protocol by RPCs. It holds nothing; the zero
// value is ready, and safe for use by several goroutines.
//
// Messages in the binary format pass as they are, compressed ones too, and need no
// schema. JSON, and GET, need the method's descriptor.
type Connect struct{}

// IsConnect tells whether a request is for ServeConnect. JSON for a method's path is
// Connect only when the caller says so by a field of the protocol: the plain kind
// belongs to Server.ServeMethod.
func IsConnect(r *http.Request) bool {
	contentType := r.Header.Get("Content-Type")
	switch {
	case isConnectStream(contentType):
		return true
	case r.Header.Get(fieldVersion) != "" || r.Header.Get(fieldTimeout) != "":
		return true
	case mediaType(contentType) == "application/proto":
		return true
	case r.Method == http.MethodGet && strings.Contains(r.URL.RawQuery, "connect=v"):
		query, _ := url.ParseQuery(r.URL.RawQuery)
		version, ok := strings.CutPrefix(query.Get("connect"), "v")
		_, err := strconv.ParseUint(version, 10, 8)
		return ok && err == nil && wire.ValidPath(r.URL.EscapedPath())
	}
	return false
}

// ServeConnect answers one request, with errors of its own in the form of the protocol.
func (Connect) ServeConnect(w http.ResponseWriter, r *http.Request, way Way) {
	q, st := parseConnect(r)
	if st != nil {
		FailConnect(w, r, st)
		return
	}
	call, err := way.Open(r, q.opening())
	if err != nil {
		FailConnect(w, r, connectStatus(err))
		return
	}
	defer call.Close()
	x := &connectExchange{w: w, r: r, ctl: http.NewResponseController(w), q: q, call: call, limits: call.Limits(), way: way}
	if q.json || q.query != nil {
		if st := x.learn(); st != nil {
			FailConnect(w, r, call.Abort(st))
			return
		}
	}
	if q.stream {
		x.serveStream()
	} else {
		x.serveUnary()
	}
}

// connectExchange is one request with the RPC that answers it.
type connectExchange struct {
	w      http.ResponseWriter
	r      *http.Request
	ctl    *http.ResponseController
	q      *connectRequest
	call   Call
	limits Limits
	way    Way
	method *schema.Method // nil unless messages have to be understood
	up     *connectUpload // of a stream

	// Owned by the goroutine that receives: whether the header has been written, and what
	// the last message became.
	started             bool
	plain, text, packed []byte
}

// learn finds the method's descriptor, and holds the request against it.
func (x *connectExchange) learn() *wire.Status {
	ctx := x.r.Context()
	if x.q.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, x.q.timeout)
		defer cancel()
	}
	m, err := x.way.Method(ctx, x.call.Backend(), x.q.method)
	if m == nil {
		return x.unlearnt(err)
	}
	x.method = m
	streams := m.ClientStreaming || m.ServerStreaming
	switch {
	case x.q.query != nil && (streams || !m.NoSideEffects):
		return connectFault(wire.Unknown, http.StatusMethodNotAllowed,
			"method "+strconv.Quote(x.q.method)+" is called by POST; GET is for unary methods with idempotency_level = NO_SIDE_EFFECTS")
	case streams && !x.q.stream:
		return connectFault(wire.Unknown, http.StatusUnsupportedMediaType,
			"method "+strconv.Quote(x.q.method)+" streams; its content type is application/connect+json")
	case !streams && x.q.stream:
		return connectFault(wire.Unknown, http.StatusUnsupportedMediaType,
			"method "+strconv.Quote(x.q.method)+" is unary; its content type is application/json")
	}
	return nil
}

// unlearnt is why a request cannot be translated.
func (x *connectExchange) unlearnt(err error) *wire.Status {
	var st *wire.Status
	switch {
	case errors.As(err, &st):
		return st
	case errors.Is(err, schema.ErrNoMethod):
		return connectFault(wire.Unimplemented, http.StatusNotFound, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return connectFault(wire.DeadlineExceeded, 0, "the deadline passed while the schema was asked for")
	case errors.Is(err, context.Canceled):
		return connectFault(wire.Canceled, 0, "the caller left while the schema was asked for")
	}
	what := "JSON"
	if !x.q.json {
		what = "GET"
	}
	text := what + " for " + strconv.Quote(x.q.method) + " needs the method's schema"
	if err != nil {
		text += ": " + err.Error()
	}
	return connectFault(wire.Unimplemented, 0, text)
}

// incoming turns a message of the caller's into what the backend gets, appended to dst
// when it is not passed as it is.
func (x *connectExchange) incoming(dst, data []byte, compressed bool) (Message, *wire.Status) {
	compressed = compressed && len(data) > 0 // nothing is never compressed
	if !x.q.json {
		return Message{Data: data, Compressed: compressed}, nil
	}
	if compressed {
		plain, err := gunzip(nil, data, x.limits.MaxMessage)
		if st := x.inflateFault(err); st != nil {
			return Message{}, st
		}
		data = plain
	}
	out, err := FromJSON(dst, x.method.Input, data, x.method.Schema, x.limits)
	if err != nil {
		return Message{}, connectStatus(err)
	}
	return Message{Data: out}, nil
}

func (x *connectExchange) inflateFault(err error) *wire.Status {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errTooLong):
		return tooLarge("message, decompressed,", x.limits.MaxMessage)
	}
	return connectFault(wire.InvalidArgument, 0, "decompress message by gzip: "+err.Error())
}

// outgoing turns a message of the backend's into what the caller gets. It is valid until
// the next call, or the call's next message.
func (x *connectExchange) outgoing(m Message) (data []byte, compressed bool, st *wire.Status) {
	data, compressed = m.Data, m.Compressed && len(m.Data) > 0
	if compressed && (x.q.json || !x.q.accepts(x.call.Encoding())) {
		if x.call.Encoding() != encodingGzip {
			return nil, false, connectFault(wire.Internal, 0, "backend compressed a message by "+strconv.Quote(x.call.Encoding())+", which it was not told to")
		}
		var err error
		x.plain, err = gunzip(reuse(x.plain), data, x.limits.MaxMessage)
		if errors.Is(err, errTooLong) {
			return nil, false, tooLarge("backend's message, decompressed,", x.limits.MaxMessage)
		}
		if err != nil {
			return nil, false, connectFault(wire.Internal, 0, "decompress backend's message by gzip: "+err.Error())
		}
		data, compressed = x.plain, false
	}
	if !x.q.json {
		return data, compressed, nil
	}
	var err error
	if x.text, err = ToJSON(reuse(x.text), x.method.Output, data, x.method.Schema); err != nil {
		return nil, false, connectStatus(err)
	}
	if len(x.text) < compressFrom || !x.q.accepts(encodingGzip) {
		return x.text, false, nil
	}
	x.packed = gzipped(reuse(x.packed), x.text)
	return x.packed, true, nil
}

// encoding is what compressed messages of the answer have; empty when there are none.
func (x *connectExchange) encoding() string {
	name := x.call.Encoding()
	if x.q.json {
		name = encodingGzip
	}
	if !x.q.accepts(name) {
		return ""
	}
	return name
}

// compressFrom is the least that is worth compressing, bytes: less than this fits into a
// packet either way.
const compressFrom = 1 << 10

// keepBuffer is the largest buffer that a stream keeps between two messages, bytes.
const keepBuffer = 64 << 10

// reuse empties a buffer, or lets go of it when a rare large message has grown it.
func reuse(b []byte) []byte {
	if cap(b) > keepBuffer {
		return nil
	}
	return b[:0]
}

// bodyPatience is how long the rest of a unary request may not move.
const bodyPatience = 30 * time.Second
