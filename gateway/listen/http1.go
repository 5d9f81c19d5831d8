package listen

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"sluice/gateway/h2"
)

// beginsHTTP1 is cmux's matcher for a request line (RFC 9112, section 3): a method,
// a space, and what a request target can begin with.
func beginsHTTP1(r io.Reader) bool {
	var line [maxHTTP1Method + 2]byte
	for n := 0; n < len(line); {
		m, err := r.Read(line[n:])
		n += m
		if matches, certain := isRequestLine(line[:n]); certain {
			return matches
		}
		if err != nil {
			return false
		}
	}
	return false
}

// maxHTTP1Method is the longest method that is taken for one, bytes. The longest
// that is registered is UPDATEREDIRECTREF, with 17.
const maxHTTP1Method = 24

// isRequestLine reports whether line is the beginning of a request line, as soon
// as that is certain. Targets are paths, "*", or an http URI; CONNECT has a host.
func isRequestLine(line []byte) (matches, certain bool) {
	method, target, found := bytes.Cut(line, []byte(" "))
	for _, c := range method {
		if !isMethodChar(c) {
			return false, true
		}
	}
	if !found || len(target) == 0 {
		return false, found && len(method) == 0
	}
	switch string(method) {
	case "", "PRI": // a preface that is not quite one
		return false, true
	case http.MethodConnect:
		return true, true
	}
	return bytes.IndexByte([]byte("/*hH"), target[0]) >= 0, true
}

// isMethodChar reports whether c may be part of a method. A token may hold more
// (RFC 9110, section 5.6.2); no method does.
func isMethodChar(c byte) bool {
	return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || c == '-' || c == '_'
}

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
	info  Info
	stall time.Duration

	deadline time.Time // of the first request header

	mu      sync.Mutex // guards the fields below
	begun   bool       // the server has set a deadline
	until   time.Time  // when the server's own deadline for writes is, zero for none
	renewed time.Time  // when the one in force was set
}

// stallUnit is what a client has to take before its time begins anew, bytes.
const stallUnit = 64 << 10

// Write ends when the client takes nothing for long: an answer, and all that it holds,
// would else wait for ever.
func (c *http1Conn) Write(p []byte) (n int, err error) {
	for err == nil {
		unit := p[n:min(len(p), n+stallUnit)]
		c.renew()
		var m int
		m, err = c.Transport.Write(unit)
		if n += m; n == len(p) {
			break
		}
	}
	return n, err
}

// renew sets the deadline for writes anew, if it was not done lately.
func (c *http1Conn) renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.renewed) < c.stall/10 {
		return
	}
	c.renewed = now
	at := now.Add(c.stall)
	if !c.until.IsZero() && c.until.Before(at) {
		at = c.until
	}
	c.Transport.SetWriteDeadline(at)
}

// SetWriteDeadline sets the server's own deadline for writes, beside that of a client
// that takes nothing.
func (c *http1Conn) SetWriteDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until, c.renewed = at, time.Time{}
	return c.Transport.SetWriteDeadline(at)
}

// SetDeadline sets both deadlines.
func (c *http1Conn) SetDeadline(at time.Time) error {
	if err := c.SetReadDeadline(at); err != nil {
		return err
	}
	return c.SetWriteDeadline(at)
}

// SetReadDeadline sets the read deadline. The first one that net/http sets, if
// it has any timeout for headers, is that of the first request header; it begins
// to count now, and ours began at accept. The next comes when the header is
// complete.
func (c *http1Conn) SetReadDeadline(at time.Time) error {
	c.mu.Lock()
	if !c.begun && at.After(c.deadline) {
		at = c.deadline
	}
	c.begun = true
	c.mu.Unlock()
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
