package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

// absences is what happens to nodes over days: they are off, alone, replaced by empty
// ones, and back. Nothing may be dropped but what somebody has deleted.
type absences struct {
	*simulation
	fresh   []string // templates of nodes that are not used yet
	made    int
	deleted map[store.ID]bool
}

// None of the objects that nobody has deleted goes away where it is, whoever is away for
// however long, is replaced, or meets whom. SLUICE_SEED plays one schedule again.
func TestExchangeDropsOnlyWhatWasDeleted(t *testing.T) {
	few := 60
	if raceDetector {
		few = 15
	}
	templates, folder := simTemplates(t, 12), simFolder(t)
	stale := 0
	for _, seed := range schedules(t, few) {
		synctest.Test(t, func(t *testing.T) {
			dir := filepath.Join(folder, fmt.Sprint(seed))
			defer os.RemoveAll(dir)
			a := &absences{simulation: newSimulation(t, seed, templates[:4], dir), fresh: templates[4:], deleted: map[store.ID]bool{}}
			defer a.close()
			stale += a.play(seed)
		})
	}
	t.Logf("nodes were away for too long %d times", stale)
}

func (a *absences) play(seed uint64) (stale int) {
	a.streamLoss = a.rng.Float64() * 0.1
	for _, n := range a.nodes[:1+a.rng.IntN(4)] {
		n.start()
	}
	a.meet(0, time.Second)
	a.run(3 * time.Second)
	for step := range 30 {
		a.something()
		a.meet(0, 2*time.Second)
		before := a.held()
		for range a.rng.IntN(20) {
			a.run(500 * time.Millisecond)
			stale += a.check(seed, step, before)
		}
	}
	return stale
}

// held is what each node has.
func (a *absences) held() map[*simNode][]store.ID {
	held := map[*simNode][]store.ID{}
	for _, n := range a.nodes {
		if n.store == nil {
			continue
		}
		for _, o := range n.store.Snapshot().All("") {
			held[n] = append(held[n], o.ID)
		}
	}
	return held
}

func (a *absences) check(seed uint64, step int, before map[*simNode][]store.ID) (stale int) {
	for n, ids := range before {
		if n.exchange.staleness.stale {
			stale = 1
		}
		for _, id := range ids {
			if _, there := n.store.Snapshot().Get(id); !there && !a.deleted[id] {
				a.t.Fatalf("seed %d, step %d: node %d (%s) has dropped %s, which nobody has deleted", seed, step, n.index, n.id, id)
			}
		}
	}
	return stale
}

func (a *absences) something() {
	n := a.nodes[a.rng.IntN(len(a.nodes))]
	switch p := a.rng.IntN(100); {
	case p < 30:
		a.edit(n)
	case p < 42:
		n.stop()
	case p < 58:
		if n.store == nil {
			n.start()
		}
	case p < 66:
		a.replace(n)
	case p < 78:
		for i := range a.nodes {
			a.cut[i] = a.rng.IntN(3)
		}
	case p < 88:
		clear(a.cut)
	default:
		a.passTime(time.Duration(a.rng.IntN(60)) * time.Hour / 2)
	}
}

// passTime lets hours pass, during which those that run forget old deletions.
func (a *absences) passTime(d time.Duration) {
	a.leap(d)
	for _, n := range a.nodes {
		if n.store == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 11*time.Minute)
		if err := n.store.Run(ctx); err != nil {
			a.t.Error(err)
		}
		cancel()
	}
}

// edit makes, changes or deletes something.
func (a *absences) edit(n *simNode) {
	if n.store == nil {
		return
	}
	all := n.store.Snapshot().All("")
	switch p := a.rng.IntN(4); {
	case p < 2 || len(all) == 0:
		for range 1 + a.rng.IntN(3) {
			a.made++
			n.apply(simBackend(fmt.Sprintf("b%d", a.made), "x"))
		}
	case p == 2:
		n.apply(simBackend(all[a.rng.IntN(len(all))].ID.Name, fmt.Sprint(a.rng.Uint32())))
	default:
		id := all[a.rng.IntN(len(all))].ID
		a.deleted[id] = true
		n.write(store.Txn{Ops: []store.Op{{ID: id, Delete: true}}})
	}
}

// replace has an empty machine take the place of one.
func (a *absences) replace(n *simNode) {
	if len(a.fresh) == 0 {
		return
	}
	n.stop()
	copyFolder(a.t, a.fresh[0], n.dir)
	a.fresh = a.fresh[1:]
	n.start()
}

