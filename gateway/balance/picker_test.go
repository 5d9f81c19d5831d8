package balance

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// The rules that hold whatever the policy: which nodes may be picked at all.
func TestPickerSkipsWhatItMay(t *testing.T) {
	for _, tc := range []struct {
		name    string
		weights []uint32
		down    []int
		avoid   Mask
		want    []int // the nodes that are picked, each of them at least once; none: -1
	}{
		{"no nodes", nil, nil, nil, nil},
		{"one node", []uint32{1}, nil, nil, []int{0}},
		{"one node, down", []uint32{1}, []int{0}, nil, []int{0}},
		{"one node, avoided", []uint32{1}, nil, maskOf(0), nil},
		{"one node, no weight", []uint32{0}, nil, nil, nil},
		{"two nodes", []uint32{1, 1}, nil, nil, []int{0, 1}},
		{"two nodes, one down", []uint32{1, 1}, []int{0}, nil, []int{1}},
		{"two nodes, one avoided", []uint32{1, 1}, nil, maskOf(1), []int{0}},
		{"two nodes, both down", []uint32{1, 1}, []int{0, 1}, nil, []int{0, 1}},
		{"two nodes, both avoided", []uint32{1, 1}, nil, maskOf(0, 1), nil},
		{"two nodes, one avoided, the other down", []uint32{1, 1}, []int{0}, maskOf(1), []int{0}},
		{"two nodes, one without weight", []uint32{1, 0}, nil, nil, []int{0}},
		{"two nodes, only the one without weight up", []uint32{1, 0}, []int{0}, nil, []int{0}},
		{"two nodes, only the one without weight left", []uint32{1, 0}, nil, maskOf(0), nil},
		{"two nodes, no weight", []uint32{0, 0}, nil, nil, nil},
		{"five nodes", []uint32{1, 1, 1, 1, 1}, nil, nil, []int{0, 1, 2, 3, 4}},
		{"five nodes, two down", []uint32{1, 1, 1, 1, 1}, []int{1, 3}, nil, []int{0, 2, 4}},
		{"five nodes, four down", []uint32{1, 1, 1, 1, 1}, []int{0, 1, 2, 3}, nil, []int{4}},
		{"five nodes, all down", []uint32{1, 1, 1, 1, 1}, []int{0, 1, 2, 3, 4}, nil, []int{0, 1, 2, 3, 4}},
		{"five nodes, all down, one avoided", []uint32{1, 1, 1, 1, 1}, []int{0, 1, 2, 3, 4}, maskOf(2), []int{0, 1, 3, 4}},
		{"five nodes, four avoided", []uint32{1, 1, 1, 1, 1}, nil, maskOf(0, 1, 2, 4), []int{3}},
		{"five nodes, all avoided", []uint32{1, 1, 1, 1, 1}, nil, maskOf(0, 1, 2, 3, 4), nil},
		{"five nodes, weights differ", []uint32{5, 0, 3, 0, 1}, nil, nil, []int{0, 2, 4}},
		{"five nodes, the heavy one down", []uint32{1000000, 1, 1, 0, 1}, []int{0}, nil, []int{1, 2, 4}},
		{"five nodes, no weight", []uint32{0, 0, 0, 0, 0}, []int{1}, nil, nil},
	} {
		for _, policy := range policies {
			t.Run(tc.name+"/"+policy.name, func(t *testing.T) {
				set := nodes(tc.weights...)
				p := policy.make(set)
				down(set, tc.down...) // after the picker was made: it takes effect at once
				if got := picked(p, set, tc.avoid); !slices.Equal(got, tc.want) {
					t.Errorf("picked %v, want %v", got, tc.want)
				}
			})
		}
	}
}

// picked is which nodes 1,000 picks return, in order.
func picked(p Picker, set []*Node, avoid Mask) []int {
	var which []int
	for range 1000 {
		i := p.Pick(Request{Avoid: avoid})
		if i < 0 {
			continue
		}
		set[i].Release()
		if at, found := slices.BinarySearch(which, i); !found {
			which = slices.Insert(which, at, i)
		}
	}
	return which
}

