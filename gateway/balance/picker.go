package balance

import "math/rand/v2"

// Picker chooses a node for one RPC. It may be used from any goroutine and
// allocates nothing.
type Picker interface {
	// Pick acquires a node and returns its index; the caller releases it when the
	// stream is over. Choosing and counting are one step, so that goroutines that
	// pick at the same time see one another's choice.
	//
	// Nodes in Avoid are never picked. Of the others, one that is not usable is
	// picked only when none is. The result is -1 when nothing is left, or when
	// there are no nodes with weight.
	Pick(r Request) int
}

// Request is what a picker is told of one RPC.
type Request struct {
	Avoid Mask   // nodes that were tried
	Key   uint64 // a hash of what RingHash and Maglev look at
	Keyed bool   // the RPC has a key
}

// field is the nodes that a picker chooses from.
type field struct {
	nodes   []*Node
	weights []uint64 // of the nodes, when the picker was made; zero is never picked
	total   uint64   // of the weights
	even    bool     // all weights are the same

	// random yields 64 random bits, from any goroutine. The runtime keeps a
	// generator per thread, so it is no place of contention.
	random func() uint64
}

func newField(nodes []*Node) field {
	f := field{nodes: nodes, weights: make([]uint64, len(nodes)), even: true, random: rand.Uint64}
	for i, n := range nodes {
		f.weights[i] = uint64(n.Weight())
		f.total += f.weights[i]
	}
	for _, w := range f.weights {
		f.even = f.even && w == f.weights[0]
	}
	return f
}

// pass is which nodes a search considers: first those that are usable, then,
// when it found none, whatever there is.
type pass bool

const (
	usableOnly pass = false
	anyNode    pass = true
)

// open tells whether node i may be picked.
func (f *field) open(i int, avoid Mask, p pass) bool {
	return f.weights[i] > 0 && !avoid.Has(i) && (p == anyNode || f.nodes[i].Usable())
}

// draw picks among the open nodes at random, each with the probability of its
// weight, and returns -1 when none is open. It looks at every node.
func (f *field) draw(avoid Mask, p pass) int {
	chosen, seen := -1, uint64(0)
	for i, w := range f.weights {
		if !f.open(i, avoid, p) {
			continue
		}
		// Of the weight seen so far node i brings this much, and takes the place of
		// the chosen one that often.
		if seen += w; f.random()%seen < w {
			chosen = i
		}
	}
	return chosen
}
