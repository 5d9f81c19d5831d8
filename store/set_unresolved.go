package store

import (
	"bytes"
	"fmt"
)

// Unresolved has a fault for each reference to what is not in the set: Backends of
// routes, routes of policies and rules of those.
func (s *Set) Unresolved() Faults {
	var list faultList
	s.eachUnresolved(func(d dangling) { list.add(d.origin, d.field, "%s", d.problem) })
	return list.faults()
}

// dangling is a reference that leads nowhere.
type dangling struct {
	origin  Position
	field   string
	name    string // of what is missing
	problem string
}

func (s *Set) eachUnresolved(yield func(dangling)) {
	backends := s.BackendsByKey()
	missing := func(key, name, field string, origin Position) {
		yield(dangling{origin, field, name, fmt.Sprintf("no Backend %s is declared", key)})
	}
	for _, r := range s.GRPCRoutes {
		for i := range r.Spec.Rules {
			refs := r.Spec.Rules[i].BackendRefs
			for j := range refs {
				key := r.BackendKey(&refs[j])
				if refs[j].Name != "" && backends[key] == nil {
					missing(key, refs[j].Name, fmt.Sprintf("spec.rules[%d].backendRefs[%d].name", i, j), refs[j].Origin)
				}
			}
		}
	}
	for _, r := range s.HTTPRoutes {
		r.eachBackend(func(key, name, field string, origin Position) {
			if name != "" && backends[key] == nil {
				missing(key, name, field, origin)
			}
		})
	}
	for _, schema := range s.Schemas {
		refs := schema.Spec.BackendRefs
		for i := range refs {
			key := schema.BackendKey(&refs[i])
			if refs[i].Name != "" && backends[key] == nil {
				missing(key, refs[i].Name, fmt.Sprintf("spec.backendRefs[%d].name", i), refs[i].Origin)
			}
		}
	}
	s.eachLostTarget(yield)
}

// eachBackend yields the references of an HTTPRoute, those of its mirrors too.
func (r *HTTPRoute) eachBackend(yield func(key, name, field string, origin Position)) {
	mirrors := func(filters []Filter, field string) {
		for i, f := range filters {
			if f.RequestMirror != nil {
				ref := &f.RequestMirror.BackendRef
				yield(r.MirrorKey(ref), ref.Name, fmt.Sprintf("%s.filters[%d].requestMirror.backendRef.name", field, i), ref.Origin)
			}
		}
	}
	for i := range r.Spec.Rules {
		rule := fmt.Sprintf("spec.rules[%d]", i)
		mirrors(r.Spec.Rules[i].Filters, rule)
		refs := r.Spec.Rules[i].BackendRefs
		for j := range refs {
			field := fmt.Sprintf("%s.backendRefs[%d]", rule, j)
			yield(r.BackendKey(&refs[j]), refs[j].Name, field+".name", refs[j].Origin)
			mirrors(refs[j].Filters, field)
		}
	}
}

// eachLostTarget yields the policies' references to routes and rules that are not there.
func (s *Set) eachLostTarget(yield func(dangling)) {
	if len(s.RPCPolicies) == 0 {
		return
	}
	routes := make(map[ID]Route, len(s.GRPCRoutes)+len(s.HTTPRoutes))
	addRoutes(routes, s.GRPCRoutes)
	addRoutes(routes, s.HTTPRoutes)
	for _, p := range s.RPCPolicies {
		for i := range p.Spec.TargetRefs {
			ref := &p.Spec.TargetRefs[i]
			key := p.TargetKey(ref)
			route := routes[p.target(ref)]
			field := fmt.Sprintf("spec.targetRefs[%d].", i)
			switch {
			case ref.Name == "":
			case route == nil:
				yield(dangling{ref.Origin, field + "name", ref.Name, fmt.Sprintf("no %s %s is declared", ref.Kind, key)})
			case ref.SectionName != "" && ruleNamed(route, ref.SectionName) < 0:
				yield(dangling{ref.Origin, field + "sectionName", ref.SectionName, fmt.Sprintf("%s %s has no rule named %s", ref.Kind, key, ref.SectionName)})
			}
		}
	}
}

func addRoutes[R Route](routes map[ID]Route, more []R) {
	for _, r := range more {
		routes[ResourceID(r)] = r
	}
}

// reportUnresolved has a fault for each reference that leads nowhere, unless what
// it refers to may stand in a text that could not be read.
func (in *intake) reportUnresolved() {
	if in.blind {
		return
	}
	in.set.eachUnresolved(func(d dangling) {
		if !bytes.Contains(in.unread, []byte(d.name)) {
			in.faults.add(d.origin, d.field, "%s", d.problem)
		}
	})
}
