package rest

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The well-known types that have a JSON form of their own, as they are read. Their
// fields have the numbers that google/protobuf/*.proto give them, whatever a backend's
// schema makes of these names.

// typeResolver finds types by name: those of extensions and of google.protobuf.Any.
type typeResolver interface {
	FindMessageByURL(url string) (protoreflect.MessageType, error)
	FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error)
	FindExtensionByNumber(message protoreflect.FullName, number protoreflect.FieldNumber) (protoreflect.ExtensionType, error)
}

// The bounds of google.protobuf.Timestamp (years 1 to 9999) and Duration (10,000 years).
const (
	minTimestamp = -62135596800
	maxTimestamp = 253402300799
	maxDuration  = 315576000000
)

// text reads a string, and where it stands.
func (r *jsonReader) text(want string) (s string, at int, fault *codecFault) {
	if r.next() != '"' {
		return "", r.pos, r.unexpected(want)
	}
	at = r.pos
	text, fault := r.string()
	return string(text), at, fault
}

func (r *jsonReader) timestamp(dst []byte) ([]byte, *codecFault) {
	s, at, fault := r.text("a time such as \"2006-01-02T15:04:05Z\"")
	if fault != nil {
		return dst, fault
	}
	t, ok := parseTimestamp(s)
	if !ok {
		return dst, r.fault(at, "%q is no time such as \"2006-01-02T15:04:05.999Z\", of the years 1 to 9999", clip(s))
	}
	return appendTwo(dst, t.Unix(), int32(t.Nanosecond())), nil
}

// parseTimestamp reads RFC 3339 with at most nine digits behind the point.
func parseTimestamp(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Unix() < minTimestamp || t.Unix() > maxTimestamp {
		return t, false
	}
	point, zone := strings.LastIndexByte(s, '.'), strings.LastIndexAny(s, "Z-+")
	return t, point < 0 || zone < point || zone-point <= len(".999999999")
}

func (r *jsonReader) duration(dst []byte) ([]byte, *codecFault) {
	s, at, fault := r.text("a duration such as \"1.5s\"")
	if fault != nil {
		return dst, fault
	}
	seconds, nanos, ok := parseDuration(s)
	if !ok {
		return dst, r.fault(at, "%q is no duration such as \"1.5s\", of at most %d seconds", clip(s), int64(maxDuration))
	}
	return appendTwo(dst, seconds, nanos), nil
}

// parseDuration reads decimal seconds that end in "s": "1s", "-0.5s", ".5s".
func parseDuration(s string) (seconds int64, nanos int32, ok bool) {
	s, ok = strings.CutSuffix(s, "s")
	if !ok || s == "" {
		return 0, 0, false
	}
	sign := int64(1)
	switch s[0] {
	case '-':
		sign, s = -1, s[1:]
	case '+':
		s = s[1:]
	}
	whole, fraction, pointed := strings.Cut(s, ".")
	if len(fraction) > 9 || whole == "" && !pointed || len(whole) > 1 && whole[0] == '0' {
		return 0, 0, false
	}
	n, ok := decimal(whole)
	if !ok || n > maxDuration {
		return 0, 0, false
	}
	f, ok := decimal(fraction + "000000000"[len(fraction):])
	return sign * int64(n), int32(sign) * int32(f), ok
}

