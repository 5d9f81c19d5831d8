package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	clusterv1 "sluice/cluster/v1"
)

// setBack is a node that says three things of one object, is set back to when it had said
// the first, and says the third before it has met anybody.
func setBack(t *testing.T) (sim *simulation, a, b *simNode, former string) {
	t.Helper()
	sim = openSimulation(t, 2)
	a, b = sim.nodes[0], sim.nodes[1]
	a.apply(simBackend("b0", "first"))
	mustAgree(t, sim, 10*time.Second)
	a.stop()
	a.keepCopy()
	a.start()
	sim.meet(0, time.Second)
	sim.run(5 * time.Second)
	a.apply(simBackend("b0", "second"))
	mustAgree(t, sim, 10*time.Second)
	sim.run(time.Minute)
	a.stop()
	sim.meet(0, time.Second)
	sim.run(time.Second)
	copyFolder(t, a.copies[0].dir, a.dir)
	a.start()
	return sim, a, b, a.id
}

// A node that was set back does not lose what it has forgotten: its next edit is one of a
// stranger, and the forgotten one is listed as a conflict.
func TestExchangeRecoversWhatANodeHasForgotten(t *testing.T) {
	sim, a, b, former := setBack(t)
	a.apply(simBackend("b0", "third"))
	sim.meet(0, time.Second)
	sim.run(20 * time.Second)
	for _, n := range sim.nodes {
		o, _ := n.store.Snapshot().Get(backendID("b0"))
		if n.label("b0") != "third" || len(o.Lost) != 1 || o.Lost[0].Resource.Metadata().Labels["by"] != "second" {
			t.Errorf("node %d has %q, over %d lost versions", n.index, n.label("b0"), len(o.Lost))
		}
	}
	if told := a.store.Recovery(); !strings.Contains(told, "set back") {
		t.Errorf("recovery says %q", told)
	}
	if told := b.store.Recovery(); told != "" {
		t.Errorf("the peer says %q", told)
	}
	a.stop()
	a.start()
	if a.id == former {
		t.Error("it has its former name after a restart")
	}
	sim.meet(0, time.Second)
	mustAgree(t, sim, 20*time.Second)
	if err := a.store.CheckConsistency(); err != nil {
		t.Error(err)
	}
}

// One that has said nothing since knows at once what it has forgotten.
func TestExchangeOfANodeSetBackTakesWhatPeersHave(t *testing.T) {
	sim, a, _, _ := setBack(t)
	sim.meet(0, time.Second)
	sim.run(20 * time.Second)
	o, _ := a.store.Snapshot().Get(backendID("b0"))
	if a.label("b0") != "second" || len(o.Lost) != 0 {
		t.Errorf("it has %q, over %d lost versions", a.label("b0"), len(o.Lost))
	}
	a.apply(simBackend("b0", "third"))
	mustAgree(t, sim, 10*time.Second)
	if o, _ := a.store.Snapshot().Get(backendID("b0")); len(o.Lost) != 0 || o.Revision.Node == a.id {
		t.Errorf("revision %s over %d lost versions", o.Revision, len(o.Lost))
	}
}

// What is said in the name of a peer by another life of it is not heard: for a moment it
// may be that peer after a restart, later it is a copy.
func TestExchangeRefusesACopyOfAPeer(t *testing.T) {
	sim := openSimulation(t, 2)
	a, b := sim.nodes[0], sim.nodes[1]
	b.apply(simBackend("b0", "here"))
	mustAgree(t, sim, 10*time.Second)
	v := b.exchange.have.versions[backendID("b0")]
	b.apply(simBackend("b0", "later"))
	mustAgree(t, sim, 10*time.Second)
	o, err := wireObject(v)
	if err != nil {
		t.Fatal(err)
	}
	o.Name = "b1"
	message := &clusterv1.Message{From: b.id, Life: "copy", Body: &clusterv1.Message_Changes{Changes: &clusterv1.Changes{Objects: []*clusterv1.Object{o}}}}
	heard := a.exchange.peers[b.id].heardAt
	hear := func() { a.exchange.receive(context.Background(), []incoming{{encodeMessage(message), sim.now}}) }
	hear()
	if n := a.exchange.stats().Refused[string(wrongSender)] + a.exchange.stats().Refused[string(badObject)]; n > 0 || len(a.exchange.problems()) > 0 {
		t.Errorf("refused %d at once, problems %q", n, a.exchange.problems())
	}
	if a.exchange.peers[b.id].heardAt != heard {
		t.Error("the copy was heard")
	}
	for range 10 {
		sim.run(5 * time.Second)
		hear()
	}
	if n := a.exchange.stats().Refused[string(wrongSender)]; n == 0 {
		t.Error("nothing was refused")
	}
	if told := strings.Join(a.exchange.problems(), "; "); !strings.Contains(told, "two nodes speak as "+b.id) {
		t.Errorf("problems %q", told)
	}
	sim.run(2 * clashPatience)
	if told := a.exchange.problems(); len(told) > 0 {
		t.Errorf("problems long after: %q", told)
	}
}
