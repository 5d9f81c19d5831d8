package upstream

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

func TestTallyFindsTheSlowestOfAHundred(t *testing.T) {
	tests := []struct {
		name string
		took func(i int) time.Duration // of 1000
		want time.Duration
	}{
		{"none", nil, 0},
		{"streams alone", func(int) time.Duration { return 0 }, 0},
		{"all alike", func(int) time.Duration { return 10 * time.Millisecond }, 10 * time.Millisecond},
		{"even", func(i int) time.Duration { return time.Duration(i) * time.Millisecond }, 990 * time.Millisecond},
		{"two of a hundred are slow", func(i int) time.Duration {
			if i%50 == 0 {
				return time.Second
			}
			return time.Millisecond
		}, time.Second},
		{"one of a thousand is slow", func(i int) time.Duration {
			if i == 0 {
				return time.Minute
			}
			return time.Millisecond
		}, time.Millisecond},
		{"hours", func(int) time.Duration { return time.Hour }, 80 * time.Second},
		{"nanoseconds", func(int) time.Duration { return 1 }, 65 * time.Microsecond},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var tl tally
			for i := range 1000 {
				if test.took != nil {
					tl.add(Result{Verdict: Success, Took: test.took(i)})
				}
			}
			got := tl.slowest()
			if float64(got) < float64(test.want)*0.85 || float64(got) > float64(test.want)*1.15 {
				t.Errorf("the slowest of a hundred took %v, want %v", got, test.want)
			}
		})
	}
}

// Each duration is within the bounds of its bucket, and buckets leave no gap.
func TestHistogramBucketsMeet(t *testing.T) {
	_, end := bounds(1)
	for i := 2; i < buckets; i++ {
		from, to := bounds(i)
		if from != end {
			t.Fatalf("bucket %d begins at %v, the one before ended at %v", i, from, end)
		}
		end = to
	}
	for range 10000 {
		d := time.Duration(rand.Int64N(int64(90 * time.Second)))
		if i := bucketOf(d); i < buckets-1 {
			if from, to := bounds(i); d > 0 && (d < from || d >= to) {
				t.Fatalf("%v is in bucket %d, of %v to %v", d, i, from, to)
			}
		}
	}
}

// Whatever ends while the halves turn is counted once.
func TestTallyLosesNothing(t *testing.T) {
	var tl tally
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 5000 {
				tl.add(Result{Verdict: Verdict(i % 3), Took: time.Duration(i) * time.Microsecond})
			}
		})
	}
	for range 50 {
		tl.turn()
	}
	wg.Wait()
	tl.turn()
	succeeded, failed, ended := tl.totals()
	if want := uint64(4 * 1667); succeeded != want || failed != 4*1666 || ended != 4*5000 {
		t.Errorf("%d succeeded, %d failed, %d ended; want %d, %d, %d", succeeded, failed, ended, want, 4*1666, 4*5000)
	}
	tl.turn()
	if got := tl.slowest(); got != 0 {
		t.Errorf("after two turns the slowest took %v: what is old is forgotten", got)
	}
}

func TestTallyCountsTheRow(t *testing.T) {
	var tl tally
	for i, step := range []struct {
		verdict Verdict
		want    uint32
	}{{Failure, 1}, {Failure, 2}, {Neutral, 2}, {Failure, 3}, {Success, 0}, {Neutral, 0}, {Failure, 1}} {
		tl.add(Result{Verdict: step.verdict})
		if got := tl.row.Load(); got != step.want {
			t.Errorf("step %d: %d failures in a row, want %d", i, got, step.want)
		}
	}
}
