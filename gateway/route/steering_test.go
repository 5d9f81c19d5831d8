package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/store"
)

// TestKeyHashIsTheSameEverywhere and for ever: sides that stores keep depend on it.
func TestKeyHashIsTheSameEverywhere(t *testing.T) {
	for value, want := range map[string]uint64{
		"":                                     0xefd01f60ba992926,
		"a":                                    0x82a2a958a9bece5b,
		"alice":                                0x3507d047a67c08f4,
		"bob":                                  0xf6493629e5654ae0,
		"user-1":                               0x41a2fca5c68401c5,
		"user-2":                               0xa9f4ad0c2263143b,
		"0191f3a2-5c1e-7b4d-9e3f-000000000001": 0x170cda566f908b31,
		"\x00\xff":                             0xacb64f88d28b68b8,
	} {
		if got := keyHash(value); got != want {
			t.Errorf("%q: got %#x, want %#x", value, got, want)
		}
	}
}

// steered is the only rule of a route with these weights, steered so.
func steered(s store.Steering, weights ...uint32) *Rule {
	set := split(weights...)
	set.GRPCRoutes[0].Spec.Rules[0].Steering = s
	return Compile(set, nil).Rules()[0]
}

func TestRuleGoesByPinsThenKeysThenTurns(t *testing.T) {
	r := steered(store.Steering{
		Pins: []store.Pin{
			{Header: "x-tester", Value: "1", Backend: "default/b1"},
			{Header: "x-tester", Value: "2", Backend: "default/b2"},
			{Header: "X-Stage", Value: "", Backend: "default/elsewhere"},
			{Header: "x-tester", Value: "1", Backend: "default/b0"}, // comes too late
		},
		Sticky: "User",
		Sides:  []store.Side{{End: 1 << 31, Backend: "default/b0"}, {End: 1 << 32, Backend: "default/b1"}},
	}, 50, 50, 0)
	low, high := "", ""
	for i := 0; low == "" || high == ""; i++ {
		key := fmt.Sprint("user-", i)
		if keyPoint(key) < 1<<31 {
			low = key
		} else {
			high = key
		}
	}
	tests := []struct {
		name string
		hdr  Header
		want int // -1 is by turns
	}{
		{"pinned", headers{"x-tester": "1"}, 1},
		{"pinned to a backend without weight", headers{"x-tester": "2"}, 2},
		{"pinned to none of the rule's", headers{"x-stage": ""}, 3},
		{"pinned, and with a key", headers{"x-tester": "2", "user": low}, 2},
		{"another value", headers{"x-tester": "3", "user": low}, 0},
		{"on the first side", headers{"user": low}, 0},
		{"on the second side", headers{"user": high}, 1},
		{"an empty key", headers{"user": ""}, -1},
		{"no key", headers{}, -1},
		{"no metadata", nil, -1},
	}
	for _, test := range tests {
		seen := make(map[int]bool)
		for range 10 {
			i := r.Choose(test.hdr)
			seen[i] = true
			d := r.Decide(test.hdr)
			if test.want >= 0 && (i != test.want || d.Split != i) || d.Turns != (test.want < 0) {
				t.Errorf("%s: got %d, and the explanation %+v; want %d", test.name, i, d, test.want)
			}
		}
		if test.want < 0 && (len(seen) != 2 || !seen[0] || !seen[1]) {
			t.Errorf("%s: got %v, want turns", test.name, seen)
		}
	}
	if len(r.Splits) != 4 || r.Splits[3].Backend != "default/elsewhere" || r.Splits[3].Weight != 0 {
		t.Errorf("splits %+v, want one more for the pin", r.Splits)
	}
}

