package h2

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// alarm is something with a deadline.
type alarm struct {
	Timer
	mu    sync.Mutex // guards fired
	fired []time.Time
	ring  func() // called on each firing
}

func (a *alarm) Expire() {
	a.mu.Lock()
	a.fired = append(a.fired, time.Now())
	ring := a.ring
	a.mu.Unlock()
	if ring != nil {
		ring()
	}
}

func (a *alarm) times() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fired
}

// wheelLateness is what the wheel promises.
const wheelLateness = 10 * time.Millisecond

func (a *alarm) want(t *testing.T, due time.Time) {
	t.Helper()
	switch fired := a.times(); {
	case len(fired) != 1:
		t.Errorf("fired at %v, want once at %v", fired, due)
	case fired[0].Before(due):
		t.Errorf("fired %v early", due.Sub(fired[0]))
	case fired[0].Sub(due) > wheelLateness:
		t.Errorf("fired %v late", fired[0].Sub(due))
	}
}

// wheelInBubble runs a wheel for as long as the test lasts.
func wheelInBubble(t *testing.T, test func(t *testing.T, w *Wheel)) {
	t.Helper()
	inBubble(t, func(t *testing.T) {
		w := new(Wheel)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { w.run(ctx) })
		defer wg.Wait()
		defer cancel()
		test(t, w)
	})
}

func TestWheelFiresInTime(t *testing.T) {
	for _, d := range []time.Duration{
		0, 1, wheelTick - 1, wheelTick, wheelTick + 1, 3 * wheelTick / 2, 50 * time.Millisecond,
		wheelSlots*wheelTick - 1, wheelSlots * wheelTick, wheelSlots*wheelTick + 1,
		3*wheelSlots*wheelTick + 7*time.Millisecond, time.Hour + 1,
	} {
		t.Run(d.String(), func(t *testing.T) {
			wheelInBubble(t, func(t *testing.T, w *Wheel) {
				var warm alarm
				w.Set(&warm.Timer, time.Now(), &warm)
				time.Sleep(777 * time.Microsecond) // ticks and deadlines do not meet
				var a alarm
				due := time.Now().Add(d)
				w.Set(&a.Timer, due, &a)
				time.Sleep(d + wheelLateness + 1)
				synctest.Wait()
				a.want(t, due)
			})
		})
	}
}

func TestWheelFiresWhatIsPastAtOnce(t *testing.T) {
	wheelInBubble(t, func(t *testing.T, w *Wheel) {
		time.Sleep(time.Minute)
		var a, b alarm
		w.Set(&a.Timer, time.Now().Add(-time.Hour), &a)
		w.Set(&b.Timer, time.Time{}, &b)
		now := time.Now()
		time.Sleep(wheelLateness)
		synctest.Wait()
		a.want(t, now)
		b.want(t, now)
	})
}

func TestWheelTakesDeadlinesThatNeverCome(t *testing.T) {
	wheelInBubble(t, func(t *testing.T, w *Wheel) {
		var a alarm
		w.Set(&a.Timer, time.Now().Add(1<<63-1), &a)
		time.Sleep(24 * time.Hour)
		if fired := a.times(); fired != nil {
			t.Errorf("fired at %v", fired)
		}
		w.Stop(&a.Timer)
	})
}

