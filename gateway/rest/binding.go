package rest

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// Endpoint is one binding of a method, compiled. It does not change.
type Endpoint struct {
	Method  *schema.Method
	Binding *schema.Binding // nil for the path that every method has

	template  *template // nil likewise
	variables []variablePlan
	input     *messagePlan
	whole     bool       // the body is all that the path does not say
	body      *fieldPlan // the field that the body is; nil when there is none
	raw       bool       // the body is taken as it is, a google.api.HttpBody
	mask      *fieldPlan // the google.protobuf.FieldMask that a PATCH fills in; nil for none

	output    *messagePlan
	answer    *fieldPlan // the field that the answer's body is; nil when it is all
	rawAnswer bool
}

// variablePlan is where what a variable of the path captures goes.
type variablePlan struct {
	name  string // by the names of its fields: "book.name"
	chain []*fieldPlan
	multi bool
}

// newEndpoint compiles a binding. The error says which part of it does not fit the
// method's messages.
func newEndpoint(method *schema.Method, b *schema.Binding) (*Endpoint, error) {
	t, err := parseTemplate(b.Template)
	if err != nil {
		return nil, err
	}
	if b.Verb == "" {
		return nil, errors.New("it has no verb")
	}
	plans := plansOf(method.Schema)
	e := &Endpoint{
		Method: method, Binding: b, template: t,
		input:  plans.of(method.Input.Descriptor()),
		output: plans.of(method.Output.Descriptor()),
	}
	for _, v := range t.variables {
		plan, err := newVariablePlan(e.input, v)
		if err != nil {
			return nil, fmt.Errorf("variable {%s}: %w", v.field, err)
		}
		e.variables = append(e.variables, plan)
	}
	if err := e.bindBody(b); err != nil {
		return nil, err
	}
	return e, e.bindAnswer(b)
}

func newVariablePlan(p *messagePlan, v templateVariable) (variablePlan, error) {
	chain, name, err := fieldChain(p, v.field)
	if err != nil {
		return variablePlan{}, err
	}
	switch last := chain[len(chain)-1]; {
	case last.list || last.mapped:
		return variablePlan{}, errors.New("a repeated field cannot be in a path")
	case last.isMessage() && !isOneValue(last.sub()):
		return variablePlan{}, errors.New("a message cannot be in a path")
	}
	return variablePlan{name: name, chain: chain, multi: v.multi}, nil
}

func (e *Endpoint) bindBody(b *schema.Binding) error {
	switch b.Body {
	case "":
		return nil
	case "*":
		e.whole, e.raw = true, isRawBody(e.input)
		return nil
	}
	e.body = e.input.byName[b.Body]
	if e.body == nil {
		return fmt.Errorf("body %q: %s has no such field", b.Body, e.input.desc.FullName())
	}
	single := e.body.isMessage() && !e.body.list && !e.body.mapped
	e.raw = single && isRawBody(e.body.sub())
	if single && !e.raw && b.Verb == "PATCH" {
		e.mask = onlyMask(e.input)
	}
	return nil
}

// onlyMask is the field of a request that is a FieldMask, when there is exactly one.
func onlyMask(p *messagePlan) (mask *fieldPlan) {
	for _, f := range p.fields {
		if !f.isMessage() || f.list || f.mapped || f.sub().form != formFieldMask {
			continue
		}
		if mask != nil {
			return nil
		}
		mask = f
	}
	return mask
}

func (e *Endpoint) bindAnswer(b *schema.Binding) error {
	if b.ResponseBody == "" {
		e.rawAnswer = isRawBody(e.output)
		return nil
	}
	e.answer = e.output.byName[b.ResponseBody]
	if e.answer == nil {
		return fmt.Errorf("response_body %q: %s has no such field", b.ResponseBody, e.output.desc.FullName())
	}
	e.rawAnswer = e.answer.isMessage() && !e.answer.list && !e.answer.mapped && isRawBody(e.answer.sub())
	return nil
}

// Implicit is the match of POST /package.Service/Method: the whole message is the body,
// and the whole answer comes back.
func Implicit(method *schema.Method) Match {
	plans := plansOf(method.Schema)
	input, output := plans.of(method.Input.Descriptor()), plans.of(method.Output.Descriptor())
	return Match{Endpoint: &Endpoint{
		Method: method,
		input:  input, whole: true, raw: isRawBody(input),
		output: output, rawAnswer: isRawBody(output),
	}}
}

