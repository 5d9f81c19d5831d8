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
	timing timing          // written by who is timed, which is who ends a stream
	_      [cacheLine - 16]byte

	// Read by each pick, written seldom.
	weight atomic.Uint32
	state  atomic.Uint32 // conditions, and what slow start holds back
	probe  atomic.Bool   // a token, while ejected
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
