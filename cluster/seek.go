package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// seekPace is how often a node looks for those that it misses, a fifth more or less.
	seekPace = 5 * time.Second
	// seekPaceFirst is the first pause of a node that begins, and finds nobody: others may
	// be beginning, too. It doubles up to seekPace.
	seekPaceFirst = 250 * time.Millisecond
	// seekPatience bounds one such look.
	seekPatience = 8 * time.Second
	// lookupPatience bounds the lookup of a name.
	lookupPatience = 4 * time.Second
	// wideRounds is in which rounds a node that is not alone looks for those it was told
	// to join, or remembers, all the same: two clusters that began apart do not know of
	// each other.
	wideRounds = 6
	// vainRounds is how often nobody was found before the log says so: those who are
	// started together find each other sooner.
	vainRounds = 4
	// maxSought bounds the missing and the remembered that are tried in one round.
	maxSought = 3
	// maxAcquainted is the same of a node that is alone.
	maxAcquainted = 8
	// maxResolved bounds the addresses that names stand for.
	maxResolved = 64
)

// seek joins who is configured and who was known before, and looks again and again for
// those that are missing, until ctx is done.
func (m *membership) seek(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pace := seekPaceFirst
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(pace - pace/5 + rand.N(2*pace/5))
		pace = min(2*pace, seekPace)
		m.look(ctx, round)
	}
}

// look tries to find whoever is missing.
func (m *membership) look(ctx context.Context, round int) {
	s := m.current.Load()
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, seekPatience)
	defer cancel()
	if m.alone() {
		m.lookForAnybody(ctx, s)
		return
	}
	m.setSearched("")
	targets := m.missing()
	if m.restless() {
		targets = append(targets, m.some(Alive, 2)...)
	} else if m.unsettled() {
		targets = append(targets, m.some(Alive, 1)...)
	}
	if round%wideRounds == wideRounds-1 {
		configured, _ := m.resolve(ctx, m.cfg.Join)
		targets = append(targets, pick(m.strange(append(configured, m.unseen()...)), maxSought)...)
	}
	_, _ = s.joinAll(ctx, targets) // those that still miss are shown as dead
}

// lookForAnybody is the look of a node that is alone.
func (m *membership) lookForAnybody(ctx context.Context, s *session) {
	targets, trouble := m.acquaintances(ctx)
	answered, err := s.joinAll(ctx, targets)
	if answered > 0 {
		m.setSearched("")
		return
	}
	err = errors.Join(trouble, err)
	switch {
	case err == nil && len(m.cfg.Join) == 0:
		return // there is nobody to look for
	case err == nil:
		err = fmt.Errorf("%s (join) leads to this node alone", strings.Join(m.cfg.Join, ", "))
	}
	if ctx.Err() != context.Canceled {
		m.setSearched(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// setSearched keeps why nobody was found, and says so once when that lasts.
func (m *membership) setSearched(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.searched = why
	if why == "" {
		m.lookedInVain = 0
		return
	}
	if m.lookedInVain++; m.lookedInVain == vainRounds {
		m.log.Warn("nobody to gossip with has answered; trying again", "every", seekPace, "why", why)
	}
}

// acquaintances are the addresses of all that a lonely node can think of: who it was told
// to join, who was there before, some of those who were there before it was started.
func (m *membership) acquaintances(ctx context.Context) ([]netip.AddrPort, error) {
	targets, err := m.resolve(ctx, m.cfg.Join)
	targets = append(targets, m.some(Dead, maxAcquainted)...)
	targets = append(targets, m.some(Left, maxAcquainted)...)
	m.mu.Lock()
	peers := m.memory.peers // replaced as a whole
	m.mu.Unlock()
	ids := byLastSeen(peers)
	if len(ids) > maxAcquainted { // the latest, and others in turn
		ids = append(ids[:maxAcquainted/2:maxAcquainted/2], pick(ids[maxAcquainted/2:], maxAcquainted/2)...)
	}
	for _, id := range ids {
		for _, address := range peers[id].Addresses {
			if at, err := netip.ParseAddrPort(address); err == nil {
				targets = append(targets, at)
			}
		}
	}
	return m.others(targets), err
}

// unseen are the addresses of those that are remembered, and were not seen since the
// start.
func (m *membership) unseen() (found []netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, peer := range m.memory.peers {
		if m.members[id] == nil && len(peer.Addresses) > 0 {
			if at, err := netip.ParseAddrPort(peer.Addresses[0]); err == nil {
				found = append(found, at)
			}
		}
	}
	return m.others(found)
}

// unsettled tells whether others live since a while ago: now and then word of one does not
// get to everybody, and memberlist compares who is there twice a minute at most.
func (m *membership) unsettled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.parts.Now().Sub(m.turned) < 3*seekPace
}

// missing are some members that are dead and have not left.
func (m *membership) missing() []netip.AddrPort { return m.some(Dead, maxSought) }

// some are the addresses of some members in a state.
func (m *membership) some(state State, most int) []netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []netip.AddrPort
	for _, n := range m.members {
		if n.state == state {
			found = append(found, n.address())
		}
	}
	return pick(found, most)
}

// pick are some of a list, others each time.
func pick[T any](list []T, most int) []T {
	list = slices.Clone(list)
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(len(list), most)]
}

// strange are the addresses at which no member lives.
func (m *membership) strange(all []netip.AddrPort) []netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := map[netip.AddrPort]bool{}
	for _, n := range m.members {
		known[n.address()] = known[n.address()] || n.state == Alive
	}
	return slices.DeleteFunc(all, func(at netip.AddrPort) bool { return known[at] })
}

// others are addresses, each once, without those of this node.
func (m *membership) others(all []netip.AddrPort) (others []netip.AddrPort) {
	s := m.current.Load()
	for _, at := range all {
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		if !slices.Contains(others, at) && (s == nil || !m.isSelf(s, at)) {
			others = append(others, at)
		}
	}
	return others
}

// isSelf tells whether an address leads to this node, as far as can be seen.
func (m *membership) isSelf(s *session, at netip.AddrPort) bool {
	if at == s.at {
		return true
	}
	own, is := m.base.(*sockets)
	return is && own.hears(at)
}

// resolve looks up addresses of peers. The error tells which have no answer.
func (m *membership) resolve(ctx context.Context, peers []string) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	found := make([][]netip.AddrPort, len(peers))
	failed := make([]error, len(peers))
	var lookups sync.WaitGroup
	for i, peer := range peers {
		lookups.Go(func() { found[i], failed[i] = m.resolveOne(ctx, peer) })
	}
	lookups.Wait()
	all := m.others(slices.Concat(found...))
	return all[:min(len(all), maxResolved)], errors.Join(failed...)
}

func (m *membership) resolveOne(ctx context.Context, peer string) ([]netip.AddrPort, error) {
	host, port, err := splitPeer(peer)
	if err != nil {
		return nil, err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(addr, port)}, nil
	}
	addrs, err := m.lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("look up %q: %w", host, err)
	}
	var found []netip.AddrPort
	for _, addr := range addrs {
		found = append(found, netip.AddrPortFrom(addr, port))
	}
	return found, nil
}
