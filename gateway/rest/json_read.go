package rest

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"sluice/gateway/schema"
)

// jsonReader turns one JSON document into one message on the wire, in one pass and
// without a message in between. Each method appends to dst what the next value says.
type jsonReader struct {
	jsonText
	schema        *schema.Schema // nil means what is linked into the binary
	types         typeResolver   // of it
	ignoreUnknown bool
	// limit is how long dst may get. A JSON document of a few bytes can say a message
	// that is several times its size.
	limit int
	// ahead is how many bytes may still be read ahead of their turn, to find the types
	// of google.protobuf.Any: each that lies in another one is read once more.
	ahead int
}

func newJSONReader(dst, doc []byte, s *schema.Schema, l Limits) jsonReader {
	limit := l.MaxMessage
	if limit <= 0 {
		limit = DefaultMaxMessage
	}
	return jsonReader{
		jsonText:      jsonText{in: doc},
		schema:        s,
		types:         resolverOf(s),
		ignoreUnknown: l.IgnoreUnknownFields,
		limit:         len(dst) + limit,
		ahead:         8*len(doc) + 1024,
	}
}

// document reads a whole document that is a message.
func (r *jsonReader) document(dst []byte, p *messagePlan) ([]byte, *codecFault) {
	dst, fault := r.message(dst, p)
	if fault == nil {
		fault = r.end()
	}
	return dst, fault
}

// message reads a message of any form, without tag and length.
func (r *jsonReader) message(dst []byte, p *messagePlan) ([]byte, *codecFault) {
	switch p.form {
	case formObject, formEmpty:
		return r.object(dst, p, false)
	case formAny:
		return r.any(dst)
	case formTimestamp:
		return r.timestamp(dst)
	case formDuration:
		return r.duration(dst)
	case formWrapper:
		return r.scalarField(dst, p.numbered(1))
	case formStruct:
		return r.structure(dst)
	case formList:
		return r.values(dst)
	case formValue:
		return r.value(dst)
	case formFieldMask:
		return r.fieldMask(dst)
	default:
		return dst, r.fault(r.pos, "a message set has no JSON form")
	}
}

// object reads the fields of a message. Within an Any, "@type" is not one of them.
func (r *jsonReader) object(dst []byte, p *messagePlan, typed bool) ([]byte, *codecFault) {
	if fault := r.open('{', "an object"); fault != nil {
		return dst, fault
	}
	var given fieldSet
	var chosen fieldSet // oneofs
	given.grow(len(p.fields))
	chosen.grow(p.oneofs)
	for first := true; ; first = false {
		more, fault := r.more('}', first)
		if !more || fault != nil {
			return dst, fault
		}
		r.next()
		at := r.pos
		name, fault := r.member()
		if fault != nil {
			return dst, fault
		}
		f := p.byName[string(name)]
		if f == nil {
			if dst, fault = r.unlisted(dst, p, &given, string(name), at, typed); fault != nil {
				return dst, fault
			}
			continue
		}
		if given.add(f.index) {
			return dst, r.fault(at, "given twice").inField(f.name())
		}
		if r.next() == 'n' && !f.takesNull() && r.literal("null") {
			continue
		}
		if f.oneof >= 0 && chosen.add(f.oneof) {
			return dst, r.fault(at, "another field of the oneof %q is given too", f.desc.ContainingOneof().Name()).inField(f.name())
		}
		if dst, fault = r.field(dst, f); fault != nil {
			return dst, fault.inField(f.name())
		}
	}
}

// unlisted reads a member whose name is no field: an extension, the type of an Any, or
// unknown.
func (r *jsonReader) unlisted(dst []byte, p *messagePlan, given *fieldSet, name string, at int, typed bool) ([]byte, *codecFault) {
	if typed && name == "@type" {
		if given.addNumber(0) {
			return dst, r.fault(at, "given twice").inField(name)
		}
		return dst, r.skip() // any has read it
	}
	f, fault := r.extension(p, name, at)
	if fault != nil {
		return dst, fault
	}
	if f != nil {
		if given.addNumber(f.number) {
			return dst, r.fault(at, "given twice").inField(name)
		}
		if r.next() == 'n' && !f.takesNull() && r.literal("null") {
			return dst, nil
		}
		dst, fault := r.field(dst, f)
		if fault != nil {
			fault.inField(name)
		}
		return dst, fault
	}
	if r.ignoreUnknown {
		return dst, r.skip()
	}
	return dst, r.fault(at, "%s has no such field", p.desc.FullName()).inField(clip(name))
}

