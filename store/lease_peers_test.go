package store

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fleet is nodes of a cluster whose clock, network and processes a test moves.
type fleet struct {
	t     *testing.T
	wall  *testClock
	nodes []*fleetNode
	cut   func(a, b int) bool // whether two nodes cannot hear each other
	lose  func() bool         // whether a renewal that is passed on is lost
	// reach tells whether a node can reach the endpoint.
	reach  func(node int, address string) bool
	passed int // renewals that were passed on
	asked  int // endpoints
}

// fleetNode is one of them; it is its own LeasePeers.
type fleetNode struct {
	*fleet
	at     int
	dead   bool
	store  *Store
	leases *Leases
}

func newFleet(t *testing.T, nodes int) *fleet {
	f := &fleet{
		t: t, wall: newTestClock(), cut: func(int, int) bool { return false },
		lose: func() bool { return false }, reach: func(int, string) bool { return true },
	}
	for i := range nodes {
		n := &fleetNode{fleet: f, at: i, store: openStore(t, Options{Now: f.wall.Now})}
		f.nodes = append(f.nodes, n)
	}
	for _, n := range f.nodes {
		n.begin()
	}
	applyText(t, f.nodes[0].store, takesText("cart", "{maxEndpoints: 1000, maxLease: 10m}"))
	f.tick()
	return f
}

func (n *fleetNode) begin() {
	n.leases = NewLeases(n.store, LeaseOptions{Now: n.wall.Now, Peers: n, Reach: func(_ context.Context, _ ID, address string) bool {
		n.asked++
		return n.reach(n.at, address)
	}})
}

// restart is a new process with the same disk.
func (n *fleetNode) restart() {
	n.store, n.dead = reopen(n.t, n.store), false
	n.begin()
	n.changed()
}

func (n *fleetNode) die() {
	n.dead = true
	n.changed()
}

// changed tells everybody that who lives has changed.
func (f *fleet) changed() {
	for _, n := range f.nodes {
		n.leases.Reconsider()
	}
}

func (n *fleetNode) hears(other *fleetNode) bool {
	return !n.dead && !other.dead && !n.cut(n.at, other.at) && !n.cut(other.at, n.at)
}

func (n *fleetNode) Steward(id ID, writer string) (steward string) {
	best := uint64(0)
	for _, other := range n.fleet.nodes {
		if !n.hears(other) {
			continue
		}
		if other.store.Node() == writer {
			return writer
		}
		h := fnv.New64a()
		fmt.Fprint(h, id, other.at)
		if sum := h.Sum64(); sum >= best {
			best, steward = sum, other.store.Node()
		}
	}
	return steward
}

func (n *fleetNode) Renew(steward string, id ID) {
	n.passed++
	for _, other := range n.fleet.nodes {
		if other.store.Node() == steward && n.hears(other) && !n.lose() {
			other.leases.Renewed(id)
		}
	}
}

// tick is what a second brings: each node looks at its leases, and all tell each other.
func (f *fleet) tick() {
	f.wall.pass(time.Second)
	for _, n := range f.nodes {
		if n.dead {
			continue
		}
		n.leases.look(f.t)
		n.leases.forward()
		for _, id := range n.leases.doubtful() {
			n.leases.reach(f.t.Context(), id)
		}
		n.leases.look(f.t)
	}
	for i, a := range f.nodes {
		for _, b := range f.nodes[i+1:] {
			if a.hears(b) && a.store.Snapshot().Digest() != b.store.Snapshot().Digest() {
				exchange(f.t, a.store, b.store)
			}
		}
	}
}

// pass lets seconds go by, with something to be done in each.
func (f *fleet) pass(seconds int, do func(second int)) {
	for i := range seconds {
		if do != nil {
			do(i)
		}
		f.tick()
	}
}

// announce has a process registered, for 30 s, at a node.
func (f *fleet) announce(node int, address string) ID {
	f.t.Helper()
	id := announce(f.t, f.nodes[node].leases, address)
	f.tick()
	return id
}

// has tells at how many of the nodes that live a registration is.
func (f *fleet) has(id ID) (n int) {
	for _, node := range f.nodes {
		if _, there := node.store.Snapshot().Get(id); there && !node.dead {
			n++
		}
	}
	return n
}

