package observe

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"
)

// Durations are counted in cells, each of which lies within one bucket of both
// histograms that are shown: the native one, whose bounds are the powers of
// 2^(1/8) seconds (Prometheus calls that schema 3: a quantile is at most 4.4 %
// off), and the classic one, whose bounds are below. So both are exact, and an RPC
// is counted once.
const (
	schema       = 3
	perOctave    = 1 << schema // native buckets between a power of two and the next
	shortestPow2 = -17         // 2^-17 s = 7.6 µs: what is shorter falls into the zero bucket
	longestPow2  = 17          // 2^17 s = 36 h: what is longer falls into one last bucket
)

// classicBounds are in seconds. They reach from a call within the machine room to
// a stream that somebody should know of, and hold the round figures that service
// levels are written in.
var classicBounds = []float64{
	0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
}

// cell is one place to count in: durations above the cell before, up to max.
type cell struct {
	max     int64 // nanoseconds
	native  int   // index of the native bucket: (2^((native-1)/8), 2^(native/8)] seconds
	classic int   // how many of classicBounds are below the cell
}

// cells are in rising order. The first is the native zero bucket, the last has no
// end.
var cells = makeCells()

// numCells is how many cells there are: 273 bounds of native buckets, 13 of classic
// ones that are not among them, and the last.
const numCells = 287

func makeCells() []cell {
	var all []cell
	for k := shortestPow2 * perOctave; k <= longestPow2*perOctave; k++ {
		all = append(all, cell{max: nanoseconds(math.Exp2(float64(k) / perOctave)), native: k})
	}
	for _, bound := range classicBounds {
		all = splitAt(all, nanoseconds(bound))
	}
	all = append(all, cell{max: math.MaxInt64, native: longestPow2*perOctave + 1})
	for i := 1; i < len(all); i++ {
		all[i].classic = all[i-1].classic
		if slices.ContainsFunc(classicBounds, func(b float64) bool { return nanoseconds(b) == all[i-1].max }) {
			all[i].classic++
		}
	}
	return all
}

// splitAt makes a bound of limit, unless it is one already.
func splitAt(all []cell, limit int64) []cell {
	i, found := slices.BinarySearchFunc(all, limit, func(c cell, limit int64) int { return cmp.Compare(c.max, limit) })
	if found {
		return all
	}
	return slices.Insert(all, i, cell{max: limit, native: all[i].native})
}

// nanoseconds is the last whole nanosecond within seconds: a duration, which is
// whole, is no longer than either or longer than both. Decimal bounds are whole
// to begin with, but for the rounding of float64.
func nanoseconds(seconds float64) int64 {
	ns := seconds * float64(time.Second)
	if whole := math.Round(ns); math.Abs(ns-whole) < 1e-6 {
		return int64(whole)
	}
	return int64(ns)
}

// A cell is found from the highest five bits of the duration. Between two values
// of them lies at most a sixteenth, less than between two native bounds (2^(1/8)
// is 1.09): so there is one native bound in it at most, and perhaps a classic one,
// and the search that starts there takes two steps at most.
const (
	slotBits   = 4
	firstWidth = 13 // bits of the shortest duration that is not in the first cell
	lastWidth  = 47 // bits of the longest that is not in the last
)

// slots are where to start looking, by those bits.
var slots = makeSlots()

func makeSlots() (at [(lastWidth - firstWidth + 1) << slotBits]uint16) {
	for i := range at {
		width := firstWidth + i>>slotBits
		least := int64(1<<slotBits|i&(1<<slotBits-1)) << (width - slotBits - 1)
		for least > cells[at[i]].max {
			at[i]++
		}
	}
	return at
}

// cellOf is the index of the cell that d is counted in.
func cellOf(d time.Duration) int {
	width := bits.Len64(uint64(max(d, 0)))
	if width < firstWidth {
		return 0
	}
	if width > lastWidth {
		return len(cells) - 1
	}
	slot := (width-firstWidth)<<slotBits | int(d>>(width-slotBits-1))&(1<<slotBits-1)
	i := int(slots[slot])
	for int64(d) > cells[i].max {
		i++
	}
	return i
}
