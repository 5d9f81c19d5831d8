package web

import (
	"context"
	"encoding/base64"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/improbable-eng/grpc-web/go/grpcweb"

	"sluice/gateway/wire"
)

// Options of a Handler. The zero value is valid.
type Options struct {
	// CORS is the policy of the route that a request takes; nil, and nil returned, let
	// in no other origin.
	CORS func(r *http.Request) *CORS
	// MaxSockets bounds how many WebSockets are open. Zero means 1,000.
	MaxSockets int
	// Ping is how often the other end of a WebSocket is asked whether it is there; it is
	// given up when it has not answered after one and a half times as long. Zero means
	// 30s.
	Ping time.Duration
}

// Handler serves gRPC-Web, binary and text, and WebSockets that carry it.
//
// The library translates binary gRPC-Web; around it is what it does not do, or does
// otherwise than PROTOCOL-WEB and browsers need it: text (its own decoder fails on
// padding in mid-stream), a status without a body, what a request may hold, CORS,
// WebSockets.
type Handler struct {
	upstream http.Handler
	cors     func(r *http.Request) *CORS
	web      *grpcweb.WrappedGrpcServer
	sockets  *sockets
}

// NewHandler returns a Handler around upstream, which takes gRPC: HTTP/2's
// conventions in r (POST, content-type application/grpc, messages with their
// prefixes in the body), and net/http's for the answer: messages written, and
// flushed where they should not wait; trailers under names that begin with
// http.TrailerPrefix; a status without messages in the header itself. It answers
// every request with a grpc-status. When reading the body fails with a
// *wire.Status, that is how the RPC ends; the Handler says so to the caller,
// whatever upstream says.
func NewHandler(upstream http.Handler, o Options) *Handler {
	h := &Handler{upstream: upstream, cors: o.CORS}
	if h.cors == nil {
		h.cors = func(*http.Request) *CORS { return nil }
	}
	h.web = grpcweb.WrapHandler(http.HandlerFunc(h.serveRequest))
	h.sockets = newSockets(h, o)
	return h
}

// Drain opens no more WebSockets and waits for those that are open until ctx is done;
// then it ends them with a status. It returns when none is left. What came by plain
// HTTP is its server's to wait for.
func (h *Handler) Drain(ctx context.Context) { h.sockets.drain(ctx) }

// ServeHTTP serves what IsRequest tells.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if IsSocket(r) {
		h.sockets.serve(w, r)
		return
	}
	if r.Method != http.MethodPost {
		Fail(w, r, h.cors(r), &wire.Status{
			Code: wire.Internal, Gateway: true,
			Message: "sluice: gRPC-Web: the method is " + strconv.Quote(r.Method) + ", it must be POST",
		})
		return
	}
	e := newExchange(w, r, h.cors(r))
	h.web.HandleGrpcWebRequest(e, e.request(r))
	e.finish()
	if !e.body.ended.Load() {
		// The rest of a request that is over is awaited for a moment only; net/http
		// would wait for as long as the caller likes.
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(restOfRequest))
	}
}

// restOfRequest is how long the rest of a request may take that has been answered.
const restOfRequest = time.Second

// serveRequest is what the library takes for a gRPC server.
func (h *Handler) serveRequest(w http.ResponseWriter, r *http.Request) {
	b := r.Body.(*body)
	p := &reply{ResponseWriter: w}
	h.upstream.ServeHTTP(p, r)
	if st := b.fault.Load(); st != nil {
		p.fail(st)
	}
	b.exchange.answered = true
}

// exchange is a request and its response: what the library reads from and writes to.
type exchange struct {
	w      http.ResponseWriter
	r      *http.Request // as it came
	cors   *CORS
	body   body
	length int64 // of the request's body as it is read, -1 when it is not known
	text   bool  // the response's form

	started  bool // the header has been written
	answered bool // upstream has given its answer; only the trailers are left
	carry    [3]byte
	carried  int    // bytes of carry that have no text yet, fewer than 3
	coded    []byte // room for text
}

