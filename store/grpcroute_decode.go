package store

import "fmt"

// How many entries a list may have: the Gateway API's own limits, so that what is
// accepted here is accepted there. They also bound what a route can compile to.
const (
	maxParentRefs   = 32
	maxHostnames    = 16
	maxRules        = 16
	maxMatches      = 64  // of one rule
	maxRouteMatches = 128 // of all rules of a route together
	maxHeaders      = 16
	maxFilters      = 16
	maxBackendRefs  = 16
	maxModified     = 16 // of each of set, add and remove
	maxMethodLen    = 1024
)

func (in *intake) readGRPCRouteSpec(m *mapping, namespace string) GRPCRouteSpec {
	defer m.finish()
	spec := GRPCRouteSpec{
		ParentRefs: readParentRefs(m),
		Hostnames:  readHostnames(m),
	}
	rules := m.optional("rules")
	items := rules.list(maxRules)
	spec.Rules = each(items, func(v *value) GRPCRouteRule { return in.readRule(v.mapping(), namespace) })
	names, matches := make([]string, len(items)), 0
	for i, rule := range spec.Rules {
		names[i], matches = rule.Name, matches+len(rule.Matches)
	}
	checkRules(rules, items, names, matches)
	return spec
}

// checkRules reports what the rules of a route are together: names that are there
// twice, and too many matches.
func checkRules(rules *value, items []*value, names []string, matches int) {
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		if name != "" && seen[name] {
			items[i].mapping().optional("name").fault("another rule of this route is named %s", name)
		}
		seen[name] = true
	}
	if matches > maxRouteMatches {
		rules.fault("%d matches in all rules, limit %d", matches, maxRouteMatches)
	}
}

func readParentRefs(m *mapping) []ParentRef {
	m.ignore("useDefaultGateways") // as parentRefs: about Gateway objects
	return each(m.optional("parentRefs").list(maxParentRefs), readParentRef)
}

func readHostnames(m *mapping) []string {
	return each(m.optional("hostnames").list(maxHostnames), func(v *value) string {
		return v.word(checkHostname)
	})
}

func readParentRef(v *value) ParentRef {
	m := v.mapping()
	defer m.finish()
	return ParentRef{
		Group:       m.optional("group").wordOr(GatewayGroup, checkGroup),
		Kind:        m.optional("kind").wordOr(parentKind, checkKind),
		Namespace:   m.optional("namespace").word(checkNamespace),
		Name:        m.required("name").word(checkName),
		SectionName: m.optional("sectionName").word(checkName),
		Port:        m.optional("port").integer(0, 1, 65535),
	}
}

func (in *intake) readRule(m *mapping, namespace string) GRPCRouteRule {
	defer m.finish()
	m.refuse("sessionPersistence")
	filters := grpcFilters(namespace)
	return GRPCRouteRule{
		Name:    m.optional("name").word(checkName),
		Matches: each(m.optional("matches").list(maxMatches), in.readMatch),
		Filters: filters.read(m.optional("filters").list(maxFilters)),
		BackendRefs: each(m.optional("backendRefs").list(maxBackendRefs), func(v *value) BackendRef {
			return readBackendRef(v.mapping(), filters)
		}),
	}
}

func (in *intake) readMatch(v *value) GRPCRouteMatch {
	m := v.mapping()
	defer m.finish()
	return GRPCRouteMatch{
		Method:  in.readMethodMatch(m.optional("method")),
		Headers: in.readHeaderMatches(m.optional("headers")),
	}
}

func (in *intake) readMethodMatch(v *value) *MethodMatch {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	kind := readMatchType(m.optional("type"))
	service, hasService := in.readSegment(m.optional("service"), kind, checkService)
	method, hasMethod := in.readSegment(m.optional("method"), kind, checkMethod)
	if !hasService && !hasMethod && !m.broken {
		m.fault("want service, method or both; leave method out to match every method")
	}
	return &MethodMatch{Type: kind, Service: service, Method: method}
}

// readSegment reads a service or a method; an empty one is as good as none. It is
// there even when it is faulty.
func (in *intake) readSegment(v *value, kind MatchType, check func(string) string) (s string, there bool) {
	if v.absent() {
		return "", false
	}
	s, ok := v.text()
	if !ok || s == "" {
		return "", !ok
	}
	if len(s) > maxMethodLen {
		v.fault("%d bytes, limit %d", len(s), maxMethodLen)
		return "", true
	}
	return in.readPattern(v, kind, check), true
}

