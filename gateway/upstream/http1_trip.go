package upstream

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"time"
)

// lastAnswer is how long a trip goes on whose connection has ended: an answer that came
// before that is on its way through the transport.
const lastAnswer = 100 * time.Millisecond

// http1Trip is a request with a body at a backend of HTTP/1, and its response. Net/http
// returns neither when its request is cancelled nor when the connection has ended until
// its writer has noticed, and that may wait for the client's next byte. A trip does not
// wait with it: what is left goes on by itself until the body's reader returns, and has
// no effect.
type http1Trip struct {
	req    *http.Request
	conns  chan *http1Conn // that the request is sent on, one after the other
	answer chan http1Answer
}

type http1Answer struct {
	res *http.Response
	err error
}

// maxTripConns is how many connections a trip is noted to have used: net/http takes
// another one when one that was idle turns out to be dead.
const maxTripConns = 8

func (e *Endpoint) tripHTTP1(req *http.Request) (*http.Response, error) {
	t := &http1Trip{conns: make(chan *http1Conn, maxTripConns), answer: make(chan http1Answer)}
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: t.on})
	t.req = req.WithContext(ctx)
	over := make(chan struct{})
	defer close(over)
	e.mu.Lock()
	if e.retired { // the pool may not wait for what would begin now
		e.mu.Unlock()
		req.Body.Close()
		return nil, ErrRetired
	}
	transport := e.http.transport.Load()
	e.pool.work.Go(func() { t.run(transport, over) })
	e.mu.Unlock()
	return t.wait(ctx)
}

// run ends when net/http does, be it after the trip is over.
func (t *http1Trip) run(transport *http.Transport, over <-chan struct{}) {
	res, err := transport.RoundTrip(t.req)
	select {
	case t.answer <- http1Answer{res, err}:
	case <-over:
		if err == nil {
			res.Body.Close()
		}
	}
}

// on notes a connection.
func (t *http1Trip) on(info httptrace.GotConnInfo) {
	var nc net.Conn = info.Conn
	if secured, ok := nc.(*tls.Conn); ok {
		nc = secured.NetConn()
	}
	if c, ok := nc.(*http1Conn); ok {
		select {
		case t.conns <- c:
		default:
		}
	}
}

func (t *http1Trip) wait(ctx context.Context) (*http.Response, error) {
	var c *http1Conn
	var gone <-chan struct{}
	var late <-chan time.Time
	for {
		select {
		case a := <-t.answer:
			return a.res, a.err
		case c = <-t.conns:
			gone, late = c.gone, nil
		case <-gone:
			gone, late = nil, time.After(lastAnswer)
		case <-late:
			return nil, c.lost()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// lost is what a request fails of whose connection has ended.
func (c *http1Conn) lost() error {
	if c.evicted.Load() {
		return ErrEvicted
	}
	return io.ErrUnexpectedEOF
}