// TestRuleMovesOnlyTheNeededShare counts 10,000 keys before and after.
func TestRuleMovesOnlyTheNeededShare(t *testing.T) {
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = fmt.Sprint("user-", i)
	}
	on := func(r *Rule) []int {
		list := make([]int, len(keys))
		for i, key := range keys {
			list[i] = r.Choose(headers{"user": key})
		}
		return list
	}
	count := func(list []int, split int) (n int) {
		for _, i := range list {
			if i == split {
				n++
			}
		}
		return n
	}
	sticky := store.Steering{Sticky: "user"}
	before, after := on(steered(sticky, 90, 10)), on(steered(sticky, 80, 20))
	moved := 0
	for i := range keys {
		if before[i] == after[i] {
			continue
		}
		if moved++; before[i] != 0 || after[i] != 1 {
			t.Fatalf("%s moved from %d to %d", keys[i], before[i], after[i])
		}
	}
	// Nobody moves but those by whom the share has grown.
	if grown := count(after, 1) - count(before, 1); moved != grown || moved < 900 || moved > 1100 {
		t.Errorf("%d keys moved and the share grew by %d, want about 1000", moved, grown)
	}
	if n := count(before, 1); n < 900 || n > 1100 {
		t.Errorf("%d of 10,000 keys on the side of 10 %%", n)
	}
	if again := on(steered(sticky, 9, 1)); !slices.Equal(again, before) {
		t.Error("the same proportion by other weights moves keys")
	}
}

// TestRuleAgreesWithTheSidesOfTheStore: no key moves when a store begins to keep
// sides, and only those that must when it moves them.
func TestRuleAgreesWithTheSidesOfTheStore(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 2))
	sticky := "user"
	for range 50 {
		ws := make([]uint32, 2+rng.IntN(4))
		for i := range ws {
			ws[i] = uint32(rng.IntN(50))
		}
		ws[0]++
		set := split(ws...)
		r := set.GRPCRoutes[0]
		r.Namespace = store.DefaultNamespace
		refs := r.Spec.Rules[0].BackendRefs
		refs[len(refs)-1].Name = refs[rng.IntN(len(refs))].Name // perhaps one backend twice
		r.Spec.Rules[0].Steering = store.Steering{Sticky: sticky}
		plain := Compile(set, nil).Rules()[0]

		var shares []store.Share
		for i := range refs[:len(refs)-1] {
			shares = append(shares, store.Share{Backend: refs[i].Name, Weight: uint32(1 + rng.IntN(50))})
		}
		state, err := store.EditSplit(r, store.State{}, "", store.SplitEdit{Sticky: &sticky})
		if err != nil {
			t.Fatal(err)
		}
		kept := steeredBy(set, state)
		if got, want := kept.describeSides(), plain.describeSides(); got != want {
			t.Fatalf("%v: the store begins with the sides %s, want %s", ws, got, want)
		}
		if state, err = store.EditSplit(r, state, "", store.SplitEdit{Shares: shares}); err != nil {
			t.Fatal(err)
		}
		moved := steeredBy(set, state)
		gain, lose := make(map[string]bool), make(map[string]bool)
		for i := range 500 {
			hdr := headers{"user": fmt.Sprint(i)}
			from, to := plain.Splits[plain.Choose(hdr)].Backend, kept.Splits[kept.Choose(hdr)].Backend
			if from != to {
				t.Fatalf("%v: key %d is with %s, and by the store's sides with %s", ws, i, from, to)
			}
			if to = moved.Splits[moved.Choose(hdr)].Backend; from == to {
				continue
			}
			if lose[from], gain[to] = true, true; gain[from] || lose[to] {
				t.Fatalf("%v to %v: key %d moves from %s to %s, one of which both gains and loses", ws, shares, i, from, to)
			}
		}
	}
}

// describeSides leaves out those on which nothing can fall.
func (r *Rule) describeSides() (text string) {
	last := uint64(0)
	for _, s := range r.steering.sides {
		if s.end > last {
			text += fmt.Sprintf("%s to %d, ", r.Splits[s.split].Backend, s.end)
		}
		last = s.end
	}
	return text
}

// steeredBy is the rule with the sides that a state has.
func steeredBy(set *store.Set, state store.State) *Rule {
	r := *set.GRPCRoutes[0]
	r.Spec.Rules = slices.Clone(r.Spec.Rules)
	r.Spec.Rules[0].Steering = store.Steering{Sticky: "user"}
	if len(state.Splits) > 0 {
		r.Spec.Rules[0].Steering.Sides = state.Splits[0].Sides
	}
	return Compile(&store.Set{GRPCRoutes: []*store.GRPCRoute{&r}}, nil).Rules()[0]
}

