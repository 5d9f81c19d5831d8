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
	sharing := 0
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
			live, share := m.Live(), m.sharing()
			joined := !slices.Equal(live, last)
			if joined {
				m.hooks.Changed()
			}
			if joined || share != sharing {
				m.tellPeers(share)
			}
			last, sharing = live, share
			write.Reset(memoryPause)
		case <-write.C:
			m.remember()
		case <-sweep.C:
			m.refusals.sweep()
			m.forget()
		}
	}
}

// sharing is how many live nodes take clients: those that drain are left out, but for this
// one, whose clients have a part as long as it has any.
func (m *membership) sharing() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 1
	for _, other := range m.members {
		if other.state == Alive && !other.meta.Draining {
			n++
		}
	}
	return n
}

func (m *membership) tellPeers(sharing int) {
	if m.parts.Peers != nil {
		m.parts.Peers(sharing)
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
