package gateway

import (
	"time"

	"sluice/store"
)

// ObservedEndpoint is what is seen of one endpoint of a backend.
type ObservedEndpoint struct {
	Address string
	Source  store.Source
	Zone    string
	Version string
	Weight  uint32       // in force: 0 while it is drained
	Drain   *store.Drain // nil when it is not
	// State is one of new, connecting, healthy, warming, down, unhealthy, ejected,
	// stalled, draining.
	State       string
	Why         string // it is in that state; empty when there is nothing to say
	Since       time.Time
	Active      int           // RPCs open, streams included
	Connections int           // open
	RPCs        uint64        // begun in the last minute
	Success     float64       // share of those that ended in the last minute, 0 to 1; -1 when none did
	P99         time.Duration // that 99 of 100 took at most in the last minute, streams left out; 0 when none
}

// Endpoints are those of the backend of that key, in its order: what it declares,
// what name servers say, and what has registered. A backend that is not in force has
// none.
func (g *Gateway) Endpoints(backend string) []ObservedEndpoint {
	b := g.pool.Backend(backend)
	if b == nil {
		return nil
	}
	list := make([]ObservedEndpoint, 0, len(b.Endpoints))
	for _, e := range b.Endpoints {
		s := e.Status()
		d := &s.Declared
		list = append(list, ObservedEndpoint{
			Address: e.Address(), Source: d.Source, Zone: d.Zone, Version: d.Version, Weight: e.Weight(), Drain: d.Drain,
			State: s.State, Why: s.Why, Since: s.Since, Active: s.Active, Connections: s.Connections,
			RPCs: s.Begun, Success: s.Success, P99: s.P99,
		})
	}
	return list
}
