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
	// picked only when none is, and one that cannot be reached only when none can. The
	// result is -1 when nothing is left, or when there are no nodes with weight.
	Pick(r Request) int

	// Take acquires node i, for an RPC that is to go there, if it is one that Pick could
	// choose while others are usable.
	Take(i int, avoid Mask) bool

	// Refresh looks at the conditions of all nodes. It is called when one has changed:
	// what a node's own condition bars takes effect at once, what the conditions of many
	// mean (panic, zones) and a probe that is allowed, with this.
	Refresh()
}

// Request is what a picker is told of one RPC.
type Request struct {
	Avoid Mask   // nodes that were tried
	Key   uint64 // a hash of what RingHash and Maglev look at
	Keyed bool   // the RPC has a key
}

// Settings are what pickers of all policies have in common.
type Settings struct {
	// Panic is the share of nodes, in percent, that no check and no ejection speaks
	// against, below which checks and ejections are not believed. At zero they always
	// are: when they speak against all nodes, none is picked.
	Panic int
	// Local says which nodes are in the gateway's zone; nil when that is of no account.
	Local []bool
	// SpillBelow is the share of local nodes, in percent, that have to be usable for all
	// RPCs to stay local.
	SpillBelow int
}

// chooser is a policy. It acquires one of the nodes that bars does not keep from being
// picked, or returns -1 when there is none.
type chooser interface {
	choose(r Request, bars Condition) int
}

// picker is a policy with what holds for all policies.
type picker struct {
	chooser
	outlook
	zones *zones // which chooser is then; nil without any
}

func newPicker(nodes []*Node, s Settings, policy func(field) chooser) Picker {
	p := new(picker)
	p.init(nodes, s, policy)
	return p
}

// init makes choosers of all nodes, or of those of each zone.
func (p *picker) init(nodes []*Node, s Settings, policy func(field) chooser) {
	f := newField(nodes)
	p.field, p.panicBelow = f, s.Panic
	if s.Panic == 0 {
		p.always = judged
	}
	if p.zones = newZones(f, s, policy); p.zones != nil {
		p.chooser = p.zones
	} else {
		p.chooser = policy(f)
	}
	p.Refresh()
}

func (p *picker) Pick(r Request) int {
	bars := p.bars()
	if bars&probeWaits != 0 {
		if i := p.probe(r.Avoid); i >= 0 {
			return i
		}
	}
	if i := p.choose(r, bars); i >= 0 {
		return i
	}
	for _, bars := range lastResorts {
		if i := p.choose(r, bars|p.always); i >= 0 {
			return i
		}
	}
	return -1
}

// lastResorts are what bars nodes when all that are usable have been tried: first those
// are taken of whom nothing is known, then those that can be reached, whatever is thought
// of them, then those that are silent.
var lastResorts = [...]Condition{
	lastResort | judged | Down | Stalled, lastResort | Down | Stalled, lastResort | Down, lastResort,
}

func (p *picker) Take(i int, avoid Mask) bool {
	if !p.open(i, avoid, p.bars()) {
		return false
	}
	p.nodes[i].Acquire()
	return true
}

func (p *picker) Refresh() {
	p.refreshing.Lock()
	defer p.refreshing.Unlock()
	p.look()
	if p.zones != nil {
		p.zones.look(p.bars())
	}
}

// field is the nodes that a chooser chooses from.
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
	weights := make([]uint64, len(nodes))
	for i, n := range nodes {
		weights[i] = uint64(n.Weight())
	}
	return weighted(nodes, weights)
}

// weighted is a field of nodes with other weights than their own.
func weighted(nodes []*Node, weights []uint64) field {
	f := field{nodes: nodes, weights: weights, even: true, random: rand.Uint64}
	for _, w := range weights {
		f.total += w
		f.even = f.even && w == weights[0]
	}
	return f
}

// only is the field without the weight of the nodes that keep does not name.
func (f *field) only(keep func(i int) bool) field {
	weights := make([]uint64, len(f.weights))
	for i, w := range f.weights {
		if keep(i) {
			weights[i] = w
		}
	}
	part := weighted(f.nodes, weights)
	part.random = f.random
	return part
}

// open tells whether node i may be picked.
func (f *field) open(i int, avoid Mask, bars Condition) bool {
	return f.weights[i] > 0 && f.nodes[i].state.Load()&uint32(bars) == 0 && !avoid.Has(i)
}

// holdsBack tells whether node i, which has only a part of its share, is passed over
// this time.
func (f *field) holdsBack(i int) bool { return f.nodes[i].inPart() && f.refuses(i) }

func (f *field) refuses(i int) bool { return f.random()%fullScale >= f.nodes[i].scale() }

// share is the weight of node i, as far as it may have it now, in 256ths.
func (f *field) share(i int) uint64 { return f.weights[i] * f.nodes[i].scale() }

// draw picks among the open nodes at random, each with the probability of its
// share, and returns -1 when none is open. It looks at every node.
func (f *field) draw(avoid Mask, bars Condition) int {
	chosen, seen := -1, uint64(0)
	for i := range f.weights {
		if !f.open(i, avoid, bars) {
			continue
		}
		// Of the shares seen so far node i brings this much, and takes the place of the
		// chosen one that often.
		share := f.share(i)
		if seen += share; f.random()%seen < share {
			chosen = i
		}
	}
	return chosen
}
