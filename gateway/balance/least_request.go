package balance

const (
	// scanLimit is the largest set of which every node is looked at. Two random
	// choices out of two or three too often are the two busier ones: out of two
	// they pick the busier in a quarter of all cases.
	scanLimit = 3

	// maxDraws bounds the search for two candidates among nodes that may be
	// unusable. With half of them down, one pick in 28 runs out of draws.
	maxDraws = 8
)

// NewLeastRequest makes a picker that prefers the node with the lowest
// (open streams + 1) / weight. Up to three nodes it compares them all, and never
// lets two equal nodes differ by more than one stream; of more, it compares two
// that are drawn at random, each with the probability of its weight (P2C).
//
// Of nodes that carry nothing it draws by weight: by the formula alone a service
// with one RPC at a time would send them all to the heaviest.
//
// The nodes' weights are read now and not again; the slice must not change.
func NewLeastRequest(nodes []*Node, s Settings) Picker {
	p := new(leastPicker)
	p.init(nodes, s, func(f field) chooser { return newLeastRequest(f) })
	if alone, ok := p.chooser.(*leastRequest); ok {
		p.alone = alone
		return p
	}
	return &p.picker
}

// leastPicker is the picker that nearly all RPCs meet: without zones. It does without a
// call through an interface, as long as nothing is out of the ordinary.
type leastPicker struct {
	picker
	alone *leastRequest // the chooser
}

func (p *leastPicker) Pick(r Request) int {
	if bars := p.bars(); bars&probeWaits == 0 {
		if i := p.alone.choose(r, bars); i >= 0 {
			return i
		}
	}
	return p.picker.Pick(r)
}

type leastRequest struct {
	field
	lots lottery // only beyond scanLimit, and with weight
}

func newLeastRequest(f field) *leastRequest {
	p := &leastRequest{field: f}
	if len(f.nodes) > scanLimit && f.total > 0 {
		p.lots = newLottery(f.weights, f.total)
	}
	return p
}

func (p *leastRequest) choose(r Request, bars Condition) int {
	if len(p.lots) > 0 {
		if i := p.betterOfTwo(r.Avoid, bars); i >= 0 {
			p.nodes[i].Acquire()
			return i
		}
	}
	return p.bestOfAll(r.Avoid, bars)
}

// betterOfTwo draws two open candidates and returns the one with less to do, the
// first one when both are idle. When it draws only one, that one is it; when
// none, -1.
func (p *leastRequest) betterOfTwo(avoid Mask, bars Condition) int {
	first := -1
	for range maxDraws {
		i := p.lots.draw(p.random())
		if i == first || !p.open(i, avoid, bars) || p.holdsBack(i) {
			continue
		}
		if first < 0 {
			first = i
			continue
		}
		a, b := p.nodes[first].active.Load(), p.nodes[i].active.Load()
		if a+b > 0 && p.load(i, b).less(p.load(first, a)) {
			return i
		}
		return first
	}
	return first
}

// bestOfAll acquires the node with the least to do. It counts the stream only if
// nobody has changed that node since it was compared; the others can only have
// become busier, or freer by a stream that has just ended. Whoever fails has been
// overtaken by one who did not, so somebody always goes on.
func (p *leastRequest) bestOfAll(avoid Mask, bars Condition) int {
	for {
		i, active := p.scan(avoid, bars)
		if i < 0 || p.nodes[i].active.CompareAndSwap(active, active+1) {
			return i
		}
	}
}

// scan returns the open node of the lowest load and its streams, or -1. Equals
// are chosen among at random.
func (p *leastRequest) scan(avoid Mask, bars Condition) (best int, active int64) {
	best = -1
	var lowest load
	var equals uint64
	idle, even := true, p.even
	for i, n := range p.nodes {
		if !p.open(i, avoid, bars) {
			continue
		}
		a := n.active.Load()
		idle = idle && a == 0
		even = even && !n.inPart()
		l := p.load(i, a)
		switch {
		case best < 0 || l.less(lowest):
			best, active, lowest, equals = i, a, l, 1
		case !lowest.less(l):
			if equals++; p.random()%equals == 0 {
				best, active = i, a
			}
		}
	}
	if idle && !even && best >= 0 {
		// With streams on the node by now, the swap will notice; and when none is open
		// any more, there is none.
		return p.draw(avoid, bars), 0
	}
	return best, active
}

// load is what a node would carry with one stream more, per share: a fraction, so
// that comparing needs no division.
type load struct{ streams, share uint64 }

func (p *leastRequest) load(i int, active int64) load {
	return load{uint64(active) + 1, p.share(i)}
}

func (l load) less(than load) bool { return l.streams*than.share < than.streams*l.share }
