package faults

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// What comes: a new endpoint among old ones, and a hundred at once.

func TestNewEndpointGetsItsShare(t *testing.T) {
	s := begin(t, "a fifth endpoint joins four, unary over %d connections", connsOf())
	old, added := startBackends(t, 4, "old"), startBackend(t, "new")
	added.await()
	g := startGateway(t)
	g.apply(manifest(endpoints(old...), "", ""))
	rate := times(2000, 1000)
	r := load{rate: rate}.begin(t, g)
	wait(length(2*time.Second, time.Second))
	g.apply(backendManifest(endpoints(append(old, added)...), ""))
	declared := r.now()
	first := r.awaitRPC("new", 0, patience)
	wait(2500 * time.Millisecond)
	all := r.stop()

	share := all.between(first, first+2*time.Second).share("new")
	s.noneFailed(all)
	s.want(first-declared < time.Second, "its first RPC within 1 s", "first RPC %s after it was declared", ms(max(first-declared, 0)))
	s.want(math.Abs(share-0.2) <= 0.02+spare(0.02), "its share 20 % ± 2 over the 2 s after", "share %s", percent(share))
}

// spare is what a short run on a busy machine may be off by.
func spare(by float64) float64 {
	if long {
		return 0
	}
	return by
}

func TestNewEndpointGetsItsShareOfStreams(t *testing.T) {
	longOnly(t)
	load := streams{rate: 250, life: 4 * time.Second}
	s := begin(t, "a fifth endpoint joins four, %d streams a second of %v each over %d connections", load.rate, load.life, connsOf())
	old, added := startBackends(t, 4, "old"), startBackend(t, "new")
	added.await()
	g := startGateway(t)
	g.apply(manifest(endpoints(old...), "", ""))
	r := load.begin(t, g)
	wait(6 * time.Second)
	g.apply(backendManifest(endpoints(append(old, added)...), ""))

	names := []string{"old1", "old2", "old3", "old4", "new"}
	over, converged := 0.0, -1
	var counts map[string]int
	for second := range 12 {
		sums, mean := map[string]int{}, 0.0
		for range 50 {
			var now float64
			counts, now = r.load(names)
			over = max(over, float64(counts["new"])/now)
			for name, n := range counts {
				sums[name] += n
			}
			mean += now
			wait(20 * time.Millisecond)
		}
		switch {
		case worst(sums, mean) > 0.1:
			converged = -1
		case converged < 0:
			converged = second
		}
	}
	r.stop()
	s.note("%d streams, %d open at once, new %d", r.opened.Load(), total(counts), counts["new"])
	s.want(r.failed.Load() == 0, "0 failed", "%d failed", r.failed.Load())
	if r.failed.Load() > 0 {
		t.Logf("errors:\n%s", r.errors())
	}
	s.want(converged >= 0, "all counts within ± 10 % of their mean at the end", "within ± 10 %% from second %d on", converged+1)
	s.want(over <= 1.1, "never more than 1.1 × the mean", "new had %.2f × the mean at most", over)
}

// worst is how far the count that is furthest from the mean is from it, as a part of it.
func worst(counts map[string]int, mean float64) float64 {
	off := 0.0
	for _, n := range counts {
		off = max(off, math.Abs(float64(n)-mean)/mean)
	}
	return off
}

func total(counts map[string]int) int {
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum
}

func TestManyEndpointsComeAndGo(t *testing.T) {
	longOnly(t)
	const many, processes = 100, 4
	rate := fullRate(t)
	s := begin(t, "%d endpoints join ten and leave them again, one change each, twice", many)
	old := startBackends(t, 10, "old")
	var added []*backend
	for p := range processes {
		var config backendConfig
		for i := range many / processes {
			config.Servers = append(config.Servers, serverConfig{fmt.Sprintf("new%d-%d", p, i), newAddress()})
		}
		added = append(added, startEndpoints(t, config))
	}
	for _, b := range added {
		b.await()
	}
	g := startGateway(t)
	g.apply(manifest(endpoints(old...), "", ""))
	r := load{rate: rate}.begin(t, g)
	wait(time.Second)
	for range 2 {
		g.apply(backendManifest(endpoints(append(added, old...)...), ""))
		wait(5 * time.Second)
		g.apply(backendManifest(endpoints(old...), ""))
		wait(5 * time.Second)
	}
	r.reach(51_000)
	all := r.stop()
	used := map[string]bool{}
	for _, r := range all.rpcs {
		used[r.by] = true
	}
	s.noneFailed(all)
	s.enough(all, 50_000)
	s.want(len(used) == many+len(old), "all of them used", "%d endpoints used", len(used))
}
