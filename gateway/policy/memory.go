package policy

import (
	"context"
	"math"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

const (
	// memoryEvery is how often memory is looked at. Ten thousand streams that begin in
	// that time take some tens of megabytes.
	memoryEvery = 100 * time.Millisecond
	// shortAt and enoughAt are percent of the limit: memory is short from the one on, and
	// enough again below the other.
	shortAt, enoughAt = 90, 85
	// staleAfter is how old the collector's last count may be for a verdict.
	staleAfter = time.Second
)

// Memory watches what the process holds against the limit that the Go runtime has
// (GOMEMLIMIT). It asks for what the collector found to be alive, since garbage fills
// the limit in the best of times.
type Memory struct {
	short atomic.Bool
	times atomic.Int64

	// Owned by Run.
	read    func() usage
	collect func()
	cycles  uint64    // of the collector, at the last look
	counted time.Time // when they last changed
}

// usage is what the runtime tells.
type usage struct {
	held   uint64 // alive at the collector's last count, and what no collector frees, bytes
	limit  uint64 // bytes; no limit is math.MaxInt64
	cycles uint64 // of the collector
}

// NewMemory returns a guard that finds memory enough until Run has looked.
func NewMemory() *Memory {
	samples := make([]metrics.Sample, len(memoryMetrics))
	for i, name := range memoryMetrics {
		samples[i].Name = name
	}
	return &Memory{read: func() usage { return readUsage(samples) }, collect: runtime.GC}
}

// Short tells whether nothing new should begin.
func (m *Memory) Short() bool { return m.short.Load() }

// Times is how often memory has become short.
func (m *Memory) Times() int64 { return m.times.Load() }

// Run watches until ctx is done.
func (m *Memory) Run(ctx context.Context) error {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			m.look(now)
		}
	}
}

// look judges what is held. Between two collections nobody knows what is alive of what
// has come, and gone, since: where the last count would change the verdict, or uphold a
// shortage, and is old, the collector is asked for another one.
func (m *Memory) look(now time.Time) {
	u := m.read()
	if u.limit == 0 || u.limit >= math.MaxInt64 {
		m.short.Store(false)
		return
	}
	if u.cycles != m.cycles {
		m.cycles, m.counted = u.cycles, now
	}
	short := m.short.Load()
	switch percent := float64(u.held) / float64(u.limit) * 100; {
	case percent >= shortAt, short && percent >= enoughAt:
		if now.Sub(m.counted) > staleAfter {
			m.collect()
			m.counted = now
			return
		}
		if !short {
			m.times.Add(1)
		}
		m.short.Store(true)
	default:
		m.short.Store(false)
	}
}

const (
	liveBytes = iota
	totalBytes
	objectBytes
	unusedBytes
	freeBytes
	releasedBytes
	limitBytes
	collections
)

var memoryMetrics = [...]string{
	liveBytes:     "/gc/heap/live:bytes",
	totalBytes:    "/memory/classes/total:bytes",
	objectBytes:   "/memory/classes/heap/objects:bytes",
	unusedBytes:   "/memory/classes/heap/unused:bytes",
	freeBytes:     "/memory/classes/heap/free:bytes",
	releasedBytes: "/memory/classes/heap/released:bytes",
	limitBytes:    "/gc/gomemlimit:bytes",
	collections:   "/gc/cycles/total:gc-cycles",
}

func readUsage(samples []metrics.Sample) usage {
	metrics.Read(samples)
	value := func(i int) uint64 { return samples[i].Value.Uint64() }
	other := value(totalBytes) - value(objectBytes) - value(unusedBytes) - value(freeBytes) - value(releasedBytes)
	return usage{held: value(liveBytes) + other, limit: value(limitBytes), cycles: value(collections)}
}
