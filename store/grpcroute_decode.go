package store

import (
	"fmt"
	"strings"
)

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
		ParentRefs: each(m.optional("parentRefs").list(maxParentRefs), readParentRef),
		Hostnames: each(m.optional("hostnames").list(maxHostnames), func(v *value) string {
			return v.word(checkHostname)
		}),
	}
	m.ignore("useDefaultGateways") // as parentRefs: about Gateway objects
	rules := m.optional("rules")
	items := rules.list(maxRules)
	spec.Rules = each(items, func(v *value) GRPCRouteRule { return in.readRule(v.mapping(), namespace) })
	checkRuleNames(items, spec.Rules)
	matches := 0
	for _, rule := range spec.Rules {
		matches += len(rule.Matches)
	}
	if matches > maxRouteMatches {
		rules.fault("%d matches in all rules, limit %d", matches, maxRouteMatches)
	}
	return spec
}

func checkRuleNames(items []*value, rules []GRPCRouteRule) {
	seen := make(map[string]bool, len(rules))
	for i, rule := range rules {
		if rule.Name != "" && seen[rule.Name] {
			items[i].mapping().optional("name").fault("another rule of this route is named %s", rule.Name)
		}
		seen[rule.Name] = true
	}
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
	return GRPCRouteRule{
		Name:    m.optional("name").word(checkName),
		Matches: each(m.optional("matches").list(maxMatches), in.readMatch),
		Filters: readFilters(m.optional("filters")),
		BackendRefs: each(m.optional("backendRefs").list(maxBackendRefs), func(v *value) BackendRef {
			return readBackendRef(v.mapping(), namespace)
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
	case Exact:
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
	s, ok := v.text()
	switch kind := MatchType(s); {
	case !ok && v.absent():
		return Exact
	case kind == Exact || kind == RegularExpression:
		return kind
	case ok:
		v.fault("unknown type %s, want %s or %s", quote(s), Exact, RegularExpression)
	}
	return ""
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

func readFilters(v *value) []Filter {
	items := v.list(maxFilters)
	filters := each(items, func(v *value) Filter { return readFilter(v.mapping()) })
	seen := make(map[FilterType]bool, len(filters))
	for i, f := range filters {
		if f.Type != "" && seen[f.Type] {
			items[i].mapping().optional("type").fault("filter %s is there already: write both into one", f.Type)
		}
		seen[f.Type] = true
	}
	return filters
}

// The field of each filter type; those without support are known by name.
var filterFields = map[string]string{
	string(RequestHeaderModifier):  "requestHeaderModifier",
	string(ResponseHeaderModifier): "responseHeaderModifier",
	"RequestMirror":                "requestMirror",
	"ExtensionRef":                 "extensionRef",
}

func readFilter(m *mapping) Filter {
	defer m.finish()
	v := m.required("type")
	kind, ok := v.text()
	own, known := filterFields[kind]
	f := Filter{Type: FilterType(kind)}
	for _, field := range []string{"requestHeaderModifier", "responseHeaderModifier", "requestMirror", "extensionRef"} {
		content := m.optional(field)
		if field != own && known && !content.absent() {
			content.fault("belongs to a filter of another type than %s", kind)
		}
	}
	switch {
	case !ok:
	case !known:
		v.fault("unknown filter type %s, want %s or %s", quote(kind), RequestHeaderModifier, ResponseHeaderModifier)
	case f.Type == RequestHeaderModifier:
		f.RequestHeaderModifier = readModifier(m.required(own).mapping())
		return f
	case f.Type == ResponseHeaderModifier:
		f.ResponseHeaderModifier = readModifier(m.required(own).mapping())
		return f
	default:
		v.fault("filter %s is not supported yet", kind)
	}
	return Filter{}
}

// readModifier reads the changes of headers; each name may be changed once.
func readModifier(m *mapping) *HeaderModifier {
	defer m.finish()
	seen := make(map[string]bool)
	name := func(v *value) string {
		s := v.word(checkModifiedName)
		lower := strings.ToLower(s)
		if s != "" && seen[lower] {
			v.fault("%s is modified already by this filter", quote(s))
		}
		seen[lower] = true
		return s
	}
	header := func(v *value) Header {
		m := v.mapping()
		defer m.finish()
		h := Header{Name: name(m.required("name"))}
		h.Value = m.required("value").secret(func(s string) string { return checkModifiedValue(h.Name, s) })
		return h
	}
	return &HeaderModifier{
		Set:    each(m.optional("set").list(maxModified), header),
		Add:    each(m.optional("add").list(maxModified), header),
		Remove: each(m.optional("remove").list(maxModified), name),
	}
}

func readBackendRef(m *mapping, namespace string) BackendRef {
	defer m.finish()
	group, kind := m.optional("group"), m.optional("kind")
	ref := BackendRef{
		Group:     group.word(checkGroup),
		Namespace: m.optional("namespace").wordOr(namespace, checkNamespace),
		Name:      m.required("name").word(checkName),
		Port:      m.optional("port").integer(0, 1, 65535),
		Weight:    uint32(m.optional("weight").integer(defaultRefWeight, 0, maxWeight)),
		Filters:   readFilters(m.optional("filters")),
	}
	ref.Kind = readRefKind(kind, ref.Group)
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
