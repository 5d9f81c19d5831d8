package gateway

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"sluice/gateway/h2"
)

// drainSpread is over how long the first GOAWAYs are spread, at most, so that
// clients do not all reconnect elsewhere in one moment.
const drainSpread = time.Second

// lastWords is how long the end of a stream whose grace is over may take to reach
// its client.
const lastWords = time.Second

// drain lets what is open come to its end within the grace.
func (g *Gateway) drain(http1 *http1) {
	g.draining.Store(true)
	start := time.Now()
	g.log.Info("draining", "connections", len(g.engine.Conns(h2.Downstream)),
		"streams", g.engine.Counts(h2.Downstream).Streams, "grace", g.cfg.grace().String())
	if g.cfg.DrainDelay > 0 {
		time.Sleep(g.cfg.DrainDelay)
	}
	g.listener.StopAccepting()
	deadline := time.Now().Add(g.cfg.grace())
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		var both sync.WaitGroup
		both.Go(func() { g.web.Drain(ctx) }) // WebSockets, which HTTP/1 knows nothing of any more
		http1.drain(ctx)
		both.Wait()
	}()
	g.goAway(ctx)
	g.engine.AwaitDrained(ctx, h2.Downstream)
	if left := g.engine.Counts(h2.Downstream).Streams; left > 0 {
		g.endStreams()
	}
	<-closed
	g.log.Info("drained", "took", time.Since(start).Round(time.Millisecond).String())
}

// goAway asks every client to go elsewhere, at a random moment each.
func (g *Gateway) goAway(ctx context.Context) {
	conns := g.engine.Conns(h2.Downstream)
	spread := min(drainSpread, g.cfg.grace()/10)
	rand.Shuffle(len(conns), func(i, j int) { conns[i], conns[j] = conns[j], conns[i] })
	start := time.Now()
	var b h2.Batch
	for i, c := range conns {
		if due := start.Add(spread * time.Duration(i) / time.Duration(len(conns))); time.Until(due) > time.Millisecond {
			pause(ctx, time.Until(due))
		}
		c.Drain(&b)
		b.Flush()
	}
}

// endStreams ends what is left with a status, not with a reset.
func (g *Gateway) endStreams() {
	var b h2.Batch
	for _, c := range g.engine.Conns(h2.Downstream) {
		c.EndStreams(&b)
	}
	b.Flush()
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	g.engine.AwaitDrained(ctx, h2.Downstream)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
