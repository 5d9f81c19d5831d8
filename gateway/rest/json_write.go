package rest

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"sluice/gateway/schema"
)

// jsonWriter turns one message on the wire into JSON. It goes over a message once and
// notes where the values of each field lie, then writes the fields in the order of
// their declaration.
type jsonWriter struct {
	schema *schema.Schema // nil means what is linked into the binary
	types  typeResolver   // of it
	unset  bool           // fields that are not set are written too
	depth  int
	// limit is how long dst may get, and left how many fields may be looked at: a message
	// of a few bytes can say a text of any length, and of many fields.
	limit, left int
	// places and runs are stacks: a message pushes its own and pops them at its end.
	places []place
	runs   []run
}

// place is where the values of one field begin and end in jsonWriter.runs: indexes plus
// one, 0 when there are none.
type place struct{ first, last int32 }

// run is several values of a field that lie one behind the other, with their tags.
type run struct {
	start, end int32 // in the message
	next       int32 // of the same field; index plus one, 0 for none
}

// Bounds of what a message on the wire becomes; the one that allows more holds.
const (
	maxText       = 64 << 20 // bytes of JSON
	maxTextGrowth = 16       // bytes of JSON for each byte of the message
	// maxFieldVisits is how many fields the objects of a text may have, set or not.
	maxFieldVisits = 50_000_000
)

// maxWriterStack is the most entries of a stack that is kept for the next message.
const maxWriterStack = 1 << 12

var jsonWriters = sync.Pool{New: func() any { return new(jsonWriter) }}

func newJSONWriter(s *schema.Schema, unset bool) *jsonWriter {
	w := jsonWriters.Get().(*jsonWriter)
	w.schema, w.types, w.unset, w.depth = s, resolverOf(s), unset, 0
	w.limit, w.left = 0, maxFieldVisits
	return w
}

// bound notes how long a text may get that is made of msg and appended to dst.
func (w *jsonWriter) bound(dst, msg []byte) {
	w.limit = len(dst) + max(maxText, maxTextGrowth*len(msg))
}

// tooLong is the fault of a text that is longer than it may be; nil is none.
func (w *jsonWriter) tooLong(dst []byte) *codecFault {
	if len(dst) <= w.limit {
		return nil
	}
	return answerFault("as JSON it is larger than " + strconv.Itoa(maxText>>20) + " MiB, and than " + strconv.Itoa(maxTextGrowth) + " times what the backend sent")
}

// release gives the writer back.
func (w *jsonWriter) release() {
	w.schema, w.types = nil, nil
	w.places, w.runs = w.places[:0], w.runs[:0]
	if cap(w.places) <= maxWriterStack && cap(w.runs) <= maxWriterStack {
		jsonWriters.Put(w)
	}
}

func answerFault(what string) *codecFault { return &codecFault{what: what, at: -1} }

const malformed = "not a message on the wire"

// enter counts an object or an array that is opened.
func (w *jsonWriter) enter() *codecFault {
	if w.depth++; w.depth > maxJSONDepth {
		return answerFault("nested deeper than " + strconv.Itoa(maxJSONDepth) + " levels")
	}
	return nil
}

// message writes a message of any form.
func (w *jsonWriter) message(dst []byte, p *messagePlan, msg []byte) ([]byte, *codecFault) {
	if p.form == formObject || p.form == formEmpty {
		return w.object(dst, p, msg, "")
	}
	return w.known(dst, p, msg)
}

// object writes the fields of a message; within an Any, its type first.
func (w *jsonWriter) object(dst []byte, p *messagePlan, msg []byte, url string) ([]byte, *codecFault) {
	if fault := w.enter(); fault != nil {
		return dst, fault
	}
	if w.left -= len(p.fields); w.left < 0 {
		return dst, answerFault("its objects have more than " + strconv.Itoa(maxFieldVisits) + " fields together")
	}
	base, runs := len(w.places), len(w.runs)
	if fault := w.index(p, msg); fault != nil {
		return dst, fault
	}
	dst = append(dst, '{')
	open := len(dst)
	if url != "" {
		dst = append(dst, `"@type":`...)
		dst, _ = appendJSONString(dst, []byte(url)) // it was found by its name
	}
	var fault *codecFault
	for i, f := range p.fields {
		if dst, fault = w.field(dst, open, f, w.places[base+i], msg); fault != nil {
			return dst, fault.inField(f.name())
		}
	}
	w.places, w.runs = w.places[:base], w.runs[:runs]
	if p.extensible {
		if dst, fault = w.extensions(dst, open, p, msg); fault != nil {
			return dst, fault
		}
	}
	w.depth--
	return append(dst, '}'), nil
}

