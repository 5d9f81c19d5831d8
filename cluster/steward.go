package cluster

import (
	"github.com/cespare/xxhash/v2"

	"sluice/store"
)

// steward is which live node looks after what a node has written: that one while it
// lives, else the one of all live ones that has the highest number for it. So that no
// node of the rest has other things to look after when one is gone, each node's number
// depends on nothing but itself and the thing.
func (m *membership) steward(id store.ID, writer string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.members[writer]; writer == m.self || n != nil && n.state == Alive {
		return writer
	}
	name := id.Key()
	best, most := m.self, weight(m.self, name)
	for other, n := range m.members {
		if n.state != Alive {
			continue
		}
		if w := weight(other, name); w > most || w == most && other > best {
			best, most = other, w
		}
	}
	return best
}

// weight is the number of a node for a thing.
func weight(node, name string) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(node)
	_, _ = d.WriteString("/")
	_, _ = d.WriteString(name)
	return d.Sum64()
}
