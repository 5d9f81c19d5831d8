package rest

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The well-known types that have a JSON form of their own, as they are written.

func (w *jsonWriter) known(dst []byte, p *messagePlan, msg []byte) ([]byte, *codecFault) {
	switch p.form {
	case formAny:
		return w.any(dst, msg)
	case formTimestamp:
		return w.timestamp(dst, msg)
	case formDuration:
		return w.duration(dst, msg)
	case formFieldMask:
		return w.fieldMask(dst, msg)
	case formMessageSet:
		return dst, answerFault("a message set has no JSON form")
	}
	base, runs := len(w.places), len(w.runs)
	if fault := w.index(p, msg); fault != nil {
		return dst, fault
	}
	dst, fault := w.only(dst, p, base, msg)
	if fault == nil {
		w.places, w.runs = w.places[:base], w.runs[:runs]
	}
	return dst, fault
}

// only writes the one field of a message that stands for the whole.
func (w *jsonWriter) only(dst []byte, p *messagePlan, base int, msg []byte) ([]byte, *codecFault) {
	f := p.fields[0]
	for _, other := range p.fields { // Value has several
		if w.places[base+other.index].first != 0 {
			f = other
		}
	}
	at := w.places[base+f.index]
	switch {
	case at.first != 0:
	case p.form == formValue:
		// A Value that says nothing is not allowed. It is no reason to withhold the answer.
		return append(dst, "null"...), nil
	case f.mapped || f.list:
		return append(dst, f.unset...), nil
	default:
		return append(dst, f.zeroJSON()...), nil
	}
	before := len(dst)
	dst, set, fault := w.value(dst, f, at, msg)
	if fault == nil && p.form == formValue && f.kind == protoreflect.DoubleKind && dst[before] == '"' {
		return dst, answerFault("a google.protobuf.Value cannot be NaN or infinite")
	}
	if fault == nil && !set && !f.list {
		dst = append(dst[:before], f.zeroJSON()...)
	}
	return dst, fault
}

// two are the fields 1 and 2 of a Timestamp or a Duration.
func two(msg []byte) (seconds int64, nanos int32, fault *codecFault) {
	for len(msg) > 0 {
		number, wire, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return 0, 0, answerFault(malformed)
		}
		size := protowire.ConsumeFieldValue(number, wire, msg[n:])
		if size < 0 {
			return 0, 0, answerFault(malformed)
		}
		if wire == protowire.VarintType {
			v, _ := protowire.ConsumeVarint(msg[n:])
			switch number {
			case 1:
				seconds = int64(v)
			case 2:
				nanos = int32(v)
			}
		}
		msg = msg[n+size:]
	}
	return seconds, nanos, nil
}

func (w *jsonWriter) timestamp(dst, msg []byte) ([]byte, *codecFault) {
	seconds, nanos, fault := two(msg)
	if fault != nil {
		return dst, fault
	}
	if seconds < minTimestamp || seconds > maxTimestamp || nanos < 0 || nanos > 999999999 {
		return dst, answerFault(fmt.Sprintf("a google.protobuf.Timestamp of %d seconds and %d nanoseconds is out of range", seconds, nanos))
	}
	dst = append(dst, '"')
	dst = time.Unix(seconds, 0).UTC().AppendFormat(dst, "2006-01-02T15:04:05")
	dst = appendNanos(dst, nanos)
	return append(dst, 'Z', '"'), nil
}

func (w *jsonWriter) duration(dst, msg []byte) ([]byte, *codecFault) {
	seconds, nanos, fault := two(msg)
	if fault != nil {
		return dst, fault
	}
	if seconds < -maxDuration || seconds > maxDuration || nanos < -999999999 || nanos > 999999999 ||
		seconds > 0 && nanos < 0 || seconds < 0 && nanos > 0 {
		return dst, answerFault(fmt.Sprintf("a google.protobuf.Duration of %d seconds and %d nanoseconds is out of range", seconds, nanos))
	}
	dst = append(dst, '"')
	if seconds < 0 || nanos < 0 {
		dst, seconds, nanos = append(dst, '-'), -seconds, -nanos
	}
	dst = fmt.Appendf(dst, "%d", seconds)
	dst = appendNanos(dst, nanos)
	return append(dst, 's', '"'), nil
}