// decimal reads digits and nothing else; no digits are 0.
func decimal(s string) (uint64, bool) {
	if s == "" {
		return 0, true
	}
	if s[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// appendTwo appends the fields 1 and 2 of a Timestamp or a Duration.
func appendTwo(dst []byte, seconds int64, nanos int32) []byte {
	if seconds != 0 {
		dst = protowire.AppendVarint(append(dst, 1<<3), uint64(seconds))
	}
	if nanos != 0 {
		dst = protowire.AppendVarint(append(dst, 2<<3), uint64(nanos))
	}
	return dst
}

func (r *jsonReader) fieldMask(dst []byte) ([]byte, *codecFault) {
	s, at, fault := r.text("names of fields with commas between them")
	if fault != nil {
		return dst, fault
	}
	s = strings.TrimSpace(s)
	if s == "" {
		return dst, nil
	}
	for path := range strings.SplitSeq(s, ",") {
		snake := snakeCase(path)
		if strings.Contains(path, "_") || !protoreflect.FullName(snake).IsValid() {
			return dst, r.fault(at, "%q is no path of a field in lowerCamelCase", clip(path))
		}
		dst = protowire.AppendString(append(dst, 1<<3|byte(protowire.BytesType)), snake)
	}
	return dst, nil
}

// snakeCase is the name of a field that has this JSON name, if it is written as usual.
func snakeCase(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			b.WriteByte('_')
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// The fields of google.protobuf.Value.
const (
	valueNull   = 1<<3 | byte(protowire.VarintType)
	valueNumber = 2<<3 | byte(protowire.Fixed64Type)
	valueString = 3<<3 | byte(protowire.BytesType)
	valueBool   = 4<<3 | byte(protowire.VarintType)
	valueStruct = 5<<3 | byte(protowire.BytesType)
	valueList   = 6<<3 | byte(protowire.BytesType)
)

// doubleField is what the number of a Value is read as.
var doubleField = &fieldPlan{kind: protoreflect.DoubleKind}

func (r *jsonReader) value(dst []byte) (_ []byte, fault *codecFault) {
	if len(dst) > r.limit {
		return dst, r.tooLarge()
	}
	switch r.next() {
	case '{':
		dst, start := openLength(append(dst, valueStruct))
		dst, fault = r.structure(dst)
		return closeLength(dst, start), fault
	case '[':
		dst, start := openLength(append(dst, valueList))
		dst, fault = r.values(dst)
		return closeLength(dst, start), fault
	case '"':
		s, fault := r.string()
		return protowire.AppendBytes(append(dst, valueString), s), fault
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return r.float(append(dst, valueNumber), doubleField)
	}
	switch {
	case r.literal("null"):
		return append(dst, valueNull, 0), nil
	case r.literal("true"):
		return append(dst, valueBool, 1), nil
	case r.literal("false"):
		return append(dst, valueBool, 0), nil
	}
	return dst, r.unexpected("a value")
}

// structure reads a google.protobuf.Struct: a map from strings to values.
func (r *jsonReader) structure(dst []byte) ([]byte, *codecFault) {
	if fault := r.open('{', "an object"); fault != nil {
		return dst, fault
	}
	var keys keySet
	for first := true; ; first = false {
		more, fault := r.more('}', first)
		if !more || fault != nil {
			return dst, fault
		}
		r.next()
		at := r.pos
		text, fault := r.member()
		if fault != nil {
			return dst, fault
		}
		name := string(text)
		if !keys.add(name) {
			return dst, r.fault(at, "given twice").inEntry(name)
		}
		var entry, value int
		dst, entry = openLength(append(dst, 1<<3|byte(protowire.BytesType)))
		dst = protowire.AppendString(append(dst, 1<<3|byte(protowire.BytesType)), name)
		dst, value = openLength(append(dst, 2<<3|byte(protowire.BytesType)))
		if dst, fault = r.value(dst); fault != nil {
			return dst, fault.inEntry(name)
		}
		dst = closeLength(closeLength(dst, value), entry)
	}
}

// values reads a google.protobuf.ListValue.
func (r *jsonReader) values(dst []byte) ([]byte, *codecFault) {
	if fault := r.open('[', "an array"); fault != nil {
		return dst, fault
	}
	for i := 0; ; i++ {
		more, fault := r.more(']', i == 0)
		if !more || fault != nil {
			return dst, fault
		}
		var start int
		dst, start = openLength(append(dst, 1<<3|byte(protowire.BytesType)))
		if dst, fault = r.value(dst); fault != nil {
			return dst, fault.inElement(i)
		}
		dst = closeLength(dst, start)
	}
}

// any reads a google.protobuf.Any: an object with the name of its type in "@type". What
// the rest is depends on it, wherever it stands.
func (r *jsonReader) any(dst []byte) ([]byte, *codecFault) {
	if r.next() != '{' {
		return dst, r.unexpected("an object")
	}
	start := r.pos
	url, at, members, fault := r.typeAhead()
	if fault != nil {
		return dst, fault
	}
	if url == "" {
		if members == 0 || r.ignoreUnknown {
			return dst, r.skip()
		}
		return dst, r.fault(start, "%q is missing, the type of the google.protobuf.Any", "@type")
	}
	t, err := r.types.FindMessageByURL(url)
	if err != nil {
		return dst, r.fault(at, "the type %q is not known", clip(url)).inField("@type")
	}
	p := plansOf(r.schema).of(t.Descriptor())
	dst = protowire.AppendString(append(dst, 1<<3|byte(protowire.BytesType)), url)
	before := len(dst)
	dst, value := openLength(append(dst, 2<<3|byte(protowire.BytesType)))
	if p.form == formObject {
		dst, fault = r.object(dst, p, true)
	} else {
		dst, fault = r.anyValue(dst, p)
	}
	if len(dst) == value {
		return dst[:before], fault
	}
	return closeLength(dst, value), fault
}

// typeAhead finds "@type" in the object that is next, and reads nothing. When it stands
// first, as it should, the rest is not looked at.
func (r *jsonReader) typeAhead() (url string, at, members int, fault *codecFault) {
	ahead := r.jsonText
	ahead.scratch = nil
	if fault := ahead.open('{', "an object"); fault != nil {
		return "", 0, 0, fault
	}
	for ; ; members++ {
		more, fault := ahead.more('}', members == 0)
		if !more || fault != nil {
			return "", 0, members, fault
		}
		name, fault := ahead.member()
		if fault == nil && string(name) == "@type" {
			ahead.next()
			at = ahead.pos
			url, fault = ahead.typeURL()
			r.ahead -= ahead.pos - r.pos
			return url, at, members, fault
		}
		if fault == nil {
			fault = ahead.skip()
		}
		if fault == nil && ahead.pos-r.pos > r.ahead {
			fault = r.fault(r.pos, "too many google.protobuf.Any lie in each other")
		}
		if fault != nil {
			return "", 0, 0, fault
		}
	}
}

func (t *jsonText) typeURL() (string, *codecFault) {
	if t.next() != '"' {
		return "", t.unexpected("the name of a type").inField("@type")
	}
	at := t.pos
	s, fault := t.string()
	if fault == nil && len(s) == 0 {
		fault = t.fault(at, "empty").inField("@type")
	}
	return string(s), fault
}

// anyValue reads an Any of a type that has a JSON form of its own: it stands in "value".
// Empty has nothing to say, and may leave it out.
func (r *jsonReader) anyValue(dst []byte, p *messagePlan) ([]byte, *codecFault) {
	if fault := r.open('{', "an object"); fault != nil {
		return dst, fault
	}
	found, typed := false, false
	for first := true; ; first = false {
		more, fault := r.more('}', first)
		if fault != nil {
			return dst, fault
		}
		if !more {
			if !found && p.form != formEmpty {
				return dst, r.fault(r.pos-1, "missing").inField("value")
			}
			return dst, nil
		}
		r.next()
		at := r.pos
		text, fault := r.member()
		if fault != nil {
			return dst, fault
		}
		switch name := string(text); {
		case name == "value" && found:
			fault = r.fault(at, "given twice").inField(name)
		case name == "value":
			found = true
			if dst, fault = r.message(dst, p); fault != nil {
				fault.inField(name)
			}
		case name == "@type" && typed:
			fault = r.fault(at, "given twice").inField(name)
		case name == "@type" || r.ignoreUnknown:
			typed = typed || name == "@type"
			fault = r.skip()
		default:
			fault = r.fault(at, "a google.protobuf.Any of %s has no such field", p.desc.FullName()).inField(clip(name))
		}
		if fault != nil {
			return dst, fault
		}
	}
}
