package observe

import (
	"cmp"
	"strings"
	"sync/atomic"
	"time"

	"sluice/gateway/wire"
)

// Key names a series: a rule of a route and one of the backends that it splits to.
// Route and backend are each "namespace/name"; the rule is its name, or its number
// in the route.
type Key struct{ Route, Rule, Backend string }

func (k Key) compare(other Key) int {
	return cmp.Or(
		strings.Compare(k.Route, other.Route),
		strings.Compare(k.Rule, other.Rule),
		strings.Compare(k.Backend, other.Backend),
	)
}

const cacheLine = 64 // bytes; see doc.go

// Series counts the RPCs of one rule to one backend. Its methods may be called
// from any goroutine; they take no lock, and allocate nothing after the first RPC.
type Series struct {
	// Fixed at construction.
	key  Key
	made time.Time

	cells atomic.Pointer[durations] // nil until an RPC has ended, then fixed

	// Guarded by Metrics.mu.
	users  int     // rules of the table that have it; at 0 it is retired
	seen   uint64  // RPCs that had started when it was last looked at, once it is retired
	age    int     // samples since it was retired
	recent *recent // nil until an RPC has started

	_       [cacheLine]byte
	started atomic.Uint64
	_       [cacheLine - 8]byte

	// Written together, so on one line as far as the codes that are common.
	micros atomic.Uint64 // microseconds that the ended RPCs took: as many as 10,000 streams take in 58,000 years
	ended  [wire.NumCodes]atomic.Uint64
	_      [cacheLine - 8]byte
}

// durations are counts by cell; their total is the number of RPCs that ended. They
// are more than all the rest of a series, and most series of a large table see no
// RPC: so they come with the first that ends.
type durations [numCells]atomic.Uint64

func newSeries(key Key) *Series { return &Series{key: key, made: time.Now()} }

// Key is what the series counts.
func (s *Series) Key() Key { return s.key }

// Start counts an RPC that has begun; it has to End.
func (s *Series) Start() { s.started.Add(1) }

// End counts an RPC that is over, with its code and the time since it started. A
// code that gRPC does not define is counted as UNKNOWN.
func (s *Series) End(code wire.Code, d time.Duration) {
	d = max(d, 0)
	h := s.cells.Load()
	if h == nil {
		h = s.makeCells()
	}
	h[cellOf(d)].Add(1)
	s.micros.Add(uint64(d+time.Microsecond/2) / uint64(time.Microsecond))
	s.ended[code.Clamp()].Add(1)
}

// makeCells is for the first RPC that ends; of several at once one wins.
func (s *Series) makeCells() *durations {
	s.cells.CompareAndSwap(nil, new(durations))
	return s.cells.Load()
}

// Started is how many RPCs have begun.
func (s *Series) Started() uint64 { return s.started.Load() }

// Ended is how many RPCs have ended with code.
func (s *Series) Ended(code wire.Code) uint64 { return s.ended[code.Clamp()].Load() }

// Open is how many RPCs have begun and not ended.
func (s *Series) Open() uint64 {
	started, ended := s.tally()
	return started - ended.total()
}

// endings is a count of RPCs by code.
type endings [wire.NumCodes]uint64

func (e *endings) total() (n uint64) {
	for _, of := range e {
		n += of
	}
	return n
}

// tally reads what has started and what has ended as of one moment: none ended
// while the started were read. On a series that is never still for that long it
// gives up, and what has started meanwhile looks open; never the other way, for an
// RPC starts before it ends.
func (s *Series) tally() (started uint64, ended endings) {
	const tries = 16
	for range tries {
		ended = s.endings()
		started = s.started.Load()
		if s.endings() == ended {
			break
		}
	}
	return started, ended
}

func (s *Series) endings() (ended endings) {
	for code := range s.ended {
		ended[code] = s.ended[code].Load()
	}
	return ended
}
