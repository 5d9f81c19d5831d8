package store

import (
	"context"
	"sync"
	"time"
)

// Run ends the registrations whose lease is over, until ctx is done. It waits for nobody
// but the disk: whether an endpoint can be reached is found out beside it.
func (l *Leases) Run(ctx context.Context) error {
	var asking sync.WaitGroup // whether endpoints can be reached
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.Reconsider() // peers may not have been known when the leases were made
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		snap := l.store.Snapshot()
		l.follow(snap)
		timer.Stop() // it may not have fired yet
		next := earlier(l.end(ctx), l.forward())
		for _, id := range l.doubtful() {
			asking.Go(func() { l.reach(ctx, id) })
		}
		if !next.IsZero() {
			timer.Reset(max(next.Sub(l.opts.Now()), time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.store.done:
			return ErrClosed
		case <-snap.superseded:
		case <-l.wake:
		case <-timer.C:
		}
	}
}

// earlier is the earlier of two times; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// hurry has Run look at the leases.
func (l *Leases) hurry() {
	select {
	case l.wake <- struct{}{}:
	default: // it will
	}
}

// follow finds out who looks after the leases of registrations that are new here, as all
// are after a start, or have changed, and forgets those of what is gone. When who lives
// has changed, that is asked of all.
func (l *Leases) follow(snap *Snapshot) {
	list := snap.live[registrations]
	unsettled, changed := l.unsettled(list)
	if !changed {
		return
	}
	mine := make([]bool, len(unsettled))
	for i, o := range unsettled { // without mu: peers may have locks of their own
		mine[i] = l.steward(o) == l.store.Node()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, o := range unsettled {
		l.settle(o, mine[i])
	}
	for id := range l.leases {
		if _, found := search(list, id); !found {
			// One that was made since snap is found in the snapshot after it.
			if _, now := l.store.Snapshot().Get(id); !now {
				delete(l.leases, id)
			}
		}
	}
}

// unsettled are the registrations of which it is to be found out who looks after them;
// changed tells whether anything has changed since it was called last.
func (l *Leases) unsettled(list []*Object) (unsettled []*Object, changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.reconsider
	l.reconsider = false
	if !all && len(list) == len(l.followed) && (len(list) == 0 || &list[0] == &l.followed[0]) {
		return nil, false
	}
	l.followed = list
	for _, o := range list {
		if known := l.leases[o.ID]; all || known == nil || known.of != o.Revision {
			unsettled = append(unsettled, o)
		}
	}
	if all {
		l.doubtPassed()
	}
	return unsettled, true
}

// settle notes whether this node looks after a lease. Who begins to gives it a whole one.
// The caller holds mu.
func (l *Leases) settle(o *Object, mine bool) {
	known := l.leases[o.ID]
	if known == nil {
		known = &lease{}
		l.leases[o.ID] = known
	}
	if o.Revision.Compare(known.of) < 0 {
		return // it has been registered anew since o was looked at
	}
	if mine && !known.mine {
		known.until = l.opts.Now().Add(l.store.Snapshot().term(o))
		known.inherited, known.unreached = true, false
	}
	known.mine, known.of = mine, o.Revision
}

// end ends what is over, all of it in one transaction. It returns when to look again,
// zero for not before something changes.
func (l *Leases) end(ctx context.Context) time.Time {
	if due, next := l.due(false); len(due) == 0 {
		return next
	}
	if l.begin(ctx) != nil {
		return time.Time{} // ctx is done, and with it Run
	}
	defer l.done()
	due, next := l.due(true) // some may have been renewed meanwhile
	ended, err := l.bury(ctx, due)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		for _, id := range due {
			l.leases[id].ending = false
		}
		if ctx.Err() == nil {
			l.opts.Log.Warn("registrations not ended", "leases over", len(due), "error", err)
		}
		return l.opts.Now().Add(leaseRetry)
	}
	for _, id := range due { // those that were left have passed to a peer, and nobody has come to say so yet
		known := l.leases[id]
		known.ending, known.mine = false, false
	}
	l.forget(ended)
	return next
}

// forget drops the leases that have ended, and tells of some. The caller holds mu.
func (l *Leases) forget(ended []ID) {
	for i, id := range ended {
		if i < maxLeaseLines {
			l.opts.Log.Info("registration not renewed", "registration", id.Key())
		}
		delete(l.leases, id)
	}
	if more := len(ended) - maxLeaseLines; more > 0 {
		l.opts.Log.Info("further registrations not renewed", "registrations", more)
	}
}

// bury deletes those of the registrations that this node still looks after.
func (l *Leases) bury(ctx context.Context, due []ID) (ended []ID, err error) {
	txn := &Txn{Author: Author{Actor: leaseActor, Reason: "the lease was over"}}
	_, err = l.store.transact(ctx, txn, func(p *plan) error {
		for _, id := range due {
			o := p.current(id)
			switch {
			case !o.live():
			case l.steward(o) != l.store.Node():
				continue
			default: // whoever is said to own it: one that cannot be ended would keep all
				p.edit(id).bury()
			}
			ended = append(ended, id)
		}
		return nil
	})
	return ended, err
}

// due are the registrations whose lease is over, marked as ending if mark says so, and
// when the next one is, zero for never.
func (l *Leases) due(mark bool) (ids []ID, next time.Time) {
	now := l.opts.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, known := range l.leases {
		switch {
		case !known.mine || known.holders > 0:
		case known.until.After(now):
			next = earlier(next, known.until)
		case !l.asks(known):
			ids = append(ids, id)
			known.ending = mark
		}
	}
	return ids, next
}
