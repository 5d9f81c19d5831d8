package store

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of one rule's split.
const (
	maxPins      = 100
	maxPinLength = 1024 // bytes of a value
)

// SplitEdit is what an operator changes of the split of one rule. What it does not
// name stays.
type SplitEdit struct {
	// Reset gives up all that was changed of the rule before the rest is done.
	Reset bool
	// Shares are all of them: a backend of the rule that is not named gets nothing. A
	// backend is named by its key, or by its name in the namespace of the route.
	Shares []Share
	// Whole refuses shares that leave out a backend which has weight: nobody loses
	// its share by an oversight.
	Whole bool
	// Pins replace all pins unless there are none.
	Pins      []Pin
	ClearPins bool
	Sticky    *string // metadata; empty means turns
	SpillOver *bool
	At        time.Time // of the edit
	By        string    // its actor
}

// EditSplit is the state of a route after an edit of one rule's split. The error is
// of type Faults. Which values of sticky metadata belong to which backend changes
// only as far as the weights ask.
func EditSplit(route Route, cur State, rule string, edit SplitEdit) (State, error) {
	index, err := findRule(route, rule)
	if err != nil {
		return cur, err
	}
	e := splitEditor{route: route, backends: route.RuleBackends(index), edit: &edit}
	e.split = RuleSplit{Rule: route.RuleLabel(index)}
	old := cur.Split(e.split.Rule)
	if old != nil && !edit.Reset {
		e.split = old.normal()
	}
	e.setShares()
	e.setPins()
	e.setSteering()
	if faults := e.faults.faults(); len(faults) > 0 {
		return cur, faults
	}
	e.split.Since, e.split.By = edit.At, edit.By
	e.split.Sides = moveSides(sidesInForce(route, e.backends, old), sharesInForce(route, e.backends, &e.split).list)
	if !e.split.Overridden() && slices.Equal(e.split.Sides, plainSides(declaredShares(route, e.backends))) {
		return cur.withoutSplit(e.split.Rule).normal(), nil
	}
	return cur.withSplit(e.split).normal(), nil
}

func findRule(route Route, rule string) (int, error) {
	index := route.RuleIndex(rule)
	if index >= 0 {
		return index, nil
	}
	labels := make([]string, route.RuleCount())
	for i := range labels {
		labels[i] = route.RuleLabel(i)
	}
	have := "it has none"
	if len(labels) > 0 {
		have = "it has " + short(strings.Join(labels, ", "))
	}
	message := fmt.Sprintf("%s %s has no rule %s: %s", route.Kind(), route.Key(), quote(rule), have)
	if rule == "" {
		message = fmt.Sprintf("%s %s has more than one rule, or none: name the rule; %s", route.Kind(), route.Key(), have)
	}
	return -1, Faults{{Field: "rule", Message: message}}
}

// splitEditor is one call of EditSplit.
type splitEditor struct {
	route    Route
	backends []BackendRef // of the rule
	edit     *SplitEdit
	split    RuleSplit
	faults   faultList
}

func (e *splitEditor) fault(field, format string, args ...any) {
	e.faults.add(Position{}, field, format, args...)
}

// backend is the key of a backend of the rule, "" with a fault when it has none of
// that name.
func (e *splitEditor) backend(field, name string) string {
	wanted := name
	if !strings.Contains(name, "/") {
		wanted = key(e.route.Metadata().Namespace, name)
	}
	var have []string
	for i := range e.backends {
		k := e.route.BackendKey(&e.backends[i])
		if k == wanted {
			return k
		}
		have = append(have, k)
	}
	if len(have) == 0 {
		have = []string{"none"}
	}
	e.fault(field, "%s is no backend of rule %s: it has %s; add it to the rule's backendRefs, with weight 0 for instance",
		quote(name), e.split.Rule, short(strings.Join(have, ", ")))
	return ""
}

func (e *splitEditor) setShares() {
	if len(e.edit.Shares) == 0 {
		return
	}
	var shares []Share
	var total uint64
	for i, s := range e.edit.Shares {
		field := fmt.Sprintf("shares[%d]", i)
		k := e.backend(field+".backend", s.Backend)
		if s.Weight > maxWeight {
			e.fault(field+".weight", "%d is out of range, want 0 to %d", s.Weight, maxWeight)
		}
		if k != "" && slices.ContainsFunc(shares, func(s Share) bool { return s.Backend == k }) {
			e.fault(field+".backend", "%s stands there twice", quote(s.Backend))
		}
		shares = append(shares, Share{k, s.Weight})
		total += uint64(s.Weight)
	}
	if total == 0 {
		e.fault("shares", "every weight is 0: no backend would get an RPC")
	}
	if e.edit.Whole {
		e.wantAll(shares)
	}
	e.split.Shares = shares
}

// wantAll has a fault for each backend that has weight and is not among shares.
func (e *splitEditor) wantAll(shares []Share) {
	for _, had := range sharesInForce(e.route, e.backends, &e.split).list {
		if had.Weight > 0 && !slices.ContainsFunc(shares, func(s Share) bool { return s.Backend == had.Backend }) {
			e.fault("shares", "%s has weight %d and is not named; say what it gets, 0 for nothing", had.Backend, had.Weight)
		}
	}
}

