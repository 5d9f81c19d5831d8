package store

import (
	"cmp"
	"slices"
)

// effectiveForm is what the gateway is to do of an object. It stays with the object,
// so that the next snapshot has the same pointer.
type effectiveForm struct {
	policies []*Object // that it was made with
	route    Route

	registered []*Registration // that it was made with
	backend    *Backend
}

// Effective is what the gateway is to do: what is declared, with splits and policies
// in the weights, Steering and Treatment of rules, without disabled routes, with the
// endpoints that are registered, and with drained ones at weight 0. It is made once for
// a snapshot; resources that are the same in the next one have the same pointers there.
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
			set.GRPCRoutes = append(set.GRPCRoutes, o.effectiveRoute(targeted).(*GRPCRoute))
		}
	}
	for _, o := range s.live[httpRoutes] {
		if !o.State.Disabled {
			set.HTTPRoutes = append(set.HTTPRoutes, o.effectiveRoute(targeted).(*HTTPRoute))
		}
	}
	set.Backends = make([]*Backend, 0, len(s.live[backends]))
	for _, o := range s.live[backends] {
		set.Backends = append(set.Backends, o.effectiveBackend(s.registered(o.ID)))
	}
	for _, o := range s.live[rpcPolicies] {
		set.RPCPolicies = append(set.RPCPolicies, o.Resource.(*RPCPolicy))
	}
	for _, o := range s.live[schemas] {
		set.Schemas = append(set.Schemas, o.Resource.(*Schema))
	}
	return set
}

