package balance

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// nodes makes one node per weight.
func nodes(weights ...uint32) []*Node {
	set := make([]*Node, len(weights))
	for i, w := range weights {
		set[i] = new(Node)
		set[i].SetWeight(w)
	}
	return set
}

// seeded is a source of randomness for one goroutine that is the same in each run.
func seeded() func() uint64 { return rand.New(rand.NewPCG(1, 2)).Uint64 }

// seededPicker is a picker of a policy whose choices are the same in each run.
func seededPicker(set []*Node, s Settings, policy func(field) chooser) Picker {
	random := seeded()
	return newPicker(set, s, func(f field) chooser {
		f.random = random
		return policy(f)
	})
}

func seededLeastRequest(set []*Node) Picker {
	return seededPicker(set, calm, func(f field) chooser { return newLeastRequest(f) })
}

func seededRoundRobin(set []*Node) Picker {
	return seededPicker(set, calm, func(f field) chooser { return newRoundRobin(f) })
}

// calm is what holds for a Backend that does not say.
var calm = Settings{Panic: 50}

// policies are the pickers of which the rules for all pickers hold.
var policies = []struct {
	name string
	make func([]*Node) Picker
}{
	{"LeastRequest", seededLeastRequest},
	{"RoundRobin", seededRoundRobin},
}

func down(set []*Node, which ...int) {
	for _, i := range which {
		set[i].SetUsable(false)
	}
}

func maskOf(which ...int) Mask {
	var m Mask
	for _, i := range which {
		m = m.With(i)
	}
	return m
}

// sequential picks n times, one RPC after the other, and counts where they went.
func sequential(t *testing.T, p Picker, set []*Node, avoid Mask, n int) []int {
	t.Helper()
	counts := make([]int, len(set))
	for range n {
		i := p.Pick(Request{Avoid: avoid})
		if i < 0 {
			t.Fatalf("nothing picked of %d nodes", len(set))
		}
		counts[i]++
		set[i].Release()
	}
	return counts
}

// streams opens n streams from several goroutines at once and leaves them open.
func streams(p Picker, goroutines, n int) {
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for k := g; k < n; k += goroutines {
				p.Pick(Request{})
			}
		})
	}
	wg.Wait()
}

func active(set []*Node) []int {
	counts := make([]int, len(set))
	for i, n := range set {
		counts[i] = n.Active()
	}
	return counts
}

func within(got, want, by int) bool { return got >= want-by && got <= want+by }
