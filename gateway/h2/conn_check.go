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
	why := c.verdict(now, l)
	var stalled []*Stream
	if why == ReasonNone && c.waiting > 0 {
		stalled = c.stalledStreams(now, l)
	}
	c.mu.Unlock()
	switch why {
	case ReasonNone:
	case ReasonIdle:
		c.Drain(b)
	default:
		c.abort(why)
	}
	for _, s := range stalled {
		s.end(b, Stalled, ReasonStalled)
	}
}

// verdict says why the connection should end now, if it should. The caller holds
// mu.
func (c *Conn) verdict(now time.Time, l *Limits) Reason {
	switch {
	case c.blocked && c.pace.slow(now, l.MinRate, l.RateWindow):
		return ReasonMinRate
	case !c.acked && now.Sub(c.since) > l.Preface+l.SettingsAck:
		return ReasonSettingsAck
	case !c.probe.sent.IsZero() && now.Sub(c.probe.sent) > probeTimeout:
		return ReasonPingTimeout
	case len(c.streams) > 0 || c.drain != drainNone:
		return ReasonNone
	case c.idle.IsZero():
		c.idle = now
	case now.Sub(c.idle) > l.Idle:
		return ReasonIdle
	}
	return ReasonNone
}

// stalledStreams returns those whose queue has hardly moved for too long. The
// caller holds mu.
func (c *Conn) stalledStreams(now time.Time, l *Limits) (out []*Stream) {
	for _, s := range c.streams {
		if s.q.size == 0 {
			continue
		}
		s.pace.begin(now)
		if s.pace.slow(now, max(l.MinRate, 0), l.StreamStall) {
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
