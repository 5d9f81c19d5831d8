package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// trio is three nodes whose clocks are one.
func trio(t *testing.T) (wall *testClock, a, b, c *Store) {
	t.Helper()
	wall = newTestClock()
	var stores [3]*Store
	for i := range stores {
		stores[i] = openStore(t, Options{AllowUnresolved: true, Now: wall.Now})
	}
	return wall, stores[0], stores[1], stores[2]
}

// gossip has all nodes tell each other everything.
func gossip(t *testing.T, stores ...*Store) {
	t.Helper()
	for range 2 {
		for i, s := range stores {
			exchange(t, s, stores[(i+1)%len(stores)])
		}
	}
}

func lastChange(t *testing.T, s *Store, id ID) Change {
	t.Helper()
	changes, err := s.History(id, 0, 1)
	if err != nil || len(changes) == 0 {
		t.Fatalf("history of %s: %d changes, %v", id, len(changes), err)
	}
	return changes[0]
}

func labelled(label string) string { return backendText("cart-v1", ", labels: {by: "+label+"}") }

// labelOf is the label at a node, with the owner.
func labelOf(t *testing.T, s *Store) string {
	t.Helper()
	o := mustGet(t, s, cartV1)
	return o.Resource.Metadata().Labels["by"] + " of " + o.Owner.String()
}

// A node that joins with the files that all have changes nothing, and ends no split.
func TestNewNodeWithTheSameFilesEndsNoSplit(t *testing.T) {
	wall, a, b, _ := trio(t)
	text := splitText("cart", "cart-v1=90", "cart-v2=10")
	mustSync(t, a, text)
	mustWrite(t, a, Txn{Action: "split", Ops: []Op{splitOp(cart, SplitEdit{Shares: []Share{{"cart-v1", 1}, {"cart-v2", 1}}})}})
	mustWrite(t, a, Txn{Ops: []Op{setState(cartV1, drainedWhole(true))}})
	digest := a.Snapshot().Digest()
	wall.pass(time.Hour)
	mustSync(t, b, text)
	seq := a.Snapshot().Seq()
	gossip(t, a, b)
	if a.Snapshot().Digest() != digest || b.Snapshot().Digest() != digest {
		t.Errorf("a split or a drain has ended: %+v", mustGet(t, b, cart).State)
	}
	if n := len(a.Snapshot().Conflicts()) + len(b.Snapshot().Conflicts()); n > 0 {
		t.Errorf("%d conflicts", n)
	}
	if a.Snapshot().Seq() != seq {
		t.Errorf("%d changes at the node that was there", a.Snapshot().Seq()-seq)
	}
	if c := lastChange(t, b, cart); c.Action != "split" || c.After.Revision.Node != a.Node() {
		t.Errorf("the newcomer's history says %s at %s", c.Action, c.After.Revision.Node)
	}
	if o := mustGet(t, b, cart); o.Owner.Kind != OwnerFile {
		t.Errorf("owner %s", o.Owner)
	}
}

