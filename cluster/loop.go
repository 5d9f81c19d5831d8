package cluster

import (
	"context"
	"log/slog"
	"time"

	"sluice/store"
)

// courier carries messages to peers. None of its methods blocks, and all of them may be
// called from any goroutine.
type courier interface {
	Live() []string                       // ids of the other live nodes, sorted
	Send(to string, message []byte)       // by TCP; a bounded queue for each peer, dropped beyond and counted
	SendPacket(to string, message []byte) // by UDP at once, best effort
	PacketRoom() int                      // the most bytes of a message that fits one packet
}

// keyVerb is what is done to the keys of a node.
type keyVerb int

const (
	keyList keyVerb = iota
	keyAdd
	keyUse
	keyRemove
)

// keyReply is what a node says to a change of its keys.
type keyReply struct {
	Keys    []string // fingerprints, the first is used to send
	Warning string
	Err     error
}

// keyHolder changes the keys of this node and tells which there are then. It may write a
// file, and is called by one goroutine at a time.
type keyHolder func(verb keyVerb, key string) keyReply

// peerFacts is what the exchange knows of a peer, or of this node itself.
type peerFacts struct {
	Digest     string
	Revision   store.Revision
	Drift      bool
	DriftSince time.Time
	Heard      time.Time
	ClockKnown bool
	Clock, RTT time.Duration

	UDPOut, UDPIn, TCPOut, TCPIn Reach
}

// loopStats are the counters of the exchange.
type loopStats struct {
	Refused           map[string]uint64
	Dropped           uint64
	Merged, Conflicts uint64
	Comparisons       uint64
	Carried           int
}

// loop is the one goroutine that tells peers what is new here and takes in what they tell.
// Its methods may be called from any goroutine, also before Run.
type loop struct {
	parts Parts
	log   *slog.Logger

	// Set before Run.
	courier courier
	keys    keyHolder // nil: this node has none
}

// newLoop starts nothing. The courier may be set later, before Run.
func newLoop(parts Parts, courier courier, log *slog.Logger) *loop {
	return &loop{parts: parts, courier: courier, log: log}
}

// Run exchanges until ctx is done; its goroutines have ended when it returns.
func (l *loop) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// receive takes a message; the bytes stay the caller's. What finds the inbox full is
// dropped and counted.
func (l *loop) receive(message []byte, stream bool) {}

// broadcasts are messages for the next packet of gossip.
func (l *loop) broadcasts(overhead, limit int) [][]byte { return nil }

// membersChanged tells that courier.Live has another answer now.
func (l *loop) membersChanged() {}

// observe tells the peers what this gateway has seen of endpoints.
func (l *loop) observe(hints []Hint) {}

// renew passes a renewal on to the steward.
func (l *loop) renew(steward string, id store.ID) {}

// confirm waits until every live peer obeys the changes or ctx is done, and tells of each
// that has not said so, why.
func (l *loop) confirm(ctx context.Context, changes []store.Change) map[string]error { return nil }

// askKeys does the same to the keys of all live nodes, this one first, until ctx is done.
func (l *loop) askKeys(ctx context.Context, verb keyVerb, key string) map[string]keyReply { return nil }

// peer is what is known of a live or dead node, of this one too.
func (l *loop) peer(id string) peerFacts { return peerFacts{} }

// stats are the counters so far.
func (l *loop) stats() loopStats { return loopStats{} }

// problems are what an operator should know of the exchange, in sentences.
func (l *loop) problems() []string { return nil }
