package rest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// canBeWritten tells whether every wildcard is some field's. A "**" may be nothing.
func (t *template) canBeWritten() bool {
	for i, s := range t.segments {
		if s.kind == segmentOne && !slices.ContainsFunc(t.variables, func(v templateVariable) bool { return v.start <= i && i < v.end }) {
			return false
		}
	}
	return true
}

// expand writes the path in which msg has its variables. What it writes, the template
// matches, and gives the same variables back. The error says which field is to blame.
func (o *Outbound) expand(msg protoreflect.Message) (string, error) {
	segments := make([]string, 0, len(o.template.segments))
	at := 0
	for i := range o.vars {
		v := &o.vars[i]
		segments = o.literals(segments, at, v.variable.start)
		text, err := fieldText(msg, v.fields)
		if err == nil {
			segments, err = o.fill(segments, &v.variable, text)
		}
		if err != nil {
			return "", fmt.Errorf("field %q, which the path has: %w", v.variable.field, err)
		}
		at = v.variable.end
	}
	segments = o.literals(segments, at, len(o.template.segments))
	path := "/" + strings.Join(segments, "/")
	if o.template.verb != "" {
		path += ":" + escaped(o.template.verb, ":")
	}
	var p tablePath
	if fault := p.read(path); fault != "" {
		return "", fmt.Errorf("the path %q cannot be sent: %s", clip(path), fault)
	}
	return path, nil
}

// literals appends the segments of the template that are of no variable.
func (o *Outbound) literals(segments []string, from, to int) []string {
	for _, s := range o.template.segments[from:to] {
		if s.kind == segmentLiteral {
			segments = append(segments, escaped(s.literal, ""))
		}
	}
	return segments
}

// fill appends a variable's segments, which must be as the template has them.
func (o *Outbound) fill(segments []string, v *templateVariable, text string) ([]string, error) {
	pattern := o.template.segments[v.start:v.end]
	if !v.multi {
		if text == "" {
			return nil, errors.New("is empty")
		}
		if pattern[0].kind == segmentLiteral && pattern[0].literal != text {
			return nil, fmt.Errorf("is %q, want %q", clip(text), pattern[0].literal)
		}
		return append(segments, escaped(text, "")), nil
	}
	var parts []string
	if text != "" {
		parts = strings.Split(text, "/")
	}
	if !fits(pattern, parts) {
		return nil, fmt.Errorf("is %q, want the form %s", clip(text), o.template.shape(v))
	}
	for _, part := range parts {
		segments = append(segments, escapedSegment(part))
	}
	return segments, nil
}

// fits tells whether the segments of a text are those of a pattern.
func fits(pattern []templateSegment, parts []string) bool {
	open := pattern[len(pattern)-1].kind == segmentRest
	if open {
		pattern = pattern[:len(pattern)-1]
	}
	if len(parts) < len(pattern) || !open && len(parts) > len(pattern) || slices.Contains(parts, "") {
		return false
	}
	for i, s := range pattern {
		if s.kind == segmentLiteral && s.literal != decodeSegment(escapedSegment(parts[i])) {
			return false
		}
	}
	return true
}

// shape is the pattern of a variable as it is written.
func (t *template) shape(v *templateVariable) string {
	var parts []string
	for _, s := range t.segments[v.start:v.end] {
		switch s.kind {
		case segmentOne:
			parts = append(parts, "*")
		case segmentRest:
			parts = append(parts, "**")
		default:
			parts = append(parts, s.literal)
		}
	}
	return strings.Join(parts, "/")
}

// escapedSegment escapes a segment of a variable that may have several. There "%2F" stands
// for a slash within a segment, in both directions (http.proto).
func escapedSegment(s string) string {
	var b strings.Builder
	for at := 0; at+2 < len(s); at++ {
		if s[at] == '%' && s[at+1] == '2' && (s[at+2] == 'F' || s[at+2] == 'f') {
			b.WriteString(escaped(s[:at], ""))
			b.WriteString(s[at : at+3])
			s, at = s[at+3:], -1
		}
	}
	b.WriteString(escaped(s, ""))
	return b.String()
}

const upperHex = "0123456789ABCDEF"

// escaped escapes every byte but RFC 3986's unreserved ones and those of plain.
func escaped(s, plain string) string {
	n := 0
	for i := range len(s) {
		if !isUnreserved(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; isUnreserved(c) || strings.IndexByte(plain, c) >= 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}
