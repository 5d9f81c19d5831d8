package rest

import (
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// FromJSON appends the message of type m that a JSON document says. The error is a
// *wire.Status, INVALID_ARGUMENT: what, where in the document, why.
func FromJSON(dst []byte, m protoreflect.MessageType, json []byte, res *schema.Schema, l Limits) ([]byte, error) {
	msg := m.New().Interface()
	o := protojson.UnmarshalOptions{AllowPartial: true, DiscardUnknown: l.IgnoreUnknownFields, RecursionLimit: 100}
	if err := o.Unmarshal(json, msg); err != nil {
		return dst, &wire.Status{Code: wire.InvalidArgument, Message: "sluice: " + err.Error(), Gateway: true}
	}
	return proto.MarshalOptions{AllowPartial: true}.MarshalAppend(dst, msg)
}

// ToJSON appends a message of type m as JSON, fields with their default value left out.
// The error is a *wire.Status, INTERNAL: the message is not what its schema says.
func ToJSON(dst []byte, m protoreflect.MessageType, msg []byte, res *schema.Schema) ([]byte, error) {
	v := m.New().Interface()
	err := proto.UnmarshalOptions{AllowPartial: true, RecursionLimit: 100}.Unmarshal(msg, v)
	if err == nil {
		dst, err = protojson.MarshalOptions{AllowPartial: true}.MarshalAppend(dst, v)
	}
	if err != nil {
		return dst, &wire.Status{Code: wire.Internal, Message: "sluice: " + err.Error(), Gateway: true}
	}
	return dst, nil
}
