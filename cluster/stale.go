package cluster

import (
	"context"
	"time"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

const (
	// staleAfter is how long a node may have been apart from all others before it asks
	// what was deleted meanwhile: the lifetime of tombstones.
	staleAfter = 24 * time.Hour
	// stepRecords has one row, stepKey: when this node last had what a peer had.
	stepRecords = "cluster.step"
	stepKey     = "last"
	// stepEvery is how often that is written down, and stepSoon when something has changed
	// since: what was changed before it was in step is told by it from what was later.
	stepEvery = 10 * time.Minute
	stepSoon  = 10 * time.Second
	// stalePatience is how long an inventory of everything may take to come.
	stalePatience = 10 * time.Second
)

// staleness is whether this node was apart for too long, and how far it is with asking.
type staleness struct {
	stale   bool
	step    time.Time // when it was last in step with a peer, by the wall clock; zero means never
	written time.Time // what of it is written down
	seq     uint64    // of the store, at that moment

	asking string // the peer that is being compared with
	until  time.Time
	theirs map[store.ID]bool // what it has, as far as it has said
}

// rememberStep reads when this node was last in step.
func (e *exchange) rememberStep() {
	value, ok, err := e.store.Records(stepRecords).Get(stepKey)
	if err != nil {
		e.log.Warn("time of the last exchange not read", "error", err)
	}
	if ok && e.staleness.step.UnmarshalText(value) == nil {
		e.staleness.written = e.staleness.step
	}
}

// inStep notes that a peer has what this node has.
func (e *exchange) inStep(context.Context) {
	s := &e.staleness
	if s.stale {
		return
	}
	s.step = e.wall()
	pause := stepEvery
	if s.seq != e.snapshot.Seq() {
		pause = stepSoon
	}
	if s.step.Sub(s.written).Abs() < pause {
		return
	}
	s.written, s.seq = s.step, e.snapshot.Seq()
	text, err := s.step.MarshalText()
	if err == nil {
		err = e.store.Records(stepRecords).Put(stepKey, text)
	}
	if err != nil {
		e.log.Warn("time of the last exchange not kept", "error", err)
	}
}

// judgeStaleness finds out whether this node was apart for too long. As long as it is
// alone there is nobody to ask, and nothing to tell an operator.
func (e *exchange) judgeStaleness() {
	s := &e.staleness
	if s.stale || s.step.IsZero() || len(e.live) == 0 || e.wall().Sub(s.step) < staleAfter {
		return
	}
	s.stale = true
	e.log.Warn("this node was apart from its peers for longer than deletions are remembered: it asks what was deleted",
		"last_in_step", s.step)
}

// tickStale asks a peer that was not apart what it has; when all were, nobody knows
// better than this node.
func (e *exchange) tickStale(ctx context.Context) {
	e.judgeStaleness()
	s := &e.staleness
	if !s.stale || s.asking != "" && e.liveSet[s.asking] && e.now().Before(s.until) {
		return
	}
	s.asking, s.theirs = "", nil
	heardAll := len(e.live) > 0
	for _, id := range e.some(e.live, len(e.live)) {
		p := e.peers[id]
		if p.beaten.IsZero() {
			heardAll = false
			continue
		}
		if !p.stale {
			s.asking, s.until, s.theirs = id, e.now().Add(stalePatience), map[store.ID]bool{}
			e.send(id, &clusterv1.Message{Body: &clusterv1.Message_Compare{Compare: &clusterv1.Compare{All: true}}})
			return
		}
	}
	if heardAll {
		e.refresh(ctx, "all peers were apart as well")
	}
}

// refresh ends being stale.
func (e *exchange) refresh(ctx context.Context, because string) {
	e.staleness.stale, e.staleness.asking, e.staleness.theirs = false, "", nil
	e.staleness.written = time.Time{}
	e.inStep(ctx)
	e.log.Info("this node takes part again", "because", because)
	for _, id := range e.some(e.live, directPeers) {
		e.beat(e.peers[id], false)
	}
}

// takeAll notes what a peer has, and when that is all forgets what was deleted.
func (e *exchange) takeAll(ctx context.Context, p *peer, i *clusterv1.Inventory) {
	s := &e.staleness
	if !s.stale || s.asking != p.id {
		return
	}
	s.until = e.now().Add(stalePatience)
	for _, entry := range i.Entries {
		s.theirs[nameID(entry.Name)] = true
	}
	if !i.Last {
		return
	}
	if err := e.forgetDeleted(ctx); err != nil {
		e.log.Warn("objects that were deleted meanwhile not dropped", "error", err)
		s.asking = "" // with the next tick again
		return
	}
	e.refresh(ctx, "it has compared with "+p.id)
}

// forgetDeleted drops what the peer lacks and what was changed here before this node was
// last in step: the peer had it then, and has not any more.
func (e *exchange) forgetDeleted(ctx context.Context) error {
	var ids []store.ID
	for _, o := range append(e.snapshot.All(""), e.snapshot.Tombstones()...) {
		if !e.staleness.theirs[o.ID] && !o.Changed.After(e.staleness.step) {
			ids = append(ids, o.ID)
		}
	}
	for id := range e.carrying {
		if v := e.have.versions[id]; !e.staleness.theirs[id] && !time.UnixMilli(v.revision.Wall).After(e.staleness.step) {
			e.dropCarried(id)
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
