package h2

import "time"

// guard counts what costs the peer nothing and us something. The reader owns it;
// the limits and their reasons stand in Limits.
type guard struct {
	streams int // that the peer has opened, or that we have

	pings, settingsSeen, resets, strays allowance
	tiny, small, unknowns               allowance
	premature, recent                   int // resets that counted, and streams; of late
	emptyRun                            int
	priorities                          int
	windowUpdates                       int
	pingsAt                             int // of dataSent, when the pings were last forgiven
}

// refill is the rate, a second, at which the burst of a flood limit comes back.
const refill = 33

// prematureAge is the age below which a reset by the client counts: nobody else
// loses interest that soon, that often.
const prematureAge = time.Second

// recentStreams is over how many streams resets are compared with streams: a long
// life without fault is no credit for a flood.
const recentStreams = 1000

// refused counts a stream that we turn away for being one too many: it makes its
// client no more honest.
func (g *guard) refused() { g.streams++ }

// opened counts a stream that the peer opens.
func (g *guard) opened() {
	g.streams++
	g.recent++
	if g.recent > recentStreams {
		g.recent /= 2
		g.premature /= 2
	}
}

// reset counts a client's RST_STREAM on a young stream (CVE-2023-44487). A
// backend's resets, and those of streams that had their response, never count.
func (g *guard) reset(c *Conn, s *Stream, replied bool) error {
	if c.side == Upstream || replied || c.now.Sub(s.opened) >= prematureAge {
		return nil
	}
	return g.count(c)
}

// violation counts a reset that the peer's fault forces on us.
func (g *guard) violation(c *Conn) error { return g.count(c) }

func (g *guard) count(c *Conn) error {
	g.premature++
	limit := c.eng.limits.Resets
	if g.resets.spend(c.now, 1, limit, refill) || 2*g.premature <= g.recent {
		return nil
	}
	return excess(ReasonResets, "more than %d premature resets", limit)
}

// strayReset counts RST_STREAM on streams that are closed already.
func (g *guard) strayReset(c *Conn) error {
	limit := c.eng.limits.Resets
	if g.strays.spend(c.now, 1, limit+10*int(c.eng.limits.MaxConcurrentStreams), 10*refill) {
		return nil
	}
	return excess(ReasonResets, "more than %d resets of closed streams", limit)
}

// settings counts SETTINGS and their acknowledgements.
func (g *guard) settings(c *Conn) error {
	if limit := c.eng.limits.Settings; !g.settingsSeen.spend(c.now, 1, limit, refill) {
		return excess(ReasonSettings, "more than %d SETTINGS frames", limit)
	}
	return nil
}

// ping counts PINGs. DATA of ours forgives them: clients measure bandwidth so.
func (g *guard) ping(c *Conn) error {
	c.mu.Lock()
	sent := c.dataSent
	c.mu.Unlock()
	if sent > g.pingsAt {
		g.pingsAt = sent
		g.pings = allowance{}
	}
	if limit := c.eng.limits.Pings; !g.pings.spend(c.now, 1, limit, refill) {
		return excess(ReasonPings, "more than %d PING frames", limit)
	}
	return nil
}

// data counts frames that carry little or nothing (CVE-2019-9518 and its kin).
func (g *guard) data(c *Conn, n int, end bool) error {
	l := &c.eng.limits
	switch {
	case end:
		g.emptyRun = 0
	case n == 0:
		return g.empty(c)
	case n < 5:
		g.emptyRun = 0
		if !g.tiny.spend(c.now, 1, l.TinyData, 1000) {
			return excess(ReasonTinyData, "more than %d DATA frames of less than 5 bytes", l.TinyData)
		}
	case n < 256:
		g.emptyRun = 0
		if !g.small.spend(c.now, 1, l.SmallData, 100_000) {
			return excess(ReasonSmallData, "more than %d DATA frames of less than 256 bytes", l.SmallData)
		}
	default:
		g.emptyRun = 0
	}
	return nil
}

// empty counts frames without content, in a row.
func (g *guard) empty(c *Conn) error {
	g.emptyRun++
	if limit := c.eng.limits.EmptyFrames; g.emptyRun > limit {
		return excess(ReasonEmptyFrames, "more than %d empty frames in a row", limit)
	}
	return nil
}

func (g *guard) priority(c *Conn) error {
	g.priorities++
	if limit := c.eng.limits.Priorities * (1 + g.streams); g.priorities > limit {
		return excess(ReasonPriorities, "more than %d PRIORITY frames", limit)
	}
	return nil
}

// windowUpdate applies Envoy's formula, which leaves room for any honest pace.
func (g *guard) windowUpdate(c *Conn) error {
	g.windowUpdates++
	per := c.eng.limits.WindowUpdates
	if g.windowUpdates <= 5+per*g.streams {
		return nil
	}
	c.mu.Lock()
	sent, opened := c.dataSent, int(c.nextID/2)
	c.mu.Unlock()
	if limit := 5 + per*(g.streams+opened+10*sent); g.windowUpdates > limit {
		return excess(ReasonWindowUpdates, "%d WINDOW_UPDATE frames for %d DATA frames", g.windowUpdates, sent)
	}
	return nil
}

func (g *guard) unknown(c *Conn) error {
	if limit := c.eng.limits.Unknown; !g.unknowns.spend(c.now, 1, limit, 10*refill) {
		return excess(ReasonUnknown, "more than %d frames of unknown type", limit)
	}
	return nil
}

// forgiven remembers the streams that we closed most recently while their peer
// could still send: its frames cross ours and are not faults. The zero value is
// empty.
type forgiven struct {
	ids  []uint32 // a ring, once full
	next int
}

// forgivenMax is how many are remembered: more than may be open at once.
const forgivenMax = 1024

func (f *forgiven) add(id uint32) {
	if len(f.ids) < forgivenMax {
		f.ids = append(f.ids, id)
		return
	}
	f.ids[f.next] = id
	f.next = (f.next + 1) % forgivenMax
}

func (f *forgiven) has(id uint32) bool {
	for i := len(f.ids) - 1; i >= 0; i-- {
		if f.ids[i] == id {
			return true
		}
	}
	return false
}

// finished remembers the streams that ended most recently in one way: with
// END_STREAM from both sides, or by their peer's reset.
type finished struct {
	ids  [8]uint32
	next uint8
}

func (f *finished) add(id uint32) {
	f.ids[f.next%8] = id
	f.next++
}

func (f *finished) has(id uint32) bool {
	for _, other := range f.ids {
		if other == id {
			return true
		}
	}
	return false
}

// pace measures how fast a peer takes what waits for it.
type pace struct {
	since time.Time // zero while nothing waits
	moved int64     // bytes since then
}

func (p *pace) begin(now time.Time) {
	if p.since.IsZero() {
		*p = pace{since: now}
	}
}

// slow reports whether fewer than rate bytes a second moved over the span, and
// starts another span when one is over.
func (p *pace) slow(now time.Time, rate int64, span time.Duration) bool {
	if p.since.IsZero() || now.Sub(p.since) < span {
		return false
	}
	slow := p.moved < rate*int64(span/time.Second)
	*p = pace{since: now}
	return slow
}
