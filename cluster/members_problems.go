package cluster

import (
	"fmt"
	"strings"
	"time"
)

const (
	// driftWorth is how long a member has something else before that is a problem.
	driftWorth = 30 * time.Second
	// clockWorth is how far apart clocks are before that is a problem, and changes are
	// still taken.
	clockWorth = 10 * time.Second
)

// problems are what an operator should know of who is there.
func (m *membership) problems() []string {
	told := append(m.keys.problems(), m.clashProblems()...)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.searched != "" {
		told = append(told, "this node is alone, and looks for its peers: "+m.searched)
	}
	if m.keys == nil && m.cfg.Insecure {
		told = append(told, "gossip is not encrypted (gossip-insecure): whoever reaches its port can join and change every route")
	}
	return told
}

// memberProblems are what an operator should know of live members.
func memberProblems(members []Member, now time.Time) (told []string) {
	for _, m := range members {
		if m.Self || m.State != Alive {
			continue
		}
		who := fmt.Sprintf("gateway %s (%s, %s)", m.ID, m.Host, m.Address)
		if m.Silent {
			told = append(told, fmt.Sprintf("%s: it was not heard of for %s; whether it has the same objects is not known", who, m.silence(now).Round(time.Second)))
		}
		if why := unreached(m); why != "" {
			told = append(told, who+": "+why)
		}
		if m.ClockKnown && m.Clock.Abs() > clockWorth && m.Clock.Abs() <= maxAhead {
			told = append(told, fmt.Sprintf("%s: its clock is %s; beyond %s, changes are refused", who, offsetText(m.Clock), maxAhead))
		}
		if m.Drift && now.Sub(m.DriftSince) > driftWorth {
			told = append(told, fmt.Sprintf("%s: it has other objects than this node, since %s", who, m.DriftSince.UTC().Format(time.RFC3339)))
		}
	}
	return told
}

// unreached says which ways to and from a member do not work.
func unreached(m Member) string {
	var ways []string
	for _, way := range []struct {
		reach Reach
		text  string
	}{
		{m.UDPOut, "UDP to it"}, {m.UDPIn, "UDP from it"}, {m.TCPOut, "TCP to it"}, {m.TCPIn, "TCP from it"},
	} {
		if way.reach == ReachNo {
			ways = append(ways, way.text)
		}
	}
	if len(ways) == 0 {
		return ""
	}
	return "no " + strings.Join(ways, ", no ") + " gets through; gossip needs its port open for both, each way"
}
