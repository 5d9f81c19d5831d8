package h2

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"golang.org/x/net/http2"
)

// RoundTripper sends net/http's requests over connections of the engine.
type RoundTripper struct {
	// Open opens s on some connection, or blocks until it can, ctx is done, or it
	// knows that it never will. The function that it returns is called when the
	// stream is over.
	Open func(ctx context.Context, s *Stream, o *Opening, b *Batch) (release func(), err error)
}

// RoundTrip implements http.RoundTripper. The response's body must be read to the
// end or closed.
func (rt *RoundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	t := &trip{req: req, answer: make(chan struct{})}
	t.in.init(&t.stream)
	t.out.init(&t.stream)
	hasBody := req.Body != nil && req.Body != http.NoBody
	o := Opening{Fields: requestFields(req), Sink: t, Source: &t.out, End: !hasBody}
	if d, ok := req.Context().Deadline(); ok && req.Header.Get("Grpc-Timeout") != "" {
		o.Deadline = d
	}
	var b Batch
	release, err := rt.Open(req.Context(), &t.stream, &o, &b)
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	b.Flush()
	t.release = release
	if hasBody {
		t.sending = make(chan struct{})
		go t.send()
	}
	stop := context.AfterFunc(req.Context(), func() { t.abandon(context.Cause(req.Context())) })
	t.stop = stop
	select {
	case <-t.answer:
	case <-req.Context().Done():
		t.finish()
		return nil, context.Cause(req.Context())
	}
	if t.err != nil {
		t.finish()
		return nil, t.err
	}
	return t.res, nil
}

// trip is one round trip: sink of its stream, and the response's body.
type trip struct {
	stream  Stream
	req     *http.Request
	in      body
	out     sender
	answer  chan struct{} // closed when res or err is set
	sending chan struct{} // closed when the request body is with the stream
	stop    func() bool
	release func()
	done    bool

	res *http.Response // set by the reader before answer is closed
	err error
}

// Header implements Sink.
func (t *trip) Header(_ *Stream, h *Head, end bool, b *Batch) {
	switch {
	case t.res != nil: // trailers
		trailer := headerOf(h.Fields)
		t.in.mu.Lock()
		t.in.trailer = func() {
			for k, v := range trailer {
				t.res.Trailer[k] = v
			}
		}
		t.in.mu.Unlock()
		t.in.put(nil, true, b)
		return
	case h.Status < 200:
		return
	}
	t.res = &http.Response{
		Status: fmt.Sprintf("%d %s", h.Status, http.StatusText(h.Status)), StatusCode: h.Status,
		Proto: "HTTP/2.0", ProtoMajor: 2, Header: headerOf(h.Fields), Trailer: make(http.Header),
		ContentLength: h.ContentLength, Request: t.req, Body: t,
	}
	if end {
		t.in.put(nil, true, b)
	}
	close(t.answer)
}

// Data implements Sink.
func (t *trip) Data(_ *Stream, p []byte, end bool, b *Batch) { t.in.put(p, end, b) }

// Ended implements Sink.
func (t *trip) Ended(_ *Stream, e Ending, _ *Batch) {
	err := &StreamError{e}
	t.out.fail(err)
	if t.res == nil {
		t.err = err
		close(t.answer)
		return
	}
	t.in.fail(err)
}

// StreamError is the end of a stream before its time, as an error.
type StreamError struct{ Ending }

func (e *StreamError) Error() string {
	return fmt.Sprintf("stream ended: %v, %v", e.How, e.Code)
}

// Read reads the response body.
func (t *trip) Read(p []byte) (int, error) { return t.in.Read(p) }

// Close gives the response up, if it has not ended.
func (t *trip) Close() error {
	t.in.Close()
	t.finish()
	return nil
}

func (t *trip) abandon(cause error) {
	var b Batch
	t.stream.Reset(http2.ErrCodeCancel, &b)
	b.Flush()
	t.in.fail(cause)
	t.out.fail(cause)
}

// finish leaves nothing of the trip behind.
func (t *trip) finish() {
	if t.done {
		return
	}
	t.done = true
	t.stop()
	t.abandon(errBodyClosed)
	if t.req.Body != nil {
		t.req.Body.Close()
	}
	if t.sending != nil {
		<-t.sending
	}
	t.release()
}

// send copies the request's body and trailers to the stream.
func (t *trip) send() {
	defer close(t.sending)
	buf := make([]byte, minMaxFrameSize)
	var b Batch
	for {
		n, err := t.req.Body.Read(buf)
		if _, werr := t.out.send(buf[:n]); werr != nil {
			return
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.stream.Reset(http2.ErrCodeCancel, &b)
			b.Flush()
			return
		}
	}
	var trailers []Field
	for k, vs := range t.req.Trailer {
		for _, v := range vs {
			trailers = appendHeader(trailers, k, v)
		}
	}
	if len(trailers) > 0 {
		t.stream.SendHeader(trailers, true, &b)
	} else {
		t.stream.SendData(nil, true, &b)
	}
	b.Flush()
}

// requestFields writes a request's header section.
func requestFields(r *http.Request) []Field {
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	scheme := r.URL.Scheme
	if scheme == "" {
		scheme = "http"
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	fields := make([]Field, 0, len(r.Header)+5)
	fields = append(fields,
		IndexedField(":method", method),
		IndexedField(":scheme", scheme),
		IndexedField(":authority", host),
		IndexedField(":path", r.URL.RequestURI()))
	for k, vs := range r.Header {
		if name := strings.ToLower(k); name == "host" || name == "grpc-timeout" {
			continue
		}
		for _, v := range vs {
			fields = appendHeader(fields, k, v)
		}
	}
	if r.ContentLength > 0 && r.Header.Get("Content-Length") == "" {
		fields = appendHeader(fields, "content-length", fmt.Sprint(r.ContentLength))
	}
	return fields
}
