package policy

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// moment is one call or one retry of a history.
type moment struct {
	at    time.Duration
	retry bool
}

// history has a budget live through calls of which so many fail and want to be sent
// again, once or more often, and returns what became of it.
func history(random *rand.Rand, b *Budget, base time.Time) []moment {
	var happened []moment
	at := time.Duration(0)
	for range 4000 {
		switch random.IntN(40) {
		case 0:
			at += time.Duration(random.Int64N(int64(3 * time.Second)))
		case 1, 2, 3:
			at += time.Duration(random.Int64N(int64(50 * time.Millisecond)))
		default:
			at += time.Duration(random.Int64N(int64(2 * time.Millisecond)))
		}
		if random.IntN(3) > 0 {
			b.Called(base.Add(at))
			happened = append(happened, moment{at, false})
		}
		for random.IntN(3) > 0 {
			if b.Allow(base.Add(at)) {
				happened = append(happened, moment{at, true})
			}
		}
	}
	return happened
}

// within counts calls and retries later than from and up to the end of happened.
func within(happened []moment, from time.Duration) (calls, retries int) {
	for i := len(happened) - 1; i >= 0 && happened[i].at > from; i-- {
		if happened[i].retry {
			retries++
		} else {
			calls++
		}
	}
	return calls, retries
}

func TestBudgetIsNeverOverdrawn(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, and much to work out")
	}
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 1))
		b := NewBudget(20, 10*time.Second, 10, time.Second)
		happened := history(random, b, b.base)
		for i, m := range happened {
			if !m.retry {
				continue
			}
			calls, second := within(happened[:i+1], m.at-time.Second)
			all, ten := within(happened[:i+1], m.at-10*time.Second)
			if allowed := max(10, 0.2*max(float64(calls), float64(all)/10)); float64(second) > allowed {
				t.Fatalf("seed %d: %d retries in the second before %v, want %.1f at most: %d calls in it, and %d in the ten seconds", seed, second, m.at, allowed, calls, all)
			}
			if allowed := 0.2*float64(all) + 10*10; float64(ten) > allowed {
				t.Fatalf("seed %d: %d retries in the ten seconds before %v with %d calls, want %.1f at most", seed, ten, m.at, all, allowed)
			}
		}
	}
}

// A storm: every try fails, and each is to be sent again.
func TestBudgetBoundsAStorm(t *testing.T) {
	for _, rate := range []int{1, 10, 100, 5000} {
		b := NewBudget(20, 10*time.Second, 10, time.Second)
		var happened []moment
		for i := range 15 * rate {
			at := time.Duration(i) * time.Second / time.Duration(rate)
			b.Called(b.base.Add(at))
			happened = append(happened, moment{at, false})
			for range 3 {
				if b.Allow(b.base.Add(at)) {
					happened = append(happened, moment{at, true})
				}
			}
		}
		last := happened[len(happened)-1].at
		for from := time.Second; from <= last; from += 70 * time.Millisecond {
			end, _ := slices.BinarySearchFunc(happened, from, func(m moment, at time.Duration) int {
				if m.at <= at {
					return -1
				}
				return 1
			})
			calls, retries := within(happened[:end], from-time.Second)
			if attempts := calls + retries; float64(attempts) > 1.2*float64(calls)+10 {
				t.Errorf("%d calls a second: %d attempts for %d calls in the second before %v", rate, attempts, calls, from)
			}
		}
		calls, retries := within(happened, -1)
		if least := min(0.17*float64(calls), 3*float64(calls)); float64(retries) < least {
			t.Errorf("%d calls a second: %d retries for %d calls, want %.0f or more: the budget is there to be used", rate, retries, calls, least)
		}
	}
}

// What calls have earned is spent once, in however many pieces.
func TestBudgetIsSpentOnce(t *testing.T) {
	b := NewBudget(20, 10*time.Second, 0, time.Second)
	for range 1000 {
		b.Called(b.base)
	}
	allowed := 0
	for at := time.Duration(0); at < 30*time.Second; at += time.Millisecond {
		if b.Allow(b.base.Add(at)) {
			allowed++
		}
	}
	if allowed != 200 {
		t.Errorf("%d retries for a thousand calls, want 200", allowed)
	}
}

func TestBudgetHasItsLeastRateWithoutCalls(t *testing.T) {
	b := NewBudget(20, 10*time.Second, 10, time.Second)
	allowed := 0
	for at := time.Duration(0); at < 10*time.Second; at += 5 * time.Millisecond {
		if b.Allow(b.base.Add(at)) {
			allowed++
		}
	}
	if allowed < 90 || allowed > 100 {
		t.Errorf("%d retries in ten seconds without calls, want 90 to 100", allowed)
	}
}

func TestBudgetOfNothingAllowsItsLeastRateOnly(t *testing.T) {
	b := NewBudget(0, time.Second, 1, time.Hour)
	for range 1000 {
		b.Called(b.base)
	}
	if !b.Allow(b.base) || b.Allow(b.base.Add(time.Minute)) {
		t.Error("one retry an hour, and no share of the calls, is not what was allowed")
	}
}

// TestBudgetTakesBack what was not spent, and no more than that.
func TestBudgetTakesBack(t *testing.T) {
	b := NewBudget(0, time.Second, 1, time.Hour)
	for range 3 {
		if !b.Allow(b.base) {
			t.Fatal("what was given back is not there")
		}
		b.GiveBack(b.base)
	}
	b.GiveBack(b.base)
	if !b.Allow(b.base) || b.Allow(b.base) {
		t.Error("a budget of one retry allows another number after more was given back than taken")
	}
}

func TestBudgetSurvivesClocksThatJump(t *testing.T) {
	tests := []struct {
		name string
		jump time.Duration
	}{
		{"ahead", 1000 * time.Hour}, {"back", -1000 * time.Hour}, {"back a little", -3 * time.Second}, {"before the beginning", -time.Hour},
	}
	for _, test := range tests {
		b := NewBudget(20, 10*time.Second, 10, time.Second)
		start := b.base.Add(time.Minute)
		for range 1000 {
			b.Called(start)
			b.Allow(start)
		}
		after := start.Add(test.jump)
		allowed := 0
		for i := range 3000 {
			b.Called(after.Add(time.Duration(i) * 10 * time.Millisecond))
			if b.Allow(after.Add(time.Duration(i) * 10 * time.Millisecond)) {
				allowed++
			}
		}
		if allowed < 300 || allowed > 1000 {
			t.Errorf("%s: %d retries in the 30 s after the jump with 100 calls a second, want 300 to 1000", test.name, allowed)
		}
	}
}

func BenchmarkBudgetCalled(b *testing.B) {
	budget := NewBudget(20, 10*time.Second, 10, time.Second)
	now := time.Now()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			budget.Called(now)
		}
	})
}
