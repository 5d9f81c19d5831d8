package route

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sluice/store"
)

// Rule is one rule of one route. It belongs to every Table from the first that has
// the route to the last.
type Rule struct {
	Kind  string // of the route: store.GRPCRouteKind or store.HTTPRouteKind
	Route string // the key of the route: "namespace/name"
	Name  string // may be empty
	Index int    // in the route

	// Splits are the rule's backendRefs, in their order, those of weight 0 too, and
	// with weight 0 whatever else it is steered to.
	Splits []Split
	// Request and Response change headers on their way, whatever the split; those
	// of the split come after them. Nil changes nothing.
	Request, Response *Modifier
	// SpillOver tells that Spill is asked when a split cannot be served.
	SpillOver bool
	// Overridden tells that the weights are an operator's, not the declared ones.
	Overridden bool
	// Treatment is what becomes of its requests beside where they go.
	Treatment store.Treatment
	// Rewrite and Redirect are those of an HTTPRoute's rule, and mostly nil. A rule that
	// redirects has no splits.
	Rewrite  *Rewrite
	Redirect *Redirect
	// Attached is what the owner of the tables keeps with the rule. It is set before
	// the first table that has the rule is in use, and not afterwards.
	Attached any

	created  time.Time // of the route
	declared int       // how many of Splits are backendRefs
	steps    []step
	sum      uint64    // of all weights
	turn     *turn     // nil when nothing goes by turns
	steering *steering // nil when the weights alone decide
}

// Split is one share of a rule.
type Split struct {
	Backend string // its key
	Weight  uint32
	// Request and Response are the split's own changes, after those of the rule.
	Request, Response *Modifier
	// Rewrite is the split's own, in place of the rule's.
	Rewrite *Rewrite
}

// turn counts the picks of a rule. It has a cache line for itself: all
// connections together write to it.
type turn struct {
	_     [64]byte
	n     atomic.Uint64
	spilt atomic.Uint64 // picks that went elsewhere
	_     [48]byte
}

// step decides between one split and all that come after it.
type step struct {
	split  int
	weight uint64
	total  uint64 // weight and those of all later steps
}

// Pick is the split whose turn it is, an index into Splits, or -1 when no split
// has weight. Of every 100 consecutive picks each split gets exactly its share
// when the weights sum up to 100 or to a divisor of it; in general that is so of
// every S/g picks, S being the sum of the weights and g their greatest common
// divisor. The picks of all goroutines count together.
func (r *Rule) Pick() int {
	switch len(r.steps) {
	case 0:
		return -1
	case 1:
		return r.steps[0].split
	}
	return r.pick((r.turn.n.Add(1) - 1) % r.sum)
}

// pick is the split of turn n, below sum. Each step spreads its split evenly among
// the turns that are left to it: the split has had floor((n·weight + total/2) /
// total) of the first n turns, and gets turn n when that number grows. The rest of
// the turns, numbered anew, go to the next step. So no table is needed, whatever
// the weights.
func (r *Rule) pick(n uint64) int {
	last := len(r.steps) - 1
	for i := range r.steps[:last] {
		s := &r.steps[i]
		high, low := bits.Mul64(n, s.weight)
		low, carry := bits.Add64(low, s.total/2, 0)
		had, rest := bits.Div64(high+carry, low, s.total)
		if rest+s.weight >= s.total {
			return s.split
		}
		n -= had
	}
	return r.steps[last].split
}

func (r *Rule) setSteps() {
	for i, s := range r.Splits {
		if s.Weight > 0 {
			r.steps = append(r.steps, step{split: i, weight: uint64(s.Weight)})
		}
	}
	// The heaviest first: it suffers most from turns that are not evenly spread.
	slices.SortStableFunc(r.steps, func(a, b step) int { return -cmp.Compare(a.weight, b.weight) })
	for i := len(r.steps) - 1; i >= 0; i-- {
		r.sum += r.steps[i].weight
		r.steps[i].total = r.sum
	}
}

// HasWeight tells whether some split has weight. Else only a pin finds one.
func (r *Rule) HasWeight() bool { return len(r.steps) > 0 }

// compareAge puts the older route first, and one without a date last.
func (r *Rule) compareAge(other *Rule) int {
	switch {
	case r.created.IsZero() == other.created.IsZero():
		return r.created.Compare(other.created)
	case r.created.IsZero():
		return 1
	}
	return -1
}

// continues tells whether the rule goes on with the turn of an old one: same place
// in the route, same shares.
func (r *Rule) continues(old *Rule) bool {
	if r.Name != old.Name || r.Name == "" && r.Index != old.Index {
		return false
	}
	return slices.EqualFunc(r.Splits[:r.declared], old.Splits[:old.declared], func(a, b Split) bool {
		return a.Backend == b.Backend && a.Weight == b.Weight
	})
}

// Label is the rule's name within its route, or its number when it has none.
func (r *Rule) Label() string {
	if r.Name == "" {
		return strconv.Itoa(r.Index)
	}
	return r.Name
}

// fullName is unlike that of any other rule.
func (r *Rule) fullName() string {
	if r.Name == "" {
		return fmt.Sprintf("%s[%d]", r.Route, r.Index)
	}
	return r.Route + "/" + r.Name
}

// String is the rule as Table.String prints it.
func (r *Rule) String() string {
	var b strings.Builder
	b.WriteString(r.fullName())
	b.WriteString(":")
	if len(r.steps) == 0 {
		b.WriteString(" no backend")
	}
	for _, s := range r.Splits {
		fmt.Fprintf(&b, " %s=%d", s.Backend, s.Weight)
	}
	return b.String()
}

// ruleSource is what a rule is made of, whatever the kind of its route.
type ruleSource struct {
	kind, route string
	name        string
	index       int
	created     time.Time
	filters     []store.Filter
	refs        []store.BackendRef
	backendKey  func(*store.BackendRef) string
	steering    *store.Steering
	treatment   store.Treatment
}

func newGRPCRule(r *store.GRPCRoute, key string, index int) *Rule {
	spec := &r.Spec.Rules[index]
	return newRule(&ruleSource{
		kind: store.GRPCRouteKind, route: key, name: spec.Name, index: index, created: r.CreationTimestamp,
		filters: spec.Filters, refs: spec.BackendRefs, backendKey: r.BackendKey, steering: &spec.Steering, treatment: spec.Treatment,
	})
}

func newRule(from *ruleSource) *Rule {
	rule := &Rule{Kind: from.kind, Route: from.route, Name: from.name, Index: from.index, created: from.created, Treatment: from.treatment}
	rule.SpillOver, rule.Overridden = from.steering.SpillOver, from.steering.Overridden
	rule.Request, rule.Response = newModifiers(from.filters)
	rule.Splits = make([]Split, 0, len(from.refs))
	for i := range from.refs {
		ref := &from.refs[i]
		s := Split{Backend: from.backendKey(ref), Weight: ref.Weight}
		s.Request, s.Response = newModifiers(ref.Filters)
		rule.Splits = append(rule.Splits, s)
	}
	rule.declared = len(rule.Splits)
	rule.setSteps()
	rule.steer(from.steering)
	if len(rule.steps) > 1 || rule.SpillOver {
		rule.turn = new(turn)
	}
	return rule
}
