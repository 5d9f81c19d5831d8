package upstream

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// tally is what the attempts at one endpoint have come to. An attempt that ends adds
// to one counter; everything else is worked out when somebody asks.
type tally struct {
	_ [cacheLine]byte // what stands before is not ours to slow down

	row     atomic.Uint32 // failures without a success in between
	half    atomic.Uint32 // which of took is written
	neutral atomic.Uint64
	failed  atomic.Uint64
	_       [cacheLine - 24]byte

	took [2]histogram  // of attempts that ended well, by how long they took
	past atomic.Uint64 // of them, those that have been taken out of took
}

// cacheLine is the unit, in bytes, in which cores take memory from one another.
const cacheLine = 64

// add counts one attempt, and tells how many have failed in a row.
func (t *tally) add(r Result) (row uint32) {
	switch r.Verdict {
	case Success:
		if t.row.Load() != 0 { // mostly it is: then the line stays everybody's
			t.row.Store(0)
		}
		t.took[t.half.Load()&1].add(r.Took)
	case Failure:
		t.failed.Add(1)
		return t.row.Add(1)
	default:
		t.neutral.Add(1)
	}
	return 0
}

// totals are since the endpoint is known. The caller holds the endpoint's mu, as turn's
// does: else what is on its way from one place to another counts in none.
func (t *tally) totals() (succeeded, failed, ended uint64) {
	succeeded = t.past.Load() + t.took[0].total() + t.took[1].total()
	failed = t.failed.Load()
	return succeeded, failed, succeeded + failed + t.neutral.Load()
}

// turn begins another half. What the older one had is forgotten, but for its number.
// The caller holds the endpoint's mu.
func (t *tally) turn() {
	next := t.half.Load() ^ 1
	t.past.Add(t.took[next&1].empty())
	t.half.Store(next)
}

// slowest is how long the slowest of a hundred took, of those of the last one to two
// halves; zero when there were none.
func (t *tally) slowest() time.Duration {
	var sum [buckets]uint32
	var n uint64
	for h := range t.took {
		for i := range sum {
			if i == 0 {
				continue // streams: they took as long as they liked
			}
			k := t.took[h][i].Load()
			sum[i] += k
			n += uint64(k)
		}
	}
	if n == 0 {
		return 0
	}
	rank := n - n/100 // of the one that is looked for, from the fastest
	for i := 1; ; i++ {
		k := uint64(sum[i])
		if rank > k {
			rank -= k
			continue
		}
		from, to := bounds(i)
		return from + time.Duration(float64(to-from)*float64(rank)/float64(k))
	}
}

// histogram counts durations in steps of a quarter of an octave, from 2^stepBits
// nanoseconds (65 µs) to more than a minute. Bucket 0 are those of no duration.
type histogram [buckets]atomic.Uint32

const (
	stepBits = 16
	octaves  = 20
	buckets  = 2 + 4*octaves
)

func (h *histogram) add(d time.Duration) { h[bucketOf(d)].Add(1) }

func (h *histogram) total() (n uint64) {
	for i := range h {
		n += uint64(h[i].Load())
	}
	return n
}

// empty takes out what there is, and loses nothing that is added meanwhile.
func (h *histogram) empty() (n uint64) {
	for i := range h {
		if h[i].Load() != 0 {
			n += uint64(h[i].Swap(0))
		}
	}
	return n
}

func bucketOf(d time.Duration) int {
	if d <= 0 {
		return 0
	}
	v := uint64(d) >> (stepBits - 2)
	if v < 4 {
		return 1
	}
	octave := bits.Len64(v) - 3 // 0 for the first above 2^stepBits
	return min(2+4*octave+int(v>>octave&3), buckets-1)
}

// bounds are of what a bucket has.
func bounds(i int) (from, to time.Duration) {
	if i == 1 {
		return 0, 1 << stepBits
	}
	octave, quarter := (i-2)/4, (i-2)%4
	step := time.Duration(1) << (stepBits - 2 + octave)
	from = time.Duration(4+quarter) * step
	return from, from + step
}