// index pushes the places of a message's fields, and behind them one for each oneof,
// which holds the index of the member that was set last, plus one.
func (w *jsonWriter) index(p *messagePlan, msg []byte) *codecFault {
	base := len(w.places)
	w.places = append(w.places, make([]place, len(p.fields)+p.choices)...)
	if len(msg) > math.MaxInt32 {
		return answerFault("larger than 2 GiB")
	}
	for at := 0; at < len(msg); {
		number, wire, n := protowire.ConsumeTag(msg[at:])
		if n < 0 {
			return answerFault(malformed)
		}
		size := protowire.ConsumeFieldValue(number, wire, msg[at+n:])
		if size < 0 {
			return answerFault(malformed)
		}
		end := at + n + size
		if f := p.numbered(number); f != nil && f.takes(wire) {
			if f.member {
				w.choose(p, base, f)
			}
			w.note(&w.places[base+f.index], at, end)
		}
		at = end
	}
	return nil
}

// takes tells whether a value on the wire is one of the field; what is not is unknown.
func (f *fieldPlan) takes(wire protowire.Type) bool {
	return wire == f.wire || wire == protowire.BytesType && f.list && f.packable()
}

// packable tells whether values may lie packed in one; what reads must take both ways.
func (f *fieldPlan) packable() bool {
	return f.wire == protowire.VarintType || f.wire == protowire.Fixed32Type || f.wire == protowire.Fixed64Type
}

// choose drops what another member of a oneof was set to before.
func (w *jsonWriter) choose(p *messagePlan, base int, f *fieldPlan) {
	member, last := int32(f.index+1), &w.places[base+len(p.fields)+f.oneof].first
	if *last != member && *last != 0 {
		w.places[base+int(*last)-1] = place{}
	}
	*last = member
}

// note adds a value that lies at start to a field.
func (w *jsonWriter) note(p *place, start, end int) {
	if p.last != 0 && int(w.runs[p.last-1].end) == start {
		w.runs[p.last-1].end = int32(end)
		return
	}
	w.runs = append(w.runs, run{start: int32(start), end: int32(end)})
	added := int32(len(w.runs))
	if p.last != 0 {
		w.runs[p.last-1].next = added
	} else {
		p.first = added
	}
	p.last = added
}

// field writes a field with its name, when there is something to write.
func (w *jsonWriter) field(dst []byte, open int, f *fieldPlan, p place, msg []byte) ([]byte, *codecFault) {
	before := len(dst)
	if p.first == 0 {
		if w.unset && f.unset != "" {
			dst = appendName(dst, open, f)
			dst = append(dst, f.unset...)
		}
		return dst, nil
	}
	dst = appendName(dst, open, f)
	dst, set, fault := w.value(dst, f, p, msg)
	if fault == nil && !set {
		if dst = dst[:before]; w.unset && f.unset != "" {
			dst = append(appendName(dst, open, f), f.unset...)
		}
	}
	return dst, fault
}

func appendName(dst []byte, open int, f *fieldPlan) []byte {
	if len(dst) > open {
		dst = append(dst, ',')
	}
	return append(dst, f.jsonKey...)
}

// value writes the value of a field; it is not set when that means as much as none.
func (w *jsonWriter) value(dst []byte, f *fieldPlan, p place, msg []byte) (_ []byte, set bool, fault *codecFault) {
	switch {
	case f.mapped:
		dst, fault = w.mapping(dst, f, p, msg)
		return dst, true, fault
	case f.list:
		return w.list(dst, f, p, msg)
	case f.isMessage():
		dst, fault = w.message(dst, f.sub(), w.merged(f, p, msg))
		return dst, true, fault
	}
	last := w.runs[p.last-1]
	var value []byte
	for rest := msg[last.start:last.end]; len(rest) > 0; {
		value, rest = nextValue(f, rest)
	}
	if !f.presence && isZeroOnWire(f, value) {
		return dst, false, nil
	}
	dst, _, fault = w.scalar(dst, f, value)
	return dst, true, fault
}

