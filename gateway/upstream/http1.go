package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/store"
)

const (
	// defaultMaxHTTP1 bounds the connections to one endpoint that takes one request on
	// each at a time: as many as other proxies allow before they refuse.
	defaultMaxHTTP1 = 1024
	// idleHTTP1 is how long a connection waits for its next request. Servers close
	// theirs earlier or later; whoever is first, the next request has another.
	idleHTTP1 = 60 * time.Second
	// ResponseTimeout is how long a backend may think before its response begins, once
	// it has the whole request.
	ResponseTimeout = 5 * time.Minute
	// continueTimeout is how long a request that asks before it sends its body waits to
	// be asked for it.
	continueTimeout = time.Second
	// maxResponseHeader bounds a response's header section, in bytes.
	maxResponseHeader = 64 << 10
)

// http1 is how an endpoint is spoken to that takes one request at a time on each
// connection: by net/http's transport, with the endpoint's own dials.
type http1 struct {
	transport atomic.Pointer[http.Transport] // nil before adopt
	limit     atomic.Int64                   // of connections, and so of requests
	open      atomic.Int64                   // connections

	mu    sync.Mutex              // guards the field below
	conns map[*http1Conn]struct{} // those that are open
}

// evict ends every connection, and the request on it.
func (h *http1) evict() {
	h.mu.Lock()
	conns := slices.Collect(maps.Keys(h.conns))
	h.mu.Unlock()
	for _, c := range conns {
		c.evicted.Store(true)
		c.Conn.Close()
	}
}

// keep notes a connection until it is closed.
func (h *http1) keep(c *http1Conn) {
	h.open.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conns == nil {
		h.conns = make(map[*http1Conn]struct{})
	}
	h.conns[c] = struct{}{}
}

func (h *http1) drop(c *http1Conn) {
	h.open.Add(-1)
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}

// adoptHTTP1 puts the settings in force that are the transport's. The caller holds mu.
func (e *Endpoint) adoptHTTP1(s settings) {
	limit := int64(s.maxConns)
	if limit == 0 {
		limit = defaultMaxHTTP1
	}
	before := e.http.transport.Load()
	if before != nil && e.http.limit.Load() == limit {
		return
	}
	e.http.limit.Store(limit)
	e.http.transport.Store(e.newTransport(int(limit)))
	if before != nil {
		before.CloseIdleConnections()
	}
}

func (e *Endpoint) newTransport(limit int) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  nil, // what the environment says of proxies is not about backends
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return e.dialHTTP1(ctx) },
		DialTLSContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return e.dialHTTP1(ctx) },
		DisableCompression:     true, // bodies go through as they are
		MaxIdleConnsPerHost:    limit,
		MaxConnsPerHost:        limit,
		IdleConnTimeout:        idleHTTP1,
		ResponseHeaderTimeout:  ResponseTimeout,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
		Protocols:              protocols,
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
}

// RoundTrip sends a request of HTTP, whose URL's host and scheme it does not look at.
// An error that is one of this package's means that the request never left, and that
// its body was not touched but for Close.
func (e *Endpoint) RoundTrip(req *http.Request) (*http.Response, error) {
	e.mu.Lock()
	retired, secured := e.retired, e.settings.tls != nil
	e.mu.Unlock()
	out := *req
	u := url.URL{Scheme: "http", Host: e.id.address}
	if secured {
		u.Scheme = "https"
	}
	if req.URL != nil {
		u.Path, u.RawPath, u.RawQuery, u.ForceQuery = req.URL.Path, req.URL.RawPath, req.URL.RawQuery, req.URL.ForceQuery
	}
	out.URL = &u
	if e.http == nil {
		return (&h2.RoundTripper{Open: e.openWhenUp}).RoundTrip(&out)
	}
	var refused error
	switch {
	case retired:
		refused = ErrRetired
	case int64(e.Active()) > e.http.limit.Load():
		refused = ErrFull
	}
	if refused != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, refused
	}
	if req.Body != nil && req.Body != http.NoBody {
		return e.tripHTTP1(&out)
	}
	return e.http.transport.Load().RoundTrip(&out)
}

// openWhenUp opens a stream, and waits as long as a connection is being dialled.
func (e *Endpoint) openWhenUp(ctx context.Context, s *h2.Stream, o *h2.Opening, b *h2.Batch) (release func(), err error) {
	for {
		err := e.Open(s, o, b)
		if !errors.Is(err, ErrConnecting) {
			return func() {}, err
		}
		w := make(waitChannel, 1)
		if err := e.Wait(w); err != nil {
			return nil, err
		}
		select {
		case err := <-w:
			if err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrConnecting, context.Cause(ctx))
		}
	}
}

// waitChannel is a Waiter that somebody receives from.
type waitChannel chan error

func (w waitChannel) Resume(err error) { w <- err }

