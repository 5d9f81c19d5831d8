package policy

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// granted is how many of the tries at those times a limit lets through.
func granted(l *RateLimit, key string, tries []time.Duration) (n int) {
	for _, at := range tries {
		if ok, _ := l.Take(l.base.Add(at), key); ok {
			n++
		}
	}
	return n
}

// evenly are times from one to another.
func evenly(from, to, step time.Duration) (times []time.Duration) {
	for at := from; at < to; at += step {
		times = append(times, at)
	}
	return times
}

func TestRateLimitIsExact(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, and much to work out")
	}
	tests := []struct {
		requests int
		interval time.Duration
		burst    int
		tries    []time.Duration
		want     int
	}{
		{10, time.Second, 1, evenly(0, 10*time.Second, time.Millisecond), 100},
		{10, time.Second, 10, evenly(0, 10*time.Second, time.Millisecond), 109}, // the burst, and ten a second but for the last
		{10, time.Second, 10, make([]time.Duration, 1000), 10},
		{1, time.Hour, 1, evenly(0, 3*time.Hour, time.Second), 3},
		{3, time.Second, 1, evenly(0, time.Minute, time.Millisecond), 180},
		{1_000_000, time.Second, 1, evenly(0, time.Second, time.Microsecond), 1_000_000},
		{100, time.Minute, 5, evenly(time.Hour, time.Hour+time.Minute, 10*time.Millisecond), 104},
	}
	for _, test := range tests {
		l := NewRateLimit(test.requests, test.interval, test.burst, false)
		// Three do not go into a second: what is granted may come some milliseconds late.
		if got := granted(l, "", test.tries); got > test.want || float64(got) < 0.99*float64(test.want) {
			t.Errorf("%d in %v, burst %d, of %d tries: %d granted, want %d", test.requests, test.interval, test.burst, len(test.tries), got, test.want)
		}
	}
}

// Whatever callers do, no window has more than a burst and what its length allows; and
// whoever waits as long as he is told is let in then, and not a nanosecond earlier.
func TestRateLimitHoldsOverRandomHistories(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, and much to work out")
	}
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 2))
		requests, burst := 1+random.IntN(50), 1+random.IntN(20)
		interval := time.Duration(1+random.IntN(5000)) * time.Millisecond
		l := NewRateLimit(requests, interval, burst, seed%2 == 0)
		var grants []time.Duration
		at := time.Duration(0)
		for range 3000 {
			if random.IntN(50) == 0 {
				at += time.Duration(random.Int64N(int64(2 * interval)))
			} else {
				at += time.Duration(random.Int64N(int64(interval)/int64(requests) + 1))
			}
			ok, after := l.Take(l.base.Add(at), "k")
			if ok {
				grants = append(grants, at)
				continue
			}
			if early, _ := l.Take(l.base.Add(at+after-1), "k"); early {
				t.Fatalf("seed %d: let in a nanosecond before %v was over", seed, after)
			}
			if random.IntN(3) == 0 {
				if ok, _ := l.Take(l.base.Add(at+after), "k"); !ok {
					t.Fatalf("seed %d: not let in after %v, as was told", seed, after)
				}
				at += after
				grants = append(grants, at)
			}
		}
		step := interval / time.Duration(requests)
		for i := range grants {
			for j := i; j < min(i+200, len(grants)); j++ {
				if most := burst + int((grants[j]-grants[i])/step); j-i+1 > most {
					t.Fatalf("seed %d: %d granted within %v, want %d at most", seed, j-i+1, grants[j]-grants[i], most)
				}
			}
		}
	}
}

func TestRateLimitIsOneForAllGoroutines(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		l := NewRateLimit(1, time.Hour, 500, keyed)
		var got atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { got.Add(int64(granted(l, "k", make([]time.Duration, 1000)))) })
		}
		wg.Wait()
		if got.Load() != 500 {
			t.Errorf("keyed=%v: %d granted at once, want 500", keyed, got.Load())
		}
	}
}

func TestRateLimitGivesBack(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		l := NewRateLimit(1, time.Minute, 3, keyed)
		granted(l, "k", make([]time.Duration, 3))
		l.GiveBack("k")
		if got := granted(l, "k", make([]time.Duration, 3)); got != 1 {
			t.Errorf("keyed=%v: %d granted after one was given back, want 1", keyed, got)
		}
	}
}

