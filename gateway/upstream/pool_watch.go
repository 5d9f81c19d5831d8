package upstream

import (
	"context"
	"maps"
	"slices"
	"time"

	"sluice/gateway/h2"
)

const (
	// watchEvery is how often the endpoints are looked at while one of them is on its
	// way somewhere, and restEvery how often when all are as they were.
	watchEvery = 100 * time.Millisecond
	restEvery  = time.Second
	// watchPause is between two looks in any case: conditions may change a thousand times
	// a second.
	watchPause = 10 * time.Millisecond
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
		restless := p.heed(now)
		for _, g := range p.everyGroup() {
			more, news := g.look(now, sample)
			restless = restless || more
			p.write(news...)
		}
		timer.Reset(watchPause)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if restless {
			timer.Reset(watchEvery - watchPause)
		} else {
			timer.Reset(restEvery - watchPause)
		}
	}
}

// stir has the endpoints looked at soon.
func (p *Pool) stir() {
	select {
	case p.stirred <- struct{}{}:
	default:
	}
}

func (p *Pool) everyGroup() []*group {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.groups))
}

// look sees what has become of an endpoint, and does what is due; it reports whether
// more will be soon, and what is to be logged. One goroutine calls it.
func (e *Endpoint) look(now time.Time, sample bool) (restless bool, news []*line) {
	var b h2.Batch
	defer b.Flush()
	e.mu.Lock()
	defer e.mu.Unlock()
	if sample {
		e.samples.take(e)
		if e.samples.ring != nil && e.samples.next%samplesPerHalf == 0 {
			e.tally.turn()
		}
	}
	if e.hushed {
		e.listen()
		e.relieve(now)
		if l := e.replace(now, &b); l != nil {
			news = append(news, l)
		}
	}
	e.observe()
	restless = e.ramp(now)
	if l := e.note(now); l != nil {
		news = append(news, l)
	}
	return restless || e.hushed, news
}

// States counts the endpoints of each backend by state, all of which are present.
func (p *Pool) States() map[string]map[string]int {
	counts := make(map[string]map[string]int)
	p.Endpoints(func(e *Endpoint) {
		of := counts[e.Backend()]
		if of == nil {
			of = make(map[string]int, len(states))
			for _, state := range states {
				of[state] = 0
			}
			counts[e.Backend()] = of
		}
		of[e.State()]++
	})
	return counts
}
