package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
)

// directories are the two ways to find the node of a key.
var directories = []struct {
	name string
	make func(field, []uint64) directory
	// strays is what part of the keys of nodes that stay may move when one comes or
	// goes, and off how far a node's share of keys may be from its weight's.
	strays, off float64
}{
	{"RingHash", newRing, 0, 0.25},
	{"Maglev", newMaglev, 0.012, 0.02},
}

const someKeys = 10_000

// users are keys.
var users = sync.OnceValue(func() (list []uint64) {
	for k := range someKeys {
		list = append(list, rehash(Hash("user-"+strconv.Itoa(k)), 0))
	}
	return list
})

// owners are the names of the nodes that keys belong to.
func owners(d directory, names []uint64) []uint64 {
	list := make([]uint64, someKeys)
	for k, user := range users() {
		list[k] = names[d.find(user)]
	}
	return list
}

func TestHashedMovesNoMoreThanItMust(t *testing.T) {
	for _, d := range directories {
		for _, n := range []int{2, 10, 100} {
			for _, uneven := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s of %d, uneven %v", d.name, n, uneven), func(t *testing.T) {
					weights := slices.Repeat([]uint32{1}, n)
					mean := 1.0
					if uneven {
						for i := range weights {
							weights[i] = uint32(1 + i%4)
						}
						mean = 2.5
					}
					names := hashing(n, 0).Names
					all := owners(d.make(newField(nodes(weights...)), names), names)
					gone := n / 2
					share := float64(weights[gone]) / mean
					weights[gone] = 0
					rest := owners(d.make(newField(nodes(weights...)), names), names)
					had, strays := 0, 0
					for k := range all {
						switch {
						case all[k] == names[gone]:
							had++
						case all[k] != rest[k]:
							strays++
						}
					}
					most := d.strays
					if uneven { // the mean weight changes, and with it a few points of all
						most += 0.003 + 1.2*math.Abs(1-share)/float64(n)
					}
					if got := float64(strays) / someKeys; got > most {
						t.Errorf("%.2f %% of the keys that node %d did not have move when it goes, want at most %.2f %%", 100*got, gone, 100*most)
					}
					if want := share * someKeys / float64(n); n > 2 && math.Abs(float64(had)-want) > d.off*want+5*math.Sqrt(want) {
						t.Errorf("node %d had %d keys, want about %.0f", gone, had, want)
					}
				})
			}
		}
	}
}

// A node without weight is as one that is not there, whatever comes after it.
func TestHashedHasNoPlaceForTheDrained(t *testing.T) {
	names := hashing(5, 0).Names
	for _, d := range directories {
		with := owners(d.make(newField(nodes(1, 2, 0, 1, 1)), names), names)
		fewer := slices.Delete(slices.Clone(names), 2, 3)
		if !slices.Equal(with, owners(d.make(newField(nodes(1, 2, 1, 1)), fewer), fewer)) {
			t.Errorf("%s: keys belong to others because of a node without weight", d.name)
		}
	}
}

// Gateways learn of the nodes in any order.
func TestHashedAgreesWhateverTheOrder(t *testing.T) {
	for _, d := range directories {
		weights := []uint32{1, 2, 3, 1, 1, 5, 1, 1}
		names := hashing(len(weights), 0).Names
		want := owners(d.make(newField(nodes(weights...)), names), names)
		for range 2 {
			rand.Shuffle(len(names), func(i, j int) {
				names[i], names[j] = names[j], names[i]
				weights[i], weights[j] = weights[j], weights[i]
			})
			if got := owners(d.make(newField(nodes(weights...)), names), names); !slices.Equal(got, want) {
				t.Errorf("%s: keys belong to others when the nodes are listed in another order", d.name)
			}
		}
	}
}

