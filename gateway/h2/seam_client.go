package h2

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http2"
)

// RoundTripper sends net/http's requests over connections of the engine.
type RoundTripper struct {
	// Open opens s on some connection, or blocks until it can, ctx is done, or it
	// knows that it never will. The function that it returns is called when the
	// stream is over.
	Open func(ctx context.Context, s *Stream, o *Opening, b *Batch) (release func(), err error)
}

// RoundTrip implements http.RoundTripper. The response's body must be closed. The
// request's body is closed in any case, if need be after RoundTrip has returned.
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
		t.sent = make(chan struct{})
		go t.send()
	}
	t.stop = context.AfterFunc(req.Context(), func() { t.abandon(context.Cause(req.Context())) })
	<-t.answer
	if t.err != nil {
		t.finish()
		return nil, t.err
	}
	return t.res, nil
}

// trip is one round trip: sink of its stream, and the response's body.
type trip struct {
	// Fixed before the stream is.
	req     *http.Request
	answer  chan struct{} // closed when res or err is set
	sent    chan struct{} // closed when nobody reads the request's body; nil without one
	stop    func() bool
	release func()

	stream Stream
	in     body
	out    sender
	final  bool // the final response header has come; owned by the reader

	closeBody, finished sync.Once

	mu  sync.Mutex // guards the fields below until answer is closed
	res *http.Response
	err error
}

// settle answers the one who waits in RoundTrip. It reports whether nobody had.
func (t *trip) settle(res *http.Response, err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.res != nil || t.err != nil {
		return false
	}
	t.res, t.err = res, err
	close(t.answer)
	return true
}

// Header implements Sink.
func (t *trip) Header(_ *Stream, h *Head, end bool, b *Batch) {
	switch {
	case t.final:
		t.trailers(h, b)
		return
	case h.Status < 200:
		return
	}
	t.final = true
	res := &http.Response{
		Status: fmt.Sprintf("%d %s", h.Status, http.StatusText(h.Status)), StatusCode: h.Status,
		Proto: "HTTP/2.0", ProtoMajor: 2, Header: HeaderOf(h.Fields), Trailer: make(http.Header),
		ContentLength: h.ContentLength, Request: t.req, Body: t,
	}
	for _, n := range trailerNames(res.Header) {
		res.Trailer[n] = nil
	}
	res.Header.Del("Trailer")
	if end {
		if h.ContentLength < 0 && t.req.Method != http.MethodHead {
			res.ContentLength = 0
		}
		t.in.put(nil, true, b)
	}
	t.settle(res, nil)
}

// trailers leaves them for the read that meets the end.
func (t *trip) trailers(h *Head, b *Batch) {
	trailer := HeaderOf(h.Fields)
	t.in.mu.Lock()
	t.in.trailer = func() { maps.Copy(t.res.Trailer, trailer) }
	t.in.mu.Unlock()
	t.in.put(nil, true, b)
}

// Data implements Sink.
func (t *trip) Data(_ *Stream, p []byte, end bool, b *Batch) { t.in.put(p, end, b) }

// Ended implements Sink.
func (t *trip) Ended(_ *Stream, e Ending, _ *Batch) { t.fail(&StreamError{e}) }

// StreamError is the end of a stream before its time, as an error.
type StreamError struct{ Ending }

func (e *StreamError) Error() string {
	return fmt.Sprintf("stream ended: %v, %v", e.How, e.Code)
}

// Cancelled tells whether the peer has given the stream up of its own accord, while its
// connection stands.
func (e *StreamError) Cancelled() bool {
	return e.How == PeerReset && (e.Code == http2.ErrCodeCancel || e.Code == http2.ErrCodeNo)
}

// Read reads the response body.
func (t *trip) Read(p []byte) (int, error) { return t.in.Read(p) }

// Close gives the response up, if it has not ended.
func (t *trip) Close() error {
	t.in.Close()
	t.finish()
	return nil
}

// fail ends whatever waits for the stream.
func (t *trip) fail(err error) {
	t.settle(nil, err)
	t.in.fail(err)
	t.out.fail(err)
}

// abandon gives the stream up.
func (t *trip) abandon(cause error) {
	var b Batch
	t.stream.Reset(http2.ErrCodeCancel, &b)
	b.Flush()
	t.fail(cause)
}

// finish leaves nothing of the trip behind but, perhaps, a request body that is slow
// to close: those of HTTP/1 wait for their reads, and those for their client.
func (t *trip) finish() {
	t.finished.Do(func() {
		t.stop()
		t.abandon(errBodyClosed)
		if t.sent != nil {
			select {
			case <-t.sent:
			default:
				go t.dropBody()
			}
		}
		t.release()
	})
}

func (t *trip) dropBody() { t.closeBody.Do(func() { t.req.Body.Close() }) }

// send copies the request's body and trailers to the stream.
func (t *trip) send() {
	defer close(t.sent)
	defer t.dropBody()
	buf := make([]byte, minMaxFrameSize)
	for {
		n, err := t.req.Body.Read(buf)
		if _, werr := t.out.send(buf[:n]); werr != nil {
			return
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.abandon(fmt.Errorf("reading the request's body: %w", err))
			return
		}
	}
	var trailers []Field
	for k, vs := range t.req.Trailer {
		for _, v := range vs {
			trailers = AppendHeader(trailers, k, v)
		}
	}
	var b Batch
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
		switch http.CanonicalHeaderKey(k) {
		case "Host", "Grpc-Timeout", "Content-Length", "Trailer":
			continue // written from elsewhere
		}
		for _, v := range vs {
			fields = AppendHeader(fields, k, v)
		}
	}
	if n := contentLength(r); n >= 0 {
		fields = AppendHeader(fields, "content-length", strconv.FormatInt(n, 10))
	}
	if len(r.Trailer) > 0 {
		fields = AppendHeader(fields, "trailer", strings.Join(slices.Sorted(maps.Keys(r.Trailer)), ", "))
	}
	return fields
}

// contentLength is what a request declares of its body, -1 when it does not. Methods
// that have one declare that it is empty.
func contentLength(r *http.Request) int64 {
	switch {
	case r.ContentLength > 0:
		return r.ContentLength
	case r.Body != nil && r.Body != http.NoBody:
		return -1
	case r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch:
		return 0
	}
	return -1
}
