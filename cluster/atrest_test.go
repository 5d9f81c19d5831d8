package cluster

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/store"
)

// What the exchange costs at rest, beside memberlist's own: 50 nodes, 1,000 routes and
// 1,000 endpoints.
func TestExchangeCostsLittleAtRest(t *testing.T) {
	if os.Getenv("SLUICE_AT_REST") == "" {
		t.Skip("it takes 50 stores: SLUICE_AT_REST=1")
	}
	const nodes, routes, endpoints, rest = 50, 1000, 1000, 60 * time.Second
	sim := newSimulation(t, 1, simTemplates(t, nodes), simFolder(t))
	t.Cleanup(sim.close)
	first := sim.nodes[0]
	first.start()
	var text strings.Builder
	text.WriteString(simBackend("b0", "x"))
	for i := range routes {
		text.WriteString("---\n" + strings.ReplaceAll(simRoute("x"), "name: cart", fmt.Sprintf("name: cart-%d", i)))
	}
	first.apply(text.String())
	var ops []store.Op
	for i := range endpoints {
		address := fmt.Sprintf("10.0.%d.%d:1", i/250, i%250)
		spec := store.RegistrationSpec{Backend: "b0", Address: address, Weight: 1, Lease: store.Duration(time.Minute)}
		ops = append(ops, store.Op{Apply: &store.Registration{
			Meta: store.Meta{Namespace: "default", Name: store.RegistrationName("b0", address)}, Spec: spec,
		}})
	}
	first.write(store.Txn{Ops: ops})
	all := first.store.Snapshot().All("")
	for _, n := range sim.nodes[1:] {
		n.start()
		if _, err := n.store.Merge(context.Background(), all); err != nil {
			t.Fatal(err)
		}
		n.exchange.follow()
	}
	sim.meet(0, time.Second)
	sim.run(20 * time.Second)
	mustAgree(t, sim, 20*time.Second)
	sim.run(10 * time.Second)
	sent, packets := 0, 0
	for _, n := range sim.nodes {
		n.sent, n.packets = 0, 0
	}
	before := sim.comparisons()
	begin := time.Now()
	sim.run(rest)
	took := time.Since(begin)
	for _, n := range sim.nodes {
		sent, packets = sent+n.sent, packets+n.packets
	}
	perSecond := float64(sent) / nodes / rest.Seconds()
	share := took.Seconds() / nodes / rest.Seconds()
	t.Logf("each node sends %.0f bytes/s in %.1f packets/s and streams, and takes %.3f%% of a core; %d comparisons",
		perSecond, float64(packets)/nodes/rest.Seconds(), 100*share, sim.comparisons()-before)
	if perSecond > 5_000 || share > 0.005 || sim.comparisons() > before {
		t.Error("that is too much")
	}
}
