package cluster

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"sluice/store"
)

// Parts are the parts of the program that a cluster needs. The functions may be called
// from any goroutine, and must not block unless it is said.
type Parts struct {
	Store *store.Store
	// InForce waits until this gateway obeys the change of that sequence, and tells why one
	// of these objects cannot be in force here.
	InForce func(ctx context.Context, seq uint64, ids []store.ID) error
	// Renewed takes a renewal that a peer has passed on; nil drops it.
	Renewed func(id store.ID)
	// Hint takes what a peer has seen of an endpoint; nil drops it.
	Hint func(Hint)
	// Peers is called when the number of live gateways that take clients has changed, this
	// one included and those that drain left out,
	// and when the set of them has.
	Peers func(sharing int)

	Now func() time.Time // nil means time.Now
	// Transport takes the place of the network in tests; nil means Config.Bind.
	Transport memberlist.NodeAwareTransport

	// lookup takes the place of DNS in tests; nil means the system's.
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Hint is what one gateway has seen of an endpoint: an opinion, by which nobody removes
// what he reaches himself.
type Hint struct {
	Node    string // who says it
	Backend string // "namespace/name"
	Address string
	Down    bool
}

// State is how a member is.
type State string

// The states of a member: it lives, it was not heard of any more, or it said goodbye.
const (
	Alive State = "alive"
	Dead  State = "dead"
	Left  State = "left"
)

// Member is one node as this one sees it.
type Member struct {
	ID, Host, Address string // Address is that of gossip
	Version           string
	Listen, Admin     string // as it says itself
	Self              bool
	State             State
	Since             time.Time // of the state
	Draining          bool      // it wants no new clients

	Digest     string         // of all that it has, as store.Snapshot.Digest
	Revision   store.Revision // the highest that it has seen
	Drift      bool           // its digest is another than this node's
	DriftSince time.Time
	Heard      time.Time // when it last told of itself
	Silent     bool      // it lives, and was not heard of for longer than one that is in touch

	ClockKnown bool
	Clock      time.Duration // how far its clock is ahead of this node's
	RTT        time.Duration

	// Which ways there are, as far as was tried in the last minute.
	UDPOut, UDPIn, TCPOut, TCPIn Reach
}

// Reach is whether one way of reaching a member works.
type Reach string

// What is known of a way.
const (
	ReachUnknown Reach = ""
	ReachYes     Reach = "yes"
	ReachNo      Reach = "no"
)

// Confirmation is what came of asking every member that lived: each is in one of the two.
type Confirmation struct {
	Confirmed   []Member // they obey
	Unconfirmed []Unconfirmed
}

// Unconfirmed is a live member that has not said that it obeys a change, and why.
type Unconfirmed struct {
	Member Member
	Err    error
}

// KeyAnswer is what one member says of the keys that it has.
type KeyAnswer struct {
	Member  Member
	Keys    []string // fingerprints, the first is used to send
	Warning string   // such as: its key file cannot be written
	Err     error    // it did not answer, or refused
}

// Cluster is this node among its peers. Its methods may be called from any goroutine.
type Cluster struct {
	parts      Parts
	membership *membership
	loop       *loop
}

// New opens the sockets, and joins nobody yet. Run, or Close, closes them.
func New(cfg Config, parts Parts, log *slog.Logger) (*Cluster, error) {
	if parts.Now == nil {
		parts.Now = time.Now
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := newLoop(parts, nil, log)
	m, err := openMembership(cfg, parts, hooks{Received: l.receive, Broadcasts: l.broadcasts, Changed: l.membersChanged}, log)
	if err != nil {
		return nil, err
	}
	l.courier, l.refusals = m, m.refusals // one log of what is refused
	if m.keys != nil {
		l.keys = m.keys.change
	}
	return &Cluster{parts: parts, membership: m, loop: l}, nil
}

// Close closes the sockets of a cluster that is not run.
func (c *Cluster) Close() error { return c.membership.close() }

// Run takes part until ctx is done, then says goodbye, and returns when all of its
// goroutines have ended.
func (c *Cluster) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	exchanging, end := context.WithCancel(context.WithoutCancel(ctx)) // also during the goodbye
	defer end()
	ended := make(chan error, 1)
	go func() {
		defer stop()
		ended <- c.loop.Run(exchanging)
	}()
	err := c.membership.Run(ctx)
	end()
	return errors.Join(err, <-ended)
}

// Members are all that are known, in the order of their IDs, this node included.
func (c *Cluster) Members() []Member {
	members := c.membership.Members()
	longest := silentAfter(len(c.membership.Live()))
	now := c.parts.Now()
	for i := range members {
		members[i].learn(c.loop.peer(members[i].ID))
		members[i].Silent = members[i].silence(now) > longest
	}
	return members
}

// learn adds what the exchange knows.
func (m *Member) learn(f peerFacts) {
	m.Digest, m.Revision, m.Heard = f.Digest, f.Revision, f.Heard
	if m.State != Alive {
		return
	}
	m.Drift, m.DriftSince = f.Drift, f.DriftSince
	m.ClockKnown, m.Clock, m.RTT = f.ClockKnown, f.Clock, f.RTT
	m.UDPOut, m.UDPIn, m.TCPOut, m.TCPIn = f.UDPOut, f.UDPIn, f.TCPOut, f.TCPIn
}

// silence is how long a live member was not heard of; one that has just come was not silent
// before.
func (m *Member) silence(now time.Time) time.Duration {
	if m.Self || m.State != Alive {
		return 0
	}
	if m.Heard.After(m.Since) {
		return now.Sub(m.Heard)
	}
	return now.Sub(m.Since)
}

// Alive is how many members live, this node included.
func (c *Cluster) Alive() int { return len(c.membership.Live()) + 1 }

// Join adds peers, or those that are configured and known when none are given, and ends
// the solitude after Leave. It returns how many answered; the error says why nobody did.
func (c *Cluster) Join(ctx context.Context, addresses []string) (int, error) {
	return c.membership.Join(ctx, addresses)
}

// Leave says goodbye; the node stays alone, also after a restart, until Join.
func (c *Cluster) Leave(ctx context.Context) error { return c.membership.Leave(ctx) }

// SetDraining tells the peers whether this node wants no new clients.
func (c *Cluster) SetDraining(draining bool) { c.membership.SetDraining(draining) }

// Draining tells what SetDraining has set.
func (c *Cluster) Draining() bool { return c.membership.Draining() }

// Confirm waits until every live member obeys these changes, or ctx is done. Who leaves
// meanwhile has not confirmed them.
func (c *Cluster) Confirm(ctx context.Context, changes []store.Change) (told Confirmation) {
	before := c.Members()
	answers := c.loop.confirm(ctx, changes)
	known := c.known(before)
	for _, id := range slices.Sorted(maps.Keys(answers)) {
		if err := answers[id]; err != nil {
			told.Unconfirmed = append(told.Unconfirmed, Unconfirmed{known.member(id), err})
		} else {
			told.Confirmed = append(told.Confirmed, known.member(id))
		}
	}
	return told
}

// acquaintances are members by their IDs.
type acquaintances map[string]Member

// known are the members of now, and of before those that are not known any more.
func (c *Cluster) known(before []Member) acquaintances {
	known := acquaintances{}
	for _, m := range append(before, c.Members()...) {
		known[m.ID] = m
	}
	return known
}

// member is one of them; of who is none there is the ID.
func (a acquaintances) member(id string) Member {
	if m, known := a[id]; known {
		return m
	}
	return Member{ID: id}
}

// Observe tells the peers what this gateway has seen of endpoints.
func (c *Cluster) Observe(hints []Hint) { c.loop.observe(hints) }

// Steward is which live node looks after the lease of a registration that was last
// written at a node: that node while it lives.
func (c *Cluster) Steward(id store.ID, writer string) string {
	return c.membership.steward(id, writer)
}

// Renew passes a renewal on to the steward.
func (c *Cluster) Renew(steward string, id store.ID) { c.loop.renew(steward, id) }

// Problems are what an operator should know, in sentences.
func (c *Cluster) Problems() []string {
	return slices.Concat(c.membership.problems(), memberProblems(c.Members(), c.parts.Now()), c.loop.problems())
}

// Stats are the counters of the cluster, for metrics.
type Stats struct {
	Alive, Dead, Left int
	Packets           Traffic           // UDP
	Streams           Traffic           // TCP
	Refused           map[string]uint64 // messages, by reason
	Dropped           map[string]uint64 // messages that found no room, by reason
	Merged, Conflicts uint64            // versions taken, and those that two nodes made unknown to each other
	Comparisons       uint64            // begun, because digests differed
	Carried           int               // objects of a newer version that are kept and not understood
}

// Traffic is what went over a network, in bytes.
type Traffic struct{ Received, Sent uint64 }

// Stats are the counters so far.
func (c *Cluster) Stats() Stats {
	m, told := c.membership, c.loop.stats()
	s := Stats{
		Packets: Traffic{m.traffic.packetsIn.Load(), m.traffic.packetsOut.Load()},
		Streams: Traffic{m.traffic.streamsIn.Load(), m.traffic.streamsOut.Load()},
		Refused: told.Refused, Dropped: told.Dropped,
		Merged: told.Merged, Conflicts: told.Conflicts, Comparisons: told.Comparisons, Carried: told.Carried,
	}
	s.Dropped[droppedUnsent] += m.dropped.Load()
	for _, member := range m.Members() {
		switch member.State {
		case Alive:
			s.Alive++
		case Dead:
			s.Dead++
		case Left:
			s.Left++
		}
	}
	return s
}
