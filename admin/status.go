package admin

import (
	"fmt"
	"strings"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// conditions tells of each object, in the words of the Gateway API, whether what it
// declares is accepted, leads somewhere, and is in force on this node.
type conditions struct {
	snapshot *store.Snapshot
	pending  map[store.ID]bool  // changed, and not in force yet
	problems map[store.ID]error // that the gateway has with objects
}

// maxPending bounds how many changes are looked through for what is not in force
// yet. Behind that many, everything counts as pending.
const maxPending = 1000

// conditionsOf takes a look at what is in force of a snapshot.
func (a *api) conditionsOf(snapshot *store.Snapshot) (*conditions, error) {
	seq, problems := a.gateway.Programmed()
	c := &conditions{snapshot: snapshot, problems: problems}
	if seq >= snapshot.Seq() {
		return c, nil
	}
	behind := min(snapshot.Seq()-seq, maxPending)
	changes, err := a.store.History(store.ID{}, snapshot.Seq()+1, int(behind))
	if err != nil {
		return nil, err
	}
	c.pending = make(map[store.ID]bool, len(changes))
	for i := range changes {
		if changes[i].Seq > seq {
			c.pending[changes[i].ID] = true
		}
	}
	return c, nil
}

// of returns the conditions of one object.
func (c *conditions) of(o *store.Object) []*adminv1.Condition {
	return []*adminv1.Condition{accepted(o), c.resolvedRefs(o), c.programmed(o)}
}

func condition(kind string, status bool, reason, message string) *adminv1.Condition {
	return &adminv1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}

// accepted is true of everything that is in the store: what it cannot accept is
// refused when it is written.
func accepted(*store.Object) *adminv1.Condition {
	return condition("Accepted", true, "Accepted", "")
}

// resolvedRefs is about the objects that this one refers to.
func (c *conditions) resolvedRefs(o *store.Object) *adminv1.Condition {
	reason, missing := "BackendNotFound", c.missing(o)
	if o.ID.Kind == store.RPCPolicyKind {
		reason = "TargetNotFound"
	}
	if len(missing) == 0 {
		return condition("ResolvedRefs", true, "ResolvedRefs", "")
	}
	const most = 5
	names := strings.Join(missing[:min(most, len(missing))], ", ")
	if len(missing) > most {
		names += fmt.Sprintf(" and %d more", len(missing)-most)
	}
	var message string
	switch o.ID.Kind {
	case store.RPCPolicyKind:
		message = fmt.Sprintf("there is no %s: the policy does nothing for it; declare it, or take it out of the policy", names)
	case store.SchemaKind:
		message = fmt.Sprintf("there is no %s: the schema does nothing for it; declare it, or take it out of the schema", names)
	case store.RegistrationKind:
		message = fmt.Sprintf("there is no %s: the process gets no RPCs; declare it, and it does", names)
	default:
		message = fmt.Sprintf("there is no %s: what is to go there is answered UNAVAILABLE; declare it, or take it out of the route", names)
	}
	return condition("ResolvedRefs", false, reason, message)
}

// missing names what the object refers to and is not there, each once.
func (c *conditions) missing(o *store.Object) []string {
	var names []string
	for _, id := range store.References(o.Resource) {
		if _, found := c.snapshot.Get(id); !found {
			names = append(names, id.String())
		}
	}
	if r, ok := o.Resource.(*store.Registration); ok {
		to := store.ID{Kind: store.BackendKind, Namespace: o.ID.Namespace, Name: r.Spec.Backend}
		if _, found := c.snapshot.Get(to); !found {
			names = append(names, to.String())
		}
	}
	if policy, ok := o.Resource.(*store.RPCPolicy); ok {
		for i := range policy.Spec.TargetRefs {
			ref := &policy.Spec.TargetRefs[i]
			if !c.hasRule(ref.Kind, policy.TargetKey(ref), ref.SectionName) {
				names = append(names, fmt.Sprintf("rule %s of %s %s", ref.SectionName, ref.Kind, policy.TargetKey(ref)))
			}
		}
	}
	return names
}

// hasRule says whether a route has a rule of that name, if there is such a route.
func (c *conditions) hasRule(kind, key, rule string) bool {
	namespace, name, _ := strings.Cut(key, "/")
	o, found := c.snapshot.Get(store.ID{Kind: kind, Namespace: namespace, Name: name})
	if !found || rule == "" {
		return true
	}
	route, ok := o.Resource.(store.Route)
	return !ok || store.HasRule(route, rule)
}

// programmed is about what the gateway does.
func (c *conditions) programmed(o *store.Object) *adminv1.Condition {
	const kind = "Programmed"
	switch err := c.problems[o.ID]; {
	case o.State.Disabled:
		return condition(kind, false, "Disabled", "an operator has disabled it; enable it to have it back")
	case c.pending[o.ID]:
		return condition(kind, false, "Pending", "the last change is not in force yet")
	case err != nil:
		return condition(kind, false, "Invalid", err.Error())
	case o.State.DrainOf("") != nil:
		return condition(kind, true, "Drained", "takes no new RPCs, because an operator has drained it; undrain it to have it back")
	case len(o.State.Drains) > 0:
		var endpoints []string
		for _, d := range o.State.Drains {
			endpoints = append(endpoints, d.Endpoint)
		}
		return condition(kind, true, "Drained", "these endpoints take no new RPCs, because an operator has drained them: "+strings.Join(endpoints, ", "))
	}
	return condition(kind, true, kind, store.NotInForce(o.Resource))
}

// observed joins what the gateway sees of a route with what the route declares.
func (a *api) observed(o *store.Object) []*adminv1.ObservedRule {
	route, ok := o.Resource.(store.Route)
	if !ok || a.gateway == nil {
		return nil
	}
	var rules []*adminv1.ObservedRule
	for _, seen := range a.gateway.Observed(o.ID) {
		rule := &adminv1.ObservedRule{Rule: seen.Rule, Shares: sharesMessage(seen.Shares)}
		if split := o.State.Split(seen.Rule); split != nil {
			rule.Overridden = split.Overridden()
		}
		declared := declaredWeights(route, seen.Rule)
		for _, share := range rule.Shares {
			share.DeclaredWeight = declared[share.Backend]
		}
		rules = append(rules, rule)
	}
	return rules
}

func sharesMessage(shares []ObservedShare) []*adminv1.ObservedShare {
	messages := make([]*adminv1.ObservedShare, len(shares))
	for i, s := range shares {
		messages[i] = &adminv1.ObservedShare{
			Backend: s.Backend, Weight: s.Weight, Rpcs: s.RPCs, Endpoints: uint32(s.Endpoints), Problem: s.Problem,
		}
	}
	return messages
}

// declaredWeights are those of the rule of that label, by backend.
func declaredWeights(route store.Route, label string) map[string]uint32 {
	weights := map[string]uint32{}
	i := route.RuleIndex(label)
	if i < 0 {
		return weights
	}
	refs := route.RuleBackends(i)
	for j := range refs {
		weights[route.BackendKey(&refs[j])] += refs[j].Weight
	}
	return weights
}
