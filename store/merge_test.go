package store

import (
	"crypto/sha256"
	"fmt"
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

// randomVersions plays nodes that edit, delete and hear of each other in random order,
// with clocks that differ, and returns all versions that ever were.
func randomVersions(rng *rand.Rand) []*Object {
	nodes := 2 + rng.IntN(4)
	has := make([]*Object, nodes)
	clocks := make([]*clock, nodes)
	for i := range clocks {
		skew := int64(rng.IntN(50_000))
		c := newTestClock()
		clocks[i] = &clock{node: fmt.Sprintf("n%d", i), now: c.Now}
		clocks[i].last = Revision{c.Now().UnixMilli() + skew, 0, clocks[i].node}
	}
	var all []*Object
	for range 5 + rng.IntN(30) {
		i := rng.IntN(nodes)
		if rng.IntN(2) == 0 {
			j := rng.IntN(nodes)
			if has[j] != nil {
				has[i], _ = Merge(has[i], has[j])
				clocks[i].advance(has[i].Revision)
				all = append(all, has[i])
			}
			continue
		}
		r := clocks[i].peek()
		clocks[i].advance(r)
		o := &Object{ID: cartV1, Revision: r, Deleted: rng.IntN(4) == 0, Vector: Vector{}.with(r)}
		if has[i] != nil {
			o.Vector = has[i].Vector.with(r)
		}
		has[i] = o
		all = append(all, o)
	}
	return all
}

func sameVersion(a, b *Object) bool {
	return a.Revision == b.Revision && a.Deleted == b.Deleted && a.Vector.covers(b.Vector) && b.Vector.covers(a.Vector)
}

// Over random histories merging is commutative, associative and idempotent, and nodes
// that have heard of the same versions, in whatever order, have the same one.
func TestMergeAgreesInAnyOrder(t *testing.T) {
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 7))
		all := randomVersions(rng)
		if len(all) == 0 {
			continue
		}
		pick := func() *Object { return all[rng.IntN(len(all))] }
		for range 20 {
			a, b, c := pick(), pick(), pick()
			ab, outcome := Merge(a, b)
			ba, reverse := Merge(b, a)
			if !sameVersion(ab, ba) || outcome.Conflict() != reverse.Conflict() {
				t.Fatalf("seed %d: %v with %v gives %v (%v), the other way %v (%v)", seed, a, b, ab, outcome, ba, reverse)
			}
			if aa, outcome := Merge(a, a); !sameVersion(aa, a) || outcome != MergeSame {
				t.Fatalf("seed %d: %v with itself gives %v, %v", seed, a, aa, outcome)
			}
			if again, _ := Merge(ab, b); !sameVersion(again, ab) {
				t.Fatalf("seed %d: merging again gives %v", seed, again)
			}
			bc, _ := Merge(b, c)
			left, _ := Merge(ab, c)
			right, _ := Merge(a, bc)
			if !sameVersion(left, right) {
				t.Fatalf("seed %d: (a b) c gives %v, a (b c) %v", seed, left, right)
			}
		}
		var ends []*Object
		for range 5 {
			rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			var o *Object
			for _, v := range append(slices.Clone(all), all[:len(all)/2]...) {
				o, _ = Merge(o, v)
			}
			ends = append(ends, o)
		}
		for _, end := range ends {
			if !sameVersion(end, ends[0]) {
				t.Fatalf("seed %d: the order decides: %v and %v", seed, end, ends[0])
			}
		}
	}
}
