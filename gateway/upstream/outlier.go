package upstream

import (
	"fmt"
	"time"

	"sluice/gateway/balance"
)

// probePatience is how long an RPC that tries an ejected endpoint may stay open without
// having failed, before it counts as the proof: streams stay open for hours.
const probePatience = 10 * time.Second

// ejection is what an endpoint has on its record. Guarded by its mu.
type ejection struct {
	times   int       // in a row, of those that make it longer; one less for each EjectFor that it is well
	why     string    // the last
	since   time.Time // likewise
	until   time.Time // of the last
	hurried bool      // one was cut short since it was well
	allowed time.Time // when one RPC was let try; zero before
	taken   time.Time // when it was seen that one does
	again   bool      // it has ended, and said nothing: another has to
	back    time.Time // since when it is well again, or times was lowered
}

// ended is told of each failure, and of each attempt that ends at an endpoint which is
// ejected.
func (g *group) ended(e *Endpoint, r Result, row uint32) {
	if e.Condition()&balance.Ejected != 0 {
		g.probed(e, r)
		return
	}
	if limit := g.limit.Load(); limit == 0 || row < limit {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if e.Condition()&balance.Ejected == 0 {
		g.eject(e, fmt.Sprintf("%d RPCs in a row failed", row))
	}
}

// eject takes an endpoint out of the choice, unless too many are. The caller holds mu.
func (g *group) eject(e *Endpoint, why string) {
	e.tally.row.Store(0) // it takes as many again until the question is asked again
	switch {
	case g.outliers == nil:
	case g.mayEject(e):
		g.expel(e, why)
	default:
		e.spared.Add(1)
	}
}

// expel takes an endpoint out of the choice, for longer each time. The caller holds mu.
func (g *group) expel(e *Endpoint, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j := &e.ejection
	once, most := max(time.Duration(g.outliers.EjectFor), 1), time.Duration(g.outliers.MaxEjectFor)
	if j.times < int((most+once-1)/once) {
		j.times++
	}
	out := min(once*time.Duration(j.times), most)
	now := time.Now()
	j.why, j.since, j.until, j.allowed, j.taken = why, now, now.Add(out), time.Time{}, time.Time{}
	e.ejections.Add(1)
	e.mark(balance.Ejected, true)
	e.pool.stir()
}

// mayEject tells whether enough others are left: so many that at most the allowed share
// is ejected, which is one at least, and one of them that can have its RPCs. The caller
// holds mu.
func (g *group) mayEject(e *Endpoint) bool {
	weighted, ejected, others := 0, 0, 0
	for _, other := range g.now.Load().Endpoints {
		if other.Weight() == 0 {
			continue
		}
		weighted++
		switch {
		case other == e:
		case other.Condition()&balance.Ejected != 0:
			ejected++
		case other.Usable():
			others++
		}
	}
	return others > 0 && ejected < g.allowed(weighted)
}

// allowed is how many of so many endpoints may be ejected. The caller holds mu.
func (g *group) allowed(weighted int) int {
	percent := g.outliers.MaxEjectedPercent
	if percent == 0 {
		return 0
	}
	return max(weighted*percent/100, 1)
}

// relent takes back those who were ejected longest ago, where there are fewer others now
// than there have to be. The caller holds mu.
func (g *group) relent(now time.Time) {
	for g.outliers != nil {
		weighted, ejected, usable := 0, 0, 0
		var first, firstUp *Endpoint // ejected longest ago; of those that can be reached
		for _, e := range g.now.Load().Endpoints {
			c := e.Condition()
			switch {
			case e.Weight() == 0:
				continue
			case c == 0:
				usable++
			case c&balance.Ejected != 0:
				ejected++
				first = e.earlier(first)
				if c == balance.Ejected {
					firstUp = e.earlier(firstUp)
				}
			}
			weighted++
		}
		switch {
		case usable == 0 && firstUp != nil:
			g.takeBack(firstUp, now)
		case ejected > g.allowed(weighted):
			g.takeBack(first, now)
		default:
			return
		}
	}
}

// earlier is which of two was ejected first, other being nil where there is none. The
// caller holds the group's mu.
func (e *Endpoint) earlier(other *Endpoint) *Endpoint {
	if other == nil || e.ejection.since.Before(other.ejection.since) {
		return e
	}
	return other
}

// probed judges by an attempt that has ended at an ejected endpoint.
func (g *group) probed(e *Endpoint, r Result) {
	now := time.Now()
	if !e.tried(r, now) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !e.tried(r, now): // another was faster
	case r.Verdict == Neutral:
		e.tryAgain()
	case r.Verdict == Success:
		g.takeBack(e, now)
	case g.outliers != nil:
		g.expel(e, "the RPC that tried it failed")
	}
}

// tried tells whether an attempt that has ended says how the endpoint is now. What was
// begun before one RPC was let try does not.
func (e *Endpoint) tried(r Result, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	j := &e.ejection
	return e.Condition()&balance.Ejected != 0 && !j.allowed.IsZero() && !e.ProbeWaits() && !now.Add(-max(r.Age, r.Took)).Before(j.allowed)
}

// tryAgain has another RPC try the endpoint soon, since one has that said nothing.
func (e *Endpoint) tryAgain() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ejection.again = true
}

// takeBack ends an ejection. The caller holds mu.
func (g *group) takeBack(e *Endpoint, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tally.row.Store(0)
	e.ejection.back, e.ejection.allowed, e.ejection.hurried = now, time.Time{}, false
	e.mark(balance.Ejected, false)
}

// pardon forgets everything, where nobody is to be ejected. The caller holds mu.
func (g *group) pardon(e *Endpoint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ejection = ejection{}
	e.mark(balance.Ejected, false)
}

// lookAt does what is due of an ejection. The caller holds mu.
func (g *group) lookAt(e *Endpoint, now time.Time) (restless bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j := &e.ejection
	if e.Condition()&balance.Ejected == 0 {
		if j.times > 0 && g.outliers != nil && now.Sub(j.back) >= time.Duration(g.outliers.EjectFor) {
			j.times, j.back = j.times-1, now
		}
		return false
	}
	switch {
	case now.Before(j.until):
	case j.allowed.IsZero():
		j.allowed, j.again = now, false
		e.allowProbe(g)
	case e.ProbeWaits():
	case j.again || !j.taken.IsZero() && e.Active() == 0: // nobody tries it any more
		j.again, j.taken = false, time.Time{}
		e.allowProbe(g)
	case j.taken.IsZero():
		j.taken = now
	case now.Sub(j.taken) >= probePatience:
		j.back, j.allowed, j.hurried = now, time.Time{}, false
		e.mark(balance.Ejected, false)
	}
	return true
}

// hasten lets one RPC try the endpoint now, once until it is well. It could not be reached,
// and can be again: what is there has been started anew, and may be well. A process that is killed takes all of
// its RPCs along, which is enough to be ejected, and would be left out for long after
// its successor is there. The caller holds the endpoint's mu.
func (j *ejection) hasten(now time.Time) {
	if j.until.After(now) && !j.hurried {
		j.until, j.hurried = now, true
	}
}

func (e *Endpoint) allowProbe(g *group) {
	e.AllowProbe()
	g.refresh()
}

// reason tells why, and what comes next.
func (j *ejection) reason(now time.Time) string {
	if left := j.until.Sub(now); left > 0 {
		return fmt.Sprintf("%s; one RPC will try it in %v", j.why, left.Round(time.Second))
	}
	return j.why + "; the next RPC tries it"
}
