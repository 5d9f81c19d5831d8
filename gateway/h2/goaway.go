package h2

import (
	"strings"
	"time"

	"golang.org/x/net/http2"
)

var noDeadline time.Time

// drainState is how far our own shutdown of a connection has come, DESIGN section
// "drain": GOAWAY(2^31-1), a PING that proves the round trip, GOAWAY(last id).
type drainState uint32

const (
	drainNone  drainState = 0
	drainAsked drainState = maxStreamID // first GOAWAY sent; streams are still taken
	// Any other value is the last stream that we answer, plus one.
)

// last is the highest stream that we still answer.
func (d drainState) last() uint32 {
	if d == drainNone || d == drainAsked {
		return maxStreamID
	}
	return uint32(d) - 1
}

// drainPing marks the PING whose acknowledgement proves that the client has read
// our first GOAWAY.
var drainPing = [8]byte{'d', 'r', 'a', 'i', 'n'}

// Drain asks the peer to go elsewhere: no stream is cut, and those that a client
// opens before it can know are still answered. The connection ends when its
// last stream has.
func (c *Conn) Drain(b *Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave(ReasonDrained, time.Now(), b)
}

// leave is Drain for a reason. The caller holds mu.
func (c *Conn) leave(why Reason, now time.Time, b *Batch) {
	if c.closing || c.drain != drainNone {
		return
	}
	c.leaving, c.asked = why, now
	if !c.begun {
		return // greet comes first, and then here again
	}
	if c.side == Upstream {
		c.drain = 1 // we answer no streams of a backend's
		c.out = appendGoAway(c.buffer(), 0, http2.ErrCodeNo, "")
	} else {
		c.drain = drainAsked
		c.out = appendGoAway(c.buffer(), maxStreamID, http2.ErrCodeNo, "")
		c.out = appendPing(c.out, false, drainPing)
	}
	b.touch(c)
}

// drainProven is the second step. It runs on the reader.
func (c *Conn) drainProven() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drain != drainAsked {
		return
	}
	c.drain = drainState(c.highest + 1)
	c.out = appendGoAway(c.buffer(), c.highest, http2.ErrCodeNo, "")
	c.batch.touch(c)
}

// finishDrain closes a draining connection whose streams have all ended and whose
// output is with the socket. The caller holds mu and owns the socket.
func (c *Conn) finishDrain() {
	done := c.drain != drainNone && c.drain != drainAsked || c.goneAway != maxStreamID && c.side == Upstream
	if !done || len(c.streams) > 0 || c.why != ReasonNone {
		return
	}
	if c.why = c.leaving; c.why == ReasonNone {
		c.why = ReasonDrained // as the peer wished
	}
	c.tr.closeWrite()
	c.tr.SetReadDeadline(time.Now().Add(c.eng.limits.Linger))
}

// EndStreams tells every open stream's sink that the grace is over.
func (c *Conn) EndStreams(b *Batch) { c.endStreams(DrainEnded, b) }

// endStreams asks every open stream's sink to end it. The streams go on for now: their
// end is still to be told.
func (c *Conn) endStreams(how How, b *Batch) {
	c.EachStream(func(s *Stream, k Sink) { k.Ended(s, Ending{How: how, Code: http2.ErrCodeCancel}, b) })
}

// EachStream calls f with each stream that is open and with who hears of it, without
// locks. It costs a list of them all: it is for the rare occasions on which streams are
// to move.
func (c *Conn) EachStream(f func(s *Stream, k Sink)) {
	type bound struct {
		s *Stream
		k Sink
	}
	c.mu.Lock()
	open := make([]bound, 0, len(c.streams))
	for _, s := range c.streams {
		if s.sink != nil && s.state&stateTold == 0 {
			open = append(open, bound{s, s.sink})
		}
	}
	c.mu.Unlock()
	for _, o := range open {
		f(o.s, o.k)
	}
}

// Evict asks every stream's sink to end it, so that its caller opens it elsewhere. What it
// cannot end goes on.
func (c *Conn) Evict(b *Batch) { c.endStreams(Evicted, b) }

// Parting tells of a connection to a backend that takes no more streams: whether
// one of us asked for that without an error, and whether it had ever had any that
// somebody waited for.
func (c *Conn) Parting() (gentle, used bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gently || c.leaving != ReasonNone, c.nextID/2 > c.asides
}

// handleGoAway obeys the peer's. Streams above its last id were never looked at
// and may be sent elsewhere. RFC 9113 section 6.8.
func (c *Conn) handleGoAway(h frameHeader, p []byte) error {
	switch {
	case h.id != 0:
		return protocolError("GOAWAY on stream %d", h.id)
	case len(p) < 8:
		return &connError{http2.ErrCodeFrameSize, ReasonFrameSize, "GOAWAY of less than 8 bytes"}
	}
	if err := c.guard.unknown(c); err != nil {
		return err
	}
	last, code := consumeUint31(p), http2.ErrCode(consumeUint32(p[4:]))
	if c.side == Downstream {
		return nil // a client that goes away opens nothing more; that is all
	}
	c.mu.Lock()
	if code == http2.ErrCodeEnhanceYourCalm && strings.Contains(string(p[8:]), "too_many_pings") {
		c.probe.never = true
	}
	c.gently = code == http2.ErrCodeNo && (c.gently || c.goneAway == maxStreamID)
	c.goneAway = min(c.goneAway, last, maxStreamID-1)
	var above []*Stream
	for id, s := range c.streams {
		if id > last {
			above = append(above, s)
			c.forgiven.add(id)
			c.remove(s)
		}
	}
	c.batch.touch(c) // finishDrain looks whether anything is left
	c.mu.Unlock()
	c.monitor.ConnDraining(c)
	for _, s := range above {
		s.tell(Ending{How: PeerGoneAway, Code: code, Unprocessed: !s.answered}, &c.batch)
	}
	return nil
}
