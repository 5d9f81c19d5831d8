package balance

// Condition is what speaks against sending anything to a node: a set of bits, none of
// them when it is well.
type Condition uint32

// The reasons, each told by somebody else.
const (
	Down      Condition = 1 << iota // there is no connection
	Unhealthy                       // an active check says so
	Ejected                         // what its RPCs ended with
	Stalled                         // its connections have fallen silent
	Unknown                         // it is to be checked, and no check has been answered yet

	anyCondition = Down | Unhealthy | Ejected | Stalled | Unknown
	// judged are the conditions that somebody has inferred, and may be wrong about: when
	// they speak against too many at once they are not believed.
	judged = Unhealthy | Ejected
)

// The state of a node is one word, so that a pick reads it by one load: conditions in
// the low bits, then what slow start holds back.
const (
	heldShift = 8
	heldMask  = 0xff << heldShift
	// fullScale is a node that gets its whole share. A 256th is as fine as slow start is.
	fullScale = 1 << 8
)

// Condition is what speaks against the node now.
func (n *Node) Condition() Condition { return Condition(n.state.Load()) & anyCondition }

// SetCondition says that c holds, or holds no more, and reports whether that is news.
// Who has changed something calls Refresh of the pickers of the node.
func (n *Node) SetCondition(c Condition, on bool) (changed bool) {
	if c&Ejected != 0 {
		n.probe.Store(false)
	}
	if on {
		return Condition(n.state.Or(uint32(c)))&c != c
	}
	return Condition(n.state.And(^uint32(c)))&c != 0
}

// Usable tells whether the node is worth trying: nothing speaks against it.
func (n *Node) Usable() bool { return n.Condition() == 0 }

// SetUsable says whether the node can be reached. It takes effect at once.
func (n *Node) SetUsable(usable bool) { n.SetCondition(Down, !usable) }

// AllowProbe gives an ejected node one token: after the next Refresh of its picker one
// RPC goes there, whatever the others carry. A second token before that is the same
// one, and the end of the ejection takes it away.
func (n *Node) AllowProbe() { n.probe.Store(true) }

// ProbeWaits tells whether the token is there still: no RPC has gone by it.
func (n *Node) ProbeWaits() bool { return n.probe.Load() }

// takeProbe spends the token.
func (n *Node) takeProbe() bool { return n.probe.Load() && n.probe.CompareAndSwap(true, false) }

// SetScale has the node get that part of its share, 0 to 1, of what is picked by load.
// It takes effect at once.
func (n *Node) SetScale(scale float64) {
	held := uint32(fullScale-1) - uint32(min(max(scale, 0), 1)*(fullScale-1))
	for {
		old := n.state.Load()
		if n.state.CompareAndSwap(old, old&^heldMask|held<<heldShift) {
			return
		}
	}
}

// scale is the share of the node now, of fullScale; never nothing.
func (n *Node) scale() uint64 { return fullScale - uint64(n.state.Load()&heldMask)>>heldShift }

// inPart tells whether the node has only a part of its share.
func (n *Node) inPart() bool { return n.state.Load()&heldMask != 0 }
