package rest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxTarget bounds the path and the query that a message becomes, in bytes: what
// servers take of a request line is between 8 and 64 KiB.
const maxTarget = 32 << 10

// fieldText is the field at the end of a way as it stands in a path or a query.
func fieldText(msg protoreflect.Message, fields []protoreflect.FieldDescriptor) (string, error) {
	for _, f := range fields[:len(fields)-1] {
		msg = msg.Get(f).Message()
	}
	last := fields[len(fields)-1]
	return valueText(last, msg.Get(last))
}

// clearField takes the field at the end of a way out of a message.
func clearField(msg protoreflect.Message, fields []protoreflect.FieldDescriptor) {
	for _, f := range fields[:len(fields)-1] {
		if !msg.Has(f) {
			return
		}
		msg = msg.Mutable(f).Message()
	}
	msg.Clear(fields[len(fields)-1])
}

// valueText is one value of a field in the form that Endpoint reads from a path or a
// query.
func valueText(f protoreflect.FieldDescriptor, v protoreflect.Value) (string, error) {
	switch f.Kind() {
	case protoreflect.StringKind:
		return v.String(), nil
	case protoreflect.BytesKind:
		return base64.URLEncoding.EncodeToString(v.Bytes()), nil
	case protoreflect.EnumKind:
		if value := f.Enum().Values().ByNumber(v.Enum()); value != nil {
			return string(value.Name()), nil
		}
		return strconv.Itoa(int(v.Enum())), nil
	case protoreflect.FloatKind:
		return floatText(v.Float(), 32), nil
	case protoreflect.DoubleKind:
		return floatText(v.Float(), 64), nil
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return messageText(v.Message())
	}
	return v.String(), nil
}

func floatText(n float64, bits int) string {
	switch {
	case math.IsInf(n, 1):
		return "Infinity"
	case math.IsInf(n, -1):
		return "-Infinity"
	}
	return strconv.FormatFloat(n, 'g', -1, bits)
}

// messageText is a well-known message that JSON has as one value.
func messageText(m protoreflect.Message) (string, error) {
	if name := m.Descriptor().FullName(); strings.HasSuffix(string(name), "Value") {
		f := m.Descriptor().Fields().ByNumber(1)
		return valueText(f, m.Get(f))
	}
	data, err := protojson.Marshal(m.Interface())
	if err != nil {
		return "", fmt.Errorf("is no %s: %s", m.Descriptor().FullName(), libraryText(err))
	}
	var text string
	err = json.Unmarshal(data, &text)
	return text, err
}

// libraryText is an error of the protobuf library, which varies its spaces, as a part
// of a sentence.
func libraryText(err error) string {
	return strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
}

// outboundQuery writes the fields that neither path nor body has.
type outboundQuery struct {
	*Outbound
	text strings.Builder
}

// query is what of msg belongs into the query, without the question mark.
func (o *Outbound) query(msg protoreflect.Message) (string, error) {
	if o.rest {
		return "", nil
	}
	q := &outboundQuery{Outbound: o}
	err := q.add(msg, "", "")
	return q.text.String(), err
}

// add adds the fields of a message: path and shown lead to it, in names of fields and
// of JSON.
func (q *outboundQuery) add(msg protoreflect.Message, path, shown string) error {
	fields := msg.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !msg.Has(f) || path == "" && f == q.body || q.bound[path+string(f.Name())] {
			continue
		}
		if err := q.field(f, msg.Get(f), path+string(f.Name()), shown+f.JSONName()); err != nil {
			return err
		}
		if q.text.Len() > maxTarget {
			return fmt.Errorf("field %q: the query has more than %d bytes, the limit", path+string(f.Name()), maxTarget)
		}
	}
	return nil
}

func (q *outboundQuery) field(f protoreflect.FieldDescriptor, v protoreflect.Value, path, shown string) error {
	single := f.Message() == nil || isText(f.Message().FullName())
	switch {
	case f.IsMap():
		return fmt.Errorf("field %q: a map cannot be said by a query", path)
	case f.IsList() && f.Message() != nil:
		return fmt.Errorf("field %q: a list of messages cannot be said by a query", path)
	case f.IsList():
		for i := range v.List().Len() {
			if err := q.value(f, v.List().Get(i), path, shown); err != nil {
				return err
			}
		}
		return nil
	case single:
		return q.value(f, v, path, shown)
	case wellKnown[f.Message().FullName()] != nil || f.Message().FullName() == anyName:
		return fmt.Errorf("field %q: a %s cannot be said by a query", path, f.Message().FullName())
	}
	return q.add(v.Message(), path+".", shown+".")
}

func (q *outboundQuery) value(f protoreflect.FieldDescriptor, v protoreflect.Value, path, shown string) error {
	text, err := valueText(f, v)
	if err != nil {
		return fmt.Errorf("field %q %w", path, err)
	}
	if q.text.Len() > 0 {
		q.text.WriteByte('&')
	}
	q.text.WriteString(url.QueryEscape(shown))
	q.text.WriteByte('=')
	q.text.WriteString(url.QueryEscape(text))
	return nil
}