func (e *splitEditor) setPins() {
	if e.edit.ClearPins {
		e.split.Pins = nil
	}
	if len(e.edit.Pins) == 0 {
		return
	}
	if len(e.edit.Pins) > maxPins {
		e.fault("pins", "%d pins, limit %d", len(e.edit.Pins), maxPins)
		return
	}
	var pins []Pin
	for i, pin := range e.edit.Pins {
		field := fmt.Sprintf("pins[%d]", i)
		if problem := checkHeaderName(pin.Header); problem != "" {
			e.fault(field+".header", "%s: %s", quote(pin.Header), problem)
		}
		if problem := checkPinValue(pin.Value); problem != "" {
			e.fault(field+".value", "%s: %s", quote(pin.Value), problem)
		}
		pin.Header = strings.ToLower(pin.Header)
		pin.Backend = e.backend(field+".backend", pin.Backend)
		if slices.ContainsFunc(pins, func(p Pin) bool { return p.Header == pin.Header && p.Value == pin.Value }) {
			e.fault(field, "a pin of %s: %s stands there twice", quote(pin.Header), quote(pin.Value))
		}
		pins = append(pins, pin)
	}
	e.split.Pins = pins
}

func checkPinValue(s string) string {
	switch {
	case s == "":
		return "want a value"
	case len(s) > maxPinLength:
		return fmt.Sprintf("%d bytes, limit %d", len(s), maxPinLength)
	case !utf8.ValidString(s):
		return "not UTF-8"
	}
	return checkControls(s)
}

func (e *splitEditor) setSteering() {
	if e.edit.SpillOver != nil {
		over := *e.edit.SpillOver
		e.split.SpillOver = &over
	}
	if e.edit.Sticky == nil {
		return
	}
	e.split.Sticky, e.split.Turns = strings.ToLower(*e.edit.Sticky), *e.edit.Sticky == ""
	if problem := checkHeaderName(*e.edit.Sticky); problem != "" && *e.edit.Sticky != "" {
		e.fault("sticky", "%s: %s", quote(*e.edit.Sticky), problem)
	}
}

// weights are the shares of a rule's backends, each once, in the order of the rule.
type weights struct {
	list       []Share
	overridden bool // they are an operator's
}

// declaredShares are the shares as the manifest has them.
func declaredShares(route Route, backends []BackendRef) []Share {
	shares := make([]Share, 0, len(backends))
	for i := range backends {
		ref := &backends[i]
		k := route.BackendKey(ref)
		at := slices.IndexFunc(shares, func(s Share) bool { return s.Backend == k })
		if at < 0 {
			shares = append(shares, Share{k, ref.Weight})
			continue
		}
		shares[at].Weight += ref.Weight
	}
	return shares
}

// sharesInForce are those of the split, if there is one. A backend that the rule does
// not have any more counts for nothing, and one that the split does not name gets
// nothing. A split of which nothing is left does not hold.
func sharesInForce(route Route, backends []BackendRef, split *RuleSplit) weights {
	declared := declaredShares(route, backends)
	if split == nil || len(split.Shares) == 0 {
		return weights{declared, false}
	}
	shares := slices.Clone(declared)
	var total uint64
	for i := range shares {
		shares[i].Weight = 0
		for _, s := range split.Shares {
			if s.Backend == shares[i].Backend {
				shares[i].Weight = s.Weight
				total += uint64(s.Weight)
			}
		}
	}
	if total == 0 {
		return weights{declared, false}
	}
	return weights{shares, true}
}

// sidesInForce are where the values of sticky metadata belong by now.
func sidesInForce(route Route, backends []BackendRef, split *RuleSplit) []Side {
	var sides []Side
	if split != nil {
		sides = split.Sides
	}
	return moveSides(sides, sharesInForce(route, backends, split).list)
}

// settleSides keeps the sides of a route's sticky rules in step with their weights,
// whatever changed these: a value moves only when its backend gets less. Rules that
// are not sticky have no sides.
func (p *plan) settleSides(old, o *Object) {
	route, ok := o.Resource.(Route)
	if !ok || len(o.State.Splits) == 0 && len(p.policies()) == 0 {
		return
	}
	policies := p.policies()[o.ID]
	state := o.State
	for i := range route.RuleCount() {
		backends, label := route.RuleBackends(i), route.RuleLabel(i)
		split := state.Split(label)
		if stickyInForce(route, route.rule(i).name, split, policies) == "" {
			if split != nil && len(split.Sides) > 0 {
				bare := *split
				bare.Sides = nil
				state = state.withSplit(bare)
			}
			continue
		}
		shares := sharesInForce(route, backends, split).list
		sides := moveSides(p.sidesBefore(old, label, split), shares)
		if slices.Equal(sides, plainSides(shares)) {
			sides = nil
		}
		settled := RuleSplit{Rule: label}
		if split != nil {
			settled = *split
		}
		settled.Sides = sides
		state = state.withSplit(settled)
	}
	o.State = state.normal()
}

// sidesBefore are the sides that a rule has by now.
func (p *plan) sidesBefore(old *Object, label string, split *RuleSplit) []Side {
	if split != nil && len(split.Sides) > 0 {
		return split.Sides
	}
	if !old.live() {
		return nil
	}
	route := old.Resource.(Route)
	for i := range route.RuleCount() {
		if route.RuleLabel(i) == label {
			return sidesInForce(route, route.RuleBackends(i), old.State.Split(label))
		}
	}
	return nil
}
