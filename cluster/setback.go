package cluster

import (
	"context"
	"fmt"
	"time"

	"sluice/store"
)

// maxHighest bounds of how many nodes the highest revision is known.
const maxHighest = 10_000

// noteHighest takes note of what a version has seen of each node: a node that was set back
// to an earlier state is told by that what it has forgotten.
func (inv *inventory) noteHighest(seen store.Vector) {
	for node, r := range seen {
		had, known := inv.highest[node]
		if !known && len(inv.highest) >= maxHighest {
			continue
		}
		if !known || r.Compare(had) > 0 {
			inv.highest[node] = r
		}
	}
}

// recollect is told which revision of this node's a peer has seen. One that this node does
// not know says that its store was set back.
func (e *exchange) recollect(ctx context.Context, p *peer, seen store.Revision) {
	if seen.Node != e.self || !e.store.Forgot(seen) {
		return
	}
	done, err := e.store.SetBack(ctx, seen)
	switch {
	case err != nil:
		e.log.Error("this node was set back to an earlier state, and cannot take another name", "peer", p.id, "forgotten", seen, "error", err)
	case done:
		e.log.Error("this node was set back to an earlier state: what it writes from now on is that of another node, whose name it takes at its next start",
			"peer", p.id, "forgotten", seen)
	}
}

// double is that messages come in the name of a peer which another life of it has sent.
type double struct {
	life        string
	first, last time.Time // by the steady clock
}

// refuseStranger refuses a message in the name of a peer that another life of it has sent.
// A node that has just started, or joined anew, is not known by its new life for a moment:
// that is no fault of anybody's. A copy of its data directory stays a stranger.
func (e *exchange) refuseStranger(p *peer, life, known string) {
	now := e.now()
	if d := &p.double; d.life != life || now.Sub(d.last) > clashPatience {
		*d = double{life: life, first: now}
	}
	p.double.last = now
	if p.double.lasts() {
		e.refuse(p.id, &refusalError{wrongSender, fmt.Errorf("it has the life %q, and node %s the life %q; was a data directory copied?", cut(life), p.id, known)})
	}
}

func (d *double) lasts() bool { return d.last.Sub(d.first) > clashGrace }

// doubleProblems name the peers in whose names others speak.
func (e *exchange) doubleProblems() (list []string) {
	for _, id := range e.live {
		if d := &e.peers[id].double; d.lasts() && e.now().Sub(d.last) < clashPatience {
			list = append(list, fmt.Sprintf("two nodes speak as %s; was a data directory copied? Only the one that is a member is heard: stop the other, and start it with an empty data directory", id))
		}
	}
	return list
}
