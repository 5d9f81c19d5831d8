package store

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

func version(t testing.TB, revision string, deleted bool, seen ...string) *Object {
	t.Helper()
	parse := func(s string) Revision {
		r, err := ParseRevision(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	o := &Object{ID: cartV1, Revision: parse(revision), Vector: Vector{}, Deleted: deleted}
	if !deleted {
		o.manifest = sha256.Sum256([]byte(revision))
	}
	for _, s := range append(seen, revision) {
		o.Vector = o.Vector.with(parse(s))
	}
	return o
}

func TestMerge(t *testing.T) {
	tests := []struct {
		name         string
		mine, theirs *Object
		wantMine     bool
		wantOutcome  Outcome
		wantSeen     int // nodes in the winner's vector
	}{
		{"the same", version(t, "5.0@a", false), version(t, "5.0@a", false), true, MergeSame, 1},
		{"theirs follows", version(t, "5.0@a", false), version(t, "7.0@b", false, "5.0@a"), false, MergeTheirs, 2},
		{"mine follows", version(t, "7.0@b", false, "5.0@a"), version(t, "5.0@a", false), true, MergeMine, 2},
		{"theirs follows on one node", version(t, "5.0@a", false), version(t, "5.1@a", false), false, MergeTheirs, 1},
		{"mine follows on one node", version(t, "6.0@a", false), version(t, "5.9@a", false), true, MergeMine, 1},
		{"unknown to each other, mine later", version(t, "9.0@a", false), version(t, "8.5@b", false), true, MergeConflictMine, 2},
		{"unknown to each other, theirs later", version(t, "8.0@a", false), version(t, "8.1@b", false), false, MergeConflictTheirs, 2},
		{"unknown to each other, at one moment", version(t, "8.1@a", false), version(t, "8.1@b", false), false, MergeConflictTheirs, 2},
		{"with a common past", version(t, "8.0@a", false, "3.0@c"), version(t, "7.0@b", false, "3.0@c"), true, MergeConflictMine, 3},
		{"theirs deletes what mine is", version(t, "5.0@a", false), version(t, "6.0@b", true, "5.0@a"), false, MergeTheirs, 2},
		{"theirs is an old version of what mine deleted", version(t, "6.0@b", true, "5.0@a"), version(t, "5.0@a", false), true, MergeMine, 2},
		{"a deletion against a later edit", version(t, "6.0@a", true), version(t, "7.0@b", false), false, MergeConflictTheirs, 2},
		{"a deletion against an earlier edit", version(t, "8.0@a", true), version(t, "7.0@b", false), true, MergeConflictMine, 2},
		{"anew after a deletion", version(t, "6.0@a", true), version(t, "7.0@b", false, "6.0@a"), false, MergeTheirs, 2},
		{"both deleted", version(t, "6.0@a", true), version(t, "7.0@b", true), false, MergeTheirs, 2},
		{"mine is missing", nil, version(t, "7.0@b", false), false, MergeTheirs, 1},
		{"theirs is missing", version(t, "7.0@b", false), nil, true, MergeMine, 1},
		{"a node that went on alone", version(t, "9.0@a", false, "2.0@b"), version(t, "8.0@b", false, "1.0@a"), true, MergeConflictMine, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			winner, outcome := Merge(test.mine, test.theirs)
			want := test.theirs
			if test.wantMine {
				want = test.mine
			}
			if outcome != test.wantOutcome || winner.Revision != want.Revision || winner.Deleted != want.Deleted {
				t.Errorf("winner %s, %v; want %s, %v", winner.Revision, outcome, want.Revision, test.wantOutcome)
			}
			if len(winner.Vector) != test.wantSeen {
				t.Errorf("the winner has seen %v, want %d nodes", winner.Vector, test.wantSeen)
			}
			for _, o := range []*Object{test.mine, test.theirs} {
				if o != nil && !winner.Vector.covers(o.Vector) {
					t.Errorf("the winner has seen %v, which lacks %v", winner.Vector, o.Vector)
				}
			}
		})
	}
}

func TestMergeChangesNeitherSide(t *testing.T) {
	mine, theirs := version(t, "9.0@a", false), version(t, "8.0@b", false)
	winner, _ := Merge(mine, theirs)
	if len(mine.Vector) != 1 || len(theirs.Vector) != 1 || winner == mine {
		t.Errorf("mine has seen %v, theirs %v", mine.Vector, theirs.Vector)
	}
}

// histories are the seeds of random histories.
func histories() uint64 {
	if raceDetector {
		return 200
	}
	return 1000
}

// player is one node in a random history of one object, without a store.
type player struct {
	clock *clock
	has   *Object
}

// edit makes a version of what the node has. It has seen all of that.
func (p *player) edit(content string) *Object {
	r := p.clock.peek()
	p.clock.advance(r)
	o := &Object{ID: cartV1, Revision: r, Vector: Vector{}.with(r), Deleted: content == ""}
	if content != "" {
		o.manifest = sha256.Sum256([]byte(content))
	}
	if p.has != nil {
		o.Vector = p.has.Vector.with(r)
	}
	p.has = o
	return o
}

func (p *player) hear(o *Object) {
	p.has, _ = Merge(p.has, o)
	p.clock.advance(o.Revision)
}

func newPlayers(rng *rand.Rand, n int) []*player {
	players := make([]*player, n)
	for i := range players {
		now := newTestClock().Now
		players[i] = &player{clock: &clock{node: fmt.Sprintf("n%d", i), now: now}}
		players[i].clock.last = Revision{now().UnixMilli() + int64(rng.IntN(50_000)), 0, players[i].clock.node}
	}
	return players
}

// randomHistory plays nodes that edit, delete and hear of each other in random order,
// with clocks that differ. It returns all versions that ever were, and those of them
// that are edits. Some say the same, unless contents is 0: then nothing is deleted.
func randomHistory(rng *rand.Rand, nodes, contents int) (all, edits []*Object) {
	players := newPlayers(rng, nodes)
	for range 5 + rng.IntN(30) {
		p, q := players[rng.IntN(nodes)], players[rng.IntN(nodes)]
		if rng.IntN(2) > 0 {
			content := ""
			if contents == 0 {
				content = fmt.Sprint(len(edits))
			} else if rng.IntN(4) > 0 {
				content = fmt.Sprint(rng.IntN(contents))
			}
			edits = append(edits, p.edit(content))
			all = append(all, p.has)
		} else if q.has != nil {
			p.hear(q.has)
			all = append(all, p.has)
		}
	}
	return all, edits
}

func sameVersion(a, b *Object) bool {
	return a.Deleted == b.Deleted && a.manifest == b.manifest && a.VersionSum() == b.VersionSum()
}

// unsettled are the edits that no other edit has seen, the latest first: what a node has
// that has heard of all.
func unsettled(edits []*Object) (revisions []Revision) {
	for _, o := range edits {
		seen := slices.ContainsFunc(edits, func(other *Object) bool { return other != o && other.Vector.Seen(o.Revision) })
		if !seen {
			revisions = append(revisions, o.Revision)
		}
	}
	slices.SortFunc(revisions, func(a, b Revision) int { return b.Compare(a) })
	return revisions
}

// Over random histories of edits that all say something else merging is commutative,
// associative and idempotent, and a node that has heard of all versions, in whatever
// order, has the latest of the edits that nobody has seen, and lists the others.
func TestMergeAgreesInAnyOrder(t *testing.T) {
	for seed := range histories() {
		rng := rand.New(rand.NewPCG(seed, 7))
		all, edits := randomHistory(rng, 2+rng.IntN(4), 0)
		if len(all) == 0 {
			continue
		}
		pick := func() *Object { return all[rng.IntN(len(all))] }
		for range 20 {
			a, b, c := pick(), pick(), pick()
			ab, _ := Merge(a, b)
			bc, _ := Merge(b, c)
			left, _ := Merge(ab, c)
			right, _ := Merge(a, bc)
			if !sameVersion(left, right) {
				t.Fatalf("seed %d: (a b) c gives %v, a (b c) %v", seed, left, right)
			}
		}
		want := unsettled(edits)
		for range 5 {
			rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			var o *Object
			for _, v := range append(slices.Clone(all), all[:len(all)/2]...) {
				o, _ = Merge(o, v)
			}
			got := []Revision{o.Revision}
			for _, lost := range o.Lost {
				got = append(got, lost.Revision)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: there are %v, want %v", seed, got, want)
			}
		}
	}
}

// Whatever the edits say, and however many conflicts there are, either order gives the
// same, twice gives nothing new, and nodes that go on exchanging what they have end alike;
// also when they have seen more nodes than they remember.
func TestMergeEndsAlike(t *testing.T) {
	for seed := range histories() {
		mergeHistory(t, seed, maxPast)
		for most := range 3 {
			mergeHistory(t, seed, 1+most)
		}
	}
}

// mergeHistory merges a random history with versions that remember to have seen so many
// nodes.
func mergeHistory(t *testing.T, seed uint64, most int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 8))
	all, edits := randomHistory(rng, 2+rng.IntN(7), 3)
	if len(all) == 0 {
		return
	}
	for i, o := range all {
		all[i] = o.within(most)
	}
	for range 20 {
		mergePair(t, all[rng.IntN(len(all))], all[rng.IntN(len(all))], most)
	}
	ends := make([]*Object, 5)
	for i := range ends {
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, v := range all {
			ends[i], _ = mergeWithin(ends[i], v, most)
		}
	}
	for range 2 {
		for i := range ends {
			for j := range ends {
				ends[i], _ = mergeWithin(ends[i], ends[j], most)
			}
		}
	}
	for _, end := range ends {
		if !sameVersion(end, ends[0]) {
			t.Fatalf("seed %d, %d: the order decides: %v and %v", seed, most, end, ends[0])
		}
		if err := end.checkPast(); err != nil {
			t.Fatalf("seed %d, %d: no peer would take it: %v", seed, most, err)
		}
	}
	end, want := ends[0], unsettled(edits)[0]
	if end.Revision != want || len(end.Lost) > maxLost(BackendKind) || len(end.Vector) > most+len(end.Lost) {
		t.Fatalf("seed %d, %d: %v holds, want %s", seed, most, end, want)
	}
}

