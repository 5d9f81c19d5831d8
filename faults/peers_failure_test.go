package faults

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What ends, is cut off and comes back.

func TestPeerThatIsKilledIsMissedByNobodyElse(t *testing.T) {
	if !inNetwork(t) {
		return
	}
	for _, n := range sizesOfClusters() {
		t.Run(fmt.Sprintf("%d peers", n), func(t *testing.T) { killOneOf(t, n) })
	}
}

// sizesOfClusters is how many peers there are, one cluster after the other.
func sizesOfClusters() []int {
	if long {
		return []int{3, 10}
	}
	return []int{3}
}

func killOneOf(t *testing.T, n int) {
	s := begin(t, "kill -9 of one of %d peers", n)
	b := callersBackends(t, "one")
	p := startPeers(t, n, splitManifest(b["one"]))
	victim := p.all[n-1]
	loads := p.beginLoads(t, 100, 2)
	loads[n-1].stop() // its own callers know
	wait(time.Second)
	var dead spread
	for i := range times(3, 1) {
		if i > 0 {
			victim.run()
			victim.awaitReady()
			back := p.awaitAlive(n, patience)
			s.note("back after a restart, known to all %.1f s after it was ready", back.Seconds())
		}
		victim.kill()
		dead = append(dead, p.awaitAlive(n-1, 30*time.Second))
	}
	all := loads[:n-1].stop()
	s.noneFailed(all)
	s.want(dead.at(1) <= 10*time.Second, "10 s at most", "known dead to all after %.1f s, %.1f s at most", dead.at(0.5).Seconds(), dead.at(1).Seconds())
}

func TestPeersBecomeOneAgainAfterAPartition(t *testing.T) {
	longOnly(t)
	if !inNetwork(t) {
		return
	}
	for _, n := range sizesOfClusters() {
		t.Run(fmt.Sprintf("%d peers", n), func(t *testing.T) { partition(t, n) })
	}
}

func partition(t *testing.T, n int) {
	s := begin(t, "60 s of partition of %d peers, edits on both sides", n)
	b := callersBackends(t, "one", "two")
	p := startPeers(t, n, splitManifest(b["one"], b["two"]))
	loads := p.beginLoads(t, 100, 2)
	few, many := p.all[:n/3], p.all[n/3:]
	for _, g := range few {
		apart(g.at)
	}
	begun := time.Now()
	wait(2 * time.Second)
	few[0].sluice("", "split", "test/all", "one=30", "two=70")
	many[0].sluice("", "split", "test/all", "one=60", "two=40")
	edits := 0
	for time.Since(begun) < time.Minute {
		edits++
		p.all[rand.IntN(n)].apply(strings.Replace(backendManifest(endpoints(b["one"]), ""), "name: test", fmt.Sprint("name: edit-", edits), 1))
		wait(time.Second)
	}
	for _, g := range few {
		together(g.at)
	}
	took := p.awaitEqual(time.Minute)
	s.want(took <= 10*time.Second, "10 s at most", "the same digest everywhere %.1f s after the heal", took.Seconds())
	s.want(p.haveAll(edits), "no edit lost", "%d edits of other objects", edits)
	s.want(p.contested() == n, "the conflict listed at all", "the conflict listed at %d", p.contested())
	s.noneFailed(loads.stop())
}

// haveAll tells whether each peer has what was written anywhere.
func (p *peers) haveAll(edits int) bool {
	all := true
	for _, g := range p.up() {
		have := g.sluice("", "get", "backends", "-o", "name")
		for i := 1; i <= edits; i++ {
			if !strings.Contains(have+"\n", fmt.Sprintf("edit-%d\n", i)) {
				p.t.Logf("%s lacks edit-%d", g.address, i)
				all = false
			}
		}
	}
	return all
}

// contested is how many peers list one conflict, as the first one does.
func (p *peers) contested() (n int) {
	for _, g := range p.up() {
		var status struct{ Conflicts int }
		if err := json.Unmarshal([]byte(g.sluice("", "status", "-o", "json")), &status); err == nil && status.Conflicts == 1 {
			n++
		}
	}
	return n
}

// Each peer in turn ends as a service manager ends it, and comes back.
func TestPeersRestartOneAfterTheOther(t *testing.T) {
	longOnly(t)
	if !inNetwork(t) {
		return
	}
	for _, n := range sizesOfClusters() {
		t.Run(fmt.Sprintf("%d peers", n), func(t *testing.T) { restartAll(t, n) })
	}
}

func restartAll(t *testing.T, n int) {
	s := begin(t, "restart of each of %d peers in turn", n)
	b := callersBackends(t, "one")
	p := startPeers(t, n, splitManifest(b["one"]))
	r := load{rate: 500, conns: 20}.begin(t, gateways(p.all)...)
	wait(2 * time.Second)
	for i, g := range p.all {
		g.terminate(patience)
		next := p.all[(i+1)%n]
		next.apply(strings.Replace(backendManifest(endpoints(b["one"]), ""), "name: test", fmt.Sprint("name: edit-", i+1), 1))
		g.run()
		g.awaitReady()
		p.awaitAlive(n, patience)
		wait(time.Second)
	}
	p.awaitEqual(patience)
	all := r.stop()
	s.want(p.haveAll(n), "no edit lost", "%d edits meanwhile", n)
	s.holds(all)
	s.want(len(all.failed()) == 0, "0 failed", "%d failed%s, p99 %s", len(all.failed()), resent(all), ms(all.quantile(0.99)))
	if len(all.failed()) > 0 {
		t.Logf("errors:\n%s", all.errors())
	}
}

// Who gets little of the processors is slow, and not dead.
func TestPeersShortOfProcessorsAreNotTakenForDead(t *testing.T) {
	longOnly(t)
	if !inNetwork(t) {
		return
	}
	const minutes = 2
	hogs := 4 * runtime.NumCPU()
	s := begin(t, "%d programs that take all they get of %d cores for %d minutes, 3 peers", hogs, runtime.NumCPU(), minutes)
	p := startPeers(t, 3, "")
	for range hogs {
		hog := exec.Command("/bin/sh", "-c", "while :; do :; done")
		hog.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		if err := hog.Start(); err != nil {
			t.Fatal(err)
		}
		defer hog.Wait()
		defer hog.Process.Kill()
	}
	lowest := 3
	for until := time.Now().Add(minutes * time.Minute); time.Now().Before(until); wait(time.Second) {
		for _, g := range p.all {
			lowest = min(lowest, g.alive())
		}
	}
	s.want(lowest == 3, "nobody taken for dead", "%d live at least", lowest)
}