// Thousands of timers, set, moved and stopped at random.
func TestWheelKeepsThousandsOfTimers(t *testing.T) {
	wheelInBubble(t, func(t *testing.T, w *Wheel) {
		rng := rand.New(rand.NewPCG(1, 2))
		alarms := make([]alarm, 5000)
		due := make([]time.Time, len(alarms)) // zero = stopped
		set := func(i int) {
			due[i] = time.Now().Add(time.Duration(rng.Int64N(int64(40 * time.Second))))
			w.Set(&alarms[i].Timer, due[i], &alarms[i])
		}
		for i := range alarms {
			set(i)
			if i%50 == 0 {
				time.Sleep(time.Duration(rng.Int64N(int64(3 * time.Millisecond))))
			}
		}
		for range 3000 {
			i := rng.IntN(len(alarms))
			if alarms[i].times() != nil {
				continue
			}
			if rng.IntN(2) == 0 {
				w.Stop(&alarms[i].Timer)
				due[i] = time.Time{}
			} else {
				set(i)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for i := range alarms {
			if !due[i].IsZero() {
				alarms[i].want(t, due[i])
			} else if fired := alarms[i].times(); fired != nil {
				t.Errorf("a timer that was stopped fired at %v", fired)
			}
		}
		if w.count != 0 {
			t.Errorf("%d timers are left", w.count)
		}
	})
}

func TestWheelMovesATimer(t *testing.T) {
	wheelInBubble(t, func(t *testing.T, w *Wheel) {
		var a alarm
		w.Set(&a.Timer, time.Now().Add(time.Second), &a)
		due := time.Now().Add(100 * time.Millisecond)
		w.Set(&a.Timer, due, &a) // earlier
		time.Sleep(2 * time.Second)
		a.want(t, due)

		var b alarm
		w.Set(&b.Timer, time.Now().Add(100*time.Millisecond), &b)
		due = time.Now().Add(20 * time.Second)
		w.Set(&b.Timer, due, &b) // later
		time.Sleep(21 * time.Second)
		b.want(t, due)
	})
}

func TestWheelStopsATimerTwice(t *testing.T) {
	wheelInBubble(t, func(t *testing.T, w *Wheel) {
		var never, a alarm
		w.Stop(&never.Timer)
		w.Set(&a.Timer, time.Now().Add(time.Second), &a)
		w.Stop(&a.Timer)
		w.Stop(&a.Timer)
		time.Sleep(2 * time.Second)
		if fired := a.times(); fired != nil || w.count != 0 {
			t.Errorf("fired at %v, %d timers are left", fired, w.count)
		}
		due := time.Now().Add(time.Second)
		w.Set(&a.Timer, due, &a)
		time.Sleep(2 * time.Second)
		a.want(t, due)
	})
}

// An Expirer may set its own timer again, and stop or set others that are due in
// the same tick.
func TestWheelMayBeUsedByExpirers(t *testing.T) {
	wheelInBubble(t, func(t *testing.T, w *Wheel) {
		var again, other alarm
		rounds := 0
		again.ring = func() {
			if rounds++; rounds < 5 {
				w.Set(&again.Timer, time.Now().Add(30*time.Millisecond), &again)
			}
			w.Set(&other.Timer, time.Now().Add(time.Second), &other)
		}
		w.Set(&again.Timer, time.Now().Add(30*time.Millisecond), &again)
		time.Sleep(500 * time.Millisecond)
		if n := len(again.times()); n != 5 {
			t.Errorf("fired %d times, want 5", n)
		}
		w.Stop(&other.Timer)
		time.Sleep(2 * time.Second)
		if fired := other.times(); fired != nil {
			t.Errorf("a timer that was stopped fired at %v", fired)
		}
	})
}

// Whoever stops a timer from many goroutines gets it fired at most once each time
// that it was set, and nothing is lost.
func TestWheelStopRaces(t *testing.T) {
	var w Wheel
	ctx, cancel := context.WithCancel(t.Context())
	var ran sync.WaitGroup
	ran.Go(func() { w.run(ctx) })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				var a alarm
				w.Set(&a.Timer, time.Now().Add(time.Duration(rand.IntN(3))*wheelTick), &a)
				if rand.IntN(2) == 0 {
					w.Set(&a.Timer, time.Now().Add(wheelTick), &a)
				}
				w.Stop(&a.Timer)
				if n := len(a.times()); n > 2 {
					t.Errorf("set at most twice, fired %d times", n)
				}
			}
		})
	}
	wg.Wait()
	cancel()
	ran.Wait()
	if w.count != 0 {
		t.Errorf("%d timers are left", w.count)
	}
}

// A wheel without timers sleeps, and so does one whose timers are far away.
func TestWheelSleeps(t *testing.T) {
	wheelInBubble(t, func(t *testing.T, w *Wheel) {
		var near, far alarm
		w.Set(&far.Timer, time.Now().Add(time.Hour), &far)
		time.Sleep(10 * time.Minute)
		due := time.Now().Add(time.Millisecond)
		w.Set(&near.Timer, due, &near) // wakes it
		time.Sleep(time.Second)
		near.want(t, due)
		w.Stop(&far.Timer)
	})
}

func TestWheelSetsWithoutAllocation(t *testing.T) {
	var w Wheel
	var a alarm
	at := time.Now().Add(time.Minute)
	if n := testing.AllocsPerRun(100, func() {
		w.Set(&a.Timer, at, &a)
		w.Stop(&a.Timer)
	}); n != 0 {
		t.Errorf("%v allocations for a deadline, want none", n)
	}
}
