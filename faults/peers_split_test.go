package faults

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// What all peers are to obey, and how soon.

func TestPeersObeyAChangeAtOne(t *testing.T) {
	if !inNetwork(t) {
		return
	}
	for _, n := range sizesOfClusters() {
		t.Run(fmt.Sprintf("%d peers", n), func(t *testing.T) { obeySplits(t, n) })
	}
}

func obeySplits(t *testing.T, n int) {
	b := callersBackends(t, "one", "two")
	p := startPeers(t, n, splitManifest(b["one"], b["two"]))
	losses := []int{0, 10}
	if !long {
		losses = losses[1:]
	}
	for _, percent := range losses {
		for _, g := range p.all {
			g.at.loseUDP(percent)
		}
		t.Run(fmt.Sprintf("%d %% lost", percent), func(t *testing.T) { p.obeySplits(t, percent, times(50, 5)) })
	}
}

// obeySplits gives all RPCs to the one backend and the other in turn, each time at
// another peer.
func (p *peers) obeySplits(t *testing.T, percent, changes int) {
	s := begin(t, "%d changes of a split at any of %d peers, %d %% of UDP lost", changes, len(p.all), percent)
	loads := p.beginLoads(t, 100, 2)
	wait(time.Second)
	var took spread
	names := []string{"one", "two"}
	for i := range changes {
		from, to := names[i%2], names[(i+1)%2]
		changed := p.all[i%len(p.all)]
		begun := time.Now()
		changed.sluice("", "split", "test/all", from+"=0", to+"=1")
		for _, r := range loads {
			took = append(took, r.awaitTurn(to, begun))
		}
		wait(100 * time.Millisecond)
	}
	all := loads.stop()
	s.noneFailed(all)
	s.want(took.at(0.99) <= time.Second, "p99 1 s at most", "obeyed by a peer from its request on: p50 %s, p99 %s, max %s",
		ms(took.at(0.5)), ms(took.at(0.99)), ms(took.at(1)))
}

// spread is how long something took, many times.
type spread []time.Duration

// at is how long it took at most in that part of all cases.
func (s spread) at(part float64) time.Duration {
	slices.Sort(s)
	return s[max(0, int(math.Ceil(part*float64(len(s))))-1)]
}

// awaitTurn waits until no RPC goes elsewhere any more than to the backend of that name,
// and tells how long after the moment the last one began that did.
func (r *running) awaitTurn(name string, moment time.Time) time.Duration {
	r.t.Helper()
	from := moment.Sub(r.begin)
	var last time.Duration
	eventually(r.t, patience, "all RPCs go to "+name, func() bool {
		const settled = 150 * time.Millisecond
		now, other := r.now(), time.Duration(0)
		last = from
		for _, c := range r.clients {
			last, other = max(last, c.latestElsewhere(name)), max(other, c.latestAt(name))
		}
		return other > last && now-last > settled
	})
	return last - from
}

// latestAt is when the last RPC was due that this backend answered.
func (c *client) latestAt(name string) time.Duration {
	due, _ := c.latest(name)
	return due
}

// latestElsewhere is when the last RPC was due that another one answered.
func (c *client) latestElsewhere(name string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.rpcs) - 1; i >= 0; i-- {
		if c.rpcs[i].by != name {
			return c.rpcs[i].due
		}
	}
	return 0
}