// renewing is a process that renews each 10 s at that node, or registers anew when that
// is refused.
func (f *fleet) renewing(id ID, node func() int) func(second int) {
	return func(second int) {
		if second%10 != 0 {
			return
		}
		if err := f.nodes[node()].leases.Renew(id); err != nil {
			f.t.Errorf("after %d s a renewal is refused: %v", second, err)
		}
	}
}

// A lease ends when it is over, whoever it is that ends it, and one change of one node
// does so.
func TestLeasesOfAPeerEndOnce(t *testing.T) {
	f := newFleet(t, 3)
	kept, silent := f.announce(1, "10.0.0.1:1"), f.announce(1, "10.0.0.2:1")
	f.pass(40, f.renewing(kept, func() int { return 1 }))
	if f.has(kept) != 3 || f.has(silent) != 0 {
		t.Errorf("what is renewed is at %d nodes, what is not at %d", f.has(kept), f.has(silent))
	}
	for _, n := range f.nodes {
		tombstone := n.store.Snapshot().find(silent)
		if !endedByLease(tombstone) || tombstone.Revision.Node != f.nodes[1].store.Node() {
			t.Errorf("ended by %+v of %s", tombstone.Author, tombstone.Revision.Node)
		}
	}
	if f.passed != 0 {
		t.Errorf("%d renewals were passed on by who looks after the lease", f.passed)
	}
}

// A process renews wherever it is led, a third of what is passed on is lost, and its
// registration stays; nothing is written for it.
func TestLeasesAreRenewedAtRandomNodes(t *testing.T) {
	f := newFleet(t, 3)
	rng := rand.New(rand.NewPCG(1, 2))
	f.lose = func() bool { return rng.IntN(3) == 0 }
	id := f.announce(0, "10.0.0.1:1")
	before := f.nodes[0].store.Snapshot().Seq()
	renew := f.renewing(id, func() int { return rng.IntN(3) })
	f.pass(600, func(second int) { renew(second / 2 * 2 % 600) })
	if f.has(id) != 3 || f.passed == 0 {
		t.Errorf("it is at %d nodes, %d renewals were passed on", f.has(id), f.passed)
	}
	if after := f.nodes[0].store.Snapshot().Seq(); after != before {
		t.Errorf("%d changes by renewing", after-before)
	}
	// Whoever registers anew at another node, and says what was said, renews too.
	seq := f.nodes[2].store.Snapshot().Seq()
	f.pass(60, func(second int) {
		if second%5 == 0 {
			announce(t, f.nodes[2].leases, "10.0.0.1:1")
		}
	})
	if f.has(id) != 3 || f.nodes[2].store.Snapshot().Seq() != seq {
		t.Error("registering anew at another node does not renew, or writes")
	}
	if left := f.nodes[2].leases.Expires(id).Sub(f.wall.Now()); left < 20*time.Second || left > 30*time.Second {
		t.Errorf("the node that it is renewed at thinks that it expires in %v", left)
	}
	f.pass(35+30*maxSpared, nil)
	if f.has(id) != 0 {
		t.Error("what nobody renews any more is registered")
	}
}

// What a stream keeps at one node, another looks after: it is told again and again.
func TestLeasesHeldAtAnotherNode(t *testing.T) {
	f := newFleet(t, 3)
	id := f.announce(0, "10.0.0.1:1")
	n := 0
	f.lose = func() bool { n++; return n%3 == 0 }
	announce(t, f.nodes[2].leases, "10.0.0.1:1")
	release := f.nodes[2].leases.Holds(id)
	f.pass(300, nil)
	if f.has(id) != 3 {
		t.Fatal("what a stream keeps has ended")
	}
	if f.passed < 29 || f.passed > 33 {
		t.Errorf("%d renewals were passed on in 300 s, of a lease of 30 s", f.passed)
	}
	release()
	f.pass(29, nil)
	if f.has(id) != 3 {
		t.Error("released, it has not its whole lease")
	}
	f.pass(10+30*maxSpared, nil)
	if f.has(id) != 0 {
		t.Error("what was held is kept for ever")
	}
}

