package h2

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// transportWatch finds streams that have ended, for readers that wait without
// having asked the socket (see Transport.receive). It looks at a connection once
// each time that it falls silent, 5 to 10 ms later; while something arrives in
// shorter intervals it costs the reader two words of memory, and nobody a system
// call. The zero value finds nothing, and readers then ask for themselves.
type transportWatch struct {
	running atomic.Bool // written under mu

	mu    sync.Mutex // guards the fields below
	noted []*Transport
	wake  chan struct{} // buffered; told when noted stops being empty

	// Owned by run.
	seen []*Transport
}

// watchInterval is the time between two passes over what was noted.
const watchInterval = 5 * time.Millisecond

// watchedTransport is a transport's part in it.
type watchedTransport struct {
	// turn changes with each step of the reader: it is odd while the reader waits
	// without having asked. Written by the reader.
	turn  atomic.Uint32
	noted atomic.Bool // in the watch's list
	met   uint32      // turn at the last pass, owned by run
}

// awake notes that the reader is at work.
func (t *watchedTransport) awake() {
	if turn := t.turn.Load(); turn%2 == 1 {
		t.turn.Store(turn + 1)
	}
}

// runs reports whether there is somebody who looks.
func (w *transportWatch) runs() bool { return w != nil && w.running.Load() }

// note is told by a reader that is about to wait. It returns false when nobody
// looks, and the reader has to ask the socket itself.
func (w *transportWatch) note(t *Transport) bool {
	wt := &t.in.watched
	wt.turn.Store(wt.turn.Load() + 1)
	if wt.noted.Load() {
		return true // run takes it off the list before it looks: it will see this turn
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.running.Load() {
		return false
	}
	wt.noted.Store(true)
	w.noted = append(w.noted, t)
	if len(w.noted) == 1 {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// run looks after the readers until ctx is done.
func (w *transportWatch) run(ctx context.Context) {
	w.begin()
	defer w.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		for w.pass() {
			timer.Reset(watchInterval)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		}
	}
}

func (w *transportWatch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake = make(chan struct{}, 1)
	w.running.Store(true)
}

// end looks a last time at everybody who relies on it.
func (w *transportWatch) end() {
	w.mu.Lock()
	w.running.Store(false)
	left := w.noted
	w.noted = nil
	w.mu.Unlock()
	for _, t := range left {
		t.in.watched.look(t)
	}
}

// pass looks at those that have not moved since the last pass, and strikes them
// off. It reports whether anybody is left.
func (w *transportWatch) pass() bool {
	w.mu.Lock()
	w.seen, w.noted = w.noted, w.seen[:0]
	w.mu.Unlock()
	kept := w.seen[:0]
	for _, t := range w.seen {
		wt := &t.in.watched
		if turn := wt.turn.Load(); turn != wt.met {
			wt.met = turn
			kept = append(kept, t)
		} else {
			wt.look(t)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noted = append(w.noted, kept...)
	clear(w.seen)
	return len(w.noted) > 0
}

// look strikes the transport off the list and then, if the reader waits without
// having asked, asks for it.
func (wt *watchedTransport) look(t *Transport) {
	wt.noted.Store(false)
	if wt.turn.Load()%2 == 1 {
		t.raw.Control(lookAt)
	}
}
