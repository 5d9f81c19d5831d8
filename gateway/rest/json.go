package rest

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"sluice/gateway/schema"
)

// JSON is turned into messages on the wire, and back, without a message in memory in
// between: a dynamic one costs several times what the rest of a small RPC does. What is
// accepted and written is what protojson accepts and writes, but for this:
//
//   - Stricter: two "@type" in an Any, numbers such as "1e", and nesting of more than
//     100 objects and arrays are refused.
//   - Output has no random spaces and is the same for the same message, with the
//     entries of maps sorted.
//   - An Any of an unknown type in an answer is written as its bytes in base64, and a
//     google.protobuf.Value that says nothing is null; protojson gives up.
//   - Required fields are the backend's business.

// FromJSON appends the message of type m that a JSON document says. The error is a
// *wire.Status, INVALID_ARGUMENT: what, where in the document, why; or
// RESOURCE_EXHAUSTED when the message is larger than the limit.
func FromJSON(dst []byte, m protoreflect.MessageType, json []byte, res *schema.Schema, l Limits) ([]byte, error) {
	r := newJSONReader(dst, json, res, l)
	out, fault := r.document(dst, plansOf(res).of(m.Descriptor()))
	if fault != nil {
		return dst, fault.ofRequest(json)
	}
	return out, nil
}

// ToJSON appends a message of type m as JSON, fields with their default value left out.
// The error is a *wire.Status, INTERNAL: the message is not what its schema says.
func ToJSON(dst []byte, m protoreflect.MessageType, msg []byte, res *schema.Schema) ([]byte, error) {
	return appendJSON(dst, m.Descriptor(), msg, res, false)
}

// appendJSON is ToJSON with the choice to write the fields that are not set too.
func appendJSON(dst []byte, m protoreflect.MessageDescriptor, msg []byte, res *schema.Schema, unset bool) ([]byte, error) {
	w := newJSONWriter(res, unset)
	defer w.release()
	w.bound(dst, msg)
	out, fault := w.message(dst, plansOf(res).of(m), msg)
	if fault != nil {
		return dst, fault.ofAnswer(string(m.FullName()))
	}
	return out, nil
}

// resolverOf finds types in a schema, and without one among those that are linked into
// the binary.
func resolverOf(res *schema.Schema) typeResolver {
	if res == nil {
		return protoregistry.GlobalTypes
	}
	return res
}
