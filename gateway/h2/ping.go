package h2

import (
	"time"

	"golang.org/x/net/http2"
)

// probe asks a backend that has been silent whether it still lives: before an RPC
// depends on it, and while RPCs wait for it. grpc's servers count PINGs and end
// connections for them, unless a response of theirs came in between; so the first kind
// is sent at most once in probeEvery, and the second once a silence, and once more for
// streams that were opened after that. Of the three PINGs that end a connection this
// leaves one for a response that a PING has met on the way.
type probe struct {
	heard  time.Time // when anything last arrived
	busy   time.Time // since when there are streams that somebody waits for
	sent   time.Time // zero while no answer is due
	last   time.Time // when the last PING was sent
	before time.Time // when the last one of the first kind was
	later  time.Time // when the sweep first saw that a stream was opened after the last PING; zero when none was
	dead   time.Time // when the connection is, if nothing is heard; zero when that is not at stake
	opened bool      // a stream was, since the sweep last looked
	asked  bool      // no HEADERS or DATA have come since the last PING
	twice  bool      // nor since the one before it
	never  bool      // the peer has complained of too_many_pings
}

const (
	probeAfter   = 30 * time.Second               // of silence
	probeEvery   = 5*time.Minute + 10*time.Second // grpc's default MinTime, and what a PING may be late
	probeTimeout = 10 * time.Second               // for the answer, then the connection is dead

	// silenceAfter is how long a backend may say nothing while RPCs wait before it is
	// asked, and silenceAnswer how long the answer may take before the connection counts
	// as silent. With sweeps every silenceEvery a process that hangs is known to within
	// two and a half seconds.
	silenceAfter  = time.Second
	silenceAnswer = time.Second
	silenceEvery  = 250 * time.Millisecond
)

var probePing = [8]byte{'a', 'l', 'i', 'v', 'e'}

// streamOpened notes that somebody waits for the backend. When it has been silent for
// long the connection is dead unless it says something now, and is asked by a PING if
// none waits for its answer already. That goes behind the stream's HEADERS: servers are
// stricter when they have no stream. The caller holds mu.
func (p *probe) streamOpened(c *Conn) {
	p.opened = true
	if len(c.streams)-c.patient > 1 {
		return
	}
	now := time.Now()
	p.busy = now
	if p.never || len(c.streams) > 1 || p.heard.IsZero() || now.Sub(p.heard) < probeAfter || !p.dead.IsZero() {
		return
	}
	if p.sent.IsZero() {
		if now.Sub(p.before) < probeEvery || !p.may(now) {
			return
		}
		p.before = now
		p.ask(c, now)
	}
	p.dead = now.Add(probeTimeout)
}

// Ask has a backend asked by a PING whether it lives, since somebody doubts it, though no
// RPC waits for it; Silent tells that it does not answer. It reports whether that is on its
// way: who has just been heard need not be asked, and a server bears no more than one such
// PING between two answers to RPCs.
func (c *Conn) Ask(b *Batch) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, now := c.probe, time.Now()
	if c.closing || c.why != ReasonNone || c.drain != drainNone || c.goneAway != maxStreamID ||
		p.never || p.asked || !p.sent.IsZero() || p.heard.IsZero() || now.Sub(p.heard) < silenceAfter {
		return false
	}
	p.ask(c, now)
	p.dead = now.Add(probeTimeout)
	c.doubted.Store(true)
	b.touch(c)
	return true
}

// may tells whether servers that count PINGs bear one more.
func (p *probe) may(now time.Time) bool { return !p.twice || now.Sub(p.last) >= probeEvery }

// ask sends a PING. The caller holds mu.
func (p *probe) ask(c *Conn, now time.Time) {
	p.sent, p.last, p.twice, p.asked = now, now, p.asked, true
	p.opened, p.later = false, time.Time{}
	c.out = appendPing(c.buffer(), false, probePing)
}

// checkSilence asks a backend that lets RPCs wait, and notes when it does not answer. It is the sweep's, and costs a connection without streams one look.
func (c *Conn) checkSilence(now time.Time, b *Batch) {
	if c.open.Load() == 0 && !c.doubted.Load() {
		return
	}
	c.mu.Lock()
	p := c.probe
	began := false
	if p.opened && p.later.IsZero() {
		p.later = now
	}
	p.opened = false
	switch {
	case c.closing || c.why != ReasonNone:
	case !p.sent.IsZero():
		if began = !c.silent.Load() && now.Sub(p.sent) >= silenceAnswer; began {
			c.silent.Store(true)
		}
	case p.due(c, now):
		p.ask(c, now)
		b.touch(c)
	}
	c.mu.Unlock()
	if began {
		c.monitor.ConnSilent(c)
	}
}

// due tells whether a backend that lets RPCs wait is to be asked. The caller holds mu.
func (p *probe) due(c *Conn, now time.Time) bool {
	if p.never || p.heard.IsZero() || now.Sub(p.heard) < silenceAfter || len(c.streams) <= c.patient ||
		c.drain != drainNone || c.goneAway != maxStreamID { // it gets no more streams in any case
		return false
	}
	if p.asked { // whoever was asked before may hang now: a silent subscription is no sign of it, and no sign of life
		return !p.later.IsZero() && now.Sub(p.later) >= silenceAfter && p.may(now)
	}
	return now.Sub(p.busy) >= silenceAfter
}

// Silent tells whether a backend has not answered the question whether it lives. It
// may be old when it arrives.
func (c *Conn) Silent() bool { return c.silent.Load() }

// SilentFor is how long a silent backend has owed its answer; zero when it is not silent.
func (c *Conn) SilentFor(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.probe.sent.IsZero() || !c.silent.Load() {
		return 0
	}
	return now.Sub(c.probe.sent)
}

// LastHeard is when anything last arrived from a backend, and when it was last asked
// whether it lives; zero when it was not.
func (c *Conn) LastHeard() (heard, asked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.probe.heard, c.probe.last
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

// heard notes that a backend lives: anything that it sends proves it. Only HEADERS and
// DATA end a silence, for only after them servers forget the PINGs that they counted.
func (c *Conn) heard() {
	if c.side == Downstream {
		return
	}
	c.mu.Lock()
	p := c.probe
	p.heard, p.sent, p.dead = c.now, time.Time{}, time.Time{}
	c.doubted.Store(false)
	if c.spoke {
		p.asked, p.twice, c.spoke = false, false, false
	}
	ended := c.silent.Load()
	if ended {
		c.silent.Store(false)
	}
	c.mu.Unlock()
	if ended {
		c.monitor.ConnSilent(c)
	}
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
