package h2

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Seam serves streams by an [http.Handler], one goroutine each, which any
// Acceptor can send its streams to.
type Seam struct {
	handler http.Handler
	log     *slog.Logger
	work    sync.WaitGroup
}

// NewSeam returns a seam to handler. Panics of the handler are logged to log.
func NewSeam(handler http.Handler, log *slog.Logger) *Seam {
	return &Seam{handler: handler, log: log}
}

// Wait waits for the handlers that are running. Their streams' connections have
// ended by then.
func (m *Seam) Wait() { m.work.Wait() }

// Peer is what a handler may know of the connection.
type Peer struct {
	RemoteAddr string
	TLS        *tls.ConnectionState
	// Context is what those of its requests are made of; nil means an empty one.
	Context context.Context
}

// Serve answers one stream by the seam's handler. It is called from AcceptStream and
// does not block.
func (m *Seam) Serve(s *Stream, h *Head, end bool, peer Peer, b *Batch) {
	m.ServeBy(m.handler, s, h, end, peer, b)
}

// ServeBy is Serve by a handler of the stream's own.
func (m *Seam) ServeBy(handler http.Handler, s *Stream, h *Head, end bool, peer Peer, b *Batch) {
	parent := peer.Context
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithCancelCause(parent)
	x := &exchange{s: s, cancel: cancel, header: make(http.Header)}
	x.body.init(s)
	x.out.init(s)
	s.Bind(exchangeSink{x})
	s.SetSource(&x.out)
	if h.Large {
		s.SendHeader([]Field{IndexedField(":status", "431")}, true, b)
		cancel(nil)
		return
	}
	x.req = request(h, peer).WithContext(ctx)
	x.head = h.Method == http.MethodHead
	x.req.Body = &x.body
	if end {
		x.req.Body = http.NoBody
	} else if h.ContentLength >= 0 {
		x.req.ContentLength = h.ContentLength
	} else {
		x.req.ContentLength = -1
	}
	if strings.EqualFold(x.req.Header.Get("Expect"), "100-continue") {
		x.req.Header.Del("Expect") // it is ours to fulfil
		x.body.onRead = x.sendContinue
	}
	m.work.Go(func() { m.run(handler, x) })
}

// request makes net/http's request of a head.
func request(h *Head, peer Peer) *http.Request {
	u := &url.URL{Path: h.Path}
	if h.Path != "*" {
		if parsed, err := url.ParseRequestURI(h.Path); err == nil {
			u = parsed
		}
	}
	header := HeaderOf(h.Fields)
	header.Del("Host")
	r := &http.Request{
		Method: h.Method, URL: u, RequestURI: h.Path, Host: h.Authority,
		Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: header, RemoteAddr: peer.RemoteAddr, TLS: peer.TLS,
	}
	if names := trailerNames(header); len(names) > 0 {
		header.Del("Trailer")
		r.Trailer = make(http.Header, len(names))
		for _, n := range names {
			r.Trailer[n] = nil
		}
	}
	return r
}

// trailerNames returns the names that a message announces as its trailers, without
// those that RFC 9110 section 6.5.1 forbids there.
func trailerNames(h http.Header) (names []string) {
	for _, line := range h["Trailer"] {
		for _, n := range strings.Split(line, ",") {
			switch n = http.CanonicalHeaderKey(strings.TrimSpace(n)); n {
			case "", "Transfer-Encoding", "Content-Length", "Trailer":
			default:
				names = append(names, n)
			}
		}
	}
	return names
}

func (m *Seam) run(handler http.Handler, x *exchange) {
	defer x.close()
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v != http.ErrAbortHandler && m.log != nil {
			m.log.Error("handler panicked", "method", x.req.Method, "path", x.req.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		}
		x.breakOff()
	}()
	handler.ServeHTTP(x, x.req)
	x.finish()
}

// exchange is one request and its response: sink of the stream, and the
// handler's ResponseWriter, Flusher and the methods that ResponseController wants.
type exchange struct {
	s      *Stream
	req    *http.Request
	head   bool // the request was HEAD: the response has no body
	cancel context.CancelCauseFunc
	body   body
	out    sender

	// Owned by the handler's goroutine.
	header   http.Header
	status   int         // 0 until the final header is decided
	final    http.Header // a copy of header from that moment
	declared int64       // content-length in it, -1 when there is none
	trailer  []string    // names that it announces
	sent     bool        // the final header is with the stream
	ended    bool        // and was all of the response
	held     *Batch      // what is sent joins it; nil means that it leaves at once
	buf      *bufio.Writer
	written  int64
}

