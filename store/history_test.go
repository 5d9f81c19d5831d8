package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// randomWrite does something, mostly sensible, to one or a few of a handful of objects.
func randomWrite(t testing.TB, s *Store, rng *rand.Rand) *Result {
	t.Helper()
	txn := Txn{AllowUnresolved: true, Author: Author{Actor: fmt.Sprintf("actor %d", rng.IntN(9))}}
	planned := map[ID]bool{}
	for range 1 + rng.IntN(3) {
		id := ID{BackendKind, "default", fmt.Sprintf("b%d", rng.IntN(4))}
		if rng.IntN(2) == 0 {
			id = ID{GRPCRouteKind, "default", fmt.Sprintf("r%d", rng.IntN(4))}
		}
		if planned[id] {
			continue
		}
		planned[id] = true
		o, there := s.Snapshot().Get(id)
		switch n := rng.IntN(10); {
		case there && n == 0:
			txn.Ops = append(txn.Ops, Op{ID: id, Delete: true})
		case there && n < 3 && id.Kind == BackendKind:
			txn.Ops = append(txn.Ops, setState(id, drainedWhole(rng.IntN(2) == 0)))
		case there && n < 5 && id.Kind == GRPCRouteKind:
			edit := SplitEdit{Shares: []Share{{"b0", rng.Uint32N(5)}, {"b1", 1 + rng.Uint32N(5)}}}
			if rng.IntN(2) == 0 {
				edit.Sticky = ptr([]string{"", "x-user", "x-tenant"}[rng.IntN(3)])
			}
			txn.Ops = append(txn.Ops, splitOp(id, edit))
		case there && n == 5:
			if old, err := s.Version(id, ""); err == nil {
				txn.Ops = append(txn.Ops, Op{Exact: old, IfRevision: o.Revision.String()})
			}
		default:
			txn.Ops = append(txn.Ops, Op{Apply: randomResource(id, rng)})
		}
	}
	return mustWrite(t, s, txn)
}

func randomResource(id ID, rng *rand.Rand) Resource {
	meta := Meta{Namespace: id.Namespace, Name: id.Name, Labels: map[string]string{"n": fmt.Sprint(rng.IntN(5))}}
	if id.Kind == BackendKind {
		b := &Backend{Meta: meta}
		b.Spec.SetDefaults()
		b.Spec.Endpoints = []Endpoint{{Address: "a:1", Weight: 1}}
		return b
	}
	r := &GRPCRoute{Meta: meta}
	r.Spec.Rules = []GRPCRouteRule{{Name: "all", BackendRefs: []BackendRef{
		{Group: OwnGroup, Kind: BackendKind, Name: "b0", Weight: 1 + rng.Uint32N(4)},
		{Group: OwnGroup, Kind: BackendKind, Name: "b1", Weight: rng.Uint32N(4)},
	}}}
	return r
}

// Through a random history with restarts the store stays consistent, and goes back to
// each moment of it, by At and by a rollback.
func TestStoreGoesBackToEveryMoment(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			wall := newTestClock()
			s := openStore(t, Options{Now: wall.Now})
			type moment struct {
				time   time.Time
				digest string
			}
			var moments []moment
			for range 60 {
				wall.pass(time.Duration(1+rng.IntN(5)) * time.Second)
				randomWrite(t, s, rng)
				if rng.IntN(10) == 0 {
					s = reopen(t, s)
				}
				if s.Snapshot().Seq() > 0 {
					moments = append(moments, moment{wall.Now(), s.Snapshot().Digest()})
				}
			}
			for _, m := range moments {
				objects, err := s.At(m.time)
				if err != nil {
					t.Fatal(err)
				}
				if got := (&Snapshot{}).with(1, objects).Digest(); got != m.digest {
					t.Fatalf("at %s: digest %s, want %s", m.time, got, m.digest)
				}
			}
			for range 10 {
				m := moments[rng.IntN(len(moments))]
				objects, err := s.At(m.time)
				if err != nil {
					t.Fatal(err)
				}
				wall.pass(time.Second)
				ops, warnings := s.Snapshot().OpsTo(objects)
				mustWrite(t, s, Txn{Action: "rollback", AllowUnresolved: true, Ops: ops})
				if got := s.Snapshot().Digest(); got != m.digest || len(warnings) > 0 {
					t.Fatalf("rolled back to %s: digest %s, want %s; %q", m.time, got, m.digest, warnings)
				}
			}
		})
	}
}

