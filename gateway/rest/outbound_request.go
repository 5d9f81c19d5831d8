package rest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"sluice/gateway/wire"
)

// maxOutboundDepth bounds messages within messages, as JSON's is bounded.
const maxOutboundDepth = 100

// request writes a message as a request. The error is a *wire.Status: INVALID_ARGUMENT
// where the message has no form in REST, which only the caller can change.
func (o *Outbound) request(data []byte, host string, header http.Header) (*http.Request, *wire.Status) {
	msg := o.method.Input.New()
	options := proto.UnmarshalOptions{RecursionLimit: maxOutboundDepth, AllowPartial: true, Resolver: o.resolver()}
	err := unmarshalDynamic(options, data, msg.Interface())
	if err != nil {
		return nil, refusal(wire.Internal, "the message is no %s: %s", o.method.Descriptor.Input().FullName(), libraryText(err))
	}
	path, err := o.expand(msg)
	if err != nil {
		return nil, refusal(wire.InvalidArgument, "%s as a REST request: %v", o.method.Path, err)
	}
	query, err := o.query(msg)
	if err != nil {
		return nil, refusal(wire.InvalidArgument, "%s as a REST request: %v", o.method.Path, err)
	}
	if n := len(path) + len(query); n > maxTarget {
		return nil, refusal(wire.InvalidArgument, "%s as a REST request: its path and query have %d bytes, limit %d", o.method.Path, n, maxTarget)
	}
	target, err := url.Parse(path)
	if err != nil {
		return nil, refusal(wire.Internal, "%s as a REST request: %v", o.method.Path, err)
	}
	target.RawPath, target.RawQuery = path, query
	r := &http.Request{
		Method: o.verb, URL: target, Host: host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	header.Set("Accept", "application/json")
	if isHTTPBody(o.answerType()) {
		header.Set("Accept", "*/*")
	}
	header.Set("Accept-Encoding", "identity")
	body, contentType, st := o.requestBody(msg)
	if st != nil || contentType == "" {
		return r, st
	}
	header.Set("Content-Type", contentType)
	setBody(r, body)
	return r, nil
}

// setBody gives a request a body that can be sent again.
func setBody(r *http.Request, body []byte) {
	r.ContentLength = int64(len(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
}

// requestBody is what of a message belongs into the body; without a content type there
// is none.
func (o *Outbound) requestBody(msg protoreflect.Message) (body []byte, contentType string, _ *wire.Status) {
	switch {
	case o.rest:
		for i := range o.vars {
			clearField(msg, o.vars[i].fields)
		}
		if isHTTPBody(msg.Descriptor()) {
			return rawBody(msg)
		}
		body, st := o.json(msg, nil)
		return body, mediaJSON, st
	case o.body == nil:
		return nil, "", nil
	case isHTTPBody(o.body.Message()) && !o.body.IsList():
		return rawBody(msg.Get(o.body).Message())
	}
	body, st := o.json(msg, o.body)
	return body, mediaJSON, st
}

// rawBody is what a google.api.HttpBody has.
func rawBody(m protoreflect.Message) (body []byte, contentType string, _ *wire.Status) {
	fields := m.Descriptor().Fields()
	contentType = m.Get(fields.ByNumber(1)).String()
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	return m.Get(fields.ByNumber(2)).Bytes(), contentType, nil
}

// json writes a message, or one field of it.
func (o *Outbound) json(msg protoreflect.Message, field protoreflect.FieldDescriptor) ([]byte, *wire.Status) {
	if field != nil {
		one := msg.New()
		if msg.Has(field) {
			one.Set(field, msg.Get(field))
		} else if field.Message() != nil && !field.IsList() && !field.IsMap() {
			one.Set(field, one.NewField(field))
		}
		msg = one
	}
	data, err := proto.MarshalOptions{AllowPartial: true}.Marshal(msg.Interface())
	if err != nil {
		return nil, refusal(wire.Internal, "%s as a REST request: %s", o.method.Path, libraryText(err))
	}
	text, err := ToJSON(nil, o.method.Input, data, o.method.Schema)
	if err != nil {
		return nil, refusal(wire.InvalidArgument, "%s as a REST request: %s", o.method.Path, plainMessage(err))
	}
	if field == nil {
		return text, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, refusal(wire.Internal, "%s as a REST request: %v", o.method.Path, err)
	}
	if value, ok := members[field.JSONName()]; ok {
		return value, nil
	}
	return unsetJSON(field), nil
}

// unsetJSON is a field that has its default value, which JSON leaves out.
func unsetJSON(f protoreflect.FieldDescriptor) []byte {
	switch {
	case f.IsList():
		return []byte("[]")
	case f.IsMap():
		return []byte("{}")
	}
	switch f.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind:
		return []byte(`""`)
	case protoreflect.BoolKind:
		return []byte("false")
	case protoreflect.EnumKind:
		return appendQuoted(nil, string(f.DefaultEnumValue().Name()))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return []byte(`"0"`)
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return []byte("null") // of a wrapper
	}
	return []byte("0")
}

// plainMessage is the text of a status without the gateway's name, for a sentence that
// has it.
func plainMessage(err error) string {
	return string(bytes.TrimPrefix([]byte(statusFrom(err).Message), []byte("sluice: ")))
}
