package cluster

import (
	"fmt"
	"net/netip"

	"github.com/hashicorp/memberlist"
)

// maxMembers bounds the nodes that this one knows of.
const maxMembers = 1000

// delegate is what memberlist asks and tells. It is called under memberlist's locks: it
// calls nothing of it, and never waits.
type delegate struct{ s *session }

var (
	_ memberlist.Delegate         = (*delegate)(nil)
	_ memberlist.EventDelegate    = (*delegate)(nil)
	_ memberlist.AliveDelegate    = (*delegate)(nil)
	_ memberlist.MergeDelegate    = (*delegate)(nil)
	_ memberlist.ConflictDelegate = (*delegate)(nil)
)

// NodeMeta is what this node tells of itself.
func (d *delegate) NodeMeta(int) []byte { return d.s.m.meta(d.s.life).encode() }

// NotifyMsg takes a message of a peer.
func (d *delegate) NotifyMsg(message []byte) {
	switch {
	case len(message) == 0 || d.s.ctx.Err() != nil:
	case message[0] != membershipMark:
		d.s.m.hooks.Received(message)
	default:
		d.hear(message)
	}
}

func (d *delegate) hear(message []byte) {
	all, ok := decodeGoodbyes(message)
	if !ok {
		d.s.m.refused(malformed, "")
		return
	}
	d.s.hear(all)
}

// GetBroadcasts are the messages that are due: goodbyes, then those of the exchange.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	due := d.s.byes.GetBroadcasts(overhead, limit)
	for _, message := range due {
		limit -= overhead + len(message)
	}
	if limit <= overhead || d.s.ctx.Err() != nil {
		return due
	}
	return append(due, d.s.m.hooks.Broadcasts(overhead, limit)...)
}

// LocalState is told to who exchanges states with this node: who has said goodbye.
func (d *delegate) LocalState(bool) []byte {
	all := d.s.m.goodbyes()
	for {
		if state := encodeGoodbyes(all); len(state) <= goodbyeRoom {
			return state
		}
		all = all[:len(all)/2]
	}
}

// MergeRemoteState takes what LocalState is at a peer.
func (d *delegate) MergeRemoteState(state []byte, _ bool) {
	if len(state) > 0 && d.s.ctx.Err() == nil {
		d.hear(state)
	}
}

// NotifyAlive refuses what is no node of Sluice.
func (d *delegate) NotifyAlive(node *memberlist.Node) error {
	if node.Name == d.s.m.self {
		return nil // this node itself, or a conflict about it
	}
	if err := d.check(node); err != nil {
		d.s.m.refusals.add(badMember, node.Addr.String(), err.Error())
		return err
	}
	return nil
}

func (d *delegate) check(node *memberlist.Node) error {
	if !isNodeID(node.Name) {
		return fmt.Errorf("%.40q is not the name of a node", node.Name)
	}
	at, ok := addressOfNode(node)
	switch {
	case !ok || at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().IsMulticast():
		return fmt.Errorf("node %s has the address %s, which nobody can reach", node.Name, node.Address())
	case at.Addr().IsLoopback() && !d.s.at.Addr().IsLoopback():
		return fmt.Errorf("node %s tells its peers to reach it at %s, which is on its machine alone; it needs gossip-advertise", node.Name, at)
	case !d.s.m.hasRoomFor(node.Name):
		return fmt.Errorf("node %s is one more than %d, the most that are known", node.Name, maxMembers)
	}
	if _, err := decodeMeta(node.Meta); err != nil {
		return fmt.Errorf("node %s: %w", node.Name, err)
	}
	return nil
}

// NotifyMerge refuses a peer whose members are not of Sluice, before any is taken.
func (d *delegate) NotifyMerge(nodes []*memberlist.Node) error {
	for _, node := range nodes {
		if !isNodeID(node.Name) {
			return fmt.Errorf("its members are not nodes of Sluice: %.40q", node.Name)
		}
	}
	return nil
}

// NotifyJoin is told of a node that lives.
func (d *delegate) NotifyJoin(node *memberlist.Node) { d.s.m.found(d.s, node) }

// NotifyUpdate is told of a node that says something else of itself.
func (d *delegate) NotifyUpdate(node *memberlist.Node) { d.s.m.found(d.s, node) }

// NotifyLeave is told of a node that has left or is dead.
func (d *delegate) NotifyLeave(node *memberlist.Node) { d.s.m.lost(d.s, node) }

// NotifyConflict is told of two nodes with one name. The one that was there stays.
func (d *delegate) NotifyConflict(here, there *memberlist.Node) {
	d.s.m.conflict(d.s, here, there)
}

// addressOfNode is where a node says that it is.
func addressOfNode(node *memberlist.Node) (netip.AddrPort, bool) {
	addr, ok := netip.AddrFromSlice(node.Addr)
	return netip.AddrPortFrom(addr.Unmap(), node.Port), ok
}