// nextValue takes a value, without its tag and, of a length-delimited one, without its
// length, from values that index has been over.
func nextValue(f *fieldPlan, b []byte) (value, rest []byte) {
	number, wire, n := protowire.ConsumeTag(b)
	b = b[n:]
	switch wire {
	case protowire.BytesType:
		value, n = protowire.ConsumeBytes(b)
	case protowire.StartGroupType:
		value, n = protowire.ConsumeGroup(number, b)
	default:
		n = protowire.ConsumeFieldValue(number, wire, b)
		value = b[:n]
	}
	return value, b[n:]
}

// isZeroOnWire tells whether a value is the default one. A varint may have more bytes
// than it needs.
func isZeroOnWire(f *fieldPlan, value []byte) bool {
	if f.wire == protowire.VarintType {
		n, _ := protowire.ConsumeVarint(value)
		return truncated(f, n) == 0
	}
	if f.wire == protowire.BytesType {
		return len(value) == 0
	}
	return isZero(value)
}

// truncated is a varint as the field's type holds it.
func truncated(f *fieldPlan, n uint64) uint64 {
	switch f.kind {
	case protoreflect.BoolKind:
		return protowire.EncodeBool(protowire.DecodeBool(n))
	case protoreflect.Int32Kind, protoreflect.Uint32Kind, protoreflect.EnumKind, protoreflect.Sint32Kind:
		return uint64(uint32(n))
	}
	return n
}

// merged is the content of a message that may stand in several pieces: one behind the
// other they are the whole.
func (w *jsonWriter) merged(f *fieldPlan, p place, msg []byte) []byte {
	var whole []byte
	n := 0
	for at := p.first; at != 0; at = w.runs[at-1].next {
		for rest := msg[w.runs[at-1].start:w.runs[at-1].end]; len(rest) > 0; n++ {
			var piece []byte
			piece, rest = nextValue(f, rest)
			whole = joined(whole, piece, n)
		}
	}
	return whole
}

// joined is a message of n pieces with one more behind them. The first is the sender's:
// what follows goes into a copy, which grows as slices do, since pieces may be many.
func joined(whole, piece []byte, n int) []byte {
	switch n {
	case 0:
		return piece
	case 1:
		whole = slices.Clip(whole)
	}
	return append(whole, piece...)
}

// list writes a repeated field; not set when it has no element after all.
func (w *jsonWriter) list(dst []byte, f *fieldPlan, p place, msg []byte) (_ []byte, set bool, fault *codecFault) {
	if fault := w.enter(); fault != nil {
		return dst, true, fault
	}
	dst = append(dst, '[')
	open, i := len(dst), 0
	for at := p.first; at != 0; {
		r := w.runs[at-1]
		for rest := msg[r.start:r.end]; len(rest) > 0; {
			var value []byte
			_, wire, _ := protowire.ConsumeTag(rest)
			value, rest = nextValue(f, rest)
			packed := wire == protowire.BytesType && f.packable()
			for first := true; first || packed && len(value) > 0; first = false {
				if packed && len(value) == 0 {
					break
				}
				if len(dst) > open {
					dst = append(dst, ',')
				}
				if f.isMessage() {
					dst, fault = w.message(dst, f.sub(), value)
				} else {
					dst, value, fault = w.scalar(dst, f, value)
				}
				if fault == nil {
					fault = w.tooLong(dst)
				}
				if fault != nil {
					return dst, true, fault.inElement(i)
				}
				i++
			}
		}
		at = r.next
	}
	w.depth--
	return append(dst, ']'), len(dst) > open, nil
}

// scalar writes the scalar that value begins with.
func (w *jsonWriter) scalar(dst []byte, f *fieldPlan, value []byte) (_, rest []byte, fault *codecFault) {
	switch f.wire {
	case protowire.BytesType:
		if f.kind == protoreflect.BytesKind {
			return appendBase64JSON(dst, value), nil, nil
		}
		dst, ok := appendJSONString(dst, value)
		if !ok {
			return dst, nil, answerFault("a string that is not UTF-8")
		}
		return dst, nil, nil
	case protowire.Fixed32Type:
		n, size := protowire.ConsumeFixed32(value)
		if size < 0 {
			return dst, nil, answerFault(malformed)
		}
		if f.kind == protoreflect.FloatKind {
			return appendJSONFloat(dst, float64(math.Float32frombits(n)), 32), value[size:], nil
		}
		return appendJSONInteger(dst, f, uint64(n)), value[size:], nil
	case protowire.Fixed64Type:
		n, size := protowire.ConsumeFixed64(value)
		if size < 0 {
			return dst, nil, answerFault(malformed)
		}
		if f.kind == protoreflect.DoubleKind {
			return appendJSONFloat(dst, math.Float64frombits(n), 64), value[size:], nil
		}
		return appendJSONInteger(dst, f, n), value[size:], nil
	default:
		n, size := protowire.ConsumeVarint(value)
		if size < 0 {
			return dst, nil, answerFault(malformed)
		}
		return appendJSONInteger(dst, f, n), value[size:], nil
	}
}

