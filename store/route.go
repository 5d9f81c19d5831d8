package store

import (
	"slices"
	"strconv"
	"strings"
)

// Route is a *GRPCRoute or a *HTTPRoute: rules that share out requests among backends.
// Splits, pins, stickiness and policies are the same for both.
type Route interface {
	Resource
	// Key is "namespace/name".
	Key() string
	// BackendKey is the key of the Backend that ref, one of this route's, means.
	BackendKey(ref *BackendRef) string
	// RuleLabel is how the rule of that index is called in splits and figures: by its
	// name, or by the index; "#0" when another rule is named like the index.
	RuleLabel(index int) string
	// RuleIndex finds a rule by its name or its number, -1 when there is none. An empty
	// label means the only rule.
	RuleIndex(label string) int
	// RuleCount is how many rules there are.
	RuleCount() int
	// RuleBackends are the backends of the rule of that index.
	RuleBackends(index int) []BackendRef

	rule(index int) routeRule
	withRules() Route // a copy, with rules of its own
}

// routeRule is what the rules of every kind of route have, where the rule has it.
type routeRule struct {
	name      string
	filters   []Filter
	backends  *[]BackendRef
	steering  *Steering
	treatment *Treatment
	timeouts  *HTTPTimeouts // of an HTTPRoute, that says something of them
}

// RuleCount is how many rules there are.
func (r *GRPCRoute) RuleCount() int { return len(r.Spec.Rules) }

// RuleBackends are the backends of the rule of that index.
func (r *GRPCRoute) RuleBackends(index int) []BackendRef { return r.Spec.Rules[index].BackendRefs }

// RuleLabel is how the rule of that index is called in splits and figures: by its
// name, or by the index; "#0" when another rule is named like the index.
func (r *GRPCRoute) RuleLabel(index int) string { return ruleLabel(r, index) }

// RuleIndex finds a rule by its name or its number, -1 when there is none. An empty
// label means the only rule.
func (r *GRPCRoute) RuleIndex(label string) int { return ruleIndex(r, label) }

func (r *GRPCRoute) rule(index int) routeRule {
	rule := &r.Spec.Rules[index]
	return routeRule{rule.Name, rule.Filters, &rule.BackendRefs, &rule.Steering, &rule.Treatment, nil}
}

func (r *GRPCRoute) withRules() Route {
	c := *r
	c.Spec.Rules = slices.Clone(r.Spec.Rules)
	return &c
}

// RuleCount is how many rules there are.
func (r *HTTPRoute) RuleCount() int { return len(r.Spec.Rules) }

// RuleBackends are the backends of the rule of that index.
func (r *HTTPRoute) RuleBackends(index int) []BackendRef { return r.Spec.Rules[index].BackendRefs }

// RuleLabel is how the rule of that index is called in splits and figures: by its
// name, or by the index; "#0" when another rule is named like the index.
func (r *HTTPRoute) RuleLabel(index int) string { return ruleLabel(r, index) }

// RuleIndex finds a rule by its name or its number, -1 when there is none. An empty
// label means the only rule.
func (r *HTTPRoute) RuleIndex(label string) int { return ruleIndex(r, label) }

func (r *HTTPRoute) rule(index int) routeRule {
	rule := &r.Spec.Rules[index]
	return routeRule{rule.Name, rule.Filters, &rule.BackendRefs, &rule.Steering, &rule.Treatment, rule.Timeouts}
}

func (r *HTTPRoute) withRules() Route {
	c := *r
	c.Spec.Rules = slices.Clone(r.Spec.Rules)
	return &c
}

func ruleLabel(r Route, index int) string {
	if name := r.rule(index).name; name != "" {
		return name
	}
	label := strconv.Itoa(index)
	if ruleNamed(r, label) >= 0 {
		return "#" + label
	}
	return label
}

func ruleIndex(r Route, label string) int {
	if label == "" && r.RuleCount() == 1 {
		return 0
	}
	if label == "" {
		return -1
	}
	if i := ruleNamed(r, label); i >= 0 {
		return i
	}
	number := strings.TrimPrefix(label, "#")
	if i, err := strconv.Atoi(number); err == nil && 0 <= i && i < r.RuleCount() && strconv.Itoa(i) == number {
		return i
	}
	return -1
}

// HasRule tells whether a route has a rule of that name.
func HasRule(r Route, name string) bool { return ruleNamed(r, name) >= 0 }

func ruleNamed(r Route, name string) int {
	for i := range r.RuleCount() {
		if r.rule(i).name == name {
			return i
		}
	}
	return -1
}
