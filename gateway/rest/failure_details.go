package rest

import (
	"bytes"
	"encoding/base64"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// maxDetails bounds how many details of one status are told: each of a few bytes becomes
// a line of text.
const maxDetails = 100

// detailsField is the number of google.rpc.Status.details.
const detailsField = 3

// detail is one google.protobuf.Any of a google.rpc.Status.
type detail struct {
	typeURL string
	value   []byte
}

// detailsOf reads the details of a status, up to what is malformed: the error itself
// reaches the caller in any case.
func detailsOf(st *wire.Status) (details []detail) {
	for rest := st.Details; len(rest) > 0 && len(details) < maxDetails; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return details
		}
		size := protowire.ConsumeFieldValue(number, kind, rest[n:])
		if size < 0 {
			return details
		}
		if number == detailsField && kind == protowire.BytesType {
			packed, _ := protowire.ConsumeBytes(rest[n:])
			var packing anypb.Any
			if proto.Unmarshal(packed, &packing) == nil {
				details = append(details, detail{packing.GetTypeUrl(), packing.GetValue()})
			}
		}
		rest = rest[n+size:]
	}
	return details
}

// append appends a detail as JSON with its "@type". A type that nobody knows, or a value
// that is not of its type, is given as base64.
func (d detail) append(dst []byte, types *schema.Schema) []byte {
	if typed, ok := d.appendTyped(dst, types); ok {
		return typed
	}
	dst = append(dst, `{"@type":`...)
	dst = appendString(dst, d.typeURL)
	dst = append(dst, `,"value":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, d.value)
	return append(dst, `"}`...)
}

func (d detail) appendTyped(dst []byte, types *schema.Schema) (_ []byte, ok bool) {
	find := protoregistry.GlobalTypes.FindMessageByURL
	if types != nil {
		find = types.FindMessageByURL
	}
	m, err := find(d.typeURL)
	if err != nil {
		return nil, false
	}
	value, err := ToJSON(nil, m, d.value, types)
	if err != nil {
		return nil, false
	}
	dst = append(dst, `{"@type":`...)
	dst = appendString(dst, d.typeURL)
	if !isPlainObject(m.Descriptor().FullName()) {
		dst = append(dst, `,"value":`...)
		dst = append(dst, value...)
		return append(dst, '}'), true
	}
	if members := bytes.TrimPrefix(value, []byte("{")); len(members) > 1 {
		dst = append(dst, ',')
		dst = append(dst, members...)
		return dst, true
	}
	return append(dst, '}'), true
}

// isPlainObject tells whether messages of that type are objects of their fields in JSON.
// The well-known types have forms of their own, which stand under "value" in an Any.
func isPlainObject(name protoreflect.FullName) bool {
	short, ok := strings.CutPrefix(string(name), "google.protobuf.")
	if !ok {
		return true
	}
	switch short {
	case "Any", "Timestamp", "Duration", "Empty", "Struct", "Value", "ListValue", "FieldMask",
		"BoolValue", "StringValue", "BytesValue", "Int32Value", "Int64Value",
		"UInt32Value", "UInt64Value", "FloatValue", "DoubleValue":
		return false
	}
	return true
}

// retryAfter is the delay that a google.rpc.RetryInfo among the details asks for, in
// whole seconds, rounded up.
func retryAfter(details []detail) (seconds int64, ok bool) {
	for _, d := range details {
		var info errdetails.RetryInfo
		if !strings.HasSuffix(d.typeURL, "/google.rpc.RetryInfo") || proto.Unmarshal(d.value, &info) != nil {
			continue
		}
		return wholeSeconds(info.GetRetryDelay())
	}
	return 0, false
}

func wholeSeconds(d *durationpb.Duration) (seconds int64, ok bool) {
	if d.CheckValid() != nil || d.GetSeconds() < 0 || d.GetNanos() < 0 {
		return 0, false
	}
	if d.GetNanos() > 0 {
		return d.GetSeconds() + 1, true
	}
	return d.GetSeconds(), true
}
