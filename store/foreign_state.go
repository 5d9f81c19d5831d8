package store

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of the state of one object of another node. What EditSplit and EditDrain make
// keeps to them, and to the order in which states are kept.
const (
	maxSplits = 256  // of a route: rules come and go, and their splits stay
	maxSides  = 4096 // of a rule
)

// checkState refuses a state that EditSplit, EditDrain and the like do not make of what
// the object declares.
func (o *Object) checkState() Faults {
	s := o.State
	_, isRoute := o.Resource.(Route)
	_, isBackend := o.Resource.(*Backend)
	var list faultList
	if s.Disabled && !isRoute {
		list.add(Position{}, "disabled", "only a route can be disabled")
	}
	switch {
	case len(s.Splits) > 0 && !isRoute:
		list.add(Position{}, "splits", "only a route can be split")
	case len(s.Splits) > maxSplits:
		list.add(Position{}, "splits", "%d of them, limit %d", len(s.Splits), maxSplits)
	default:
		o.checkSplits(&list)
	}
	switch {
	case len(s.Drains) > 0 && !isBackend:
		list.add(Position{}, "drains", "only a Backend can be drained")
	case len(s.Drains) > maxDrains:
		list.add(Position{}, "drains", "%d of them, limit %d", len(s.Drains), maxDrains)
	default:
		o.checkDrains(&list)
	}
	return list.faults()
}

// latest is the latest time at which something of the object's state can have begun. The
// change may have been made since the clock was set back; its revision was not.
func (o *Object) latest() time.Time {
	at := o.Changed
	if wall := time.UnixMilli(o.Revision.Wall); wall.After(at) {
		at = wall
	}
	return at.Add(maxAhead)
}

// dateState has nothing of the state begin later than the object was changed, such as what
// was restored from a copy of a node whose clock was ahead: no peer would take it.
func (o *Object) dateState() {
	latest := o.latest()
	late := slices.ContainsFunc(o.State.Splits, func(s RuleSplit) bool { return s.Since.After(latest) }) ||
		slices.ContainsFunc(o.State.Drains, func(d Drain) bool { return d.Since.After(latest) })
	if !late {
		return
	}
	o.State.Splits, o.State.Drains = slices.Clone(o.State.Splits), slices.Clone(o.State.Drains)
	for i := range o.State.Splits {
		if s := &o.State.Splits[i]; s.Since.After(latest) {
			s.Since = o.Changed
		}
	}
	for i := range o.State.Drains {
		if d := &o.State.Drains[i]; d.Since.After(latest) {
			d.Since = o.Changed
		}
	}
}

func (o *Object) checkSplits(list *faultList) {
	rules := map[string]bool{}
	for i := range o.State.Splits {
		split := &o.State.Splits[i]
		if checkName(split.Rule) != "" || rules[split.Rule] {
			list.add(Position{}, "splits", "rule %s: want the name or number of a rule, each once", quote(split.Rule))
		}
		rules[split.Rule] = true
		if split.Since.After(o.latest()) {
			list.add(Position{}, "splits.since", "%s is later than the change", split.Since.UTC().Format(time.RFC3339))
		}
		split.checkForeign(list)
	}
}

// checkForeign adds what no SplitEdit makes.
func (s *RuleSplit) checkForeign(list *faultList) {
	if problem := checkBy(s.By); problem != "" {
		list.add(Position{}, "splits.by", "%s", problem)
	}
	s.checkShares(list)
	s.checkPins(list)
	if s.Sticky != "" && (s.Turns || checkMetadata(s.Sticky) != "") {
		list.add(Position{}, "splits.sticky", "%s: want metadata in lower case, or turns", quote(s.Sticky))
	}
	s.checkSides(list)
}

