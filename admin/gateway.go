package admin

import (
	"context"

	"sluice/store"
)

// Gateway is what the door shows and asks of the part that routes RPCs. Its
// methods are safe for use by several goroutines.
type Gateway interface {
	// Observed tells what the rules of one route, "namespace/name", did in the last
	// minute. It is nil for a route that is not in force.
	Observed(route string) []ObservedRule
	// Explain tells which rule an RPC would meet, and why.
	Explain(authority, path string, headers [][2]string) Explanation
	// Programmed is the sequence of the last change that is in force, and what is
	// wrong with objects that could not be put in force.
	Programmed() (seq uint64, problems map[store.ID]error)
	// WaitProgrammed returns when the change of that sequence is in force, or ctx is
	// done, which is an error.
	WaitProgrammed(ctx context.Context, seq uint64) error
	// Addr is where RPCs come in.
	Addr() string
}

// ObservedRule is what was seen of one rule.
type ObservedRule struct {
	Rule   string // its name, or its number from 0
	Shares []ObservedShare
}

// ObservedShare is what was seen of one backend's share.
type ObservedShare struct {
	Backend   string // namespace/name
	Weight    uint32 // in force
	RPCs      uint64 // begun in the last minute
	Endpoints int    // that take new RPCs
	Problem   string // why the share is not served; empty when it is
}

// Explanation is the way of one RPC through the table.
type Explanation struct {
	Candidates []Candidate // in order of precedence
	Verdict    string      // a sentence
	Backend    string      // namespace/name, where pins, a sticky key or a single one decide
	Because    string      // of what it was chosen
	Shares     []ObservedShare
}

// Candidate is a rule that an RPC could have met.
type Candidate struct {
	Route    string // namespace/name
	Rule     string
	Hostname string
	Match    string
	Wins     bool
	Why      string // it wins or loses
}
