package gateway

import (
	"time"

	"sluice/gateway/upstream"
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
// what name servers say, and what has registered. After them come those that have left
// it while RPCs are open on them, which go on. A backend that is not in force has none.
func (g *Gateway) Endpoints(backend string) []ObservedEndpoint {
	b := g.pool.Backend(backend)
	if b == nil {
		return nil
	}
	left := g.pool.Left(backend)
	list := make([]ObservedEndpoint, 0, len(b.Endpoints)+len(left))
	for _, e := range b.Endpoints {
		list = append(list, observedOf(e))
	}
	for _, e := range left {
		o := observedOf(e)
		o.Weight, o.State, o.Why = 0, upstream.StateDraining, "it is no endpoint any more, and its open RPCs go on"
		list = append(list, o)
	}
	return list
}

func observedOf(e *upstream.Endpoint) ObservedEndpoint {
	s := e.Status()
	d := &s.Declared
	return ObservedEndpoint{
		Address: e.Address(), Source: d.Source, Zone: d.Zone, Version: d.Version, Weight: e.Weight(), Drain: d.Drain,
		State: s.State, Why: s.Why, Since: s.Since, Active: s.Active, Connections: s.Connections,
		RPCs: s.Begun, Success: s.Success, P99: s.P99,
	}
}
