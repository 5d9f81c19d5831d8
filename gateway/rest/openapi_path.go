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
func readTemplate(m *schema.Method, template string) (*openTemplate, error) {
	parts, verb, err := templateParts(template)
	if err != nil {
		return nil, err
	}
	t := &openTemplate{binds: map[string]bool{}}
	for i := 0; i < len(parts); {
		n := variableLength(parts[i:])
		if err := t.add(m, parts[i:i+n]); err != nil {
			return nil, err
		}
		i += n
	}
	suffix := ""
	if verb != "" {
		suffix = ":" + verb
	}
	t.path += suffix
	t.shape += suffix
	return t, nil
}

// variableLength is how many of the parts the first one's variable has.
func variableLength(parts []templatePart) int {
	n := 1
	for n < len(parts) && parts[n].variable != "" && parts[n].variable == parts[0].variable {
		n++
	}
	return n
}

// add adds a variable, or a part of none.
func (t *openTemplate) add(m *schema.Method, parts []templatePart) error {
	variable := parts[0].variable
	var field protoreflect.FieldDescriptor
	if variable != "" {
		if field = fieldAt(m.Descriptor.Input(), variable); field == nil {
			return fmt.Errorf("%s has no field %q", m.Descriptor.Input().FullName(), variable)
		}
		t.binds[variable] = true
	}
	var pattern []string
	wild := 0
	for _, p := range parts {
		pattern = append(pattern, p.text)
		if p.wild() {
			wild++
		}
	}
	for _, p := range parts {
		if !p.wild() {
			t.path += "/" + p.text
			t.shape += "/" + p.text
			continue
		}
		name := t.free(variable, wild > 1)
		t.path += "/{" + name + "}"
		t.shape += "/{}"
		t.parameters = append(t.parameters, pathParameter{
			name: name, pattern: strings.Join(pattern, "/"), variable: variable, field: field,
			whole: len(parts) == 1 && p.text == "*", many: p.text == "**",
		})
	}
	return nil
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

// templatePart is one segment of a template.
type templatePart struct {
	text     string // a literal, "*" or "**"
	variable string // the path of the field that it is part of; empty for none
}

func (p templatePart) wild() bool { return p.text == "*" || p.text == "**" }

// templateParts takes a template apart.
func templateParts(template string) (parts []templatePart, verb string, err error) {
	rest, ok := strings.CutPrefix(template, "/")
	if !ok {
		return nil, "", fmt.Errorf("template %q: want a leading slash", template)
	}
	if at := strings.LastIndexAny(rest, ":/}"); at >= 0 && rest[at] == ':' {
		rest, verb = rest[:at], rest[at+1:]
	}
	for rest != "" {
		var segment, variable string
		if inner, braced := strings.CutPrefix(rest, "{"); braced {
			if inner, rest, ok = strings.Cut(inner, "}"); !ok {
				return nil, "", fmt.Errorf("template %q: a { without its }", template)
			}
			if variable, segment, ok = strings.Cut(inner, "="); !ok {
				segment = "*"
			}
			rest = strings.TrimPrefix(rest, "/")
		} else {
			segment, rest, _ = strings.Cut(rest, "/")
		}
		for text := range strings.SplitSeq(segment, "/") {
			parts = append(parts, templatePart{text, variable})
		}
	}
	return parts, verb, nil
}
