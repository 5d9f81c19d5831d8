package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// holding is callers who keep streams open for good, as those of a watch do: one that ends
// UNAVAILABLE is opened again, and any other end is a fault.
type holding struct {
	t    *testing.T
	ctx  context.Context
	end  context.CancelFunc
	open sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	active map[string]int
	moved  map[string]int // streams that a backend had and that ended UNAVAILABLE
	faults map[string]int // by text
}

// holdStreams opens n streams, and returns when all of them are answered.
func holdStreams(t *testing.T, g *gateway, n int) *holding {
	t.Helper()
	h := &holding{t: t, active: map[string]int{}, moved: map[string]int{}, faults: map[string]int{}}
	h.ctx, h.end = context.WithCancel(context.Background())
	t.Cleanup(h.stop)
	clients := newClients(t, []string{g.address}, connsOf())
	for i := range n {
		c := clients[i%len(clients)]
		h.open.Go(func() {
			for h.ctx.Err() == nil {
				h.hold(c)
			}
		})
	}
	eventually(t, patience, fmt.Sprintf("%d streams are open", n), func() bool { return total(h.counts()) == n })
	return h
}

// hold opens a stream and keeps it until it ends.
func (h *holding) hold(c *client) {
	stream, err := c.stub.FullDuplexCall(h.ctx)
	if err != nil {
		h.fault(err)
		return
	}
	name, err := say(stream, fmt.Sprintf("%x", newNonce(0)))
	if err != nil {
		h.fault(err)
		return
	}
	h.add(h.active, name, 1)
	defer h.add(h.active, name, -1)
	_, err = stream.Recv()
	switch {
	case h.ctx.Err() != nil:
	case status.Code(err) == codes.Unavailable:
		h.add(h.moved, name, 1)
	case errors.Is(err, io.EOF):
		h.fault(errors.New("an end that nobody asked for"))
	default:
		h.fault(err)
	}
}

func (h *holding) fault(err error) {
	if h.ctx.Err() == nil {
		h.add(h.faults, err.Error(), 1)
	}
}

func (h *holding) add(to map[string]int, key string, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	to[key] += n
}

func (h *holding) counts() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.active)
}

func (h *holding) movedFrom() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.moved)
}

func (h *holding) stop() {
	h.end()
	h.open.Wait()
}

// judge adds to the line that no stream ended in another way.
func (h *holding) judge(s *scenario) {
	s.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	s.want(len(h.faults) == 0, "no stream ends but UNAVAILABLE", "%d ended otherwise", total(h.faults))
	if len(h.faults) > 0 {
		s.t.Logf("ends: %v", h.faults)
	}
}

func TestDrainEndsStreamsAfterItsGrace(t *testing.T) {
	longOnly(t)
	const n = 400
	s := begin(t, "one of four is drained with a grace of 2 s, %d streams that never end by themselves", n)
	backends := startBackends(t, 4, "b")
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), "", ""))
	h := holdStreams(t, g, n)
	had := h.counts()["b1"]
	g.sluice("", "backend", "drain", "test", backends[0].address(), "--grace", "2s")
	drained := time.Now()
	wait(1500 * time.Millisecond)
	early := h.movedFrom()["b1"]
	gone := eventually(t, patience, "b1 has no stream", func() bool { return h.counts()["b1"] == 0 })
	took := time.Since(drained)
	wait(500 * time.Millisecond)
	after := h.counts()
	moved := h.movedFrom()
	s.note("it had %d", had)
	s.want(early == 0, "none ends before the grace does", "%d ended before 1.5 s", early)
	s.want(gone >= 0 && took < 3*time.Second, "all within 3 s", "all gone after %.1f s", took.Seconds())
	s.want(total(moved) == had, "no other stream", "%d streams ended", total(moved))
	s.want(after["b1"] == 0 && total(after) == n, "all open again elsewhere", "%d open elsewhere", total(after)-after["b1"])
	h.judge(s)
}

func TestRebalanceMovesStreams(t *testing.T) {
	longOnly(t)
	const n = 400
	s := begin(t, "two endpoints join four that have %d streams, and what is too much is moved by rebalance", n)
	old, added := startBackends(t, 4, "old"), startBackends(t, 2, "new")
	g := startGateway(t)
	g.apply(manifest(endpoints(old...), "", ""))
	h := holdStreams(t, g, n)
	r := load{rate: 500}.begin(t, g)
	wait(11 * time.Second) // younger streams are left alone
	g.apply(backendManifest(endpoints(append(old, added...)...), ""))
	wait(time.Second)
	before := h.counts()
	g.sluice("", "backend", "rebalance", "test")
	wait(12 * time.Second)
	after := h.counts()
	all := r.stop()
	s.noneFailed(all)
	s.want(before["new1"]+before["new2"] == 0, "none before", "the new ones had %d before", before["new1"]+before["new2"])
	least := min(after["new1"], after["new2"])
	// A stream that is moved may come to an old endpoint again: two of three are old.
	s.want(least >= n/6/2, "half of the mean at least", "%d and %d after, %d streams moved", after["new1"], after["new2"], total(h.movedFrom()))
	s.want(total(after) == n, "all open", "%d open", total(after))
	h.judge(s)
}
