package rest

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// The most that a query may have. The text is bounded by the header that it came in;
// this bounds what it costs.
const (
	maxQueryBytes = 64 << 10
	maxParameters = 1000
	maxFieldDepth = 32 // of "a.b.c"
)

// queryReader reads one.
type queryReader struct {
	endpoint *Endpoint
	given    keySet            // parameters that can be given once, by the names of their fields
	chosen   map[string]string // by oneof, with the message that it lies in: the field
	masked   bool              // the endpoint's mask is among them
}

// decodeQuery appends the fields that a query says. masked tells that the mask of a
// PATCH is among them.
func (e *Endpoint) decodeQuery(dst []byte, raw string, l Limits) (_ []byte, masked bool, st *wire.Status) {
	if len(raw) > maxQueryBytes {
		st := refuse(violation{what: fmt.Sprintf("the query has %d bytes, limit %d", len(raw), maxQueryBytes)})
		st.HTTP = 414
		return dst, false, st
	}
	if n := 1 + strings.Count(raw, "&"); n > maxParameters {
		return dst, false, refuse(violation{what: fmt.Sprintf("the query has %d parameters, limit %d", n, maxParameters)})
	}
	q := queryReader{endpoint: e}
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		if dst, st = q.parameter(dst, part, l); st != nil {
			return dst, false, st
		}
	}
	return dst, q.masked, nil
}

// parameter appends what "name=value" says.
func (q *queryReader) parameter(dst []byte, part string, l Limits) ([]byte, *wire.Status) {
	rawName, rawValue, _ := strings.Cut(part, "=")
	name, fault := unescapeQuery(rawName)
	if fault != "" {
		return dst, refuse(violation{what: fmt.Sprintf("the query has a parameter %q: %s", clip(rawName), fault)})
	}
	value, fault := unescapeQuery(rawValue)
	if fault != "" {
		return dst, refuseParameter(name, fault)
	}
	chain, path, fault := q.find(name)
	if fault != "" {
		if l.IgnoreUnknownParameters {
			return dst, nil
		}
		return dst, refuseParameter(name, fault)
	}
	last := chain[len(chain)-1]
	if fault := q.admit(chain, path); fault != "" {
		return dst, refuseParameter(name, fault)
	}
	if last == q.endpoint.mask {
		q.masked = true
	}
	if dst, fault = appendTextField(dst, chain, value, q.endpoint.Method.Schema); fault != "" {
		return dst, refuseParameter(name, fault)
	}
	return dst, nil
}

func refuseParameter(name, fault string) *wire.Status {
	return refuse(violation{field: clip(name), kind: "parameter", what: fault})
}

// find is the field that a parameter names; the fault says why there is none for it.
func (q *queryReader) find(name string) (chain []*fieldPlan, path, fault string) {
	e := q.endpoint
	if e.whole {
		return nil, "", "this path takes no parameters: all that the path does not say is said by the body"
	}
	chain, path, err := fieldChain(e.input, name)
	if err != nil {
		return nil, "", err.Error()
	}
	for i := range e.variables {
		if v := &e.variables[i]; isWithin(path, v.name) {
			return nil, "", "it is said by the path"
		}
	}
	if e.body != nil && isWithin(path, string(e.body.desc.Name())) {
		return nil, "", "it is said by the body"
	}
	return chain, path, ""
}

// isWithin tells whether a path of fields is outer, or leads into it.
func isWithin(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || rest[0] == '.')
}

// admit says why a field that there is cannot be given, "" for no reason.
func (q *queryReader) admit(chain []*fieldPlan, path string) (fault string) {
	last := chain[len(chain)-1]
	switch {
	case last.mapped:
		return "a map cannot be said by a query"
	case last.isMessage() && !hasText(last.sub()):
		if last.list {
			return "a list of messages cannot be said by a query"
		}
		return "it is a message: name one of its fields, as in \"" + path + ".name\""
	case !last.list && !q.given.add(path):
		return "given twice, and it is no list"
	}
	return q.choose(chain, path)
}

