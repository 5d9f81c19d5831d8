package policy

import "sync/atomic"

// Share is among how many gateways limits are divided that a cluster has as a whole. The
// zero value, and a nil one, divide by nothing. It may be set and read by any goroutine:
// the limits that have it obey the next moment.
type Share struct {
	live atomic.Int64 // gateways
	most atomic.Int64 // that ever were, so far
}

// maxShare keeps what is worked out with it in 64 bits: a day's step, in ns, that often.
const maxShare = 10_000

// Set says how many gateways live, this one included.
func (s *Share) Set(live int) {
	n := int64(min(max(live, 1), maxShare))
	s.live.Store(n)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
}

// Live is what Set was told last.
func (s *Share) Live() int { return int(s.among()) }

func (s *Share) among() int64 {
	if s == nil {
		return 1
	}
	return max(s.live.Load(), 1)
}

func (s *Share) ever() int64 {
	if s == nil {
		return 1
	}
	return max(s.most.Load(), 1)
}
