package rest

import (
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// The JSON Schema of messages, as the JSON of protobuf has them.

const (
	statusName = "google.rpc.Status"
	anyName    = "google.protobuf.Any"

	componentPrefix = "#/components/schemas/"
	failedName      = "Error" // of the response to an RPC that failed
)

func reference(name string) *ordered { return object("$ref", componentPrefix+name) }

func typed(name string) *ordered { return object("type", name) }

// wellKnown has the schemas of the messages that JSON writes in a form of their own.
// What it has is written where it is used.
var wellKnown = map[protoreflect.FullName]func() *ordered{
	"google.protobuf.Timestamp": func() *ordered { return typed("string").put("format", "date-time") },
	"google.protobuf.Duration": func() *ordered {
		return typed("string").put("pattern", `^-?[0-9]+(\.[0-9]{1,9})?s$`).put("examples", []any{"1.5s"})
	},
	"google.protobuf.FieldMask": func() *ordered { return typed("string").put("examples", []any{"name,address.city"}) },
	"google.protobuf.Struct":    func() *ordered { return typed("object").put("additionalProperties", true) },
	"google.protobuf.Value":     func() *ordered { return new(ordered) },
	"google.protobuf.ListValue": func() *ordered { return typed("array").put("items", new(ordered)) },
	"google.protobuf.Empty":     func() *ordered { return typed("object") },

	"google.protobuf.DoubleValue": func() *ordered { return nullable(protoreflect.DoubleKind) },
	"google.protobuf.FloatValue":  func() *ordered { return nullable(protoreflect.FloatKind) },
	"google.protobuf.Int64Value":  func() *ordered { return nullable(protoreflect.Int64Kind) },
	"google.protobuf.UInt64Value": func() *ordered { return nullable(protoreflect.Uint64Kind) },
	"google.protobuf.Int32Value":  func() *ordered { return nullable(protoreflect.Int32Kind) },
	"google.protobuf.UInt32Value": func() *ordered { return nullable(protoreflect.Uint32Kind) },
	"google.protobuf.BoolValue":   func() *ordered { return nullable(protoreflect.BoolKind) },
	"google.protobuf.StringValue": func() *ordered { return nullable(protoreflect.StringKind) },
	"google.protobuf.BytesValue":  func() *ordered { return nullable(protoreflect.BytesKind) },
}

// isText tells of a well-known message whether JSON, and so a query, has it as one
// value.
func isText(name protoreflect.FullName) bool {
	switch name {
	case "google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask":
		return true
	}
	return strings.HasPrefix(string(name), "google.protobuf.") && strings.HasSuffix(string(name), "Value") &&
		name != "google.protobuf.Value" && name != "google.protobuf.ListValue"
}

// nullable is a wrapper: a scalar that may be null.
func nullable(kind protoreflect.Kind) *ordered {
	s := scalar(kind)
	s.members[0].value = []any{s.members[0].value, "null"}
	return s
}

// scalar is a value that is neither message nor enum. Its type comes first.
func scalar(kind protoreflect.Kind) *ordered {
	switch kind {
	case protoreflect.BoolKind:
		return typed("boolean")
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return typed("integer").put("format", "int32")
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return typed("integer").put("format", "uint32").put("minimum", 0)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return typed("string").put("format", "int64") // JSON's own numbers end at 2^53
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return typed("string").put("format", "uint64")
	case protoreflect.FloatKind:
		return typed("number").put("format", "float")
	case protoreflect.DoubleKind:
		return typed("number").put("format", "double")
	case protoreflect.BytesKind:
		return typed("string").put("contentEncoding", "base64")
	}
	return typed("string")
}

// messageSchema is a reference to the message's component, or its own form. The
// components that are referred to are written at the end: types may lead back to
// themselves.
func (d *document) messageSchema(m protoreflect.MessageDescriptor) *ordered {
	if inline, ok := wellKnown[m.FullName()]; ok {
		return inline()
	}
	d.want(m)
	d.weigh(string(m.FullName()))
	return reference(string(m.FullName()))
}

// want sees to it that the component of a type is written. Of two types that have
// the same name, as of two versions of a backend, the first one is described.
func (d *document) want(t protoreflect.Descriptor) {
	if name := string(t.FullName()); !d.known[name] {
		d.known[name] = true
		d.pending = append(d.pending, t)
	}
}

// components writes the types that were asked for, and those that these ask for.
func (d *document) components() error {
	for len(d.pending) > 0 {
		t := d.pending[0]
		d.pending = d.pending[1:]
		var s *ordered
		switch t := t.(type) {
		case protoreflect.EnumDescriptor:
			s = d.enumSchema(t)
		case protoreflect.MessageDescriptor:
			s = d.objectSchema(t, nil)
		}
		if d.size > maxDocumentParts {
			return d.tooLarge()
		}
		d.schemas[string(t.FullName())] = s
	}
	return nil
}

func anySchema() *ordered {
	at := typed("string").put("description", "The type of the message that the other members are of, such as type.googleapis.com/google.rpc.RetryInfo.")
	return typed("object").put("properties", object("@type", at)).put("required", []any{"@type"}).put("additionalProperties", true)
}

// statusSchema is the body of every error.
func statusSchema() *ordered {
	properties := object("code", scalar(protoreflect.Int32Kind).put("description", "The code of gRPC.")).
		put("message", typed("string")).
		put("details", typed("array").put("items", reference(anyName)))
	return typed("object").put("description", "What went wrong.").put("properties", properties)
}

func (d *document) enumSchema(e protoreflect.EnumDescriptor) *ordered {
	var names []any
	for i := range e.Values().Len() {
		names = append(names, string(e.Values().Get(i).Name()))
		d.weigh(string(e.Values().Get(i).Name()))
	}
	d.size += len(names)
	return typed("string").putText("description", d.enumText(e)).put("enum", names)
}

// enumText is the comment of an enum, with those of its values.
func (d *document) enumText(e protoreflect.EnumDescriptor) string {
	var text strings.Builder
	text.WriteString(d.comment(e))
	for i := range e.Values().Len() {
		v := e.Values().Get(i)
		if about := d.comment(v); about != "" {
			text.WriteString("\n- " + string(v.Name()) + ": " + strings.ReplaceAll(about, "\n", " "))
		}
	}
	return strings.TrimPrefix(text.String(), "\n")
}

// objectSchema writes a message's fields out, but for those of the given names.
func (d *document) objectSchema(m protoreflect.MessageDescriptor, without map[protoreflect.Name]bool) *ordered {
	properties, required := new(ordered), []any(nil)
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if without[f.Name()] {
			continue
		}
		d.size++
		d.weigh(f.JSONName())
		s, needed := d.propertySchema(f)
		properties.put(f.JSONName(), s)
		if needed {
			required = append(required, f.JSONName())
		}
	}
	s := typed("object").putText("description", d.comment(m))
	if len(properties.members) > 0 {
		s.put("properties", properties)
	}
	if len(required) > 0 {
		s.put("required", required)
	}
	if choices := choices(m, without); len(choices) > 0 {
		s.put("allOf", choices)
	}
	if deprecated(m.Options()) {
		s.put("deprecated", true)
	}
	return s
}

