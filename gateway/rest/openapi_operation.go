package rest

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"sluice/gateway/schema"
)

// Bounds of the query parameters of one operation. A message that is deep or wide has
// more ways to be filled than anybody would read.
const (
	maxOpenDepth      = 8 // fields within fields
	maxOpenParameters = 1000
	maxOpenName       = 1024   // bytes of a name
	maxOpenFields     = 20_000 // looked at: messages of messages may have no end and no parameter
)

// Media types of what a method takes and gives.
const (
	mediaJSON   = "application/json"
	mediaNDJSON = "application/x-ndjson"
	mediaSSE    = "text/event-stream"
	mediaAny    = "*/*"
)

// httpBodyName is the message that stands for a body that is no JSON.
const httpBodyName = "google.api.HttpBody"

// operation is one verb of one path.
type operation struct {
	*document
	method   *schema.Method
	binding  schema.Binding
	template *openTemplate
	names    []string                     // of the path's parameters, in their order
	body     protoreflect.FieldDescriptor // of the binding; nil when it names none
}

// bodyOf finds the field that a binding takes as its body, and checks the one that it
// gives.
func bodyOf(m *schema.Method, b schema.Binding) (body protoreflect.FieldDescriptor, err error) {
	if b.Body != "" && b.Body != "*" {
		if body = m.Descriptor.Input().Fields().ByName(protoreflect.Name(b.Body)); body == nil {
			return nil, fmt.Errorf("body: %s has no field %q", m.Descriptor.Input().FullName(), b.Body)
		}
	}
	if b.ResponseBody != "" && m.Descriptor.Output().Fields().ByName(protoreflect.Name(b.ResponseBody)) == nil {
		return nil, fmt.Errorf("response_body: %s has no field %q", m.Descriptor.Output().FullName(), b.ResponseBody)
	}
	return body, nil
}

func (o *operation) write(id string) *ordered {
	about := o.comment(o.method.Descriptor)
	o.weigh(id, o.method.Path, o.template.path, about) // and once more as the summary
	op := object("operationId", id).put("tags", []any{string(o.method.Descriptor.Parent().FullName())})
	op.putText("summary", firstSentence(about)).putText("description", about)
	if parameters := append(o.pathParameters(), o.queryParameters()...); len(parameters) > 0 {
		op.put("parameters", parameters)
	}
	if o.binding.Body != "" {
		op.put("requestBody", o.requestBody())
	}
	op.put("responses", o.responses())
	if deprecated(o.method.Descriptor.Options()) {
		op.put("deprecated", true)
	}
	return op
}

// firstSentence is what a list of operations shows, empty when it would be all.
func firstSentence(text string) string {
	line := strings.ReplaceAll(text, "\n", " ")
	if end := strings.Index(line, ". "); end >= 0 {
		return line[:end]
	}
	return ""
}

func (o *operation) pathParameters() []any {
	var all []any
	for i, p := range o.template.parameters {
		o.size++
		s := typed("string")
		if p.whole && p.field != nil {
			s = o.fieldSchema(p.field)
		}
		text := p.about()
		o.weigh(text, p.name)
		if p.name != o.names[i] {
			text = strings.TrimSpace("It is " + p.name + ". " + text) // the name is another operation's
		}
		all = append(all, object("name", o.names[i]).put("in", "path").put("required", true).
			putText("description", text).put("schema", s))
	}
	return all
}

// queryParameters are the fields that neither the path nor the body has.
func (o *operation) queryParameters() []any {
	if o.binding.Body == "*" {
		return nil
	}
	q := &openQuery{operation: o}
	q.add(o.method.Descriptor.Input(), "", "")
	return q.parameters
}

// openQuery gathers parameters.
type openQuery struct {
	*operation
	within     []protoreflect.FullName // the messages on the way to the field in hand
	looked     int                     // fields looked at
	parameters []any
}

