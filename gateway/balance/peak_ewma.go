package balance

import "time"

// alike is by what factor two nodes that carry nothing may differ in time and still be
// drawn by weight: less than that is the noise of their last answers.
const alike = 1.5

// typicalEvery is how long the mean of all nodes holds for those of which nothing is
// known.
const typicalEvery = 100 * time.Millisecond

// NewPeakEWMA makes a picker that prefers the node with the lowest
// time² × (open streams + 1) / weight, of all nodes up to three, else of two that are
// drawn by weight. The time is a moving average of the time to the first byte, which
// believes bad news sooner than good; a failure is bad news. It is squared because by
// the time alone one of five that takes six times as long would carry a sixth of what
// another does, and get one RPC in 145: with a little noise, the slowest hundredth.
// A node of which nothing is known is taken to be like the others.
//
// Whoever ends an RPC tells the node, by Observe.
//
// Of nodes that carry nothing it draws by weight, but not those that are clearly slower
// than the fastest.
//
// The nodes' weights are read now and not again; the slice must not change.
func NewPeakEWMA(nodes []*Node, s Settings) Picker {
	return newPicker(nodes, s, func(f field) chooser { return newPeakEWMA(f) })
}

type peakEWMA struct {
	field
	lots  lottery // as of leastRequest
	ticks func() uint32
	mean  timing // of the nodes of which something is known
}

func newPeakEWMA(f field) *peakEWMA {
	p := &peakEWMA{field: f, ticks: func() uint32 { return uint32(time.Since(epoch) / tick) }}
	if len(f.nodes) > scanLimit && f.total > 0 {
		p.lots = newLottery(f.weights, f.total)
	}
	return p
}

func (p *peakEWMA) choose(r Request, bars Condition) int {
	now := p.ticks()
	if len(p.lots) > 0 {
		if i := p.betterOfTwo(r.Avoid, bars, now); i >= 0 {
			p.nodes[i].Acquire()
			return i
		}
	}
	return p.bestOfAll(r.Avoid, bars, now)
}

// betterOfTwo draws two open candidates and returns the one of the lower cost. When it
// draws only one, that one is it; when none, -1.
func (p *peakEWMA) betterOfTwo(avoid Mask, bars Condition, now uint32) int {
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
		s, t := p.time(first, now), p.time(i, now)
		switch {
		case a+b == 0 && t*alike < s:
			return i
		case a+b > 0 && p.cost(i, b, t) < p.cost(first, a, s):
			return i
		}
		return first
	}
	return first
}

// bestOfAll acquires the node of the lowest cost, as leastRequest's does the one of
// the lowest load.
func (p *peakEWMA) bestOfAll(avoid Mask, bars Condition, now uint32) int {
	for {
		i, active := p.scan(avoid, bars, now)
		if i < 0 || p.nodes[i].active.CompareAndSwap(active, active+1) {
			return i
		}
	}
}

// scan returns the open node of the lowest cost and its streams, or -1.
func (p *peakEWMA) scan(avoid Mask, bars Condition, now uint32) (best int, active int64) {
	best = -1
	var lowest, fastest float64
	idle := true
	for i, n := range p.nodes {
		if !p.open(i, avoid, bars) {
			continue
		}
		a, t := n.active.Load(), p.time(i, now)
		idle = idle && a == 0
		if best < 0 || t < fastest {
			fastest = t
		}
		if c := p.cost(i, a, t); best < 0 || c < lowest {
			best, active, lowest = i, a, c
		}
	}
	if idle && best >= 0 {
		return p.drawFast(avoid, bars, now, alike*fastest), 0
	}
	return best, active
}

// drawFast is draw among the nodes that take no longer than most.
func (p *peakEWMA) drawFast(avoid Mask, bars Condition, now uint32, most float64) int {
	chosen, seen := -1, uint64(0)
	for i := range p.nodes {
		if !p.open(i, avoid, bars) || p.time(i, now) > most {
			continue
		}
		share := p.share(i)
		if seen += share; p.random()%seen < share {
			chosen = i
		}
	}
	return chosen
}

// cost is what a node would cost with one stream more.
func (p *peakEWMA) cost(i int, active int64, took float64) float64 {
	return took * took * float64(active+1) / float64(p.share(i))
}

// time is what a response of node i takes to begin, in nanoseconds.
func (p *peakEWMA) time(i int, now uint32) float64 {
	if t, known := p.nodes[i].timing.at(now); known {
		return t
	}
	return p.typical(now)
}

// typical is the mean of the nodes of which something is known.
func (p *peakEWMA) typical(now uint32) float64 {
	if mean, at, known := p.mean.load(); known && since(now, at) < typicalEvery {
		return mean
	}
	sum, n := 0.0, 0
	for i, node := range p.nodes {
		if t, known := node.timing.at(now); known && p.weights[i] > 0 {
			sum += t
			n++
		}
	}
	mean := float64(leastTime)
	if n > 0 {
		mean = sum / float64(n)
	}
	p.mean.word.Store(pack(mean, now))
	return mean
}
