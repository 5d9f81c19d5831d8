package cluster

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/store"
)

// What peers may cost at rest, each.
const (
	mostBytes = 20_000 // a second, sent and received, with the headers of IP, UDP and TCP
	mostCPU   = 0.01   // of one core
	headers   = 28     // bytes of a packet
	handshake = 500    // bytes of a stream's headers, about: 9 segments of 52 bytes
)

// fill declares 1,000 routes at a node and registers 1,000 endpoints at all of them.
func (f *fleet) fill() {
	f.t.Helper()
	var routes strings.Builder
	routes.WriteString(shop)
	for i := range 1000 {
		fmt.Fprintf(&routes, `---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: route-%d}
spec:
  hostnames: [host-%d.example.com]
  rules:
  - name: all
    matches: [{method: {service: shop.v1.Cart}}]
    backendRefs: [{group: sluice.dev, kind: Backend, name: shop}]
`, i, i)
	}
	f.nodes[0].apply(routes.String())
	f.awaitEqual(3 * time.Minute) // the processors may have more to do
	for i, n := range f.nodes {
		n.registerMany(i*1000/len(f.nodes), (i+1)*1000/len(f.nodes))
	}
	f.awaitEqual(3 * time.Minute)
}

// registerMany announces the processes of these numbers at this node, all at once.
func (n *fleetNode) registerMany(from, to int) {
	n.fleet.t.Helper()
	var ops []store.Op
	for number := from; number < to; number++ {
		spec := registrationOf(number)
		ops = append(ops, store.Op{Apply: &store.Registration{
			Meta: store.Meta{Namespace: "default", Name: store.RegistrationName(spec.Backend, spec.Address)}, Spec: spec,
		}})
	}
	n.write(ops...)
}

func TestClusterAtRestSaysLittle(t *testing.T) {
	longOnly(t)
	const nodes, minutes = 50, 5
	inBubble(t, nodes, func(t *testing.T, f *fleet) {
		f.fill()
		pass(time.Minute)
		packets, streams := map[string]Traffic{}, map[string]Traffic{}
		begun := map[string][2]uint64{}
		for _, n := range f.nodes {
			packets[n.name], streams[n.name] = f.net.carried(n.name)
			p, s := f.net.opened(n.name)
			begun[n.name] = [2]uint64{p, s}
		}
		cpu := cpuTime(t)
		pass(minutes * time.Minute)
		cpu = cpuTime(t) - cpu
		var sum, most float64
		for _, n := range f.nodes {
			p, s := f.net.carried(n.name)
			sent, dialled := f.net.opened(n.name)
			payload := p.Sent + p.Received - packets[n.name].Sent - packets[n.name].Received + s.Sent + s.Received - streams[n.name].Sent - streams[n.name].Received
			// As many come as go, over all nodes.
			total := payload + 2*headers*(sent-begun[n.name][0]) + 2*handshake*(dialled-begun[n.name][1])
			rate := float64(total) / (minutes * 60)
			sum, most = sum+rate, max(most, rate)
		}
		share := cpu.Seconds() / (minutes * 60 * nodes)
		t.Logf("%d nodes with 1,000 routes and 1,000 endpoints, at rest: %.1f KB/s each, %.1f KB/s the busiest, in and out; %.2f %% of a core each without the kernel's part",
			nodes, sum/nodes/1000, most/1000, 100*share)
		if sum/nodes > mostBytes {
			t.Errorf("%.0f bytes a second each, want %d at most", sum/nodes, mostBytes)
		}
		f.noneRefused()
	})
}

// Fifty nodes in one process, with sockets on loopback, in the time of the clock on the
// wall: what the process takes of the processors.
func TestClusterAtRestInRealTime(t *testing.T) {
	longOnly(t)
	const nodes = 50
	length := time.Minute
	f := newFleet(t, memoryDir(t), nodes)
	defer f.stop()
	f.nodes[0].startAt("127.0.0.1:17900", nil)
	for i, n := range f.nodes[1:] {
		n.startAt(fmt.Sprintf("127.0.0.1:%d", 17901+i), []string{"127.0.0.1:17900"})
	}
	f.awaitAlive(3*time.Minute, nodes)
	f.fill()
	f.awaitSilence(5 * time.Minute)
	var before, after uint64
	for _, n := range f.nodes {
		before += n.cluster.Stats().bytes()
	}
	runtime.GC()
	cpu := cpuTime(t)
	<-time.After(length)
	cpu = cpuTime(t) - cpu
	for _, n := range f.nodes {
		after += n.cluster.Stats().bytes()
	}
	share := cpu.Seconds() / length.Seconds() / nodes
	rate := float64(after-before) / length.Seconds() / nodes
	t.Logf("%d nodes with 1,000 routes and 1,000 endpoints, at rest for %v: %.2f %% of a core each, %.1f KB/s each in and out, without headers",
		nodes, length, 100*share, rate/1000)
	if rate > mostBytes {
		t.Errorf("%.0f bytes a second each, want %d at most", rate, mostBytes)
	}
	if share > mostCPU {
		t.Errorf("%.2f %% of a core each, want %.0f %% at most", 100*share, 100*mostCPU)
	}
}

// awaitSilence waits until no node has anything to pass on: gossip of a thousand
// registrations, several times each, takes minutes at three packets each 200 ms.
func (f *fleet) awaitSilence(within time.Duration) {
	f.t.Helper()
	end := time.After(within)
	for {
		queued := 0
		for _, n := range f.nodes {
			queued += n.cluster.loop.queue.NumQueued()
		}
		if queued == 0 {
			return
		}
		select {
		case <-end:
			f.t.Fatalf("after %v there are %d messages to pass on", within, queued)
		case <-time.After(time.Second):
		}
	}
}

// bytes are all that went in or out.
func (s Stats) bytes() uint64 {
	return s.Packets.Received + s.Packets.Sent + s.Streams.Received + s.Streams.Sent
}

// startAt starts a node with sockets of its own.
func (n *fleetNode) startAt(bind string, join []string) {
	n.fleet.t.Helper()
	n.openStore()
	n.begin(Config{Bind: bind, Join: join, KeyFile: n.fleet.keyFile(), Host: n.name, Version: "test"}, Parts{
		Store: n.store, InForce: n.inForce, Renewed: n.leases.Renewed,
		Peers: func(int) { n.leases.Reconsider() },
	})
}

// cpuTime is what this process has used of the processors.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
