package faults

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// seen is what callers saw of a load, or of a part of it.
type seen struct {
	rate   int           // RPCs a second that were asked for
	lasted time.Duration // the time in which they were to begin
	left   int           // RPCs that the load did not begin
	resent int           // tries that grpc-go made by itself
	rpcs   []rpc
}

// between is the part that was due in [from, to) of the load's clock.
func (s *seen) between(from, to time.Duration) *seen {
	part := &seen{rate: s.rate, lasted: to - from}
	for _, r := range s.rpcs {
		if from <= r.due && r.due < to {
			part.rpcs = append(part.rpcs, r)
		}
	}
	return part
}

// leastPart of the RPCs that were asked for have to be there, in percent. A short run
// shares its machine with other tests.
var leastPart = times(95, 70)

// valid says why the load proves nothing, or nothing.
func (s *seen) valid() string {
	want := int(float64(leastPart) / 100 * float64(s.rate) * s.lasted.Seconds())
	if len(s.rpcs) < want || s.left > 0 {
		return fmt.Sprintf("%s RPCs in %.1f s, want %s at least (%d left out)", thousands(len(s.rpcs)), s.lasted.Seconds(), thousands(want), s.left)
	}
	return ""
}

// failed are the RPCs that did not get their own answer.
func (s *seen) failed() []rpc {
	var failed []rpc
	for _, r := range s.rpcs {
		if r.code != codes.OK || r.wrong {
			failed = append(failed, r)
		}
	}
	return failed
}

// wrong counts answers that were somebody else's, or torn.
func (s *seen) wrong() int {
	n := 0
	for _, r := range s.rpcs {
		if r.wrong {
			n++
		}
	}
	return n
}

// share is the part of all RPCs that the backend of that name answered.
func (s *seen) share(name string) float64 {
	n := 0
	for _, r := range s.rpcs {
		if r.by == name {
			n++
		}
	}
	return float64(n) / float64(max(len(s.rpcs), 1))
}

// quantile is how long the RPCs took of which that part took less.
func (s *seen) quantile(part float64) time.Duration {
	if len(s.rpcs) == 0 {
		return 0
	}
	took := make([]time.Duration, len(s.rpcs))
	for i, r := range s.rpcs {
		took[i] = r.took
	}
	slices.Sort(took)
	return took[min(int(part*float64(len(took))), len(took)-1)]
}

// steady is the quantile of each whole second, and of those the one in the middle: what a
// busy machine does to one of them is not what is measured.
func (s *seen) steady(part float64, from, to time.Duration) time.Duration {
	var seconds []time.Duration
	for at := from; at+time.Second <= to; at += time.Second {
		seconds = append(seconds, s.between(at, at+time.Second).quantile(part))
	}
	if len(seconds) == 0 {
		return 0
	}
	slices.Sort(seconds)
	return seconds[len(seconds)/2]
}

// errors lists how often each error came, the most frequent first.
func (s *seen) errors() string {
	counts := map[string]int{}
	for _, r := range s.failed() {
		counts[r.text]++
	}
	texts := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Compare(counts[b], counts[a]) })
	var lines []string
	for _, text := range texts[:min(len(texts), 8)] {
		lines = append(lines, fmt.Sprintf("%6d × %s", counts[text], text))
	}
	return strings.Join(lines, "\n")
}

// thousands writes a number for people.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// ms writes a time for people.
func ms(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
}

// percent writes a share for people.
func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }
