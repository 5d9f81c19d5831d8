package cluster

import (
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// clashPatience is how long a clash is told of after it was last seen.
	clashPatience = time.Minute
	// clashGrace is how long two nodes of one name are taken for one that was started
	// again at another address, and whose former self is not known dead yet.
	clashGrace = 45 * time.Second
)

// clash is that two nodes have the same name.
type clash struct {
	here, there string // their addresses
	first, last time.Time
}

// conflict is told of a second node with the name of one that lives.
func (m *membership) conflict(s *session, here, there *memberlist.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.life != m.life || len(m.clashes) >= maxMembers {
		return
	}
	now := m.parts.Now()
	c := m.clashes[here.Name]
	if c == nil || now.Sub(c.last) > clashPatience {
		c = &clash{first: now}
		m.clashes[here.Name] = c
	}
	settled := now.Sub(c.first) > clashGrace
	wasSettled := c.last.Sub(c.first) > clashGrace
	c.here, c.there, c.last = here.Address(), there.Address(), now
	if settled && !wasSettled {
		m.log.Error("two nodes have the same name; was a data directory copied?", "node", here.Name, "address", c.here, "other", c.there)
	}
}

// restless tells whether this node's former self may be in its way still.
func (m *membership) restless() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.clashes[m.self]
	return c != nil && m.parts.Now().Sub(c.last) < 3*seekPace
}

// clashProblems are the clashes that last.
func (m *membership) clashProblems() (told []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.parts.Now()
	for id, c := range m.clashes {
		if c.last.Sub(c.first) <= clashGrace || now.Sub(c.last) > clashPatience {
			continue
		}
		who := "two nodes have the name " + id
		if id == m.self {
			who = "another node has the name of this one, " + id
		}
		told = append(told, fmt.Sprintf("%s: they are at %s and %s; was a data directory copied? Edits at either can be lost: stop the copy, and start it with an empty data directory", who, c.here, c.there))
	}
	return told
}
