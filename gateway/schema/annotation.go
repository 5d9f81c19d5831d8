package schema

import (
	"fmt"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// maxOptions bounds the options of one method, in bytes, because a rule takes many times
// its encoded size once it is decoded. Real ones have a few hundred.
const maxOptions = 64 << 10

// maxBindings bounds the rules of one method.
const maxBindings = 100

// annotationTypes are the extensions that are read from methods' options.
var annotationTypes = func() *protoregistry.Types {
	types := new(protoregistry.Types)
	if err := types.RegisterExtension(annotations.E_Http); err != nil {
		panic(err) // a registry with one entry has nothing to conflict with
	}
	return types
}()

// methodOptions is what is read from a method's options.
type methodOptions struct {
	noSideEffects bool
	idempotent    bool
	rule          *annotations.HttpRule // nil when there is none
}

// readMethodOptions decodes the options anew, with the annotation's type: in a set that
// was decoded elsewhere the annotation may be an unknown field, or be of a dynamic type.
func readMethodOptions(d protoreflect.MethodDescriptor) (methodOptions, error) {
	options, ok := d.Options().(*descriptorpb.MethodOptions)
	if !ok || options == nil {
		return methodOptions{}, nil
	}
	level := options.GetIdempotencyLevel()
	read := methodOptions{
		noSideEffects: level == descriptorpb.MethodOptions_NO_SIDE_EFFECTS,
		idempotent:    level == descriptorpb.MethodOptions_NO_SIDE_EFFECTS || level == descriptorpb.MethodOptions_IDEMPOTENT,
	}
	if size := proto.Size(options); size > maxOptions {
		return read, fmt.Errorf("%d bytes of options, limit %d", size, maxOptions)
	}
	encoded, err := proto.MarshalOptions{AllowPartial: true}.Marshal(options)
	if err != nil {
		return read, err
	}
	decoded := new(descriptorpb.MethodOptions)
	err = proto.UnmarshalOptions{AllowPartial: true, Resolver: annotationTypes}.Unmarshal(encoded, decoded)
	if err != nil {
		return read, err
	}
	if proto.HasExtension(decoded, annotations.E_Http) {
		read.rule, _ = proto.GetExtension(decoded, annotations.E_Http).(*annotations.HttpRule)
	}
	return read, nil
}

// bindings are those of a rule and its additional ones, which nest no deeper.
func (s *Schema) bindings(d protoreflect.MethodDescriptor, rule *annotations.HttpRule) []Binding {
	if rule == nil {
		return nil
	}
	rules := append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...)
	if len(rules) > maxBindings {
		s.faultf("method %q: google.api.http rules beyond the first %d left out, of %d", d.FullName(), maxBindings, len(rules))
		rules = rules[:maxBindings]
	}
	var list []Binding
	for i, r := range rules {
		b, err := newBinding(r)
		if err != nil {
			s.faultf("method %q: google.api.http rule %d left out: %w", d.FullName(), i+1, err)
			continue
		}
		if i > 0 && len(r.GetAdditionalBindings()) > 0 {
			s.faultf("method %q: google.api.http rule %d: its own additional_bindings left out: they nest one level deep", d.FullName(), i+1)
		}
		list = append(list, b)
	}
	return list
}

func newBinding(r *annotations.HttpRule) (Binding, error) {
	b := Binding{Body: r.GetBody(), ResponseBody: r.GetResponseBody()}
	switch p := r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		b.Verb, b.Template = "GET", p.Get
	case *annotations.HttpRule_Put:
		b.Verb, b.Template = "PUT", p.Put
	case *annotations.HttpRule_Post:
		b.Verb, b.Template = "POST", p.Post
	case *annotations.HttpRule_Delete:
		b.Verb, b.Template = "DELETE", p.Delete
	case *annotations.HttpRule_Patch:
		b.Verb, b.Template = "PATCH", p.Patch
	case *annotations.HttpRule_Custom:
		b.Verb, b.Template = p.Custom.GetKind(), p.Custom.GetPath()
	default:
		return Binding{}, fmt.Errorf("it has no path")
	}
	if b.Verb == "" {
		return Binding{}, fmt.Errorf("its custom pattern has no kind")
	}
	return b, nil
}