// mergePair merges two versions either way, and again.
func mergePair(t *testing.T, a, b *Object, most int) {
	t.Helper()
	ab, outcome := mergeWithin(a, b, most)
	ba, reverse := mergeWithin(b, a, most)
	if !sameVersion(ab, ba) || outcome.Conflict() != reverse.Conflict() {
		t.Fatalf("%d: %v with %v gives %v (%v), the other way %v (%v)", most, a, b, ab, outcome, ba, reverse)
	}
	if aa, outcome := mergeWithin(ab, ab, most); aa != ab || outcome != MergeSame {
		t.Fatalf("%d: %v with itself gives %v, %v", most, a, aa, outcome)
	}
	if again, _ := mergeWithin(ab, b, most); !sameVersion(again, ab) && most == maxPast {
		t.Fatalf("%d: merging again gives %v", most, again)
	}
}

// What is left of a past is the same in whatever order it was put together.
func TestVectorLatestAgreesInAnyOrder(t *testing.T) {
	for seed := range histories() {
		rng := rand.New(rand.NewPCG(seed, 9))
		random := func() Vector {
			v := Vector{}
			for range rng.IntN(12) {
				v = v.with(Revision{int64(1 + rng.IntN(5)), rng.Uint32N(3), fmt.Sprint("n", rng.IntN(15))})
			}
			return v
		}
		join := func(a, b Vector) Vector { return a.union(b).latest(5, nil) }
		a, b, c := random(), random(), random()
		left, right := join(join(a, b), c), join(a, join(c, b))
		if !maps.Equal(left, right) || !maps.Equal(left, join(left, b)) || len(left) > 5 {
			t.Fatalf("seed %d: %v, %v and %v are %v, the other way %v", seed, a, b, c, left, right)
		}
	}
}

