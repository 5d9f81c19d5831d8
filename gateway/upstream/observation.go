package upstream

import (
	"context"
	"sync"
	"time"

	"sluice/gateway/balance"
)

// Observation is what this gateway has seen of an endpoint: that it is down, ejected or
// stalled, or that it is no more.
type Observation struct {
	Backend string // its key
	Address string
	Down    bool
}

const (
	// maxObserved bounds the endpoints of which peers are still to be told, and what they are
	// told at once. What is beyond is not told.
	maxObserved = 1000
	// observeEvery is the least time between two reports: an endpoint that flaps is one line of
	// each.
	observeEvery = 100 * time.Millisecond
)

// observed is what has changed since it was last asked for: of each endpoint the newest.
type observed struct {
	some chan struct{} // buffered; told that there is something

	mu      sync.Mutex // guards the field below; waits for nobody
	changes map[endpointName]bool
}

type endpointName struct{ backend, address string }

func newObserved() observed {
	return observed{some: make(chan struct{}, 1), changes: make(map[endpointName]bool)}
}

// Observations waits until endpoints have fallen ill, or are well again, by what this gateway
// has found itself, and returns which; nil when ctx is done. One goroutine calls it.
func (p *Pool) Observations(ctx context.Context) []Observation {
	select {
	case <-ctx.Done():
		return nil
	case <-p.observed.some:
	}
	timer := time.NewTimer(observeEvery)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-timer.C:
	}
	return p.observed.take()
}

func (o *observed) take() []Observation {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]Observation, 0, len(o.changes))
	for name, down := range o.changes {
		list = append(list, Observation{name.backend, name.address, down})
	}
	clear(o.changes)
	return list
}

func (o *observed) note(name endpointName, down bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.changes[name]; !known && len(o.changes) == maxObserved {
		return
	}
	o.changes[name] = down
	select {
	case o.some <- struct{}{}:
	default:
	}
}

// isIll tells what peers are told: that it cannot be reached, falls silent, or fails. What
// its health checks say each gateway is told itself. The caller holds mu.
func (e *Endpoint) isIll() bool {
	return e.down != nil || e.Condition()&(balance.Ejected|balance.Stalled) != 0
}

// observe notes whether that has changed. The caller holds mu.
func (e *Endpoint) observe() {
	if ill := e.isIll(); ill != e.ill {
		e.ill = ill
		e.pool.observed.note(endpointName{e.id.backend, e.id.address}, ill)
	}
}
