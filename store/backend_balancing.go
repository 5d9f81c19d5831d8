package store

// What holds when LoadBalancing does not say.
const (
	DefaultLoadBound      = 125 // percent
	DefaultPanicThreshold = 50  // percent
	DefaultSpillBelow     = 70  // percent
	DefaultMinWeight      = 10  // percent
)

// LoadBalancing chooses the endpoint of each RPC.
type LoadBalancing struct {
	Policy Policy `json:"policy"`
	// HashOn is what RingHash and Maglev look at; nil with the others.
	HashOn *HashOn `json:"hashOn,omitempty"`
	// LoadBound is what part of its fair share of open RPCs an endpoint may have under
	// RingHash and Maglev, in percent, before they go to the next one: 100 or more; zero
	// with the other policies.
	LoadBound       int              `json:"loadBound,omitempty"`
	SlowStart       *SlowStart       `json:"slowStart,omitempty"`
	ZonePreference  *ZonePreference  `json:"zonePreference,omitempty"`
	SessionAffinity *SessionAffinity `json:"sessionAffinity,omitempty"`
	// PanicThreshold is the share of healthy endpoints, in percent, below which health is
	// not looked at; 0 always looks. Panic is what holds.
	PanicThreshold *int `json:"panicThreshold,omitempty"`
}

// Panic is the panic threshold in force, percent.
func (l *LoadBalancing) Panic() int {
	if l.PanicThreshold == nil {
		return DefaultPanicThreshold
	}
	return *l.PanicThreshold
}

// Policy is a way to choose.
type Policy string

// The policies that are supported.
const (
	LeastRequest Policy = "LeastRequest"
	PeakEWMA     Policy = "PeakEWMA"
	RoundRobin   Policy = "RoundRobin"
	RingHash     Policy = "RingHash"
	Maglev       Policy = "Maglev"
)

// Hashes tells whether the policy looks at a key of the RPC.
func (p Policy) Hashes() bool { return p == RingHash || p == Maglev }

// HashOn is the key of an RPC: exactly one field says something. An RPC without it is
// placed as under LeastRequest.
type HashOn struct {
	Header        string `json:"header,omitempty"` // in lower case
	Path          bool   `json:"path,omitempty"`
	ClientAddress bool   `json:"clientAddress,omitempty"` // without the port
}

// SlowStart gives an endpoint that is new, or back, its share step by step: at time t
// its weight is max(MinWeight%, (t/Window)^Exponent) of the whole. It does not apply to
// RingHash and Maglev.
type SlowStart struct {
	Window    Duration `json:"window"`
	Exponent  float64  `json:"exponent"`  // 1 is linear
	MinWeight int      `json:"minWeight"` // percent
}

// ZonePreference keeps RPCs in the gateway's own zone while enough of its endpoints
// are healthy: below SpillBelow percent of them, the part that is missing goes to other
// zones. It does nothing while the gateway has no zone, or none of the endpoints is there.
type ZonePreference struct {
	SpillBelow int `json:"spillBelow"` // percent, 1 to 100
}

// SessionAffinity has the RPCs of one client, who sends back what he was given, go to
// one endpoint as long as it takes RPCs. Exactly one of Header and Cookie is set.
type SessionAffinity struct {
	Header string   `json:"header,omitempty"` // in lower case
	Cookie string   `json:"cookie,omitempty"` // its name
	TTL    Duration `json:"ttl,omitzero"`     // of the cookie; zero is as long as the browser runs
}