var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 4<<10) }}

// onTrailers leaves the request's trailers for the read that meets the end.
func (x *exchange) onTrailers(h *Head) {
	trailer := HeaderOf(h.Fields)
	x.body.mu.Lock()
	x.body.trailer = func() {
		if x.req.Trailer == nil {
			x.req.Trailer = make(http.Header)
		}
		for k, v := range trailer {
			x.req.Trailer[k] = v
		}
	}
	x.body.mu.Unlock()
}

// exchangeSink gives the exchange its second face: Header means one thing to the
// engine and another to net/http.
type exchangeSink struct{ *exchange }

func (x exchangeSink) Header(_ *Stream, h *Head, _ bool, b *Batch) {
	x.onTrailers(h)
	x.body.put(nil, true, b)
}

func (x exchangeSink) Data(_ *Stream, p []byte, end bool, b *Batch) { x.body.put(p, end, b) }

// ErrShutDown is the cause of a request's end when the grace of a drain is over: the
// handler has a moment left to say so.
var ErrShutDown = errors.New("gateway is shutting down")

// ErrAged is the same when the grace of a connection is over that was too old.
var ErrAged = errors.New("connection has reached its age")

func (x exchangeSink) Ended(_ *Stream, e Ending, _ *Batch) {
	switch e.How {
	case DrainEnded:
		x.cancel(ErrShutDown)
		return
	case AgeEnded:
		x.cancel(ErrAged)
		return
	}
	err := &StreamError{e}
	x.body.fail(err)
	x.out.fail(err)
	x.cancel(err)
}

// Header implements http.ResponseWriter.
func (x *exchange) Header() http.Header { return x.header }

// WriteHeader sends an informational response at once; a final status waits for
// the first bytes of the body, or the end.
func (x *exchange) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	if x.status != 0 {
		return
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		var b Batch
		x.s.SendHeader(responseFields(status, x.header), false, &b)
		b.Flush()
		return
	}
	x.status = status
	x.final = x.header.Clone()
	x.declared = -1
	if n, err := strconv.ParseUint(x.final.Get("Content-Length"), 10, 63); err == nil {
		x.declared = int64(n)
	} else {
		x.final.Del("Content-Length")
	}
	x.trailer = trailerNames(x.final)
	for _, n := range x.trailer {
		x.final.Del(n)
	}
}

// sendContinue asks the client for the body. It is called by whoever reads, beside
// the handler; the stream sees to it that nothing comes after the final header.
func (x *exchange) sendContinue() {
	var b Batch
	x.s.SendHeader([]Field{IndexedField(":status", "100")}, false, &b)
	b.Flush()
}

func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	if !bodyAllowed(x.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if x.declared >= 0 && x.written+int64(len(p)) > x.declared && !x.head {
		return 0, http.ErrContentLength
	}
	if x.written == 0 {
		x.guessType(p)
	}
	x.written += int64(len(p))
	if x.head {
		return len(p), nil
	}
	if x.buf == nil {
		x.buf = writers.Get().(*bufio.Writer)
		x.buf.Reset(chunkWriter{x})
	}
	return x.buf.Write(p)
}

// chunkWriter is below the buffer: what it gets leaves.
type chunkWriter struct{ x *exchange }

func (w chunkWriter) Write(p []byte) (int, error) {
	if w.x.held != nil {
		w.x.sendHeader(false, w.x.held)
		return w.x.out.sendHeld(p, w.x.held)
	}
	var b Batch
	w.x.sendHeader(false, &b)
	n, err := w.x.out.sendHeld(p, &b)
	b.Flush()
	return n, err
}

// Flush sends what has been written.
func (x *exchange) Flush() { x.FlushError() }

// FlushError sends what has been written, and reports why it could not.
func (x *exchange) FlushError() error {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	if x.buf != nil && x.buf.Buffered() > 0 {
		return x.buf.Flush()
	}
	var b Batch
	x.sendHeader(false, &b)
	b.Flush()
	x.out.mu.Lock()
	defer x.out.mu.Unlock()
	return x.out.err
}