// What travels under one revision is the same everywhere, whatever the files of those
// who pass it on say.
func TestFilesThatDifferAreObeyedWhereTheyAre(t *testing.T) {
	wall, a, b, c := trio(t)
	mustSync(t, a, labelled("old"))
	mustSync(t, b, labelled("old"))
	gossip(t, a, b)
	wall.pass(time.Second)
	mustSync(t, a, labelled("new"))
	exchange(t, a, b)
	exchange(t, b, c) // c hears of it from b only
	check := func(step, atA, atB, atC string) {
		t.Helper()
		for i, want := range []string{atA, atB, atC} {
			if got := labelOf(t, []*Store{a, b, c}[i]); got != want {
				t.Errorf("%s: node %d has %s, want %s", step, i, got, want)
			}
		}
		sum := mustGet(t, a, cartV1).VersionSum()
		if mustGet(t, b, cartV1).VersionSum() != sum || mustGet(t, c, cartV1).VersionSum() != sum {
			t.Errorf("%s: the versions differ", step)
		}
	}
	check("one file is new", "new of file in.yaml:1", "old of file in.yaml:1", "new of peer in.yaml:1")
	if r := mustGet(t, b, cartV1).Elsewhere(); r == nil || r.Metadata().Labels["by"] != "new" {
		t.Errorf("elsewhere there is %v", r)
	}
	b = reopen(t, b)
	mustSync(t, b, labelled("old"))
	check("after a restart", "new of file in.yaml:1", "old of file in.yaml:1", "new of peer in.yaml:1")

	// What an operator does at any of them is done at all, and changes no declaration.
	wall.pass(time.Second)
	mustWrite(t, b, Txn{Ops: []Op{setState(cartV1, drainedWhole(true))}})
	gossip(t, a, b, c)
	check("drained", "new of file in.yaml:1", "old of file in.yaml:1", "new of peer in.yaml:1")
	for _, s := range []*Store{a, b, c} {
		if change := lastChange(t, s, cartV1); len(change.After.State.Drains) != 1 || s != b && change.Action != "drain" {
			t.Errorf("%s: %+v", change.Action, change.After.State)
		}
	}
	mustSync(t, b, labelled("new"))
	gossip(t, a, b, c)
	check("both are new", "new of file in.yaml:1", "new of file in.yaml:1", "new of peer in.yaml:1")
	if a.Snapshot().Digest() != b.Snapshot().Digest() || mustGet(t, b, cartV1).Elsewhere() != nil {
		t.Error("with the same files they do not ask the same")
	}
	// One file less is no file less.
	wall.pass(time.Second)
	mustSync(t, a, "")
	gossip(t, a, b, c)
	check("one file is gone", "new of peer in.yaml:1", "new of file in.yaml:1", "new of peer in.yaml:1")
	if change := lastChange(t, a, cartV1); change.Action != ActionCreate || lastChange(t, b, cartV1).Action != ActionReassert {
		t.Errorf("actions %s and %s", change.Action, lastChange(t, b, cartV1).Action)
	}
	if n := len(mustGet(t, b, cartV1).State.Drains); n != 1 {
		t.Errorf("%d drains after that", n)
	}
	mustSync(t, b, "")
	gossip(t, a, b, c)
	for _, s := range []*Store{a, b, c} {
		if s.Snapshot().Len("") != 0 {
			t.Error("what no file declares is still there")
		}
	}
}

func TestAdoptionTravels(t *testing.T) {
	wall, a, b, c := trio(t)
	mustSync(t, a, labelled("file"))
	gossip(t, a, b, c)
	if _, err := b.Write(t.Context(), Txn{Ops: []Op{{ID: cartV1, Delete: true}}}); err == nil || !strings.Contains(err.Error(), "read-only here") {
		t.Errorf("what a file of another node declares was deleted: %v", err)
	}
	wall.pass(time.Second)
	mustWrite(t, b, Txn{Author: Author{Actor: "alice", Via: "cli"}, Ops: []Op{{ID: cartV1, Adopt: true}}})
	applyText(t, b, labelled("api"))
	gossip(t, a, b, c)
	if got := labelOf(t, a); got != "api of peer" {
		t.Errorf("where the file is there is %s", got)
	}
	// The file is read again, and is shadowed; then the object is given back to it.
	if result := mustSync(t, a, labelled("file")); len(result.Warnings) != 1 || len(result.Changes) != 0 {
		t.Errorf("result %+v", result)
	}
	if _, err := b.Write(t.Context(), Txn{Ops: []Op{{ID: cartV1, Release: true}}}); err == nil {
		t.Error("released to a file that is not here")
	}
	wall.pass(time.Second)
	mustWrite(t, a, Txn{Ops: []Op{{ID: cartV1, Release: true}}})
	gossip(t, a, b, c)
	if got := labelOf(t, a) + ", " + labelOf(t, c); got != "file of file in.yaml:1, file of peer in.yaml:1" {
		t.Errorf("released: %s", got)
	}
	if change := lastChange(t, c, cartV1); change.Action != ActionRelease {
		t.Errorf("action %s", change.Action)
	}
	// A file here takes what a file elsewhere declares, without a change.
	if result := mustSync(t, c, labelled("file")); len(result.Changes) != 0 || labelOf(t, c) != "file of file in.yaml:1" {
		t.Errorf("%s, %+v", labelOf(t, c), result)
	}
	// Adopted where no file is: shadowed files take it back when it is released elsewhere.
	wall.pass(time.Second)
	mustWrite(t, a, Txn{Ops: []Op{{ID: cartV1, Adopt: true}}})
	gossip(t, a, b, c)
	if got := labelOf(t, c); got != "file of peer" {
		t.Errorf("adopted: %s", got)
	}
	wall.pass(time.Second)
	mustWrite(t, a, Txn{Ops: []Op{{ID: cartV1, Release: true}}})
	gossip(t, a, b, c)
	if got := labelOf(t, c); got != "file of file in.yaml:1" {
		t.Errorf("released: %s", got)
	}
}