// appendJSONInteger appends what a field of an integer kind, a boolean or an enum holds.
// Integers of 64 bits are strings: JavaScript would round them.
func appendJSONInteger(dst []byte, f *fieldPlan, n uint64) []byte {
	switch f.kind {
	case protoreflect.BoolKind:
		return strconv.AppendBool(dst, protowire.DecodeBool(n))
	case protoreflect.EnumKind:
		if f.null {
			return append(dst, "null"...)
		}
		if name := f.enum.names[int32(n)]; name != "" {
			return append(dst, name...)
		}
		return strconv.AppendInt(dst, int64(int32(n)), 10)
	case protoreflect.Int32Kind, protoreflect.Sfixed32Kind:
		return strconv.AppendInt(dst, int64(int32(n)), 10)
	case protoreflect.Sint32Kind:
		return strconv.AppendInt(dst, int64(int32(protowire.DecodeZigZag(n&math.MaxUint32))), 10)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return strconv.AppendUint(dst, uint64(uint32(n)), 10)
	}
	dst = append(dst, '"')
	switch f.kind {
	case protoreflect.Sint64Kind:
		dst = strconv.AppendInt(dst, protowire.DecodeZigZag(n), 10)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		dst = strconv.AppendUint(dst, n, 10)
	default:
		dst = strconv.AppendInt(dst, int64(n), 10)
	}
	return append(dst, '"')
}

// appendJSONFloat appends a number as JavaScript writes it.
func appendJSONFloat(dst []byte, n float64, size int) []byte {
	switch {
	case math.IsNaN(n):
		return append(dst, `"NaN"`...)
	case math.IsInf(n, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(n, -1):
		return append(dst, `"-Infinity"`...)
	}
	format := byte('f')
	small, large := 1e-6, 1e21
	if size == 32 {
		small, large = float64(float32(small)), float64(float32(large))
	}
	if abs := math.Abs(n); abs != 0 && (abs < small || abs >= large) {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, n, format, -1, size)
	// "1e-09" is written "1e-9".
	if end := len(dst); format == 'e' && end >= 4 && dst[end-4] == 'e' && dst[end-3] == '-' && dst[end-2] == '0' {
		dst[end-2] = dst[end-1]
		dst = dst[:end-1]
	}
	return dst
}

func appendBase64JSON(dst, value []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, value)
	return append(dst, '"')
}

// mapEntry is an entry of a map on the wire: key and value without tags.
type mapEntry struct {
	key, value []byte
	text       []byte // the key as JSON has it, without quotes
	number     uint64 // a key that is a number, so that it sorts as one
}

// mapping writes a map, sorted by its keys. Of several entries with the same key the
// last one counts.
func (w *jsonWriter) mapping(dst []byte, f *fieldPlan, p place, msg []byte) ([]byte, *codecFault) {
	var entries []mapEntry
	for at := p.first; at != 0; at = w.runs[at-1].next {
		for rest := msg[w.runs[at-1].start:w.runs[at-1].end]; len(rest) > 0; {
			var content []byte
			content, rest = nextValue(f, rest)
			e, fault := newMapEntry(f, content)
			if fault != nil {
				return dst, fault
			}
			entries = append(entries, e)
		}
	}
	slices.SortStableFunc(entries, func(a, b mapEntry) int { return a.compare(f.key, b) })
	if fault := w.enter(); fault != nil {
		return dst, fault
	}
	dst = append(dst, '{')
	open := len(dst)
	for i, e := range entries {
		if i+1 < len(entries) && e.compare(f.key, entries[i+1]) == 0 {
			continue
		}
		if len(dst) > open {
			dst = append(dst, ',')
		}
		var fault *codecFault
		if dst, fault = w.entry(dst, f, e); fault == nil {
			fault = w.tooLong(dst)
		}
		if fault != nil {
			return dst, fault.inEntry(string(e.text))
		}
	}
	w.depth--
	return append(dst, '}'), nil
}

