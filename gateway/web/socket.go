package web

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http/httpguts"

	"sluice/gateway/wire"
)

// A WebSocket carries one RPC, in the form that improbable-eng/grpc-web's client
// speaks for client and bidirectional streams:
//
//	client → server   the request's header fields, as HTTP/1 writes them
//	                  messages of 0x00 and a piece of gRPC's request body
//	                  a message of 0x01: the request is complete
//	server → client   frames of gRPC-Web; the header is one too, of flags 0x80,
//	                  and the trailers are the last one
//
// That library's own server for it cannot be used on a public port. It leaves a
// goroutine behind for each header that it cannot read, bounds neither the time nor
// the fields of a header, cannot tell a request that broke off from one that is
// complete, and waits for ever for who does not answer a ping.

// socketProtocol is the subprotocol's name.
const socketProtocol = "grpc-websockets"

const (
	maxSocketHeader = 64 << 10         // bytes of the first message
	maxSocketFields = 256              // lines of it
	openWithin      = 10 * time.Second // from the upgrade to the first message
	writeWithin     = time.Minute      // for one message to be taken
	socketBuffer    = 16 << 10         // bytes of a response that wait for a flush
)

// The first byte of a message from the client.
const (
	socketData = 0
	socketEnd  = 1
)

// IsSocket tells the upgrade to a WebSocket that carries an RPC.
func IsSocket(r *http.Request) bool {
	return r.ProtoMajor == 1 && hasToken(r.Header["Upgrade"], "websocket") &&
		hasToken(r.Header["Sec-Websocket-Protocol"], socketProtocol)
}

func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(item, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// sockets are the WebSockets that are open.
type sockets struct {
	h    *Handler
	max  int
	ping time.Duration

	all sync.WaitGroup // of open; added to under mu, while not draining

	mu       sync.Mutex // guards the fields below
	open     map[*socket]struct{}
	draining bool
}

func newSockets(h *Handler, o Options) *sockets {
	s := &sockets{h: h, max: o.MaxSockets, ping: o.Ping, open: map[*socket]struct{}{}}
	if s.max == 0 {
		s.max = 1000
	}
	if s.ping == 0 {
		s.ping = 30 * time.Second
	}
	return s
}

// serve upgrades a request and serves its RPC. Browsers let every page open a
// WebSocket to anywhere, so the origin is looked at here.
func (s *sockets) serve(w http.ResponseWriter, r *http.Request) {
	if !s.h.cors(r).AllowSocket(r) {
		refusePlain(w, http.StatusForbidden, "WebSocket: the origin "+quoted(originOf(r))+" may not call this route; its CORS policy can allow it")
		return
	}
	k := &socket{ping: s.ping}
	if refusal := s.add(k, r.Context()); refusal != "" {
		w.Header().Set("Retry-After", "1")
		refusePlain(w, http.StatusServiceUnavailable, "WebSocket: "+refusal)
		return
	}
	defer s.remove(k)
	conn, err := websocket.Accept(&upgrade{ResponseWriter: w, socket: k}, r, &websocket.AcceptOptions{
		Subprotocols:       []string{socketProtocol},
		InsecureSkipVerify: true, // that is: AllowSocket has looked
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return // it has answered
	}
	k.run(conn, r, s.h.upstream)
}

// add admits a socket, or says why not.
func (s *sockets) add(k *socket, ctx context.Context) (refusal string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return "the gateway is shutting down"
	case len(s.open) >= s.max:
		return fmt.Sprintf("%d are open, which is the limit", s.max)
	}
	k.life, k.die = context.WithCancel(ctx)
	k.rpc, k.end = context.WithCancelCause(k.life)
	s.open[k] = struct{}{}
	s.all.Add(1)
	return ""
}

func (s *sockets) remove(k *socket) {
	k.die()
	s.mu.Lock()
	delete(s.open, k)
	s.mu.Unlock()
	s.all.Done()
}

// drain opens no more, and waits for those that are open until ctx is done. Then
// their RPCs end with UNAVAILABLE, and a moment later their connections.
func (s *sockets) drain(ctx context.Context) {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.all.Wait()
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	s.each(func(k *socket) {
		k.end(&wire.Status{Code: wire.Unavailable, Message: "sluice: shutting down", Gateway: true})
	})
	select {
	case <-done:
	case <-time.After(lastWords):
		s.each(func(k *socket) { k.die() })
		<-done
	}
}

// lastWords is how long the end of an RPC may take to reach its client when there is
// no more time.
const lastWords = time.Second

func (s *sockets) each(f func(*socket)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.open {
		f(k)
	}
}

// upgrade gives the library its connection, and has it closed when the socket dies:
// the library has no way to interrupt its own farewell, which may take 5s.
type upgrade struct {
	http.ResponseWriter
	socket *socket
}

func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err == nil {
		context.AfterFunc(u.socket.life, func() { conn.Close() })
	}
	return conn, buffers, err
}