func newExchange(w http.ResponseWriter, r *http.Request, c *CORS) *exchange {
	contentType := r.Header.Get("Content-Type")
	e := &exchange{w: w, r: r, cors: c, length: r.ContentLength, text: AnswersText(contentType, r.Header.Get("Accept"))}
	e.body.src, e.body.exchange = interruptible{r.Body, w}, e
	if wire.KindOf(contentType) == wire.KindGRPCWebText {
		e.length = e.body.readText(r.ContentLength)
	}
	if r.ContentLength == 0 {
		e.body.ended.Store(true)
	}
	return e
}

// interruptible is the body of an HTTP request that can be closed while it is read:
// net/http's own Close waits for the reader.
type interruptible struct {
	io.ReadCloser
	w http.ResponseWriter
}

func (i interruptible) Close() error {
	if http.NewResponseController(i.w).SetReadDeadline(time.Unix(1, 0)) == nil {
		return nil
	}
	return i.ReadCloser.Close()
}

// request is the request as the library is to see it, and to change it: in the binary
// form.
func (e *exchange) request(r *http.Request) *http.Request {
	header := maps.Clone(r.Header)
	header["Content-Type"] = []string{Type(NativeType(r.Header.Get("Content-Type")), false)}
	delete(header, "Content-Length")
	acceptPlain(header)
	request := r.WithContext(r.Context())
	request.Header = header
	// Who knows the length of a request need not read it beside the response.
	request.ContentLength = e.length
	request.Body = &e.body
	return request
}

// acceptPlain asks the backend not to compress, where the caller did not say what
// it understands: a page cannot decompress a message.
func acceptPlain(header http.Header) {
	if header.Get("Grpc-Accept-Encoding") == "" {
		header["Grpc-Accept-Encoding"] = []string{"identity"}
	}
}

func (e *exchange) Header() http.Header { return e.w.Header() }

// WriteHeader puts right what the library has made of the header.
func (e *exchange) WriteHeader(int) {
	if e.started {
		return
	}
	e.started = true
	h := e.w.Header()
	delete(h, "Content-Length")
	delete(h, "Access-Control-Expose-Headers") // the library's; the policy has its own
	h["Content-Type"] = []string{Type(h.Get("Content-Type"), e.text)}
	e.cors.Set(h, e.r)
	if e.r.ProtoMajor == 1 && (!e.body.ended.Load() || e.body.cut.Load()) {
		// Else net/http would read the whole request before the response begins or, in
		// full duplex, take for the next one what is left of it afterwards.
		h["Connection"] = []string{"close"}
	}
	e.w.WriteHeader(http.StatusOK)
}

func (e *exchange) Write(p []byte) (int, error) {
	e.WriteHeader(http.StatusOK)
	if !e.text {
		return e.w.Write(p)
	}
	return e.writeText(p)
}

// Flush sends what has been written. With the trailers it goes out in any case, and
// best in one piece with the end of the body.
func (e *exchange) Flush() {
	e.WriteHeader(http.StatusOK)
	if e.answered {
		return
	}
	e.pad()
	if f, ok := e.w.(http.Flusher); ok {
		f.Flush()
	}
}

// codedRoom is how much text is made at once, in bytes; a multiple of 4.
const codedRoom = 4 << 10

// writeText writes p as text, but for the last one or two bytes, which become text
// together with what follows, or are padded by Flush.
func (e *exchange) writeText(p []byte) (int, error) {
	written := len(p)
	if e.carried > 0 {
		n := copy(e.carry[e.carried:], p)
		e.carried += n
		p = p[n:]
		if e.carried < len(e.carry) {
			return written, nil
		}
		e.carried = 0
		if err := e.encode(e.carry[:]); err != nil {
			return 0, err
		}
	}
	whole := len(p) / 3 * 3
	for rest := p[:whole]; len(rest) > 0; {
		n := min(len(rest), codedRoom/4*3)
		if err := e.encode(rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	e.carried = copy(e.carry[:], p[whole:])
	return written, nil
}

func (e *exchange) encode(p []byte) error {
	e.coded = base64.StdEncoding.AppendEncode(e.coded[:0], p)
	_, err := e.w.Write(e.coded)
	return err
}

// pad makes text of what is carried.
func (e *exchange) pad() {
	if e.carried > 0 {
		e.encode(e.carry[:e.carried])
		e.carried = 0
	}
}

// finish ends the response; the rest is net/http's.
func (e *exchange) finish() { e.pad() }