func TestRateLimitKeepsKeysApart(t *testing.T) {
	l := NewRateLimit(10, time.Second, 10, true)
	long := strings.Repeat("k", 16<<10)
	for _, key := range []string{"", "a", "b", long, long + "1", "\x00"} {
		if got := granted(l, key, make([]time.Duration, 20)); got != 10 {
			t.Errorf("key of %d bytes: %d granted, want 10", len(key), got)
		}
	}
}

// TestRateLimitSurvivesAFloodOfKeys: the memory is bounded, bystanders get what is theirs,
// and who is over his limit stays so: new keys drive out those who owe least.
func TestRateLimitSurvivesAFloodOfKeys(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, and much to work out")
	}
	l := NewRateLimit(10, time.Second, 10, true)
	before := heapBytes()
	bystander, greedy, flood := 0, 0, 0
	const keys = 1_000_000
	for i := range keys {
		at := time.Duration(i) * 10 * time.Microsecond // ten seconds
		if ok, _ := l.Take(l.base.Add(at), fmt.Sprint("flood-", i)); ok {
			flood++
		}
		if i%20_000 == 0 { // five a second
			if ok, _ := l.Take(l.base.Add(at), "bystander"); ok {
				bystander++
			}
		}
		if i%100 == 0 { // a thousand a second
			if ok, _ := l.Take(l.base.Add(at), "greedy"); ok {
				greedy++
			}
		}
	}
	if grown := heapBytes() - before; grown > 4<<20 {
		t.Errorf("a million keys hold %d KiB", grown>>10)
	}
	if bystander != keys/20_000 {
		t.Errorf("the bystander got %d of %d", bystander, keys/20_000)
	}
	if greedy > 109 {
		t.Errorf("the greedy one got %d in ten seconds, want 109 at most", greedy)
	}
	if flood != keys {
		t.Errorf("%d of %d new keys were let in: each is its own caller", flood, keys)
	}
	known := 0
	for i := range l.keys.shards {
		known += len(l.keys.shards[i].places) * keyWays
	}
	if known > MaxKeys || known > 100_000 {
		t.Errorf("there is room for %d keys, want %d at most", known, MaxKeys)
	}
	runtime.KeepAlive(l)
}

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestRateLimitOfFewKeysIsSmall(t *testing.T) {
	before := heapBytes()
	limits := make([]*RateLimit, 100)
	for i := range limits {
		limits[i] = NewRateLimit(10, time.Second, 10, true)
		granted(limits[i], "a", make([]time.Duration, 20))
	}
	if each := (heapBytes() - before) / 100; each > 8<<10 {
		t.Errorf("a limit of one key holds %d bytes", each)
	}
	runtime.KeepAlive(limits)
}

func TestRateLimitSurvivesClocksThatJump(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		for _, jump := range []time.Duration{1000 * time.Hour, -1000 * time.Hour, -time.Minute} {
			l := NewRateLimit(10, time.Second, 10, keyed)
			start := 2 * time.Hour
			granted(l, "k", evenly(start, start+time.Second, time.Millisecond))
			after := start + jump
			if got := granted(l, "k", evenly(after, after+10*time.Second, time.Millisecond)); got < 95 || got > 110 {
				t.Errorf("keyed=%v, jump of %v: %d granted in the ten seconds after it, want about 100", keyed, jump, got)
			}
		}
	}
}

// The store refuses such limits; they are no way to stop or to flood a gateway all the
// same.
func TestRateLimitOfNonsense(t *testing.T) {
	tests := []struct {
		requests int
		interval time.Duration
		burst    int
	}{
		{0, 0, 0}, {-1, -time.Second, -1}, {1 << 62, time.Nanosecond, 1 << 62}, {1, 1 << 62, 1 << 62},
	}
	for _, test := range tests {
		l := NewRateLimit(test.requests, test.interval, test.burst, true)
		if ok, _ := l.Take(l.base, "k"); !ok {
			t.Errorf("%+v: the first is not let in", test)
		}
		if _, after := l.Take(l.base, "k"); after < 0 {
			t.Errorf("%+v: %v", test, after)
		}
	}
}

func BenchmarkRateLimitTake(b *testing.B) {
	for _, keyed := range []bool{false, true} {
		b.Run(fmt.Sprintf("keyed=%v", keyed), func(b *testing.B) {
			l := NewRateLimit(1000, time.Second, 1000, keyed)
			now := time.Now()
			for b.Loop() {
				l.Take(now, "203.0.113.7")
			}
		})
	}
}