func TestMergeKeepsTheLoserUntilSomebodyEdits(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	p := newPlayers(rng, 3)
	a, b := p[0].edit("a"), p[1].edit("b")
	p[0].hear(b)
	p[1].hear(a)
	p[2].hear(p[0].has)
	for i, p := range p {
		if len(p.has.Lost) != 1 || !sameVersion(p.has, p1(b, a)) {
			t.Fatalf("node %d has %v", i, p.has)
		}
	}
	if lost := p[2].has.Lost[0]; lost.Vector != nil || lost.manifest != p0(b, a).manifest {
		t.Errorf("lost is %v", lost)
	}
	settled := p[2].edit("c")
	p[0].hear(settled)
	p[0].hear(p[1].has)
	p[1].hear(settled)
	for i, p := range p {
		if p.has.Lost != nil || p.has.Revision != settled.Revision {
			t.Errorf("node %d has %v after the conflict was settled", i, p.has)
		}
	}
}

// p1 is the later of two versions with the other one lost to it, p0 the earlier one.
func p1(a, b *Object) *Object { winner, _ := Merge(a, b); return winner }

func p0(a, b *Object) *Object {
	if a.Revision.Compare(b.Revision) < 0 {
		return a
	}
	return b
}

func TestMergeKeepsSoManyOfTheLost(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, test := range []struct {
		kind string
		want int
	}{{BackendKind, 4}, {SchemaKind, 1}, {RegistrationKind, 0}} {
		var o *Object
		var edits []*Object
		for _, p := range newPlayers(rng, 7) {
			v := p.edit(p.clock.node)
			v.ID.Kind = test.kind
			edits = append(edits, v)
		}
		for _, v := range edits {
			o, _ = Merge(v, o)
		}
		latest := unsettled(edits)
		if len(o.Lost) != test.want || o.Revision != latest[0] {
			t.Fatalf("%s: %d versions lost to %s, want %d", test.kind, len(o.Lost), o.Revision, test.want)
		}
		for i, lost := range o.Lost {
			if lost.Revision != latest[i+1] {
				t.Errorf("%s: %s is kept, want %s", test.kind, lost.Revision, latest[i+1])
			}
		}
	}
}

