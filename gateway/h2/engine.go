package h2

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Engine is what the connections of one process share: limits, deadlines, memory
// budgets and counters.
type Engine struct {
	limits Limits
	wheel  Wheel

	grown  atomic.Int64 // window granted beyond the initial one, bytes
	queued atomic.Int64 // DATA that waits in stream queues, bytes
	stats  [2]sideStats // by side: downstream, upstream

	mu    sync.Mutex            // guards the fields below
	conns [2]map[*Conn]struct{} // by side
	over  [2]bool               // by side: no connection begins any more
}

// Side tells the two kinds of peer apart in counters.
type Side uint8

const (
	Downstream Side = iota // clients, to whom we are the server
	Upstream               // backends, to whom we are the client
)

func (s Side) String() string { return [...]string{"downstream", "upstream"}[s] }

// sideStats are only ever added to, except open and streams.
type sideStats struct {
	opened, open      atomic.Int64
	streams           atomic.Int64 // open now
	bytesIn, bytesOut atomic.Int64 // of frames, below TLS
	closed            [numReasons]atomic.Int64
	rejected          [numReasons]atomic.Int64
}

// NewEngine returns an engine with the given limits, zero fields defaulted.
func NewEngine(l Limits) *Engine {
	return &Engine{limits: l.withDefaults(), conns: [2]map[*Conn]struct{}{make(map[*Conn]struct{}), make(map[*Conn]struct{})}}
}

// Limits returns the limits in force.
func (e *Engine) Limits() Limits { return e.limits }

// Wheel returns the engine's deadlines, which run while Run does.
func (e *Engine) Wheel() *Wheel { return &e.wheel }

// sweepEvery is how often connections are looked at for peers that do not take
// what waits for them, and for idleness.
const sweepEvery = time.Second

// Run turns the wheel and sweeps the connections until ctx is done.
func (e *Engine) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { e.wheel.run(ctx) })
	defer wg.Wait()
	tick, look := time.NewTicker(e.limits.sweepEvery()), time.NewTicker(silenceEvery)
	defer tick.Stop()
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-look.C:
			e.listen(now)
		case now := <-tick.C:
			e.sweep(now)
		}
	}
}

// listen looks for backends that let RPCs wait and say nothing.
func (e *Engine) listen(now time.Time) {
	var b Batch
	for _, c := range e.Conns(Upstream) {
		c.checkSilence(now, &b)
	}
	b.Flush()
}

func (e *Engine) sweep(now time.Time) {
	var b Batch
	conns := append(e.Conns(Downstream), e.Conns(Upstream)...)
	for _, c := range conns {
		c.check(now, &b)
	}
	for e.queued.Load() > e.limits.QueueBudget {
		if !shedLargest(conns, &b) {
			break
		}
	}
	b.Flush()
}

// shedLargest ends the stream with the longest queue. It reports whether there
// was one.
func shedLargest(conns []*Conn, b *Batch) bool {
	var worst *Stream
	size := 0
	for _, c := range conns {
		if s, n := c.longestQueue(); n > size {
			worst, size = s, n
		}
	}
	if worst == nil {
		return false
	}
	worst.end(b, Overloaded, ReasonOverload)
	return true
}

// register reports whether connections of that side may still begin.
func (e *Engine) register(c *Conn) bool {
	e.mu.Lock()
	if e.over[c.side] {
		e.mu.Unlock()
		return false
	}
	e.conns[c.side][c] = struct{}{}
	e.mu.Unlock()
	st := &e.stats[c.side]
	st.opened.Add(1)
	st.open.Add(1)
	return true
}

func (e *Engine) unregister(c *Conn, why Reason) {
	e.mu.Lock()
	delete(e.conns[c.side], c)
	e.mu.Unlock()
	st := &e.stats[c.side]
	st.open.Add(-1)
	st.closed[why].Add(1)
}

// Conns returns the connections of one side that are open now.
func (e *Engine) Conns(side Side) []*Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	conns := make([]*Conn, 0, len(e.conns[side]))
	for c := range e.conns[side] {
		conns = append(conns, c)
	}
	return conns
}

// Abort ends every connection of one side at once, and those that begin later.
func (e *Engine) Abort(side Side) {
	e.mu.Lock()
	e.over[side] = true
	e.mu.Unlock()
	for _, c := range e.Conns(side) {
		c.abort(ReasonClosed)
	}
}

// Counts is a reading of one side's counters.
type Counts struct {
	Opened, Open, Streams, BytesIn, BytesOut int64
	Closed, Rejected                         map[string]int64 // by reason, all present
}

// Counts reads the counters of one side.
func (e *Engine) Counts(side Side) Counts {
	st := &e.stats[side]
	c := Counts{
		Opened: st.opened.Load(), Open: st.open.Load(), Streams: st.streams.Load(),
		BytesIn: st.bytesIn.Load(), BytesOut: st.bytesOut.Load(),
		Closed: make(map[string]int64, numReasons), Rejected: make(map[string]int64, numReasons),
	}
	for r := range numReasons {
		c.Closed[r.String()] = st.closed[r].Load()
		c.Rejected[r.String()] = st.rejected[r].Load()
	}
	return c
}

// Queued returns how many bytes of DATA wait in stream queues.
func (e *Engine) Queued() int64 { return e.queued.Load() }

// drainLook is how soon AwaitDrained finds a connection that came in late.
const drainLook = 50 * time.Millisecond

// AwaitDrained asks the peer of every connection of a side to go elsewhere, also of
// those that are on their way in as they come, and waits until none is left or ctx
// is done.
func (e *Engine) AwaitDrained(ctx context.Context, side Side) {
	for ctx.Err() == nil {
		conns := e.Conns(side)
		if len(conns) == 0 {
			return
		}
		var b Batch
		for _, c := range conns {
			c.Drain(&b) // once; again it does nothing
		}
		b.Flush()
		select {
		case <-ctx.Done():
		case <-conns[0].Done():
		case <-time.After(drainLook):
		}
	}
}
