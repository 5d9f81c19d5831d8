package policy

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// budgetSlots is how finely a budget's interval is remembered: what has gone by
	// leaves it a hundredth at a time.
	budgetSlots = 100
	// paceSlots of them are the time in which no more may be spent than its own part, or
	// a tenth of what the whole interval has earned: else a backend that comes back
	// would get the retries of ten seconds in one.
	paceSlots = budgetSlots / 10
	// minSlots is how finely the interval of the least rate is remembered.
	minSlots = 10
)

// Budget bounds how many RPCs are sent again, by how many there are. Each Interval has
// Percent of its calls, no more than a tenth of that in each tenth of it, and in any
// case MinCount in each MinInterval.
//
// Calls are counted by an atomic addition; only who wants a retry looks at them. Both
// err on the side of fewer retries, by a hundredth of the interval. What is asked for at
// times that go backwards counts as of the latest, or, if that lies out of sight, as the
// first.
type Budget struct {
	percent  uint64
	minCount uint64
	share    *Share // of minCount; nil: this gateway has all of it
	base     time.Time
	unit     time.Duration // of a slot

	calls [budgetSlots]atomic.Uint64 // by slot: its number, 32 bits, and how many calls

	mu    sync.Mutex // guards the fields below
	spent window     // of the last interval
	pace  window     // of the last tenth of it
	least window     // of the last minInterval
}

// NewBudget returns a budget of percent of the calls in each interval, and of minCount
// retries in each minInterval at least.
func NewBudget(percent int, interval time.Duration, minCount int, minInterval time.Duration) *Budget {
	b := &Budget{
		percent: uint64(max(percent, 0)), minCount: uint64(max(minCount, 0)),
		base: time.Now(), unit: max(interval/budgetSlots, 1),
	}
	b.spent, b.pace = newWindow(b.unit, budgetSlots), newWindow(b.unit, paceSlots)
	b.least = newWindow(max(minInterval/minSlots, 1), minSlots)
	return b
}

// Among has the gateways that live share MinCount evenly; of the percentage each has that of
// its own calls anyhow. It is called before the first Allow.
func (b *Budget) Among(s *Share) *Budget {
	b.share = s
	return b
}

// part is this gateway's of MinCount: one at least, where there is one.
func (b *Budget) part() uint64 {
	return max(b.minCount/uint64(b.share.among()), min(b.minCount, 1))
}

// Called counts an RPC that begins. It may be called from any goroutine.
func (b *Budget) Called(now time.Time) {
	at := b.slot(now)
	cell := &b.calls[at%budgetSlots]
	for {
		was := cell.Load()
		switch behind := int32(at - uint32(was>>32)); {
		case behind == 0:
			cell.Add(1) // in the wrong slot if it changes hands just now: it was over
			return
		case behind < 0 && behind > -budgetSlots:
			return // the clock has been set back a little: not counted
		}
		if cell.CompareAndSwap(was, uint64(at)<<32|1) {
			return
		}
	}
}

// Allow tells whether one more RPC may be sent again, and counts it if so.
func (b *Budget) Allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	since := now.Sub(b.base)
	spent, pace, least := b.spent.advance(since), b.pace.advance(since), b.least.advance(since)
	if least >= b.part() && !b.affords(b.slot(now), spent+1, pace+1) {
		return false
	}
	b.spent.add()
	b.pace.add()
	b.least.add()
	return true
}

// GiveBack takes back what Allow has counted a moment ago. What has been counted in an
// earlier slot stays: that errs on the side of fewer retries.
func (b *Budget) GiveBack(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	since := now.Sub(b.base)
	for _, w := range []*window{&b.spent, &b.pace, &b.least} {
		w.advance(since)
		w.takeBack()
	}
}

// affords tells whether the calls before slot at have earned so many retries in the
// interval, and in the last tenth of it. The caller holds mu.
func (b *Budget) affords(at uint32, spent, pace uint64) bool {
	all, late := uint64(0), uint64(0)
	for i := range b.calls {
		cell := b.calls[i].Load()
		switch behind := at - uint32(cell>>32); {
		case behind < paceSlots:
			late += cell & 0xffffffff
			all += cell & 0xffffffff
		case behind < budgetSlots:
			all += cell & 0xffffffff
		}
	}
	return spent*100 <= all*b.percent && pace*1000 <= max(all, 10*late)*b.percent
}

// slot numbers from one, since zero is what cells have that nobody has used.
func (b *Budget) slot(now time.Time) uint32 { return uint32(now.Sub(b.base)/b.unit) + 1 }

// window counts what happened in its time up to now, and up to a slot more: the
// oldest slot counts until its last moment has gone by. It belongs to its owner's mutex.
type window struct {
	unit   time.Duration
	counts []uint32 // by slot; one more than the window has, which is partly over
	at     int64    // the newest slot
	sum    uint64
}

func newWindow(unit time.Duration, slots int) window {
	return window{unit: unit, counts: make([]uint32, slots+1)}
}

// advance goes on to a time, and returns what is in the window then.
func (w *window) advance(since time.Duration) uint64 {
	at, n := int64(since/w.unit), int64(len(w.counts))
	switch gone := at - w.at; {
	case gone >= n || gone <= -n: // nothing of it is left, or the clock has been set back
		clear(w.counts)
		w.at, w.sum = at, 0
	case gone > 0:
		for range gone {
			w.at++
			oldest := &w.counts[index(w.at, n)]
			w.sum -= uint64(*oldest)
			*oldest = 0
		}
	}
	return w.sum
}

func (w *window) add() {
	w.counts[index(w.at, int64(len(w.counts)))]++
	w.sum++
}

func (w *window) takeBack() {
	if newest := &w.counts[index(w.at, int64(len(w.counts)))]; *newest > 0 {
		*newest--
		w.sum--
	}
}

// index is at modulo n, for times before the beginning, too.
func index(at, n int64) int64 { return ((at % n) + n) % n }
