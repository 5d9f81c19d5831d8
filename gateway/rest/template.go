package rest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The most that a template may have. They bound what a schema, which a backend tells
// us, can make of the table; real templates stay far below.
const (
	maxTemplateBytes    = 2048
	maxTemplateSegments = 32
	maxVerbColons       = 8 // of a custom verb, its own included
)

// template is the path of a binding, taken apart (google/api/http.proto, "Path template
// syntax"). Variables are flattened: the segments are those of the whole path.
type template struct {
	segments  []templateSegment
	verb      string // custom verb, decoded, without the colon; "" for none
	variables []templateVariable
}

type segmentKind uint8

const (
	segmentLiteral segmentKind = iota
	segmentOne                 // "*": exactly one segment
	segmentRest                // "**": zero or more, the last of its template
)

type templateSegment struct {
	kind    segmentKind
	literal string // decoded
}

// templateVariable is what "{name=shelves/*}" captures: segments[start:end].
type templateVariable struct {
	field      string // "name", "book.name"
	start, end int
	// multi tells that it may hold several segments, so that "%2F" stays as it is.
	multi bool
}

// parseTemplate takes a template apart. Beyond the grammar it accepts "/", the root.
func parseTemplate(s string) (*template, error) {
	if len(s) > maxTemplateBytes {
		return nil, fmt.Errorf("reading path template of %d bytes: limit %d", len(s), maxTemplateBytes)
	}
	t := new(template)
	if err := t.parse(s); err != nil {
		return nil, fmt.Errorf("reading path template %q: %w", s, err)
	}
	return t, nil
}

func (t *template) parse(s string) error {
	rest, ok := strings.CutPrefix(s, "/")
	if !ok {
		return errors.New(`does not begin with "/"`)
	}
	if rest == "" {
		return nil
	}
	rest, verb, hasVerb := cutTemplateVerb(rest)
	if hasVerb {
		var err error
		if t.verb, err = templateLiteral(verb); err != nil {
			return fmt.Errorf("custom verb: %w", err)
		}
	}
	for more := true; more; {
		var err error
		if rest, more, err = t.parsePart(rest); err != nil {
			return err
		}
	}
	return t.check()
}

// cutTemplateVerb cuts at the colon that begins the custom verb: the last one of the
// last segment, or the first one behind a variable, as grpc-gateway reads it.
func cutTemplateVerb(s string) (segments, verb string, found bool) {
	last := strings.LastIndexByte(s, '}') + 1
	var at int
	if last > 0 && last < len(s) && s[last] == ':' {
		at = 0
	} else {
		last += strings.LastIndexByte(s[last:], '/') + 1
		at = strings.LastIndexByte(s[last:], ':')
	}
	if at < 0 {
		return s, "", false
	}
	return s[:last+at], s[last+at+1:], true
}

// parsePart reads one segment or one variable, and the slash behind it.
func (t *template) parsePart(s string) (rest string, more bool, err error) {
	if !strings.HasPrefix(s, "{") {
		part, rest, more := strings.Cut(s, "/")
		return rest, more, t.addSegment(part)
	}
	part, rest, closed := strings.Cut(s[1:], "}")
	if !closed {
		return "", false, errors.New(`a variable is not closed by "}"`)
	}
	if err := t.addVariable(part); err != nil {
		return "", false, err
	}
	if rest == "" {
		return "", false, nil
	}
	if rest[0] != '/' {
		return "", false, fmt.Errorf("a variable is followed by %q, want \"/\"", rest)
	}
	return rest[1:], true, nil
}

func (t *template) addVariable(s string) error {
	if strings.Contains(s, "{") {
		return errors.New("a variable within a variable")
	}
	field, segments, given := strings.Cut(s, "=")
	for part := range strings.SplitSeq(field, ".") {
		if !isIdentifier(part) {
			return fmt.Errorf("variable {%s}: %q is no name of a field", s, part)
		}
	}
	for _, v := range t.variables {
		if v.field == field || strings.HasPrefix(v.field, field+".") || strings.HasPrefix(field, v.field+".") {
			return fmt.Errorf("field %q is captured twice", field)
		}
	}
	if !given {
		segments = "*"
	}
	v := templateVariable{field: field, start: len(t.segments)}
	for part := range strings.SplitSeq(segments, "/") {
		if err := t.addSegment(part); err != nil {
			return fmt.Errorf("variable {%s}: %w", s, err)
		}
	}
	v.end = len(t.segments)
	v.multi = v.end-v.start > 1 || t.segments[v.start].kind == segmentRest
	t.variables = append(t.variables, v)
	return nil
}

func (t *template) addSegment(s string) error {
	switch s {
	case "":
		return errors.New("an empty segment")
	case "*":
		t.segments = append(t.segments, templateSegment{kind: segmentOne})
		return nil
	case "**":
		t.segments = append(t.segments, templateSegment{kind: segmentRest})
		return nil
	}
	literal, err := templateLiteral(s)
	if err != nil {
		return err
	}
	t.segments = append(t.segments, templateSegment{literal: literal})
	return nil
}

// check looks at what only the whole template shows.
func (t *template) check() error {
	if len(t.segments) > maxTemplateSegments {
		return fmt.Errorf("%d segments, limit %d", len(t.segments), maxTemplateSegments)
	}
	if n := 1 + strings.Count(t.verb, ":"); n > maxVerbColons {
		return fmt.Errorf("%d colons in the custom verb, limit %d", n, maxVerbColons)
	}
	for i, s := range t.segments {
		if s.kind == segmentRest && i != len(t.segments)-1 {
			return errors.New(`"**" is not the last segment`)
		}
	}
	return nil
}

// templateLiteral decodes a literal. It holds what a path segment can hold (RFC 3986,
// section 3.3), and must be one that a path can match.
func templateLiteral(s string) (string, error) {
	if s == "" {
		return "", errors.New("an empty segment")
	}
	if strings.Contains(s, "*") {
		return "", fmt.Errorf("%q mixes text and \"*\"", s)
	}
	var seg pathSegment
	if fault := seg.read(s); fault != "" {
		return "", fmt.Errorf("%q: %s", s, fault)
	}
	return decodeSegment(s), nil
}

// isIdentifier tells whether s is a name as .proto files have it.
func isIdentifier(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// same tells whether two templates match the same paths.
func (t *template) same(u *template) bool {
	return t == u || t.verb == u.verb && slices.Equal(t.segments, u.segments)
}