// EnableFullDuplex is what HTTP/2 always is.
func (x *exchange) EnableFullDuplex() error { return nil }

// SetReadDeadline ends reads of the request body.
func (x *exchange) SetReadDeadline(at time.Time) error { x.body.setDeadline(at); return nil }

// SetWriteDeadline ends writes of the response body.
func (x *exchange) SetWriteDeadline(at time.Time) error { x.out.setDeadline(at); return nil }

// guessType writes a content type that the handler left out. first is the beginning
// of the body.
func (x *exchange) guessType(first []byte) {
	if _, has := x.final["Content-Type"]; !has && !x.sent && len(first) > 0 {
		x.final.Set("Content-Type", http.DetectContentType(first))
	}
}

// sendHeader sends the final header once. It is the end of a response that has
// neither content nor trailers. The caller flushes.
func (x *exchange) sendHeader(end bool, b *Batch) {
	if x.sent {
		return
	}
	x.sent = true
	if _, has := x.final["Date"]; !has {
		x.final.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	x.ended = end || (x.head || !bodyAllowed(x.status)) && len(x.trailer) == 0
	x.s.SendHeader(responseFields(x.status, x.final), x.ended, b)
}

// finish ends the response after the handler has returned. What is left of it leaves
// together: of a short response, everything.
func (x *exchange) finish() {
	var b Batch
	x.held = &b
	defer b.Flush()
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	if !x.sent && x.declared < 0 && (x.buf == nil || x.buf.Buffered() == int(x.written)) {
		// The whole response is at hand, so its length is known.
		if bodyAllowed(x.status) && (!x.head || x.written > 0) {
			x.final.Set("Content-Length", strconv.FormatInt(x.written, 10))
		}
	}
	if x.buf != nil && x.buf.Flush() != nil || x.written < x.declared && !x.head && bodyAllowed(x.status) {
		x.breakOff()
		return
	}
	trailers := x.trailers()
	x.sendHeader(len(trailers) == 0 && x.buf == nil, &b)
	switch {
	case x.ended:
	case len(trailers) > 0:
		x.s.SendHeader(trailers, true, &b)
	default:
		x.s.SendData(nil, true, &b)
	}
}

// breakOff ends a response that must not look complete.
func (x *exchange) breakOff() {
	var b Batch
	x.s.Reset(http2.ErrCodeInternal, &b)
	b.Flush()
}

// trailers are the announced ones, and those with http.TrailerPrefix.
func (x *exchange) trailers() (fields []Field) {
	for _, n := range x.trailer {
		for _, v := range x.header[n] {
			fields = AppendHeader(fields, n, v)
		}
	}
	for k, vs := range x.header {
		if name, ok := strings.CutPrefix(k, http.TrailerPrefix); ok {
			for _, v := range vs {
				fields = AppendHeader(fields, name, v)
			}
		}
	}
	return fields
}

// close releases what the exchange holds once nobody will write any more.
func (x *exchange) close() {
	x.body.Close()
	x.body.setDeadline(time.Time{})
	x.out.stop()
	if x.buf != nil {
		x.buf.Reset(nil)
		writers.Put(x.buf)
		x.buf = nil
	}
	x.cancel(nil)
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// responseFields writes a response's header section.
func responseFields(status int, h http.Header) []Field {
	fields := make([]Field, 0, len(h)+1)
	fields = append(fields, IndexedField(":status", strconv.Itoa(status)))
	for k, vs := range h {
		if strings.HasPrefix(k, http.TrailerPrefix) {
			continue
		}
		for _, v := range vs {
			fields = AppendHeader(fields, k, v)
		}
	}
	return fields
}

// AppendHeader adds net/http's field to a header section, if HTTP/2 allows it; others
// are left out.
func AppendHeader(fields []Field, name, value string) []Field {
	f := IndexedField(strings.ToLower(name), strings.TrimSpace(value))
	if f.kind == kindBad || f.kind == kindConnection || f.kind.pseudo() {
		return fields
	}
	switch f.Name {
	case "date", "content-length", "etag", "last-modified", "set-cookie", "location", "grpc-message":
		f.indexing = notIndexed
	case "authorization", "cookie":
		f.indexing = neverIndexed
	}
	return append(fields, f)
}

var _ io.ReadCloser = (*body)(nil)
