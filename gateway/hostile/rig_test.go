package hostile

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/gateway"
)

// rig is a gateway with an honest backend behind it, an honest caller before it,
// and room for attackers on either side.
type rig struct {
	*node
	t      testing.TB
	honest *honest
	probe  *probe
}

// The authorities by which the rig's routes are told apart. The hostile backends
// have one each; evil is that of the first.
const (
	good = "honest.test"
	evil = "hostile-0.test"
)

// resources routes each authority to its backend.
func resources(backends map[string]string) string {
	var b strings.Builder
	for authority, addr := range backends {
		name := strings.TrimSuffix(authority, ".test")
		fmt.Fprintf(&b, `---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: %[1]s}
spec:
  hostnames: [%[2]s]
  rules: [{backendRefs: [{group: sluice.dev, kind: Backend, name: %[1]s}]}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: %[1]s}
spec: {endpoints: [{address: %[3]q}]}
`, name, authority, addr)
	}
	return b.String()
}

// newRig starts a gateway in a process of its own.
func newRig(t testing.TB, cfg nodeConfig, hostile ...*village) *rig {
	t.Helper()
	r := &rig{t: t, honest: startHonest(t, nil)}
	r.start(cfg, hostile, startApart)
	r.probe = startProbe(t, r.addr)
	return r
}

// newRigHere starts a gateway in this process, without a probe: for tests that
// judge bytes and not cost.
func newRigHere(t testing.TB, cfg nodeConfig, hostile ...*village) *rig {
	t.Helper()
	r := &rig{t: t, honest: startHonest(t, nil)}
	r.start(cfg, hostile, startHere)
	return r
}

func (r *rig) start(cfg nodeConfig, hostile []*village, start func(testing.TB, nodeConfig) *node) {
	r.t.Helper()
	if cfg.Resources == "" {
		backends := map[string]string{good: r.honest.addr}
		for i, v := range hostile {
			v.authority = fmt.Sprintf("hostile-%d.test", i)
			backends[v.authority] = v.addr()
		}
		cfg.Resources = resources(backends)
	}
	r.node = start(r.t, cfg)
}

// dial connects an attacker, or an honest caller, to the gateway.
func (r *rig) dial(m manners) *peer {
	r.t.Helper()
	return dial(r.t, r.addr, m)
}

// limits is a configuration with some limits made small, where waiting for the
// shipped ones would take minutes.
func limits(change func(*gateway.Config)) nodeConfig {
	var c nodeConfig
	change(&c.Gateway)
	return c
}

// probe is the bystander: 100 RPCs a second on a connection of its own, each sent
// when it is due, whether the one before is back or not.
type probe struct {
	p    *peer
	stop chan struct{}

	mu   sync.Mutex // guards seen
	seen []sample
}

type sample struct {
	at    time.Time // sent
	took  time.Duration
	fault string
}

const probeEvery = 10 * time.Millisecond

func startProbe(t testing.TB, addr string) *probe {
	t.Helper()
	pr := &probe{p: dial(t, addr, manners{generous: true}), stop: make(chan struct{})}
	if a := pr.p.call(grpcHead(good, echo), message(64)); a.status() != "0" {
		t.Fatalf("an RPC before any attack: %v", &a)
	}
	var work sync.WaitGroup
	work.Go(func() { pr.run(&work) })
	t.Cleanup(func() { close(pr.stop); work.Wait() })
	return pr
}

func (pr *probe) run(work *sync.WaitGroup) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	head, body := grpcHead(good, echo), message(64)
	for {
		select {
		case <-pr.stop:
			return
		case <-tick.C:
		}
		work.Go(func() {
			s := sample{at: time.Now()}
			a := pr.p.call(head, body)
			s.took = a.took
			if a.status() != "0" || a.size != len(body) {
				s.fault = a.String()
			}
			pr.mu.Lock()
			pr.seen = append(pr.seen, s)
			pr.mu.Unlock()
		})
	}
}

// gathered is what the probe has seen of some time.
type gathered struct {
	n             int
	p50, p99, max time.Duration
	faults        []string
}

// between returns what has become of the RPCs that were sent in that time.
func (pr *probe) between(from, to time.Time) (g gathered) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	var took []time.Duration
	for _, s := range pr.seen {
		if s.at.Before(from) || s.at.After(to) {
			continue
		}
		if s.fault != "" {
			g.faults = append(g.faults, s.fault)
		}
		took = append(took, s.took)
	}
	if g.n = len(took); g.n == 0 {
		return g
	}
	slices.Sort(took)
	g.p50, g.p99, g.max = took[g.n/2], took[(g.n*99-1)/100], took[g.n-1]
	return g
}

func (g gathered) String() string {
	return fmt.Sprintf("%d RPCs, %d failed, p50 %v p99 %v max %v", g.n, len(g.faults),
		g.p50.Round(10*time.Microsecond), g.p99.Round(10*time.Microsecond), g.max.Round(10*time.Microsecond))
}

// trial is one attack on a rig, from its first byte until it is judged.
type trial struct {
	*rig
	name    string
	start   time.Time
	figures reading
	counted counters
	cpu     time.Duration // of the attacker's process
}

// begin notes how things stand before an attack.
func (r *rig) begin(name string) *trial {
	r.t.Helper()
	r.idle()
	tr := &trial{rig: r, name: name, counted: r.counters(r.t), figures: r.read(r.t, "reset")}
	tr.start, tr.cpu = time.Now(), ownCPU()
	return tr
}