// socket is one RPC over a WebSocket: the body of its request, and its response.
type socket struct {
	conn *websocket.Conn
	ping time.Duration

	life context.Context // of the connection: what is done on it ends with it
	die  context.CancelFunc
	rpc  context.Context // of the RPC; its cause may be how it ends
	end  context.CancelCauseFunc

	// Owned by receive.
	message io.Reader // what is left of a message

	// Set by the reader, and seen by the pinging goroutine: answers are noticed only
	// while somebody reads.
	reading, ended atomic.Bool
	reads          atomic.Int64

	// Owned by the writer of the response.
	header http.Header
	out    []byte
}

// run serves the RPC. It returns when all is over, the connection closed.
func (k *socket) run(conn *websocket.Conn, r *http.Request, upstream http.Handler) {
	k.conn, k.header = conn, http.Header{}
	defer conn.CloseNow()
	request, ok := k.open(r)
	if !ok {
		return
	}
	in, out := io.Pipe()
	var beside sync.WaitGroup
	beside.Go(k.keepAlive)
	beside.Go(func() { k.receive(out) })
	defer beside.Wait()
	defer in.Close()
	defer k.die()

	b := &body{src: in}
	request.Body = b
	p := &reply{ResponseWriter: k}
	if st := refuseSocket(request); st != nil {
		p.fail(st)
	} else {
		upstream.ServeHTTP(p, request)
	}
	if st := k.ending(b); st != nil {
		p.fail(st)
	}
	k.finish(p.started)
}

// receive passes the request's body on until its end, or until nobody wants more: a
// read on the connection itself cannot be given up without the connection.
func (k *socket) receive(out *io.PipeWriter) {
	_, err := io.CopyBuffer(out, k, make([]byte, socketBuffer))
	out.CloseWithError(err)
}

// open reads the header and makes a request of gRPC of it.
func (k *socket) open(r *http.Request) (*http.Request, bool) {
	k.conn.SetReadLimit(maxSocketHeader)
	ctx, cancel := context.WithTimeout(k.life, openWithin)
	defer cancel()
	kind, head, err := k.conn.Read(ctx)
	if err != nil {
		return nil, false // too late, too large, or gone; the library has said so
	}
	header, err := parseHeader(head)
	if kind != websocket.MessageBinary || err != nil {
		k.conn.Close(websocket.StatusPolicyViolation, "the first message must have header fields")
		return nil, false
	}
	// From here on messages are read piece by piece, and need no bound.
	k.conn.SetReadLimit(-1)

	request := r.WithContext(k.rpc)
	request.Method = http.MethodPost
	request.Proto, request.ProtoMajor, request.ProtoMinor = "HTTP/2.0", 2, 0
	request.Header = header
	request.ContentLength = -1
	return request, true
}

// parseHeader reads header fields; an empty line at the end may be missing.
func parseHeader(head []byte) (http.Header, error) {
	if bytes.Count(head, []byte("\n")) > maxSocketFields {
		return nil, errors.New("too many header fields")
	}
	lines := io.MultiReader(bytes.NewReader(head), strings.NewReader("\r\n\r\n"))
	fields, err := textproto.NewReader(bufio.NewReader(lines)).ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	for name, values := range fields {
		if !isToken(name) || slices.ContainsFunc(values, invalidValue) {
			return nil, errors.New("a field that HTTP does not have")
		}
	}
	return http.Header(fields), nil
}

func invalidValue(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }

// refuseSocket says why a request is none that can be served, and makes it gRPC's if
// it can.
func refuseSocket(r *http.Request) *wire.Status {
	contentType := r.Header.Get("Content-Type")
	if wire.KindOf(contentType) != wire.KindGRPCWeb {
		return &wire.Status{
			Code: wire.InvalidArgument, Gateway: true,
			Message: "sluice: gRPC-Web: a WebSocket carries content-type application/grpc-web only",
		}
	}
	r.Header["Content-Type"] = []string{NativeType(contentType)}
	// What speaks of a connection speaks of none here.
	for _, name := range []string{"Connection", "Content-Length", "Host", "Transfer-Encoding", "Upgrade"} {
		delete(r.Header, name)
	}
	acceptPlain(r.Header)
	return nil
}

// ending is how the RPC ends if upstream is not the one who knows.
func (k *socket) ending(b *body) *wire.Status {
	if st := b.fault.Load(); st != nil {
		return st
	}
	var st *wire.Status
	errors.As(context.Cause(k.rpc), &st)
	return st
}

