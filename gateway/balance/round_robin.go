package balance

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
)

// NewRoundRobin makes a picker that goes round the nodes, each as often as its
// weight says: exactly so over every run of as many picks as the weights add up to
// (divided by what they have in common), all goroutines together, and spread over
// the run rather than in one go. Equal nodes take turns.
//
// The nodes' weights are read now and not again; the slice must not change.
func NewRoundRobin(nodes []*Node, s Settings) Picker {
	p := new(roundPicker)
	p.init(nodes, s, func(f field) chooser {
		c := newRoundRobin(f)
		c.start(f.random())
		return c
	})
	if alone, ok := p.chooser.(*roundRobin); ok {
		p.alone = alone
		return p
	}
	return &p.picker
}

// roundPicker is to roundRobin what leastPicker is to leastRequest.
type roundPicker struct {
	picker
	alone *roundRobin
}

func (p *roundPicker) Pick(r Request) int {
	if bars := p.bars(); bars&probeWaits == 0 {
		if i := p.alone.choose(r, bars); i >= 0 {
			return i
		}
	}
	return p.picker.Pick(r)
}

// roundRobin lays the nodes on a circle, each as long as its weight, and steps
// round it by a stride that has no divisor in common with the circumference: so it
// meets every point once in a round. The stride is near the golden section, which
// leaves the points met so far as evenly spread as any stride can.
type roundRobin struct {
	field
	ends   []uint64 // where each node's stretch ends
	stride uint64

	_     [cacheLine]byte
	steps atomic.Uint64 // one add per draw is all that picks share
	_     [cacheLine - 8]byte
}

func newRoundRobin(f field) *roundRobin {
	p := &roundRobin{field: f}
	p.reduce()
	end := uint64(0)
	for _, w := range p.weights {
		end += w
		p.ends = append(p.ends, end)
	}
	p.stride = 1
	if !p.even {
		p.stride = goldenStride(p.total)
	}
	return p
}

// start sets the first step at random, so that a fleet of gateways, or a table
// that is often replaced, does not always begin with the first node. It leaves half
// of the counter to go: past its end a round would be cut short.
func (p *roundRobin) start(random uint64) { p.steps.Store(random / 2) }

// reduce divides the weights by what they have in common, which makes a round as
// short as it can be.
func (p *roundRobin) reduce() {
	common := uint64(0)
	for _, w := range p.weights {
		common = gcd(common, w)
	}
	if common <= 1 {
		return
	}
	p.weights = slices.Clone(p.weights) // those of the field are others' too
	for i := range p.weights {
		p.weights[i] /= common
	}
	p.total /= common
}

// goldenStride is the stride near the golden section of total that spreads best.
// How evenly the points of a walk lie depends on the continued fraction of stride
// and total: the smaller its largest term, the better; the golden section itself
// has nothing but ones.
func goldenStride(total uint64) uint64 {
	const candidates = 64
	best, lowest := uint64(1), uint64(math.MaxUint64)
	first := uint64(float64(total) / math.Phi)
	for stride := max(1, first); stride < min(total, first+candidates); stride++ {
		if common, largest := euclid(total, stride); common == 1 && largest < lowest {
			best, lowest = stride, largest
		}
	}
	return best
}

func gcd(a, b uint64) uint64 {
	common, _ := euclid(a, b)
	return common
}

// euclid is the greatest common divisor of a and b, and the largest quotient on the
// way to it: the largest term of the continued fraction of a/b.
func euclid(a, b uint64) (common, largest uint64) {
	for b != 0 {
		largest = max(largest, a/b)
		a, b = b, a%b
	}
	return a, largest
}

// choose goes on to the next node that is open; the round without the others
// keeps the proportions of the rest. After a few steps in vain it draws, and in the
// last resort, which follows upon steps in vain, at once: always the same node may
// come next.
func (p *roundRobin) choose(r Request, bars Condition) int {
	if p.total == 0 {
		return -1
	}
	for k := 0; k < maxDraws && bars&lastResort == 0; k++ {
		if i := p.step(); p.open(i, r.Avoid, bars) && !p.holdsBack(i) {
			p.nodes[i].Acquire()
			return i
		}
	}
	i := p.draw(r.Avoid, bars)
	if i >= 0 {
		p.nodes[i].Acquire()
	}
	return i
}

// step is the node at the next point of the circle.
func (p *roundRobin) step() int {
	hi, lo := bits.Mul64((p.steps.Add(1)-1)%p.total, p.stride)
	point := bits.Rem64(hi, lo, p.total)
	i, _ := slices.BinarySearch(p.ends, point+1) // the first stretch that ends beyond the point
	return i
}
