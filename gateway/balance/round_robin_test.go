package balance

import (
	"math"
	"slices"
	"sync"
	"testing"
)

func TestRoundRobinTakesTurnsOfEquals(t *testing.T) {
	set := nodes(10, 10, 10)
	p := newRoundRobin(newField(set))
	p.start(8) // the fifth step comes first
	var got []int
	for range 7 {
		got = append(got, p.choose(Request{}, anyCondition))
	}
	if want := []int{1, 2, 0, 1, 2, 0, 1}; !slices.Equal(got, want) {
		t.Errorf("turns %v, want %v", got, want)
	}
}

func TestRoundRobinIsExactOverEveryRound(t *testing.T) {
	for _, tc := range []struct {
		name    string
		weights []uint32
		round   int
	}{
		{"equal", []uint32{7, 7, 7}, 3},
		{"one heavy", []uint32{5, 1, 1}, 7},
		{"canary endpoint", []uint32{90, 10}, 10},
		{"percentages", []uint32{47, 33, 20, 0}, 100},
		{"long", []uint32{1000, 999, 1}, 2000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set := nodes(tc.weights...)
			p := seededRoundRobin(set)
			var sum int
			for _, w := range tc.weights {
				sum += int(w)
			}
			var last []int // the picks of the last round
			counts := make([]int, len(set))
			for k := range 3 * tc.round {
				i := p.Pick(Request{})
				last = append(last, i)
				counts[i]++
				if len(last) > tc.round {
					counts[last[0]]--
					last = last[1:]
				}
				if len(last) < tc.round {
					continue
				}
				for i, w := range tc.weights {
					if counts[i]*sum != int(w)*tc.round {
						t.Fatalf("the %d picks up to the %dth went %v, want shares %v", tc.round, k, counts, tc.weights)
					}
				}
			}
		})
	}
}

// Within a round, too, no node is ever far from its share, and a heavy node is not
// picked in one go.
func TestRoundRobinSpreadsEachRound(t *testing.T) {
	for _, weights := range [][]uint32{{5, 1, 1}, {90, 10}, {50, 30, 20}, {97, 1, 1, 1}, {1000, 999, 1}, {3, 3, 2, 2, 1}} {
		set := nodes(weights...)
		p := seededRoundRobin(set)
		sum := 0.0
		for _, w := range weights {
			sum += float64(w)
		}
		counts := make([]float64, len(set))
		for k := range int(sum) {
			counts[p.Pick(Request{})]++
			for i, w := range weights {
				share := float64(w) / sum * float64(k+1)
				if math.Abs(counts[i]-share) > 4 {
					t.Fatalf("weights %v: after %d picks %v, node %d is more than 4 off its share", weights, k+1, counts, i)
				}
			}
		}
	}
}

func TestRoundRobinIsExactAcrossGoroutines(t *testing.T) {
	set := nodes(90, 10)
	streams(NewRoundRobin(set, calm), 8, 10000)
	if got := active(set); !slices.Equal(got, []int{9000, 1000}) {
		t.Errorf("10000 picks went %v, want 9000 and 1000", got)
	}
}

func TestRoundRobinTakesExtremeWeights(t *testing.T) {
	weights := slices.Repeat([]uint32{math.MaxUint32, math.MaxUint32 - 1}, 500)
	set := nodes(weights...)
	p := NewRoundRobin(set, calm)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 5000 {
				set[p.Pick(Request{})].Release()
			}
		})
	}
	wg.Wait()
	if got := active(set); slices.Max(got) != 0 {
		t.Errorf("%v streams are left of none", got)
	}
}
