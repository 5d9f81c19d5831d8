package faults

import (
	"fmt"
	"testing"
	"time"
)

// What goes in no order: kills and stops.

func TestKillCostsNoMoreThanWhatWasInFlight(t *testing.T) {
	rate := fullRate(t)
	rounds := times(5, 1)
	s := begin(t, "kill -9 of one of five, %d times, no retry", rounds)
	backends := startBackends(t, 5, "b")
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), "", ""))
	r := load{rate: rate}.begin(t, g)
	wait(length(time.Second, 300*time.Millisecond))
	lost := 0
	var killed []time.Duration
	for i := range rounds {
		b := backends[i%len(backends)]
		b.behave(behaviour{Delay: 20 * time.Millisecond})
		wait(100 * time.Millisecond)
		lost += int(b.die().Open)
		killed = append(killed, r.now())
		wait(length(500*time.Millisecond, 200*time.Millisecond))
		b.start()
		b.await()
		r.awaitRPC(b.name(), r.now(), patience)
		wait(length(time.Second, 0))
	}
	all := r.stop()
	s.holds(all)
	failed := all.failed()
	// What is sent between the process's end and the socket's news of it is lost too:
	// a twentieth of a second of its share is far more than that takes.
	most := lost + rounds*rate/5/20
	s.want(len(failed) <= most, fmt.Sprintf("no more than it had and 50 ms of its share: %d", most),
		"%d failed, %d were in flight by its own count", len(failed), lost)
	late := 0
	for _, f := range failed {
		if !near(f.due, killed, 100*time.Millisecond) {
			late++
		}
	}
	s.want(late == 0, "none that began later than 100 ms after", "%d failed of those that began later", late)
	if len(failed) > 0 {
		t.Logf("errors:\n%s", all.errors())
	}
}

// near tells whether a time is before one of the moments, or at most within after it.
func near(at time.Duration, moments []time.Duration, within time.Duration) bool {
	for _, m := range moments {
		if m-time.Second < at && at < m+within {
			return true
		}
	}
	return false
}
