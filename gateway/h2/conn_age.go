package h2

import (
	"math/rand/v2"
	"time"
)

// Lifespan is that of one connection of a client: a tenth more or less than MaxAge, so
// that those that came together do not go together.
func (l Limits) Lifespan() time.Duration {
	if l.MaxAge <= 0 {
		return 0
	}
	return l.MaxAge - l.MaxAge/10 + rand.N(l.MaxAge/5+1)
}

// sweepEvery is how often connections are looked at: more often where they get old soon.
func (l *Limits) sweepEvery() time.Duration {
	every := sweepEvery
	for _, bound := range []time.Duration{l.MaxAge, l.AgeGrace} {
		if bound > 0 {
			every = min(every, bound/10)
		}
	}
	return max(every, 10*time.Millisecond)
}

// age asks a client whose connection is old enough to open another one. No stream is cut
// by that. It reports whether those that are open have had their grace. The caller holds
// mu.
func (c *Conn) age(now time.Time, l *Limits, b *Batch) (over bool) {
	switch {
	case c.lifespan == 0:
		return false
	case c.drain == drainNone:
		if now.Sub(c.since) > c.lifespan {
			c.leave(ReasonAged, now, b)
		}
		return false
	}
	return c.leaving == ReasonAged && l.AgeGrace > 0 && len(c.streams) > 0 && now.Sub(c.asked) > l.AgeGrace
}
