package admin

import (
	"net"
	"sync"
	"sync/atomic"
)

// cappedListener closes at once what it accepts beyond its limit: whoever comes
// then learns it now, and not when somebody else has gone.
type cappedListener struct {
	net.Listener
	limit int64
	open  atomic.Int64
}

func newCappedListener(l net.Listener, limit int64) *cappedListener {
	return &cappedListener{Listener: l, limit: limit}
}

func (l *cappedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.limit {
			return &cappedConn{Conn: conn, leave: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
		}
		l.open.Add(-1)
		conn.Close()
	}
}

// cappedConn leaves its place to another when it is closed, however often.
type cappedConn struct {
	net.Conn
	leave func()
}

func (c *cappedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
