package h2

import (
	"time"

	"golang.org/x/net/http2"
)

// probe asks a backend that has been silent whether it still lives, before an RPC
// depends on it. A PING is sent only beside a new stream, at most once in
// probeEvery: grpc's servers count pings and end connections for them.
type probe struct {
	heard time.Time // when anything last arrived
	sent  time.Time // zero while no answer is due
	last  time.Time // when the last PING was sent
	never bool      // the peer has complained of too_many_pings
}

const (
	probeAfter   = 30 * time.Second // of silence
	probeEvery   = 5 * time.Minute  // grpc's default MinTime
	probeTimeout = 10 * time.Second // for the answer, then the connection is dead
)

var probePing = [8]byte{'a', 'l', 'i', 'v', 'e'}

// probeIfIdle puts a PING beside the stream that is being opened. The caller holds
// mu.
func (c *Conn) probeIfIdle() {
	p := c.probe
	now := time.Now()
	if p.never || len(c.streams) > 1 || p.heard.IsZero() ||
		now.Sub(p.heard) < probeAfter || now.Sub(p.last) < probeEvery {
		return
	}
	p.sent, p.last = now, now
	c.out = appendPing(c.buffer(), false, probePing)
}

// NeverProbe keeps the connection to a backend from ever sending a PING of its own.
func (c *Conn) NeverProbe() {
	c.mu.Lock()
	c.probe.never = true
	c.mu.Unlock()
}

// ProbesUnwelcome reports whether no PING may be sent, above all because the
// backend has complained. It holds for its other connections, too.
func (c *Conn) ProbesUnwelcome() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.probe.never
}

// heard notes that a backend lives: anything that it sends proves it.
func (c *Conn) heard() {
	if c.side == Downstream {
		return
	}
	c.mu.Lock()
	c.probe.heard = c.now
	c.probe.sent = time.Time{}
	c.mu.Unlock()
}

// handlePing answers, or takes the answer to ours. RFC 9113 section 6.7.
func (c *Conn) handlePing(h frameHeader, p []byte) error {
	switch {
	case h.id != 0:
		return protocolError("PING on stream %d", h.id)
	case len(p) != 8:
		return &connError{http2.ErrCodeFrameSize, ReasonFrameSize, "PING of other than 8 bytes"}
	}
	data := [8]byte(p)
	if h.flags&flagAck != 0 {
		if data == drainPing {
			c.drainProven()
		}
		return c.guard.ping(c)
	}
	if err := c.guard.ping(c); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = appendPing(c.buffer(), true, data)
	c.batch.touch(c)
	return c.provoke()
}
