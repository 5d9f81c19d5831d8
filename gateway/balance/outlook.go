package balance

import (
	"sync"
	"sync/atomic"
)

// probeWaits is beside the conditions that bar nodes: an ejected node has a token. No
// node is ever in that condition, so it bars none.
const probeWaits Condition = 1 << 7

// lastResort is beside the conditions that bar nodes when the usual ones have left none.
// No node is ever in that condition, either.
const lastResort Condition = 1 << 6

// outlook is what a picker makes of the conditions of its nodes, from one Refresh to
// the next.
type outlook struct {
	field
	panicBelow int       // percent
	always     Condition // bars nodes in the last resort, too

	barred     atomic.Uint32 // conditions that bar a node while others are there, and probeWaits
	refreshing sync.Mutex    // so that no older look comes after a newer
}

// bars are the conditions that bar a node now.
func (o *outlook) bars() Condition { return Condition(o.barred.Load()) }

// look counts the nodes that are judged to be ill, and sees whether one is to be
// probed. Of those that nobody has asked yet nothing is known: as long as somebody is
// well, they are no reason to doubt what is known of the others. The caller holds
// refreshing.
func (o *outlook) look() {
	bars := anyCondition
	nodes, well, unknown := 0, 0, 0
	for i, n := range o.nodes {
		if o.weights[i] == 0 {
			continue
		}
		c := n.Condition()
		if c&Ejected != 0 && n.probe.Load() {
			bars |= probeWaits
		}
		switch {
		case c&judged != 0:
			nodes++
		case c&Unknown != 0:
			unknown++
		default:
			nodes++
			well++
		}
	}
	switch {
	case well == 0 && (nodes+unknown)*o.panicBelow > 0:
		bars &^= judged | Unknown
	case well*100 < o.panicBelow*nodes:
		bars &^= judged
	}
	o.barred.Store(uint32(bars))
}

// probe acquires an ejected node that has a token, or returns -1. Of all picks that
// come upon one token one takes it; the others see none, and go on as ever.
func (o *outlook) probe(avoid Mask) int {
	const hopeless = anyCondition &^ Ejected
	o.barred.And(^uint32(probeWaits))
	chosen, more := -1, false
	for i, n := range o.nodes {
		if o.weights[i] == 0 || !n.probe.Load() || n.Condition()&hopeless != 0 {
			continue
		}
		if chosen < 0 && !avoid.Has(i) && n.takeProbe() {
			chosen = i
			continue
		}
		more = true
	}
	if more {
		o.barred.Or(uint32(probeWaits))
	}
	if chosen >= 0 {
		o.nodes[chosen].Acquire()
	}
	return chosen
}
