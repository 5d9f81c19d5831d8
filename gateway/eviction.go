package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"sluice/gateway/h2"
	"sluice/gateway/upstream"
)

const (
	// longStream is how long a stream has been open that a rebalance may move. Shorter
	// ones move by themselves.
	longStream = 10 * time.Second
	// rebalanceSpread is over how long the streams of a rebalance end, so that their
	// callers do not come back in one moment.
	rebalanceSpread = 10 * time.Second
)

// Why a rebalance is refused.
var (
	ErrNoBackend   = errors.New("no such backend")
	ErrRebalancing = errors.New("its streams are being moved already")
	ErrNotServing  = errors.New("the gateway does not serve")
)

// moving are the rebalances that are under way.
type moving struct {
	long, spread time.Duration

	mu   sync.Mutex      // guards the fields below
	ctx  context.Context // of Run; nil before it
	busy map[string]bool // by the backend's key
	work sync.WaitGroup
}

func newMoving() moving {
	return moving{long: longStream, spread: rebalanceSpread, busy: make(map[string]bool)}
}

// evict ends what is left on drained endpoints when their grace is over, until ctx is
// done; then it waits for the rebalances, which end with it.
func (g *Gateway) evict(ctx context.Context) error {
	g.moving.mu.Lock()
	g.moving.ctx = ctx
	g.moving.mu.Unlock()
	for ctx.Err() == nil {
		next := g.evictOverdue(time.Now())
		var due <-chan time.Time
		if next >= 0 {
			due = time.After(next)
		}
		select {
		case <-ctx.Done():
		case <-due:
		case <-g.pool.Drains():
		}
	}
	g.moving.end()
	return nil
}

// end waits for what is under way, after which nothing begins.
func (m *moving) end() {
	m.mu.Lock()
	m.ctx = nil
	m.mu.Unlock()
	m.work.Wait()
}

// evictOverdue returns when to look again, negative for when something has changed.
func (g *Gateway) evictOverdue(now time.Time) time.Duration {
	list, next := g.pool.Overdue(now)
	var b h2.Batch
	for _, e := range list {
		e.Evict(&b)
	}
	b.Flush()
	return next
}

// evict ends the attempt whose stream s is: the RPC with it, unless another one is under
// way, or it is one that is sent again. The caller holds mu.
func (r *rpc) evict(s *h2.Stream, b *h2.Batch) {
	a := r.attemptOf(s)
	if a == nil || a.endpoint == nil {
		return
	}
	f := r.made(evicted, outcomes[evicted].code, outcomes[evicted].message)
	if r.committed {
		r.tell(a, &f, b)
	} else {
		r.failed(a, &f, b)
	}
}

// long tells whether the RPC is a stream on s that may be moved: it is old enough, and its
// response has begun.
func (r *rpc) long(s *h2.Stream, now time.Time, age time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.ended && r.committed && r.native && now.Sub(r.started) >= age && r.attemptOf(s) != nil
}

// move is one stream that a rebalance ends.
type move struct {
	r *rpc
	s *h2.Stream
}

// Rebalance ends a share of the long streams on those endpoints of a backend that carry
// more than theirs, with UNAVAILABLE: callers open them again, and they come to the others.
// No endpoint gets below its share by that. It returns how many will end, within ten
// seconds, and does not wait for it.
func (g *Gateway) Rebalance(backend string, percent int) (moved int, err error) {
	if percent < 1 || percent > 100 {
		return 0, fmt.Errorf("rebalance backend %q: %d percent, want 1 to 100", backend, percent)
	}
	b := g.pool.Backend(backend)
	if b == nil {
		return 0, fmt.Errorf("rebalance backend %q: %w", backend, ErrNoBackend)
	}
	m := &g.moving
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.ctx == nil || g.draining.Load():
		return 0, fmt.Errorf("rebalance backend %q: %w", backend, ErrNotServing)
	case m.busy[backend]:
		return 0, fmt.Errorf("rebalance backend %q: %w", backend, ErrRebalancing)
	}
	moves := m.plan(b, percent, time.Now())
	if len(moves) == 0 {
		return 0, nil
	}
	g.log.Info("streams are being moved", "backend", backend, "streams", len(moves), "over", m.spread.String())
	m.busy[backend] = true
	ctx := m.ctx
	m.work.Go(func() {
		m.carryOut(ctx, moves)
		m.mu.Lock()
		delete(m.busy, backend)
		m.mu.Unlock()
	})
	return len(moves), nil
}

// plan chooses the streams, at random among those of an endpoint.
func (m *moving) plan(b *upstream.Backend, percent int, now time.Time) (moves []move) {
	total, weights := 0, uint64(0)
	for _, e := range b.Endpoints {
		total += e.Active()
		if e.Usable() {
			weights += uint64(e.Weight())
		}
	}
	if weights == 0 {
		return nil // there is nowhere to move to
	}
	for _, e := range b.Endpoints {
		share := 0
		if e.Usable() {
			share = int((uint64(total)*uint64(e.Weight()) + weights - 1) / weights)
		}
		if e.Active() <= share {
			continue
		}
		var long []move
		e.EachStream(func(s *h2.Stream, k h2.Sink) {
			if r := rpcOf(k); r != nil && r.long(s, now, m.long) {
				long = append(long, move{r, s})
			}
		})
		rand.Shuffle(len(long), func(i, j int) { long[i], long[j] = long[j], long[i] })
		moves = append(moves, long[:min((len(long)*percent+99)/100, e.Active()-share, len(long))]...)
	}
	rand.Shuffle(len(moves), func(i, j int) { moves[i], moves[j] = moves[j], moves[i] })
	return moves
}

// rpcOf is the RPC that hears of a stream to a backend; nil when it is none of the relay's.
func rpcOf(k h2.Sink) *rpc {
	r, _ := k.(*rpc)
	return r
}

// carryOut ends the streams, one after the other.
func (m *moving) carryOut(ctx context.Context, moves []move) {
	start := time.Now()
	for i, mv := range moves {
		if due := time.Until(start.Add(m.spread * time.Duration(i) / time.Duration(len(moves)))); due > time.Millisecond {
			pause(ctx, due)
		}
		if ctx.Err() != nil {
			return
		}
		var b h2.Batch
		mv.r.Ended(mv.s, h2.Ending{How: h2.Evicted}, &b)
		b.Flush()
	}
}