// propertySchema is a field's schema with what is said of the field, and whether it
// must be there.
func (d *document) propertySchema(f protoreflect.FieldDescriptor) (s *ordered, required bool) {
	s = d.fieldSchema(f)
	if about := d.comment(f); about != "" {
		s.put("description", about)
	}
	required = f.Cardinality() == protoreflect.Required
	for _, behavior := range behaviors(f) {
		switch behavior {
		case annotations.FieldBehavior_REQUIRED:
			required = true
		case annotations.FieldBehavior_OUTPUT_ONLY:
			s.put("readOnly", true)
		case annotations.FieldBehavior_INPUT_ONLY:
			s.put("writeOnly", true)
		}
	}
	if deprecated(f.Options()) {
		s.put("deprecated", true)
	}
	return s, required
}

func (d *document) fieldSchema(f protoreflect.FieldDescriptor) *ordered {
	switch {
	case f.IsMap():
		s := typed("object")
		if names := keyNames(f.MapKey().Kind()); names != nil {
			s.put("propertyNames", names)
		}
		return s.put("additionalProperties", d.valueSchema(f.MapValue()))
	case f.IsList():
		return typed("array").put("items", d.valueSchema(f))
	}
	return d.valueSchema(f)
}

// keyNames are what the keys of a map may be, nil for any text.
func keyNames(kind protoreflect.Kind) *ordered {
	switch kind {
	case protoreflect.StringKind:
		return nil
	case protoreflect.BoolKind:
		return object("enum", []any{"true", "false"})
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return object("pattern", "^[0-9]+$")
	}
	return object("pattern", "^-?[0-9]+$")
}

