package store

import (
	"errors"
	"time"
)

// leaseActor is the author of what Leases do by themselves.
const leaseActor = "lease"

// StreamEnded is the reason for which a registration is ended whose process has ended the
// stream that kept it. It speaks for that stream alone: a process that is being replaced may
// be kept at another node by then.
const StreamEnded = "the process has ended its stream"

// endedByLease tells whether an object is the tombstone of a registration whose lease was
// over, which nobody has wished. An account of the same name writes by some way.
func endedByLease(o *Object) bool {
	return o.Deleted && o.ID.Kind == RegistrationKind && o.Author.Actor == leaseActor && o.Author.Via == ""
}

func endedByStream(o *Object) bool {
	return o.Deleted && o.ID.Kind == RegistrationKind && o.Author.Reason == StreamEnded
}

// ErrNotNow refuses that a registration ends because a node says so that does not look after
// its lease: who does is to say it. It may be told again in a minute.
var ErrNotNow = errors.New("who looks after the lease is to say that it is over")

// stewardSays is how long who looks after a lease has to say what becomes of a registration
// that another node has ended; what it does not hear of in that time it never will.
const stewardSays = 30 * time.Second

// verdict is what becomes of a registration here that another node has ended.
type verdict int

const (
	obeyed  verdict = iota // it is ended
	kept                   // it goes on, which is told to all
	upheld                 // it is ended, because this node says so
	delayed                // it stays as it is, until who looks after its lease has said something
)

// judge says what becomes of a registration whose tombstone comes from another node. It goes
// on when this one has heard of the process within its lease, or a stream keeps it here and
// another has ended. That a lease is over says who looks after it, and not a node that was
// alone for a while. It waits for nobody.
func (s *Store) judge(mine, tombstone *Object) verdict {
	leases := s.leases.Load()
	if leases == nil || !endedByLease(tombstone) && !endedByStream(tombstone) {
		return obeyed
	}
	return leases.judge(mine, tombstone)
}

func (l *Leases) judge(mine, tombstone *Object) verdict {
	steward := l.steward(mine) // without mu: peers may have locks of their own
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.leases[tombstone.ID]
	byLease := endedByLease(tombstone)
	switch {
	case known.held(), byLease && known.renewed(l.opts.Now()):
		return kept
	case !byLease, tombstone.Revision.Node == steward:
		return obeyed
	case steward == l.store.Node():
		return upheld
	case known.waited(tombstone.Revision, l.opts.Now()):
		return obeyed
	}
	return delayed
}

// keeps tells whether a process that has a registration was heard of here within its lease,
// or keeps it by a stream.
func (s *Store) keeps(id ID) bool {
	l := s.leases.Load()
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.leases[id]
	return known.held() || known.renewed(l.opts.Now())
}

// held, renewed and waited are for callers that hold the mu of Leases.
func (known *lease) held() bool { return known != nil && known.holders > 0 }

func (known *lease) renewed(now time.Time) bool { return known != nil && known.assured.After(now) }

// waited tells whether who looks after the lease has had its time to say something of a
// tombstone.
func (known *lease) waited(tombstone Revision, now time.Time) bool {
	switch {
	case known == nil:
		return false
	case known.doubted != tombstone:
		known.doubted, known.since = tombstone, now
	}
	return now.Sub(known.since) >= stewardSays
}