// A lease that is over here, since renewals went to the other side of a partition, ends
// nothing there.
func TestRegistrationThatIsHeldIsReasserted(t *testing.T) {
	tests := []struct {
		name string
		held bool
		by   Author
		want string
	}{
		{"held, the lease was over elsewhere", true, Author{Actor: leaseActor}, ActionReassert},
		{"not held", false, Author{Actor: leaseActor}, ActionDelete},
		{"held, ended by the process", true, Author{Actor: "alice", Via: "cli"}, ActionDelete},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wall, a, b, c := trio(t)
			applyText(t, a, takesText("cart", "{}"))
			r := registration("cart", "10.0.0.1:1")
			mustWrite(t, a, Txn{Author: Author{Actor: "token cart"}, Ops: []Op{{Apply: r}}})
			id := ResourceID(r)
			gossip(t, a, b, c)
			if leases := NewLeases(b, LeaseOptions{Now: wall.Now}); test.held {
				leases.Holds(id)
			}
			wall.pass(time.Second)
			mustWrite(t, a, Txn{Author: test.by, Ops: []Op{{ID: id, Delete: true}}})
			exchange(t, a, b)
			gossip(t, a, b, c)
			if change := lastChange(t, b, id); change.Action != test.want {
				t.Errorf("%s, want %s", change.Action, test.want)
			}
			for _, s := range []*Store{a, b, c} {
				if live := s.Snapshot().Find(id).live(); live != (test.want == ActionReassert) {
					t.Errorf("it lives: %t", live)
				}
			}
			if o := b.Snapshot().Find(id); o.live() && (o.Author.Actor != "token cart" || o.Revision.Node != b.Node()) {
				t.Errorf("reasserted by %+v at %s", o.Author, o.Revision.Node)
			}
		})
	}
}

func TestOldTombstonesAreNotTaken(t *testing.T) {
	wall, a, b, c := trio(t)
	applyText(t, a, backendText("cart-v1", ""))
	gossip(t, a, c)
	mustWrite(t, a, Txn{Ops: []Op{{ID: cartV1, Delete: true}}})
	wall.pass(TombstoneLife + time.Minute)
	for _, s := range []*Store{b, c} {
		send(t, s, a.Snapshot().Tombstones()...)
	}
	if n := len(b.Snapshot().Tombstones()); n != 0 {
		t.Errorf("%d tombstones of what was never there", n)
	}
	if c.Snapshot().Find(cartV1).live() {
		t.Error("what was there was not deleted")
	}
}

