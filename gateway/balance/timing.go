package balance

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// decay is the time constant by which a node's estimate follows answers that come
	// faster than it says, and by which it falls while there are none: so a node that was
	// slow is tried again. What comes slower counts after a tenth of that, for
	// it is dearer to believe in a slow node than to doubt a fast one.
	decay     = 10 * time.Second
	riseDecay = decay / 10
	// failureTime is what a failure counts as. It would take next to no time otherwise,
	// and the node that fails would look like the fastest.
	failureTime = 5 * time.Second
	// failureStep is how far at least one failure moves the estimate to failureTime: the
	// first makes of 20 ms half a second.
	failureStep = 0.1
	// doubtTime is what an answer counts as, at least, that may be the endpoint's fault or
	// the request's: whoever is exhausted says so at once.
	doubtTime = time.Second
	// leastTime is added to each estimate, so that what a node carries tells also between
	// nodes that have rested until theirs have come to nothing.
	leastTime = 100 * time.Microsecond
)

// timing is a node's estimate of the time to the first byte of a response, in one
// word: above, float32 bits of nanoseconds, below, when it was made, in ticks. Zero
// means that nothing is known.
type timing struct{ word atomic.Uint64 }

// tick is the unit of a timing's clock, some 1 ms. It goes round in 52 days.
const tick = 1 << 20 * time.Nanosecond

// backwards is how far a clock reading may lie before another that was taken
// later but used earlier, in ticks. What is farther is a node that has rested.
const backwards = uint32(time.Minute / tick)

var epoch = time.Now()

// ticks is the time as a timing has it.
func ticks(now time.Time) uint32 { return uint32(now.Sub(epoch) / tick) }

// since is the time from then to now.
func since(now, then uint32) time.Duration {
	d := now - then
	if -d < backwards {
		return 0
	}
	return time.Duration(d) * tick
}

func (t *timing) load() (estimate float64, at uint32, known bool) {
	word := t.word.Load()
	return unpack(word), uint32(word), word != 0
}

func unpack(word uint64) float64 { return float64(math.Float32frombits(uint32(word >> 32))) }

func pack(estimate float64, at uint32) uint64 {
	// An estimate of nothing would look as if there were none.
	return uint64(math.Float32bits(float32(max(estimate, 1))))<<32 | uint64(at)
}

// at is the estimate as of now, in nanoseconds, and whether there is one.
func (t *timing) at(now uint32) (estimate float64, known bool) {
	estimate, then, known := t.load()
	if !known {
		return 0, false
	}
	return float64(leastTime) + estimate*fade(since(now, then), decay), true
}

// fade is what is left of something after a time.
func fade(elapsed, constant time.Duration) float64 {
	if elapsed < constant/100 { // a hundredth: no need to be exact
		return 1 - float64(elapsed)/float64(constant)
	}
	return math.Exp(-float64(elapsed) / float64(constant))
}

// Observe notes that the response to an RPC that was sent to the node began, now,
// after took. Of those that end within the same millisecond the first counts, as far
// as it is not slower: the time that has passed is what gives an observation weight.
func (n *Node) Observe(now time.Time, took time.Duration) {
	n.timing.observe(ticks(now), float64(took), 0)
}

// ObserveFailure notes that an RPC has failed, in whatever time.
func (n *Node) ObserveFailure(now time.Time) {
	n.timing.observe(ticks(now), float64(failureTime), failureStep)
}

// ObserveDoubt notes that the response to an RPC that began after took is no good, and
// that nobody knows whose fault that is.
func (n *Node) ObserveDoubt(now time.Time, took time.Duration) {
	n.timing.observe(ticks(now), float64(max(took, doubtTime)), 0)
}

// observe moves the estimate towards a sample: by the time that has passed since the
// last, but by the part step at least.
func (t *timing) observe(now uint32, sample, step float64) {
	for {
		old := t.word.Load()
		var word uint64
		switch estimate, then := unpack(old), uint32(old); {
		case old == 0 && step > 0:
			word = pack(sample*step, now)
		case old == 0:
			word = pack(sample, now)
		default:
			constant := decay
			if sample > estimate {
				constant = riseDecay
			}
			elapsed := since(now, then)
			part := max(step, 1-fade(elapsed, constant))
			if part == 0 {
				return
			}
			if elapsed == 0 {
				now = then // no step back
			}
			word = pack(estimate+part*(sample-estimate), now)
		}
		if t.word.CompareAndSwap(old, word) {
			return
		}
	}
}
