package observe

import (
	"context"
	"time"
)

// What a series did of late is read off its counter of starts, now and then: RPCs
// pay nothing for it.
const (
	sampleEvery = 5 * time.Second
	// recentSamples reach back a minute even when the last has just been taken.
	recentSamples = int(time.Minute/sampleEvery) + 1
	// retiredSamples are how long a retired series waits for a scrape: five minutes.
	retiredSamples = int(5 * time.Minute / sampleEvery)
)

// recent is how many RPCs of a series had started at the last samples.
type recent [recentSamples]uint64

// Run samples the series until ctx is done.
func (m *Metrics) Run(ctx context.Context) error {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			m.sample()
		}
	}
}

// sample notes where the counters are. Series without an RPC cost one look.
func (m *Metrics) sample() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.series {
		s.sample(m.samples)
	}
	m.samples++
	for s := range m.retired {
		if s.age++; s.age >= retiredSamples {
			m.dropAtRest(s)
		}
	}
}

// sample takes the place of the oldest one. The caller holds Metrics.mu.
func (s *Series) sample(n int) {
	started := s.Started()
	if s.recent == nil {
		if started == 0 {
			return
		}
		s.recent = new(recent) // until now there was none
	}
	s.recent[n%recentSamples] = started
}

// Recent is how many RPCs have started in the last minute, and in up to five
// seconds before it.
func (m *Metrics) Recent(s *Series) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.recent == nil {
		return s.Started()
	}
	return s.Started() - s.recent[m.samples%recentSamples]
}