// dialHTTP1 connects, and agrees on TLS, within the connect timeout. The endpoint
// stands back when that fails, until it answers.
func (e *Endpoint) dialHTTP1(ctx context.Context) (net.Conn, error) {
	nc, err := e.connectHTTP1(ctx)
	if ctx.Err() != nil && err != nil {
		return nil, err // whoever wanted it has gone
	}
	e.pool.write(e.dialled(err))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDown, err)
	}
	return nc, nil
}

// dialled notes how a dial for a request went, and returns what is to be logged of it.
func (e *Endpoint) dialled(err error) (news *line) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.down, e.upSince = nil, time.Now()
		e.mark(balance.Down, false)
		if e.hurry != nil { // whoever rests before it tries again has nothing to find out
			close(e.hurry)
			e.hurry = nil
		}
		return nil
	}
	if !e.left.IsZero() || e.retired {
		return nil
	}
	if e.down == nil {
		news = e.unreached(err)
	}
	e.down, e.missed = err, true
	e.mark(balance.Down, true)
	e.probe(backoffMin)
	return news
}

func (e *Endpoint) connectHTTP1(ctx context.Context) (net.Conn, error) {
	e.dials.Add(1)
	e.mu.Lock()
	set := e.settings
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, set.timeout)
	defer cancel()
	nc, err := e.secure(ctx, set)
	if err != nil {
		e.failures.Add(1)
	}
	return nc, err
}

func (e *Endpoint) secure(ctx context.Context, set settings) (net.Conn, error) {
	nc, err := e.connection(ctx)
	if err != nil {
		return nil, err
	}
	c := &http1Conn{Conn: nc, e: e, gone: make(chan struct{})}
	e.http.keep(c)
	c.stop = context.AfterFunc(e.pool.ctx, func() { nc.Close() })
	if set.tls == nil {
		return c, nil
	}
	t := tls.Client(c, tlsFor(set.tls, e.id.address))
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("tls with %q: %w", e.id.address, err)
	}
	if got := t.ConnectionState().NegotiatedProtocol; got != "" && got != alpnHTTP1 {
		c.Close()
		return nil, fmt.Errorf("tls with %q: alpn gave %q, want %q", e.id.address, got, alpnHTTP1)
	}
	return t, nil
}

// alpnHTTP1 is what HTTP/1 is called in TLS (RFC 7301, section 6).
const alpnHTTP1 = "http/1.1"

// http1Conn is counted as long as it is open, and ends with the pool.
type http1Conn struct {
	net.Conn
	e       *Endpoint
	stop    func() bool
	gone    chan struct{} // closed by Close
	closed  atomic.Bool
	evicted atomic.Bool
}

// Read tells whose doing it is that there is nothing more to read.
func (c *http1Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && c.evicted.Load() {
		err = ErrEvicted
	}
	return n, err
}

func (c *http1Conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	close(c.gone)
	c.stop()
	c.e.http.drop(c)
	return c.Conn.Close()
}

// CloseWrite ends our half, for those who speak another protocol by now.
func (c *http1Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// probe has somebody see whether the endpoint answers, for the first time after wait,
// unless somebody does. The caller holds mu.
func (e *Endpoint) probe(wait time.Duration) {
	if e.dialling > 0 || e.retired || e.pool.ctx.Err() != nil {
		return
	}
	if e.ctx == nil {
		e.ctx, e.cancel = context.WithCancel(e.pool.ctx)
	}
	e.dialling++
	e.pool.work.Go(func() { e.probeUntilUp(wait) })
}

// probeUntilUp connects again and again, with the pauses of a dial, until the endpoint
// answers, has answered somebody else, or is wanted no longer.
func (e *Endpoint) probeUntilUp(wait time.Duration) {
	for ; ; wait = min(max(2*wait, backoffMin), backoffMax) {
		if wait > 0 {
			e.pause(wait)
		}
		if e.recovered() {
			return
		}
		nc, err := e.connectHTTP1(e.ctx)
		if err == nil {
			nc.Close()
		}
		e.mu.Lock()
		if e.down = err; err == nil {
			e.upSince = time.Now()
			e.dialling--
		}
		e.missed = e.missed || err != nil
		e.mark(balance.Down, err != nil)
		e.mu.Unlock()
		if err == nil {
			return
		}
	}
}

// recovered tells whether there is nothing left to find out.
func (e *Endpoint) recovered() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Condition()&balance.Down != 0 && e.ctx.Err() == nil && e.left.IsZero() {
		return false
	}
	e.dialling--
	return true
}

// usesTLS tells whether the endpoints of a backend are spoken to in TLS.
func usesTLS(spec *store.Backend) bool {
	switch spec.Spec.Protocol {
	case store.ProtocolTLS:
		return true
	case store.ProtocolHTTP1:
		return spec.Spec.TLS != nil
	}
	return false
}
