package store

// Set is all that was declared, in the order of the texts. It is not changed any
// more once it has been handed over.
type Set struct {
	GRPCRoutes  []*GRPCRoute
	HTTPRoutes  []*HTTPRoute
	Backends    []*Backend
	RPCPolicies []*RPCPolicy
	Schemas     []*Schema
	// Ignored are objects of which nothing is kept.
	Ignored []Ignored
}

// Resources is a new list of all that is in the set, kind by kind.
func (s *Set) Resources() []Resource {
	all := make([]Resource, 0, len(s.GRPCRoutes)+len(s.HTTPRoutes)+len(s.Backends)+len(s.RPCPolicies)+len(s.Schemas))
	all = appendResources(all, s.GRPCRoutes)
	all = appendResources(all, s.HTTPRoutes)
	all = appendResources(all, s.Backends)
	all = appendResources(all, s.RPCPolicies)
	return appendResources(all, s.Schemas)
}

func byKey[R Resource](list []R) map[string]R {
	m := make(map[string]R, len(list))
	for _, r := range list {
		m[r.Metadata().Key()] = r
	}
	return m
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
func (s *Set) GRPCRoutesByKey() map[string]*GRPCRoute { return byKey(s.GRPCRoutes) }

// BackendsByKey is a new map of all backends.
func (s *Set) BackendsByKey() map[string]*Backend { return byKey(s.Backends) }

// HTTPRoutesByKey is a new map of all routes.
func (s *Set) HTTPRoutesByKey() map[string]*HTTPRoute { return byKey(s.HTTPRoutes) }

// RPCPoliciesByKey is a new map of all policies.
func (s *Set) RPCPoliciesByKey() map[string]*RPCPolicy { return byKey(s.RPCPolicies) }