// Versions agree, too: who changes these values moves every key of every user.
func TestHashedIsTheSameInEveryVersion(t *testing.T) {
	if got := Hash("sluice"); got != 0x4251fdf4a288237c || HashBytes([]byte("sluice")) != got || Hash("") != 0xef46db3751d8e999 {
		t.Errorf("Hash is %#x, %#x of nothing", got, Hash(""))
	}
	names := hashing(10, 0).Names
	want := [][]int{{8, 3, 7, 3, 9, 7, 4, 7, 6, 4, 8, 0}, {1, 0, 7, 5, 6, 7, 9, 4, 9, 2, 1, 3}}
	for k, d := range directories {
		var got []int
		find := d.make(newField(nodes(slices.Repeat([]uint32{1}, 10)...)), names).find
		for k := range 12 {
			got = append(got, find(users()[k]))
		}
		if !slices.Equal(got, want[k]) {
			t.Errorf("%s: %v, want %v", d.name, got, want[k])
		}
	}
}

func TestHashedGivesEachNodeItsWeight(t *testing.T) {
	for _, d := range directories {
		for _, weights := range [][]uint32{
			{1, 1, 1},
			{5, 1, 1},
			{90, 10},
			{0, 7, 0, 7},
			{1, 2, 3, 4, 5, 6, 7},
			{1_000_000, 999_999, 500_000},
			slices.Repeat([]uint32{3, 1}, 25),
		} {
			names := hashing(len(weights), 0).Names
			counts := make(map[uint64]float64)
			for _, name := range owners(d.make(newField(nodes(weights...)), names), names) {
				counts[name]++
			}
			sum := 0.0
			for _, w := range weights {
				sum += float64(w)
			}
			for i, w := range weights {
				want := float64(w) / sum * someKeys
				if got := counts[names[i]]; math.Abs(got-want) > d.off*want+5*math.Sqrt(want) {
					t.Errorf("%s: weight %d of %v has %.0f keys, want about %.0f", d.name, w, weights, got, want)
				}
			}
		}
	}
}

// A node that next to nobody is to reach is there all the same.
func TestHashedKnowsTheLightest(t *testing.T) {
	weights := append(slices.Repeat([]uint32{math.MaxUint32}, 20), 1)
	f := newField(nodes(weights...))
	for _, d := range directories {
		found := false
		switch made := d.make(f, hashing(len(weights), 0).Names).(type) {
		case ring:
			found = slices.ContainsFunc(made, func(point uint64) bool { return point&nodeMask == 20 })
		case maglev:
			found = slices.Contains(made, 20)
		}
		if !found {
			t.Errorf("%s: the node of weight 1 has no place", d.name)
		}
	}
}

// The keys of a node that is barred are spread over all others; theirs stay where they
// are, and its come back.
func TestHashedSpreadsTheKeysOfABarredNode(t *testing.T) {
	for _, d := range directories {
		const n = 10
		set := nodes(slices.Repeat([]uint32{1}, n)...)
		p := NewRingHash(set, hashing(n, 0), calm)
		if d.name == "Maglev" {
			p = NewMaglev(set, hashing(n, 0), calm)
		}
		place := func(key uint64) int {
			i := p.Pick(Request{Key: key, Keyed: true})
			set[i].Release()
			return i
		}
		before := make([]int, someKeys)
		for k := range before {
			before[k] = place(uint64(k))
		}
		down(set, 4)
		taken, had := make([]int, n), 0
		for k := range before {
			i := place(uint64(k))
			switch {
			case before[k] == 4:
				taken[i]++
				had++
			case i != before[k]:
				t.Fatalf("%s: key %d moved from node %d to node %d, and node 4 is barred", d.name, k, before[k], i)
			}
			if place(uint64(k)) != i {
				t.Fatalf("%s: key %d does not stay where it went", d.name, k)
			}
		}
		for i, got := range taken {
			if i != 4 && !within(got, had/(n-1), had/(n-1)/2) {
				t.Errorf("%s: the %d keys of node 4 went %v, want them spread", d.name, had, taken)
				break
			}
		}
		set[4].SetUsable(true)
		for k := range before {
			if place(uint64(k)) != before[k] {
				t.Fatalf("%s: key %d did not come back to node %d", d.name, k, before[k])
			}
		}
		// With one node left that is the one, wherever the search begins.
		down(set, 0, 1, 2, 3, 4, 5, 6, 8, 9)
		for k := range uint64(200) {
			if i := place(k); i != 7 {
				t.Fatalf("%s: picked %d, want the only one that is up", d.name, i)
			}
		}
	}
}