// Raw tells whether the request's body is taken as it is, a google.api.HttpBody,
// whatever its content type; else it is JSON.
func (e *Endpoint) Raw() bool { return e.raw }

// RawAnswer tells whether the answer is a google.api.HttpBody.
func (e *Endpoint) RawAnswer() bool { return e.rawAnswer }

// Decode appends the message that a request means: body, path and query put together.
// A body that is streamed is decoded message by message. An empty body is a message
// without fields. The error is a *wire.Status that names field or parameter.
//
// The three lie one behind the other on the wire, where the last one counts. So a field
// that both path and body give has the path's value, as in grpc-gateway. A query
// parameter that path or body give cannot be given.
func (e *Endpoint) Decode(dst []byte, m Match, rawQuery string, body []byte, contentType string, l Limits) ([]byte, error) {
	if l.MaxMessage <= 0 {
		l.MaxMessage = DefaultMaxMessage
	}
	out, st := e.decodeBody(dst, body, contentType, l)
	if st == nil {
		out, st = e.decodeVariables(out, m)
	}
	masked := false
	if st == nil && rawQuery != "" {
		out, masked, st = e.decodeQuery(out, rawQuery, l)
	}
	if st == nil && e.mask != nil && !masked {
		var fault *codecFault
		if out, fault = e.appendMask(out, body, l.MaxMessage-(len(out)-len(dst))); fault != nil {
			st = fault.ofRequest(nil)
		}
	}
	if st == nil && len(out)-len(dst) > l.MaxMessage {
		st = (&codecFault{what: fmt.Sprintf("the message has %d bytes, limit %d", len(out)-len(dst), l.MaxMessage), at: -1, tooLarge: true}).ofRequest(nil)
	}
	if st != nil {
		return dst, st
	}
	return out, nil
}

func (e *Endpoint) decodeBody(dst, body []byte, contentType string, l Limits) ([]byte, *wire.Status) {
	switch {
	case e.raw && e.whole:
		return appendHTTPBody(dst, body, contentType), nil
	case e.raw:
		dst, start := openLength(append(dst, e.body.tag...))
		return closeLength(appendHTTPBody(dst, body, contentType), start), nil
	case isBlank(body):
		return dst, nil
	case e.body == nil && !e.whole:
		if l.IgnoreUnknownFields {
			return dst, nil
		}
		return dst, refuse(violation{what: "this path takes no body: all is said by path and query"})
	}
	r := newJSONReader(dst, body, e.Method.Schema, l)
	var fault *codecFault
	switch {
	case e.whole:
		dst, fault = r.message(dst, e.input)
	case r.next() == 'n' && !e.body.takesNull() && r.literal("null"):
	default:
		dst, fault = r.field(dst, e.body)
	}
	if fault == nil {
		fault = r.end()
	}
	if fault != nil {
		return dst, fault.ofRequest(body)
	}
	return dst, nil
}

// isBlank tells whether a body is nothing but white space.
func isBlank(body []byte) bool {
	t := jsonText{in: body}
	t.next()
	return t.pos == len(body)
}

func (e *Endpoint) decodeVariables(dst []byte, m Match) ([]byte, *wire.Status) {
	for i := range e.variables {
		v := &e.variables[i]
		decode := decodeSegment
		if v.multi {
			decode = decodeSegments
		}
		var fault string
		if dst, fault = appendTextField(dst, v.chain, decode(m.values[i]), e.Method.Schema); fault != "" {
			return dst, refuse(violation{field: v.name, kind: "path variable", what: fault})
		}
	}
	return dst, nil
}

// appendTextField appends a field, in the messages that it lies in, that text says; the
// fault is what is wrong with the text.
func appendTextField(dst []byte, chain []*fieldPlan, text string, res *schema.Schema) (_ []byte, fault string) {
	var starts [maxFieldDepth]int
	last := len(chain) - 1
	for i, f := range chain[:last] {
		dst = append(dst, f.tag...)
		if f.kind != protoreflect.GroupKind {
			dst, starts[i] = openLength(dst)
		}
	}
	dst, fault = appendTextValue(dst, chain[last], text, res)
	for i := last - 1; i >= 0; i-- {
		if f := chain[i]; f.kind == protoreflect.GroupKind {
			dst = protowire.AppendTag(dst, f.number, protowire.EndGroupType)
		} else {
			dst = closeLength(dst, starts[i])
		}
	}
	return dst, fault
}

