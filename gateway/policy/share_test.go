package policy

import (
	"testing"
	"time"
)

// Of a burst each gateway has its part, and one RPC at least; the sum of what they grant is
// the limit's, however many there are.
func TestRateLimitIsDivided(t *testing.T) {
	for _, test := range []struct{ requests, burst, live, want int }{
		{300, 300, 3, 300 + 3000},
		{300, 30, 7, 30 + 3000},
		{10, 1, 3, 3 + 100},
		{300, 300, 0, 300 + 3000},
		{300, 300, -1, 300 + 3000},
	} {
		total, live := 0, max(test.live, 1)
		for range live {
			share := new(Share)
			share.Set(test.live)
			l := NewRateLimit(test.requests, time.Second, test.burst, false).Among(share)
			total += granted(l, "", evenly(0, 10*time.Second, time.Millisecond))
		}
		if off := total - test.want; off > live || off < -test.want/50 {
			t.Errorf("%d a second, burst %d, at %d gateways: %d granted in 10 s, want %d", test.requests, test.burst, test.live, total, test.want)
		}
	}
}

// All that is granted at once is no more than the burst, unless there are more gateways.
func TestRateLimitDividesTheBurst(t *testing.T) {
	for _, test := range []struct{ burst, live, want int }{{300, 3, 300}, {5, 4, 4}, {30, 7, 28}, {1, 3, 3}} {
		share, total := new(Share), 0
		share.Set(test.live)
		for range test.live {
			total += granted(NewRateLimit(1, time.Hour, test.burst, true).Among(share), "k", make([]time.Duration, 1000))
		}
		if total != test.want {
			t.Errorf("a burst of %d at %d gateways: %d granted, want %d", test.burst, test.live, total, test.want)
		}
	}
}

// Gateways come and go, and nobody is granted what he has had already; a clock that is set
// back is told from a limit that was lower.
func TestRateLimitKeepsWhatIsOwed(t *testing.T) {
	share := new(Share)
	l := NewRateLimit(24, 24*time.Hour, 1, true).Among(share)
	share.Set(20)
	if ok, _ := l.Take(l.base, "k"); !ok {
		t.Fatal("the first is not granted")
	}
	for live := 20; live > 0; live-- {
		share.Set(live)
		if ok, _ := l.Take(l.base.Add(time.Hour), "k"); ok {
			t.Fatalf("granted anew when %d live", live)
		}
	}
	if ok, after := l.Take(l.base.Add(19*time.Hour+59*time.Minute), "k"); ok || after != time.Minute {
		t.Errorf("before its time: %v, in %v", ok, after)
	}
	if ok, _ := l.Take(l.base.Add(20*time.Hour), "k"); !ok {
		t.Error("not granted in its time")
	}
	if ok, _ := l.Take(l.base.Add(2*time.Hour), "k"); ok {
		t.Error("a clock that was set back by less than the limit was lower grants anew")
	}
	if ok, _ := l.Take(l.base.Add(-200*time.Hour), "k"); !ok {
		t.Error("a clock that was set back grants nothing")
	}
}

func TestRateLimitDividesWithoutMemory(t *testing.T) {
	share := new(Share)
	share.Set(3)
	l, b := NewRateLimit(1000, time.Second, 10, true).Among(share), NewBudget(20, time.Second, 10, time.Second).Among(share)
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() { l.Take(now, "k"); b.Called(now); b.Allow(now) }); n > 0 && !raceEnabled {
		t.Errorf("an RPC allocates %v times", n)
	}
}

// So many retries as there always may be are divided, and one is left to each.
func TestBudgetDividesTheLeast(t *testing.T) {
	for live, want := range map[int]int{1: 10, 2: 5, 3: 3, 10: 1, 50: 1} {
		share := new(Share)
		share.Set(live)
		b := NewBudget(0, 10*time.Second, 10, time.Second).Among(share)
		n := 0
		for range 20 {
			if b.Allow(b.base) {
				n++
			}
		}
		if n != want {
			t.Errorf("of %d gateways each allows %d retries, want %d", live, n, want)
		}
	}
}
