package store

import (
	"slices"
	"time"
)

// maxTimeout is the most that the Gateway API can write with one number.
const maxTimeout = 99_999 * time.Hour

var httpMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

// everyPath is what a match means that does not speak of the path.
var everyPath = PathMatch{Type: PathPrefix, Value: "/"}

func (in *intake) readHTTPRouteSpec(m *mapping, namespace string) HTTPRouteSpec {
	defer m.finish()
	spec := HTTPRouteSpec{
		ParentRefs: readParentRefs(m),
		Hostnames:  readHostnames(m),
	}
	rules := m.optional("rules")
	items := rules.list(maxRules)
	spec.Rules = each(items, func(v *value) HTTPRouteRule { return in.readHTTPRule(v.mapping(), namespace) })
	names, matches := make([]string, len(items)), 0
	for i, rule := range spec.Rules {
		names[i], matches = rule.Name, matches+len(rule.Matches)
	}
	checkRules(rules, items, names, matches)
	if len(spec.Rules) == 0 {
		spec.Rules = []HTTPRouteRule{{Matches: []HTTPRouteMatch{{Path: everyPath}}}}
	}
	return spec
}

func (in *intake) readHTTPRule(m *mapping, namespace string) HTTPRouteRule {
	defer m.finish()
	m.refuse("retry", "sessionPersistence")
	rule := HTTPRouteRule{
		Name:     m.optional("name").word(checkName),
		Matches:  each(m.optional("matches").list(maxMatches), in.readHTTPMatch),
		Timeouts: readHTTPTimeouts(m.optional("timeouts")),
	}
	if len(rule.Matches) == 0 {
		rule.Matches = []HTTPRouteMatch{{Path: everyPath}}
	}
	prefixed := len(rule.Matches) == 1 && rule.Matches[0].Path.Type == PathPrefix
	filters := m.optional("filters").list(maxFilters)
	rule.Filters = httpFilters(namespace, prefixed).read(filters)
	rule.BackendRefs = each(m.optional("backendRefs").list(maxBackendRefs), func(v *value) BackendRef {
		return readBackendRef(v.mapping(), httpRefFilters(namespace, prefixed))
	})
	checkRedirect(filters, &rule)
	return rule
}

// checkRedirect reports what a rule has beside a redirection, which ends the request.
func checkRedirect(filters []*value, rule *HTTPRouteRule) {
	has := func(kind FilterType) bool {
		return slices.ContainsFunc(rule.Filters, func(f Filter) bool { return f.Type == kind })
	}
	for i, f := range rule.Filters {
		if f.Type != RequestRedirect {
			continue
		}
		kind := filters[i].mapping().optional("type")
		if len(rule.BackendRefs) > 0 {
			kind.fault("filter %s answers the request itself: want no backendRefs", f.Type)
		}
		if has(URLRewrite) {
			kind.fault("filter %s cannot be together with %s", f.Type, URLRewrite)
		}
	}
}

func (in *intake) readHTTPMatch(v *value) HTTPRouteMatch {
	m := v.mapping()
	defer m.finish()
	return HTTPRouteMatch{
		Path:        in.readPathMatch(m.optional("path")),
		Headers:     in.readHeaderMatches(m.optional("headers")),
		QueryParams: in.readQueryParams(m.optional("queryParams")),
		Method:      oneOf(m.optional("method"), "method", "", httpMethods...),
	}
}

func (in *intake) readPathMatch(v *value) PathMatch {
	if v.absent() {
		return everyPath
	}
	m := v.mapping()
	defer m.finish()
	p := PathMatch{Type: oneOf(m.optional("type"), "type", PathPrefix, PathPrefix, Exact, RegularExpression), Value: everyPath.Value}
	value := m.optional("value")
	if value.absent() {
		return p
	}
	p.Value = ""
	if _, ok := value.checked(checkPathLen); ok {
		p.Value = in.readPattern(value, p.Type, checkPath)
	}
	return p
}

func (in *intake) readQueryParams(v *value) []QueryParamMatch {
	items := v.list(maxHeaders)
	params := each(items, in.readQueryParam)
	seen := make(map[string]bool, len(params))
	for i, p := range params {
		if p.Name != "" && seen[p.Name] {
			items[i].mapping().optional("name").fault("%s is matched already: the values of a match are ANDed", quote(p.Name))
		}
		seen[p.Name] = true
	}
	return params
}

func (in *intake) readQueryParam(v *value) QueryParamMatch {
	m := v.mapping()
	defer m.finish()
	p := QueryParamMatch{
		Type: readMatchType(m.optional("type")),
		Name: m.required("name").word(checkQueryName),
	}
	value := m.required("value")
	if _, ok := value.checked(checkQueryValue); ok {
		p.Value = in.readPattern(value, p.Type, checkQueryValue)
	}
	return p
}

func readHTTPTimeouts(v *value) *HTTPTimeouts {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	attempt := m.optional("backendRequest")
	t := &HTTPTimeouts{Request: readTimeout(m.optional("request")), BackendRequest: readTimeout(attempt)}
	if t.Request != nil && *t.Request != 0 && t.BackendRequest != nil && *t.BackendRequest > *t.Request {
		attempt.fault("%s is longer than the whole request may take, %s", *t.BackendRequest, *t.Request)
	}
	return t
}

// readTimeout returns nil when there is none to read.
func readTimeout(v *value) *Duration {
	if v.absent() {
		return nil
	}
	d := v.duration(0, 0, maxTimeout)
	return &d
}
