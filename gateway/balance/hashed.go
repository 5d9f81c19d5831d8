package balance

import (
	"math"
	"math/bits"
)

// Hashing is how the nodes of RingHash and Maglev are told apart and kept from having
// too much.
type Hashing struct {
	// Names are the nodes' hashes, by Hash of what they are called everywhere: gateways
	// that know the same nodes by the same names choose alike.
	Names []uint64
	// Bound is what part of its fair share of open streams a node may have, in percent;
	// zero sets no bound. Below 100 is as 100.
	Bound int
}

// directory finds the node that a hash belongs to.
type directory interface{ find(hash uint64) int }

// hashed sends RPCs with one key to one node. When that node is barred, or has its
// bound of streams, the key belongs to the next of a sequence of nodes that is its
// own: so what one node cannot take is spread over all others, and comes back.
type hashed struct {
	leastRequest // for RPCs without a key
	directory
	names []uint64
	bound uint64 // percent; 0 = none
}

func newHashed(f field, h Hashing, make func(f field, names []uint64) directory) chooser {
	p := &hashed{leastRequest: *newLeastRequest(f), names: h.Names}
	if h.Bound > 0 {
		p.bound = uint64(max(h.Bound, 100))
	}
	if f.total > 0 {
		p.directory = make(f, h.Names)
	}
	return p
}

func (p *hashed) choose(r Request, bars Condition) int {
	if !r.Keyed || p.directory == nil {
		return p.leastRequest.choose(r, bars)
	}
	room := p.roomOf(r.Avoid, bars)
	for try := range uint64(maxDraws) {
		if i := p.find(rehash(r.Key, try)); p.open(i, r.Avoid, bars) && room.take(i) {
			return i
		}
	}
	return p.search(r, bars, &room)
}

// rehash is the hash by which a key is looked for the n-th time.
func rehash(key, try uint64) uint64 { return mix(key + try*0x9e3779b97f4a7c15) }

// search looks at every node, when the first ones of the key's sequence were all
// barred: the key belongs to the one that scores highest for it. Without one that has
// room, and that can only be because all others are in avoid, the bound does not hold.
func (p *hashed) search(r Request, bars Condition, room *room) int {
	for {
		best, withRoom := -1, false
		highest := 0.0
		for i := range p.nodes {
			if !p.open(i, r.Avoid, bars) {
				continue
			}
			fits := room.has(i)
			if withRoom && !fits {
				continue
			}
			score := p.score(r.Key, i)
			if best < 0 || fits && !withRoom || score > highest {
				best, highest, withRoom = i, score, fits
			}
		}
		switch {
		case best < 0:
			return -1
		case !withRoom:
			p.nodes[best].Acquire()
			return best
		case room.take(best):
			return best
		}
	}
}

// score is higher for one node than for all others with the probability of its weight:
// weighted rendezvous hashing.
func (p *hashed) score(key uint64, i int) float64 {
	even := (float64(mix(key^p.names[i])>>11) + 0.5) / (1 << 53) // in (0, 1)
	return float64(p.weights[i]) / -math.Log(even)
}

// room is how many streams the nodes may have, as one pick sees it.
type room struct {
	p       *hashed
	bars    Condition
	avoid   Mask
	counted bool
	streams uint64 // open on all nodes that are open, and the one that is to come
	weight  uint64 // of these nodes
}

func (p *hashed) roomOf(avoid Mask, bars Condition) room { return room{p: p, bars: bars, avoid: avoid} }

// has tells whether node i may have one stream more. One that has none always may.
func (r *room) has(i int) bool {
	return r.p.bound == 0 || r.fits(i, uint64(r.p.nodes[i].active.Load()))
}

// take acquires node i if it may have one stream more.
func (r *room) take(i int) bool {
	n := r.p.nodes[i]
	if r.p.bound == 0 {
		n.Acquire()
		return true
	}
	for {
		active := n.active.Load()
		if !r.fits(i, uint64(active)) {
			return false
		}
		if n.active.CompareAndSwap(active, active+1) {
			return true
		}
	}
}

// fits is active+1 ≤ ⌈bound × streams × weight / weights⌉, which is what is below it
// by less than one.
func (r *room) fits(i int, active uint64) bool {
	if active == 0 {
		return true
	}
	r.count()
	hi, lo := bits.Mul64(r.p.bound*r.streams, r.p.weights[i])
	leftHi, leftLo := bits.Mul64(100*active, r.weight)
	return leftHi < hi || leftHi == hi && leftLo < lo
}

// count adds up what is open. It reads one line of each node.
func (r *room) count() {
	if r.counted {
		return
	}
	r.counted, r.streams = true, 1
	for i, n := range r.p.nodes {
		if r.p.open(i, nil, r.bars) {
			r.streams += uint64(n.active.Load())
			r.weight += r.p.weights[i]
		}
	}
}
