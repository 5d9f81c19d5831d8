package main

import (
	"fmt"
	"slices"
)

// spread is the middle and the ends of several runs.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf sums up values, of which there must be one at least.
func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{
		Median: (sorted[(n-1)/2] + sorted[n/2]) / 2,
		Min:    sorted[0],
		Max:    sorted[n-1],
	}
}

// ratios divides run by run: the runs of two proxies with the same number were
// made one after the other, so that what disturbed one disturbed both.
func ratios(of, to []float64) []float64 {
	var r []float64
	for i := range min(len(of), len(to)) {
		if to[i] > 0 {
			r = append(r, of[i]/to[i])
		}
	}
	return r
}

// verdict says whether a target is reached.
type verdict string

const (
	pass         verdict = "PASS"
	withinSpread verdict = "within spread" // the median misses it, one run at least does not
	miss         verdict = "MISS"
	unmeasured   verdict = "not measured"
)

// judge holds a spread against the bounds low and high, both allowed.
func judge(s spread, low, high float64) verdict {
	switch {
	case low <= s.Median && s.Median <= high:
		return pass
	case s.Min <= high && s.Max >= low:
		return withinSpread
	default:
		return miss
	}
}

// number writes a figure with three digits that mean something.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// String is the median with its ends, or the value alone when there is one.
func (s spread) String() string {
	if s.Min == s.Max {
		return number(s.Median)
	}
	return fmt.Sprintf("%s [%s–%s]", number(s.Median), number(s.Min), number(s.Max))
}