// idle lets the probe run without an attack, the first time long enough to learn
// what is usual.
func (r *rig) idle() {
	r.t.Helper()
	idleOnce.Do(func() {
		start := time.Now()
		<-time.After(pick(time.Second, 5*time.Second))
		g := r.probe.between(start, time.Now())
		idleP99 = g.p99
		r.t.Logf("without attack: %v", g)
	})
	<-time.After(5 * probeEvery)
}

var (
	idleOnce sync.Once
	idleP99  time.Duration
)

// lateness is what O1 allows: twice what it is without an attack. Below the floor
// a machine of two cores that others share tells nothing; and of a few dozen RPCs
// the 99th percentile is the worst one.
func lateness() time.Duration {
	floor := pick(200*time.Millisecond, 20*time.Millisecond)
	if raced {
		floor *= 5
	}
	return max(2*idleP99, floor)
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cost is what an attack may cost the gateway.
type cost struct {
	memory int64         // bytes beyond what it had; 0 = 64 MiB
	cpu    time.Duration // beyond what the probe takes; 0 = ten times the attacker's, and 50 ms
	late   time.Duration // of the bystander's slowest; 0 = what lateness says
}

// probeCPU is what the bystander's RPCs take of the gateway, at most: share of the
// time.
const probeCPU = 0.06

// judge checks the oracle, and waits until the gateway is as it was.
func (tr *trial) judge(c cost) {
	tr.t.Helper()
	tr.weigh(c)
	tr.recover()
}

// weigh checks what of the oracle must hold while an attack lasts.
func (tr *trial) weigh(c cost) {
	tr.t.Helper()
	end := time.Now()
	spent := end.Sub(tr.start)
	attacker := ownCPU() - tr.cpu
	after := tr.read(tr.t, "figures")
	<-time.After(2 * probeEvery)
	seen := tr.probe.between(tr.start, end)
	cpu := after.CPU - tr.figures.CPU - time.Duration(probeCPU*float64(spent))
	grown := after.Peak - tr.figures.Memory
	tr.t.Logf("%s: %v; gateway %v of CPU (ours %v) in %v, %.1f MiB more at most; bystander: %v", tr.name, tr.ended(),
		cpu.Round(time.Millisecond), attacker.Round(time.Millisecond), spent.Round(time.Millisecond), float64(grown)/(1<<20), seen)
	if len(seen.faults) > 0 {
		tr.t.Errorf("%s: O1: %d of the bystander's RPCs failed, first: %s", tr.name, len(seen.faults), seen.faults[0])
	}
	if c.late == 0 {
		c.late = lateness()
	}
	if seen.p99 > c.late {
		tr.t.Errorf("%s: O1: bystander's p99 %v, limit %v", tr.name, seen.p99, c.late)
	}
	if c.memory == 0 {
		c.memory = 64 << 20
	}
	if grown > c.memory && !raced {
		tr.t.Errorf("%s: O2: %d bytes more memory, limit %d", tr.name, grown, c.memory)
	}
	if c.cpu == 0 {
		c.cpu = 10*attacker + 50*time.Millisecond
	}
	if cpu > c.cpu && !raced {
		tr.t.Errorf("%s: O6: %v of CPU, limit %v", tr.name, cpu, c.cpu)
	}
}

// ended lists the connections and streams that ended since the beginning.
func (tr *trial) ended() string {
	var list []string
	for k, v := range tr.counters(tr.t).since(tr.counted) {
		if strings.HasPrefix(k, "sluice_conn_closed_total") || strings.HasPrefix(k, "sluice_stream_rejected_total") {
			list = append(list, fmt.Sprintf("%s %v", strings.TrimPrefix(k, "sluice_"), v))
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// recover waits for goroutines, descriptors and memory to come back, O2 and O3.
func (tr *trial) recover() {
	tr.t.Helper()
	before := tr.figures
	var now reading
	back := eventually(pick(5*time.Second, time.Minute), func() bool {
		now = tr.read(tr.t, "collected")
		return now.Goroutines <= before.Goroutines+10 && now.Files <= before.Files+10 &&
			(raced || now.Heap <= before.Heap+before.Heap/10+1<<20)
	})
	if !back {
		tr.t.Errorf("%s: O3: %d goroutines, %d descriptors, %d bytes of heap, before the attack %d, %d, %d",
			tr.name, now.Goroutines, now.Files, now.Heap, before.Goroutines, before.Files, before.Heap)
	}
}

// eventually asks until a condition holds or the time is over.
func eventually(wait time.Duration, holds func() bool) bool {
	end := time.Now().Add(wait)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if holds() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		<-time.After(pause)
	}
}

// expect waits until a counter has grown, O4.
func (tr *trial) expect(counter string, by float64) {
	tr.t.Helper()
	tr.expectEither(counter, counter, by)
}

// expectEither waits until one of two counters has grown.
func (tr *trial) expectEither(counter, or string, by float64) {
	tr.t.Helper()
	var now float64
	if !eventually(patience, func() bool {
		c := tr.counters(tr.t)
		now = max(c[counter]-tr.counted[counter], c[or]-tr.counted[or])
		return now >= by
	}) {
		tr.t.Errorf("%s: O4: %s grew by %v, want %v; what grew: %s", tr.name, counter, now, by, tr.ended())
	}
}
