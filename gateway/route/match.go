package route

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"sluice/store"
)

// match is one match of one rule, with all that its precedence depends on.
type match struct {
	rule            *Rule
	service, method segment
	headers         []header
	index           int // in the rule
}

// segment is what a service or a method is compared with. The zero value is none.
type segment struct {
	text    string
	pattern *regexp.Regexp // nil when the text is literal
}

// header is what one header is compared with.
type header struct {
	name    string // in lower case
	value   string
	pattern *regexp.Regexp // nil when the value is literal
}

// matches compares what is not compared literally by the path.
func (m *match) matches(q *query) bool {
	if m.service.pattern != nil && !m.service.pattern.MatchString(q.service) ||
		m.method.pattern != nil && !m.method.pattern.MatchString(q.method) {
		return false
	}
	for i := range m.headers {
		if !m.headers[i].matches(q.hdr) {
			return false
		}
	}
	return true
}

func (h *header) matches(hdr Header) bool {
	switch hdr := hdr.(type) {
	case nil:
		return false
	case Announced:
		return hdr.Announces(h.name)
	}
	value, ok := hdr.Get(h.name)
	return ok && h.accepts(value)
}

func (h *header) accepts(value string) bool {
	if h.pattern != nil {
		return h.pattern.MatchString(value)
	}
	return value == h.value
}

// Announced is a header of which only names are known: of a preflight, which says which
// fields the request will have and not what is in them.
type Announced interface {
	Header
	Announces(name string) bool // in lower case
}

// candidate is the match for a list to which only what is literal has led.
func (m *match) candidate() candidate {
	c := candidate{rule: m.rule, match: m}
	if len(m.headers) > 0 || m.service.pattern != nil || m.method.pattern != nil {
		c.rest = m
	}
	return c
}

// compare orders by precedence as the Gateway API has it for GRPCRoute, hostnames
// apart: more characters of the service, more characters of the method, more
// headers, the older route, the key of the route, the order within the route.
func (m *match) compare(other *match) int {
	return cmp.Or(
		-m.service.compare(other.service),
		-m.method.compare(other.method),
		-cmp.Compare(len(m.headers), len(other.headers)),
		m.rule.compareAge(other.rule),
		cmp.Compare(m.rule.Route, other.rule.Route),
		cmp.Compare(m.rule.Index, other.rule.Index),
		cmp.Compare(m.index, other.index),
	)
}

// compare orders by how much a segment says. The API counts characters, which a
// regular expression has none of until it has matched: each comes after every
// literal and before none at all, and the longer of two says more.
func (s segment) compare(other segment) int {
	return cmp.Or(cmp.Compare(s.rank(), other.rank()), cmp.Compare(len(s.text), len(other.text)))
}

// The ways to say what a segment is, the one that says least first.
const (
	isNone = iota
	isPattern
	isLiteral
)

func (s segment) rank() int {
	switch {
	case s.text == "":
		return isNone
	case s.pattern != nil:
		return isPattern
	}
	return isLiteral
}

// String is the match as Table.String prints it.
func (m *match) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "/%s/%s", m.service, m.method)
	for _, h := range m.headers {
		sign := "="
		if h.pattern != nil {
			sign = "~"
		}
		fmt.Fprintf(&b, " %s%s%q", h.name, sign, h.value)
	}
	return b.String()
}

func (s segment) String() string {
	switch {
	case s.text == "":
		return "*"
	case s.pattern != nil:
		return "~" + s.text
	}
	return s.text
}

// patterns are regular expressions by their text. It does not change once it is a
// table's.
type patterns map[string]*regexp.Regexp

// add has a text compiled, unless known has it. What is no regular expression is
// not added.
func (p patterns) add(text string, known patterns) {
	if p[text] != nil {
		return
	}
	if re := known[text]; re != nil {
		p[text] = re
	} else if re, err := store.CompilePattern(text); err == nil {
		p[text] = re
	}
}

// appendPatterns appends the regular expressions that a route compares with.
func appendPatterns(list []string, r *store.GRPCRoute) []string {
	for i := range r.Spec.Rules {
		for _, m := range r.Spec.Rules[i].Matches {
			if m.Method != nil && m.Method.Type == store.RegularExpression {
				for _, text := range []string{m.Method.Service, m.Method.Method} {
					if text != "" {
						list = append(list, text)
					}
				}
			}
			for _, h := range m.Headers {
				if h.Type == store.RegularExpression {
					list = append(list, h.Value)
				}
			}
		}
	}
	return list
}

// newMatch is nil when the match can match nothing, since the set was not
// validated: a type that is none, or a pattern that does not compile.
func newMatch(rule *Rule, index int, spec *store.GRPCRouteMatch, p patterns) *match {
	m := &match{rule: rule, index: index}
	if spec.Method != nil {
		var okService, okMethod bool
		m.service, okService = newSegment(spec.Method.Type, spec.Method.Service, p)
		m.method, okMethod = newSegment(spec.Method.Type, spec.Method.Method, p)
		if !okService || !okMethod {
			return nil
		}
	}
	seen := make(map[string]bool, len(spec.Headers))
	for _, h := range spec.Headers {
		name := strings.ToLower(h.Name)
		if seen[name] { // "subsequent entries with an equivalent header name MUST be ignored"
			continue
		}
		seen[name] = true
		value, ok := newSegment(h.Type, h.Value, p)
		if !ok {
			return nil
		}
		m.headers = append(m.headers, header{name, value.text, value.pattern})
	}
	return m
}

func newSegment(kind store.MatchType, text string, p patterns) (s segment, ok bool) {
	s.text = text
	switch kind {
	case store.Exact:
		return s, true
	case store.RegularExpression:
		if text == "" {
			return s, true
		}
		s.pattern = p[text]
		return s, s.pattern != nil
	}
	return s, false
}