// EncodeOptions say how an answer is written. The zero value is what grpc-gateway does.
type EncodeOptions struct {
	// OmitUnset leaves out fields that have their default value.
	OmitUnset bool
}

// Encode appends the body that a message of the answer means, and tells its content
// type: that of a google.api.HttpBody (of a stream the first message's counts), else
// application/json. The error is a *wire.Status, INTERNAL: the backend's message is
// not what its schema says.
func (e *Endpoint) Encode(dst, msg []byte, o EncodeOptions) (body []byte, contentType string, err error) {
	w := newJSONWriter(e.Method.Schema, !o.OmitUnset)
	defer w.release()
	w.bound(dst, msg)
	body, contentType, fault := e.encode(w, dst, msg)
	if fault != nil {
		return dst, "", fault.ofAnswer(string(e.output.desc.FullName()))
	}
	return body, contentType, nil
}

func (e *Endpoint) encode(w *jsonWriter, dst, msg []byte) (_ []byte, contentType string, fault *codecFault) {
	const json = "application/json"
	if e.answer == nil {
		if e.rawAnswer {
			return httpBody(dst, msg)
		}
		dst, fault = w.message(dst, e.output, msg)
		return dst, json, fault
	}
	if fault := w.index(e.output, msg); fault != nil {
		return dst, "", fault
	}
	f, at := e.answer, w.places[e.answer.index]
	switch {
	case e.rawAnswer:
		return httpBody(dst, w.merged(f, at, msg))
	case at.first != 0:
		before, set := len(dst), false
		if dst, set, fault = w.value(dst, f, at, msg); fault != nil {
			return dst, "", fault.inField(f.name())
		}
		if !set {
			dst = appendNothing(dst[:before], f)
		}
	case f.isMessage() && !f.list && !f.mapped:
		dst, fault = w.message(dst, f.sub(), nil)
	default:
		dst = appendNothing(dst, f)
	}
	return dst, json, fault
}

// appendNothing appends the JSON of a field that is not set and is all of an answer.
func appendNothing(dst []byte, f *fieldPlan) []byte {
	switch {
	case f.list:
		return append(dst, "[]"...)
	case f.mapped:
		return append(dst, "{}"...)
	}
	return append(dst, f.zeroJSON()...)
}

// The fields of google.api.HttpBody.
const (
	httpBodyType = 1<<3 | byte(protowire.BytesType)
	httpBodyData = 2<<3 | byte(protowire.BytesType)
)

// isRawBody tells whether a message is google.api.HttpBody, by name and fields.
func isRawBody(p *messagePlan) bool {
	if p.desc.FullName() != "google.api.HttpBody" {
		return false
	}
	contentType, data := p.numbered(1), p.numbered(2)
	return contentType != nil && contentType.kind == protoreflect.StringKind && !contentType.list &&
		data != nil && data.kind == protoreflect.BytesKind && !data.list
}

// appendHTTPBody appends the content of a google.api.HttpBody.
func appendHTTPBody(dst, body []byte, contentType string) []byte {
	if contentType != "" {
		dst = protowire.AppendString(append(dst, httpBodyType), strings.ToValidUTF8(contentType, "?"))
	}
	if len(body) > 0 {
		dst = protowire.AppendBytes(append(dst, httpBodyData), body)
	}
	return dst
}

// httpBody appends the data of a google.api.HttpBody, and tells its content type.
func httpBody(dst, msg []byte) (_ []byte, contentType string, fault *codecFault) {
	var data []byte
	for len(msg) > 0 {
		number, kind, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return dst, "", answerFault(malformed)
		}
		size := protowire.ConsumeFieldValue(number, kind, msg[n:])
		if size < 0 {
			return dst, "", answerFault(malformed)
		}
		if kind == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(msg[n:])
			switch number {
			case 1:
				contentType = string(content)
			case 2:
				data = content
			}
		}
		msg = msg[n+size:]
	}
	return append(dst, data...), headerSafe(contentType), nil
}

// headerSafe is a content type that may stand in a header: what cannot, or is missing,
// tells nothing of the data.
func headerSafe(contentType string) string {
	for i := range len(contentType) {
		if c := contentType[i]; c < ' ' || c >= 0x7f {
			contentType = ""
			break
		}
	}
	if contentType == "" {
		return "application/octet-stream"
	}
	return contentType
}
