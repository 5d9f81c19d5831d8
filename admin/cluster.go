package admin

import (
	"context"
	"time"

	"sluice/store"
)

// Cluster is what the door shows and asks of the part that knows the other gateways.
// Its methods are safe for use by several goroutines. Those that take a context wait for
// peers, until it is done at the latest; the others do not block.
type Cluster interface {
	// Members are all that are known, in the order of their IDs, this node included.
	Members() []Member
	// Join adds peers by their addresses, host[:port]; without addresses, those that the
	// node was started with and those that it remembers. It tells how many answered. The
	// error says why nobody did.
	Join(ctx context.Context, addresses []string) (answered int, err error)
	// Leave says goodbye. The node stays alone, also after a restart, until Join.
	Leave(ctx context.Context) error
	// SetDraining tells the peers whether this node wants no new clients. While it does
	// not, the program's Ready says so.
	SetDraining(draining bool)
	// Draining tells what SetDraining has set.
	Draining() bool
	// Confirm waits until every live peer obeys these changes, or ctx is done, and tells
	// who has said so and who has not. Of a change it needs the ID and After.
	Confirm(ctx context.Context, changes []store.Change) Confirmation
	// Keys are the answers of all live members to what keys they have.
	Keys(ctx context.Context) ([]KeyAnswer, error)
	// AddKey, UseKey and RemoveKey change the keys of all live members. A key is 32 bytes
	// in base64; UseKey and RemoveKey take its fingerprint, too. The error says why nobody
	// was asked, and does not repeat the key.
	AddKey(ctx context.Context, key string) ([]KeyAnswer, error)
	UseKey(ctx context.Context, key string) ([]KeyAnswer, error)
	RemoveKey(ctx context.Context, key string) ([]KeyAnswer, error)
	// Problems are what an operator should know, in sentences. Status has them from
	// Parts.Problems, with those of the other parts.
	Problems() []string
}

// Confirmation is what came of waiting for the peers. The zero Confirmation is that of a
// node that is alone.
type Confirmation struct {
	Confirmed   int // live peers that obey the changes
	Unconfirmed []Unconfirmed
}

// Unconfirmed is a live peer that has not said that it obeys a change.
type Unconfirmed struct {
	Node, Host string
	Why        string // in words
}

// MemberState is how a member is.
type MemberState string

// The states of a member: it lives, it was not heard of any more, or it said goodbye.
const (
	MemberAlive MemberState = "alive"
	MemberDead  MemberState = "dead"
	MemberLeft  MemberState = "left"
)

// Member is one gateway as this one sees it.
type Member struct {
	ID, Host, Version string
	Address           string // of gossip
	Listen, Admin     string // as it says itself
	Self              bool
	State             MemberState
	Since             time.Time // of the state
	Draining          bool      // it wants no new clients

	Digest     string // of all that it has; empty: it has not told
	Revision   string // the highest that it has seen
	Drift      bool   // its digest is another than this node's
	DriftSince time.Time
	Heard      time.Time // when it last told of itself
	Silent     bool      // it lives, and was not heard of for longer than one that is in touch

	Clock *time.Duration // how far its clock is ahead of this node's; nil: not known
	RTT   time.Duration  // zero: not known

	// Whether the ways from and to it work, as far as was tried in the last minute.
	UDPOut, UDPIn, TCPOut, TCPIn Reach
}

// Reach is whether one way between two members works.
type Reach string

// What is known of a way.
const (
	ReachUnknown Reach = ""
	ReachYes     Reach = "yes"
	ReachNo      Reach = "no"
)

// KeyAnswer is what one member says of the keys that it has.
type KeyAnswer struct {
	Node, Host   string
	Fingerprints []string // the first is used to send
	Warning      string   // such as: its key file cannot be written
	Problem      string   // it did not answer, or refused
}