// Streams only come, and most have one of a few keys: nobody ever has more than the
// bound times his share, rounded up.
func TestHashedKeepsTheBound(t *testing.T) {
	for _, d := range directories {
		for _, bound := range []int{1, 125} {
			for _, weights := range [][]uint32{{1}, {1, 1}, {3, 1, 1, 0, 1}, slices.Repeat([]uint32{1, 2}, 10)} {
				t.Run(fmt.Sprintf("%s, bound %d, weights %v", d.name, bound, weights), func(t *testing.T) {
					set := nodes(weights...)
					random := rand.New(rand.NewPCG(5, 6))
					p := seededPicker(set, calm, func(f field) chooser { return newHashed(f, hashing(len(weights), bound), d.make) })
					total := 0.0
					for _, w := range weights {
						total += float64(w)
					}
					var open []int
					for k := range 1200 {
						if len(open) > 0 && k%3 == 0 && k > 600 { // later on some end
							at := random.IntN(len(open))
							set[open[at]].Release()
							open = slices.Delete(open, at, at+1)
						}
						i := p.Pick(Request{Key: uint64(random.IntN(3)), Keyed: true})
						open = append(open, i)
						most := math.Ceil(float64(max(bound, 100)) / 100 * float64(len(open)) * float64(weights[i]) / total)
						if got := float64(set[i].Active()); got > most {
							t.Fatalf("%d streams are open, and node %d, of weight %d, got its %.0fth; want at most %.0f", len(open), i, weights[i], got, most)
						}
					}
				})
			}
		}
	}
}

func TestHashedKeepsTheBoundAmongGoroutines(t *testing.T) {
	set := nodes(1, 1, 1, 1, 1)
	p := NewMaglev(set, hashing(5, 110), calm)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				p.Pick(Request{Key: 7, Keyed: true})
			}
		})
	}
	wg.Wait()
	if got := active(set); slices.Max(got) > 880 {
		t.Errorf("%v streams are open, want at most 880 on each", got)
	}
}

// Without load a key stays where it is, bound or not.
func TestHashedKeepsToTheKeyBelowTheBound(t *testing.T) {
	set := nodes(1, 1, 1, 1)
	p := NewRingHash(set, hashing(4, 125), calm)
	q := NewRingHash(set, hashing(4, 0), calm)
	for k := range uint64(1000) {
		r := Request{Key: k, Keyed: true}
		i, j := p.Pick(r), q.Pick(r)
		set[i].Release()
		set[j].Release()
		if i != j {
			t.Fatalf("key %d: node %d with a bound, %d without, and nothing is open", k, i, j)
		}
	}
}

// When all that are left are over their bound, one is picked all the same.
func TestHashedGoesOverTheBoundRatherThanNowhere(t *testing.T) {
	set := nodes(1, 1, 1)
	p := NewMaglev(set, hashing(3, 100), calm)
	for range 100 {
		set[2].Acquire()
	}
	if i := p.Pick(Request{Avoid: maskOf(0, 1), Key: 1, Keyed: true}); i != 2 {
		t.Errorf("picked %d, want the one that is left", i)
	}
}

// Tables are as large as they may be, and no larger. Those who do not hash have none.
func TestDirectoriesAreBounded(t *testing.T) {
	for _, tc := range []struct{ nodes, most int }{{1, 2 << 10}, {3, 6 << 10}, {100, 200 << 10}} {
		f := newField(nodes(slices.Repeat([]uint32{7}, tc.nodes)...))
		if got := 8 * len(newRing(f, hashing(tc.nodes, 0).Names).(ring)); got > tc.most {
			t.Errorf("the ring of %d nodes has %d bytes, want at most %d", tc.nodes, got, tc.most)
		}
	}
	// Weights far apart do not make more points than nodes and weight account for.
	f := newField(nodes(1, 1_000_000, 1, 1, 1))
	if got := len(newRing(f, hashing(5, 0).Names).(ring)); got > 5*pointsPerNode+5 {
		t.Errorf("the ring has %d points, want at most %d", got, 5*pointsPerNode+5)
	}
	for nodes, most := range map[int]uint64{1: 65537, 1024: 65537, 1025: 655373, 100_000: 655373} {
		if got := slotsFor(nodes); got != most {
			t.Errorf("the table of %d nodes has %d slots, want %d", nodes, got, most)
		}
	}
}
