package balance

import (
	"math/rand/v2"
	"strconv"
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
	return seededPicker(set, calm, leastOf)
}

func seededRoundRobin(set []*Node) Picker {
	return seededPicker(set, calm, roundOf)
}

// calm is what holds for a Backend that does not say.
var calm = Settings{Panic: 50}

// hashing names nodes 0, 1, 2 and so on.
func hashing(n, bound int) Hashing {
	h := Hashing{Bound: bound}
	for i := range n {
		h.Names = append(h.Names, nameOf(i))
	}
	return h
}

func nameOf(i int) uint64 { return Hash("10.0.0." + strconv.Itoa(i) + ":50051") }

func leastOf(f field) chooser     { return newLeastRequest(f) }
func roundOf(f field) chooser     { return newRoundRobin(f) }
func fastestOf(f field) chooser   { return newPeakEWMA(f) }
func ringHash(f field) chooser    { return newHashed(f, hashing(len(f.nodes), 0), newRing) }
func maglevHash(f field) chooser  { return newHashed(f, hashing(len(f.nodes), 0), newMaglev) }
func boundedHash(f field) chooser { return newHashed(f, hashing(len(f.nodes), 125), newMaglev) }

// manyKeys gives each RPC a key of its own.
type manyKeys struct {
	Picker
	next func() uint64
}

func (p manyKeys) Pick(r Request) int {
	r.Key, r.Keyed = p.next(), true
	return p.Picker.Pick(r)
}

// made are the pickers as others make them.
var made = []struct {
	name string
	make func([]*Node, Settings) Picker
}{
	{"LeastRequest", NewLeastRequest},
	{"RoundRobin", NewRoundRobin},
	{"PeakEWMA", NewPeakEWMA},
	{"RingHash", func(set []*Node, s Settings) Picker { return NewRingHash(set, hashing(len(set), 125), s) }},
	{"Maglev", func(set []*Node, s Settings) Picker { return NewMaglev(set, hashing(len(set), 125), s) }},
	{"Maglev without a bound", func(set []*Node, s Settings) Picker { return NewMaglev(set, hashing(len(set), 0), s) }},
}

// policies are those of which the rules for all pickers hold.
var policies = []policy{
	{name: "LeastRequest", choosers: leastOf},
	{name: "LeastRequest as it is made", whole: NewLeastRequest},
	{name: "RoundRobin", choosers: roundOf},
	{name: "RoundRobin as it is made", whole: NewRoundRobin},
	{name: "PeakEWMA", choosers: fastestOf},
	{name: "RingHash", choosers: ringHash, keyed: true, rough: true},
	{name: "RingHash without a key", choosers: ringHash},
	{name: "Maglev", choosers: maglevHash, keyed: true},
	{name: "Maglev with a bound", choosers: boundedHash, keyed: true},
}

type policy struct {
	name     string
	choosers func(field) chooser
	whole    func([]*Node, Settings) Picker // in place of choosers; not the same in each run
	keyed    bool                           // each RPC has a key of its own
	rough    bool                           // shares are those of weights only by and large
}

func (p *policy) make(set []*Node) Picker { return p.with(set, calm) }

func (p *policy) with(set []*Node, s Settings) Picker {
	if p.whole != nil {
		return p.whole(set, s)
	}
	made := seededPicker(set, s, p.choosers)
	if p.keyed {
		return manyKeys{made, seeded()}
	}
	return made
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