// Who changes what is registered looks after it from then on.
func TestLeasesPassToWhoWrites(t *testing.T) {
	f := newFleet(t, 3)
	id := f.announce(0, "10.0.0.1:1")
	spec := RegistrationSpec{Backend: "cart", Address: "10.0.0.1:1", Weight: 7, Lease: halfMinute}
	if _, err := f.nodes[2].leases.Register(t.Context(), spec, "", Author{}); err != nil {
		t.Fatal(err)
	}
	f.pass(100, f.renewing(id, func() int { return 2 }))
	if f.has(id) != 3 || f.passed != 0 {
		t.Errorf("it is at %d nodes, %d renewals were passed on", f.has(id), f.passed)
	}
	f.pass(35, nil)
	if tombstone := f.nodes[0].store.Snapshot().find(id); tombstone.live() || tombstone.Revision.Node != f.nodes[2].store.Node() {
		t.Errorf("it was not ended by who wrote it last: %+v", tombstone)
	}
}

func TestLeasesDeregisterAtAnyNode(t *testing.T) {
	f := newFleet(t, 3)
	id := f.announce(0, "10.0.0.1:1")
	if err := f.nodes[1].leases.Deregister(t.Context(), id, Author{Actor: "cart"}); err != nil {
		t.Fatal(err)
	}
	f.tick()
	for _, n := range f.nodes {
		if err := n.leases.Renew(id); !errors.Is(err, ErrNoLease) || f.has(id) != 0 {
			t.Errorf("deregistered, it is at %d nodes; renewed: %v", f.has(id), err)
		}
	}
}

// Who looks after a lease dies: another gives it a whole one, ends it when it is over and
// the endpoint is gone, too, and is told of renewals otherwise. Back again, the first
// goes on.
func TestLeasesOutliveTheirSteward(t *testing.T) {
	f := newFleet(t, 3)
	ids := map[string]ID{}
	for _, name := range []string{"renewed", "unknowing", "gone"} {
		ids[name] = f.announce(0, name+":1")
	}
	f.reach = func(_ int, address string) bool { return address != "gone:1" }
	renew := f.renewing(ids["renewed"], func() int { return 1 })
	f.pass(25, renew)
	f.nodes[0].die()
	f.pass(29, renew)
	for name, id := range ids {
		if f.has(id) != 2 {
			t.Errorf("%s: it has not a whole lease at another node", name)
		}
	}
	f.pass(600, renew)
	if f.has(ids["renewed"]) != 2 || f.has(ids["unknowing"]) != 2 || f.has(ids["gone"]) != 0 {
		t.Errorf("renewed at %d nodes, there and not renewed at %d, neither at %d", f.has(ids["renewed"]), f.has(ids["unknowing"]), f.has(ids["gone"]))
	}
	if f.asked > 3+600/20 {
		t.Errorf("endpoints were asked %d times in 600 s whether they are there", f.asked)
	}
	// The process is heard again: from then on its lease is as every other.
	if err := f.nodes[2].leases.Renew(ids["unknowing"]); err != nil {
		t.Fatal(err)
	}
	f.pass(32+30*maxSpared, renew)
	if f.has(ids["unknowing"]) != 0 {
		t.Error("a lease that was renewed since does not end when it is over")
	}
	f.nodes[0].restart()
	f.pass(60, renew)
	if f.has(ids["renewed"]) != 3 {
		t.Error("what is renewed at another node has ended when who had looked after it came back")
	}
}

// A node alone on its side of a partition does not hear who renews on the other: what it
// reaches, it keeps.
func TestLeasesInAPartition(t *testing.T) {
	f := newFleet(t, 3)
	far, near := f.announce(0, "10.0.0.1:1"), f.announce(0, "10.0.0.2:1")
	renew := func(second int) {
		f.renewing(far, func() int { return 1 + second/10%2 })(second)
		f.renewing(near, func() int { return 0 })(second)
	}
	f.pass(60, renew)
	f.cut = func(a, b int) bool { return a == 0 && b != 0 }
	f.changed()
	f.pass(120, renew)
	if f.has(far) != 3 || f.has(near) != 3 {
		t.Errorf("in the partition one is at %d nodes, the other at %d", f.has(far), f.has(near))
	}
	f.cut = func(int, int) bool { return false }
	f.changed()
	f.pass(120, renew)
	if f.has(far) != 3 || f.has(near) != 3 {
		t.Errorf("after it one is at %d nodes, the other at %d", f.has(far), f.has(near))
	}
	for _, n := range f.nodes[1:] {
		if n.store.Snapshot().Digest() != f.nodes[0].store.Snapshot().Digest() {
			t.Error("the nodes do not agree")
		}
	}
	f.pass(35+30*maxSpared, nil)
	if f.has(far) != 0 || f.has(near) != 0 {
		t.Error("what nobody renews any more is registered")
	}
}

