package policy

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// RateLimit bounds how many RPCs begin: so many in each interval, evenly, and a burst
// of them at once. It is the generic cell rate algorithm (ITU-T I.371): all that it
// keeps is when the next RPC would come if they came evenly.
type RateLimit struct {
	step  int64 // from one RPC to the next, ns, rounded up
	slack int64 // how much earlier one may come: burst-1 steps
	base  time.Time
	share *Share // nil: this gateway has all of it

	one  atomic.Int64 // without keys: when the next would come, ns since base
	keys *keyTable    // nil without keys
}

// NewRateLimit returns a limit of requests in each interval, and burst at once: one for
// all, or one for each key.
func NewRateLimit(requests int, interval time.Duration, burst int, keyed bool) *RateLimit {
	n := int64(max(requests, 1))
	step := max((int64(interval)+n-1)/n, 1)
	l := &RateLimit{step: step, base: time.Now()}
	if times := int64(max(burst, 1) - 1); times <= maxSlack/step {
		l.slack = times * step
	} else {
		l.slack = maxSlack
	}
	if keyed {
		l.keys = newKeyTable()
	}
	return l
}

// Among has the gateways that live share the limit evenly. It is called before the first
// Take.
func (l *RateLimit) Among(s *Share) *RateLimit {
	l.share = s
	return l
}

// pace is the step and the slack of this gateway's part: of n gateways each has a step of
// n, and the nth part of the burst, but one RPC at least. A full burst is as much time for
// any of them, so that what is owed stays what it is when there are more, or fewer.
func (l *RateLimit) pace() (step, slack int64) {
	n := l.share.among()
	return n * l.step, max(l.slack-(n-1)*l.step, 0)
}

// maxSlack bounds a burst that no clock lives to see the end of, ns.
const maxSlack = math.MaxInt64 / 4

// Keyed tells whether each key has a limit of its own.
func (l *RateLimit) Keyed() bool { return l.keys != nil }

// Take tells whether an RPC may begin now, and counts it if so; else how long it is until
// one may. The key is not looked at without keys.
func (l *RateLimit) Take(now time.Time, key string) (ok bool, retryAfter time.Duration) {
	at := int64(now.Sub(l.base))
	if l.keys != nil {
		return l.keys.take(l, at, key)
	}
	for {
		due := l.one.Load()
		next, wait := l.pass(at, due)
		if wait > 0 {
			return false, time.Duration(wait)
		}
		if l.one.CompareAndSwap(due, next) {
			return true, 0
		}
	}
}

// GiveBack undoes a Take of an RPC that did not begin after all.
func (l *RateLimit) GiveBack(key string) {
	if l.keys != nil {
		l.keys.giveBack(l, key)
		return
	}
	step, _ := l.pace()
	l.one.Add(-step)
}

// jumped is how much further ahead than it can be the next RPC has to be, for the clock
// to have been set back, ns. Goroutines come with times that differ by less.
const jumped = int64(time.Second)

// pass is when the next RPC would come if one begins at a time, given when that one
// would have come; and how long it has to wait if it comes too early.
func (l *RateLimit) pass(at, due int64) (next, wait int64) {
	step, slack := l.pace()
	if due-at > l.slack+l.share.ever()*l.step+jumped {
		due = at
	}
	if wait = due - slack - at; wait > 0 {
		return due, wait
	}
	return max(due, at) + step, 0
}

const (
	// keyShards is how many locks share the keys.
	keyShards = 16
	// keyWays is how many keys share one place, of which the one that owes least makes
	// room for a new one.
	keyWays = 8
	// maxPlaces bounds a shard. With all its shards a table has 65,536 keys, and 1 MiB.
	maxPlaces = 512
	// firstPlaces is what a shard begins with.
	firstPlaces = 1
)

// MaxKeys is how many keys of one limit are known at a time.
const MaxKeys = keyShards * maxPlaces * keyWays

// keyTable is the limits of keys. It knows them by a hash, so that their length is
// nobody's memory. A key whose time has come is as good as none, and makes room first;
// after it the one that owes least, so that a flood of new keys drives out its own, and
// who is over his limit is remembered.
type keyTable struct {
	seed   maphash.Seed
	shards [keyShards]keyShard
}

type keyShard struct {
	mu     sync.Mutex // guards the fields below
	places []keyPlace // a power of two
	_      [32]byte   // a cache line to each
}

// keyPlace is keys with the same low bits of their hash.
type keyPlace [keyWays]keyEntry

type keyEntry struct {
	hash uint64 // zero is nobody's
	due  int64  // when the next RPC would come, ns since the limit's base
}

func newKeyTable() *keyTable {
	t := &keyTable{seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].places = make([]keyPlace, firstPlaces)
	}
	return t
}

func (t *keyTable) take(l *RateLimit, at int64, key string) (bool, time.Duration) {
	hash, s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(hash, at)
	next, wait := l.pass(at, e.due)
	if wait > 0 {
		return false, time.Duration(wait)
	}
	e.due = next
	return true, 0
}

func (t *keyTable) giveBack(l *RateLimit, key string) {
	hash, s := t.shard(key)
	step, _ := l.pace()
	s.mu.Lock()
	defer s.mu.Unlock()
	place := s.place(hash)
	for i := range place {
		if place[i].hash == hash {
			place[i].due -= step
		}
	}
}

func (t *keyTable) shard(key string) (hash uint64, s *keyShard) {
	hash = maphash.String(t.seed, key) | 1<<63 // so that it is not zero
	return hash, &t.shards[hash%keyShards]
}

// find returns the entry of a hash, a new one when there is none. The caller holds mu.
func (s *keyShard) find(hash uint64, at int64) *keyEntry {
	for {
		place := s.place(hash)
		least := &place[0]
		for i := range place {
			e := &place[i]
			if e.hash == hash {
				return e
			}
			if e.hash == 0 || least.hash != 0 && e.due < least.due {
				least = e
			}
		}
		if least.hash == 0 || least.due <= at || len(s.places) >= maxPlaces {
			*least = keyEntry{hash: hash, due: at}
			return least
		}
		s.grow(at)
	}
}

func (s *keyShard) place(hash uint64) *keyPlace {
	return &s.places[hash/keyShards%uint64(len(s.places))]
}

// grow doubles the places. Those who need no place any more get none. The caller holds
// mu.
func (s *keyShard) grow(at int64) {
	before := s.places
	s.places = make([]keyPlace, 2*len(before))
	for i := range before {
		for _, e := range before[i] {
			if e.hash == 0 || e.due <= at {
				continue
			}
			for j := range s.place(e.hash) {
				if to := &s.place(e.hash)[j]; to.hash == 0 {
					*to = e
					break
				}
			}
		}
	}
}
