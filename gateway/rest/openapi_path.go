package rest

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"sluice/gateway/schema"
)

// openTemplate is a path template in the words of OpenAPI: what a variable has beside
// its wildcards stands in the path, and each wildcard is a parameter.
type openTemplate struct {
	path       string // "/v1/shelves/{name}:publish"
	shape      string // the path without the names of its parameters
	parameters []pathParameter
	binds      map[string]bool // paths of the fields that variables are of
}

// pathParameter is one wildcard.
type pathParameter struct {
	name     string
	pattern  string                       // of the variable, "shelves/*"; "*" when the wildcard is all of it
	variable string                       // the path of its field; empty for a wildcard of none
	field    protoreflect.FieldDescriptor // nil for a wildcard of none
	whole    bool                         // it is all that the field gets
	many     bool                         // it may have slashes
}

// readTemplate translates a template of a method's binding.
func readTemplate(m *schema.Method, text string) (*openTemplate, error) {
	parsed, err := parseTemplate(text)
	if err != nil {
		return nil, err
	}
	t := &openTemplate{binds: map[string]bool{}}
	at := 0
	for i := range parsed.variables {
		v := &parsed.variables[i]
		t.add(parsed, at, v.start, pathParameter{pattern: "*"})
		field := fieldAt(m.Descriptor.Input(), v.field)
		if field == nil {
			return nil, fmt.Errorf("%s has no field %q", m.Descriptor.Input().FullName(), v.field)
		}
		t.binds[v.field] = true
		t.add(parsed, v.start, v.end, pathParameter{pattern: parsed.shape(v), variable: v.field, field: field})
		at = v.end
	}
	t.add(parsed, at, len(parsed.segments), pathParameter{pattern: "*"})
	if len(parsed.segments) == 0 {
		t.path, t.shape = "/", "/"
	}
	if parsed.verb != "" {
		verb := ":" + escaped(parsed.verb, ":")
		t.path, t.shape = t.path+verb, t.shape+verb
	}
	return t, nil
}

// add adds segments of a template: those of one variable, or of none. of is what their
// wildcards have in common.
func (t *openTemplate) add(parsed *template, from, to int, of pathParameter) {
	wild := 0
	for _, s := range parsed.segments[from:to] {
		if s.kind != segmentLiteral {
			wild++
		}
	}
	for _, s := range parsed.segments[from:to] {
		if s.kind == segmentLiteral {
			text := "/" + escaped(s.literal, "")
			t.path, t.shape = t.path+text, t.shape+text
			continue
		}
		p := of
		p.name, p.many = t.free(of.variable, wild > 1), s.kind == segmentRest
		p.whole = to-from == 1 && !p.many
		t.path += "/{" + p.name + "}"
		t.shape += "/{}"
		t.parameters = append(t.parameters, p)
	}
}

// free is a name for a wildcard that no other one has: that of its variable, with a
// number where there are several.
func (t *openTemplate) free(variable string, numbered bool) string {
	name := variable
	if name == "" {
		name, numbered = "segment", true
	}
	for n := 1; ; n++ {
		candidate := name
		if numbered || n > 1 {
			candidate = fmt.Sprintf("%s_%d", name, n)
		}
		taken := t.binds[candidate] && candidate != variable
		for _, p := range t.parameters {
			taken = taken || p.name == candidate
		}
		if !taken {
			return candidate
		}
	}
}

func (t *openTemplate) names() []string {
	var names []string
	for _, p := range t.parameters {
		names = append(names, p.name)
	}
	return names
}

// fields are the fields of the method's own message that the path has whole.
func (t *openTemplate) fields() map[protoreflect.Name]bool {
	all := map[protoreflect.Name]bool{}
	for path := range t.binds {
		if !strings.Contains(path, ".") {
			all[protoreflect.Name(path)] = true
		}
	}
	return all
}

// about says what a parameter is to the method.
func (p *pathParameter) about() string {
	text := ""
	if p.field != nil {
		text = comment(p.field)
	}
	if p.pattern != "*" && p.variable != "" {
		text += fmt.Sprintf(" A part of the field %s, which is %s.", p.variable, p.pattern)
	}
	if p.many {
		text += " Any number of segments: a slash in it stands for itself."
	}
	return strings.TrimSpace(text)
}

// fieldAt finds the field at the end of a path through messages; nil when there is none.
func fieldAt(m protoreflect.MessageDescriptor, path string) protoreflect.FieldDescriptor {
	var f protoreflect.FieldDescriptor
	for name := range strings.SplitSeq(path, ".") {
		if m == nil {
			return nil
		}
		if f = m.Fields().ByName(protoreflect.Name(name)); f == nil {
			return nil
		}
		m = f.Message()
	}
	return f
}