// choose refuses two fields of a oneof, of path and body too.
func (q *queryReader) choose(chain []*fieldPlan, path string) (fault string) {
	end := 0
	for _, f := range chain {
		start := end
		end += len(f.desc.Name()) + 1
		if !f.member {
			continue
		}
		if q.chosen == nil {
			q.chosen = q.endpoint.chosen()
		}
		oneof := path[:start] + string(f.desc.ContainingOneof().Name())
		if other, ok := q.chosen[oneof]; ok && other != path[:end-1] {
			return fmt.Sprintf("%q is given too, and both are of the oneof %q", other, f.desc.ContainingOneof().Name())
		}
		q.chosen[oneof] = path[:end-1]
	}
	return ""
}

// chosen are the oneofs of which path and body say a field.
func (e *Endpoint) chosen() map[string]string {
	chosen := make(map[string]string)
	add := func(chain []*fieldPlan) {
		path := ""
		for _, f := range chain {
			if name := path + string(f.desc.Name()); f.member {
				chosen[path+string(f.desc.ContainingOneof().Name())] = name
			}
			path += string(f.desc.Name()) + "."
		}
	}
	if e.body != nil {
		add([]*fieldPlan{e.body})
	}
	for i := range e.variables {
		add(e.variables[i].chain)
	}
	return chosen
}

// fieldChain follows "a.b.c", by names or JSON names, from a message to a field. path is
// the same by names. All but the last one are single messages.
func fieldChain(p *messagePlan, name string) (chain []*fieldPlan, path string, err error) {
	path = name
	chain = make([]*fieldPlan, 0, 4)
	for part := range strings.SplitSeq(name, ".") {
		if p == nil {
			return nil, "", fmt.Errorf("%q is no message that has fields", chain[len(chain)-1].desc.Name())
		}
		f := p.byName[part]
		if f == nil {
			return nil, "", fmt.Errorf("%s has no field %q", p.desc.FullName(), clip(part))
		}
		if len(chain) == maxFieldDepth {
			return nil, "", fmt.Errorf("more than %d fields deep", maxFieldDepth)
		}
		if string(f.desc.Name()) != part {
			path = ""
		}
		chain = append(chain, f)
		p = nil
		if f.isMessage() && !f.list && !f.mapped {
			p = f.sub()
		}
	}
	if path == "" {
		path = chainName(chain)
	}
	return chain, path, nil
}

func chainName(chain []*fieldPlan) string {
	var b strings.Builder
	for i, f := range chain {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(string(f.desc.Name()))
	}
	return b.String()
}

// unescapeQuery decodes a name or a value. A ";" has been a separator of parameters to
// some readers and a letter to others.
func unescapeQuery(s string) (_, fault string) {
	if strings.IndexByte(s, ';') >= 0 {
		return "", `a ";" must be written %3B`
	}
	if strings.IndexByte(s, '%') >= 0 || strings.IndexByte(s, '+') >= 0 {
		decoded, err := url.QueryUnescape(s)
		if err != nil {
			return "", `a "%" without two hexadecimal digits behind it`
		}
		s = decoded
	}
	if !utf8.ValidString(s) {
		return "", "not UTF-8"
	}
	return s, ""
}

// hasText tells whether a message can be said by the text of a parameter.
func hasText(p *messagePlan) bool {
	return isOneValue(p) || p.form == formFieldMask || p.form == formStruct || p.form == formValue || p.form == formEmpty
}

// isOneValue tells whether a message is as good as a scalar: it can be in a path, and
// what is given later takes the place of all that was given before.
func isOneValue(p *messagePlan) bool {
	return p.form == formTimestamp || p.form == formDuration || p.form == formWrapper
}

// appendTextValue appends a field, or an element of a list, with its tag, that a text means;
// the fault is what is wrong with the text. Texts are read as grpc-gateway reads them.
func appendTextValue(dst []byte, f *fieldPlan, text string, res *schema.Schema) (_ []byte, fault string) {
	if f.isMessage() {
		dst, start := openLength(append(dst, f.tag...))
		if dst, fault = appendTextMessage(dst, f.sub(), text, res); fault != "" {
			return dst, fault
		}
		return closeLength(dst, start), ""
	}
	if f.list && f.pack != nil {
		dst, start := openLength(append(dst, f.pack...))
		dst, fault = appendTextScalar(dst, f, text)
		return closeLength(dst, start), fault
	}
	return appendTextScalar(append(dst, f.tag...), f, text)
}

