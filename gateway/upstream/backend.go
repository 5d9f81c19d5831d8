package upstream

import (
	"fmt"
	"slices"

	"sluice/gateway/balance"
	"sluice/gateway/wire"
	"sluice/store"
)

// Backend is the endpoints that share the RPCs of one store.Backend. It belongs to
// one table and does not change.
type Backend struct {
	Key       string
	Endpoints []*Endpoint
	Problem   error // why there are no endpoints, when that is a fault; else nil

	spec    *store.Backend // nil when it could not be put in force
	counted wire.CodeSet   //  codes that count against an endpoint
	nodes   []*balance.Node
	picker  balance.Picker
	tokens  *tokens // nil without session affinity
}

// HTTP tells whether the endpoints speak HTTP/1, so that an RPC cannot be relayed.
func (b *Backend) HTTP() bool { return b.spec != nil && b.spec.Spec.Protocol == store.ProtocolHTTP1 }

// Accepts tells whether the backend takes requests of that protocol as they are.
func (b *Backend) Accepts(p store.Accept) bool {
	return b.spec != nil && slices.Contains(b.spec.Spec.Accepted(), p)
}

// Pick chooses an endpoint and counts a stream on it, which the caller releases.
// The index is what Avoid means; nil when nothing is left.
func (b *Backend) Pick(r balance.Request) (e *Endpoint, index int) {
	i := b.picker.Pick(r)
	if i < 0 {
		return nil, -1
	}
	return b.Endpoints[i], i
}

// Others reports whether an endpoint is left that may be picked and avoid does not
// name.
func (b *Backend) Others(avoid balance.Mask) bool {
	for i, n := range b.nodes {
		if n.Weight() > 0 && !avoid.Has(i) {
			return true
		}
	}
	return false
}

// Takers counts the endpoints that have weight, and those of them that can be
// reached, as far as is known.
func (b *Backend) Takers() (weighted, usable int) {
	for _, n := range b.nodes {
		if n.Weight() == 0 {
			continue
		}
		weighted++
		if n.Usable() {
			usable++
		}
	}
	return weighted, usable
}

// Able tells whether an endpoint has weight, and whether one of those can be reached,
// as far as is known. Mostly the first is such a one.
func (b *Backend) Able() (weighted, usable bool) {
	for _, n := range b.nodes {
		if n.Weight() == 0 {
			continue
		}
		if weighted = true; n.Usable() {
			return true, true
		}
	}
	return weighted, false
}

// Down is why an endpoint that may be picked cannot be reached, nil when all can.
func (b *Backend) Down() error {
	for _, e := range b.Endpoints {
		if e.Weight() == 0 || e.Usable() {
			continue
		}
		if err := e.whyDown(); err != nil {
			return fmt.Errorf("%s: %w", e.Address(), err)
		}
	}
	return nil
}