// The side of a partition that cannot reach an endpoint ends it; the other has heard of it
// within its lease, and has it registered everywhere once they meet again.
func TestLeasesEndedByOneSideGoOn(t *testing.T) {
	for name, renews := range map[string]int{"where it was registered": 0, "elsewhere": 2} {
		f := newFleet(t, 3)
		id := f.announce(0, "10.0.0.1:1")
		silent := f.announce(0, "10.0.0.2:1")
		f.reach = func(int, string) bool { return false }
		renew := f.renewing(id, func() int { return renews })
		f.pass(30, renew)
		f.cut = func(a, b int) bool { return a == 0 && b != 0 }
		f.changed()
		f.pass(100, renew)
		if want := 1 + renews/2; f.has(id) != want {
			t.Errorf("%s: in the partition it is at %d nodes, want %d", name, f.has(id), want)
		}
		f.cut = func(int, int) bool { return false }
		f.changed()
		f.tick()
		f.pass(100, renew)
		if f.has(id) != 3 || f.has(silent) != 0 {
			t.Errorf("%s: after it the one that is renewed is at %d nodes, the other at %d", name, f.has(id), f.has(silent))
		}
		for _, n := range f.nodes[1:] {
			if n.store.Snapshot().Digest() != f.nodes[0].store.Snapshot().Digest() {
				t.Errorf("%s: the nodes do not agree", name)
			}
		}
		if err := f.nodes[1].leases.Deregister(t.Context(), id, Author{Actor: "cart"}); err != nil {
			t.Fatal(err)
		}
		f.pass(2, nil)
		if f.has(id) != 0 {
			t.Errorf("%s: deregistered, it is at %d nodes", name, f.has(id))
		}
	}
}

// Whatever dies and is cut off, a process that renews at some node that lives is registered
// everywhere at the end, and one that is gone is not; nobody ends what is renewed at his side.
func TestLeasesHoldOverRandomHistories(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 6))
		f := newFleet(t, 3)
		f.lose = func() bool { return rng.IntN(3) == 0 }
		f.reach = func(node int, address string) bool { return address == "10.0.0.1:1" && rng.IntN(4) > 0 }
		renewed, gone := f.announce(0, "10.0.0.1:1"), f.announce(1, "10.0.0.2:1")
		at := 0
		f.pass(200, func(second int) {
			switch rng.IntN(25) {
			case 0:
				if n := f.nodes[rng.IntN(3)]; n.dead {
					n.restart()
				} else if living(f) > 1 {
					n.die()
				}
			case 1:
				alone := rng.IntN(4)
				f.cut = func(a, b int) bool { return (a == alone) != (b == alone) }
				f.changed()
			}
			for at = rng.IntN(3); f.nodes[at].dead; at = rng.IntN(3) {
			}
			if second%10 == 0 {
				announce(t, f.nodes[at].leases, "10.0.0.1:1")
			}
		})
		f.cut = func(int, int) bool { return false }
		for _, n := range f.nodes {
			if n.dead {
				n.restart()
			}
		}
		f.changed()
		f.pass(90, func(second int) {
			if second%10 == 0 {
				announce(t, f.nodes[rng.IntN(3)].leases, "10.0.0.1:1")
			}
		})
		if f.has(renewed) != 3 || f.has(gone) != 0 {
			t.Errorf("seed %d: what is renewed is at %d nodes, what is gone at %d", seed, f.has(renewed), f.has(gone))
		}
		for _, n := range f.nodes[1:] {
			if n.store.Snapshot().Digest() != f.nodes[0].store.Snapshot().Digest() {
				t.Errorf("seed %d: the nodes do not agree", seed)
			}
		}
	}
}

func living(f *fleet) (n int) {
	for _, node := range f.nodes {
		if !node.dead {
			n++
		}
	}
	return n
}