// What says the same but for the time that an API gave it is no conflict.
func TestMergeOfEqualDeclarationsIsNoConflict(t *testing.T) {
	at := func(revision string, change func(*Object)) *Object {
		o := version(t, revision, false)
		r := parseText(t, backendText("cart-v1", "")).Backends[0]
		o.Resource = r
		change(o)
		if err := o.setResource(o.Resource); err != nil {
			t.Fatal(err)
		}
		return o
	}
	aged := func(o *Object) {
		o.Resource = withMeta(o.Resource, func(m *Meta) { m.CreationTimestamp = newTestClock().Now() })
	}
	same := func(*Object) {}
	tests := []struct {
		name   string
		change func(*Object)
		want   Outcome
	}{
		{"the same", same, MergeTheirs},
		{"applied", aged, MergeTheirs},
		{"by another owner", func(o *Object) { o.Owner = Owner{OwnerPeer, "a:1"} }, MergeTheirs},
		{"drained", func(o *Object) { o.State.Drains = []Drain{{}} }, MergeConflictTheirs},
		{"of another label", func(o *Object) {
			o.Resource = withMeta(o.Resource, func(m *Meta) { m.Labels = map[string]string{"a": "b"} })
		}, MergeConflictTheirs},
		{"applied, of another label", func(o *Object) {
			aged(o)
			o.Resource = withMeta(o.Resource, func(m *Meta) { m.Labels = map[string]string{"a": "b"} })
		}, MergeConflictTheirs},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			winner, outcome := Merge(at("5.0@a", same), at("6.0@b", test.change))
			if outcome != test.want || len(winner.Lost) > 0 != test.want.Conflict() {
				t.Errorf("%v, lost %d", outcome, len(winner.Lost))
			}
		})
	}
}
