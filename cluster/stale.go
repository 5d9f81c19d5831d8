package cluster

import (
	"context"
	"fmt"
	"time"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

const (
	// staleAfter is how long a node may have heard of nobody before it asks what was
	// deleted meanwhile: as long as deletions are told of.
	staleAfter = tombstoneFades
	// stalePatience is how long peers may take to say how they are, pieceWait how long the
	// next piece of what one has, and staleMost all of that.
	stalePatience = 5 * time.Second
	pieceWait     = 10 * time.Second
	staleMost     = time.Minute
	// maxPieces bounds the pieces of an inventory of everything.
	maxPieces = 4096
)

// staleness is whether this node was away for too long, and how far it is with asking.
type staleness struct {
	stale bool
	met   time.Time // when it first had somebody to ask, by the steady clock

	asking string // the peer that is being compared with
	id     uint64 // of the question
	until  time.Time
	told   map[uint32]bool   // the pieces that have come
	theirs map[store.ID]bool // what he has, as far as it has come
}

// judgeStaleness finds out whether this node was away for too long. As long as it is
// alone there is nobody to ask, and nothing to tell an operator.
func (e *exchange) judgeStaleness() {
	s := &e.staleness
	if s.stale || e.steps.heard.IsZero() || len(e.live) == 0 || e.wall().Sub(e.steps.heard) < staleAfter {
		return
	}
	*s = staleness{stale: true, met: e.now()}
	e.steps.since = time.Time{} // there may be much that it has not heard of
	e.queue.Reset()             // what was to be told then may be deleted by now
	e.log.Warn("this node was apart from its peers for longer than deletions are remembered: it asks what was deleted",
		"last_heard", e.steps.heard)
}

// witness is what a peer can say of deletions: what he lacks was deleted if it was not
// changed here since seq, and if he knew revisions as high as clock.
type witness struct {
	seq   uint64
	clock store.Revision // zero: as high as any
}

// witnessOf tells whether a peer can say what was deleted. One that was in step with this
// node, as both remember, had what this node had then. One that this node has never met
// can if all that was there when this node was last in step with anybody came to him.
func (e *exchange) witnessOf(p *peer) (w witness, can bool) {
	with, known := e.steps.with[p.id]
	switch last := e.steps.last; {
	case p.beaten.IsZero():
		return w, false
	case known:
		return witness{with.Seq, p.step}, !p.step.IsZero()
	case p.stale, p.since.IsZero(), last.At.IsZero(), p.since.Add(maxAhead).After(last.At):
		return w, false
	default:
		return witness{seq: last.Seq}, true
	}
}

// tickStale asks a peer that can say what was deleted. When none can, nobody knows better
// than this node.
func (e *exchange) tickStale(ctx context.Context) {
	e.judgeStaleness()
	s := &e.staleness
	switch now := e.now(); {
	case !s.stale:
		return
	case len(e.live) == 0:
		*s = staleness{stale: true, met: now}
		return
	case s.asking != "" && e.liveSet[s.asking] && now.Before(s.until):
		return
	case now.Sub(s.met) >= staleMost:
		e.refresh("no peer has said in time what it has")
		return
	}
	s.asking, s.told, s.theirs = "", nil, nil
	heardAll := true
	var best *peer
	for _, id := range e.some(e.live, len(e.live)) {
		p := e.peers[id]
		heardAll = heardAll && !p.beaten.IsZero()
		if _, can := e.witnessOf(p); can && (best == nil || best.stale && !p.stale) {
			best = p
		}
	}
	switch {
	case best != nil:
		e.askAll(best)
	case heardAll || e.now().Sub(s.met) >= stalePatience:
		e.refresh("no peer that lives can say what was deleted")
	}
}

// askAll asks a peer for everything that it has.
func (e *exchange) askAll(p *peer) {
	s := &e.staleness
	s.asking, s.id, s.until = p.id, e.rand.Uint64()|1, e.now().Add(pieceWait)
	s.told, s.theirs = map[uint32]bool{}, map[store.ID]bool{}
	e.send(p.id, &clusterv1.Message{Body: &clusterv1.Message_Compare{Compare: &clusterv1.Compare{All: true, Id: s.id}}})
}

// refresh ends being stale.
func (e *exchange) refresh(because string) {
	e.staleness = staleness{}
	e.steps.heard = e.wall()
	e.keepSteps()
	e.log.Info("this node takes part again", "because", because)
	for _, id := range e.some(e.live, directPeers) {
		e.beat(e.peers[id], false)
	}
}

// takeAll notes what a peer has, and when all of that is known forgets what was deleted.
func (e *exchange) takeAll(ctx context.Context, p *peer, i *clusterv1.Inventory) {
	s := &e.staleness
	if !s.stale || s.asking != p.id || i.Id != s.id || s.told[i.Piece] {
		return
	}
	s.until = e.now().Add(pieceWait)
	s.told[i.Piece] = true
	for _, entry := range i.Entries {
		s.theirs[nameID(entry.Name)] = true
	}
	if len(s.told) < int(i.Pieces) {
		return
	}
	if err := e.forgetDeleted(ctx, p); err != nil {
		e.log.Warn("objects that were deleted meanwhile not dropped", "error", err)
		return // anew when the time for the answer is over
	}
	e.refresh(fmt.Sprintf("it has compared %d objects with what %s has", e.snapshot.Len(""), p.id))
}

// forgetDeleted drops what the peer has had as it is here, and has not any more.
func (e *exchange) forgetDeleted(ctx context.Context, p *peer) error {
	e.merge(ctx) // what has come with the last piece
	w, can := e.witnessOf(p)
	if !can {
		return nil
	}
	e.forgetCarried(w)
	var ids []store.ID
	for _, o := range e.snapshot.All("") {
		if !e.staleness.theirs[o.ID] && w.had(o.Revision) && e.store.LastChange(o.ID) <= w.seq {
			ids = append(ids, o.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	author := store.Author{Actor: "cluster", Via: "peer"}
	if _, err := e.store.Forget(ctx, ids, author, "deleted while this node was apart from its peers"); err != nil {
		return err
	}
	e.announce(e.changes())
	return nil
}

// had tells whether he can have had a revision when he was in step.
func (w witness) had(r store.Revision) bool { return w.clock.IsZero() || r.Compare(w.clock) <= 0 }

// forgetCarried drops what the peer lacks of objects of a newer version. They are no part
// of the store, so the clock alone says what is older than the last step.
func (e *exchange) forgetCarried(w witness) {
	before := e.steps.last.At.Add(-maxAhead)
	for id := range e.carrying {
		v := e.have.versions[id]
		if !e.staleness.theirs[id] && w.had(v.revision) && time.UnixMilli(v.revision.Wall).Before(before) {
			e.dropCarried(id)
		}
	}
}