// add adds the fields of a message: path and shown lead to it, in names of fields
// and of JSON.
func (q *openQuery) add(m protoreflect.MessageDescriptor, path, shown string) {
	if slices.Contains(q.within, m.FullName()) || len(q.within) == maxOpenDepth {
		return
	}
	q.within = append(q.within, m.FullName())
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name := path + string(f.Name())
		if q.looked++; q.looked > maxOpenFields || len(q.parameters) == maxOpenParameters {
			break
		}
		if f == q.body || q.template.binds[name] || len(shown)+len(f.JSONName()) > maxOpenName {
			continue
		}
		q.field(f, name, shown+f.JSONName())
	}
	q.within = q.within[:len(q.within)-1]
}

func (q *openQuery) field(f protoreflect.FieldDescriptor, path, shown string) {
	switch {
	case f.IsMap(): // a query has no form for it
		return
	case f.Message() != nil && !isText(f.Message().FullName()):
		if _, ownForm := wellKnown[f.Message().FullName()]; !ownForm && !f.IsList() {
			q.add(f.Message(), path+".", shown+".")
		}
		return
	case f.Message() != nil && f.IsList(): // messages are not repeated in a query
		return
	}
	q.size++
	q.weigh(shown)
	p := object("name", shown).put("in", "query").putText("description", q.comment(f))
	if _, required := q.propertySchema(f); required && len(q.within) == 1 {
		p.put("required", true)
	}
	if deprecated(f.Options()) {
		p.put("deprecated", true)
	}
	q.parameters = append(q.parameters, p.put("schema", q.fieldSchema(f)))
}

func (o *operation) requestBody() *ordered {
	var s *ordered
	switch {
	case o.body != nil && isHTTPBody(o.body.Message()) && !o.body.IsList(),
		o.body == nil && isHTTPBody(o.method.Descriptor.Input()):
		return object("required", true).put("content", rawContent())
	case o.body != nil:
		s, _ = o.propertySchema(o.body)
	case len(o.template.parameters) > 0:
		s = o.objectSchema(o.method.Descriptor.Input(), o.template.fields())
	default:
		s = o.messageSchema(o.method.Descriptor.Input())
	}
	if !o.method.ClientStreaming {
		return object("required", true).put("content", jsonContent(s))
	}
	return object("description", "Each line is one message.").put("required", true).
		put("content", object(mediaNDJSON, object("schema", s)))
}

func isHTTPBody(m protoreflect.MessageDescriptor) bool {
	return m != nil && m.FullName() == httpBodyName
}

func jsonContent(s *ordered) *ordered { return object(mediaJSON, object("schema", s)) }

// rawContent is a body of any kind, as google.api.HttpBody has it.
func rawContent() *ordered {
	return object(mediaAny, object("schema", typed("string").put("format", "binary")))
}

func (o *operation) responses() *ordered {
	return object("200", o.response()).put("default", object("$ref", "#/components/responses/"+failedName))
}

func (o *operation) response() *ordered {
	output := o.method.Descriptor.Output()
	var s *ordered
	f := output.Fields().ByName(protoreflect.Name(o.binding.ResponseBody))
	switch {
	case f != nil && isHTTPBody(f.Message()) && !f.IsList(), f == nil && isHTTPBody(output):
		return object("description", "OK").put("content", rawContent())
	case f != nil:
		s, _ = o.propertySchema(f)
	default:
		s = o.messageSchema(output)
	}
	if !o.method.ServerStreaming {
		return object("description", "OK").put("content", jsonContent(s))
	}
	content := object(mediaNDJSON, object("schema", s)).put(mediaSSE, object("schema", s)).
		put(mediaJSON, object("schema", typed("array").put("items", s)))
	return object("description", "OK. "+streamText).put("content", content)
}

// streamText says how the messages of a stream are told apart.
const streamText = "Each line, or the data of each event, is one message; application/json, when Accept asks for it, has them all as one array. " +
	"A stream that fails ends with a line, or an entry, {\"error\": google.rpc.Status}, or with an event error whose data is the status."
