package cluster

import (
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/memberlist"

	"sluice/store"
)

// Config is how a node takes part. Validate tells what is wrong with it.
type Config struct {
	// Bind is the address of gossip, host:port, UDP and TCP. A missing port means 7946,
	// port 0 any free one.
	Bind string
	// Advertise is where peers reach this node: an IP address, with or without a port.
	// Empty means that it is found out.
	Advertise string
	// Join are addresses of peers, host[:port]. Names are looked up anew while the node is
	// alone.
	Join []string
	// KeyFile has the keys that encrypt gossip, one in a line, the first is used to send.
	// Empty means no key, which is for loopback only.
	KeyFile string
	// Insecure leaves loopback without a key.
	Insecure bool
	// Label keeps clusters apart that could reach each other; empty means "sluice".
	Label string

	// What peers are told of this node: its host name, its version, its ports.
	Host, Version, Listen, Admin string
}

// Parts are the parts of the program that a cluster needs. The functions may be called
// from any goroutine, and must not block unless it is said.
type Parts struct {
	Store *store.Store
	// InForce waits until this gateway obeys the change of that sequence.
	InForce func(ctx context.Context, seq uint64) error
	// Renewed takes a renewal that a peer has passed on; nil drops it.
	Renewed func(id store.ID)
	// Hint takes what a peer has seen of an endpoint; nil drops it.
	Hint func(Hint)
	// Peers is called when the number of live gateways, this one included, has changed,
	// and when the set of them has.
	Peers func(live int)

	Now func() time.Time // nil means time.Now
	// Transport takes the place of the network in tests; nil means Config.Bind.
	Transport memberlist.NodeAwareTransport
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
	cfg   Config
	parts Parts
	log   *slog.Logger
}

// New opens the sockets, and joins nobody yet.
func New(cfg Config, parts Parts, log *slog.Logger) (*Cluster, error) {
	return &Cluster{cfg: cfg, parts: parts, log: log}, nil
}

// Run takes part until ctx is done, then says goodbye, and returns when all of its
// goroutines have ended.
func (c *Cluster) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Members are all that are known, in the order of their IDs, this node included.
func (c *Cluster) Members() []Member { return nil }

// Alive is how many members live, this node included.
func (c *Cluster) Alive() int { return 1 }

// Join adds peers, and ends the solitude after Leave. It returns how many answered; the
// error says why nobody did.
func (c *Cluster) Join(ctx context.Context, addresses []string) (int, error) { return 0, nil }

// Leave says goodbye; the node stays alone, also after a restart, until Join.
func (c *Cluster) Leave(ctx context.Context) error { return nil }

// SetDraining tells the peers whether this node wants no new clients.
func (c *Cluster) SetDraining(draining bool) {}

// Draining tells what SetDraining has set.
func (c *Cluster) Draining() bool { return false }

// Confirm waits until every live member obeys these changes, or ctx is done, and tells
// who has not said so.
func (c *Cluster) Confirm(ctx context.Context, changes []store.Change) []Unconfirmed { return nil }

// Observe tells the peers what this gateway has seen of endpoints.
func (c *Cluster) Observe(hints []Hint) {}

// Steward is which live node looks after the lease of a registration that was last
// written at a node: that node while it lives.
func (c *Cluster) Steward(id store.ID, writer string) string { return c.parts.Store.Node() }

// Renew passes a renewal on to the steward.
func (c *Cluster) Renew(steward string, id store.ID) {}

// Keys are the answers of all live members to what keys they have.
func (c *Cluster) Keys(ctx context.Context) []KeyAnswer { return nil }

// AddKey, UseKey and RemoveKey change the keys of all live members: a key is 32 bytes in
// base64. UseKey and RemoveKey also take a fingerprint. Add everywhere, then use, then
// remove.
func (c *Cluster) AddKey(ctx context.Context, key string) ([]KeyAnswer, error) { return nil, nil }

// UseKey makes a key the one that is used to send.
func (c *Cluster) UseKey(ctx context.Context, key string) ([]KeyAnswer, error) { return nil, nil }

// RemoveKey forgets a key that is not used to send.
func (c *Cluster) RemoveKey(ctx context.Context, key string) ([]KeyAnswer, error) { return nil, nil }

// Problems are what an operator should know, in sentences.
func (c *Cluster) Problems() []string { return nil }

// Stats are the counters of the cluster, for metrics.
type Stats struct {
	Alive, Dead, Left int
	Packets           Traffic           // UDP
	Streams           Traffic           // TCP
	Refused           map[string]uint64 // messages, by reason
	Dropped           uint64            // messages that found the queue full
	Merged, Conflicts uint64            // versions taken, and those that two nodes made unknown to each other
	Comparisons       uint64            // begun, because digests differed
	Carried           int               // objects of a newer version that are kept and not understood
}

// Traffic is what went over a network, in bytes.
type Traffic struct{ Received, Sent uint64 }

// Stats are the counters so far.
func (c *Cluster) Stats() Stats { return Stats{} }
