package store

import (
	"encoding/json"
	"time"
)

// The kind of an RPCPolicy.
const (
	RPCPolicyVersion = OwnGroup + "/v1alpha1"
	RPCPolicyKind    = "RPCPolicy"
)

// What holds when an RPCPolicy has the field around it and does not say.
const (
	DefaultBudgetPercent  = 20
	DefaultBudgetInterval = 10 * time.Second
	DefaultRetryCount     = 10
	DefaultRetryInterval  = time.Second

	DefaultBackoffBase = 25 * time.Millisecond
	DefaultBackoffMax  = 250 * time.Millisecond

	DefaultMaxMessageBytes = 4 << 20
	maxMaxMessageBytes     = 1 << 30
)

// RPCPolicy says how the RPCs of routes are treated, beside where they go.
type RPCPolicy struct {
	Meta `json:"metadata"`
	Spec RPCPolicySpec `json:"spec"`
}

// RPCPolicySpec is the wish itself; a nil field says nothing.
type RPCPolicySpec struct {
	TargetRefs      []TargetRef      `json:"targetRefs"`
	Timeouts        *RPCTimeouts     `json:"timeouts,omitempty"`
	Retry           *RetryPolicy     `json:"retry,omitempty"`
	RetryConstraint *RetryConstraint `json:"retryConstraint,omitempty"`
	Split           *SplitPolicy     `json:"split,omitempty"`
	CORS            *CORS            `json:"cors,omitempty"`
	Translation     *Translation     `json:"translation,omitempty"`
	Expose          *Expose          `json:"expose,omitempty"`
	Hedging         *Hedging         `json:"hedging,omitempty"`
	RateLimits      []RateLimit      `json:"rateLimits,omitempty"`
}

// TargetRef names a route of the policy's own namespace, or one rule of it.
type TargetRef struct {
	Group       string `json:"group"`
	Kind        string `json:"kind"`
	Name        string `json:"name"`
	SectionName string `json:"sectionName,omitempty"` // a rule's name; empty means every rule
	// Origin is where the reference is written.
	Origin Position `json:"-"`
}

// RPCTimeouts bound an RPC; zero means that the text does not say.
type RPCTimeouts struct {
	// Request bounds a whole RPC that is no stream; a client's own earlier deadline
	// holds. Of a method that no schema tells of, it bounds the time to the response's
	// beginning: what goes on after that is taken for a stream.
	Request      Duration `json:"request,omitzero"`
	Default      Duration `json:"default,omitzero"`      // the same for callers that name no deadline; Request when zero
	StreamIdle   Duration `json:"streamIdle,omitzero"`   // of a stream, without a message in either direction
	StreamMaxAge Duration `json:"streamMaxAge,omitzero"` // of a stream, give or take a tenth; it then ends UNAVAILABLE
}

// RetryPolicy says which RPCs are sent again.
type RetryPolicy struct {
	Attempts      int          `json:"attempts"` // after the first, 1 or more
	Codes         []Code       `json:"codes"`    // never empty
	PerTryTimeout Duration     `json:"perTryTimeout,omitzero"`
	Backoff       Backoff      `json:"backoff,omitzero"`
	Methods       RetryMethods `json:"methods,omitempty"` // empty means AllMethods
}

// Backoff is the pause before try n+1: a random part of Base times 2^(n-1), of Max at most.
type Backoff struct {
	Base Duration `json:"base"`
	Max  Duration `json:"max"`
}

// RetryMethods says which methods are sent again.
type RetryMethods string

// All of them, or those whose schema says that they may be called twice
// (idempotency_level).
const (
	AllMethods        RetryMethods = "All"
	IdempotentMethods RetryMethods = "Idempotent"
)

// DefaultRetry is what holds for a rule of which no policy speaks.
func DefaultRetry() *RetryPolicy {
	return &RetryPolicy{
		Attempts: 1, Codes: []Code{"UNAVAILABLE"}, Methods: IdempotentMethods,
		Backoff: Backoff{Base: Duration(DefaultBackoffBase), Max: Duration(DefaultBackoffMax)},
	}
}

