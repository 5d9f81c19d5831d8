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
	wake  chan struct{} // buffered; told when the wheel stops being empty
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
	if w.count == 1 {
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
	}
}

// run turns the wheel until ctx is done. It sleeps while nothing is set.
func (w *Wheel) run(ctx context.Context) {
	w.mu.Lock()
	w.init()
	w.mu.Unlock()
	tick := time.NewTicker(wheelTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if w.turn(time.Now()) > 0 {
			continue
		}
		tick.Stop()
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		tick.Reset(wheelTick)
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
