package store

import (
	"cmp"
	"slices"
)

// effectiveForm is what the gateway is to do of an object. It stays with the object,
// so that the next snapshot has the same pointer.
type effectiveForm struct {
	policies []*Object // that it was made with
	route    *GRPCRoute
	backend  *Backend
}

// Effective is what the gateway is to do: what is declared, with splits and policies
// in the rules' Steering and weights, without disabled routes, and with drained
// endpoints at weight 0. It is made once for a snapshot; resources that are the same
// in the next one have the same pointers there.
func (s *Snapshot) Effective() *Set {
	s.once.Do(func() { s.effective = s.makeEffective() })
	return s.effective
}

func (s *Snapshot) makeEffective() *Set {
	set := &Set{}
	targeted := targetedBy(s.live[rpcPolicies])
	set.GRPCRoutes = make([]*GRPCRoute, 0, len(s.live[grpcRoutes]))
	for _, o := range s.live[grpcRoutes] {
		if !o.State.Disabled {
			var policies []*Object
			if len(targeted) > 0 {
				policies = targeted[o.ID.Key()]
			}
			set.GRPCRoutes = append(set.GRPCRoutes, o.effectiveRoute(policies))
		}
	}
	for _, o := range s.live[httpRoutes] {
		if !o.State.Disabled {
			set.HTTPRoutes = append(set.HTTPRoutes, o.Resource.(*HTTPRoute))
		}
	}
	set.Backends = make([]*Backend, 0, len(s.live[backends]))
	for _, o := range s.live[backends] {
		set.Backends = append(set.Backends, o.effectiveBackend())
	}
	for _, o := range s.live[rpcPolicies] {
		set.RPCPolicies = append(set.RPCPolicies, o.Resource.(*RPCPolicy))
	}
	for _, o := range s.live[schemas] {
		set.Schemas = append(set.Schemas, o.Resource.(*Schema))
	}
	return set
}

// targetedBy has, by the keys of GRPCRoutes, the policies that say something about
// their splits, the oldest first.
func targetedBy(policies []*Object) map[string][]*Object {
	var targeted map[string][]*Object
	for _, o := range policies {
		p := o.Resource.(*RPCPolicy)
		if p.Spec.Split == nil {
			continue
		}
		for i := range p.Spec.TargetRefs {
			ref := &p.Spec.TargetRefs[i]
			if ref.Kind != GRPCRouteKind {
				continue
			}
			if targeted == nil {
				targeted = map[string][]*Object{}
			}
			if k := p.TargetKey(ref); !slices.Contains(targeted[k], o) {
				targeted[k] = append(targeted[k], o)
			}
		}
	}
	for _, list := range targeted {
		slices.SortFunc(list, func(a, b *Object) int {
			return cmp.Or(a.Created.Compare(b.Created), a.ID.Compare(b.ID))
		})
	}
	return targeted
}

func (o *Object) effectiveRoute(policies []*Object) *GRPCRoute {
	declared := o.Resource.(*GRPCRoute)
	if len(o.State.Splits) == 0 && len(policies) == 0 {
		return declared
	}
	if form := o.effective.Load(); form != nil && slices.Equal(form.policies, policies) {
		return form.route
	}
	route := *declared
	route.Spec.Rules = slices.Clone(declared.Spec.Rules)
	for i := range route.Spec.Rules {
		steer(declared, &route.Spec.Rules[i], o.State.Split(declared.RuleLabel(i)), policies)
	}
	o.effective.Store(&effectiveForm{policies: policies, route: &route})
	return &route
}

// steer fills in what a split and the policies say about a rule; route is the
// declared one, which stays as it is.
func steer(route *GRPCRoute, rule *GRPCRouteRule, split *RuleSplit, policies []*Object) {
	s := &rule.Steering
	if policy := splitPolicy(rule, route, policies); policy != nil {
		s.SpillOver = policy.WhenNoEndpoints == SpillOver
	}
	s.Sticky = stickyInForce(route, rule, split, policies)
	if split == nil {
		return
	}
	if split.SpillOver != nil {
		s.SpillOver = *split.SpillOver
	}
	for _, pin := range split.Pins {
		if slices.ContainsFunc(rule.BackendRefs, func(ref BackendRef) bool { return route.BackendKey(&ref) == pin.Backend }) {
			s.Pins = append(s.Pins, pin)
		}
	}
	in := sharesInForce(route, rule, split)
	if s.Sticky != "" && len(split.Sides) > 0 {
		s.Sides = moveSides(split.Sides, in.list)
	}
	if in.overridden {
		s.Overridden = true
		setWeights(route, rule, in.list)
	}
}

// setWeights gives a rule other weights. Of several references to one backend the
// first has its weight, the others have none.
func setWeights(route *GRPCRoute, rule *GRPCRouteRule, shares []Share) {
	rule.BackendRefs = slices.Clone(rule.BackendRefs)
	given := make(map[string]bool, len(shares))
	for i := range rule.BackendRefs {
		ref := &rule.BackendRefs[i]
		k := route.BackendKey(ref)
		ref.Weight = 0
		if at := slices.IndexFunc(shares, func(s Share) bool { return s.Backend == k }); at >= 0 && !given[k] {
			ref.Weight = shares[at].Weight
			given[k] = true
		}
	}
}

// splitPolicy is what the policies say about the split of a rule: the one that names
// the rule before those that name its route, and the oldest of equals.
func splitPolicy(rule *GRPCRouteRule, route *GRPCRoute, policies []*Object) *SplitPolicy {
	var found *SplitPolicy
	for _, o := range policies {
		p := o.Resource.(*RPCPolicy)
		for i := range p.Spec.TargetRefs {
			ref := &p.Spec.TargetRefs[i]
			if ref.Kind != GRPCRouteKind || p.TargetKey(ref) != route.Key() {
				continue
			}
			if ref.SectionName != "" && ref.SectionName == rule.Name {
				return p.Spec.Split
			}
			if ref.SectionName == "" && found == nil {
				found = p.Spec.Split
			}
		}
	}
	return found
}

// stickyInForce is the metadata whose value decides in a rule, "" for turns.
func stickyInForce(route *GRPCRoute, rule *GRPCRouteRule, split *RuleSplit, policies []*Object) string {
	if split != nil && (split.Turns || split.Sticky != "") {
		return split.Sticky
	}
	if policy := splitPolicy(rule, route, policies); policy != nil && policy.Sticky != nil {
		return policy.Sticky.Header
	}
	return ""
}

// policies are what targetedBy says of the objects as they would be by now.
func (p *plan) policies() map[string][]*Object {
	if !p.hasTargeted {
		p.hasTargeted = true
		var changed []*Object
		for id, o := range p.planned {
			if id.Kind == RPCPolicyKind {
				changed = append(changed, o)
			}
		}
		p.targeted = targetedBy(overlay(p.base.live[rpcPolicies], changed, (*Object).live))
	}
	return p.targeted
}

// effectiveBackend has weight 0 for each endpoint that is drained.
func (o *Object) effectiveBackend() *Backend {
	declared := o.Resource.(*Backend)
	if !o.State.Drained && len(o.State.DrainedEndpoints) == 0 {
		return declared
	}
	if form := o.effective.Load(); form != nil {
		return form.backend
	}
	b := *declared
	b.Spec.Endpoints = slices.Clone(declared.Spec.Endpoints)
	for i := range b.Spec.Endpoints {
		if e := &b.Spec.Endpoints[i]; o.State.Drained || slices.Contains(o.State.DrainedEndpoints, e.Address) {
			e.Weight = 0
		}
	}
	o.effective.Store(&effectiveForm{backend: &b})
	return &b
}
