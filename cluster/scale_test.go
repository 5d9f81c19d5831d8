package cluster

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/store"
)

// everything is whether the long tests run, too: SLUICE_FAULTS=1, as `make faults-cluster`
// has it.
var everything = os.Getenv("SLUICE_FAULTS") == "1"

// shop is a Backend that takes registrations, and a route to it.
const shop = `apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: shop}
spec:
  endpoints: [{address: "192.0.2.1:50051"}]
  registration: {}
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: next}
spec:
  endpoints: [{address: "192.0.2.2:50051"}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart}
spec:
  rules:
  - name: all
    backendRefs:
    - {group: sluice.dev, kind: Backend, name: shop, weight: 90}
    - {group: sluice.dev, kind: Backend, name: next, weight: 10}
`

var cart = store.ID{Kind: store.GRPCRouteKind, Namespace: "default", Name: "cart"}

// split is another share for the next version.
func split(next uint32) store.Op {
	return store.Op{ID: cart, State: func(state store.State, o *store.Object) (store.State, error) {
		return store.EditSplit(o.Resource.(*store.GRPCRoute), state, "all", store.SplitEdit{
			Shares: []store.Share{{Backend: "shop", Weight: 1000 - next}, {Backend: "next", Weight: next}},
		})
	}}
}

// additional is a Backend of that name.
func additional(name string) string {
	return fmt.Sprintf("apiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: %s}\nspec:\n  endpoints: [{address: \"192.0.2.3:50051\"}]\n", name)
}

// register announces a process at this node.
func (n *fleetNode) register(number int) store.ID {
	n.fleet.t.Helper()
	o, err := n.leases.Register(context.Background(), registrationOf(number), "default", store.Author{Actor: "registrar"})
	if err != nil {
		n.fleet.t.Fatal(err)
	}
	return o.ID
}

func registrationOf(number int) store.RegistrationSpec {
	return store.RegistrationSpec{
		Backend: "shop", Address: fmt.Sprintf("192.0.2.10:%d", 10_000+number), Weight: 1, Lease: store.Duration(10 * time.Minute),
	}
}

// spread is how long something took, many times.
type spread []time.Duration

func (s spread) at(part float64) time.Duration {
	slices.Sort(s)
	return s[max(0, int(math.Ceil(part*float64(len(s))))-1)]
}

func (s spread) String() string {
	return fmt.Sprintf("p50 %v, p99 %v, max %v of %d", s.at(0.5), s.at(0.99), s.at(1), len(s))
}

func TestClusterConverges(t *testing.T) {
	for _, size := range []struct {
		nodes  int
		within time.Duration
	}{{3, time.Second}, {10, time.Second}, {50, 3 * time.Second}} {
		for _, percent := range []int{0, 10} {
			t.Run(fmt.Sprintf("%d nodes, %d %% lost", size.nodes, percent), func(t *testing.T) {
				if size.nodes > 10 {
					longOnly(t)
				}
				inBubble(t, size.nodes, func(t *testing.T, f *fleet) {
					f.net.lose(percent)
					f.converges(often(100, 10), size.within)
				})
			})
		}
	}
}

// often is how often something is done: less in `go test`.
func often(full, short int) int {
	if everything {
		return full
	}
	return short
}

// longOnly leaves a test out that needs more than some seconds.
func longOnly(t *testing.T) {
	t.Helper()
	if !everything {
		t.Skip("runs with SLUICE_FAULTS=1")
	}
}

// converges changes a split and registers a process at any node, and looks at how soon
// all have that.
func (f *fleet) converges(changes int, within time.Duration) {
	f.nodes[0].apply(shop)
	f.awaitEqual(time.Minute)
	var splits, registrations spread
	for i := range changes {
		at := f.nodes[rand.IntN(len(f.nodes))]
		at.write(split(uint32(i + 1)))
		splits = append(splits, f.awaitHas(time.Minute, at, cart))
		at = f.nodes[rand.IntN(len(f.nodes))]
		registrations = append(registrations, f.awaitHas(time.Minute, at, at.register(i)))
		pass(time.Duration(rand.IntN(1000)) * time.Millisecond)
	}
	f.t.Logf("%d nodes: splits %v; registrations %v", len(f.nodes), splits, registrations)
	part := 0.99
	if !everything {
		part = 0.9 // of few, one may have been lost more often than is likely
	}
	if worst := max(splits.at(part), registrations.at(part)); worst > within {
		f.t.Errorf("all have a change after %v at p%.0f, want %v", worst, 100*part, within)
	}
	f.awaitEqual(10 * time.Second)
	f.noneRefused()
}