// Who has looked after a lease ends it no more when another does, though nobody has told him;
// and what was looked at before it was registered anew says nothing of it.
func TestLeasesGoByWhoLooksAfterThemNow(t *testing.T) {
	f := newFleet(t, 2)
	id := f.announce(0, "10.0.0.1:1")
	f.reach = func(int, string) bool { return false }
	f.nodes[0].die()
	f.pass(28, nil)
	f.nodes[0].dead = false
	other := f.nodes[1].leases
	f.wall.pass(5 * time.Second)
	for _, over := range other.doubtful() {
		other.reach(t.Context(), over)
	}
	other.look(t)
	if f.has(id) != 2 || f.asked != 1 {
		t.Errorf("it is at %d nodes, after %d endpoints were asked", f.has(id), f.asked)
	}
	old := mustGet(t, other.store, id)
	spec := RegistrationSpec{Backend: "cart", Address: "10.0.0.1:1", Weight: 7, Lease: halfMinute}
	if _, err := other.Register(t.Context(), spec, "", Author{}); err != nil {
		t.Fatal(err)
	}
	other.mu.Lock()
	defer other.mu.Unlock()
	if other.settle(old, false); !other.leases[id].mine {
		t.Error("it was registered here, and another is to look after it")
	}
}

// All nodes are started anew: each begins whole leases, and ends those whose endpoints
// are gone.
func TestLeasesAfterAllNodesWereGone(t *testing.T) {
	f := newFleet(t, 3)
	there, gone := f.announce(0, "10.0.0.1:1"), f.announce(1, "10.0.0.2:1")
	for _, n := range f.nodes {
		n.die()
	}
	f.wall.pass(time.Hour)
	f.reach = func(_ int, address string) bool { return address == "10.0.0.1:1" }
	for _, n := range f.nodes {
		n.restart()
	}
	f.pass(28, nil)
	if f.has(there) != 3 || f.has(gone) != 3 {
		t.Error("after the start leases are not whole")
	}
	f.pass(100, nil)
	if f.has(there) != 3 || f.has(gone) != 0 {
		t.Errorf("who is there is at %d nodes, who is not at %d", f.has(there), f.has(gone))
	}
}

// Without peers a node looks after what a cluster has left, too.
func TestLeasesAloneEndThoseOfPeers(t *testing.T) {
	f := newFleet(t, 2)
	id := f.announce(1, "10.0.0.1:1")
	s := reopen(t, f.nodes[0].store)
	l := NewLeases(s, LeaseOptions{Now: f.wall.Now})
	if err := l.Renew(id); err != nil {
		t.Errorf("renewed: %v", err)
	}
	f.wall.pass(30 * time.Second)
	l.look(t)
	if _, there := s.Snapshot().Get(id); there {
		t.Error("what was registered at a peer never ends")
	}
}

// Who has heard of a process says so, whoever looks after its lease.
func TestStoreKnowsWhatOutlivesAPeersWord(t *testing.T) {
	f := newFleet(t, 2)
	id := f.announce(0, "10.0.0.1:1")
	overAt := func(n int, by Author) bool {
		s := f.nodes[n].store
		return s.judge(mustGet(t, s, id), &Object{ID: id, Deleted: true, Author: by}) == kept
	}
	lease, stream := Author{Actor: leaseActor}, Author{Actor: "cart", Via: "api", Reason: StreamEnded}
	if overAt(1, lease) || !overAt(0, lease) || overAt(0, stream) {
		t.Error("what goes on is not what was heard of")
	}
	if err := f.nodes[1].leases.Renew(id); err != nil {
		t.Fatal(err)
	}
	f.wall.pass(29 * time.Second)
	if !overAt(1, lease) || !overAt(0, lease) || overAt(1, stream) {
		t.Error("what was renewed within its term does not go on, or though its stream has ended")
	}
	f.wall.pass(2 * time.Second)
	if overAt(1, lease) || overAt(0, lease) {
		t.Error("what is over goes on")
	}
	f.nodes[1].leases.Holds(id)
	if !overAt(1, lease) || !overAt(1, stream) || overAt(1, Author{Actor: "alice", Via: "cli"}) {
		t.Error("what a stream keeps does not go on, or though somebody has ended it")
	}
	if openStore(t, Options{}).judge(mustGet(t, f.nodes[0].store, id), &Object{ID: id, Deleted: true, Author: lease}) != obeyed {
		t.Error("a store without leases holds something")
	}
}

