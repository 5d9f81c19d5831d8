package h2

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memoryConn is one end of a connection in memory whose waits are those of a
// synctest bubble. Like a socket it takes as many bytes as there is room for
// before the other end reads any.
type memoryConn struct {
	in, out *memoryPipe
}

func newMemoryConns(room int) (a, b *memoryConn) {
	ab, ba := newMemoryPipe(room), newMemoryPipe(room)
	return &memoryConn{in: ba, out: ab}, &memoryConn{in: ab, out: ba}
}

func (c *memoryConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *memoryConn) Write(p []byte) (int, error) { return c.out.write(p) }

func (c *memoryConn) Close() error {
	c.out.shut()
	c.in.breakOff()
	return nil
}

func (c *memoryConn) CloseWrite() error {
	c.out.shut()
	return nil
}

func (c *memoryConn) LocalAddr() net.Addr  { return memoryAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr { return memoryAddr{} }

func (c *memoryConn) SetDeadline(at time.Time) error {
	c.in.reading.set(c.in, at)
	c.out.writing.set(c.out, at)
	return nil
}

func (c *memoryConn) SetReadDeadline(at time.Time) error {
	c.in.reading.set(c.in, at)
	return nil
}

func (c *memoryConn) SetWriteDeadline(at time.Time) error {
	c.out.writing.set(c.out, at)
	return nil
}

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

// memoryPipe is one direction.
type memoryPipe struct {
	mu      sync.Mutex // guards the fields below
	changed sync.Cond  // on mu
	buf     []byte
	room    int  // bytes that buf may hold
	writes  int  // calls of write so far
	shutIn  bool // nothing more will be written
	broken  bool // nobody will read
	reading memoryDeadline
	writing memoryDeadline
}

// memoryDeadline is guarded by its pipe's mutex.
type memoryDeadline struct {
	timer  *time.Timer
	passed bool
}

func newMemoryPipe(room int) *memoryPipe {
	p := &memoryPipe{room: room}
	p.changed.L = &p.mu
	return p
}

func (d *memoryDeadline) set(p *memoryPipe, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.passed = !at.IsZero() && !time.Now().Before(at)
	if !at.IsZero() && !d.passed {
		var timer *time.Timer
		timer = time.AfterFunc(time.Until(at), func() {
			p.mu.Lock()
			d.passed = d.passed || d.timer == timer
			p.mu.Unlock()
			p.changed.Broadcast()
		})
		d.timer = timer
	}
	p.changed.Broadcast()
}

func (p *memoryPipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.buf) == 0 {
		switch {
		case p.broken:
			return 0, net.ErrClosed
		case p.reading.passed:
			return 0, os.ErrDeadlineExceeded
		case p.shutIn:
			return 0, io.EOF
		}
		p.changed.Wait()
	}
	n := copy(b, p.buf)
	p.took(n)
	return n, nil
}

// took drops what has been read. The caller holds mu.
func (p *memoryPipe) took(n int) {
	if p.buf = p.buf[n:]; len(p.buf) == 0 {
		p.buf = nil
	}
	p.changed.Broadcast()
}

func (p *memoryPipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writes++
	for {
		switch {
		case p.shutIn:
			return n, net.ErrClosed
		case p.broken:
			return n, syscall.EPIPE
		case p.writing.passed:
			return n, os.ErrDeadlineExceeded
		case n == len(b):
			return n, nil
		}
		if m := min(len(b)-n, p.room-len(p.buf)); m > 0 {
			p.buf = append(p.buf, b[n:n+m]...)
			n += m
			p.changed.Broadcast()
			continue
		}
		p.changed.Wait()
	}
}

// take returns up to n bytes that have been written, without waiting; all of
// them for a negative n. ended is true when no more will come.
func (p *memoryPipe) take(n int) (b []byte, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n < 0 || n > len(p.buf) {
		n = len(p.buf)
	}
	b = append(b, p.buf[:n]...)
	p.took(n)
	return b, p.shutIn && len(p.buf) == 0
}

func (p *memoryPipe) written() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writes
}

func (p *memoryPipe) setRoom(n int) {
	p.mu.Lock()
	p.room = n
	p.mu.Unlock()
	p.changed.Broadcast()
}

func (p *memoryPipe) shut() {
	p.mu.Lock()
	p.shutIn = true
	p.mu.Unlock()
	p.changed.Broadcast()
}

// breakOff is the end of the reading side: what was not read is lost.
func (p *memoryPipe) breakOff() {
	p.mu.Lock()
	p.broken = true
	p.buf = nil
	p.mu.Unlock()
	p.changed.Broadcast()
}
