package cluster

import (
	"context"
	"maps"
	"slices"
	"time"
)

// sweepPace is how often what is old is looked for.
const sweepPace = 20 * time.Second

// follow tells the rest of the program when others live than before, and remembers them,
// until ctx is done.
func (m *membership) follow(ctx context.Context) {
	var last []string
	write := time.NewTimer(memoryPause)
	defer write.Stop()
	sweep := time.NewTicker(sweepPace)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			m.remember()
			return
		case <-m.changed:
			if live := m.Live(); !slices.Equal(live, last) {
				last = live
				m.hooks.Changed()
				m.tellPeers(len(live) + 1)
			}
			write.Reset(memoryPause)
		case <-write.C:
			m.remember()
		case <-sweep.C:
			m.refusals.sweep()
			m.forget()
		}
	}
}

func (m *membership) tellPeers(live int) {
	if m.parts.Peers != nil {
		m.parts.Peers(live)
	}
}

// remember writes who is there, and who was.
func (m *membership) remember() {
	m.mu.Lock()
	peers := maps.Clone(m.memory.peers)
	now := m.parts.Now()
	if !m.aloneLocked() && now.Sub(m.since) > forgetAfter { // they had time to be found
		maps.DeleteFunc(peers, func(id string, peer remembered) bool {
			return m.members[id] == nil && now.Sub(peer.Seen) > forgetAfter
		})
	}
	for id, n := range m.members {
		peers[id] = peers[id].at(n.address(), n.meta.Host, n.since)
	}
	m.mu.Unlock()
	if err := m.memory.keep(&m.mu, peers); err != nil {
		m.refusals.add(notRemembered, "", err.Error())
	}
}