// appendTextScalar appends a scalar without its tag.
func appendTextScalar(dst []byte, f *fieldPlan, text string) (_ []byte, fault string) {
	switch f.kind {
	case protoreflect.StringKind:
		return protowire.AppendString(dst, text), ""
	case protoreflect.BytesKind:
		dst, start := openLength(dst)
		dst, ok := appendBase64(dst, []byte(text))
		if !ok {
			return dst, "not base64"
		}
		return closeLength(dst, start), ""
	case protoreflect.BoolKind:
		v, err := strconv.ParseBool(text)
		if err != nil {
			return dst, fmt.Sprintf("%q is neither true nor false", clip(text))
		}
		return protowire.AppendVarint(dst, protowire.EncodeBool(v)), ""
	case protoreflect.EnumKind:
		n, ok := f.enum.numbers[text]
		if !ok {
			v, err := strconv.ParseInt(text, 10, 32)
			n = int32(v)
			if err != nil || f.enum.names[n] == "" {
				return dst, fmt.Sprintf("%q is no value of %s", clip(text), f.desc.Enum().FullName())
			}
		}
		return protowire.AppendVarint(dst, uint64(n)), ""
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		size := 64
		if f.kind == protoreflect.FloatKind {
			size = 32
		}
		n, err := strconv.ParseFloat(text, size)
		if err != nil {
			return dst, fmt.Sprintf("%q is no %s", clip(text), kindName(f))
		}
		return appendFloat(dst, size, n), ""
	}
	bits, err := textInteger(f.kind, text)
	if err != nil {
		return dst, fmt.Sprintf("%q is no %s", clip(text), kindName(f))
	}
	return appendInteger(dst, f.kind, bits), ""
}

// textInteger reads decimal digits as a field of that kind holds them.
func textInteger(kind protoreflect.Kind, text string) (bits uint64, err error) {
	switch kind {
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return strconv.ParseUint(text, 10, 32)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return strconv.ParseUint(text, 10, 64)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		n, err := strconv.ParseInt(text, 10, 64)
		return uint64(n), err
	default:
		n, err := strconv.ParseInt(text, 10, 32)
		return uint64(n), err
	}
}

// appendTextMessage appends the content of a message for which hasText holds.
func appendTextMessage(dst []byte, p *messagePlan, text string, res *schema.Schema) (_ []byte, fault string) {
	switch p.form {
	case formWrapper:
		f := p.numbered(1)
		return appendTextScalar(append(dst, f.tag...), f, text)
	case formTimestamp:
		t, ok := parseTimestamp(text)
		if !ok {
			return dst, fmt.Sprintf("%q is no time such as \"2006-01-02T15:04:05Z\"", clip(text))
		}
		return appendBoth(dst, t.Unix(), int32(t.Nanosecond())), ""
	case formDuration:
		return appendTextDuration(dst, text)
	case formFieldMask:
		for path := range strings.SplitSeq(text, ",") {
			// Written by names or by JSON names: who writes the one means the other.
			dst = protowire.AppendString(append(dst, 1<<3|byte(protowire.BytesType)), snakeCase(path))
		}
		return dst, ""
	case formEmpty:
		if text != "" && text != "{}" {
			return dst, fmt.Sprintf("%q is not empty", clip(text))
		}
		return dst, ""
	}
	r := newJSONReader(dst, []byte(text), res, Limits{})
	dst, f := r.document(dst, p)
	if f != nil {
		return dst, "not JSON: " + f.what
	}
	return dst, ""
}

// appendTextDuration takes seconds, as JSON has them, and what Go takes: "1h30m".
func appendTextDuration(dst []byte, text string) (_ []byte, fault string) {
	if seconds, nanos, ok := parseDuration(text); ok {
		return appendBoth(dst, seconds, nanos), ""
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return dst, fmt.Sprintf("%q is no duration such as \"1.5s\"", clip(text))
	}
	return appendBoth(dst, int64(d/time.Second), int32(d%time.Second)), ""
}

// appendBoth appends the fields of a Timestamp or a Duration, zeros too: they must go
// before what the body says.
func appendBoth(dst []byte, seconds int64, nanos int32) []byte {
	dst = protowire.AppendVarint(append(dst, 1<<3), uint64(seconds))
	return protowire.AppendVarint(append(dst, 2<<3), uint64(nanos))
}
