package faults

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
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
	late, noticed := 0, length(100*time.Millisecond, time.Second)
	for _, f := range failed {
		if !near(f.due, killed, noticed) {
			late++
		}
	}
	s.want(late == 0, fmt.Sprintf("none that began later than %s after", ms(noticed)), "%d failed of those that began later", late)
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

// retried is a policy by which every RPC is sent again, once.
const retried = "retry: {attempts: 1, codes: [UNAVAILABLE]}"

func TestKillIsRetried(t *testing.T) {
	longOnly(t)
	const rounds = 10
	rate := fullRate(t)
	s := begin(t, "kill -9 of one of five, %d times, one retry", rounds)
	backends := startBackends(t, 5, "b")
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), "", retried))
	r := load{rate: rate}.begin(t, g)
	wait(time.Second)
	lost := 0
	for i := range rounds {
		b := backends[i%len(backends)]
		b.behave(behaviour{Delay: 20 * time.Millisecond})
		wait(100 * time.Millisecond)
		lost += int(b.die().Open)
		wait(300 * time.Millisecond)
		b.start()
		b.await()
		r.awaitRPC(b.name(), r.now(), patience)
		wait(200 * time.Millisecond)
	}
	r.reach(51_000)
	all := r.stop()
	s.note("%d were in flight on those killed", lost)
	s.noneFailed(all)
	s.enough(all, 50_000)
}

func TestStoppedBackendLosesItsShare(t *testing.T) {
	longOnly(t)
	rate := fullRate(t)
	s := begin(t, "SIGSTOP of one of five for 10 s, at defaults, deadlines of 1 s")
	backends := startBackends(t, 5, "b")
	victim := backends[2]
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), "", ""))
	r := load{rate: rate, deadline: time.Second}.begin(t, g)
	wait(2 * time.Second)
	victim.signal(syscall.SIGSTOP)
	stopped := r.now()
	wait(10 * time.Second)
	victim.signal(syscall.SIGCONT)
	going := r.now()
	// What it had taken before it was stopped comes late, and was due before.
	back := r.awaitRPC(victim.name(), going, patience) - going
	wait(3 * time.Second)
	all := r.stop()

	s.holds(all)
	during := all.between(stopped+3*time.Second, going-time.Second)
	share := float64(len(during.failed())) / float64(max(len(during.rpcs), 1))
	s.note("%d failed in the first 3 s", len(all.between(stopped-time.Second, stopped+3*time.Second).failed()))
	s.want(share < 0.01, "its share under 1 % from 3 s on", "%s failed after them", percent(share))
	s.want(back <= 5*time.Second, "back within 5 s", "back %.1f s after SIGCONT", back.Seconds())
	last := all.between(going+back, r.now())
	s.note("then %s of all", percent(last.share(victim.name())))
}

func TestRefusingBackendGetsItsProbes(t *testing.T) {
	longOnly(t)
	rate := fullRate(t)
	s := begin(t, "one of five answers UNAVAILABLE at once for 12 s, ejected for 2 s at first")
	backends := startBackends(t, 5, "b")
	victim := backends[2]
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), "outlierDetection: {ejectFor: 2s}", ""))
	r := load{rate: rate}.begin(t, g)
	wait(2 * time.Second)
	victim.behave(behaviour{Code: codes.Unavailable})
	refuses := r.now()
	wait(500 * time.Millisecond)
	ejected := victim.report().Begun
	wait(11500 * time.Millisecond)
	probes := victim.behave(behaviour{}).Begun - ejected
	well := r.now()
	back := r.awaitRPC(victim.name(), well, time.Minute) - well
	all := r.stop()

	s.holds(all)
	// 2 s, 4 s and 6 s after one another; a probe may come a moment early or late.
	s.want(probes <= 3, "3 probes at most", "%d RPCs from the first half second on", probes)
	s.want(len(all.failed()) <= 100, "100 failed at most", "%d failed of %s", len(all.failed()), thousands(len(all.between(refuses, well).rpcs)))
	s.note("back %.1f s after it was well", back.Seconds())
}

func TestHealthCheckTakesEffectAtOnce(t *testing.T) {
	longOnly(t)
	rate := fullRate(t)
	s := begin(t, "each of five says NOT_SERVING for 2 s, checked by grpc.health.v1 every 5 s and watched")
	backends := startBackends(t, 5, "b")
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), "healthCheck: {grpc: {service: \"\"}}", ""))
	r := load{rate: rate}.begin(t, g)
	wait(2 * time.Second)
	late := int64(0)
	var slowest time.Duration
	for _, b := range backends {
		b.behave(behaviour{NotServing: true})
		wait(200 * time.Millisecond)
		before := b.report().Begun
		wait(1800 * time.Millisecond)
		late += b.behave(behaviour{}).Begun - before
		well := r.now()
		slowest = max(slowest, r.awaitRPC(b.name(), well, patience)-well)
		wait(200 * time.Millisecond)
	}
	all := r.stop()
	s.noneFailed(all)
	s.want(late == 0, "no RPC from 0.2 s on", "%d RPCs later than 0.2 s after", late)
	s.want(slowest < time.Second, "back within 1 s", "back after %s at most", ms(slowest))
}