// away has n nodes that agree on some objects, which are 20 Backends.
func away(t *testing.T, nodes, running int) *simulation {
	t.Helper()
	sim := newSimulation(t, 1, simTemplates(t, nodes), simFolder(t))
	t.Cleanup(sim.close)
	for _, n := range sim.nodes[:running] {
		n.start()
	}
	sim.meet(0, time.Millisecond)
	sim.run(time.Second)
	text := ""
	for i := range 20 {
		text += "---\n" + simBackend(fmt.Sprintf("b%d", i), "x")
	}
	sim.nodes[0].apply(text)
	mustAgree(t, sim, 10*time.Second)
	sim.run(15 * time.Second)
	return sim
}

func (n *simNode) mustHave(objects int) {
	n.sim.t.Helper()
	if have := n.store.Snapshot().Len(""); have != objects {
		n.sim.t.Errorf("node %d has %d objects, want %d", n.index, have, objects)
	}
}

// One of two gateways dies; the other serves alone for days; then comes an empty one.
func TestExchangeKeepsEverythingWhenAPeerIsReplaced(t *testing.T) {
	sim := away(t, 3, 2)
	a, dies, fresh := sim.nodes[0], sim.nodes[1], sim.nodes[2]
	dies.stop()
	sim.meet(0, time.Second)
	sim.run(2 * time.Second)
	sim.leap(60 * time.Hour)
	fresh.start()
	sim.meet(0, time.Second)
	sim.run(30 * time.Second)
	a.mustHave(20)
	fresh.mustHave(20)
}

// A node that is back believes no newcomer that has nothing yet.
func TestExchangeIsToldNothingByNewcomers(t *testing.T) {
	sim := away(t, 3, 2)
	sim.nodes[1].stop()
	sim.leap(25 * time.Hour)
	sim.nodes[1].start()
	sim.nodes[2].start()
	sim.meet(0, 100*time.Millisecond)
	sim.run(30 * time.Second)
	for _, n := range sim.nodes {
		n.mustHave(20)
	}
}

// A node replaced meanwhile knows what was deleted, if it came while the other still knew
// all; the node that is back has never met it.
func TestExchangeBelievesWhoHasTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := away(t, 4, 3)
		back := sim.nodes[2]
		sim.run(2 * time.Minute)
		sim.cut[2] = 1
		sim.nodes[3].start()
		sim.meet(0, time.Millisecond)
		sim.run(20 * time.Second)
		sim.nodes[0].write(store.Txn{Ops: []store.Op{{ID: backendID("b7"), Delete: true}}})
		for range 26 {
			sim.leap(time.Hour)
			sim.run(10 * time.Second)
		}
		for _, n := range [...]*simNode{sim.nodes[0], sim.nodes[1], sim.nodes[3]} {
			n.forgetTombstones()
		}
		sim.run(20 * time.Second)
		sim.nodes[0].stop()
		sim.nodes[1].stop()
		sim.cut[2] = 0
		sim.meet(0, time.Millisecond)
		sim.run(20 * time.Second)
		back.mustHave(19)
		sim.nodes[3].mustHave(19)
	})
}

// Of two that were apart for long each believes the other of what both had before.
func TestExchangeApartForLongDropsWhatTheOtherDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := away(t, 2, 2)
		a, b := sim.nodes[0], sim.nodes[1]
		sim.cut[1] = 1
		sim.meet(0, time.Millisecond)
		sim.run(time.Second)
		a.write(store.Txn{Ops: []store.Op{{ID: backendID("b1"), Delete: true}}})
		b.write(store.Txn{Ops: []store.Op{{ID: backendID("b2"), Delete: true}}})
		b.apply(simBackend("b3", "edited") + "---\n" + simBackend("new", "x"))
		sim.run(time.Second)
		sim.leap(40 * time.Hour)
		a.forgetTombstones()
		b.forgetTombstones()
		sim.run(time.Second)
		clear(sim.cut)
		sim.meet(0, time.Second)
		sim.run(10 * time.Second)
		mustAgree(t, sim, 20*time.Second)
		for _, n := range sim.nodes {
			if n.label("b1") != "" || n.label("b2") != "" || n.label("b3") != "edited" || n.label("new") != "x" {
				t.Errorf("node %d has b1 %q, b2 %q, b3 %q, new %q", n.index, n.label("b1"), n.label("b2"), n.label("b3"), n.label("new"))
			}
			n.mustHave(19)
		}
	})
}