// extension is the field that "[full.name]" means in a message, nil for none. One that
// extends another message is never let pass as unknown.
func (r *jsonReader) extension(p *messagePlan, name string, at int) (*fieldPlan, *codecFault) {
	if len(name) < 3 || name[0] != '[' || name[len(name)-1] != ']' {
		return nil, nil
	}
	full := protoreflect.FullName(name[1 : len(name)-1])
	if !full.IsValid() {
		return nil, nil
	}
	t, err := r.types.FindExtensionByName(full)
	if err != nil {
		return nil, nil // it is unknown, as any other name can be
	}
	desc := t.TypeDescriptor()
	if desc.ContainingMessage().FullName() != p.desc.FullName() || !p.desc.ExtensionRanges().Has(desc.Number()) {
		return nil, r.fault(at, "it does not extend %s", p.desc.FullName()).inField(name)
	}
	return newFieldPlan(desc, plansOf(r.schema)), nil
}

// field reads a field of any kind, with its tags.
func (r *jsonReader) field(dst []byte, f *fieldPlan) (_ []byte, fault *codecFault) {
	switch {
	case f.list:
		dst, fault = r.list(dst, f)
	case f.mapped:
		dst, fault = r.mapping(dst, f)
	case f.isMessage():
		dst, fault = r.messageField(dst, f)
	default:
		dst, fault = r.scalarField(dst, f)
	}
	if fault == nil && len(dst) > r.limit {
		fault = r.tooLarge()
	}
	return dst, fault
}

func (r *jsonReader) tooLarge() *codecFault {
	f := r.fault(-1, "the message is larger than the limit")
	f.tooLarge = true
	return f
}

// messageField reads one message with its tag.
func (r *jsonReader) messageField(dst []byte, f *fieldPlan) ([]byte, *codecFault) {
	dst = append(dst, f.tag...)
	if f.kind == protoreflect.GroupKind {
		dst, fault := r.message(dst, f.sub())
		return protowire.AppendTag(dst, f.number, protowire.EndGroupType), fault
	}
	dst, start := openLength(dst)
	dst, fault := r.message(dst, f.sub())
	return closeLength(dst, start), fault
}

// scalarField reads a scalar with its tag; nothing when it is a default value that
// means as much as none.
func (r *jsonReader) scalarField(dst []byte, f *fieldPlan) ([]byte, *codecFault) {
	before := len(dst)
	dst = append(dst, f.tag...)
	value := len(dst)
	dst, known, fault := r.scalar(dst, f)
	if !known || !f.presence && isZero(dst[value:]) {
		dst = dst[:before]
	}
	return dst, fault
}

// isZero tells whether an encoded scalar is the default value of its kind: zeros only,
// whatever the kind is.
func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// list reads the elements of a repeated field.
func (r *jsonReader) list(dst []byte, f *fieldPlan) ([]byte, *codecFault) {
	if f.pack != nil {
		return r.packedList(dst, f)
	}
	if fault := r.open('[', "an array"); fault != nil {
		return dst, fault
	}
	for i := 0; ; i++ {
		more, fault := r.more(']', i == 0)
		if !more || fault != nil {
			return dst, fault
		}
		if dst, fault = r.element(dst, f); fault == nil && len(dst) > r.limit {
			fault = r.tooLarge()
		}
		if fault != nil {
			return dst, fault.inElement(i)
		}
	}
}

func (r *jsonReader) element(dst []byte, f *fieldPlan) ([]byte, *codecFault) {
	if f.isMessage() {
		return r.messageField(dst, f)
	}
	before := len(dst)
	dst, known, fault := r.scalar(append(dst, f.tag...), f)
	if !known {
		dst = dst[:before]
	}
	return dst, fault
}

