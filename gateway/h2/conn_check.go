package h2

import "time"

// check is the sweep's look at one connection: does the peer take what waits for
// it, does it answer, is it idle.
func (c *Conn) check(now time.Time, b *Batch) {
	l := &c.eng.limits
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return
	}
	old := c.age(now, l, b)
	why := c.verdict(now, l, b)
	var stalled []*Stream
	if why == ReasonNone && c.waiting > 0 {
		stalled = c.stalledStreams(now, l)
	}
	c.mu.Unlock()
	if why != ReasonNone {
		c.abort(why)
	}
	for _, s := range stalled {
		s.end(b, Stalled, ReasonStalled)
	}
	if old {
		c.endStreams(AgeEnded, b)
	}
}

// verdict says why the connection should end now, if it should; one that is idle is
// first asked to. The caller holds mu.
func (c *Conn) verdict(now time.Time, l *Limits, b *Batch) Reason {
	switch {
	case c.blocked && c.slow(now, l):
		return ReasonMinRate
	case !c.acked && now.Sub(c.since) > l.Preface+l.SettingsAck:
		return ReasonSettingsAck
	case c.probe != nil && !c.probe.dead.IsZero() && now.After(c.probe.dead):
		return ReasonPingTimeout
	case len(c.streams) > 0:
		return ReasonNone
	case c.drain == drainAsked && now.Sub(c.asked) > probeTimeout:
		return c.leaving // the client does not answer the PING
	case c.drain != drainNone:
		return ReasonNone
	case c.idle.IsZero():
		c.idle = now
	case now.Sub(c.idle) > l.Idle:
		c.leave(ReasonIdle, now, b)
	}
	return ReasonNone
}

// slow reports whether the peer takes what waits for it too slowly. What counts is
// the socket: TLS holds up to 64 KiB more between us and it. The caller holds mu.
func (c *Conn) slow(now time.Time, l *Limits) bool {
	taken := c.tr.out.taken.Load()
	c.pace.moved += taken - c.tookAt
	c.tookAt = taken
	return c.pace.slow(now, l.MinRate, l.RateWindow)
}

// stalledStreams returns those whose queue has hardly moved for too long. The
// caller holds mu.
func (c *Conn) stalledStreams(now time.Time, l *Limits) (out []*Stream) {
	for _, s := range c.streams {
		if s.q.size == 0 {
			continue
		}
		s.pace.begin(now)
		if s.pace.slow(now, max(l.MinRate, 1), l.StreamStall) {
			out = append(out, s)
		}
	}
	return out
}

// longestQueue returns the stream with the most DATA waiting.
func (c *Conn) longestQueue() (worst *Stream, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == 0 {
		return nil, 0
	}
	for _, s := range c.streams {
		if s.q.size > size {
			worst, size = s, s.q.size
		}
	}
	return worst, size
}
