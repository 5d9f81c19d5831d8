package admin

import (
	"context"
	"errors"
	"time"

	"sluice/store"
)

// Gateway is what the door shows and asks of the part that routes RPCs. Its
// methods are safe for use by several goroutines.
type Gateway interface {
	// Observed tells what the rules of one route, "namespace/name", did in the last
	// minute. It is nil for a route that is not in force.
	Observed(route store.ID) []ObservedRule
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
	// Schemas tells where descriptors come from. With learn, the backends that have not
	// told yet are asked first.
	Schemas(ctx context.Context, learn bool) []SchemaSource
	// Methods tells what methods backends have: those of one backend, those that a route
	// leads to, or all. Problems are the sources that say nothing, or not all, of what
	// was asked for. The error is ErrUnknownMethods or a *store.NotFoundError.
	Methods(ctx context.Context, of MethodsOf) (methods []Method, problems []SchemaSource, err error)
	// OpenAPI describes how the methods of a route are called with HTTP and JSON. The
	// error is ErrUnknownMethods, a *store.NotFoundError, or a refusal in words.
	OpenAPI(ctx context.Context, route store.ID) ([]byte, error)
	// Endpoints tells how the endpoints of a backend in force, "namespace/name", are.
	Endpoints(backend string) []ObservedEndpoint
	// Rebalance begins to end that share, in percent, of the long streams of each
	// endpoint of a backend that has more than its part, and tells how many these are.
	// The error says in words why none can be.
	Rebalance(backend string, percent int) (moved int, err error)
}

// ErrUnknownMethods is why nothing can be said of methods: nobody has told of them.
var ErrUnknownMethods = errors.New("no schema is known")

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

// ObservedEndpoint is how one endpoint is seen.
type ObservedEndpoint struct {
	Address     string
	Source      store.Source
	Zone        string
	Version     string
	Weight      uint32 // in force
	State       string // a word, as admin.proto lists them
	Why         string
	Since       time.Time // zero: from the beginning
	Active      int       // RPCs open
	Connections int
	RPCs        uint64        // begun in the last minute
	Success     float64       // of those that ended in the last minute, 0 to 1; negative: none did
	P99         time.Duration // that 99 of 100 took at most in the last minute, streams left out; zero: none
}

// SchemaSource is where descriptors come from: a backend's reflection, or a Schema.
type SchemaSource struct {
	Backend string   // namespace/name; empty: every backend that nothing better is known of
	Object  store.ID // the Schema; zero: reflection
	Version string   // of reflection: v1 or v1alpha
	Methods int
	Learnt  time.Time // zero: never
	Problem string    // why it tells nothing, or not all; empty when it does
}

// MethodsOf says which methods are asked for. The zero value means all that are known.
type MethodsOf struct {
	Backend string   // namespace/name
	Route   store.ID // only what its rules lead to
	Learn   bool     // ask the backends that have not told yet
}

// Method is a method that backends have.
type Method struct {
	Name                             string // shop.v1.Cart/Get
	Input, Output                    string // types
	ClientStreaming, ServerStreaming bool
	NoSideEffects, Deprecated        bool
	Bindings                         []HTTPBinding
	Backends                         []string // namespace/name
	Description                      string   // its comment, if that is known
}

// HTTPBinding is one way to call a method with HTTP.
type HTTPBinding struct {
	Verb, Path, Body, ResponseBody string
}
