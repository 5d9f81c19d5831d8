package rest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// connectWay leads every RPC to one backend, which is a function.
type connectWay struct {
	backend func(*connectCall) *wire.Status
	methods map[string]*schema.Method
	limits  Limits
	refuse  *wire.Status // what Open says

	mu    sync.Mutex // guards calls
	calls []*connectCall
}

func (y *connectWay) Open(r *http.Request, o *Opening) (Call, error) {
	if y.refuse != nil {
		return nil, y.refuse
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	c := &connectCall{
		way: y, ctx: ctx, cancel: cancel, o: o,
		up: make(chan Message), down: make(chan Message), begun: make(chan struct{}), ended: make(chan struct{}),
	}
	if o.Timeout > 0 {
		var stop context.CancelFunc
		c.ctx, stop = context.WithTimeoutCause(ctx, o.Timeout, &wire.Status{Code: wire.DeadlineExceeded, Message: "sluice: too late"})
		c.stop = stop
	}
	y.mu.Lock()
	y.calls = append(y.calls, c)
	y.mu.Unlock()
	return c, nil
}

func (y *connectWay) Table(*http.Request) *Table { return nil }
func (y *connectWay) Learn(*http.Request) *Table { return nil }

func (y *connectWay) Method(_ context.Context, _, path string) (*schema.Method, error) {
	if m := y.methods[path]; m != nil {
		return m, nil
	}
	if y.methods[pathUnary] != nil && path == "/test.v1.Echo/Missing" {
		return nil, fmt.Errorf("describe %q: %w", path, schema.ErrNoMethod)
	}
	return nil, schema.ErrNoSchema
}

// last is the newest RPC.
func (y *connectWay) last(t *testing.T) *connectCall {
	t.Helper()
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.calls) == 0 {
		t.Fatal("no RPC was opened")
	}
	return y.calls[len(y.calls)-1]
}

// connectCall is an RPC with its backend's side.
type connectCall struct {
	way    *connectWay
	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   context.CancelFunc
	o      *Opening
	begin  sync.Once
	work   sync.WaitGroup

	up, down chan Message
	half     sync.Once
	begun    chan struct{} // closed with the response's header
	ended    chan struct{}

	// The backend's, read by the other side after begun or ended.
	header   http.Header
	encoding string
	trailer  http.Header
	once     sync.Once
	status   *wire.Status
	finish   sync.Once

	mu      sync.Mutex // guards the fields below
	aborted *wire.Status
	closed  bool
}

func (c *connectCall) Backend() string { return "default/test" }

func (c *connectCall) Limits() Limits {
	l := c.way.limits
	if l.MaxMessage == 0 {
		l.MaxMessage = DefaultMaxMessage
	}
	return l
}

func (c *connectCall) start() {
	c.begin.Do(func() {
		c.work.Go(func() {
			st := c.way.backend(c)
			if c.ctx.Err() != nil {
				st = c.why()
			}
			c.end(st)
		})
	})
}

func (c *connectCall) end(st *wire.Status) {
	c.finish.Do(func() {
		c.status = st
		c.once.Do(func() { close(c.begun) })
		close(c.ended)
	})
}

// why is what an RPC that did not end by its backend ended by.
func (c *connectCall) why() *wire.Status {
	if st, ok := context.Cause(c.ctx).(*wire.Status); ok {
		return st
	}
	return &wire.Status{Code: wire.Canceled, Message: "sluice: caller left"}
}

func (c *connectCall) Send(m Message, last bool) error {
	c.start()
	m.Data = append([]byte(nil), m.Data...)
	select {
	case c.up <- m:
	case <-c.ended:
		return &wire.Status{Code: wire.Internal, Message: "sent after the end"}
	case <-c.ctx.Done():
		return c.why()
	}
	if last {
		return c.CloseSend()
	}
	return nil
}

func (c *connectCall) CloseSend() error {
	c.start()
	c.half.Do(func() { close(c.up) })
	return nil
}

func (c *connectCall) Header() (http.Header, error) {
	select {
	case <-c.begun:
		return c.header, nil
	case <-c.ctx.Done():
		return nil, c.why()
	}
}

func (c *connectCall) Encoding() string { return c.encoding }

func (c *connectCall) Receive() (Message, error) {
	select {
	case m := <-c.down:
		return m, nil
	default:
	}
	select {
	case m := <-c.down:
		return m, nil
	case <-c.ended:
		if c.status == nil {
			return Message{}, io.EOF
		}
		return Message{}, c.status
	case <-c.ctx.Done():
		return Message{}, c.why()
	}
}

func (c *connectCall) Trailer() http.Header {
	select {
	case <-c.ended:
		return c.trailer
	default:
		return nil
	}
}

func (c *connectCall) Abort(st *wire.Status) *wire.Status {
	c.mu.Lock()
	if c.aborted == nil {
		c.aborted = st
	}
	c.mu.Unlock()
	c.cancel(st)
	return st
}

func (c *connectCall) Close() {
	c.cancel(nil)
	if c.stop != nil {
		c.stop()
	}
	c.work.Wait()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
}

// recv is the backend's view of the caller's messages.
func (c *connectCall) recv() (Message, bool) {
	select {
	case m, ok := <-c.up:
		return m, ok
	case <-c.ctx.Done():
		return Message{}, false
	}
}

// respond sends the header, at the latest with the first message.
func (c *connectCall) respond() { c.once.Do(func() { close(c.begun) }) }

func (c *connectCall) send(m Message) {
	c.respond()
	select {
	case c.down <- m:
	case <-c.ctx.Done():
	}
}

// testMethod describes a method of StringValue in and out.
func testMethod(path string, client, server, idempotent bool) *schema.Method {
	kind := (&wrapperspb.StringValue{}).ProtoReflect().Type()
	return &schema.Method{
		Path: path, Input: kind, Output: kind,
		ClientStreaming: client, ServerStreaming: server, NoSideEffects: idempotent,
	}
}

// serveConnect serves a way over loopback HTTP/1.1 and HTTP/2, and looks in the end
// whether every RPC was closed.
func serveConnect(t *testing.T, way *connectWay) *httptest.Server {
	t.Helper()
	var handlers sync.WaitGroup // over HTTP/2 the server does not wait for them
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers.Add(1)
		defer handlers.Done()
		if !IsConnect(r) {
			http.Error(w, "not Connect", http.StatusTeapot)
			return
		}
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close") // what is left of a request is the server's to see to
		}
		Connect{}.ServeConnect(w, r, way)
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		handlers.Wait()
		way.mu.Lock()
		defer way.mu.Unlock()
		for _, c := range way.calls {
			c.mu.Lock()
			if !c.closed {
				t.Errorf("RPC %s was not closed", c.o.Method)
			}
			c.mu.Unlock()
		}
	})
	return s
}

// clientOf speaks one version of HTTP, in clear.
func clientOf(t *testing.T, version int) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetHTTP1(version == 1)
	tr.Protocols.SetUnencryptedHTTP2(version == 2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}