// A process is replaced, and its successor comes before it goes, at another node: that one
// has it registered still, and so have all.
func TestLeasesOutliveTheStreamOfAPredecessor(t *testing.T) {
	f := newFleet(t, 3)
	id := f.announce(0, "10.0.0.1:1")
	before := f.nodes[0].leases.Holds(id)
	announce(t, f.nodes[1].leases, "10.0.0.1:1")
	after := f.nodes[1].leases.Holds(id)
	f.tick()
	before()
	if err := f.nodes[0].leases.Deregister(t.Context(), id, Author{Actor: "cart", Reason: StreamEnded}); err != nil {
		t.Fatal(err)
	}
	f.pass(100, nil)
	if f.has(id) != 3 {
		t.Errorf("the successor is at %d nodes", f.has(id))
	}
	after()
	if err := f.nodes[1].leases.Deregister(t.Context(), id, Author{Actor: "cart", Reason: StreamEnded}); err != nil {
		t.Fatal(err)
	}
	f.pass(2, nil)
	if f.has(id) != 0 {
		t.Errorf("when that has gone, too, it is at %d nodes", f.has(id))
	}
}

// end has a node say of a registration that its lease is over, as one that was alone would.
func (n *fleetNode) end(id ID) *Object {
	n.t.Helper()
	mustWrite(n.t, n.store, Txn{Author: Author{Actor: leaseActor, Reason: "the lease was over"}, Ops: []Op{{ID: id, Delete: true}}})
	return n.store.Snapshot().find(id)
}

// A node that was alone has ended what it did not hear of. Back again, it ends nothing at
// the others, not for a moment, before the one that looks after the lease has said so.
func TestLeasesEndByTheWordOfWhoLooksAfterThem(t *testing.T) {
	f := newFleet(t, 3)
	a, b, c := f.nodes[0], f.nodes[1], f.nodes[2]
	renewed, silent := f.announce(0, "10.0.0.1:1"), f.announce(0, "10.0.0.2:1")
	f.pass(20, nil)
	if err := a.leases.Renew(renewed); err != nil {
		t.Fatal(err)
	}
	f.wall.pass(11 * time.Second)
	for _, id := range []ID{renewed, silent} {
		word := c.end(id)
		send(t, b.store, word)
		if !b.store.Snapshot().Find(id).live() {
			t.Errorf("%s: the word of who does not look after it is obeyed", id)
		}
		send(t, a.store, word)
	}
	exchange(t, a.store, b.store)
	exchange(t, a.store, c.store)
	if f.has(renewed) != 3 || f.has(silent) != 0 {
		t.Errorf("what is renewed is at %d nodes, what is not at %d", f.has(renewed), f.has(silent))
	}
	if o := b.store.Snapshot().find(silent); o.Revision.Node != a.store.Node() || !endedByLease(o) {
		t.Errorf("ended by %+v at %s", o.Author, o.Revision.Node)
	}
	for _, n := range f.nodes[1:] {
		if n.store.Snapshot().Digest() != a.store.Snapshot().Digest() {
			t.Error("the nodes do not agree")
		}
	}
}

// What the one that looks after a lease does not hear of, or has obeyed when another was to
// say it, ends after a while all the same.
func TestLeasesEndWhenNobodySaysOtherwise(t *testing.T) {
	f := newFleet(t, 3)
	b := f.nodes[1]
	id := f.announce(0, "10.0.0.1:1")
	f.tick()
	word := f.nodes[2].end(id)
	for range 3 {
		send(t, b.store, word)
		f.wall.pass(stewardSays / 3)
	}
	if !b.store.Snapshot().Find(id).live() {
		t.Fatal("it has ended at once")
	}
	send(t, b.store, word)
	if b.store.Snapshot().Find(id).live() {
		t.Error("it never ends")
	}
}

// Renewals that are passed on may be lost, and the process is there: it is asked before its
// registration ends. That is not for ever.
func TestLeasesOutliveLostRenewals(t *testing.T) {
	f := newFleet(t, 2)
	id := f.announce(0, "10.0.0.1:1")
	renew := f.renewing(id, func() int { return 1 })
	f.pass(30, renew)
	f.lose = func() bool { return true }
	before := f.nodes[0].store.Snapshot()
	f.pass(70, renew)
	if f.has(id) != 2 || f.nodes[0].store.Snapshot() != before || f.asked == 0 {
		t.Errorf("it is at %d nodes, and was ended meanwhile; it was asked %d times", f.has(id), f.asked)
	}
	f.lose = func() bool { return false }
	f.pass(20, renew)
	f.pass(30*(1+maxSpared)+5, nil)
	if f.has(id) != 0 {
		t.Error("what nobody renews any more is registered")
	}
}

