package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// serveUnary is one message each way. Nothing is written before the RPC has ended, since
// its status is the answer's HTTP status.
func (x *connectExchange) serveUnary() {
	m, st := x.unaryRequest()
	if st != nil {
		FailConnect(x.w, x.r, x.call.Abort(st))
		return
	}
	// A message that is not taken means that the RPC has ended: Receive tells how.
	_ = x.call.Send(m, true)
	header, err := x.call.Header()
	if err != nil {
		x.failUnary(header, connectStatus(err))
		return
	}
	body, compressed, st := x.unaryAnswer()
	if st != nil {
		x.failUnary(header, st)
		return
	}
	h := x.w.Header()
	addMetadata(h, "", header)
	addMetadata(h, "Trailer-", x.call.Trailer())
	h.Set("Content-Type", x.q.contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if compressed {
		h.Set("Content-Encoding", x.encoding())
	}
	if x.q.query != nil {
		h.Add("Vary", "Accept-Encoding") // a GET may be kept for somebody else
	}
	x.w.WriteHeader(http.StatusOK)
	x.w.Write(body)
}

// failUnary answers with how the RPC ended.
func (x *connectExchange) failUnary(header http.Header, st *wire.Status) {
	addMetadata(x.w.Header(), "", header)
	addMetadata(x.w.Header(), "Trailer-", x.call.Trailer())
	writeConnectError(x.w, x.namePath(st), x.method)
}

// namingTime is how long the answer to a method that there may not be waits for the word
// of those who know.
const namingTime = time.Second

// namePath tells a path that leads to no method, HTTP 404, from a method that has yet to
// be written, 501. gRPC has one code for both.
func (x *connectExchange) namePath(st *wire.Status) *wire.Status {
	if st.Code != wire.Unimplemented || len(st.Details) > 0 || x.method != nil {
		return st
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), namingTime)
	defer cancel()
	if _, err := x.way.Method(ctx, x.call.Backend(), x.q.method); !errors.Is(err, schema.ErrNoMethod) {
		return st
	}
	named := *st
	named.HTTP = http.StatusNotFound
	return &named
}

// unaryRequest reads the message of the request.
func (x *connectExchange) unaryRequest() (Message, *wire.Status) {
	limit := x.limits.MaxMessage
	body := &patientReader{body: x.r.Body, ctl: x.ctl, patience: bodyPatience}
	if x.q.timeout > 0 {
		body.until = time.Now().Add(x.q.timeout)
	}
	if x.q.query != nil {
		if st := noBody(body, x.r.ContentLength); st != nil {
			return Message{}, st
		}
		if len(x.q.query.message) > limit {
			return Message{}, tooLarge("message", limit)
		}
		return x.incoming(nil, x.q.query.message, x.q.encoding != "")
	}
	if x.r.ContentLength > int64(limit) {
		return Message{}, tooLarge("message", limit)
	}
	data, err := appendAll(nil, body, limit)
	if st := bodyFault(err, limit); st != nil {
		return Message{}, st
	}
	body.done()
	return x.incoming(nil, data, x.q.encoding != "")
}

// noBody refuses the body of a GET. Over HTTP/2 a request without one may still have to
// be read to its end to know.
func noBody(body *patientReader, length int64) *wire.Status {
	if length == 0 {
		return nil
	}
	if _, err := io.ReadFull(body, make([]byte, 1)); err != io.EOF {
		if err != nil {
			return bodyFault(err, 0)
		}
		return connectFault(wire.Unknown, http.StatusUnsupportedMediaType, "a GET has no body; its message is in the query")
	}
	body.done()
	return nil
}

// unaryAnswer waits for the end of the RPC and returns its one message. An OK without
// one, or with more, is what gRPC's clients call UNIMPLEMENTED: the method is another
// than was meant.
func (x *connectExchange) unaryAnswer() (body []byte, compressed bool, st *wire.Status) {
	m, err := x.call.Receive()
	if err == io.EOF {
		return nil, false, x.call.Abort(connectFault(wire.Unimplemented, 0, "the backend ended a unary RPC without a message"))
	}
	if err != nil {
		return nil, false, connectStatus(err)
	}
	body, compressed, st = x.outgoing(m)
	if st != nil {
		return nil, false, x.call.Abort(st)
	}
	if !x.q.json {
		body = append([]byte(nil), body...) // the next Receive may take it
	}
	_, err = x.call.Receive()
	if err == nil {
		return nil, false, x.call.Abort(connectFault(wire.Unimplemented, 0, "the backend sent more than one message in a unary RPC"))
	}
	if err != io.EOF {
		return nil, false, connectStatus(err)
	}
	return body, compressed, nil
}

// patientReader reads a body that may take its time, as long as it moves.
type patientReader struct {
	body     io.Reader
	ctl      *http.ResponseController
	patience time.Duration
	until    time.Time // zero, or when it must be there whatever moves
	renew    time.Time // when the deadline is to be set anew
}

func (p *patientReader) Read(b []byte) (int, error) {
	if now := time.Now(); !now.Before(p.renew) {
		at := now.Add(p.patience)
		if !p.until.IsZero() && p.until.Before(at) {
			at = p.until
		}
		_ = p.ctl.SetReadDeadline(at) // a test's recorder has none
		p.renew = now.Add(p.patience / 8)
	}
	return p.body.Read(b)
}

// done takes the deadline away, which would else end what net/http reads beside the handler.
func (p *patientReader) done() { _ = p.ctl.SetReadDeadline(time.Time{}) }

// bodyFault is the status of an error in reading a request's body.
func bodyFault(err error, limit int) *wire.Status {
	var st *wire.Status
	switch {
	case err == nil:
		return nil
	case errors.As(err, &st):
		return st
	case errors.Is(err, errTooLong):
		return tooLarge("message", limit)
	case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded):
		return connectFault(wire.DeadlineExceeded, 0, "the request did not come in time")
	}
	return connectFault(wire.Canceled, 0, "read request: "+err.Error())
}
