package h2

import (
	"context"
	"time"
)

const (
	wheelTick  = 5 * time.Millisecond // lateness stays below two ticks
	wheelSlots = 1 << 11              // one turn takes 10.24 s; later deadlines go round again
)

// Timer is a deadline's place in a [Wheel]. It lies inside what it times out, so
// that setting one allocates nothing. The wheel owns its fields.
type Timer struct {
	next, prev *Timer
	at         int64 // tick
	expire     Expirer
}

// Expirer is told that its deadline has passed, on the wheel's goroutine: it must
// not block.
type Expirer interface{ Expire() }

// Wheel is a hashed timing wheel: a deadline costs two list operations, however
// many there are. It fires at most 10 ms late and never early. The zero value is
// ready for use; nothing fires before run.
type Wheel struct {
	mu    mutex // guards the fields below and all Timers in the wheel
	epoch time.Time
	slots [wheelSlots]Timer // heads of circular lists
	done  int64             // the last tick that has been swept
	count int
	next  int64         // the tick that run sleeps until; a timer may be due no earlier
	wake  chan struct{} // buffered; told that run must not sleep that long
}

// Set makes t fire at the given time. A timer that is set already is moved.
func (w *Wheel) Set(t *Timer, at time.Time, e Expirer) {
	w.mu.Lock()
	w.init()
	if t.next != nil {
		t.unlink()
		w.count--
	}
	// A deadline in the middle of a tick waits for the tick's end.
	after := at.Sub(w.epoch) // at most 292 years: adding to it first would go round
	tick := int64(after / wheelTick)
	if after%wheelTick > 0 {
		tick++
	}
	t.at = max(tick, w.done+1)
	t.expire = e
	head := &w.slots[t.at%wheelSlots]
	if head.next == nil {
		head.next, head.prev = head, head
	}
	t.prev, t.next = head.prev, head
	head.prev.next, head.prev = t, t
	w.count++
	if t.at < w.next {
		w.next = t.at
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	w.mu.Unlock()
}

// Stop takes t out of the wheel. Its Expirer may be running already.
func (w *Wheel) Stop(t *Timer) {
	w.mu.Lock()
	if t.next != nil {
		t.unlink()
		w.count--
	}
	w.mu.Unlock()
}

func (t *Timer) unlink() {
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev, t.expire = nil, nil, nil
}

func (w *Wheel) init() {
	if w.wake == nil {
		w.wake = make(chan struct{}, 1)
		w.epoch = time.Now()
		w.next = never
	}
}

// never is a tick that does not come.
const never = 1<<63 - 1

// run turns the wheel until ctx is done. It sleeps until something may be due:
// between RPCs whose deadlines are seconds away nothing wakes the process.
func (w *Wheel) run(ctx context.Context) {
	w.mu.Lock()
	w.init()
	w.mu.Unlock()
	sleep := time.NewTimer(0)
	defer sleep.Stop()
	for {
		now := time.Now()
		w.turn(now)
		var due <-chan time.Time
		if at := w.earliest(); at != never {
			sleep.Reset(w.epoch.Add(time.Duration(at) * wheelTick).Sub(now))
			due = sleep.C
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-due:
		}
	}
}

// earliest is the first tick in which something may be due, and what Set compares
// with from now on. A timer that goes round again makes it too early, never late.
func (w *Wheel) earliest() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = never
	if w.count == 0 {
		return never
	}
	for tick := w.done + 1; ; tick++ {
		if head := &w.slots[tick%wheelSlots]; head.next != nil && head.next != head {
			w.next = tick
			return tick
		}
	}
}

// turn fires what is due and returns how many timers are left.
func (w *Wheel) turn(now time.Time) int {
	w.mu.Lock()
	target := int64(now.Sub(w.epoch) / wheelTick)
	if w.count == 0 {
		w.done = max(w.done, target)
		w.mu.Unlock()
		return 0
	}
	var due []Expirer
	// More than a turn behind, each slot needs one look.
	for tick := max(w.done+1, target-wheelSlots+1); tick <= target; tick++ {
		head := &w.slots[tick%wheelSlots]
		for t := head.next; t != nil && t != head; {
			next := t.next
			if t.at <= target {
				due = append(due, t.expire)
				t.unlink()
				w.count--
			}
			t = next
		}
	}
	w.done = max(w.done, target)
	left := w.count
	w.mu.Unlock()
	for _, e := range due {
		e.Expire()
	}
	return left
}
