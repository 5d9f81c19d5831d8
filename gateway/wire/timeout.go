package wire

import (
	"math"
	"strconv"
	"time"
)

// maxTimeoutDigits is the longest number a grpc-timeout may hold.
// PROTOCOL-HTTP2: "TimeoutValue → {positive integer as ASCII string of at most
// 8 digits}".
const maxTimeoutDigits = 8

// timeoutLimit is the first number with more digits than that.
const timeoutLimit = 100_000_000

// ParseTimeout reads the value of a grpc-timeout field: one to eight digits and
// a unit, nothing else. A time longer than a time.Duration holds (292 years)
// becomes the longest one. Zero is accepted, as grpc-go does: the deadline has
// passed.
func ParseTimeout(s string) (time.Duration, bool) {
	digits := len(s) - 1
	if digits < 1 || digits > maxTimeoutDigits {
		return 0, false
	}
	size := timeoutUnit(s[digits])
	if size == 0 {
		return 0, false
	}
	var n int64
	for i := range digits {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int64(c)
	}
	if n > math.MaxInt64/int64(size) {
		return math.MaxInt64, true
	}
	return time.Duration(n) * size, true
}

// timeoutUnit is the length of one unit, zero for a byte that names none.
func timeoutUnit(name byte) time.Duration {
	switch name {
	case 'H':
		return time.Hour
	case 'M':
		return time.Minute
	case 'S':
		return time.Second
	case 'm':
		return time.Millisecond
	case 'u':
		return time.Microsecond
	case 'n':
		return time.Nanosecond
	}
	return 0
}

// AppendTimeout appends d as the value of a grpc-timeout field, in the finest
// unit that takes at most eight digits. It rounds down, so that the next hop
// never believes it has longer than we shall wait. No time left is "0n".
func AppendTimeout(b []byte, d time.Duration) []byte {
	d = max(d, 0)
	switch {
	case d < timeoutLimit:
		return appendUnits(b, d, 'n')
	case d < timeoutLimit*time.Microsecond:
		return appendUnits(b, d/time.Microsecond, 'u')
	case d < timeoutLimit*time.Millisecond:
		return appendUnits(b, d/time.Millisecond, 'm')
	case d < timeoutLimit*time.Second:
		return appendUnits(b, d/time.Second, 'S')
	case d < timeoutLimit*time.Minute:
		return appendUnits(b, d/time.Minute, 'M')
	}
	return appendUnits(b, d/time.Hour, 'H') // of which a time.Duration holds 2,562,047
}

func appendUnits(b []byte, n time.Duration, unit byte) []byte {
	return append(strconv.AppendInt(b, int64(n), 10), unit)
}
