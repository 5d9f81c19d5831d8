package balance

import "sync/atomic"

// zones is two choosers over the same nodes, one for those of the gateway's own zone
// and one for the others. Both are made as if the other nodes had no weight.
type zones struct {
	own, other chooser
	local      field  // weights of the nodes in the own zone
	spillBelow uint64 // percent

	random func() uint64
	stay   atomic.Uint64 // of 2^32: the part of RPCs that stay
}

// newZones is nil unless nodes of both kinds have weight.
func newZones(f field, s Settings, policy func(field) chooser) *zones {
	if s.Local == nil {
		return nil
	}
	own := f.only(func(i int) bool { return s.Local[i] })
	other := f.only(func(i int) bool { return !s.Local[i] })
	if own.total == 0 || other.total == 0 {
		return nil
	}
	return &zones{
		own: policy(own), other: policy(other),
		local: own, spillBelow: uint64(max(1, s.SpillBelow)), random: f.random,
	}
}

// look counts the local nodes that nothing bars. Below the threshold the part that is
// missing goes elsewhere.
func (z *zones) look(bars Condition) {
	var nodes, open uint64
	for i, w := range z.local.weights {
		if w == 0 {
			continue
		}
		nodes++
		if z.local.open(i, nil, bars) {
			open++
		}
	}
	z.stay.Store(min(1<<32, open*100<<32/(nodes*z.spillBelow)))
}

// choose sends an RPC with a key where others with that key go, as long as the part
// that stays is the same.
func (z *zones) choose(r Request, bars Condition) int {
	if !z.stays(r) {
		return either(z.other, z.own, r, bars)
	}
	return either(z.own, z.other, r, bars)
}

func (z *zones) stays(r Request) bool {
	stay := z.stay.Load()
	if stay == 1<<32 {
		return true
	}
	random := mix(^r.Key) // others than the bits that find the node
	if !r.Keyed {
		random = z.random()
	}
	return random>>32 < stay
}

func either(first, second chooser, r Request, bars Condition) int {
	if i := first.choose(r, bars); i >= 0 {
		return i
	}
	return second.choose(r, bars)
}
