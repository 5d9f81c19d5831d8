package upstream

import (
	"fmt"
	"time"

	"sluice/gateway/balance"
	"sluice/store"
)

// The states that an endpoint may be in, as they are shown. One in which several
// things are wrong has the state of what matters first.
const (
	StateNew        = "new"        // no RPC has wanted it yet
	StateConnecting = "connecting" // the first connection is being made
	StateHealthy    = "healthy"
	StateWarming    = "warming"   // it is new, or back, and gets its share step by step
	StateDown       = "down"      // it cannot be reached
	StateUnhealthy  = "unhealthy" // its health checks say so, or have not said yet
	StateEjected    = "ejected"   // its RPCs say so
	StateStalled    = "stalled"   // it is connected, and silent while RPCs wait
	StateDraining   = "draining"  // an operator wants it to have no new RPCs
)

var states = []string{
	StateNew, StateConnecting, StateHealthy, StateWarming, StateDown, StateUnhealthy, StateEjected, StateStalled, StateDraining,
}

// Status is what is known of an endpoint.
type Status struct {
	Declared    store.Endpoint // by whom, how much it weighs, where it is, whether it is drained
	State       string
	Why         string    // it is in that state; empty when there is nothing to say
	Since       time.Time // it is in that state
	Active      int       // RPCs open, streams included
	Connections int
	// What follows is of the last minute, and up to five seconds before it.
	Begun   uint64        // RPCs
	Success float64       // share, 0 to 1, of those that ended and tell of the endpoint; -1 when none did
	P99     time.Duration // that 99 of 100 took at most, streams and failures left out; zero when there were none
}

// Status tells what is known of the endpoint now.
func (e *Endpoint) Status() Status {
	s, news := e.status()
	e.pool.write(news)
	return s
}

func (e *Endpoint) status() (s Status, news *line) {
	e.mu.Lock()
	defer e.mu.Unlock()
	succeeded, failed, ended := e.tally.totals() // before Active: what ends in between is in one of them at most
	now := time.Now()
	news = e.note(now)
	s = Status{
		Declared: e.settings.declared, State: e.state, Why: e.why, Since: e.since,
		Active: e.Active(), Connections: e.Connections(), Success: -1, P99: e.tally.slowest(),
	}
	old := e.samples.oldest()
	s.Begun = more(ended+uint64(s.Active), old.begun)
	succeeded, failed = more(succeeded, old.succeeded), more(failed, old.failed)
	if all := succeeded + failed; all > 0 {
		s.Success = float64(succeeded) / float64(all)
	}
	return s, news
}

// State is that of Status, for metrics.
func (e *Endpoint) State() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	state, _ := e.judge(time.Now())
	return state
}

// note sees whether the state has changed, and since when, and returns what is to be
// logged of it. The caller holds mu.
func (e *Endpoint) note(now time.Time) (news *line) {
	state, why := e.judge(now)
	if was := e.state; state != was {
		e.state, e.since = state, now
		news = e.pool.tell(e, was, why)
	}
	e.why = why
	return news
}

// judge is the state by what is known. The caller holds mu.
func (e *Endpoint) judge(now time.Time) (state, why string) {
	c := e.Condition()
	switch {
	case e.settings.declared.Drain != nil:
		return StateDraining, whyDrained(e.settings.declared.Drain)
	case e.down != nil:
		return StateDown, e.down.Error()
	case c&balance.Down != 0 || e.dialling > 0 && e.Connections() == 0:
		return StateConnecting, "the first connection is being made"
	case c&balance.Stalled != 0:
		return StateStalled, "it is connected, RPCs wait, and it has not answered whether it lives"
	case c&balance.Ejected != 0:
		return StateEjected, e.ejection.reason(now)
	case c&(balance.Unhealthy|balance.Unknown) != 0:
		return StateUnhealthy, e.health.why
	case !e.risen.IsZero():
		return StateWarming, fmt.Sprintf("slow start, for %v", time.Duration(e.settings.slowStart.Window)-now.Sub(e.risen).Round(time.Second))
	case e.Connections() == 0 && e.upSince.IsZero():
		return StateNew, "no RPC has wanted it yet"
	}
	return StateHealthy, ""
}

func whyDrained(d *store.Drain) string {
	if d.By == "" {
		return "drained"
	}
	return "drained by " + d.By
}

const (
	sampleEvery = 5 * time.Second
	// recentSamples reach back a minute even when the last has just been taken.
	recentSamples = int(time.Minute/sampleEvery) + 1
)

// sample is where the counters of an endpoint were.
type sample struct{ begun, succeeded, failed uint64 }

// samples are the last ones; nil before the endpoint has had an RPC.
type samples struct {
	ring *[recentSamples]sample
	next int
}

func (s *samples) take(e *Endpoint) {
	succeeded, failed, ended := e.tally.totals()
	begun := ended + uint64(e.Active())
	if s.ring == nil {
		if begun == 0 {
			return
		}
		s.ring = new([recentSamples]sample)
	}
	s.ring[s.next%recentSamples] = sample{begun, succeeded, failed}
	s.next++
}

// more is by how much a counter has grown. One whose parts are read one after the other
// may seem to have shrunk.
func more(now, before uint64) uint64 {
	if now < before {
		return 0
	}
	return now - before
}

// oldest is a minute old.
func (s *samples) oldest() sample {
	if s.ring == nil {
		return sample{}
	}
	return s.ring[s.next%recentSamples]
}