// One registration that is not as it should be keeps no other from ending.
func TestLeasesEndWhateverTheirOwner(t *testing.T) {
	f := newFleet(t, 1)
	n := f.nodes[0]
	odd, other := f.announce(0, "10.0.0.1:1"), f.announce(0, "10.0.0.2:1")
	_, err := n.store.transact(t.Context(), &Txn{}, func(p *plan) error {
		p.edit(odd).Owner.File = "a.yaml:1"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.pass(32, nil)
	if f.has(odd) != 0 || f.has(other) != 0 {
		t.Errorf("one is at %d nodes, the other at %d", f.has(odd), f.has(other))
	}
}

// What a process keeps or renews here is not forgotten because peers do not have it.
func TestForgetLeavesWhatIsHeld(t *testing.T) {
	f := newFleet(t, 1)
	n := f.nodes[0]
	held, renewed, gone := f.announce(0, "10.0.0.1:1"), f.announce(0, "10.0.0.2:1"), f.announce(0, "10.0.0.3:1")
	n.restart()
	n.leases.Holds(held)
	if err := n.leases.Renew(renewed); err != nil {
		t.Fatal(err)
	}
	if _, err := n.store.Forget(t.Context(), []ID{held, renewed, gone}, Author{}, "deleted elsewhere"); err != nil {
		t.Fatal(err)
	}
	if f.has(held) != 1 || f.has(renewed) != 1 || f.has(gone) != 0 {
		t.Errorf("held %d, renewed %d, gone %d", f.has(held), f.has(renewed), f.has(gone))
	}
}

// becoming is peers that are known only when the leases run.
type becoming struct{ steward atomic.Pointer[string] }

func (b *becoming) Steward(_ ID, writer string) string {
	if steward := b.steward.Load(); steward != nil {
		return *steward
	}
	return writer
}

func (b *becoming) Renew(string, ID) {}

// A node that begins, and finds none of the others, looks after all there is, though nobody
// tells it that who lives has changed.
func TestLeasesRunAsksWhoLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2)
		f.announce(1, "10.0.0.1:1")
		s := f.nodes[0].store
		peers, node := new(becoming), s.Node()
		l := NewLeases(s, LeaseOptions{Peers: peers})
		peers.steward.Store(&node)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- l.Run(ctx) }()
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if n := s.Snapshot().Len(RegistrationKind); n != 0 {
			t.Errorf("%d registrations of a peer that is gone are left", n)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

// Whether endpoints can be reached is found out beside everything else, of so many at a
// time.
func TestLeasesRunWaitsForNoEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		applyText(t, s, takesText("cart", "{maxEndpoints: 1000}"))
		l := NewLeases(s, LeaseOptions{})
		for i := range 3 * maxReaching {
			announce(t, l, fmt.Sprintf("10.0.0.%d:1", i))
		}
		var now, most atomic.Int64
		l = NewLeases(s, LeaseOptions{Reach: func(ctx context.Context, _ ID, _ string) bool {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			<-ctx.Done()
			return false
		}})
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- l.Run(ctx) }()
		time.Sleep(29 * time.Second)
		other := announce(t, l, "10.1.0.1:1")
		time.Sleep(2 * time.Second) // the others' leases are over, and their endpoints are silent
		synctest.Wait()
		if now.Load() != maxReaching || s.Snapshot().Len(RegistrationKind) != 3*maxReaching+1 {
			t.Errorf("%d endpoints are being asked, %d are registered", now.Load(), s.Snapshot().Len(RegistrationKind))
		}
		if err := l.Renew(other); err != nil {
			t.Error(err)
		}
		time.Sleep(3*reachTime + time.Second)
		synctest.Wait()
		if most.Load() != maxReaching || s.Snapshot().Len(RegistrationKind) != 1 {
			t.Errorf("%d were asked at a time, %d are registered", most.Load(), s.Snapshot().Len(RegistrationKind))
		}
		cancel()
		if err := <-ran; err != nil || now.Load() != 0 {
			t.Errorf("Run ends with %v, and %d endpoints are still being asked", err, now.Load())
		}
	})
}