func (s *RuleSplit) checkShares(list *faultList) {
	if len(s.Shares) > maxBackendRefs {
		list.add(Position{}, "splits.shares", "%d of them, limit %d", len(s.Shares), maxBackendRefs)
		return
	}
	var total uint64
	for i, share := range s.Shares {
		if problem := checkBackendKey(share.Backend); problem != "" {
			list.add(Position{}, "splits.shares", "%s: %s", quote(share.Backend), problem)
		}
		if slices.ContainsFunc(s.Shares[:i], func(other Share) bool { return other.Backend == share.Backend }) {
			list.add(Position{}, "splits.shares", "%s stands there twice", quote(share.Backend))
		}
		if share.Weight > maxWeight {
			list.add(Position{}, "splits.shares", "%d is out of range, want 0 to %d", share.Weight, maxWeight)
		}
		total += uint64(share.Weight)
	}
	if len(s.Shares) > 0 && total == 0 {
		list.add(Position{}, "splits.shares", "every weight is 0")
	}
}

func (s *RuleSplit) checkPins(list *faultList) {
	if len(s.Pins) > maxPins {
		list.add(Position{}, "splits.pins", "%d of them, limit %d", len(s.Pins), maxPins)
		return
	}
	for i, pin := range s.Pins {
		for _, problem := range [...]string{checkMetadata(pin.Header), checkPinValue(pin.Value), checkBackendKey(pin.Backend)} {
			if problem != "" {
				list.add(Position{}, "splits.pins", "pin of %s: %s", quote(pin.Header), problem)
			}
		}
		if slices.ContainsFunc(s.Pins[:i], func(p Pin) bool { return p.Header == pin.Header && p.Value == pin.Value }) {
			list.add(Position{}, "splits.pins", "a pin of %s stands there twice", quote(pin.Header))
		}
	}
}

// checkSides wants the whole space, in pieces that ascend, neighbours of different
// backends.
func (s *RuleSplit) checkSides(list *faultList) {
	if len(s.Sides) == 0 {
		return
	}
	if len(s.Sides) > maxSides {
		list.add(Position{}, "splits.sides", "%d of them, limit %d", len(s.Sides), maxSides)
		return
	}
	var start uint64
	before := ""
	for _, side := range s.Sides {
		if problem := checkBackendKey(side.Backend); problem != "" {
			list.add(Position{}, "splits.sides", "%s: %s", quote(side.Backend), problem)
		}
		if side.End <= start || side.Backend == before {
			list.add(Position{}, "splits.sides", "side to %d of %s after one to %d of %s", side.End, quote(side.Backend), start, quote(before))
			return
		}
		start, before = side.End, side.Backend
	}
	if start != space {
		list.add(Position{}, "splits.sides", "they end at %d, want %d", start, uint64(space))
	}
}

func (o *Object) checkDrains(list *faultList) {
	for i := range o.State.Drains {
		d := &o.State.Drains[i]
		if d.Endpoint != "" && checkEndpoint(d.Endpoint) != "" {
			list.add(Position{}, "drains", "%s: %s", quote(d.Endpoint), checkEndpoint(d.Endpoint))
		}
		grace := time.Duration(d.Grace)
		if grace < 0 || grace > maxTimeout || grace%time.Millisecond != 0 {
			list.add(Position{}, "drains.grace", "%s is out of range, want %s to %s", grace, Duration(time.Millisecond), Duration(maxTimeout))
		}
		if d.Since.After(o.latest()) {
			list.add(Position{}, "drains.since", "%s is later than the change", d.Since.UTC().Format(time.RFC3339))
		}
		if problem := checkBy(d.By); problem != "" {
			list.add(Position{}, "drains.by", "%s", problem)
		}
	}
}

// checkBy is for the actor of a split or a drain.
func checkBy(actor string) string {
	if err := (Author{Actor: actor}).check(); err != nil {
		return err.Error()
	}
	return ""
}

// checkBackendKey is for "namespace/name".
func checkBackendKey(s string) string {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok {
		return "want namespace/name"
	}
	if problem := checkNamespace(namespace); problem != "" {
		return fmt.Sprintf("namespace: %s", problem)
	}
	return checkName(name)
}

// checkMetadata is for the name of a header in lower case.
func checkMetadata(s string) string {
	if s != strings.ToLower(s) {
		return "want lower case"
	}
	return checkHeaderName(s)
}