// noneRefused holds the nodes to have believed one another.
func (f *fleet) noneRefused() {
	f.t.Helper()
	for _, n := range f.up() {
		if stats := n.cluster.Stats(); n.refusals() > 0 || total(stats.Dropped) > 0 {
			f.t.Errorf("%s refused %v and dropped %v\n%s", n.name, stats.Refused, stats.Dropped, n.log.tail(5))
		}
	}
}

func TestClusterLearnsOfACrash(t *testing.T) {
	for _, size := range []struct {
		nodes  int
		within time.Duration
	}{{3, 10 * time.Second}, {10, 10 * time.Second}, {50, 20 * time.Second}} {
		t.Run(fmt.Sprintf("%d nodes", size.nodes), func(t *testing.T) {
			if size.nodes > 10 {
				longOnly(t)
			}
			inBubble(t, size.nodes, func(t *testing.T, f *fleet) {
				f.nodes[0].apply(shop)
				f.awaitEqual(10 * time.Second)
				var took spread
				for range often(5, 2) {
					victim := f.nodes[rand.IntN(size.nodes)]
					victim.crash()
					took = append(took, f.awaitAlive(2*size.within, size.nodes-1))
					victim.start()
					f.awaitAlive(time.Minute, size.nodes)
					f.awaitEqual(10 * time.Second)
				}
				t.Logf("%d nodes: a crash known to all after %v", size.nodes, took)
				if took.at(1) > size.within {
					t.Errorf("a crash was known to all after %v, want %v", took.at(1), size.within)
				}
			})
		})
	}
}

func TestClusterHealsAfterAPartition(t *testing.T) {
	for _, size := range []int{3, 10, 50} {
		t.Run(fmt.Sprintf("%d nodes", size), func(t *testing.T) {
			if size > 10 {
				longOnly(t)
			}
			inBubble(t, size, func(t *testing.T, f *fleet) { f.healsAfterAPartition(size / 3) })
		})
	}
}

// healsAfterAPartition parts the first few nodes from the others for a minute.
func (f *fleet) healsAfterAPartition(few int) {
	t := f.t
	f.nodes[0].apply(shop)
	f.awaitEqual(10 * time.Second)
	var names []string
	for _, n := range f.nodes[:few] {
		names = append(names, n.name)
	}
	f.net.split(nil, names)
	pass(2 * time.Second)
	f.nodes[0].write(split(300))
	f.nodes[few].write(split(400))
	var written []store.ID
	edits := often(50, 10)
	for i := range edits {
		n, name := f.nodes[rand.IntN(len(f.nodes))], fmt.Sprintf("edit-%d", i)
		n.apply(additional(name))
		written = append(written, store.ID{Kind: store.BackendKind, Namespace: "default", Name: name})
		pass(58 * time.Second / time.Duration(edits))
	}
	f.net.heal()
	took := f.awaitEqual(time.Minute)
	t.Logf("%d nodes, %d apart: equal %v after the heal", len(f.nodes), few, took)
	if took > 10*time.Second {
		t.Errorf("equal %v after the heal, want 10s", took)
	}
	f.haveAll(written)
	f.listConflict(cart)
	f.awaitAlive(10*time.Second, len(f.nodes))
	f.noneRefused()
}

// haveAll holds all nodes to have these objects.
func (f *fleet) haveAll(ids []store.ID) {
	f.t.Helper()
	for _, n := range f.up() {
		for _, id := range ids {
			if _, ok := n.store.Snapshot().Get(id); !ok {
				f.t.Errorf("%s has lost %s", n.name, id)
			}
		}
	}
}