func (r *jsonReader) packedList(dst []byte, f *fieldPlan) ([]byte, *codecFault) {
	if fault := r.open('[', "an array"); fault != nil {
		return dst, fault
	}
	before := len(dst)
	dst, start := openLength(append(dst, f.pack...))
	for i := 0; ; i++ {
		more, fault := r.more(']', i == 0)
		if fault != nil {
			return dst, fault
		}
		if !more {
			if len(dst) == start {
				return dst[:before], nil
			}
			return closeLength(dst, start), nil
		}
		if dst, _, fault = r.scalar(dst, f); fault == nil && len(dst) > r.limit {
			fault = r.tooLarge()
		}
		if fault != nil {
			return dst, fault.inElement(i)
		}
	}
}

// mapping reads the entries of a map.
func (r *jsonReader) mapping(dst []byte, f *fieldPlan) ([]byte, *codecFault) {
	if fault := r.open('{', "an object"); fault != nil {
		return dst, fault
	}
	var keys keySet
	for first := true; ; first = false {
		more, fault := r.more('}', first)
		if !more || fault != nil {
			return dst, fault
		}
		if dst, fault = r.entry(dst, f, &keys); fault != nil {
			return dst, fault
		}
	}
}

// entry reads one entry of a map. Both of its fields are written always.
func (r *jsonReader) entry(dst []byte, f *fieldPlan, keys *keySet) ([]byte, *codecFault) {
	r.next()
	at := r.pos
	text, fault := r.member()
	if fault != nil {
		return dst, fault
	}
	name := string(text)
	before := len(dst)
	dst, start := openLength(append(dst, f.tag...))
	dst, ok := appendMapKey(dst, f.key, name)
	if !ok {
		return dst, r.fault(at, "the key is no %s", kindName(f.key)).inEntry(name)
	}
	if !keys.add(string(dst[start:])) {
		return dst, r.fault(at, "given twice").inEntry(name)
	}
	known := true
	if f.value.isMessage() {
		dst, fault = r.messageField(dst, f.value)
	} else {
		dst, known, fault = r.scalar(append(dst, f.value.tag...), f.value)
	}
	if fault == nil && len(dst) > r.limit {
		fault = r.tooLarge()
	}
	if fault != nil {
		return dst, fault.inEntry(name)
	}
	if !known {
		keys.drop()
		return dst[:before], nil
	}
	return closeLength(dst, start), nil
}

// appendMapKey appends a key with its tag; false when the text is none.
func appendMapKey(dst []byte, f *fieldPlan, s string) (_ []byte, ok bool) {
	dst = append(dst, f.tag...)
	switch f.kind {
	case protoreflect.StringKind:
		return protowire.AppendString(dst, s), true
	case protoreflect.BoolKind:
		return protowire.AppendVarint(dst, protowire.EncodeBool(s == "true")), s == "true" || s == "false"
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		n, err := strconv.ParseUint(s, 10, 32)
		return appendInteger(dst, f.kind, n), err == nil
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		n, err := strconv.ParseUint(s, 10, 64)
		return appendInteger(dst, f.kind, n), err == nil
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		n, err := strconv.ParseInt(s, 10, 64)
		return appendInteger(dst, f.kind, uint64(n)), err == nil
	default:
		n, err := strconv.ParseInt(s, 10, 32)
		return appendInteger(dst, f.kind, uint64(n)), err == nil
	}
}

// scalar reads a scalar without its tag. It is not known when it is the name of an enum's
// value that there is not, and such are ignored.
func (r *jsonReader) scalar(dst []byte, f *fieldPlan) (_ []byte, known bool, fault *codecFault) {
	switch f.kind {
	case protoreflect.StringKind:
		if r.next() != '"' {
			return dst, true, r.unexpected("a string")
		}
		s, fault := r.string()
		return protowire.AppendBytes(dst, s), true, fault
	case protoreflect.BoolKind:
		switch {
		case r.literal("true"):
			return append(dst, 1), true, nil
		case r.literal("false"):
			return append(dst, 0), true, nil
		}
		return dst, true, r.unexpected("true or false")
	case protoreflect.BytesKind:
		dst, fault = r.bytes(dst)
		return dst, true, fault
	case protoreflect.EnumKind:
		return r.enum(dst, f)
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		dst, fault = r.float(dst, f)
		return dst, true, fault
	default:
		dst, fault = r.integer(dst, f)
		return dst, true, fault
	}
}