// TestRuleSidesCoverTheSpace for weights of all kinds.
func TestRuleSidesCoverTheSpace(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	for range 500 {
		ws := make([]uint32, 1+rng.IntN(10))
		for i := range ws {
			ws[i] = rng.Uint32() >> rng.IntN(33)
		}
		r := steered(store.Steering{Sticky: "k"}, ws...)
		last := uint64(0)
		for _, s := range r.steering.sides {
			width := float64(s.end-last) / hashSpace
			if want := float64(ws[s.split]) / float64(r.sum); s.end < last || width-want > 1e-9 || want-width > 1e-9 {
				t.Fatalf("%v: split %d has %v of the space, want %v", ws, s.split, width, want)
			}
			last = s.end
		}
		if len(r.steps) > 0 && last != hashSpace {
			t.Fatalf("%v: the sides end at %d", ws, last)
		}
		i := r.Choose(headers{"k": "v"})
		if i >= 0 && ws[i] == 0 || i < 0 && len(r.steps) > 0 {
			t.Fatalf("%v: chose %d", ws, i)
		}
	}
}

func TestRuleSpillsToTheOthersByWeight(t *testing.T) {
	const n, u, y = NotReady, Unreached, Ready
	tests := []struct {
		name    string
		weights []uint32
		ready   []Readiness
		from    int
		want    []int // of 1,000
	}{
		{"none is ready", []uint32{90, 10}, []Readiness{n, n}, 0, []int{1000, 0}},
		{"the other", []uint32{90, 10}, []Readiness{n, y}, 0, []int{0, 1000}},
		{"by weight", []uint32{50, 30, 20}, []Readiness{n, y, y}, 0, []int{0, 600, 400}},
		{"weight before reserve", []uint32{50, 50, 0}, []Readiness{n, y, y}, 0, []int{0, 1000, 0}},
		{"reserve", []uint32{50, 50, 0}, []Readiness{n, n, y}, 1, []int{0, 0, 1000}},
		{"two reserves", []uint32{50, 0, 0}, []Readiness{n, y, y}, 0, []int{0, 500, 500}},
		{"a reserve that can be reached before weight that cannot", []uint32{50, 50, 0}, []Readiness{n, u, y}, 0, []int{0, 0, 1000}},
		{"one that cannot be reached before none", []uint32{50, 50}, []Readiness{n, u}, 0, []int{0, 1000}},
		{"not from one that cannot be reached to another", []uint32{50, 50}, []Readiness{u, u}, 0, []int{1000, 0}},
		{"from one that cannot be reached", []uint32{50, 50}, []Readiness{u, y}, 0, []int{0, 1000}},
	}
	for _, test := range tests {
		r := steered(store.Steering{SpillOver: true, Sticky: "k"}, test.weights...)
		for _, keyed := range []bool{false, true} {
			got := make([]int, len(test.weights))
			for i := range 1000 {
				var hdr Header
				if keyed {
					hdr = headers{"k": fmt.Sprint(i)}
				}
				j := r.Spill(test.from, hdr, test.ready)
				if again := r.Spill(test.from, hdr, test.ready); keyed && again != j {
					t.Fatalf("%s: one key goes to %d and %d", test.name, j, again)
				}
				got[j]++
			}
			for i := range got {
				if d := got[i] - test.want[i]; d < -50 || d > 50 || test.want[i] == 0 && got[i] != 0 {
					t.Errorf("%s, keyed %v: got %v, want %v", test.name, keyed, got, test.want)
					break
				}
			}
		}
	}
}

func TestSteeringAllocatesNothing(t *testing.T) {
	r := steered(store.Steering{
		Pins: []store.Pin{{Header: "x", Value: "1", Backend: "default/b1"}}, Sticky: "user", SpillOver: true,
	}, 50, 30, 20)
	ready := []Readiness{NotReady, Ready, Ready}
	list := []Header{headers{"x": "1"}, headers{"user": "alice"}, headers{"x": "2"}}
	n := testing.AllocsPerRun(200, func() {
		for _, hdr := range list {
			r.Choose(hdr)
			r.Spill(0, hdr, ready)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkChoose(b *testing.B) {
	r := steered(store.Steering{Pins: []store.Pin{{Header: "x", Value: "1", Backend: "default/b1"}}, Sticky: "user"}, 90, 10)
	for name, hdr := range map[string]Header{"pinned": headers{"x": "1"}, "keyed": headers{"user": "0191f3a2-5c1e-7b4d-9e3f-000000000001"}, "turns": headers{}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Choose(hdr)
			}
		})
	}
}
