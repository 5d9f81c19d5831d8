package upstream

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
)

const (
	// hintsPerSecond bounds the hints that are looked at, and so what peers can have this
	// gateway do.
	hintsPerSecond = 100
	// hintRest is the least time between two checks of one endpoint for the sake of hints.
	hintRest = time.Second
)

// hints are what peers have said of endpoints, until it has been looked at.
type hints struct {
	mu      sync.Mutex // guards the fields below; waits for nobody
	left    int        // that may come yet in the second that began at since
	since   time.Time
	pending map[endpointName]bool // whether it is said to be down; the newest of each

	checked, known, dropped atomic.Int64
}

func newHints() hints { return hints{pending: make(map[endpointName]bool)} }

// Hint takes in what a peer has seen of an endpoint. It is an opinion: an endpoint that is
// said to be otherwise than this gateway knows it is looked at, soon, and what is found
// counts. It waits for nobody.
func (p *Pool) Hint(backend, address string, down bool) {
	if !p.hints.take(endpointName{backend, address}, down, time.Now()) {
		p.hints.dropped.Add(1)
		return
	}
	p.stir()
}

// Hints returns how many hints had an endpoint looked at, how many said nothing new, and how
// many were too many.
func (p *Pool) Hints() (checked, known, dropped int64) {
	return p.hints.checked.Load(), p.hints.known.Load(), p.hints.dropped.Load()
}

func (h *hints) take(name endpointName, down bool, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Sub(h.since) >= time.Second {
		h.left, h.since = hintsPerSecond, now
	}
	if h.left == 0 || len(h.pending) >= maxObserved {
		return false
	}
	h.left--
	h.pending[name] = down
	return true
}

// heed looks at the endpoints that peers have spoken of. It reports whether some have to
// wait, since they were looked at just now. One goroutine calls it.
func (p *Pool) heed(now time.Time) (restless bool) {
	for name, down := range p.hints.all() {
		for _, e := range p.named(name) {
			if e.heed(down, now) {
				continue
			}
			restless = true
			p.hints.postpone(name, down)
		}
	}
	return restless
}

// all are those that have not been looked at.
func (h *hints) all() map[endpointName]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) == 0 {
		return nil
	}
	pending := h.pending
	h.pending = make(map[endpointName]bool)
	return pending
}

// postpone puts a hint back, unless there is a newer one.
func (h *hints) postpone(name endpointName, down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, newer := h.pending[name]; !newer {
		h.pending[name] = down
	}
}

// named are the endpoints of a backend at an address.
func (p *Pool) named(name endpointName) (list []*Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.known[name.backend]
	if k == nil || k.backend == nil {
		return nil
	}
	for _, e := range k.backend.Endpoints {
		if e.id.address == name.address {
			list = append(list, e)
		}
	}
	return list
}

// heed has the endpoint looked at if it is said to be otherwise than it is known to be. It is
// false when that has to wait.
func (e *Endpoint) heed(down bool, now time.Time) bool {
	var b h2.Batch
	defer b.Flush()
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.isIll() == down || !e.left.IsZero() || e.retired:
		e.pool.hints.known.Add(1)
		return true
	case now.Sub(e.hinted) < hintRest:
		return false
	}
	e.hinted = now
	e.pool.hints.checked.Add(1)
	e.health.ask()
	if down {
		e.suspect(&b)
	} else {
		e.hope(now)
	}
	return true
}

// suspect finds out whether an endpoint is there that seems to be: its connections are asked,
// or one is made where there is none. What comes of it is what comes of any connection. The
// caller holds mu, and flushes b without.
func (e *Endpoint) suspect(b *h2.Batch) {
	switch {
	case e.dialling > 0 || e.pool.ctx.Err() != nil: // it will be known
	case e.http != nil:
		if e.Active() == 0 { // else requests will tell
			e.pool.work.Go(e.tryHTTP1)
		}
	case len(*e.live.Load()) == 0:
		e.connect()
	default:
		for _, c := range *e.live.Load() {
			c.Ask(b)
		}
	}
}

// tryHTTP1 makes a connection as a request would.
func (e *Endpoint) tryHTTP1() {
	if nc, err := e.dialHTTP1(e.pool.ctx); err == nil {
		nc.Close()
	}
}

// hope has an endpoint tried soon that this gateway thinks ill: by the next dial, or by one
// RPC if it is ejected. The caller holds mu.
func (e *Endpoint) hope(now time.Time) {
	if e.hurry != nil {
		close(e.hurry)
		e.hurry = nil
	}
	if e.Condition()&balance.Ejected != 0 {
		e.ejection.hasten(now)
	}
}