// numeral reads a number, or a string that holds one and nothing else.
func (r *jsonReader) numeral(want string) (text []byte, fault *codecFault) {
	switch c := r.next(); {
	case c == '"':
		return r.string()
	case c == '-' || c >= '0' && c <= '9':
		return r.number()
	}
	return nil, r.unexpected(want)
}

// integer reads integers of all kinds, as numbers or as strings.
func (r *jsonReader) integer(dst []byte, f *fieldPlan) ([]byte, *codecFault) {
	r.next()
	at := r.pos
	text, fault := r.numeral("a number")
	if fault != nil {
		return dst, fault
	}
	if r.in[at] != '"' || numberLength(text) == len(text) {
		if bits, ok := integerBits(text, f.kind); ok {
			return appendInteger(dst, f.kind, bits), nil
		}
	}
	return dst, r.fault(at, "%s is no %s", quoted(text), kindName(f))
}

// integerBits is an integer as a field of that kind holds it; not ok when it is none or
// out of range.
func integerBits(text []byte, kind protoreflect.Kind) (bits uint64, ok bool) {
	negative, n, ok := integer(text)
	if !ok {
		return 0, false
	}
	top := uint64(math.MaxInt32)
	switch kind {
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return n, n <= math.MaxUint32 && (!negative || n == 0)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return n, !negative || n == 0
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		top = math.MaxInt64
	}
	if negative {
		return -n, n <= top+1
	}
	return n, n <= top
}

// appendInteger appends an integer as a field of that kind is written, or an enum.
func appendInteger(dst []byte, kind protoreflect.Kind, bits uint64) []byte {
	switch kind {
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return protowire.AppendVarint(dst, protowire.EncodeZigZag(int64(bits)))
	case protoreflect.Sfixed32Kind, protoreflect.Fixed32Kind:
		return protowire.AppendFixed32(dst, uint32(bits))
	case protoreflect.Sfixed64Kind, protoreflect.Fixed64Kind:
		return protowire.AppendFixed64(dst, bits)
	default:
		return protowire.AppendVarint(dst, bits)
	}
}

// float reads both kinds, as numbers or as strings.
func (r *jsonReader) float(dst []byte, f *fieldPlan) ([]byte, *codecFault) {
	r.next()
	at := r.pos
	text, fault := r.numeral("a number")
	if fault != nil {
		return dst, fault
	}
	size := 64
	if f.kind == protoreflect.FloatKind {
		size = 32
	}
	s := string(text)
	n, ok := 0.0, true
	switch {
	case r.in[at] != '"' || numberLength(text) == len(text) && s != "":
		var err error
		n, err = strconv.ParseFloat(s, size)
		ok = err == nil
	case s == "NaN":
		n = math.NaN()
	case s == "Infinity":
		n = math.Inf(1)
	case s == "-Infinity":
		n = math.Inf(-1)
	default:
		ok = false
	}
	if !ok {
		return dst, r.fault(at, "%s is no %s", quoted(text), kindName(f))
	}
	return appendFloat(dst, size, n), nil
}

func appendFloat(dst []byte, size int, n float64) []byte {
	if size == 32 {
		return protowire.AppendFixed32(dst, math.Float32bits(float32(n)))
	}
	return protowire.AppendFixed64(dst, math.Float64bits(n))
}

// enum reads the name of a value, or its number.
func (r *jsonReader) enum(dst []byte, f *fieldPlan) (_ []byte, known bool, fault *codecFault) {
	c := r.next()
	at := r.pos
	switch {
	case c == '"':
		name, fault := r.string()
		if fault != nil {
			return dst, true, fault
		}
		if n, ok := f.enum.numbers[string(name)]; ok {
			return protowire.AppendVarint(dst, uint64(n)), true, nil
		}
		if r.ignoreUnknown {
			return dst, false, nil
		}
		return dst, true, r.fault(at, "%s is no value of %s", quoted(name), f.desc.Enum().FullName())
	case c == '-' || c >= '0' && c <= '9':
		dst, fault = r.integer(dst, f)
		return dst, true, fault
	case f.null && r.literal("null"):
		return append(dst, 0), true, nil
	}
	return dst, true, r.unexpected("a name or number of " + string(f.desc.Enum().FullName()))
}

