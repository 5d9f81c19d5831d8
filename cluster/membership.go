package cluster

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// goodbyePatience is how long the end waits until somebody has heard the goodbye.
	goodbyePatience = 2 * time.Second
	// maxStrangePackets is how many packets a second are taken from addresses that are no
	// member's.
	maxStrangePackets = 2000
	// memoryPause gathers what changes before it is written, in bursts such as a start.
	memoryPause = time.Second
)

var (
	errNotRunning = errors.New("the cluster part of this node is not running")
	errAlone      = errors.New("this node has left its cluster; sluice cluster join ends that")
)

// membership is who is there: one session after the other, a new one after each time that
// the node has left. It is the courier of the exchange.
type membership struct {
	// Fixed at construction.
	cfg      Config
	parts    Parts
	hooks    hooks
	log      *slog.Logger
	self     string
	base     memberlist.NodeAwareTransport
	keys     *keyring // nil: none
	refusals *refusals
	memory   *memory // owned by Run's children, one after the other
	lookup   func(ctx context.Context, host string) ([]netip.Addr, error)

	traffic struct{ packetsIn, packetsOut, streamsIn, streamsOut atomic.Uint64 }
	dropped atomic.Uint64
	// nearby are the addresses of live members, and how many are at each.
	nearby atomic.Pointer[map[netip.Addr]int]
	// current is the session; nil while the node is alone.
	current atomic.Pointer[session]

	// switching is full while a session begins or ends. It is taken before mu.
	switching chan struct{}

	changed chan struct{} // who lives, or what is remembered, may have changed
	tell    chan struct{} // the metadata have changed

	mu       sync.Mutex // guards the fields below
	running  bool
	draining bool
	drained  time.Time // when draining was set last
	life     string    // of the session that may tell of members; empty: none
	since    time.Time // this node has been as it is
	turned   time.Time // another set of nodes lives
	members  map[string]*member
	partings map[string]parting
	clashes  map[string]*clash // by node: two nodes with one name
	searched string            // why nobody of whom it looked for was found, at last
	// lookedInVain is how often that was in a row.
	lookedInVain int
}

var _ courier = (*membership)(nil)

