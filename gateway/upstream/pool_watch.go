package upstream

import (
	"context"
	"time"
)

const (
	// watchEvery is how often the endpoints are looked at while one of them is on its
	// way somewhere, and restEvery how often when all are as they were.
	watchEvery = 100 * time.Millisecond
	restEvery  = time.Second
	// samplesPerHalf is how often what RPCs took is gathered anew: each half minute.
	samplesPerHalf = int(30 * time.Second / sampleEvery)
)

// watch does what is due of endpoints, until ctx is done: one goroutine for all.
func (p *Pool) watch(ctx context.Context) {
	timer := time.NewTimer(restEvery)
	defer timer.Stop()
	var sampled time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.stirred:
		case <-timer.C:
		}
		now := time.Now()
		sample := now.Sub(sampled) >= sampleEvery
		if sample {
			sampled = now
		}
		restless := false
		p.Endpoints(func(e *Endpoint) { restless = e.look(now, sample) || restless })
		if restless {
			timer.Reset(watchEvery)
		} else {
			timer.Reset(restEvery)
		}
	}
}

// look does what is due of one endpoint, and reports whether something will be soon.
func (e *Endpoint) look(now time.Time, sample bool) (restless bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if sample {
		e.samples.take(&e.tally, e.Active())
		if e.samples.ring != nil && e.samples.next%samplesPerHalf == 0 {
			e.tally.turn()
		}
	}
	e.note(now)
	return false
}
