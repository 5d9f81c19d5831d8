package rest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice/gateway/schema"
)

// Table finds methods by the paths of their annotations. It does not change.
//
// It is a tree of path segments: a lookup walks down the path and does not depend on
// how many methods there are. Where a literal and a "*" both fit, it goes both ways, so
// the work is bounded by the number of templates that begin like the path.
type Table struct {
	root tableNode
	// verbColons is the most colons that a custom verb has, its own included; 0 when
	// no template has a verb.
	verbColons int
	// methods are the paths of the methods themselves.
	methods map[string]bool
	// endpoints are those of each method that the table was made of: a method of two
	// backends is two methods.
	endpoints map[*schema.Method][]*Endpoint
}

// tableNode is where a template stands after some segments.
type tableNode struct {
	literals map[string]*tableNode // by decoded text
	one      *tableNode            // "*"
	rest     tableEnds             // templates that go on with "**"
	ends     tableEnds             // templates that end here
}

// tableEnds are the endpoints of one place in the tree by custom verb, then HTTP verb,
// "*" being every one. Several of the same both are of different methods, by path.
type tableEnds map[string]map[string][]*Endpoint

// everyVerb is the HTTP verb of a binding for every verb.
const everyVerb = "*"

// maxCandidates is how many endpoints a path can have at most; what is beyond is the
// least specific, and a configuration that means it is not known.
const maxCandidates = 32

// NewTable compiles the bindings of methods. The errors name the bindings that are
// left out, and those that another method's of the same path and verb goes before.
func NewTable(methods []*schema.Method) (*Table, []error) {
	t := &Table{methods: make(map[string]bool), endpoints: make(map[*schema.Method][]*Endpoint)}
	var faults []error
	sorted := slices.SortedStableFunc(slices.Values(methods), func(a, b *schema.Method) int {
		return strings.Compare(a.Path, b.Path)
	})
	for _, method := range sorted {
		endpoints, errs := compileEndpoints(method)
		faults = append(faults, errs...)
		t.methods[method.Path], t.endpoints[method] = true, endpoints
		for _, e := range endpoints {
			if before := t.add(e); before != nil {
				faults = append(faults, fmt.Errorf("adding path %s %s of %s: %s has it already, and goes before",
					e.Binding.Verb, e.Binding.Template, method.Path, before.Method.Path))
			}
		}
	}
	return t, faults
}