func TestForgetLeavesNoTombstone(t *testing.T) {
	wall, a, b, _ := trio(t)
	mustSync(t, a, labelled("file"))
	applyText(t, a, backendText("cart-v2", "")+"---\n"+backendText("kept", ""))
	gossip(t, a, b)
	wall.pass(time.Second)
	id := ID{BackendKind, "default", "cart-v2"}
	for _, s := range []*Store{a, b} {
		result, err := s.Forget(t.Context(), []ID{cartV1, id, {BackendKind, "default", "never"}}, Author{Actor: "sluice", Via: "peer"}, "deleted elsewhere")
		want := map[*Store]int{a: 1, b: 2}[s]
		if err != nil || len(result.Changes) != want {
			t.Fatalf("result %+v, %v", result, err)
		}
		if s.Snapshot().Find(id) != nil || len(s.Snapshot().Tombstones()) != 0 || s.Snapshot().Len("") != 3-want {
			t.Errorf("%d objects are left", s.Snapshot().Len(""))
		}
		if c := lastChange(t, s, id); c.Action != ActionForget || c.After.Author.Reason != "deleted elsewhere" || !c.Before.live() {
			t.Errorf("history says %s, %+v", c.Action, c.After.Author)
		}
	}
	a = reopen(t, a)
	if a.Snapshot().Find(id) != nil {
		t.Error("after a restart it is back")
	}
	applyText(t, a, backendText("cart-v2", "")) // nothing stands in the way
}

func TestConflictIsListedEverywhereUntilItIsSettled(t *testing.T) {
	settle := func(s *Store) Op { return Op{ID: cartV1, Settle: true} }
	tests := []struct {
		name   string
		action string
		op     func(*Store) Op
		want   string
	}{
		{"kept", "", settle, "b"},
		{"taken", "take", func(s *Store) Op { return Op{Exact: mustGet(t, s, cartV1).Lost[0]} }, "a"},
		{"edited", "", func(*Store) Op { return Op{Apply: parseText(t, labelled("c")).Backends[0]} }, "c"},
		{"drained", "drain", func(*Store) Op { return setState(cartV1, drainedWhole(true)) }, "b"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wall, a, b, c := trio(t)
			stores := []*Store{a, b, c}
			applyText(t, a, labelled("nobody"))
			gossip(t, stores...)
			wall.pass(time.Second)
			mustWrite(t, a, Txn{Author: Author{Actor: "alice", Via: "page"}, Ops: []Op{{Apply: parseText(t, labelled("a")).Backends[0]}}})
			wall.pass(time.Second)
			applyText(t, b, labelled("b"))
			gossip(t, stores...)
			for i, s := range stores {
				s = reopen(t, s)
				stores[i] = s
				list := s.Snapshot().Conflicts()
				if len(list) != 1 || len(list[0].Lost) != 1 || list[0].Lost[0].Author.Actor != "alice" {
					t.Fatalf("conflicts %v", list)
				}
				if change := lastChange(t, s, cartV1); change.Action != ActionConflict || change.Lost.Resource.Metadata().Labels["by"] != "a" || change.After.Resource.Metadata().Labels["by"] != "b" {
					t.Errorf("node %d: history has %s", i, change.Action)
				}
			}
			wall.pass(time.Second)
			at := stores[2]
			mustWrite(t, at, Txn{Action: test.action, Ops: []Op{test.op(at)}})
			gossip(t, stores...)
			for i, s := range stores {
				o := mustGet(t, s, cartV1)
				if len(s.Snapshot().Conflicts()) != 0 || o.Resource.Metadata().Labels["by"] != test.want || o.Revision.Node != at.Node() {
					t.Errorf("node %d: %s", i, brief(o))
				}
			}
			// There is nothing left to settle.
			if result := mustWrite(t, at, Txn{Ops: []Op{settle(at)}}); len(result.Changes) != 0 {
				t.Errorf("settled again: %+v", result.Changes)
			}
		})
	}
}

// A deletion that has lost, or won, is a conflict like another.
func TestConflictWithADeletion(t *testing.T) {
	wall, a, b, _ := trio(t)
	applyText(t, a, labelled("nobody"))
	gossip(t, a, b)
	wall.pass(time.Second)
	applyText(t, a, labelled("a"))
	wall.pass(time.Second)
	mustWrite(t, b, Txn{Ops: []Op{{ID: cartV1, Delete: true}}})
	gossip(t, a, b)
	for _, s := range []*Store{a, b} {
		list := s.Snapshot().Conflicts()
		if len(list) != 1 || !list[0].Deleted || list[0].Lost[0].Deleted {
			t.Fatalf("conflicts %v", list)
		}
	}
	mustWrite(t, a, Txn{Ops: []Op{{Exact: a.Snapshot().Conflicts()[0].Lost[0]}}})
	gossip(t, a, b)
	if got := mustGet(t, b, cartV1).Resource.Metadata().Labels["by"]; got != "a" || len(b.Snapshot().Conflicts()) != 0 {
		t.Errorf("there is %s", got)
	}
}