func TestHistoryTellsWhatWas(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	weights := []string{"10", "20", "30", "40"}
	var versions []*Object
	for _, w := range weights {
		applyText(t, s, splitText("cart", "cart-v1="+w))
		versions = append(versions, mustGet(t, s, cart))
	}
	s = reopen(t, s)
	changes, err := s.History(cart, 0, 0)
	if err != nil || len(changes) != len(versions) {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	for i, c := range changes {
		want := versions[len(versions)-1-i]
		if difference := c.After.differs(want); difference != "" {
			t.Errorf("change %d: another %s", c.Seq, difference)
		}
		manifest, _ := c.After.Manifest()
		wanted, _ := want.Manifest()
		if !bytes.Equal(manifest, wanted) {
			t.Errorf("change %d: manifest %s, want %s", c.Seq, manifest, wanted)
		}
	}
	page, err := s.History(ID{}, changes[0].Seq, 2)
	if err != nil || len(page) != 2 || page[0].Seq != changes[0].Seq-1 || page[1].Seq != changes[0].Seq-2 {
		t.Errorf("page %+v, %v", page, err)
	}
	for _, v := range versions {
		got, err := s.Version(cart, v.Revision.String())
		if err != nil || got.differs(v) != "" {
			t.Errorf("version %s: %v, %v", v.Revision, got, err)
		}
	}
	if got, err := s.Version(cart, ""); err != nil || got.Revision != versions[2].Revision {
		t.Errorf("the version before: %v, %v", got, err)
	}
	var missing *NotFoundError
	if _, err := s.Version(cart, "1.0@a"); !errors.As(err, &missing) {
		t.Errorf("a version that never was: %v", err)
	}
	if _, err := s.Version(ID{BackendKind, "", "never-was"}, ""); !errors.As(err, &missing) {
		t.Errorf("an object that never was: %v", err)
	}
	if got, err := s.Version(cartV1, ""); err != nil || !got.Deleted {
		t.Errorf("before there was anything: %v, %v", got, err)
	}
	if _, err := s.History(ID{Kind: "Nothing", Name: "x"}, 0, 0); err == nil {
		t.Error("the history of a kind that there is not")
	}
	// Back to an earlier version: history goes on.
	first, err := s.Version(cart, versions[0].Revision.String())
	if err != nil {
		t.Fatal(err)
	}
	result := mustWrite(t, s, Txn{Action: "rollback", Ops: []Op{{Exact: first}}})
	now := mustGet(t, s, cart)
	if !now.same(versions[0]) || now.Revision.Compare(versions[3].Revision) <= 0 || result.Changes[0].Action != "rollback" {
		t.Errorf("rolled back to %+v", now)
	}
}

// A rollback of everything leaves what files declare, and puts back its state.
func TestOpsToLeavesWhatFilesDeclare(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	mustSync(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	mustWrite(t, s, Txn{Ops: []Op{splitOp(cart, SplitEdit{Shares: []Share{{"cart-v2", 1}}})}})
	then := wall.Now()
	wall.pass(time.Minute)
	applyText(t, s, backendText("later", ""))
	mustSync(t, s, splitText("cart", "cart-v1=50", "cart-v2=50", "cart-v3=1"))
	mustWrite(t, s, Txn{Ops: []Op{setState(cart, State{})}})

	objects, err := s.At(then)
	if err != nil {
		t.Fatal(err)
	}
	ops, warnings := s.Snapshot().OpsTo(objects)
	mustWrite(t, s, Txn{Action: "rollback", Ops: ops})
	route := mustGet(t, s, cart)
	if route.Owner.Kind != OwnerFile || route.Resource.(*GRPCRoute).Spec.Rules[0].BackendRefs[0].Weight != 50 || len(route.State.Splits) != 1 {
		t.Errorf("route %+v", route)
	}
	if _, ok := s.Snapshot().Get(ID{BackendKind, "default", "later"}); ok {
		t.Error("what the API declared later is still there")
	}
	if len(warnings) != 2 { // the route that the file has changed, and the new backend
		t.Errorf("warnings %q", warnings)
	}
}

// History is bounded in all, in bytes and for each object; what is recent stays, and
// a moment that is not known exactly any more is refused.
func TestHistoryIsBounded(t *testing.T) {
	wall := newTestClock()
	l := &limits{changes: 200, bytes: 1 << 20, ofObject: 10, recent: 40, objectBytes: 1 << 20, tail: 1 << 20, batch: 1 << 20, page: 1 << 20, descriptors: 1 << 20}
	s := openStore(t, Options{Now: wall.Now, limits: l})
	digests := map[uint64]string{}
	times := map[uint64]time.Time{}
	write := func(name string, n int) {
		wall.pass(time.Second)
		seq := applyText(t, s, backendText(name, fmt.Sprintf(", labels: {n: \"%d\"}", n))).Seq
		digests[seq], times[seq] = s.Snapshot().Digest(), wall.Now()
	}
	for i := range 30 {
		write(fmt.Sprintf("quiet%d", i), 0)
	}
	for i := range 100 {
		write("busy", i)
	}
	if n := len(s.timeline.byObject[ID{BackendKind, "default", "busy"}]); n != 40 {
		t.Errorf("%d changes of the busy one, want the 40 recent ones", n)
	}
	if changes, err := s.History(ID{BackendKind, "default", "quiet0"}, 0, 0); err != nil || len(changes) != 1 {
		t.Errorf("history of a quiet one: %d, %v", len(changes), err)
	}
	for i := range 50 {
		write(fmt.Sprintf("other%d", i%25), i)
	}
	if n := len(s.timeline.byObject[ID{BackendKind, "default", "busy"}]); n != 10 {
		t.Errorf("%d changes of the busy one, want 10", n)
	}
	s = reopen(t, s)
	known := 0
	for seq, at := range times {
		objects, err := s.At(at)
		if seq < s.timeline.forgotten {
			if !errors.Is(err, ErrCompacted) {
				t.Errorf("at change %d, before %d: %v, want ErrCompacted", seq, s.timeline.forgotten, err)
			}
			continue
		}
		known++
		if err != nil || (&Snapshot{}).with(1, objects).Digest() != digests[seq] {
			t.Errorf("at change %d: another state, %v", seq, err)
		}
	}
	if known < 40 {
		t.Errorf("%d moments are known", known)
	}
	for i := range 300 {
		write(fmt.Sprintf("many%d", i), i)
	}
	if n := len(s.timeline.events); n != 200 {
		t.Errorf("%d changes are kept, want 200", n)
	}
	s.timeline.limits.bytes = s.timeline.bytes / 2
	write("one-more", 1)
	if s.timeline.bytes > s.timeline.limits.bytes {
		t.Errorf("%d bytes are kept, limit %d", s.timeline.bytes, s.timeline.limits.bytes)
	}
}

func TestAtRefusesWhatWasBefore(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	if _, err := s.At(wall.Now()); !errors.Is(err, ErrCompacted) {
		t.Errorf("of an empty store: %v", err)
	}
	applyText(t, s, backendText("a", ""))
	if _, err := s.At(wall.Now().Add(-time.Millisecond)); !errors.Is(err, ErrCompacted) {
		t.Errorf("before the first change: %v", err)
	}
	for _, at := range []time.Time{wall.Now(), wall.Now().Add(time.Hour)} {
		if objects, err := s.At(at); err != nil || len(objects) != 1 {
			t.Errorf("at %s: %d objects, %v", at, len(objects), err)
		}
	}
	// With a clock that was ahead for a while, the last change until then counts.
	wall.pass(24 * time.Hour)
	applyText(t, s, backendText("ahead", ""))
	wall.pass(-23 * time.Hour)
	applyText(t, s, backendText("b", ""))
	if objects, err := s.At(wall.Now()); err != nil || len(objects) != 3 {
		t.Errorf("now: %d objects, %v", len(objects), err)
	}
	if objects, err := s.At(wall.Now().Add(-time.Minute)); err != nil || len(objects) != 1 {
		t.Errorf("a minute ago: %d objects, %v", len(objects), err)
	}
}

// Large objects fill neither the memory of the store nor that of who asks.
func TestHistoryIsHandedOutInPieces(t *testing.T) {
	l := defaultLimits
	l.tail, l.batch, l.page = 160_000, 40_000, 160_000
	s := openStore(t, Options{limits: &l})
	big := strings.Repeat("x", 1500)
	const n = 120
	var versions []string
	for i := range n {
		b := randomResource(ID{BackendKind, "default", "big"}, rand.New(rand.NewPCG(0, 0))).(*Backend)
		b.Annotations = map[string]string{"a": big, "n": fmt.Sprint(i)}
		mustWrite(t, s, Txn{Ops: []Op{{Apply: b}}})
		versions = append(versions, mustGet(t, s, ID{BackendKind, "default", "big"}).Revision.String())
	}
	if len(s.tail) > 60 || len(s.tail) < 20 {
		t.Errorf("%d changes in memory", len(s.tail))
	}
	seen := 0
	for before := uint64(0); ; {
		changes, err := s.History(ID{}, before, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(changes) == 0 {
			break
		}
		if len(changes) > 60 {
			t.Errorf("%d changes at once", len(changes))
		}
		seen += len(changes)
		before = changes[len(changes)-1].Seq
	}
	if seen != n {
		t.Errorf("%d changes in all, want %d", seen, n)
	}
	w := s.Watch(0)
	for seq := range uint64(n) {
		c, err := w.Next(t.Context())
		if err != nil || c.Seq != seq+1 {
			t.Fatalf("change %d, %v; want %d", c.Seq, err, seq+1)
		}
		if c.Seq < n-60 && len(w.next) > 15 {
			t.Fatalf("a watcher holds %d changes", len(w.next))
		}
	}
	for _, revision := range []string{versions[0], versions[n/2], versions[n-1]} {
		if o, err := s.Version(ID{BackendKind, "", "big"}, revision); err != nil || o.Revision.String() != revision {
			t.Errorf("version %s: %v", revision, err)
		}
	}
}