// appendNanos appends a fraction of a second in 3, 6 or 9 digits; 0 is none.
func appendNanos(dst []byte, nanos int32) []byte {
	switch {
	case nanos == 0:
		return dst
	case nanos%1e6 == 0:
		return fmt.Appendf(dst, ".%03d", nanos/1e6)
	case nanos%1e3 == 0:
		return fmt.Appendf(dst, ".%06d", nanos/1e3)
	default:
		return fmt.Appendf(dst, ".%09d", nanos)
	}
}

func (w *jsonWriter) fieldMask(dst, msg []byte) ([]byte, *codecFault) {
	dst = append(dst, '"')
	open := len(dst)
	for len(msg) > 0 {
		number, wire, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return dst, answerFault(malformed)
		}
		size := protowire.ConsumeFieldValue(number, wire, msg[n:])
		if size < 0 {
			return dst, answerFault(malformed)
		}
		if number == 1 && wire == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(msg[n:])
			path := string(value)
			camel := camelCase(path)
			// One that would be another path when it is read again cannot be written.
			if !protoreflect.FullName(path).IsValid() || snakeCase(camel) != path {
				return dst, answerFault(fmt.Sprintf("the path %q of a google.protobuf.FieldMask has no JSON form", clip(path)))
			}
			if len(dst) > open {
				dst = append(dst, ',')
			}
			dst = append(dst, camel...)
		}
		msg = msg[n+size:]
	}
	return append(dst, '"'), nil
}

// camelCase is the JSON name of a field.
func camelCase(s string) string {
	var b strings.Builder
	upper := false
	for i := range len(s) {
		c := s[i]
		if c != '_' {
			if upper && c >= 'a' && c <= 'z' {
				c -= 'a' - 'A'
			}
			b.WriteByte(c)
		}
		upper = c == '_'
	}
	return b.String()
}

// any writes a google.protobuf.Any as the message that it holds. One of a type that
// nobody knows here is written as its bytes, which its reader may know.
func (w *jsonWriter) any(dst, msg []byte) ([]byte, *codecFault) {
	url, value, fault := anyParts(msg)
	if fault != nil {
		return dst, fault
	}
	if url == "" && len(value) == 0 {
		return append(dst, "{}"...), nil
	}
	t, err := w.types.FindMessageByURL(url)
	if url == "" || err != nil {
		dst, ok := appendJSONString(append(dst, `{"@type":`...), []byte(url))
		if !ok {
			return dst, answerFault("the name of a type that is not UTF-8")
		}
		dst = appendBase64JSON(append(dst, `,"value":`...), value)
		return append(dst, '}'), nil
	}
	p := plansOf(w.schema).of(t.Descriptor())
	if p.form == formObject || p.form == formEmpty {
		return w.object(dst, p, value, url)
	}
	if fault := w.enter(); fault != nil {
		return dst, fault
	}
	dst, _ = appendJSONString(append(dst, `{"@type":`...), []byte(url)) // it was found by its name
	dst = append(dst, `,"value":`...)
	if dst, fault = w.message(dst, p, value); fault != nil {
		return dst, fault
	}
	w.depth--
	return append(dst, '}'), nil
}

// anyParts are the fields of an Any.
func anyParts(msg []byte) (url string, value []byte, fault *codecFault) {
	for len(msg) > 0 {
		number, wire, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return "", nil, answerFault(malformed)
		}
		size := protowire.ConsumeFieldValue(number, wire, msg[n:])
		if size < 0 {
			return "", nil, answerFault(malformed)
		}
		if wire == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(msg[n:])
			switch number {
			case 1:
				url = string(content)
			case 2:
				value = content
			}
		}
		msg = msg[n+size:]
	}
	return url, value, nil
}
