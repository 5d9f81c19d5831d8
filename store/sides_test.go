package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// sizes are how many hashes each backend has.
func sizes(sides []Side) map[string]uint64 {
	has := map[string]uint64{}
	var start uint64
	for _, s := range sides {
		has[s.Backend] += s.End - start
		start = s.End
	}
	return has
}

// moved is how many hashes have another backend in b than in a.
func moved(a, b []Side) uint64 {
	var at, n uint64
	for len(a) > 0 && len(b) > 0 {
		end := min(a[0].End, b[0].End)
		if a[0].Backend != b[0].Backend {
			n += end - at
		}
		at = end
		if a[0].End == end {
			a = a[1:]
		}
		if b[0].End == end {
			b = b[1:]
		}
	}
	return n
}

func checkSides(t testing.TB, sides []Side) {
	t.Helper()
	var start uint64
	for i, s := range sides {
		if s.End <= start || s.Backend == "" || i > 0 && sides[i-1].Backend == s.Backend {
			t.Fatalf("sides %v: wrong at %d", sides, i)
		}
		start = s.End
	}
	if len(sides) > 0 && start != space {
		t.Fatalf("sides %v end at %d, want %d", sides, start, uint64(space))
	}
}

func TestPlainSidesFollowTheWeights(t *testing.T) {
	tests := []struct {
		name   string
		shares []Share
		want   []Side
	}{
		{"half and half", []Share{{"a", 1}, {"b", 1}}, []Side{{1 << 31, "a"}, {space, "b"}}},
		{"nine to one", []Share{{"a", 90}, {"b", 10}}, []Side{{3865470567, "a"}, {space, "b"}}},
		{"one in reserve", []Share{{"a", 0}, {"b", 10}}, []Side{{space, "b"}}},
		{"thirds", []Share{{"a", 1}, {"b", 1}, {"c", 1}}, []Side{{1431655766, "a"}, {2863311531, "b"}, {space, "c"}}},
		{"the largest weights", []Share{{"a", maxWeight}, {"b", 1}}, []Side{{4294963002, "a"}, {space, "b"}}},
		{"nobody", []Share{{"a", 0}}, nil},
		{"nothing", nil, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := plainSides(test.shares)
			checkSides(t, got)
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestMoveSidesOfTwoBackendsMovesTheBorder(t *testing.T) {
	sides := plainSides([]Share{{"a", 90}, {"b", 10}})
	for _, weight := range []uint32{20, 50, 30, 100, 99, 0, 1, 10} {
		sides = moveSides(sides, []Share{{"a", 100 - weight}, {"b", weight}})
		if want := plainSides([]Share{{"a", 100 - weight}, {"b", weight}}); len(sides) > 2 || len(sides) != len(want) {
			t.Errorf("weight %d: sides %v, want such as %v", weight, sides, want)
		}
	}
}

// The space does not fall to pieces over time: each backend keeps a few.
func TestMoveSidesKeepsPiecesTogether(t *testing.T) {
	for _, n := range []int{2, 3, 8, 16} {
		rng := rand.New(rand.NewPCG(1, uint64(n)))
		var sides []Side
		most := 0
		for range 2000 {
			var shares []Share
			for i := range n {
				shares = append(shares, Share{fmt.Sprint(i), rng.Uint32N(101)})
			}
			sides = moveSides(sides, shares)
			most = max(most, len(sides))
		}
		if most > 4*n {
			t.Errorf("%d backends: %d sides", n, most)
		}
	}
}

// Over random edits of random rules exactly what has to move does: the sum of what
// the backends gain.
func TestMoveSidesMovesNoMoreThanItMust(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		names := make([]string, 2+rng.IntN(7))
		for i := range names {
			names[i] = fmt.Sprintf("default/v%d", i)
		}
		shares := func() []Share {
			list := make([]Share, 0, len(names))
			for _, name := range names {
				if rng.IntN(8) > 0 {
					list = append(list, Share{name, rng.Uint32N(101)})
				}
			}
			return list
		}
		sides := plainSides(shares())
		for range 100 {
			next := shares()
			got := moveSides(sides, next)
			checkSides(t, got)
			want := sizes(plainSides(next))
			has, had := sizes(got), sizes(sides)
			var least uint64
			for _, name := range names {
				if has[name] != want[name] {
					t.Fatalf("seed %d: %s has %d, want %d", seed, name, has[name], want[name])
				}
				if has[name] > had[name] {
					least += has[name] - had[name]
				}
			}
			if n := moved(sides, got); len(sides) > 0 && len(got) > 0 && n != least {
				t.Fatalf("seed %d: %d moved, %d had to: %v to %v for %v", seed, n, least, sides, got, next)
			}
			if again := moveSides(got, next); len(got) > 0 && !slices.Equal(again, got) {
				t.Fatalf("seed %d: the same weights again move %d", seed, moved(got, again))
			}
			sides = got
		}
	}
}
