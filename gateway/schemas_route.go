package gateway

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"sluice/gateway/rest"
	"sluice/gateway/schema"
	"sluice/store"
)

// RouteBackends are the keys of the backends that a GRPCRoute or an HTTPRoute leads to,
// each once, in the order of its rules.
func RouteBackends(route store.Resource) []string {
	var keys []string
	add := func(key string) {
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	switch r := route.(type) {
	case *store.GRPCRoute:
		for i := range r.Spec.Rules {
			for j := range r.Spec.Rules[i].BackendRefs {
				add(r.BackendKey(&r.Spec.Rules[i].BackendRefs[j]))
			}
		}
	case *store.HTTPRoute:
		for i := range r.Spec.Rules {
			for j := range r.Spec.Rules[i].BackendRefs {
				add(r.BackendKey(&r.Spec.Rules[i].BackendRefs[j]))
			}
		}
	}
	return keys
}

// RouteMethods are the methods that a route leads to, by path, as far as v knows them.
// A method of several backends is as the first of them has it. Of an HTTPRoute they are
// those with a path that a rule takes, and have only the bindings with such a path.
func RouteMethods(v *schema.View, route store.Resource) []*schema.Method {
	m := &routeMethods{view: v, byPath: map[string]*schema.Method{}}
	switch r := route.(type) {
	case *store.GRPCRoute:
		for i := range r.Spec.Rules {
			m.addGRPC(r, &r.Spec.Rules[i])
		}
	case *store.HTTPRoute:
		for i := range r.Spec.Rules {
			m.addHTTP(r, &r.Spec.Rules[i])
		}
	}
	return m.sorted()
}

// routeMethods gathers methods.
type routeMethods struct {
	view   *schema.View
	byPath map[string]*schema.Method
}

func (m *routeMethods) sorted() []*schema.Method {
	all := make([]*schema.Method, 0, len(m.byPath))
	for _, method := range m.byPath {
		all = append(all, method)
	}
	slices.SortFunc(all, func(a, b *schema.Method) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// each visits the methods of a backend that are not there yet.
func (m *routeMethods) each(backend string, visit func(*schema.Method) *schema.Method) {
	for _, s := range m.view.Schemas(backend) {
		for _, method := range s.Methods() {
			if m.byPath[method.Path] != nil {
				continue
			}
			if kept := visit(method); kept != nil {
				m.byPath[method.Path] = kept
			}
		}
	}
}

func (m *routeMethods) addGRPC(r *store.GRPCRoute, rule *store.GRPCRouteRule) {
	leads := grpcRuleTakes(rule)
	for i := range rule.BackendRefs {
		m.each(r.BackendKey(&rule.BackendRefs[i]), func(method *schema.Method) *schema.Method {
			if !leads(method.Path) {
				return nil
			}
			return method
		})
	}
}

// grpcRuleTakes tells of which paths a rule takes some RPCs, whatever their metadata.
func grpcRuleTakes(rule *store.GRPCRouteRule) func(path string) bool {
	type matcher struct{ service, method func(string) bool }
	var all []matcher
	for _, match := range rule.Matches {
		if match.Method == nil {
			return func(string) bool { return true }
		}
		all = append(all, matcher{
			comparer(match.Method.Type, match.Method.Service), comparer(match.Method.Type, match.Method.Method),
		})
	}
	return func(path string) bool {
		service, method, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
		return len(all) == 0 || slices.ContainsFunc(all, func(m matcher) bool { return m.service(service) && m.method(method) })
	}
}

// comparer compares with a value of a match; an empty one matches all.
func comparer(how store.MatchType, value string) func(string) bool {
	if value == "" {
		return func(string) bool { return true }
	}
	if how == store.RegularExpression {
		pattern, err := store.CompilePattern(value)
		if err != nil {
			return func(string) bool { return false } // the store takes no such route
		}
		return pattern.MatchString
	}
	return func(s string) bool { return s == value }
}

func (m *routeMethods) addHTTP(r *store.HTTPRoute, rule *store.HTTPRouteRule) {
	for i := range rule.BackendRefs {
		m.each(r.BackendKey(&rule.BackendRefs[i]), func(method *schema.Method) *schema.Method {
			if len(method.Bindings) == 0 {
				if httpRuleTakes(rule, "POST", method.Path) {
					return method
				}
				return nil
			}
			kept := *method
			kept.Bindings = nil
			for _, b := range method.Bindings {
				if httpRuleTakes(rule, b.Verb, b.Template) {
					kept.Bindings = append(kept.Bindings, b)
				}
			}
			if len(kept.Bindings) == 0 {
				return nil
			}
			return &kept
		})
	}
}

// httpRuleTakes tells whether a rule takes some requests with a verb and a path of a
// template, whatever their fields and their query.
func httpRuleTakes(rule *store.HTTPRouteRule, verb, template string) bool {
	return slices.ContainsFunc(rule.Matches, func(m store.HTTPRouteMatch) bool {
		return (m.Method == "" || verb == "*" || m.Method == verb) && pathLeads(m.Path, template)
	})
}

// pathLeads compares the segments that a template has before its first wildcard: what
// comes then may be anything.
func pathLeads(match store.PathMatch, template string) bool {
	if match.Type == store.RegularExpression {
		return true
	}
	literal, wild := template, false
	if at := strings.IndexAny(template, "{*"); at >= 0 {
		literal, wild = template[:at], true
		if braced := template[at:]; braced[0] == '{' {
			if _, pattern, ok := strings.Cut(braced[:strings.IndexByte(braced+"}", '}')], "="); ok {
				pattern, _, _ = strings.Cut(pattern, "*")
				literal += pattern
			}
		}
	}
	value := match.Value
	if match.Type == store.PathPrefix {
		value = strings.TrimSuffix(value, "/")
		if literal == value || strings.HasPrefix(literal, value+"/") {
			return true
		}
		value += "/"
	}
	if !wild {
		return literal == value
	}
	return strings.HasPrefix(value, literal)
}

// ErrNoMethods is why a route cannot be described: nothing is known of what it leads to.
var ErrNoMethods = errors.New("no schema tells of the methods that the route leads to")

// RouteOpenAPI describes in OpenAPI how the methods of a route are called, as far as v
// knows them. The document is for the hostnames of the route.
func RouteOpenAPI(v *schema.View, route store.Resource) ([]byte, error) {
	methods := RouteMethods(v, route)
	if len(methods) == 0 {
		return nil, ErrNoMethods
	}
	o := rest.OpenAPIOptions{Title: route.Metadata().Name, Version: "1"}
	for _, name := range hostnames(route) {
		if !strings.HasPrefix(name, "*") {
			o.Servers = append(o.Servers, "https://"+name)
		}
	}
	return rest.OpenAPI(o, methods)
}

func hostnames(route store.Resource) []string {
	switch r := route.(type) {
	case *store.GRPCRoute:
		return r.Spec.Hostnames
	case *store.HTTPRoute:
		return r.Spec.Hostnames
	}
	return nil
}
