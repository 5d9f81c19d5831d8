package schema

import (
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Method is one method of a schema. It does not change.
type Method struct {
	Path       string // "/shop.v1.Cart/Add"
	Descriptor protoreflect.MethodDescriptor
	// Input and Output make messages; dynamic ones, unless the binary has a generated
	// type for the same descriptor.
	Input, Output                    protoreflect.MessageType
	ClientStreaming, ServerStreaming bool
	NoSideEffects                    bool // idempotency_level is NO_SIDE_EFFECTS
	Idempotent                       bool // it is that, or IDEMPOTENT: the method may be called twice
	// Bindings are its google.api.http rules with the additional ones, in order; empty
	// when it has no annotation.
	Bindings []Binding
	// Schema is what it is part of: it resolves the types of google.protobuf.Any.
	Schema *Schema
}

// Binding is one google.api.HttpRule, as it is written.
type Binding struct {
	Verb         string // GET, …, or of custom kinds what they say; "*" is every verb
	Template     string // "/v1/{name=shelves/*}:publish"
	Body         string // "", "*" or a field
	ResponseBody string // "" or a field
}

// addService adds what a service declares. A method whose messages cannot be made is left
// out.
func (s *Schema) addService(service protoreflect.ServiceDescriptor) {
	s.services = append(s.services, string(service.FullName()))
	for i := range service.Methods().Len() {
		d := service.Methods().Get(i)
		if missing := s.missing(d.Input(), d.Output()); missing != "" {
			s.faultf("method %q left out: its messages need %q, which no file of the set declares", d.FullName(), missing)
			continue
		}
		m := s.newMethod(d)
		s.byPath[m.Path] = m
		s.methods = append(s.methods, m)
	}
}

func (s *Schema) newMethod(d protoreflect.MethodDescriptor) *Method {
	m := &Method{
		Path:            "/" + string(d.Parent().FullName()) + "/" + string(d.Name()),
		Descriptor:      d,
		Input:           messageType(d.Input()),
		Output:          messageType(d.Output()),
		ClientStreaming: d.IsStreamingClient(),
		ServerStreaming: d.IsStreamingServer(),
		Schema:          s,
	}
	options, err := readMethodOptions(d)
	if err != nil {
		s.faultf("method %q: options ignored: %w", d.FullName(), err)
		return m
	}
	m.NoSideEffects, m.Idempotent = options.noSideEffects, options.idempotent
	m.Bindings = s.bindings(d, options.rule)
	return m
}
