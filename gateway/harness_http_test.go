package gateway

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rawServer is a backend that speaks HTTP/1 byte by byte.
type rawServer struct {
	addr  string
	conns atomic.Int64
}

// rawConn is one connection to it.
type rawConn struct {
	net.Conn
	*bufio.Reader
}

func (c *rawConn) Read(p []byte) (int, error) { return c.Reader.Read(p) }

// rawBackend has f serve each connection until the test ends; it is closed when f
// returns.
func rawBackend(t testing.TB, f func(c *rawConn)) *rawServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{addr: l.Addr().String()}
	var work sync.WaitGroup
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	work.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			nc.SetDeadline(time.Now().Add(patience))
			mu.Lock()
			open[nc] = true
			mu.Unlock()
			work.Go(func() {
				defer nc.Close()
				f(&rawConn{nc, bufio.NewReader(nc)})
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for nc := range open {
			nc.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	return s
}

// readHead reads up to the empty line; it is empty at the end of the connection.
func (c *rawConn) readHead() string {
	var head strings.Builder
	for {
		line, err := c.ReadString('\n')
		if err != nil {
			return ""
		}
		if line == "\r\n" {
			return head.String()
		}
		head.WriteString(line)
	}
}

func (c *rawConn) write(s string) { io.WriteString(c.Conn, s) }
