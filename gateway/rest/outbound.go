package rest

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// Outbound turns the RPCs of one method into requests to a backend that speaks REST, by
// the first binding of its annotation: the opposite of what Table and Endpoint are for.
// It does not change.
type Outbound struct {
	method   *schema.Method
	verb     string
	template *template
	vars     []pathField
	bound    map[string]bool              // paths of the fields that the path has
	rest     bool                         // the body has what the path has not: no query
	body     protoreflect.FieldDescriptor // the field that is the body, nil for none, or for all
	answer   protoreflect.FieldDescriptor // the field that the answer's body is, nil for all
}

// pathField is a variable of the path and the way to its field.
type pathField struct {
	variable templateVariable
	fields   []protoreflect.FieldDescriptor
}

// NewOutbound compiles a method. The error is a *wire.Status, UNIMPLEMENTED: the method
// streams, has no annotation, or one that no request can be made by.
func NewOutbound(m *schema.Method) (*Outbound, error) {
	switch {
	case m.ClientStreaming || m.ServerStreaming:
		return nil, notOutbound(m, "it streams, and only unary methods become REST requests")
	case len(m.Bindings) == 0:
		return nil, notOutbound(m, "it has no google.api.http annotation, so there is no REST path for it")
	}
	b := &m.Bindings[0]
	t, err := parseTemplate(b.Template)
	if err != nil {
		return nil, notOutbound(m, err.Error())
	}
	o := &Outbound{method: m, verb: b.Verb, template: t, bound: map[string]bool{}, rest: b.Body == "*"}
	if !t.canBeWritten() {
		return nil, notOutbound(m, fmt.Sprintf("the path %q has a \"*\" that is no field's", b.Template))
	}
	for _, v := range t.variables {
		fields := pathTo(m.Descriptor.Input(), v.field)
		if fields == nil {
			return nil, notOutbound(m, fmt.Sprintf("the path has the variable %q, which is no field with one value", v.field))
		}
		o.vars = append(o.vars, pathField{v, fields})
		o.bound[v.field] = true
	}
	if o.body, err = bodyOf(m, *b); err != nil {
		return nil, notOutbound(m, err.Error())
	}
	o.answer = m.Descriptor.Output().Fields().ByName(protoreflect.Name(b.ResponseBody))
	if o.verb == "*" {
		o.verb = http.MethodGet
		if b.Body != "" {
			o.verb = http.MethodPost
		}
	}
	return o, nil
}

func notOutbound(m *schema.Method, why string) *wire.Status {
	return refusal(wire.Unimplemented, "the backend of %s speaks REST: %s", m.Path, why)
}

// pathTo are the fields on the way to a field with one value; nil when there is none.
func pathTo(m protoreflect.MessageDescriptor, path string) []protoreflect.FieldDescriptor {
	last := fieldAt(m, path)
	if last == nil || last.IsList() || last.IsMap() || last.Message() != nil && !isText(last.Message().FullName()) {
		return nil
	}
	fields := []protoreflect.FieldDescriptor{}
	for at := 0; at <= len(path); at++ {
		if at < len(path) && path[at] != '.' {
			continue
		}
		f := fieldAt(m, path[:at])
		if at < len(path) && (f.IsList() || f.IsMap()) {
			return nil
		}
		fields = append(fields, f)
	}
	return fields
}

// OutboundOpening is an RPC that is to become a request.
type OutboundOpening struct {
	Context  context.Context // its end is the RPC's
	Timeout  time.Duration   // of the RPC from now; 0 means none
	Backend  string          // key
	Host     string          // authority of the request
	Metadata http.Header     // of the RPC; what is none is left out
	Encoding string          // of compressed messages that come
	Limits   Limits
	// Send sends the request to an endpoint, with what the gateway has to add to its
	// header. An error that is no *wire.Status means that there was no answer.
	Send func(*http.Request) (*http.Response, error)
	// Gone says why Context has ended; nil means that the caller has gone.
	Gone func() *wire.Status
	// End is told once how the RPC has ended, nil for OK; it may be nil.
	End func(*wire.Status)
}

// Open makes a call. The request is sent when the call has its message and somebody
// waits for the answer.
func (o *Outbound) Open(opening OutboundOpening) Call {
	c := &outboundCall{out: o, opening: opening, ready: make(chan struct{})}
	if opening.Timeout > 0 {
		c.ctx, c.cancel = context.WithTimeout(opening.Context, opening.Timeout)
	} else {
		c.ctx, c.cancel = context.WithCancel(opening.Context)
	}
	return c
}

// typeResolver finds the types of google.protobuf.Any and of extensions.
type outboundResolver interface {
	protoregistry.MessageTypeResolver
	protoregistry.ExtensionTypeResolver
}

// resolver knows the types of the method's schema; without one, those of every
// installation.
func (o *Outbound) resolver() outboundResolver {
	if o.method.Schema != nil {
		return o.method.Schema
	}
	return protoregistry.GlobalTypes
}
