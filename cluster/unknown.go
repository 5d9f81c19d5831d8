package cluster

import "time"

const (
	// memberSoon is how long a sender has to become a member, and memberUntil how long one
	// that was a member may still be heard: messages and word of who lives come by
	// different ways.
	memberSoon  = 5 * time.Second
	memberUntil = time.Minute
	// maxUnknown bounds the senders that are waited for.
	maxUnknown = 64
)

// unknowns are senders that are no live members. What they send is never taken; it counts
// as refused when they do not turn out to be members that come or go.
type unknowns struct {
	gone    map[string]time.Time // who was a member, and until when, by the steady clock
	waiting map[string]*unknown
	early   uint64 // messages of members that came or went
}

type unknown struct {
	since time.Time
	count uint64
}

func newUnknowns() unknowns {
	return unknowns{gone: map[string]time.Time{}, waiting: map[string]*unknown{}}
}

// refuseUnknown counts a message of a sender that is no live member, now or later.
func (e *exchange) refuseUnknown(id string) {
	s, now := &e.unknowns, e.now()
	if at, was := s.gone[id]; was && now.Sub(at) < memberUntil {
		s.early++
		return
	}
	w := s.waiting[id]
	if w == nil && len(s.waiting) >= maxUnknown {
		e.refuse(id, &refusalError{wrongSender, errNotLive})
		return
	}
	if w == nil {
		w = &unknown{since: now}
		s.waiting[id] = w
	}
	w.count++
}

// came notes that a sender is a member.
func (s *unknowns) came(id string) (early uint64) {
	if w := s.waiting[id]; w != nil {
		early = w.count
	}
	s.early += early
	delete(s.waiting, id)
	delete(s.gone, id)
	return early
}

// left notes that a sender is none any more.
func (s *unknowns) left(id string, now time.Time) {
	if len(s.gone) >= maxPeers {
		clear(s.gone)
	}
	s.gone[id] = now
}

// tickUnknown counts those that were not found to be members.
func (e *exchange) tickUnknown() {
	s, now := &e.unknowns, e.now()
	for id, w := range s.waiting {
		if now.Sub(w.since) >= memberSoon {
			e.refused.addMany(wrongSender, id, errNotLive.Error(), w.count)
			delete(s.waiting, id)
		}
	}
	for id, at := range s.gone {
		if now.Sub(at) >= memberUntil {
			delete(s.gone, id)
		}
	}
}