// targetedBy has, by the IDs of routes, the policies that say something about their
// rules, the oldest first.
func targetedBy(policies []*Object) map[ID][]*Object {
	var targeted map[ID][]*Object
	for _, o := range policies {
		p := o.Resource.(*RPCPolicy)
		if !p.Spec.treats() {
			continue
		}
		for i := range p.Spec.TargetRefs {
			if targeted == nil {
				targeted = map[ID][]*Object{}
			}
			if id := p.target(&p.Spec.TargetRefs[i]); !slices.Contains(targeted[id], o) {
				targeted[id] = append(targeted[id], o)
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

// treats tells whether the policy says anything that an effective set has.
func (s *RPCPolicySpec) treats() bool {
	return s.Split != nil || s.CORS != nil || s.Translation != nil || s.Expose != nil || s.Timeouts != nil ||
		s.Retry != nil || s.RetryConstraint != nil || s.Hedging != nil || len(s.RateLimits) > 0
}

func (p *RPCPolicy) target(ref *TargetRef) ID { return ID{ref.Kind, p.Namespace, ref.Name} }

func (o *Object) effectiveRoute(targeted map[ID][]*Object) Route {
	var policies []*Object
	if len(targeted) > 0 {
		policies = targeted[o.ID]
	}
	declared := o.Resource.(Route)
	if len(o.State.Splits) == 0 && len(policies) == 0 {
		return declared
	}
	if form := o.effective.Load(); form != nil && slices.Equal(form.policies, policies) {
		return form.route
	}
	route := declared.withRules()
	for i := range route.RuleCount() {
		rule := route.rule(i)
		steer(declared, rule, o.State.Split(declared.RuleLabel(i)), policies)
		treat(declared, rule, policies)
	}
	o.effective.Store(&effectiveForm{policies: policies, route: route})
	return route
}

// steer fills in what a split and the policies say about a rule; route is the
// declared one, which stays as it is.
func steer(route Route, rule routeRule, split *RuleSplit, policies []*Object) {
	s := rule.steering
	if policy := splitPolicy(route, rule.name, policies); policy != nil {
		s.SpillOver = policy.WhenNoEndpoints == SpillOver
	}
	s.Sticky = stickyInForce(route, rule.name, split, policies)
	if split == nil {
		return
	}
	if split.SpillOver != nil {
		s.SpillOver = *split.SpillOver
	}
	for _, pin := range split.Pins {
		if slices.ContainsFunc(*rule.backends, func(ref BackendRef) bool { return route.BackendKey(&ref) == pin.Backend }) {
			s.Pins = append(s.Pins, pin)
		}
	}
	in := sharesInForce(route, *rule.backends, split)
	if s.Sticky != "" && len(split.Sides) > 0 {
		s.Sides = moveSides(split.Sides, in.list)
	}
	if in.overridden {
		s.Overridden = true
		*rule.backends = withWeights(route, *rule.backends, in.list)
	}
}

// withWeights are the backends of a rule with other weights. Of several references to
// one backend the first has its weight, the others have none.
func withWeights(route Route, backends []BackendRef, shares []Share) []BackendRef {
	backends = slices.Clone(backends)
	given := make(map[string]bool, len(shares))
	for i := range backends {
		ref := &backends[i]
		k := route.BackendKey(ref)
		ref.Weight = 0
		if at := slices.IndexFunc(shares, func(s Share) bool { return s.Backend == k }); at >= 0 && !given[k] {
			ref.Weight = shares[at].Weight
			given[k] = true
		}
	}
	return backends
}

// policyOf is the policy that counts for a rule among those that says is true of: the
// one that names the rule before those that name its route, and the oldest of equals.
// It is nil when there is none.
func policyOf(route Route, rule string, policies []*Object, says func(*RPCPolicySpec) bool) *RPCPolicySpec {
	id := ResourceID(route)
	var found *RPCPolicySpec
	for _, o := range policies {
		p := o.Resource.(*RPCPolicy)
		if !says(&p.Spec) {
			continue
		}
		for i := range p.Spec.TargetRefs {
			ref := &p.Spec.TargetRefs[i]
			if p.target(ref) != id {
				continue
			}
			if ref.SectionName != "" && ref.SectionName == rule {
				return &p.Spec
			}
			if ref.SectionName == "" && found == nil {
				found = &p.Spec
			}
		}
	}
	return found
}

// splitPolicy is what the policies say about the split of a rule.
func splitPolicy(route Route, rule string, policies []*Object) *SplitPolicy {
	if p := policyOf(route, rule, policies, func(s *RPCPolicySpec) bool { return s.Split != nil }); p != nil {
		return p.Split
	}
	return nil
}

// stickyInForce is the metadata whose value decides in a rule, "" for turns.
func stickyInForce(route Route, rule string, split *RuleSplit, policies []*Object) string {
	if split != nil && (split.Turns || split.Sticky != "") {
		return split.Sticky
	}
	if policy := splitPolicy(route, rule, policies); policy != nil && policy.Sticky != nil {
		return policy.Sticky.Header
	}
	return ""
}

// policies are what targetedBy says of the objects as they would be by now.
func (p *plan) policies() map[ID][]*Object {
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

// effectiveBackend has the endpoints that are registered too, and weight 0 for each
// that is drained.
func (o *Object) effectiveBackend(registered []*Registration) *Backend {
	declared := o.Resource.(*Backend)
	if declared.Spec.Registration == nil {
		registered = nil
	}
	if len(o.State.Drains) == 0 && len(registered) == 0 {
		return declared
	}
	if form := o.effective.Load(); form != nil && slices.Equal(form.registered, registered) {
		return form.backend
	}
	b := *declared
	b.Spec.Endpoints = withRegistered(declared, registered)
	for i := range b.Spec.Endpoints {
		e := &b.Spec.Endpoints[i]
		if e.Drain = drainFor(o.State.Drains, e.Address); e.Drain != nil {
			e.Weight = 0
		}
	}
	if declared.Spec.DNS != nil {
		here := b.Spec.addresses()
		b.Spec.Drains = slices.DeleteFunc(slices.Clone(o.State.Drains), func(d Drain) bool { return here[d.Endpoint] })
	}
	o.effective.Store(&effectiveForm{registered: registered, backend: &b})
	return &b
}

// withRegistered are the endpoints of a Backend, those that are declared and then those
// that are registered, of which there are no more than the Backend takes. What is
// declared goes before what a process says of the same address.
func withRegistered(declared *Backend, registered []*Registration) []Endpoint {
	all := slices.Clone(declared.Spec.Endpoints)
	if len(registered) == 0 {
		return all
	}
	static := make(map[string]bool, len(all))
	for i := range all {
		static[NormalAddress(all[i].Address)] = true
	}
	room := declared.Spec.registering().MaxEndpoints
	for _, r := range registered[:min(room, len(registered))] {
		if static[r.Spec.Address] {
			continue
		}
		all = append(all, Endpoint{
			Address: r.Spec.Address, Weight: r.Spec.Weight, Zone: r.Spec.Zone, Version: r.Spec.Version, Source: SourceRegistered,
		})
	}
	return all
}
