package balance

import "sync/atomic"

// cacheLine is the unit, in bytes, in which cores take memory from one another,
// on amd64 and on most arm64.
const cacheLine = 64

// Node is what a picker sees of an endpoint; the endpoint embeds it. The zero
// Node is usable, carries nothing and has weight zero. All methods may be called
// from any goroutine.
type Node struct {
	_      [cacheLine]byte // what the embedding type holds before us is not ours to slow down
	active atomic.Int64    // streams that are open on the node
	_      [cacheLine - 8]byte

	// Read by each pick, written seldom.
	weight atomic.Uint32
	down   atomic.Bool
}

// Active is how many streams are open on the node.
func (n *Node) Active() int { return int(n.active.Load()) }

// Acquire counts one more stream on the node. Pick has done it for the node it
// returns.
func (n *Node) Acquire() { n.active.Add(1) }

// Release takes one stream off again: once for each Acquire and each Pick.
func (n *Node) Release() {
	if n.active.Add(-1) < 0 {
		panic("BUG: a stream was released twice")
	}
}

// Weight is the node's share relative to that of the others.
func (n *Node) Weight() uint32 { return n.weight.Load() }

// SetWeight takes effect with the next picker that is made of the node. A node of
// weight zero is never picked.
func (n *Node) SetWeight(w uint32) { n.weight.Store(w) }

// Usable tells whether the node is worth trying.
func (n *Node) Usable() bool { return !n.down.Load() }

// SetUsable takes effect at once. A node that is not usable is picked only when no
// other can be.
func (n *Node) SetUsable(usable bool) { n.down.Store(!usable) }