// Read reads the request's body.
func (k *socket) Read(p []byte) (int, error) {
	k.reading.Store(true)
	defer k.reading.Store(false)
	for !k.ended.Load() {
		if k.message == nil {
			if err := k.next(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := k.message.Read(p)
		k.reads.Add(1)
		if errors.Is(err, io.EOF) {
			k.message, err = nil, nil
		}
		if err != nil {
			return 0, k.gone()
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, io.EOF
}

// next begins the next message.
func (k *socket) next() error {
	kind, message, err := k.conn.Reader(k.life)
	k.reads.Add(1)
	if err != nil {
		return k.gone()
	}
	if kind != websocket.MessageBinary {
		return fault("the WebSocket has a message of text, want binary ones")
	}
	var first [1]byte
	switch _, err := io.ReadFull(message, first[:]); {
	case errors.Is(err, io.EOF):
		return fault("the WebSocket has a message without a byte")
	case err != nil:
		return k.gone()
	}
	switch first[0] {
	case socketData:
		k.message = message
	case socketEnd:
		if n, err := message.Read(first[:]); n > 0 || !errors.Is(err, io.EOF) {
			return fault("the WebSocket has a message of more than the byte 0x01, which says the end")
		}
		k.ended.Store(true)
		// It also sees the client go, and the answers to pings.
		context.AfterFunc(k.conn.CloseRead(k.life), func() { k.gone() })
	default:
		return fault("the WebSocket has a message that begins with 0x%02x, want 0x00 (data) or 0x01 (the end)", first[0])
	}
	return nil
}

// gone ends the RPC because its caller has gone. The RPC may have ended before.
func (k *socket) gone() error {
	st := &wire.Status{Code: wire.Canceled, Message: "sluice: the WebSocket was closed", Gateway: true}
	k.end(st)
	return st
}

// keepAlive asks the other end from time to time whether it is there; that also
// keeps open what stands in between. No answer counts only if somebody was there to
// read it all the time.
func (k *socket) keepAlive() {
	tick := time.NewTicker(k.ping)
	defer tick.Stop()
	for {
		select {
		case <-k.life.Done():
			return
		case <-tick.C:
		}
		before := k.reads.Load()
		ctx, cancel := context.WithTimeout(k.life, k.ping*3/2)
		err := k.conn.Ping(ctx)
		cancel()
		if err != nil && (k.ended.Load() || k.reading.Load()) && k.reads.Load() == before {
			k.gone()
			k.die()
			return
		}
	}
}

// Header, WriteHeader, Write and Flush are the response, as reply wants it.
func (k *socket) Header() http.Header { return k.header }

// WriteHeader sends the header. It is a message by itself, as the trailers are: the
// library's client reads nothing that comes behind fields in one message.
func (k *socket) WriteHeader(int) {
	k.out = AppendTrailers(k.out, fieldsOf(k.header, "")...)
	k.Flush()
}

func (k *socket) Write(p []byte) (int, error) {
	if len(k.out)+len(p) > socketBuffer {
		k.Flush()
	}
	if len(p) > socketBuffer {
		return len(p), k.send(p)
	}
	k.out = append(k.out, p...)
	return len(p), k.rpc.Err()
}

func (k *socket) Flush() {
	if len(k.out) > 0 {
		k.send(k.out)
		k.out = k.out[:0]
	}
}

// send sends a message. Who does not take it for long is given up.
func (k *socket) send(p []byte) error {
	ctx, cancel := context.WithTimeout(k.life, writeWithin)
	defer cancel()
	if err := k.conn.Write(ctx, websocket.MessageBinary, p); err != nil {
		return k.gone()
	}
	return nil
}

// finish sends the trailers, or the header of an RPC that has nothing else, and
// closes the connection in peace.
func (k *socket) finish(started bool) {
	prefix := ""
	if started {
		prefix = http.TrailerPrefix
	}
	k.Flush()
	k.out = AppendTrailers(k.out, fieldsOf(k.header, prefix)...)
	k.Flush()
	k.conn.Close(websocket.StatusNormalClosure, "")
}

// fieldsOf lists names and values in order: of the header, or of what is under names
// that begin with prefix.
func fieldsOf(h http.Header, prefix string) []string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(h)) {
		name, found := strings.CutPrefix(key, prefix)
		if !found || prefix == "" && strings.HasPrefix(key, http.TrailerPrefix) || key == "Trailer" {
			continue
		}
		for _, value := range h[key] {
			pairs = append(pairs, name, value)
		}
	}
	return pairs
}