// readPattern reads a regular expression, or a literal that check has nothing against.
func (in *intake) readPattern(v *value, kind MatchType, check func(string) string) string {
	switch kind {
	case RegularExpression:
		return v.word(in.checkPattern)
	case Exact, PathPrefix:
		return v.word(check)
	default: // reported; who knows what the value was meant to be
		return v.word(checkControls)
	}
}

func (in *intake) checkPattern(s string) string {
	if problem := checkControls(s); problem != "" {
		return problem
	}
	_, size, err := compilePattern(s)
	if err != nil {
		return "not a regular expression: " + err.Error()
	}
	in.patterns += size
	if in.patterns > maxPatternsSize {
		return fmt.Sprintf("all regular expressions together come to more than %d instructions", maxPatternsSize)
	}
	return ""
}

func readMatchType(v *value) MatchType {
	return oneOf(v, "type", Exact, Exact, RegularExpression)
}

func (in *intake) readHeaderMatches(v *value) []HeaderMatch {
	items := v.list(maxHeaders)
	headers := each(items, in.readHeaderMatch)
	seen := make(map[string]bool, len(headers))
	for i, h := range headers {
		if h.Name != "" && seen[h.Name] {
			items[i].mapping().optional("name").fault("%s is matched already: the values of a match are ANDed", quote(h.Name))
		}
		seen[h.Name] = true
	}
	return headers
}

func (in *intake) readHeaderMatch(v *value) HeaderMatch {
	m := v.mapping()
	defer m.finish()
	h := HeaderMatch{
		Type: readMatchType(m.optional("type")),
		Name: m.required("name").word(checkHeaderName),
	}
	value := m.required("value")
	if _, ok := value.checked(checkMatchedValue); ok {
		h.Value = in.readPattern(value, h.Type, checkMatchedValue)
	}
	return h
}

func readBackendRef(m *mapping, filters filterPlace) BackendRef {
	defer m.finish()
	to := readServiceRef(m, filters.namespace)
	return BackendRef{
		Group:     to.Group,
		Kind:      to.Kind,
		Namespace: to.Namespace,
		Name:      to.Name,
		Port:      to.Port,
		Weight:    uint32(m.optional("weight").integer(defaultRefWeight, 0, maxWeight)),
		Filters:   filters.read(m.optional("filters").list(maxFilters)),
		Origin:    to.Origin,
	}
}

// readServiceRef reads what a reference of any sort has, and leaves the rest and the
// finish to the caller.
func readServiceRef(m *mapping, namespace string) MirrorRef {
	ref := MirrorRef{
		Group:     m.optional("group").word(checkGroup),
		Namespace: m.optional("namespace").wordOr(namespace, checkNamespace),
		Name:      m.required("name").word(checkName),
		Port:      m.optional("port").integer(0, 1, 65535),
	}
	ref.Kind = readRefKind(m.optional("kind"), ref.Group)
	if ref.Kind == "" || ref.Namespace == "" {
		ref.Name = "" // reported; what it refers to nobody knows
	}
	if name := m.optional("name"); !name.absent() {
		ref.Origin = name.position()
	}
	return ref
}

// readRefKind reads what a backendRef refers to: a Backend by that name, or by the
// name that a manifest written for Kubernetes has.
func readRefKind(v *value, group string) string {
	kind, ok := v.checked(checkKind)
	switch {
	case v.absent():
		if group == OwnGroup {
			return BackendKind
		}
		if group != "" {
			v.up.fault("group %s without a kind, want kind %s of group %s", group, BackendKind, OwnGroup)
		}
		return serviceKind
	case !ok:
	case kind == serviceKind && group == "", kind == BackendKind && group == OwnGroup:
		return kind
	case kind == BackendKind && group == "":
		v.fault("kind %s needs group %s", kind, OwnGroup)
	default:
		v.fault("kind %s of group %s is not supported, want %s of group %s", quote(kind), quote(group), BackendKind, OwnGroup)
	}
	return ""
}
