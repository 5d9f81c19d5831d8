package upstream

import (
	"log/slog"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
)

const (
	// reliefAfter is how long an endpoint may be stalled before a further connection is
	// tried: what died above TCP (a load balancer that lost its backend) does not come back.
	reliefAfter = 5 * time.Second
	// The pause before the next is reliefMin at first and doubles to reliefMax: whoever is
	// stopped takes connections as far as its kernel holds them.
	reliefMin = 5 * time.Second
	reliefMax = time.Minute
	// reliefSpread is the most by which it is late, so that not all gateways come at once.
	reliefSpread = time.Second
	// silentMax is how long a connection may owe its answer while another is heard.
	silentMax = 10 * time.Second
)

// relief is of an endpoint whose connections are silent: others beside them.
type relief struct {
	stalled time.Time     // since when the endpoint is; zero while it is not
	tried   time.Time     // when the last connection was tried
	pause   time.Duration // after that
}

// note takes down whether the endpoint is stalled.
func (r *relief) note(stalled bool, now time.Time) {
	switch {
	case !stalled:
		r.stalled = time.Time{}
	case r.stalled.IsZero():
		r.stalled = now
	}
}

// due tells whether a further connection is to be tried, and counts it.
func (r *relief) due(now time.Time) bool {
	if r.stalled.IsZero() || now.Sub(r.stalled) < reliefAfter || now.Sub(r.tried) < r.pause {
		return false
	}
	if now.Sub(r.tried) > 2*reliefMax {
		r.pause = 0 // what was before has nothing to do with it
	}
	r.tried, r.pause = now, min(max(2*r.pause, reliefMin), reliefMax)
	return true
}

// relieve has one further connection made while those that there are stay silent, over
// the limit of connections, too: they leave for it. One that gets no new RPCs needs none.
// The caller holds mu.
func (e *Endpoint) relieve(now time.Time) {
	if e.dialling > 0 || e.Weight() == 0 || !e.relief.due(now) {
		return
	}
	e.dialling++
	e.pool.work.Go(e.dialBeside)
}

// dialBeside tries once; more often only if the connections that there were have ended.
func (e *Endpoint) dialBeside() {
	e.pause(reliefSpread)
	if !e.settle(e.dialOnce(e.ctx)) && !e.leaveBe() {
		e.dialUntilUp(backoffMin)
	}
}

// leaveBe ends a dial that went wrong when the endpoint has connections, be they silent.
func (e *Endpoint) leaveBe() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(*e.live.Load()) == 0 {
		return false
	}
	e.dialling--
	return true
}

// replace drains connections that stay silent while another is heard: what is open on
// them may go on. It returns what is to be logged of it. The caller holds mu, and flushes
// b without.
func (e *Endpoint) replace(now time.Time, b *h2.Batch) *line {
	if e.Condition()&balance.Stalled != 0 {
		return nil
	}
	n := 0
	for _, c := range *e.live.Load() {
		if c.SilentFor(now) <= silentMax {
			continue
		}
		c.Drain(b)
		e.drop(c, true, true)
		n++
	}
	if n == 0 {
		return nil
	}
	return &line{slog.LevelInfo, "silent connections replaced", []slog.Attr{
		slog.String("backend", e.id.backend), slog.String("addr", e.id.address), slog.Int("connections", n),
	}}
}