// One RPC after the other: nothing is ever busy, and weight alone decides.
func TestPickerSharesByWeightWhenIdle(t *testing.T) {
	for _, tc := range []struct {
		name    string
		weights []uint32
		down    []int
		want    []int // of 12,000
	}{
		{"two equal", []uint32{3, 3}, nil, []int{6000, 6000}},
		{"three equal", []uint32{1, 1, 1}, nil, []int{4000, 4000, 4000}},
		{"canary endpoint", []uint32{90, 10}, nil, []int{10800, 1200}},
		{"three unequal", []uint32{3, 2, 1}, nil, []int{6000, 4000, 2000}},
		{"three unequal, one down", []uint32{3, 2, 1}, []int{0}, []int{0, 8000, 4000}},
		{"six equal", []uint32{1, 1, 1, 1, 1, 1}, nil, []int{2000, 2000, 2000, 2000, 2000, 2000}},
		{"four unequal", []uint32{10, 20, 30, 0}, nil, []int{2000, 4000, 6000, 0}},
		{"five unequal, two down", []uint32{1, 2, 3, 4, 5}, []int{1, 4}, []int{1500, 0, 4500, 6000, 0}},
	} {
		for _, policy := range policies {
			t.Run(tc.name+"/"+policy.name, func(t *testing.T) {
				if policy.rough {
					t.Skip("shares are not exact")
				}
				set := nodes(tc.weights...)
				p := policy.make(set)
				down(set, tc.down...)
				got := sequential(t, p, set, nil, 12000)
				for i := range got {
					// Five times the standard deviation of the fairest coin.
					if !within(got[i], tc.want[i], 274) {
						t.Errorf("picked %v, want %v", got, tc.want)
						break
					}
				}
			})
		}
	}
}

func TestPickerAcquiresTheNodeItReturns(t *testing.T) {
	for _, policy := range policies {
		for _, n := range []int{1, 2, 3, 4, 70} {
			set := nodes(slices.Repeat([]uint32{1}, n)...)
			p := policy.make(set)
			counts := make([]int, n)
			for range 50 {
				counts[p.Pick(Request{})]++
			}
			if got := active(set); !slices.Equal(got, counts) {
				t.Errorf("%s of %d: %v streams, picked %v", policy.name, n, got, counts)
			}
		}
	}
}

func TestPickerAllocatesNothing(t *testing.T) {
	avoid := maskOf(1)
	for _, policy := range policies {
		for _, weights := range [][]uint32{{1}, {1, 1}, {3, 2, 1}, {1, 2, 3, 4, 5}} {
			set := nodes(weights...)
			p := policy.make(set)
			n := testing.AllocsPerRun(1000, func() {
				if i := p.Pick(Request{Avoid: avoid}); i >= 0 {
					set[i].Release()
				}
			})
			if n != 0 {
				t.Errorf("%s of %d: %v allocations per pick, want none", policy.name, len(set), n)
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, policy := range made {
		for _, n := range []int{1, 2, 3, 10, 1000} {
			b.Run(fmt.Sprintf("%s/%d", policy.name, n), func(b *testing.B) {
				set := nodes(slices.Repeat([]uint32{1}, n)...)
				for _, node := range set {
					node.Observe(epoch, time.Millisecond)
				}
				p := policy.make(set, calm)
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					r := Request{Keyed: true}
					for pb.Next() {
						r.Key++
						set[p.Pick(r)].Release()
					}
				})
			})
		}
	}
}

// What a change of endpoints costs once.
func BenchmarkDirectory(b *testing.B) {
	for _, d := range directories {
		for _, n := range []int{3, 100, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", d.name, n), func(b *testing.B) {
				f, names := newField(nodes(slices.Repeat([]uint32{1}, n)...)), hashing(n, 0).Names
				for b.Loop() {
					d.make(f, names)
				}
			})
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	set := nodes(1)
	now := epoch
	for b.Loop() {
		now = now.Add(100 * time.Microsecond)
		set[0].Observe(now, time.Millisecond)
	}
}

func BenchmarkRefresh(b *testing.B) {
	set := nodes(slices.Repeat([]uint32{1}, 1000)...)
	p := NewLeastRequest(set, calm)
	for b.Loop() {
		p.Refresh()
	}
}
