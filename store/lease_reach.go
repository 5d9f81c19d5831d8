package store

import (
	"context"
	"time"
)

const (
	// maxReaching bounds the endpoints that are asked at a time whether they are there.
	maxReaching = 32
	// reachTime is how long one is waited for.
	reachTime = 3 * time.Second
	// reachAgain is how long an endpoint that is there has peace at least, though nobody
	// renews its lease.
	reachAgain = 10 * time.Second
	// maxSpared is how many more leases an endpoint has that is there, and of which the
	// renewals came by a peer: these may be lost on their way, but not for ever.
	maxSpared = 2
)

// asks tells whether a lease that is over ends only when its endpoint cannot be reached:
// nobody has renewed it since this node looks after it, since nobody may have known where
// to, or who does so may not get through to this node. The caller holds mu.
func (l *Leases) asks(known *lease) bool {
	doubted := known.inherited || known.passed && known.spared < maxSpared
	return doubted && !known.unreached && l.opts.Reach != nil
}

// doubtful are the registrations whose endpoints are to be asked now: no more at a time
// than maxReaching, the others when one of these has answered. reach is to be called for
// each.
func (l *Leases) doubtful() (ids []ID) {
	now := l.opts.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, known := range l.leases {
		if l.reaching == maxReaching {
			break
		}
		if known.mine && known.holders == 0 && !known.until.After(now) && !known.asking && l.asks(known) {
			known.asking = true
			l.reaching++
			ids = append(ids, id)
		}
	}
	return ids
}

// reach finds out whether an endpoint is there. Who is, stays, and is asked again.
func (l *Leases) reach(ctx context.Context, id ID) {
	asking, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	var term time.Duration
	there := false
	if o, found := l.store.Snapshot().Get(id); found {
		r := o.Resource.(*Registration)
		term = l.store.Snapshot().term(o)
		there = l.opts.Reach(asking, r.backend(), r.Spec.Address)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reaching--
	known := l.leases[id]
	if known == nil || !known.asking {
		return
	}
	known.asking = false
	switch {
	case ctx.Err() != nil || known.until.After(l.opts.Now()): // nobody waited, or it was renewed meanwhile
	case there:
		known.spared++
		known.until = l.opts.Now().Add(max(term, reachAgain))
	default:
		known.unreached = true
	}
	l.hurry()
}
