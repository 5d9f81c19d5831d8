package store

import "time"

// What holds when a DNS or a Registering does not say.
const (
	DefaultRefresh      = 30 * time.Second
	DefaultMaxEndpoints = 1000
	DefaultMaxLease     = 10 * time.Minute
)

// DNS finds endpoints by a name: exactly one of Name and SRV is set.
type DNS struct {
	Name string `json:"name,omitempty"` // its A and AAAA records are the addresses, at Port
	Port int    `json:"port,omitempty"` // with Name
	SRV  string `json:"srv,omitempty"`  // its SRV records have names, ports and weights
	// Refresh is how often the name is asked for at most; records that live longer are
	// kept longer. A look-up that fails keeps the last good answer.
	Refresh Duration `json:"refresh"`
	// MaxEndpoints of an answer are used, the rest is left out and told of.
	MaxEndpoints int `json:"maxEndpoints"`
	// Server is host:port of the name server; empty means those of the machine.
	Server string `json:"server,omitempty"`
}

// Registering lets processes announce themselves as endpoints of a backend.
type Registering struct {
	MaxEndpoints int      `json:"maxEndpoints"`
	MaxLease     Duration `json:"maxLease"` // no registration holds longer without being renewed
}
