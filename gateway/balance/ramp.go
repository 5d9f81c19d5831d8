package balance

import (
	"math"
	"time"
)

// Ramp is the share that a node has, elapsed after it became usable, of what it will
// have after window: (elapsed/window)^exponent, and not less than least. All are parts
// of one; without a window it is one at once.
func Ramp(elapsed, window time.Duration, exponent, least float64) float64 {
	if elapsed >= window {
		return 1
	}
	part := float64(max(elapsed, 0)) / float64(window)
	return min(1, max(least, math.Pow(part, exponent)))
}
