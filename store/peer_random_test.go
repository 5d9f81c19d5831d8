package store

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// crowd is a few nodes that are edited at random, by files too, and restarted.
type crowd struct {
	t      *testing.T
	rng    *rand.Rand
	wall   *testClock
	stores []*Store
	files  []string // what those of each node declare
}

func newCrowd(t *testing.T, seed uint64, n int) *crowd {
	c := &crowd{t: t, rng: rand.New(rand.NewPCG(seed, 11)), wall: newTestClock(), stores: make([]*Store, n), files: make([]string, n)}
	for i := range c.stores {
		skew := time.Duration(c.rng.IntN(40)-20) * time.Second
		c.stores[i] = openStore(t, Options{AllowUnresolved: true, Now: func() time.Time { return c.wall.Now().Add(skew) }})
	}
	return c
}

// step lets something happen somewhere.
func (c *crowd) step() {
	c.wall.pass(time.Duration(c.rng.IntN(3)) * time.Second)
	i := c.rng.IntN(len(c.stores))
	switch n := c.rng.IntN(20); {
	case n < 6:
		exchange(c.t, c.stores[i], c.stores[(i+1)%len(c.stores)])
	case n < 9:
		c.files[i] = c.randomText()
		mustSync(c.t, c.stores[i], c.files[i])
	case n == 9:
		c.stores[i] = reopen(c.t, c.stores[i])
		mustSync(c.t, c.stores[i], c.files[i])
	case n < 12:
		c.register(c.stores[i])
	default:
		c.write(c.stores[i])
	}
}

// randomText declares some of the objects that write edits.
func (c *crowd) randomText() string {
	var b strings.Builder
	for i := range 4 {
		if c.rng.IntN(2) > 0 {
			b.WriteString("---\n" + backendText(fmt.Sprintf("b%d", i), fmt.Sprintf(", labels: {n: \"%d\"}", c.rng.IntN(3))))
		}
	}
	return b.String()
}

func (c *crowd) anyID() ID {
	if c.rng.IntN(3) == 0 {
		return ID{GRPCRouteKind, "default", fmt.Sprintf("r%d", c.rng.IntN(3))}
	}
	return ID{BackendKind, "default", fmt.Sprintf("b%d", c.rng.IntN(4))}
}

// write changes something by the API.
func (c *crowd) write(s *Store) {
	id := c.anyID()
	o := s.Snapshot().Find(id)
	op := Op{Apply: c.randomResource(id)}
	switch n := c.rng.IntN(8); {
	case !o.live():
	case n == 0 && !o.Owner.OfFile():
		op = Op{ID: id, Delete: true}
	case n == 1:
		op = Op{ID: id, Adopt: true}
	case n < 4 && id.Kind == BackendKind:
		op = setState(id, drainedWhole(c.rng.IntN(2) == 0))
	case n < 4:
		op = splitOp(id, SplitEdit{Shares: []Share{{"b0", c.rng.Uint32N(5)}, {"b1", 1 + c.rng.Uint32N(5)}}, Sticky: ptr([]string{"", "x-user"}[c.rng.IntN(2)])})
	case n == 4 && len(o.Lost) > 0:
		op = Op{Exact: o.Lost[0]}
	case n == 5:
		op = Op{ID: id, Settle: true}
	}
	mustWrite(c.t, s, Txn{TakeOver: true, AllowUnresolved: true, Ops: []Op{op}})
}

// randomResource is one as a text would declare it.
func (c *crowd) randomResource(id ID) Resource {
	manifest, err := randomResource(id, c.rng).MarshalJSON()
	if err != nil {
		c.t.Fatal(err)
	}
	return parseText(c.t, string(manifest)).Resources()[0]
}

// register begins or ends a registration.
func (c *crowd) register(s *Store) {
	b := ID{BackendKind, "default", "reg"}
	if _, there := s.Snapshot().Get(b); !there {
		applyText(c.t, s, takesText("reg", "{}"))
		return
	}
	r := registration("reg", fmt.Sprintf("10.0.0.%d:1", 1+c.rng.IntN(4)))
	if _, there := s.Snapshot().Get(ResourceID(r)); there {
		mustWrite(c.t, s, Txn{Author: Author{Actor: leaseActor}, Ops: []Op{{ID: ResourceID(r), Delete: true}}})
		return
	}
	mustWrite(c.t, s, Txn{Ops: []Op{{Apply: r}}})
}

// settle exchanges until nobody has anything new to say.
func (c *crowd) settle() {
	for range 10 {
		before := make([]*Snapshot, len(c.stores))
		quiet := true
		for i, s := range c.stores {
			before[i] = s.Snapshot()
		}
		for i, s := range c.stores {
			exchange(c.t, s, c.stores[(i+1)%len(c.stores)])
		}
		for i, s := range c.stores {
			quiet = quiet && s.Snapshot() == before[i]
		}
		if quiet {
			return
		}
	}
	c.t.Error("the nodes still have something to say")
}

// compare wants all nodes to have the same versions, and the same content of each.
func (c *crowd) compare() {
	first := c.stores[0].Snapshot()
	objects := append(first.All(""), first.Tombstones()...)
	for _, s := range c.stores[1:] {
		snap := s.Snapshot()
		if n := snap.Len("") + len(snap.Tombstones()); n != len(objects) {
			c.t.Errorf("%d objects at one node, %d at another", len(objects), n)
		}
		for _, o := range objects {
			other := snap.Find(o.ID)
			if other == nil || other.VersionSum() != o.VersionSum() || other.Owner.OfFile() != o.Owner.OfFile() ||
				other.travelling().manifest != o.travelling().manifest || !other.State.equal(o.State) || !other.Created.Equal(o.Created) {
				c.t.Errorf("%s is %s and %s", o.ID, brief(o), brief(other))
			}
		}
		if !equalVersions(snap.Conflicts(), first.Conflicts()) {
			c.t.Errorf("conflicts %v and %v", snap.Conflicts(), first.Conflicts())
		}
	}
}

// brief is what matters of an object, for a message.
func brief(o *Object) string {
	if o == nil {
		return "nothing"
	}
	return fmt.Sprintf("{%s of %s, deleted %t, manifest %x, seen %d, lost %d, state %+v}", o.Revision, o.Owner, o.Deleted, o.manifest[:4], len(o.Vector), len(o.Lost), o.State)
}

// After random edits of all sorts on all sides, and random exchanges, all nodes have the
// same versions and list the same conflicts, and each obeys its own files; with the same
// files everywhere all ask the same.
func TestStoresThatExchangeAgree(t *testing.T) {
	seeds := uint64(6)
	if raceDetector {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := newCrowd(t, seed, 3)
			for range 60 {
				c.step()
			}
			c.settle()
			c.compare()
			for i, s := range c.stores {
				for _, r := range parseText(t, c.files[i]).Resources() {
					o := s.Snapshot().Find(ResourceID(r))
					if _, shadowed := s.shadowed[o.ID]; !shadowed && (o.Owner.Kind != OwnerFile || o.Resource.Metadata().Labels["n"] != r.Metadata().Labels["n"]) {
						t.Errorf("node %d: a file's %s is %s", i, o.ID, brief(o))
					}
				}
			}
			text := c.randomText()
			for _, s := range c.stores {
				mustSync(t, s, text)
			}
			c.settle()
			c.compare()
			for _, s := range c.stores[1:] {
				if s.Snapshot().Digest() != c.stores[0].Snapshot().Digest() {
					t.Error("with the same files the nodes do not ask the same")
				}
			}
		})
	}
}