// An inventory drops nothing as long as a piece of it is missing, in whatever order they
// come.
func TestExchangeDropsNothingOnHalfAnInventory(t *testing.T) {
	sim := away(t, 2, 2)
	a, b := sim.nodes[0], sim.nodes[1].exchange
	pieces := []*clusterv1.Inventory{{Last: true}, {Kind: store.BackendKind}, {Kind: store.GRPCRouteKind}}
	for lost := range pieces {
		a.exchange.staleness = staleness{stale: true, met: sim.now}
		a.exchange.askAll(a.exchange.peerOf(b.self))
		id := a.exchange.staleness.id
		for n, i := range pieces {
			if n == lost {
				i = pieces[(n+1)%len(pieces)] // twice
			}
			i.All, i.Id, i.Piece, i.Pieces = true, id, uint32(slices.Index(pieces, i)+1), 3
			a.exchange.takeAll(t.Context(), a.exchange.peerOf(b.self), i)
		}
		a.mustHave(20)
		other := &clusterv1.Inventory{All: true, Id: id + 2, Piece: uint32(lost + 1), Pieces: 3}
		a.exchange.takeAll(t.Context(), a.exchange.peerOf(b.self), other)
		a.mustHave(20)
	}
	sim.run(30 * time.Second) // it asks anew, and gets the whole
	a.mustHave(20)
	if a.exchange.staleness.stale {
		t.Error("it is stale still")
	}
}

// What the others refuse for days stays with whoever has it, also when he was away.
func TestExchangeKeepsWhatOthersRefuse(t *testing.T) {
	sim := openSimulation(t, 3)
	a := sim.nodes[0]
	a.apply(simBackend("b0", "x"))
	mustAgree(t, sim, 10*time.Second)
	sim.run(15 * time.Second)
	sim.nodes[1].exchange.unwanted = unwanted{}
	for _, n := range sim.nodes[1:] { // they refuse it each time
		n.refuses = backendID("z9")
	}
	a.apply(simBackend("z9", "x"))
	for range 50 {
		sim.leap(time.Hour)
		sim.run(12 * time.Second)
	}
	a.stop()
	sim.leap(30 * time.Hour)
	a.start()
	sim.meet(0, time.Second)
	sim.run(30 * time.Second)
	if a.label("z9") != "x" || sim.nodes[1].label("z9") != "" {
		t.Errorf("its owner has z9 %q, a peer %q", a.label("z9"), sim.nodes[1].label("z9"))
	}
}

// One was away when something was made, and the one that has it was alone since then:
// who never had it does not know that it was deleted.
func TestExchangeKeepsWhatTheOtherNeverHad(t *testing.T) {
	sim := away(t, 3, 3)
	a, b, c := sim.nodes[0], sim.nodes[1], sim.nodes[2]
	b.stop()
	sim.meet(0, time.Millisecond)
	sim.run(time.Second)
	c.apply(simBackend("new", "x"))
	sim.run(15 * time.Second)
	sim.leap(10 * time.Hour)
	sim.run(15 * time.Second)
	c.stop()
	sim.meet(0, time.Millisecond)
	sim.leap(25 * time.Hour)
	sim.run(time.Second)
	b.start()
	sim.meet(0, time.Second)
	sim.run(20 * time.Second)
	a.mustHave(21)
	b.mustHave(21)
}

// What came from a third one, made before the two were last in step and heard of after
// that, is not taken for deleted either.
func TestExchangeKeepsWhatCameLate(t *testing.T) {
	sim := away(t, 3, 3)
	a, b, c := sim.nodes[0], sim.nodes[1], sim.nodes[2]
	sim.cut[2] = 1
	sim.meet(0, time.Millisecond)
	sim.run(time.Second)
	c.apply(simBackend("late", "x"))
	sim.run(time.Second)
	a.apply(simBackend("b3", "later"))
	sim.run(20 * time.Second) // a and b are in step
	sim.cut[0], sim.cut[1], sim.cut[2] = 0, 1, 0
	sim.meet(0, time.Millisecond)
	mustHear := func() bool { return a.label("late") == "x" }
	for range 40 {
		if sim.run(500 * time.Millisecond); mustHear() {
			break
		}
	}
	if !mustHear() {
		t.Fatal("it has not come")
	}
	sim.run(15 * time.Second)
	c.stop()
	sim.meet(0, time.Millisecond)
	sim.leap(25 * time.Hour)
	sim.run(time.Second)
	clear(sim.cut)
	sim.meet(0, time.Second)
	sim.run(20 * time.Second)
	if a.label("late") != "x" || b.label("late") != "x" {
		t.Errorf("late is %q where it was, %q at the other", a.label("late"), b.label("late"))
	}
}
