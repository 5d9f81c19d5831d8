package route

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"sluice/store"
)

// httpMatch is one match of one rule of an HTTPRoute, with all that its precedence
// depends on.
type httpMatch struct {
	rule     *Rule
	kind     pathKind
	path     string // as HTTPPath.matched has it; a prefix without the slash at its end
	pattern  *regexp.Regexp
	segments int    // of the prefix
	method   string // empty means every one
	headers  []header
	params   []header // of the query
	index    int      // in the rule
	explicit bool     // the path has what servers disagree on, so that is what is meant
}

// pathKind is how a match compares the path, the way that says least first. A regular
// expression has no length before it has matched: it comes after whatever is literal,
// and before what says nothing of the path at all.
type pathKind uint8

const (
	anyPath pathKind = iota // the prefix "/"
	patternPath
	prefixPath
	exactPath
)

// bare tells that the match takes whatever nothing else takes.
func (m *httpMatch) bare() bool {
	return m.kind == anyPath && m.method == "" && len(m.headers)+len(m.params) == 0
}

// matches compares all but what the lists of a host are keyed by.
func (m *httpMatch) matches(q *httpQuery) bool {
	if m.method != "" && m.method != q.req.Method || m.kind == patternPath && !m.pattern.MatchString(q.path) {
		return false
	}
	for i := range m.headers {
		if !m.headers[i].matches(q.req.Header) {
			return false
		}
	}
	for i := range m.params {
		if value, ok := q.query.get(m.params[i].name); !ok || !m.params[i].accepts(value) {
			return false
		}
	}
	return true
}

// compare orders by precedence as the Gateway API has it for HTTPRoute, hostnames
// apart: an exact path, the longer prefix, a method, more headers, more parameters,
// the older route, the key of the route, the order within the route.
func (m *httpMatch) compare(other *httpMatch) int {
	return cmp.Or(
		-cmp.Compare(m.kind, other.kind),
		-cmp.Compare(len(m.path), len(other.path)),
		-cmp.Compare(min(len(m.method), 1), min(len(other.method), 1)),
		-cmp.Compare(len(m.headers), len(other.headers)),
		-cmp.Compare(len(m.params), len(other.params)),
		m.rule.compareAge(other.rule),
		cmp.Compare(m.rule.Route, other.rule.Route),
		cmp.Compare(m.rule.Index, other.rule.Index),
		cmp.Compare(m.index, other.index),
	)
}

// String is the match as Table.String prints it.
func (m *httpMatch) String() string {
	var b strings.Builder
	if m.method != "" {
		b.WriteString(m.method + " ")
	}
	switch m.kind {
	case exactPath:
		b.WriteString("=" + m.path)
	case patternPath:
		b.WriteString("~" + m.path)
	default:
		b.WriteString(m.path + "/*")
	}
	writePairs := func(sign string, pairs []header) {
		for _, h := range pairs {
			equals := "="
			if h.pattern != nil {
				equals = "~"
			}
			fmt.Fprintf(&b, " %s%s%s%q", sign, h.name, equals, h.value)
		}
	}
	writePairs("", m.headers)
	writePairs("?", m.params)
	return b.String()
}

// newHTTPMatch is nil when the match can match nothing, since the set was not
// validated.
func newHTTPMatch(rule *Rule, index int, spec *store.HTTPRouteMatch, p patterns) *httpMatch {
	m := &httpMatch{rule: rule, index: index, method: spec.Method}
	if !m.setPath(&spec.Path, p) {
		return nil
	}
	headers := make(map[string]bool, len(spec.Headers))
	for _, h := range spec.Headers {
		name := strings.ToLower(h.Name)
		if headers[name] { // "subsequent entries with an equivalent header name MUST be ignored"
			continue
		}
		headers[name] = true
		value, ok := newSegment(h.Type, h.Value, p)
		if !ok {
			return nil
		}
		m.headers = append(m.headers, header{name, value.text, value.pattern})
	}
	for _, param := range spec.QueryParams {
		value, ok := newSegment(param.Type, param.Value, p)
		if !ok {
			return nil
		}
		m.params = append(m.params, header{param.Name, value.text, value.pattern})
	}
	return m
}

func (m *httpMatch) setPath(spec *store.PathMatch, p patterns) bool {
	if spec.Type == store.RegularExpression {
		m.kind, m.path, m.pattern = patternPath, spec.Value, p[spec.Value]
		return m.pattern != nil
	}
	path, err := ParseHTTPPath(spec.Value)
	if err != nil {
		return false
	}
	m.path, m.explicit = path.matched, len(path.readings) > 0
	switch spec.Type {
	case store.Exact:
		m.kind = exactPath
	case store.PathPrefix:
		m.path = strings.TrimSuffix(m.path, "/")
		m.segments = strings.Count(m.path, "/")
		if m.kind = prefixPath; m.path == "" {
			m.kind = anyPath
		}
	default:
		return false
	}
	return true
}

// appendHTTPPatterns appends the regular expressions that a route compares with.
func appendHTTPPatterns(list []string, r *store.HTTPRoute) []string {
	for i := range r.Spec.Rules {
		for _, m := range r.Spec.Rules[i].Matches {
			if m.Path.Type == store.RegularExpression {
				list = append(list, m.Path.Value)
			}
			for _, h := range m.Headers {
				if h.Type == store.RegularExpression {
					list = append(list, h.Value)
				}
			}
			for _, param := range m.QueryParams {
				if param.Type == store.RegularExpression {
					list = append(list, param.Value)
				}
			}
		}
	}
	return list
}

// httpQuery is what one request is looked up by.
type httpQuery struct {
	req   *HTTPRequest
	path  string
	query queryParams
}

// queryParams are the parameters of a query, taken apart when somebody asks.
type queryParams struct {
	raw    string
	values map[string]string // the first of each name
}

// get returns the first value of a parameter, decoded.
func (q *queryParams) get(name string) (value string, ok bool) {
	if q.raw == "" {
		return "", false
	}
	if q.values == nil {
		q.parse()
	}
	value, ok = q.values[name]
	return value, ok
}

// parse takes the query apart by "&" alone. What is no escape stands for itself: the
// query goes on as it came, and a backend may well understand it.
func (q *queryParams) parse() {
	q.values = make(map[string]string)
	for pair := range strings.SplitSeq(q.raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name = unescapeQuery(name)
		if _, seen := q.values[name]; !seen && pair != "" {
			q.values[name] = unescapeQuery(value)
		}
	}
}

func unescapeQuery(s string) string {
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}