// bytes reads base64 in either alphabet, padded or not.
func (r *jsonReader) bytes(dst []byte) ([]byte, *codecFault) {
	if r.next() != '"' {
		return dst, r.unexpected("a string of base64")
	}
	at := r.pos
	text, fault := r.string()
	if fault != nil {
		return dst, fault
	}
	dst, start := openLength(dst)
	dst, ok := appendBase64(dst, text)
	if !ok {
		return dst, r.fault(at, "not base64")
	}
	return closeLength(dst, start), nil
}

func appendBase64(dst, text []byte) ([]byte, bool) {
	encoding := base64.StdEncoding
	for _, c := range text {
		if c == '-' || c == '_' {
			encoding = base64.URLEncoding
			break
		}
	}
	if len(text)%4 != 0 {
		encoding = encoding.WithPadding(base64.NoPadding)
	}
	dst, err := encoding.AppendDecode(dst, text)
	return dst, err == nil
}

// takesNull tells whether null is a value of the field; of all others it means that
// they are not there.
func (f *fieldPlan) takesNull() bool {
	return f.null || f.isMessage() && !f.mapped && f.sub().form == formValue
}

// kindName is how errors call what a scalar field takes.
func kindName(f *fieldPlan) string {
	switch f.kind {
	case protoreflect.EnumKind:
		return "number of an enum (32 bits)"
	case protoreflect.FloatKind:
		return "number that fits 32 bits of floating point"
	case protoreflect.DoubleKind:
		return "number that fits 64 bits of floating point"
	case protoreflect.BoolKind:
		return "boolean"
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return "integer of 32 bits"
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return "integer of 32 bits without a sign"
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return "integer of 64 bits without a sign"
	default:
		return "integer of 64 bits"
	}
}

// quoted is a value as an error shows it.
func quoted(text []byte) string { return fmt.Sprintf("%q", clip(string(text))) }

// openLength appends the place of a length; closeLength fills it in. Most lengths take
// the one byte that is kept, so that what follows need not be moved.
func openLength(dst []byte) (_ []byte, start int) {
	return append(dst, 0), len(dst) + 1
}

func closeLength(dst []byte, start int) []byte {
	n := len(dst) - start
	if n < 1<<7 {
		dst[start-1] = byte(n)
		return dst
	}
	more := protowire.SizeVarint(uint64(n)) - 1
	for range more {
		dst = append(dst, 0)
	}
	copy(dst[start+more:], dst[start:start+n])
	protowire.AppendVarint(dst[:start-1], uint64(n))
	return dst
}

// fieldSet is a set of small indexes, and of numbers of extensions.
type fieldSet struct {
	few     [2]uint64
	many    []uint64
	numbers map[protowire.Number]bool
}

// grow makes room for indexes below n.
func (s *fieldSet) grow(n int) {
	if n > 64*len(s.few) {
		s.many = make([]uint64, (n+63)/64)
	}
}

// add tells whether i was there already.
func (s *fieldSet) add(i int) bool {
	words := s.few[:]
	if s.many != nil {
		words = s.many
	}
	was := words[i/64]&(1<<(i%64)) != 0
	words[i/64] |= 1 << (i % 64)
	return was
}

func (s *fieldSet) addNumber(n protowire.Number) bool {
	if s.numbers[n] {
		return true
	}
	if s.numbers == nil {
		s.numbers = make(map[protowire.Number]bool)
	}
	s.numbers[n] = true
	return false
}

// keySet is the keys of a map that were given, as they are on the wire.
type keySet struct {
	list []string
	seen map[string]bool // when there are many
}

// add tells whether the key is new.
func (s *keySet) add(key string) bool {
	const many = 8
	if s.seen[key] || s.seen == nil && slices.Contains(s.list, key) {
		return false
	}
	s.list = append(s.list, key)
	if s.seen != nil {
		s.seen[key] = true
	} else if len(s.list) > many {
		s.seen = make(map[string]bool, 2*many)
		for _, k := range s.list {
			s.seen[k] = true
		}
	}
	return true
}

// drop takes out the key that was added last.
func (s *keySet) drop() {
	last := s.list[len(s.list)-1]
	s.list = s.list[:len(s.list)-1]
	delete(s.seen, last)
}
