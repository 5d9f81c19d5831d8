package h2

import (
	"runtime"
	"sync"
)

// mutex is a [sync.Mutex] whose Lock tries again before it parks. A connection's
// state is held for well under a microsecond at a time, by many readers; to park
// one for that costs twenty times as much, and hands the lock from parked
// goroutine to parked goroutine, each of which has to be scheduled first: with 50
// clients on one connection they waited for longer than they worked.
type mutex struct{ m sync.Mutex }

const (
	mutexSpins  = 64 // tries while the holder is likely at work on another core
	mutexYields = 8  // tries with other goroutines in between: the holder may be one
)

func (l *mutex) Lock() {
	if !l.m.TryLock() {
		l.lockSlow()
	}
}

//go:noinline
func (l *mutex) lockSlow() {
	for range mutexSpins {
		if l.m.TryLock() {
			return
		}
	}
	for range mutexYields {
		runtime.Gosched()
		if l.m.TryLock() {
			return
		}
	}
	l.m.Lock()
}

func (l *mutex) TryLock() bool { return l.m.TryLock() }

func (l *mutex) Unlock() { l.m.Unlock() }