// valueSchema is one value of a field.
func (d *document) valueSchema(f protoreflect.FieldDescriptor) *ordered {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return d.messageSchema(f.Message())
	case protoreflect.EnumKind:
		if f.Enum().FullName() == "google.protobuf.NullValue" {
			return typed("null")
		}
		d.want(f.Enum())
		d.weigh(string(f.Enum().FullName()))
		return reference(string(f.Enum().FullName()))
	}
	return scalar(f.Kind())
}

// choices say of each oneof that at most one of its fields is there.
func choices(m protoreflect.MessageDescriptor, without map[protoreflect.Name]bool) []any {
	var all []any
	for i := range m.Oneofs().Len() {
		o := m.Oneofs().Get(i)
		if o.IsSynthetic() {
			continue
		}
		var one []any
		for j := range o.Fields().Len() {
			if f := o.Fields().Get(j); !without[f.Name()] {
				one = append(one, object("required", []any{f.JSONName()}))
			}
		}
		if len(one) < 2 {
			continue
		}
		none := object("not", object("anyOf", append([]any(nil), one...)))
		all = append(all, object("oneOf", append(one, none)))
	}
	return all
}

// maxDescription bounds the comment of one declaration, in bytes: it is for people.
const maxDescription = 4 << 10

// textPart is how many bytes of text count as a part of the document. Names and comments
// are written by whoever wrote the schema, and are repeated wherever a type is used.
const textPart = 100

// weigh counts texts that the document has once more.
func (d *document) weigh(texts ...string) {
	for _, text := range texts {
		d.size += len(text) / textPart
	}
}

// comment is what is said of a declaration.
func (d *document) comment(of protoreflect.Descriptor) string {
	text := comment(of)
	d.weigh(text)
	return text
}

// comment is what the source says above a declaration, or else beside it. There is
// one only when the descriptors came with their source info.
func comment(d protoreflect.Descriptor) string {
	location := d.ParentFile().SourceLocations().ByDescriptor(d)
	text := location.LeadingComments
	if strings.TrimSpace(text) == "" {
		text = location.TrailingComments
	}
	if len(text) > maxDescription {
		text = text[:maxDescription] + "…"
	}
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimRight(strings.TrimPrefix(line, " "), " \t\r\n"))
	}
	return strings.ToValidUTF8(strings.Trim(strings.Join(lines, "\n"), "\n"), "�")
}

// behaviors are what google.api.field_behavior says of a field. It is read from the
// bytes of the options, because where descriptors come from decides whether they
// have the annotation as unknown bytes, as a dynamic message or as ours.
func behaviors(f protoreflect.FieldDescriptor) []annotations.FieldBehavior {
	data, err := proto.Marshal(f.Options())
	if err != nil || len(data) == 0 {
		return nil
	}
	options := new(descriptorpb.FieldOptions)
	if proto.Unmarshal(data, options) != nil {
		return nil
	}
	found, _ := proto.GetExtension(options, annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return found
}

// deprecated reads the option that all kinds of declarations have.
func deprecated(options proto.Message) bool {
	o, ok := options.(interface{ GetDeprecated() bool })
	return ok && o.GetDeprecated()
}