func TestSnapshotSinceHasWhatIsNew(t *testing.T) {
	_, a, b, _ := trio(t)
	applyText(t, a, splitText("cart", "cart-v1=90", "cart-v2=10"))
	gossip(t, a, b)
	before := b.Snapshot()
	if list := before.Since(before); len(list) != 0 {
		t.Errorf("since itself: %v", list)
	}
	applyText(t, b, backendText("cart-v0", ""))
	mustWrite(t, b, Txn{AllowUnresolved: true, Ops: []Op{{ID: cartV1, Delete: true}}})
	var names []string
	for _, o := range b.Snapshot().Since(before) {
		names = append(names, o.ID.Name)
	}
	if want := []string{"cart-v0", "cart-v1"}; !slices.Equal(names, want) {
		t.Errorf("since: %v, want %v", names, want)
	}
	if n := len(b.Snapshot().Since(&Snapshot{})); n != 4 {
		t.Errorf("since nothing: %d objects, want 4", n)
	}
}

// Each start of a node without a disk of its own is a new node with the same files: what
// they declare does not grow by that until no peer takes it any more.
func TestStoreMergeForgetsNodesThatWereLongAgo(t *testing.T) {
	wall := newTestClock()
	a, b := openStore(t, Options{Now: wall.Now}), openStore(t, Options{Now: wall.Now})
	mustSync(t, a, backendText("cart-v1", ""))
	mustSync(t, b, backendText("cart-v1", ""))
	first := mustGet(t, b, cartV1)
	pods := maxNodes + 1
	if raceDetector {
		pods = 2 * maxPast
	}
	send(t, a, times(pods, func(i int) *Object {
		o := first.copy()
		o.Revision.Node = fmt.Sprintf("pod%05d", i)
		o.Vector = Vector{}.with(o.Revision)
		return o
	})...)
	mustWrite(t, a, Txn{Ops: []Op{setState(cartV1, drainedWhole(true))}})
	o := mustGet(t, a, cartV1)
	if len(o.Vector) != maxPast || !o.Vector.Seen(o.Revision) {
		t.Errorf("it remembers %d nodes, want %d", len(o.Vector), maxPast)
	}
	exchange(t, a, b)
	settled := a.Snapshot()
	exchange(t, a, b)
	other := mustGet(t, b, cartV1)
	if other.VersionSum() != mustGet(t, a, cartV1).VersionSum() || a.Snapshot() != settled || len(other.State.Drains) != 1 {
		t.Errorf("the nodes have %s and %s", brief(o), brief(other))
	}
}

// Files that change from one container to the next are no conflict. What those of a node
// declared that is gone for good can be taken over, and removed.
func TestFilesOfNodesThatAreGone(t *testing.T) {
	wall := newTestClock()
	old, pod := openStore(t, Options{Now: wall.Now}), openStore(t, Options{Now: wall.Now})
	mustSync(t, old, labelled("old")+"---\n"+backendText("cart-v2", ""))
	mustSync(t, pod, labelled("new"))
	gossip(t, old, pod)
	if got := labelOf(t, pod); got != "new of file in.yaml:1" || len(pod.Snapshot().Conflicts()) > 0 {
		t.Errorf("%s, conflicts %v", got, pod.Snapshot().Conflicts())
	}
	wall.pass(48 * time.Hour)
	mustWrite(t, pod, Txn{Ops: []Op{{ID: cartV2, Adopt: true}}})
	mustWrite(t, pod, Txn{Ops: []Op{{ID: cartV2, Delete: true}}})
	if pod.Snapshot().Find(cartV2).live() {
		t.Error("what nobody declares any more is there")
	}
}
