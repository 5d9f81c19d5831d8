package listen

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is one accepted connection. While it is sniffed it remembers what cmux
// has read, because cmux keeps that in a connection of its own, which hides the
// socket; from then on it is the bare connection, counted as open until it is
// closed.
type conn struct {
	net.Conn

	// Fixed at construction.
	gate     *gate
	deadline time.Time // for everything that comes before the first request

	// Owned by the goroutine that the connection is with: cmux's, then ours.
	info     Info // of a trusted proxy's PROXY header, once that is read
	proxied  bool
	proxyDue bool   // a PROXY header is to come
	ahead    []byte // read behind the PROXY header
	seen     []byte // read by cmux
	err      error  // that ended the sniffing
	passed   bool   // sniffing is over
	http2    bool   // what the connection has turned out to be

	dropped  atomic.Bool // we have closed it ourselves while it was sniffed
	closed   sync.Once
	closeErr error
}

// Read reads from the socket. While the connection is sniffed, the PROXY header
// is not part of what is read.
func (c *conn) Read(p []byte) (int, error) {
	if c.passed {
		return c.Conn.Read(p)
	}
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.sniff(p)
	c.seen = append(c.seen, p[:n]...)
	c.err = err
	return n, err
}

func (c *conn) sniff(p []byte) (int, error) {
	if c.proxyDue {
		c.proxyDue = false
		if err := c.readProxyHeader(); err != nil {
			return 0, err
		}
	}
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// pass ends the sniffing and returns everything that was read from the socket
// and belongs to the conversation.
func (c *conn) pass() (unread []byte) {
	c.gate.sniffed(c)
	unread = append(c.seen, c.ahead...)
	c.seen, c.ahead, c.passed = nil, nil, true
	return unread
}

// SetReadDeadline sets the read deadline. While the connection is sniffed it
// never goes beyond the handshake's: cmux, when it has a match, would clear it.
func (c *conn) SetReadDeadline(at time.Time) error {
	if !c.passed && (at.IsZero() || at.After(c.deadline)) {
		at = c.deadline
	}
	return c.Conn.SetReadDeadline(at)
}

// Close closes the connection; it is then no longer counted as open. It is cmux
// that closes one which is still sniffed.
func (c *conn) Close() error {
	c.closed.Do(func() {
		if !c.passed {
			c.gate.sniffed(c)
			c.gate.counters.add(c.fate())
		}
		c.closeErr = c.Conn.Close()
		c.gate.open.Add(-1)
	})
	return c.closeErr
}

// CloseWrite ends our half, where the connection has halves.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// SyscallConn gives access to the descriptor, where there is one.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// RemoteAddr returns the client's address, also behind a trusted proxy.
func (c *conn) RemoteAddr() net.Addr {
	if c.proxied {
		return net.TCPAddrFromAddrPort(c.info.Remote)
	}
	return c.Conn.RemoteAddr()
}

// LocalAddr returns the address that the client connected to.
func (c *conn) LocalAddr() net.Addr {
	if c.proxied {
		return net.TCPAddrFromAddrPort(c.info.Local)
	}
	return c.Conn.LocalAddr()
}

// fate returns why sniffing came to nothing.
func (c *conn) fate() fate {
	switch {
	case c.dropped.Load():
		return stopped
	case c.err == nil:
		return unknownProtocol
	case errors.Is(c.err, errProxyHeader):
		return proxyHeader
	case errors.Is(c.err, os.ErrDeadlineExceeded):
		return sniffTimeout
	default:
		return sniffClosed
	}
}

// readProxyHeader takes the PROXY header off the beginning of the connection.
func (c *conn) readProxyHeader() error {
	buf := make([]byte, 0, 256)
	for {
		header, size, err := parseProxyHeader(buf, c.gate.limits.proxyLength)
		if err != nil {
			return err
		}
		if size > 0 {
			c.ahead = buf[size:]
			c.adopt(header)
			return nil
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := c.Conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) && len(buf) > 0 {
				return errProxyHeader
			}
			return err
		}
	}
}

// adopt takes the addresses of the PROXY header, when it has any.
func (c *conn) adopt(header proxyAddrs) {
	if header.source.IsValid() {
		c.info.Remote, c.info.Local, c.proxied = header.source, header.destination, true
	}
}