// Hedging sends an RPC again, while nothing has come of the tries before, each Delay,
// to other endpoints; the first answer counts. It is for unary methods whose schema says
// that they may be called twice, and for no others.
type Hedging struct {
	Attempts int      `json:"attempts"` // after the first
	Delay    Duration `json:"delay"`
}

// LimitScope says over what a limit is shared.
type LimitScope string

// Each gateway has the whole of it, or those of a cluster that live share it evenly.
const (
	GatewayScope LimitScope = "Gateway"
	ClusterScope LimitScope = "Cluster"
)

// RateLimit bounds how many RPCs of a rule begin.
type RateLimit struct {
	Requests int      `json:"requests"` // in each Interval
	Interval Duration `json:"interval"`
	Burst    int      `json:"burst"` // at once; Requests when the text does not say
	// Key has a limit for each of its values; nil is one limit for all.
	Key   *RateKey   `json:"key,omitempty"`
	Scope LimitScope `json:"scope,omitempty"` // empty means GatewayScope
}

// RateKey is what tells callers apart: exactly one field says something.
type RateKey struct {
	Header        string `json:"header,omitempty"` // in lower case; RPCs without it share one limit
	ClientAddress bool   `json:"clientAddress,omitempty"`
}

// Code is the name of a status code of gRPC, as UNAVAILABLE.
type Code string

// RetryConstraint bounds the retries of all RPCs together.
type RetryConstraint struct {
	Budget       RetryBudget `json:"budget"`
	MinRetryRate RetryRate   `json:"minRetryRate"`
	Scope        LimitScope  `json:"scope,omitempty"` // of MinRetryRate; empty means GatewayScope
}

// RetryBudget is the share of retries in the RPCs of the last Interval.
type RetryBudget struct {
	Percent  int      `json:"percent"`
	Interval Duration `json:"interval"`
}

// RetryRate is what the budget never falls below.
type RetryRate struct {
	Count    int      `json:"count"` // in each Interval
	Interval Duration `json:"interval"`
}

// SplitPolicy says how RPCs are shared out among the backends of a rule.
type SplitPolicy struct {
	Sticky          *Sticky         `json:"sticky,omitempty"` // nil means turns
	WhenNoEndpoints WhenNoEndpoints `json:"whenNoEndpoints"`
}

// Sticky keeps RPCs with the same value of one piece of metadata at the same backend.
type Sticky struct {
	Header string `json:"header"` // in lower case
}

// WhenNoEndpoints says what becomes of the share of a backend without endpoints.
type WhenNoEndpoints string

// The share is answered UNAVAILABLE, as the Gateway API asks, or goes to the others.
const (
	Unavailable WhenNoEndpoints = "Unavailable"
	SpillOver   WhenNoEndpoints = "SpillOver"
)

// Translation bounds what becomes of requests that are not native gRPC on their way
// to a backend that speaks it.
type Translation struct {
	UnknownFields     Unknown `json:"unknownFields"`     // of JSON
	UnknownParameters Unknown `json:"unknownParameters"` // of a URL's query
	// MaxMessageBytes bounds one message, unpacked, in either direction. What is passed
	// through is not bounded by it.
	MaxMessageBytes int `json:"maxMessageBytes"`
}

// Unknown says what becomes of a name that the schema does not have.
type Unknown string

// The request is answered INVALID_ARGUMENT, or the name is left out.
const (
	RejectUnknown Unknown = "Reject"
	IgnoreUnknown Unknown = "Ignore"
)

// Expose says what clients are told of the methods of a route.
type Expose struct {
	Reflection bool `json:"reflection"` // grpc.reflection answers for them
	OpenAPI    bool `json:"openAPI"`    // the OpenAPI document is served
}

// TargetKey is the key of the route that ref, one of this policy's, means.
func (p *RPCPolicy) TargetKey(ref *TargetRef) string { return key(p.Namespace, ref.Name) }

// MarshalJSON writes a manifest that Parse accepts.
func (p *RPCPolicy) MarshalJSON() ([]byte, error) {
	type fields RPCPolicy
	return json.Marshal(struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		*fields
	}{RPCPolicyVersion, RPCPolicyKind, (*fields)(p)})
}
