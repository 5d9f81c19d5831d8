package cluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/store"
)

const (
	// maxRemembered bounds the peers that a node remembers over restarts.
	maxRemembered = 1000
	// maxPeerAddresses is how many addresses of one peer are remembered, the latest first.
	maxPeerAddresses = 3

	// The rows of Records that are the membership's; the others are the exchange's.
	recordsName = "cluster"
	peerRows    = "peer/"
	solitudeKey = "solitude"
)

// remembered is a peer as it was last seen.
type remembered struct {
	Addresses []string  `json:"addresses"` // of gossip, the latest first
	Host      string    `json:"host,omitempty"`
	Seen      time.Time `json:"seen"` // when it was last found or lost
}

// solitude says that the node has been told to leave, and stays alone.
type solitude struct {
	Since time.Time `json:"since"`
}

// memory is what of the peers outlives a restart.
type memory struct {
	rows  *store.Records
	peers map[string]remembered // by node, as on the disk; replaced as a whole
}

// recall reads what is remembered. What cannot be read is forgotten.
func recall(s *store.Store) (*memory, error) {
	m := &memory{rows: s.Records(recordsName), peers: map[string]remembered{}}
	err := m.rows.Scan(peerRows, func(key string, value []byte) bool {
		id, is := strings.CutPrefix(key, peerRows)
		var peer remembered
		if is && isNodeID(id) && json.Unmarshal(value, &peer) == nil {
			m.peers[id] = peer
		}
		return is
	})
	if err != nil {
		return nil, fmt.Errorf("read the remembered peers: %w", err)
	}
	return m, nil
}

// alone tells whether the node has been told to leave, and when.
func (m *memory) alone() (since time.Time, alone bool, err error) {
	row, found, err := m.rows.Get(solitudeKey)
	if err != nil || !found {
		return since, false, err
	}
	var s solitude
	if err := json.Unmarshal(row, &s); err != nil {
		return since, true, nil // it was told, whenever
	}
	return s.Since, true, nil
}

// leave and join keep over a restart what the node was told.
func (m *memory) leave(now time.Time) error {
	row, err := json.Marshal(solitude{now})
	if err != nil {
		return err
	}
	return m.rows.Put(solitudeKey, row)
}

func (m *memory) join() error { return m.rows.Delete(solitudeKey) }

// keep writes the peers that are others than on the disk, and removes those that are not
// to be remembered. One goroutine does; others read peers under mu.
func (m *memory) keep(mu sync.Locker, peers map[string]remembered) error {
	peers = latest(peers)
	changed := map[string][]byte{} // nil: gone
	for id, peer := range peers {
		if slices.Equal(m.peers[id].Addresses, peer.Addresses) && m.peers[id].Seen.Equal(peer.Seen) {
			continue
		}
		row, err := json.Marshal(peer)
		if err != nil {
			return err
		}
		changed[id] = row
	}
	for id := range m.peers {
		if _, still := peers[id]; !still {
			changed[id] = nil
		}
	}
	if len(changed) == 0 {
		return nil
	}
	err := m.rows.Update(func(tx store.RecordsTx) error {
		for id, row := range changed {
			if row == nil {
				if err := tx.Delete(peerRows + id); err != nil {
					return err
				}
			} else if err := tx.Put(peerRows+id, row); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		mu.Lock()
		defer mu.Unlock()
		m.peers = peers
	}
	return err
}

// latest are the peers that were seen last, at most maxRemembered.
func latest(peers map[string]remembered) map[string]remembered {
	kept := map[string]remembered{}
	for _, id := range byLastSeen(peers)[:min(len(peers), maxRemembered)] {
		kept[id] = peers[id]
	}
	return kept
}

// byLastSeen are the nodes, the one that was seen last first.
func byLastSeen(peers map[string]remembered) []string {
	ids := make([]string, 0, len(peers))
	for id := range peers {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(peers[b].Seen.Compare(peers[a].Seen), cmp.Compare(a, b))
	})
	return ids
}

// at is a peer that was seen at an address.
func (r remembered) at(address netip.AddrPort, host string, seen time.Time) remembered {
	addresses := []string{address.String()}
	for _, other := range r.Addresses {
		if other != addresses[0] && len(addresses) < maxPeerAddresses {
			addresses = append(addresses, other)
		}
	}
	return remembered{Addresses: addresses, Host: host, Seen: seen}
}
