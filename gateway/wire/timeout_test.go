package wire

import (
	"math"
	"math/big"
	"regexp"
	"testing"
	"time"
)

func TestParseTimeoutReadsWhatTheGrammarAllows(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     time.Duration
		wantOK   bool
	}{
		{"hours", "2H", 2 * time.Hour, true},
		{"minutes", "3M", 3 * time.Minute, true},
		{"seconds", "4S", 4 * time.Second, true},
		{"milliseconds", "100m", 100 * time.Millisecond, true},
		{"microseconds", "5u", 5 * time.Microsecond, true},
		{"nanoseconds", "6n", 6, true},
		{"zero has passed", "0n", 0, true},
		{"leading zeros", "00000007S", 7 * time.Second, true},
		{"eight digits", "99999999S", 99999999 * time.Second, true},
		{"longest minutes fit", "99999999M", 99999999 * time.Minute, true},
		{"last hours that fit", "2562047H", 2562047 * time.Hour, true},
		{"first hours that do not", "2562048H", math.MaxInt64, true},
		{"longest hours are clamped", "99999999H", math.MaxInt64, true},

		{"empty", "", 0, false},
		{"unit only", "S", 0, false},
		{"number only", "10", 0, false},
		{"nine digits", "100000000n", 0, false},
		{"nine digits, all zero", "000000000n", 0, false},
		{"unknown unit", "10h", 0, false},
		{"second unit", "10s", 0, false},
		{"minus", "-1S", 0, false},
		{"plus", "+1S", 0, false},
		{"fraction", "1.5S", 0, false},
		{"blank before", " 1S", 0, false},
		{"blank after", "1S ", 0, false},
		{"blank between", "1 S", 0, false},
		{"two units", "1SS", 0, false},
		{"hexadecimal", "0xAS", 0, false},
		{"digit that is not ASCII", "١S", 0, false},
		{"byte below the digits", "/S", 0, false},
		{"byte above the digits", ":S", 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := ParseTimeout(tc.in)
			if got != tc.want || ok != tc.wantOK {
				t.Errorf("ParseTimeout(%q) = %v, %v; want %v, %v", tc.in, got, ok, tc.want, tc.wantOK)
			}
		})
	}
}

func TestAppendTimeoutRoundsDownToEightDigits(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   time.Duration
		want string
	}{
		{"negative", -time.Second, "0n"},
		{"zero", 0, "0n"},
		{"one nanosecond", 1, "1n"},
		{"last in nanoseconds", 99_999_999, "99999999n"},
		{"first in microseconds", 100_000_000, "100000u"},
		{"microseconds lose nanoseconds", 100_000_999, "100000u"},
		{"last in microseconds", 99_999_999_999, "99999999u"},
		{"first in milliseconds", 100 * time.Second, "100000m"},
		{"first in seconds", 100_000 * time.Second, "100000S"},
		{"first in minutes", 100_000_000 * time.Second, "1666666M"},
		{"first in hours", 100_000_000 * time.Minute, "1666666H"},
		{"the longest", math.MaxInt64, "2562047H"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(AppendTimeout([]byte("x"), tc.in)); got != "x"+tc.want {
				t.Errorf("AppendTimeout(%v) = %q, want %q", tc.in, got[1:], tc.want)
			}
		})
	}
}

// timeoutGrammar and timeoutNanos are the specification a second time, without
// care for speed: the oracle of the fuzz target.
var timeoutGrammar = regexp.MustCompile(`^([0-9]{1,8})([HMSmun])$`)

func timeoutNanos(t *testing.T, s string) (time.Duration, bool) {
	t.Helper()
	m := timeoutGrammar.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, ok := new(big.Int).SetString(m[1], 10)
	if !ok {
		t.Fatalf("oracle cannot read %q", m[1])
	}
	perUnit := map[string]int64{"H": 3600e9, "M": 60e9, "S": 1e9, "m": 1e6, "u": 1e3, "n": 1}[m[2]]
	n.Mul(n, big.NewInt(perUnit))
	if !n.IsInt64() {
		return math.MaxInt64, true
	}
	return time.Duration(n.Int64()), true
}

func FuzzParseTimeout(f *testing.F) {
	for _, s := range []string{"1S", "0n", "99999999H", "2562048H", "100000000n", "", "n", "-1S", "1 S", "\x001S"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := ParseTimeout(s)
		want, wantOK := timeoutNanos(t, s)
		if got != want || ok != wantOK {
			t.Fatalf("ParseTimeout(%q) = %v, %v; the grammar says %v, %v", s, got, ok, want, wantOK)
		}
	})
}

func FuzzAppendTimeout(f *testing.F) {
	for _, d := range []int64{math.MinInt64, -1, 0, 1, 99_999_999, 100_000_000, 1e11, math.MaxInt64} {
		f.Add(d)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		d := time.Duration(n)
		s := string(AppendTimeout(nil, d))
		back, ok := ParseTimeout(s)
		if !ok {
			t.Fatalf("AppendTimeout(%v) = %q, which ParseTimeout refuses", d, s)
		}
		left := max(d, 0)
		if lost := left - back; lost < 0 || lost >= timeoutUnit(s[len(s)-1]) {
			t.Fatalf("AppendTimeout(%v) = %q, off by %v", d, s, lost)
		}
	})
}