// compileEndpoints compiles what can be; the errors name the rest.
func compileEndpoints(method *schema.Method) (endpoints []*Endpoint, faults []error) {
	for i := range method.Bindings {
		b := &method.Bindings[i]
		e, err := newEndpoint(method, b)
		if err != nil {
			faults = append(faults, fmt.Errorf("compiling path %s %s of %s: %w", b.Verb, b.Template, method.Path, err))
			continue
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, faults
}

// add puts an endpoint in its place; before is the one that was there first. The same
// method of another backend is not added again, for Match.For finds it, nor is a second
// binding of a method for the same requests.
func (t *Table) add(e *Endpoint) (before *Endpoint) {
	node := &t.root
	ends := &node.ends
	for _, s := range e.template.segments {
		if s.kind == segmentRest {
			ends = &node.rest
			break
		}
		node = node.next(s)
		ends = &node.ends
	}
	if *ends == nil {
		*ends = make(tableEnds)
	}
	verb := e.template.verb
	if verb != "" {
		t.verbColons = max(t.verbColons, 1+strings.Count(verb, ":"))
	}
	if (*ends)[verb] == nil {
		(*ends)[verb] = make(map[string][]*Endpoint)
	}
	here := (*ends)[verb][e.Binding.Verb]
	for _, other := range here {
		if other.Method == e.Method {
			return other
		}
		if other.Method.Path == e.Method.Path {
			return nil
		}
	}
	(*ends)[verb][e.Binding.Verb] = append(here, e)
	if len(here) > 0 {
		return here[0]
	}
	return nil
}

// next is the node behind a segment, made when it is missing.
func (n *tableNode) next(s templateSegment) *tableNode {
	if s.kind == segmentOne {
		if n.one == nil {
			n.one = new(tableNode)
		}
		return n.one
	}
	child := n.literals[s.literal]
	if child == nil {
		child = new(tableNode)
		if n.literals == nil {
			n.literals = make(map[string]*tableNode)
		}
		n.literals[s.literal] = child
	}
	return child
}

// Match finds the endpoints of a path, as it stands in the request line up to "?", the
// most specific first: one with a custom verb before one without, then, from left to
// right, a literal before "*" before "**". When the path has none for the HTTP verb,
// allowed are the verbs that it has, sorted; it is empty when the path leads nowhere.
func (t *Table) Match(verb, rawPath string) (found []Match, allowed []string) {
	search := tableSearch{table: t, verb: verb}
	if search.path.read(rawPath) != "" {
		return nil, nil
	}
	t.search(&search)
	if len(search.found) > 0 {
		return search.found, nil
	}
	search.allowed = make(map[string]bool)
	t.search(&search)
	return nil, slices.Sorted(maps.Keys(search.allowed))
}

// search looks for the path in all the ways to read its last colons.
func (t *Table) search(s *tableSearch) {
	whole, last := s.path, strings.LastIndexByte(s.path.raw, '/')
	at := len(whole.raw)
	var colons [maxVerbColons]int
	n := 0
	for n < t.verbColons {
		i := strings.LastIndexByte(whole.raw[last:at], ':')
		if i < 0 {
			break
		}
		at = last + i
		colons[n] = at
		n++
	}
	for ; n > 0; n-- { // the longest verb is the most specific one
		at := colons[n-1]
		cut, ok := whole.cutVerb(at)
		if !ok {
			continue
		}
		s.path, s.custom = cut, decodeSegment(whole.raw[at+1:])
		if s.custom != "" {
			s.walk(&t.root, 0)
		}
	}
	s.path, s.custom = whole, ""
	s.walk(&t.root, 0)
}

// tableSearch is one lookup.
type tableSearch struct {
	table  *Table
	path   tablePath
	custom string // verb
	verb   string // of HTTP
	found  []Match
	// allowed is not nil when verbs are collected, and not endpoints.
	allowed map[string]bool
}

// walk goes on from a node at segment i.
func (s *tableSearch) walk(n *tableNode, i int) {
	switch {
	case i == s.path.n:
		s.take(n.ends)
	case i < maxTemplateSegments:
		if n.literals != nil {
			if child := n.literals[decodeSegment(s.path.segment(i))]; child != nil {
				s.walk(child, i+1)
			}
		}
		if n.one != nil {
			s.walk(n.one, i+1)
		}
	}
	s.take(n.rest)
}

// take collects the endpoints of a place.
func (s *tableSearch) take(ends tableEnds) {
	if ends == nil {
		return
	}
	byVerb := ends[s.custom]
	if s.allowed != nil {
		for verb := range byVerb {
			s.allowed[verb] = true
		}
		return
	}
	s.add(byVerb[s.verb])
	if s.verb != everyVerb {
		s.add(byVerb[everyVerb])
	}
}

func (s *tableSearch) add(endpoints []*Endpoint) {
	for _, e := range endpoints {
		if len(s.found) < maxCandidates {
			s.found = append(s.found, s.table.newMatch(e, &s.path))
		}
	}
}

// Match is an endpoint with what the path says of its message.
type Match struct {
	*Endpoint
	table  *Table
	path   string   // without the custom verb
	values []string // raw, of the template's variables
}

func (t *Table) newMatch(e *Endpoint, path *tablePath) Match {
	m := Match{Endpoint: e, table: t, path: path.raw}
	if len(e.template.variables) == 0 {
		return m
	}
	m.values = make([]string, len(e.template.variables))
	for i, v := range e.template.variables {
		end := v.end
		if e.template.segments[end-1].kind == segmentRest {
			end = path.n
		}
		m.values[i] = path.span(v.start, end)
	}
	return m
}

// For is the same match for the method as another backend describes it. It is false
// when that description does not have the path.
func (m Match) For(method *schema.Method) (Match, bool) {
	if m.Method == method {
		return m, true
	}
	if m.Binding == nil {
		return Implicit(method), true
	}
	endpoints, known := m.table.endpoints[method]
	if !known {
		endpoints, _ = compileEndpoints(method)
	}
	for _, e := range endpoints {
		if e.Binding.Verb == m.Binding.Verb && e.template.same(m.template) {
			var path tablePath
			path.read(m.path)
			return m.table.newMatch(e, &path), true
		}
	}
	return Match{}, false
}

// On is the same match for the method as another backend describes it, also where that
// description does not have the path: then template and variables stay, and all that is
// in messages is compiled anew. The error says what does not fit.
func (m Match) On(method *schema.Method) (Match, error) {
	if own, ok := m.For(method); ok {
		return own, nil
	}
	if method.ClientStreaming != m.Method.ClientStreaming || method.ServerStreaming != m.Method.ServerStreaming {
		return Match{}, fmt.Errorf("it %s, and the one with the path %s", streamsOf(method), streamsOf(m.Method))
	}
	e, err := newEndpoint(method, m.Binding)
	if err != nil {
		return Match{}, err
	}
	m.Endpoint = e
	return m, nil
}

// streamsOf says in words which sides of a method stream.
func streamsOf(m *schema.Method) string {
	switch {
	case m.ClientStreaming && m.ServerStreaming:
		return "streams both ways"
	case m.ClientStreaming:
		return "streams requests"
	case m.ServerStreaming:
		return "streams answers"
	}
	return "is unary"
}
