package listen

import (
	"context"
	"net"
	"sync"
	"time"

	"sluice/gateway/h2"
)

// http1Queue is the listener that an HTTP/1 server takes its connections from.
type http1Queue struct {
	addr   net.Addr
	conns  chan *http1Conn
	closed chan struct{}
	once   sync.Once
}

func newHTTP1Queue(addr net.Addr) *http1Queue {
	return &http1Queue{addr: addr, conns: make(chan *http1Conn), closed: make(chan struct{})}
}

// offer waits until the server takes the connection, and returns false when it
// does not.
func (q *http1Queue) offer(ctx context.Context, c *http1Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.closed:
	case <-ctx.Done():
	}
	return false
}

func (q *http1Queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *http1Queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (q *http1Queue) Addr() net.Addr { return q.addr }

// http1Conn is a connection of an HTTP/1 server.
type http1Conn struct {
	*h2.Transport
	info Info

	deadline time.Time // of the first request header
	begun    bool      // the server has set a deadline
}

// SetReadDeadline sets the read deadline. The first one that net/http sets, if
// it has any timeout for headers, is that of the first request header; it begins
// to count now, and ours began at accept. The next comes when the header is
// complete.
func (c *http1Conn) SetReadDeadline(at time.Time) error {
	if !c.begun && at.After(c.deadline) {
		at = c.deadline
	}
	c.begun = true
	return c.Transport.SetReadDeadline(at)
}

// InfoOf returns what is known of a connection that the HTTP/1 server has
// accepted, for its ConnContext.
func InfoOf(nc net.Conn) (Info, bool) {
	c, ok := nc.(*http1Conn)
	if !ok {
		return Info{}, false
	}
	return c.info, true
}
