package store

import (
	"math"
	"slices"
	"strings"
)

// The filters of the Gateway API that no route of ours may have.
const (
	extensionRef FilterType = "ExtensionRef"
	externalAuth FilterType = "ExternalAuth"
)

// filterPlace is what one place takes for filters.
type filterPlace struct {
	supported []FilterType
	refused   []FilterType // by name
	checkName func(string) string
	namespace string // of the route
	prefixed  bool   // the rule has one match, and that of a prefix of the path
}

func grpcFilters(namespace string) filterPlace {
	return filterPlace{
		supported: []FilterType{RequestHeaderModifier, ResponseHeaderModifier},
		refused:   []FilterType{RequestMirror, extensionRef},
		checkName: checkModifiedName,
		namespace: namespace,
	}
}

func httpFilters(namespace string, prefixed bool) filterPlace {
	return filterPlace{
		supported: []FilterType{RequestHeaderModifier, ResponseHeaderModifier, RequestMirror, RequestRedirect, URLRewrite, FilterCORS},
		refused:   []FilterType{extensionRef, externalAuth},
		checkName: checkModifiedHTTPName,
		namespace: namespace,
		prefixed:  prefixed,
	}
}

// httpRefFilters are for one backend of an HTTPRoute: without those that answer
// the request in its place.
func httpRefFilters(namespace string, prefixed bool) filterPlace {
	place := httpFilters(namespace, prefixed)
	place.supported = []FilterType{RequestHeaderModifier, ResponseHeaderModifier, RequestMirror, URLRewrite}
	place.refused = []FilterType{RequestRedirect, FilterCORS, extensionRef, externalAuth}
	return place
}

// filterFields has the field of each filter type.
var filterFields = map[FilterType]string{
	RequestHeaderModifier:  "requestHeaderModifier",
	ResponseHeaderModifier: "responseHeaderModifier",
	RequestMirror:          "requestMirror",
	RequestRedirect:        "requestRedirect",
	URLRewrite:             "urlRewrite",
	FilterCORS:             "cors",
	extensionRef:           "extensionRef",
	externalAuth:           "externalAuth",
}

// read reads the filters. Of each type there is one, but copies may go to several
// places.
func (p filterPlace) read(items []*value) []Filter {
	filters := each(items, func(v *value) Filter { return p.readFilter(v.mapping()) })
	seen := make(map[FilterType]bool, len(filters))
	for i, f := range filters {
		if seen[f.Type] && f.Type != RequestMirror {
			items[i].mapping().optional("type").fault("filter %s is there already: write both into one", f.Type)
		}
		seen[f.Type] = f.Type != ""
	}
	return filters
}

func (p filterPlace) readFilter(m *mapping) Filter {
	defer m.finish()
	v := m.required("type")
	s, ok := v.text()
	kind := FilterType(s)
	supported, refused := slices.Contains(p.supported, kind), slices.Contains(p.refused, kind)
	for _, other := range slices.Concat(p.supported, p.refused) {
		content := m.optional(filterFields[other])
		if other != kind && (supported || refused) && !content.absent() {
			content.fault("belongs to a filter of another type than %s", kind)
		}
	}
	switch {
	case supported:
		return p.readContent(m.required(filterFields[kind]).mapping(), kind)
	case refused:
		v.fault("filter %s is not supported yet", kind)
	case ok:
		v.fault("unknown filter type %s, want %s", quote(s), enumerate(p.supported))
	}
	return Filter{}
}

// readContent reads the field that the filter's type names.
func (p filterPlace) readContent(m *mapping, kind FilterType) Filter {
	f := Filter{Type: kind}
	switch kind {
	case RequestHeaderModifier:
		f.RequestHeaderModifier = readModifier(m, p.checkName)
	case ResponseHeaderModifier:
		f.ResponseHeaderModifier = readModifier(m, p.checkName)
	case RequestMirror:
		f.RequestMirror = readMirror(m, p.namespace)
	case RequestRedirect:
		f.RequestRedirect = p.readRedirect(m)
	case URLRewrite:
		f.URLRewrite = p.readRewrite(m)
	case FilterCORS:
		f.CORS = readCORS(m)
	}
	return f
}

// readModifier reads the changes of headers; each name may be changed once.
func readModifier(m *mapping, check func(string) string) *HeaderModifier {
	defer m.finish()
	seen := make(map[string]bool)
	name := func(v *value) string {
		s := v.word(check)
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

func readMirror(m *mapping, namespace string) *MirrorFilter {
	defer m.finish()
	ref := m.required("backendRef").mapping()
	defer ref.finish()
	f := &MirrorFilter{BackendRef: readServiceRef(ref, namespace)}
	if percent := m.optional("percent"); !percent.absent() {
		n := percent.integer(0, 0, 100)
		f.Percent = &n
	}
	if fraction := m.optional("fraction"); !fraction.absent() {
		f.Fraction = readFraction(fraction.mapping())
		if f.Percent != nil {
			fraction.fault("percent is there already: want one of the two")
		}
	}
	return f
}

func readFraction(m *mapping) *Fraction {
	defer m.finish()
	f := &Fraction{
		Numerator:   m.required("numerator").integer(0, 0, math.MaxInt32),
		Denominator: m.optional("denominator").integer(100, 1, math.MaxInt32),
	}
	if f.Numerator > f.Denominator {
		m.optional("numerator").fault("%d is more than the denominator %d", f.Numerator, f.Denominator)
	}
	return f
}

func (p filterPlace) readRedirect(m *mapping) *RedirectFilter {
	defer m.finish()
	return &RedirectFilter{
		Scheme:     oneOf(m.optional("scheme"), "scheme", "", "http", "https"),
		Hostname:   m.optional("hostname").word(checkPreciseHostname),
		Path:       p.readPathModifier(m.optional("path")),
		Port:       m.optional("port").integer(0, 1, 65535),
		StatusCode: readRedirectStatus(m.optional("statusCode")),
	}
}

func readRedirectStatus(v *value) int {
	code := v.integer(302, 100, 599)
	if code != 301 && code != 302 && code != 303 && code != 307 && code != 308 {
		v.fault("%d is no redirection, want 301, 302, 303, 307 or 308", code)
	}
	return code
}

func (p filterPlace) readRewrite(m *mapping) *RewriteFilter {
	defer m.finish()
	return &RewriteFilter{
		Hostname: m.optional("hostname").word(checkPreciseHostname),
		Path:     p.readPathModifier(m.optional("path")),
	}
}

func (p filterPlace) readPathModifier(v *value) *PathModifier {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	kind := m.required("type")
	path := &PathModifier{Type: oneOf(kind, "type", "", ReplaceFullPath, ReplacePrefixMatch)}
	full, prefix := m.optional("replaceFullPath"), m.optional("replacePrefixMatch")
	switch path.Type {
	case ReplaceFullPath:
		path.ReplaceFullPath = readReplacement(m.required("replaceFullPath"))
		refuseOther(prefix, path.Type)
	case ReplacePrefixMatch:
		path.ReplacePrefixMatch = readReplacement(m.required("replacePrefixMatch"))
		refuseOther(full, path.Type)
		if !p.prefixed {
			kind.fault("%s needs a rule with one match, of a path of type %s", path.Type, PathPrefix)
		}
	}
	return path
}

func refuseOther(v *value, kind PathModifierType) {
	if !v.absent() {
		v.fault("belongs to a path of another type than %s", kind)
	}
}

// readReplacement reads a path to put in the place of another. It may be empty.
func readReplacement(v *value) *string {
	s := v.word(func(s string) string {
		if s == "" {
			return ""
		}
		return checkPath(s)
	})
	return &s
}