func (w *jsonWriter) entry(dst []byte, f *fieldPlan, e mapEntry) (_ []byte, fault *codecFault) {
	dst, ok := appendJSONString(dst, e.text)
	if !ok {
		return dst, answerFault("a key that is not UTF-8")
	}
	dst = append(dst, ':')
	switch {
	case f.value.isMessage():
		return w.message(dst, f.value.sub(), e.value)
	case e.value == nil:
		return append(dst, f.value.zeroJSON()...), nil
	}
	dst, _, fault = w.scalar(dst, f.value, e.value)
	return dst, fault
}

// newMapEntry takes an entry apart. What it lacks has its default value.
func newMapEntry(f *fieldPlan, content []byte) (e mapEntry, fault *codecFault) {
	pieces := 0
	for len(content) > 0 {
		number, wire, n := protowire.ConsumeTag(content)
		if n < 0 {
			return e, answerFault(malformed)
		}
		size := protowire.ConsumeFieldValue(number, wire, content[n:])
		if size < 0 {
			return e, answerFault(malformed)
		}
		switch {
		case number == 1 && wire == f.key.wire:
			e.key, _ = nextValue(f.key, content)
		case number == 2 && wire == f.value.wire:
			value, _ := nextValue(f.value, content)
			if f.value.isMessage() {
				value = joined(e.value, value, pieces)
			}
			if pieces++; value == nil {
				value = []byte{} // it is there
			}
			e.value = value
		}
		content = content[n+size:]
	}
	e.name(f.key)
	return e, nil
}

// name fills in what the key is called.
func (e *mapEntry) name(key *fieldPlan) {
	if key.kind == protoreflect.StringKind {
		e.text = e.key
		return
	}
	if e.key == nil {
		e.key = make([]byte, 8) // zero in every form
	}
	switch key.wire {
	case protowire.Fixed32Type:
		n, _ := protowire.ConsumeFixed32(e.key)
		e.number = uint64(n)
	case protowire.Fixed64Type:
		e.number, _ = protowire.ConsumeFixed64(e.key)
	default:
		e.number, _ = protowire.ConsumeVarint(e.key)
	}
	e.text = bytes.Trim(appendJSONInteger(nil, key, e.number), `"`)
	switch key.kind {
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		e.number = uint64(protowire.DecodeZigZag(e.number))
	}
	switch key.kind {
	case protoreflect.BoolKind:
		e.number = truncated(key, e.number)
	case protoreflect.Uint32Kind:
		e.number = uint64(uint32(e.number))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		e.number = uint64(int32(e.number))
	}
}

func (e mapEntry) compare(key *fieldPlan, other mapEntry) int {
	switch key.kind {
	case protoreflect.StringKind:
		return bytes.Compare(e.text, other.text)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind,
		protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return cmp.Compare(int64(e.number), int64(other.number))
	}
	return cmp.Compare(e.number, other.number)
}

// extensions writes the extensions of a message whose types are known, by name.
func (w *jsonWriter) extensions(dst []byte, open int, p *messagePlan, msg []byte) ([]byte, *codecFault) {
	found := make(map[protowire.Number]*fieldPlan)
	own := &messagePlan{desc: p.desc}
	for rest := msg; len(rest) > 0; {
		number, wire, n := protowire.ConsumeTag(rest)
		n += protowire.ConsumeFieldValue(number, wire, rest[n:])
		rest = rest[n:]
		if found[number] != nil || p.numbered(number) != nil || !p.desc.ExtensionRanges().Has(number) {
			continue
		}
		t, err := w.types.FindExtensionByNumber(p.desc.FullName(), number)
		if err != nil {
			continue // as any field that the schema does not have
		}
		f := newFieldPlan(t.TypeDescriptor(), plansOf(w.schema))
		found[number] = f
		own.fields = append(own.fields, f)
	}
	slices.SortFunc(own.fields, func(a, b *fieldPlan) int { return cmp.Compare(a.desc.FullName(), b.desc.FullName()) })
	for i, f := range own.fields {
		f.index, f.unset = i, ""
		own.addNumber(f)
	}
	base, runs := len(w.places), len(w.runs)
	fault := w.index(own, msg)
	for i, f := range own.fields {
		if fault != nil {
			break
		}
		if dst, fault = w.field(dst, open, f, w.places[base+i], msg); fault != nil {
			fault.inField(f.name())
		}
	}
	w.places, w.runs = w.places[:base], w.runs[:runs]
	return dst, fault
}
