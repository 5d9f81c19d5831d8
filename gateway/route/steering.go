package route

import (
	"math/bits"
	"slices"
	"strings"

	"sluice/store"
)

// steering is what decides before the turns do.
type steering struct {
	pins   []pin
	sticky string // metadata, in lower case; empty means turns
	sides  []side
}

// pin sends the RPCs of one piece of metadata to one split.
type pin struct {
	header, value string
	split         int
}

// side is a piece of the space of hashes, from where the one before it ends.
type side struct {
	end   uint64 // exclusive
	split int
}

// hashSpace is how many points hashes fall on.
const hashSpace = 1 << 32

// Choose is the split for an RPC, an index into Splits, or -1 when there is none:
// that of the first pin that its metadata has; else that on whose side the value of
// the sticky metadata falls, if the RPC has any; else that whose turn it is.
func (r *Rule) Choose(hdr Header) int {
	if r.steering == nil {
		return r.Pick()
	}
	if i, decided := r.steering.decide(hdr); decided {
		return i
	}
	return r.Pick()
}

// decide is false for an RPC that the turns decide on.
func (s *steering) decide(hdr Header) (split int, decided bool) {
	if p := s.pinOf(hdr); p != nil {
		return p.split, true
	}
	if value := s.key(hdr); value != "" {
		return s.sideOf(value), true
	}
	return -1, false
}

func (s *steering) pinOf(hdr Header) *pin {
	if hdr == nil {
		return nil
	}
	for i := range s.pins {
		p := &s.pins[i]
		if value, ok := hdr.Get(p.header); ok && value == p.value {
			return p
		}
	}
	return nil
}

// key is the value of the sticky metadata. An empty one is none: all callers who
// have no key would be on one side together.
func (s *steering) key(hdr Header) string {
	if s.sticky == "" || hdr == nil || len(s.sides) == 0 {
		return ""
	}
	value, _ := hdr.Get(s.sticky)
	return value
}

func (s *steering) sideOf(value string) int {
	point := keyPoint(value)
	for i := range s.sides {
		if point < s.sides[i].end {
			return s.sides[i].split
		}
	}
	return s.sides[len(s.sides)-1].split
}

// keyHash is the same on every node, in every version and after each start; the
// sides that a store keeps depend on that, so it must never change. It is FNV-1a of
// 64 bits over the bytes of the value (offset basis 14695981039346656037, prime
// 1099511628211), and then the finalizer of MurmurHash3, without which values that
// differ in their last bytes only would be near one another:
//
//	h ^= h >> 33; h *= 0xff51afd7ed558ccd; h ^= h >> 33; h *= 0xc4ceb9fe1a85ec53; h ^= h >> 33
func keyHash(value string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(value) {
		h = (h ^ uint64(value[i])) * 1099511628211
	}
	return mix(h)
}

func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// keyPoint is the upper half of the hash: a point below hashSpace.
func keyPoint(value string) uint64 { return keyHash(value) >> 32 }

// steer compiles what the rule is steered by. A pin or a side of a backend that is
// none of the rule's gives it one more split, without weight.
func (r *Rule) steer(spec *store.Steering) {
	if len(spec.Pins) == 0 && spec.Sticky == "" {
		return
	}
	s := &steering{sticky: strings.ToLower(spec.Sticky)}
	for _, p := range spec.Pins {
		s.pins = append(s.pins, pin{strings.ToLower(p.Header), p.Value, r.splitTo(p.Backend)})
	}
	if s.sticky != "" {
		for _, sd := range spec.Sides {
			s.sides = append(s.sides, side{sd.End, r.splitTo(sd.Backend)})
		}
		if len(s.sides) == 0 {
			s.sides = r.sidesByWeight()
		}
	}
	r.steering = s
}

// splitTo is the first split with weight to a backend, or else the first.
func (r *Rule) splitTo(backend string) int {
	for _, needsWeight := range []bool{true, false} {
		i := slices.IndexFunc(r.Splits, func(s Split) bool {
			return s.Backend == backend && (s.Weight > 0 || !needsWeight)
		})
		if i >= 0 {
			return i
		}
	}
	r.Splits = append(r.Splits, Split{Backend: backend})
	return len(r.Splits) - 1
}

// sidesByWeight part the space in proportion to the weights, in the order of the
// backends: each ends at hashSpace × (its weight and those before it) / sum, rounded
// up, as the store has it when it begins to keep sides.
func (r *Rule) sidesByWeight() (sides []side) {
	before := uint64(0)
	for i, s := range r.Splits {
		if s.Weight == 0 || r.splitTo(s.Backend) != i {
			continue
		}
		for _, same := range r.Splits {
			if same.Backend == s.Backend {
				before += uint64(same.Weight)
			}
		}
		high, low := bits.Mul64(before, hashSpace)
		low, carry := bits.Add64(low, r.sum-1, 0)
		end, _ := bits.Div64(high+carry, low, r.sum)
		sides = append(sides, side{end, i})
	}
	return sides
}

// Readiness is how well a backend can take an RPC.
type Readiness uint8

const (
	NotReady  Readiness = iota // it has no endpoint with weight
	Unreached                  // it has, and none that can be reached, as far as is known
	Ready
)

// Spill is the split that takes an RPC in place of split i, given how ready each
// is: another with weight, chosen by weight, or else one without. It is i when no
// other is better. An RPC with a sticky key goes where the others of its key go;
// the rest spread evenly.
func (r *Rule) Spill(i int, hdr Header, ready []Readiness) int {
	var buf [maxInline]int
	able := r.Able(buf[:0], i, ready)
	sum := uint64(0)
	for _, j := range able {
		sum += r.spillWeight(j)
	}
	if sum == 0 {
		return i
	}
	at, _ := bits.Mul64(r.spillHash(hdr), sum)
	for _, j := range able {
		w := r.spillWeight(j)
		if at < w {
			return j
		}
		at -= w
	}
	return i
}

// maxInline is how many splits need no memory of their own when an RPC spills.
const maxInline = 16

// Able appends the splits that Spill chooses from, none when i keeps its RPCs: those
// that are ready; if there is none, those that at least have endpoints, when i has
// not. Of them only those with weight count, unless there is none.
func (r *Rule) Able(able []int, i int, ready []Readiness) []int {
	for enough := Ready; enough > ready[i]; enough-- {
		weighted := false
		for j := range r.Splits {
			if ready[j] >= enough {
				able = append(able, j)
				weighted = weighted || r.Splits[j].Weight > 0
			}
		}
		if weighted {
			able = slices.DeleteFunc(able, func(j int) bool { return r.Splits[j].Weight == 0 })
		}
		if len(able) > 0 {
			break
		}
	}
	return able
}

// spillWeight of splits without weight is the same for all.
func (r *Rule) spillWeight(i int) uint64 { return max(1, uint64(r.Splits[i].Weight)) }

// spillHash is another hash than that of the sides: those who spill are all of one
// side. Without a key, the multiples of the golden section spread better than chance.
func (r *Rule) spillHash(hdr Header) uint64 {
	if s := r.steering; s != nil {
		if value := s.key(hdr); value != "" {
			return mix(keyHash(value) + 1)
		}
	}
	const golden = 0x9e3779b97f4a7c15
	return r.turn.spilt.Add(1) * golden
}