// openMembership opens the sockets, and joins nobody yet. Run, or close, ends them.
func openMembership(cfg Config, parts Parts, hooks hooks, log *slog.Logger) (*membership, error) {
	if err := cfg.Validate(); err != nil && parts.Transport == nil {
		return nil, err
	}
	keys, err := openKeyring(cfg.KeyFile, log)
	if err != nil {
		return nil, err
	}
	remembered, err := recall(parts.Store)
	if err != nil {
		return nil, err
	}
	m := &membership{
		cfg: cfg, parts: parts, hooks: hooks, log: log, self: parts.Store.Node(), base: parts.Transport,
		keys: keys, refusals: newRefusals(parts.Now, log), memory: remembered, lookup: parts.lookup,
		switching: make(chan struct{}, 1),
		changed:   make(chan struct{}, 1), tell: make(chan struct{}, 1),
		members: map[string]*member{}, partings: map[string]parting{}, clashes: map[string]*clash{},
		since: parts.Now(),
	}
	m.nearby.Store(&map[netip.Addr]int{})
	if m.lookup == nil {
		m.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if m.base == nil {
		if m.base, err = m.openSockets(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// openSockets binds what is configured, and finds out where peers reach it.
func (m *membership) openSockets() (*sockets, error) {
	bind, err := parseBind(m.cfg.Bind)
	if err != nil {
		return nil, err
	}
	advertise, err := parseAdvertise(m.cfg.Advertise)
	if err != nil {
		return nil, err
	}
	if !advertise.IsValid() {
		machine, err := machineAddresses()
		if err != nil {
			return nil, err
		}
		addr, err := findAdvertise(bind.Addr(), machine, m.log)
		if err != nil {
			return nil, err
		}
		advertise = netip.AddrPortFrom(addr, 0)
	}
	return openSockets(bind, advertise, m)
}

// close ends what Run would.
func (m *membership) close() error { return m.base.Shutdown() }

// label is what keeps clusters apart.
func (m *membership) label() string {
	if m.cfg.Label == "" {
		return defaultLabel
	}
	return m.cfg.Label
}

// Run takes part until ctx is done, then says goodbye. Its goroutines have ended when it
// returns.
func (m *membership) Run(ctx context.Context) error {
	inner, end := context.WithCancel(context.WithoutCancel(ctx)) // outlives the goodbye
	var children sync.WaitGroup
	children.Go(func() { m.pumpPackets(inner) })
	children.Go(func() { m.pumpStreams(inner) })
	children.Go(func() { m.keys.Run(inner) })
	children.Go(func() { m.follow(inner) })
	children.Go(func() { m.announce(inner) })
	err := m.begin(ctx)
	if err == nil {
		m.seek(ctx)
	}
	m.finish()
	end()
	children.Wait()
	return errors.Join(err, m.base.Shutdown())
}

// begin starts the first session, unless the node was told to stay alone.
func (m *membership) begin(ctx context.Context) error {
	m.switching <- struct{}{}
	defer func() { <-m.switching }()
	since, alone, err := m.memory.alone()
	if err != nil {
		return fmt.Errorf("read whether the node has left its cluster: %w", err)
	}
	m.mu.Lock()
	m.running = true
	if alone {
		m.since = since
	}
	m.mu.Unlock()
	if alone {
		m.log.Info("gossip is off: the node was told to leave; sluice cluster join ends that", "since", since)
		return nil
	}
	return m.enter()
}

// enter begins a session. Its caller holds switching.
func (m *membership) enter() error {
	var random [5]byte
	_, _ = rand.Read(random[:]) // never fails
	life := strings.ToLower(base32.StdEncoding.EncodeToString(random[:]))
	m.mu.Lock()
	m.life, m.since = life, m.parts.Now()
	m.mu.Unlock()
	s, err := startSession(m, life)
	if err != nil {
		return err
	}
	m.current.Store(s)
	m.log.Info("gossip begun", "node", m.self, "advertised", s.at, "encrypted", m.keys != nil)
	return nil
}

// exit says goodbye and ends the session, if there is one. The process ends, or goes on
// alone. Its caller holds switching.
func (m *membership) exit(ends bool) {
	s := m.current.Load()
	if s == nil {
		return
	}
	s.leave(ends, goodbyePatience)
	m.current.Store(nil)
	s.stop()
	m.mu.Lock()
	m.life, m.since = "", m.parts.Now()
	m.mu.Unlock()
}

// finish ends the last session.
func (m *membership) finish() {
	m.switching <- struct{}{}
	defer func() { <-m.switching }()
	m.mu.Lock()
	m.running = false
	m.mu.Unlock()
	m.exit(true)
}

// lock waits until no session begins or ends.
func (m *membership) lock(ctx context.Context) error {
	select {
	case m.switching <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.running {
		<-m.switching
		return errNotRunning
	}
	return nil
}

// Join adds peers, those that are configured and known when none are given. It ends the
// solitude after Leave, also when nobody answers: the node goes on
// looking then, and the error says so.
func (m *membership) Join(ctx context.Context, addresses []string) (answered int, err error) {
	for _, address := range addresses {
		if _, _, err := splitPeer(address); err != nil {
			return 0, fmt.Errorf("join %w", err)
		}
	}
	if err := m.lock(ctx); err != nil {
		return 0, err
	}
	left := m.current.Load() == nil
	err = m.endSolitude()
	<-m.switching
	if err != nil {
		return 0, err
	}
	s := m.current.Load()
	if s == nil {
		return 0, errAlone // left again meanwhile
	}
	if answered, err = m.joinAt(ctx, s, addresses); err != nil && left {
		err = fmt.Errorf("%w; this node is a member again all the same, and goes on trying those that it was started with and those that it remembers, until sluice cluster leave", err)
	}
	return answered, err
}

// joinAt asks peers once, those that are configured and known when no addresses are given.
func (m *membership) joinAt(ctx context.Context, s *session, addresses []string) (answered int, err error) {
	targets, trouble := m.resolve(ctx, addresses)
	if len(addresses) == 0 {
		targets, trouble = m.acquaintances(ctx)
	}
	switch {
	case len(targets) == 0 && trouble != nil:
		return 0, fmt.Errorf("nobody to ask: %w", trouble)
	case len(targets) == 0 && len(addresses) > 0:
		return 0, fmt.Errorf("%s is this node itself; give the gossip address of another", strings.Join(addresses, ", "))
	case len(targets) == 0:
		return 0, errors.New("no address of a peer is known; give one")
	}
	if answered, err = s.joinAll(ctx, targets); answered > 0 {
		return answered, nil
	}
	return 0, fmt.Errorf("nobody answered: %w", errors.Join(trouble, err))
}

// endSolitude begins a session after Leave. Its caller holds switching.
func (m *membership) endSolitude() error {
	if m.current.Load() != nil {
		return nil
	}
	if err := m.memory.join(); err != nil {
		return fmt.Errorf("keep that the node is not alone any more: %w", err)
	}
	return m.enter()
}

// Leave says goodbye and keeps that the node is to stay alone.
func (m *membership) Leave(ctx context.Context) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer func() { <-m.switching }()
	if m.current.Load() == nil {
		return nil
	}
	if err := m.memory.leave(m.parts.Now()); err != nil {
		return fmt.Errorf("keep that the node has left its cluster: %w", err)
	}
	m.exit(false)
	m.forgetAll()
	m.log.Info("the node has left its cluster, and stays alone until sluice cluster join")
	return nil
}

// meta is what this node tells of itself.
func (m *membership) meta(life string) meta {
	m.mu.Lock()
	defer m.mu.Unlock()
	return meta{
		Host: m.cfg.Host, Version: m.cfg.Version, Listen: m.cfg.Listen, Admin: m.cfg.Admin,
		Draining: m.draining, Life: life,
	}
}

// SetDraining tells the peers whether this node wants no new clients.
func (m *membership) SetDraining(draining bool) {
	m.mu.Lock()
	changed, since := m.draining != draining, m.drained
	m.draining = draining
	if changed {
		m.drained = m.parts.Now()
	}
	m.mu.Unlock()
	if !changed {
		return
	}
	signal(m.tell)
	if draining {
		m.log.Info("this node is drained: it wants no new clients")
	} else {
		m.log.Info("this node wants new clients again", "drained_since", since)
	}
}

// Draining tells what SetDraining has set.
func (m *membership) Draining() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.draining
}

// announce tells the peers when this node says something else of itself.
func (m *membership) announce(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.tell:
		}
		if s := m.current.Load(); s != nil {
			_ = s.list.UpdateNode(goodbyePatience) // it goes on being told
		}
	}
}

// pumpPackets hands packets to the session there is.
func (m *membership) pumpPackets(ctx context.Context) {
	allowance := newAllowance(maxStrangePackets, m.parts.Now)
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-m.base.PacketCh():
			m.traffic.packetsIn.Add(uint64(len(p.Buf)))
			if s := m.current.Load(); s != nil && m.admits(p, allowance) {
				s.arrived(p)
			}
		}
	}
}

