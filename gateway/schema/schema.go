// Package schema knows the methods of backends by their descriptors: where they come
// from (reflection, upload), and what is derived from them.
package schema

import "google.golang.org/protobuf/reflect/protoreflect"

// Method is one method of a schema. It does not change.
type Method struct {
	Path       string // "/shop.v1.Cart/Add"
	Descriptor protoreflect.MethodDescriptor
	// Input and Output make messages; dynamic ones, unless a faster kind is at hand.
	Input, Output                    protoreflect.MessageType
	ClientStreaming, ServerStreaming bool
	NoSideEffects                    bool // idempotency_level
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

// Schema is a set of descriptors that fit together. It does not change.
type Schema struct{}
