package cluster

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// forgetAfter is how long a member that is gone is still shown, and looked for.
	forgetAfter = 24 * time.Hour
	// replacedAfter is the same of one at whose address another lives.
	replacedAfter = time.Minute
)

// member is another node, as this one sees it.
type member struct {
	node  memberlist.Node // a copy: memberlist changes its own
	meta  meta
	state State
	since time.Time
}

func (n *member) address() netip.AddrPort {
	at, _ := addressOfNode(&n.node)
	return at
}

// found is told of a node that lives, or says something else of itself.
func (m *membership) found(s *session, node *memberlist.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if node.Name == m.self || s.life != m.life {
		return
	}
	told, err := decodeMeta(node.Meta)
	if err != nil {
		return // it was refused
	}
	n := m.members[node.Name]
	if n == nil {
		n = &member{}
		m.members[node.Name] = n
	}
	n.node, n.meta = *node, told
	n.node.Addr, n.node.Meta = slices.Clone(node.Addr), nil
	if n.state != Alive {
		m.log.Info("gateway joined", "node", node.Name, "host", told.Host, "address", n.address(), "before", cmp.Or(string(n.state), "unknown"))
		n.state, n.since = Alive, m.parts.Now()
		m.turned = n.since
	}
	m.livesChanged()
}

// lost is told of a node that has left or is dead.
func (m *membership) lost(s *session, node *memberlist.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.members[node.Name]
	if n == nil || s.life != m.life {
		return
	}
	n.state, n.since = Dead, m.parts.Now()
	m.turned = n.since
	if m.partings[node.Name].life == n.meta.Life {
		n.state = Left
		m.log.Info("gateway "+m.partings[node.Name].word(), "node", node.Name, "host", n.meta.Host, "address", n.address())
	} else {
		m.log.Warn("gateway is not heard of any more", "node", node.Name, "host", n.meta.Host, "address", n.address())
	}
	m.livesChanged()
}

// parted takes a goodbye, and tells whether it is new here and means somebody.
func (m *membership) parted(s *session, g goodbye) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.members[g.Node]
	if n == nil || s.life != m.life || n.meta.Life != g.Life || m.partings[g.Node].life == g.Life {
		return false
	}
	m.partings[g.Node] = parting{g.Life, g.Ends, m.parts.Now()}
	if n.state == Dead { // word of the death was faster
		n.state = Left
		m.log.Info("gateway had "+m.partings[g.Node].word(), "node", g.Node, "host", n.meta.Host, "address", n.address())
		m.livesChanged()
	}
	return true
}

// goodbyes are those that are told to who joins, the latest first.
func (m *membership) goodbyes() []goodbye {
	m.mu.Lock()
	defer m.mu.Unlock()
	nodes := slices.SortedFunc(maps.Keys(m.partings), func(a, b string) int {
		return cmp.Or(m.partings[b].at.Compare(m.partings[a].at), cmp.Compare(a, b))
	})
	all := make([]goodbye, 0, min(len(nodes), maxGoodbyes))
	for _, node := range nodes[:min(len(nodes), maxGoodbyes)] {
		all = append(all, goodbye{node, m.partings[node].life, m.partings[node].ends})
	}
	return all
}

// livesChanged has follow look at who lives. Its caller holds mu.
func (m *membership) livesChanged() {
	near := map[netip.Addr]int{}
	for _, n := range m.members {
		if n.state == Alive {
			near[n.address().Addr()]++
		}
	}
	m.nearby.Store(&near)
	signal(m.changed)
}

// forgetAll forgets who was there.
func (m *membership) forgetAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.members)
	clear(m.partings)
	clear(m.clashes)
	m.searched = ""
	m.livesChanged()
}

// forget forgets who has been gone for long or was replaced, unless all are gone.
func (m *membership) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.aloneLocked() {
		return
	}
	now, taken := m.parts.Now(), m.takenLocked()
	for id, n := range m.members {
		gone := now.Sub(n.since)
		replaced := n.state != Alive && gone > replacedAfter && taken[n.address()]
		if replaced {
			m.log.Info("gateway forgotten: another lives at its address", "node", id, "host", n.meta.Host, "address", n.address(), "state", n.state)
		}
		if replaced || n.state != Alive && gone > forgetAfter {
			delete(m.members, id)
			delete(m.partings, id)
			signal(m.changed)
		}
	}
	for id, c := range m.clashes {
		if now.Sub(c.last) > clashPatience {
			delete(m.clashes, id)
		}
	}
}

// takenLocked are the addresses at which members live, this node included. Its caller
// holds mu.
func (m *membership) takenLocked() map[netip.AddrPort]bool {
	taken := map[netip.AddrPort]bool{}
	if s := m.current.Load(); s != nil {
		taken[s.at] = true
	}
	for _, n := range m.members {
		if n.state == Alive {
			taken[n.address()] = true
		}
	}
	return taken
}

// aloneLocked tells whether no other node lives. Its caller holds mu.
func (m *membership) aloneLocked() bool {
	for _, n := range m.members {
		if n.state == Alive {
			return false
		}
	}
	return true
}

func (m *membership) alone() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.aloneLocked()
}

// Life is by what a copy of a node that lives, or of this one, is told from it.
func (m *membership) Life(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id == m.self {
		return m.life
	}
	if n := m.members[id]; n != nil {
		return n.meta.Life
	}
	return ""
}

// Live are the other live nodes, in the order of their IDs.
func (m *membership) Live() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for id, n := range m.members {
		if n.state == Alive {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// live are the other live nodes as memberlist knows them.
func (m *membership) live() []memberlist.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	var nodes []memberlist.Node
	for _, n := range m.members {
		if n.state == Alive {
			nodes = append(nodes, n.node)
		}
	}
	return nodes
}

// node is a live node.
func (m *membership) node(id string) (memberlist.Node, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.members[id]
	if n == nil || n.state != Alive {
		return memberlist.Node{}, false
	}
	return n.node, true
}

// hasRoomFor tells whether one more node may be known: whoever has been gone the longest
// makes room for it.
func (m *membership) hasRoomFor(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.members[id] != nil || len(m.members) < maxMembers {
		return true
	}
	oldest := ""
	for id, n := range m.members {
		if n.state != Alive && (oldest == "" || n.since.Before(m.members[oldest].since)) {
			oldest = id
		}
	}
	if oldest == "" {
		return false
	}
	delete(m.members, oldest)
	delete(m.partings, oldest)
	return true
}

// Members are all that are known, in the order of their IDs, this node included.
func (m *membership) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := make([]Member, 0, len(m.members)+1)
	own := Member{
		ID: m.self, Host: m.cfg.Host, Version: m.cfg.Version, Listen: m.cfg.Listen, Admin: m.cfg.Admin,
		Self: true, State: Alive, Since: m.since, Draining: m.draining,
	}
	if s := m.current.Load(); s != nil {
		own.Address = s.at.String()
	} else if m.running {
		own.State = Left
	}
	told = append(told, own)
	for id, n := range m.members {
		told = append(told, Member{
			ID: id, Host: n.meta.Host, Address: n.address().String(), Version: n.meta.Version,
			Listen: n.meta.Listen, Admin: n.meta.Admin, State: n.state, Since: n.since, Draining: n.meta.Draining,
		})
	}
	slices.SortFunc(told, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return told
}