// admits refuses packets of which is seen, without a key, that they are of no peer.
func (m *membership) admits(p *memberlist.Packet, allowance *allowance) bool {
	from := addressOf(p.From)
	if m.livingAt(from) == 0 && !allowance.take() {
		m.refused(strangers, "")
		return false
	}
	rest, label, err := memberlist.RemoveLabelHeaderFromPacket(p.Buf)
	why := reason("")
	switch {
	case err != nil || len(rest) == 0:
		why = malformed
	case label != m.label():
		why = otherLabel
	case m.keys != nil && rest[0] != cipherVersion:
		why = notEncrypted
	case m.keys == nil && rest[0] == compressMark:
		why = malformed // nobody of us compresses
	default:
		return true
	}
	m.refused(why, from.String())
	return false
}

// pumpStreams hands streams to the session there is.
func (m *membership) pumpStreams(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case conn := <-m.base.StreamCh():
			if s := m.current.Load(); s != nil {
				s.accepted(conn)
			} else {
				conn.Close()
			}
		}
	}
}

// livingAt is how many live members have an address.
func (m *membership) livingAt(from netip.Addr) int { return (*m.nearby.Load())[from] }

// refused counts something that somebody sent.
func (m *membership) refused(why reason, from string) { m.refusals.add(why, from, "") }

// Send brings a message by TCP.
func (m *membership) Send(to string, message []byte) {
	if s := m.current.Load(); s != nil {
		s.send(to, message)
	}
}

// SendPacket brings a message by UDP, or not at all.
func (m *membership) SendPacket(to string, message []byte) {
	s := m.current.Load()
	peer, lives := m.node(to)
	if s == nil || !lives || len(message) > m.PacketRoom() {
		m.dropped.Add(1)
		return
	}
	if err := s.list.SendBestEffort(&peer, message); err != nil {
		m.refusals.add(unreachable, peer.Addr.String(), "send a packet: "+err.Error())
	}
}

// PacketRoom is the most bytes that a message by UDP may have.
func (m *membership) PacketRoom() int { return packetRoom(m.label()) }

// signal wakes whoever listens, once.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it will look
	}
}

// addressOf is the IP address of who sent something.
func addressOf(from net.Addr) netip.Addr {
	switch a := from.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// allowance is how many of something may happen in a second. One goroutine uses it.
type allowance struct {
	rate, left float64
	last       time.Time
	now        func() time.Time
}

func newAllowance(rate float64, now func() time.Time) *allowance {
	return &allowance{rate: rate, left: rate, last: now(), now: now}
}

func (a *allowance) take() bool {
	now := a.now()
	a.left = min(a.rate, a.left+a.rate*max(now.Sub(a.last), 0).Seconds())
	a.last = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}
