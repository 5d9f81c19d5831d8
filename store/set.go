package store

import "fmt"

// Set is all that was declared, in the order of the texts. It is not changed any
// more once it has been handed over.
type Set struct {
	GRPCRoutes  []*GRPCRoute
	HTTPRoutes  []*HTTPRoute
	Backends    []*Backend
	RPCPolicies []*RPCPolicy
}

// Resources is a new list of all that is in the set, kind by kind.
func (s *Set) Resources() []Resource {
	all := make([]Resource, 0, len(s.GRPCRoutes)+len(s.HTTPRoutes)+len(s.Backends)+len(s.RPCPolicies))
	all = appendResources(all, s.GRPCRoutes)
	all = appendResources(all, s.HTTPRoutes)
	all = appendResources(all, s.Backends)
	return appendResources(all, s.RPCPolicies)
}

func appendResources[R Resource](all []Resource, more []R) []Resource {
	for _, r := range more {
		all = append(all, r)
	}
	return all
}

// GRPCRoute is the route of that key, nil when there is none. It looks at every
// one; a caller that asks often asks GRPCRoutesByKey once.
func (s *Set) GRPCRoute(key string) *GRPCRoute {
	for _, r := range s.GRPCRoutes {
		if r.Key() == key {
			return r
		}
	}
	return nil
}

// Backend is the backend of that key, nil when there is none. It looks at every
// one; a caller that asks often asks BackendsByKey once.
func (s *Set) Backend(key string) *Backend {
	for _, b := range s.Backends {
		if b.Key() == key {
			return b
		}
	}
	return nil
}

// GRPCRoutesByKey is a new map of all routes.
func (s *Set) GRPCRoutesByKey() map[string]*GRPCRoute {
	m := make(map[string]*GRPCRoute, len(s.GRPCRoutes))
	for _, r := range s.GRPCRoutes {
		m[r.Key()] = r
	}
	return m
}

// BackendsByKey is a new map of all backends.
func (s *Set) BackendsByKey() map[string]*Backend {
	m := make(map[string]*Backend, len(s.Backends))
	for _, b := range s.Backends {
		m[b.Key()] = b
	}
	return m
}

// Unresolved has a fault for each reference to a Backend that is not in the set.
func (s *Set) Unresolved() Faults {
	var list faultList
	s.eachUnresolved(func(key, field string, ref *BackendRef) { list.addUnresolved(key, field, ref) })
	return list.faults()
}

func (l *faultList) addUnresolved(key, field string, ref *BackendRef) {
	l.add(ref.Origin, field, "no Backend %s is declared", key)
}

func (s *Set) eachUnresolved(yield func(key, field string, ref *BackendRef)) {
	backends := s.BackendsByKey()
	for _, r := range s.GRPCRoutes {
		for i := range r.Spec.Rules {
			refs := r.Spec.Rules[i].BackendRefs
			for j := range refs {
				key := r.BackendKey(&refs[j])
				if refs[j].Name != "" && backends[key] == nil {
					yield(key, fmt.Sprintf("spec.rules[%d].backendRefs[%d].name", i, j), &refs[j])
				}
			}
		}
	}
}