// listConflict holds all nodes to list this conflict and no other, with the same sides.
func (f *fleet) listConflict(id store.ID) {
	f.t.Helper()
	var first string
	for _, n := range f.up() {
		conflicts := n.store.Snapshot().Conflicts()
		var listed []string
		for _, o := range conflicts {
			for _, lost := range o.Lost {
				listed = append(listed, fmt.Sprintf("%s %s over %s", o.ID, o.Revision, lost.Revision))
			}
		}
		text := strings.Join(listed, ", ")
		if first = cmp.Or(first, text); len(conflicts) != 1 || conflicts[0].ID != id || text != first {
			f.t.Errorf("%s lists the conflicts [%s], the first node [%s]; want one, of %s", n.name, text, first, id)
		}
	}
}

func TestClusterOfDeafNodesDoesNotFlap(t *testing.T) {
	inBubble(t, 5, func(t *testing.T, f *fleet) {
		for _, deaf := range []int{0, 3} {
			for _, n := range f.nodes {
				if n != f.nodes[deaf] {
					f.net.cutPackets(n.name, f.nodes[deaf].name)
				}
			}
		}
		f.doesNotFlap(time.Duration(often(300, 60)) * time.Second)
	})
}

func TestClusterWithoutPacketsOneWayDoesNotFlap(t *testing.T) {
	inBubble(t, 5, func(t *testing.T, f *fleet) {
		f.net.cutPackets(f.nodes[0].name, f.nodes[1].name)
		f.net.cutPackets(f.nodes[3].name, f.nodes[2].name)
		f.doesNotFlap(time.Duration(often(300, 60)) * time.Second)
		f.nodes[0].apply(shop)
		f.awaitHas(2*time.Second, f.nodes[0], cart)
	})
}

// doesNotFlap counts how often a node changes its mind about another.
func (f *fleet) doesNotFlap(during time.Duration) {
	f.t.Helper()
	type pair struct{ by, of string }
	states, turns := map[pair]State{}, map[pair]int{}
	for begin := time.Now(); time.Since(begin) < during; pass(100 * time.Millisecond) {
		for _, n := range f.up() {
			for _, m := range n.cluster.Members() {
				p := pair{n.name, m.Host}
				if was, ok := states[p]; ok && was != m.State {
					turns[p]++
				}
				states[p] = m.State
			}
		}
	}
	for p, n := range turns {
		if n > 1 {
			f.t.Errorf("%s changed its mind about %s %d times in %v, want once at most", p.by, p.of, n, during)
		}
	}
}

func TestClusterRefusesWhoseClockIsAhead(t *testing.T) {
	dir := memoryDir(t)
	inBubbleOf(t, dir, 3, func(t *testing.T, f *fleet) {
		f.nodes[2].ahead = 2 * time.Minute
		f.startAll()
		f.nodes[0].apply(shop)
		f.awaitHas(10*time.Second, f.nodes[0], cart)
		f.nodes[2].apply(additional("future"))
		pass(20 * time.Second)
		for _, n := range f.nodes[:2] {
			if _, ok := n.store.Snapshot().Get(store.ID{Kind: store.BackendKind, Namespace: "default", Name: "future"}); ok {
				t.Errorf("%s took in what is of the future", n.name)
			}
			if n.refusals() == 0 {
				t.Errorf("%s has refused nothing", n.name)
			}
			problems := strings.Join(n.cluster.Problems(), "\n")
			if !strings.Contains(problems, "n02") && !strings.Contains(problems, f.nodes[2].id()) {
				t.Errorf("%s does not name whose clock is ahead: %q", n.name, problems)
			}
			if lines := n.log.find(f.nodes[2].id()); len(lines) == 0 || len(lines) > 10 {
				t.Errorf("%s has %d lines of log about it, want some", n.name, len(lines))
			}
		}
		pass(2 * time.Minute) // by then it is the present
		f.awaitEqual(20 * time.Second)
	})
}
