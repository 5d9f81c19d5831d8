package upstream

import (
	"sluice/gateway/balance"
	"sluice/store"
)

// makePicker is called once the endpoints' weights are those of this table. The zone is
// the gateway's own, empty when it has none.
func (b *Backend) makePicker(zone string) {
	if b.spec == nil {
		b.picker = balance.NewLeastRequest(nil, balance.Settings{})
		return
	}
	lb := &b.spec.Spec.LoadBalancing
	s := balance.Settings{Panic: lb.Panic(), Local: b.local(zone)}
	if lb.ZonePreference != nil {
		s.SpillBelow = lb.ZonePreference.SpillBelow
	}
	switch lb.Policy {
	case store.RoundRobin:
		b.picker = balance.NewRoundRobin(b.nodes, s)
	case store.PeakEWMA:
		b.picker = balance.NewPeakEWMA(b.nodes, s)
	case store.RingHash:
		b.picker = balance.NewRingHash(b.nodes, b.hashing(), s)
	case store.Maglev:
		b.picker = balance.NewMaglev(b.nodes, b.hashing(), s)
	default:
		b.picker = balance.NewLeastRequest(b.nodes, s)
	}
	if lb.SessionAffinity != nil {
		b.tokens = newTokens(b)
	}
}

// local says which endpoints are in the zone; nil when that is of no account.
func (b *Backend) local(zone string) []bool {
	if b.spec.Spec.LoadBalancing.ZonePreference == nil || zone == "" {
		return nil
	}
	local := make([]bool, len(b.Endpoints))
	for i, e := range b.Endpoints {
		e.mu.Lock()
		local[i] = e.settings.declared.Zone == zone
		e.mu.Unlock()
	}
	return local
}

// hashing tells endpoints apart by their addresses, which gateways agree about.
func (b *Backend) hashing() balance.Hashing {
	h := balance.Hashing{Names: make([]uint64, len(b.Endpoints)), Bound: b.spec.Spec.LoadBalancing.LoadBound}
	for i, e := range b.Endpoints {
		h.Names[i] = balance.Hash(e.Address())
	}
	return h
}

// Refresh is called when the condition of an endpoint has changed, or one may be probed:
// what that means for the others (panic, zones, probes) takes effect with it. RPCs do
// not wait for it.
func (b *Backend) Refresh() { b.picker.Refresh() }

// Timed tells whether a Result's FirstByte is asked for.
func (b *Backend) Timed() bool {
	return b.spec != nil && b.spec.Spec.LoadBalancing.Policy == store.PeakEWMA
}

// HashOn is what the Key of a Request is made of, by balance.Hash; nil when no key is
// asked for.
func (b *Backend) HashOn() *store.HashOn {
	if b.spec == nil || !b.spec.Spec.LoadBalancing.Policy.Hashes() {
		return nil
	}
	return b.spec.Spec.LoadBalancing.HashOn
}
