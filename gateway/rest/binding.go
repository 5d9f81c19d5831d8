package rest

import (
	"sluice/gateway/schema"
)

// Endpoint is one binding of a method, compiled. It does not change.
type Endpoint struct {
	Method  *schema.Method
	Binding *schema.Binding // nil for the path that every method has
}

// Decode appends the message that a request means: body, path and query put together.
// A body that is streamed is decoded message by message. An empty body is a message
// without fields. The error is a *wire.Status that names field or parameter.
func (e *Endpoint) Decode(dst []byte, m Match, rawQuery string, body []byte, contentType string, l Limits) ([]byte, error) {
	return FromJSON(dst, e.Method.Input, body, e.Method.Schema, l)
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
	body, err = ToJSON(dst, e.Method.Output, msg, e.Method.Schema)
	return body, "application/json", err
}

// Raw tells whether the request's body is taken as it is, a google.api.HttpBody,
// whatever its content type; else it is JSON.
func (e *Endpoint) Raw() bool { return false }

// RawAnswer tells whether the answer is a google.api.HttpBody.
func (e *Endpoint) RawAnswer() bool { return false }
