package rest

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"weak"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	// What knownForms names, as formOf compares it.
	_ "google.golang.org/protobuf/types/known/anypb"
	_ "google.golang.org/protobuf/types/known/durationpb"
	_ "google.golang.org/protobuf/types/known/emptypb"
	_ "google.golang.org/protobuf/types/known/fieldmaskpb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"
	_ "google.golang.org/protobuf/types/known/wrapperspb"

	"sluice/gateway/schema"
)

// messagePlan is what the JSON codec knows of a type of message: all that a descriptor
// would be asked for once per field of every message. It does not change.
type messagePlan struct {
	desc       protoreflect.MessageDescriptor
	form       jsonForm
	fields     []*fieldPlan          // in the order of their declaration
	byName     map[string]*fieldPlan // by JSON name and by name
	byNumber   []*fieldPlan          // those with small numbers, by number
	byBig      map[protowire.Number]*fieldPlan
	oneofs     int // synthetic ones too, which lie behind the others
	choices    int // oneofs that are not synthetic
	extensible bool
}

// smallNumber is the end of the field numbers that are looked up in a slice.
const smallNumber = 128

// jsonForm is how a type of message looks in JSON.
type jsonForm uint8

const (
	formObject jsonForm = iota
	formAny
	formTimestamp
	formDuration
	formWrapper
	formStruct
	formList
	formValue
	formFieldMask
	formEmpty
	formMessageSet // has none
)

// knownForms are the well-known types that are no object of their fields, and Empty,
// which google.protobuf.Any treats as one of them.
var knownForms = map[protoreflect.FullName]jsonForm{
	"google.protobuf.Any":         formAny,
	"google.protobuf.Timestamp":   formTimestamp,
	"google.protobuf.Duration":    formDuration,
	"google.protobuf.BoolValue":   formWrapper,
	"google.protobuf.Int32Value":  formWrapper,
	"google.protobuf.Int64Value":  formWrapper,
	"google.protobuf.UInt32Value": formWrapper,
	"google.protobuf.UInt64Value": formWrapper,
	"google.protobuf.FloatValue":  formWrapper,
	"google.protobuf.DoubleValue": formWrapper,
	"google.protobuf.StringValue": formWrapper,
	"google.protobuf.BytesValue":  formWrapper,
	"google.protobuf.Struct":      formStruct,
	"google.protobuf.ListValue":   formList,
	"google.protobuf.Value":       formValue,
	"google.protobuf.FieldMask":   formFieldMask,
	"google.protobuf.Empty":       formEmpty,
}

// fieldPlan is one field of a messagePlan.
type fieldPlan struct {
	desc   protoreflect.FieldDescriptor
	index  int // in messagePlan.fields; -1 of an extension
	number protowire.Number
	kind   protoreflect.Kind
	wire   protowire.Type // of one value
	tag    []byte         // before one value
	pack   []byte         // before packed values; nil when they are not to be packed

	list, mapped bool
	presence     bool   // a default value is written when it is set
	oneof        int    // index of the oneof, also of a synthetic one; -1 for none
	member       bool   // of a oneof that is not synthetic
	null         bool   // of the enum google.protobuf.NullValue
	jsonKey      []byte // `"lowerCamel":`
	unset        string // JSON of what is not there, when that is asked for; "" for nothing

	enum       *enumPlan  // nil of a field that is none
	key, value *fieldPlan // of a map

	plans   *planSet                    // that it is one of
	message atomic.Pointer[messagePlan] // filled in at its first use
}

// maxPlans bounds the plans of one set and kind. A schema has fewer types; when there are
// so many all the same, all are dropped, and those in use are made anew.
const maxPlans = 16 << 10

// planSet keeps the plans of the types of one schema. What is dropped is still good.
type planSet struct {
	mu       sync.RWMutex // guards the maps
	messages map[protoreflect.MessageDescriptor]*messagePlan
	enums    map[protoreflect.EnumDescriptor]*enumPlan
}

var (
	// linkedPlans are those of the types that are linked into the binary.
	linkedPlans planSet
	// schemaPlans are the other sets, *planSet by weak.Pointer[schema.Schema]. Schemas come
	// and go while the gateway runs: a set has descriptors of its schema, but not the
	// schema, and goes with it.
	schemaPlans sync.Map
)

// plansOf are the plans of a schema's types; nil means what is linked into the binary.
func plansOf(s *schema.Schema) *planSet {
	if s == nil {
		return &linkedPlans
	}
	key := weak.Make(s)
	if kept, ok := schemaPlans.Load(key); ok {
		return kept.(*planSet)
	}
	kept, before := schemaPlans.LoadOrStore(key, new(planSet))
	if !before {
		runtime.AddCleanup(s, func(key weak.Pointer[schema.Schema]) { schemaPlans.Delete(key) }, key)
	}
	return kept.(*planSet)
}

// of is the plan of a type of message.
func (s *planSet) of(desc protoreflect.MessageDescriptor) *messagePlan {
	s.mu.RLock()
	p := s.messages[desc]
	s.mu.RUnlock()
	if p != nil {
		return p
	}
	p = newMessagePlan(desc, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.messages == nil || len(s.messages) >= maxPlans {
		s.messages = make(map[protoreflect.MessageDescriptor]*messagePlan)
	}
	s.messages[desc] = p
	return p
}

// ofEnum is the plan of an enum.
func (s *planSet) ofEnum(desc protoreflect.EnumDescriptor) *enumPlan {
	s.mu.RLock()
	p := s.enums[desc]
	s.mu.RUnlock()
	if p != nil {
		return p
	}
	p = newEnumPlan(desc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.enums == nil || len(s.enums) >= maxPlans {
		s.enums = make(map[protoreflect.EnumDescriptor]*enumPlan)
	}
	s.enums[desc] = p
	return p
}

func newMessagePlan(desc protoreflect.MessageDescriptor, plans *planSet) *messagePlan {
	p := &messagePlan{
		desc:       desc,
		form:       formOf(desc),
		byName:     make(map[string]*fieldPlan),
		oneofs:     desc.Oneofs().Len(),
		extensible: desc.ExtensionRanges().Len() > 0,
	}
	fields := desc.Fields()
	for i := range fields.Len() {
		f := newFieldPlan(fields.Get(i), plans)
		f.index = i
		p.fields = append(p.fields, f)
		p.byName[f.desc.TextName()] = f
		p.addNumber(f)
		if f.member {
			p.choices = max(p.choices, f.oneof+1)
		}
	}
	for _, f := range p.fields {
		p.byName[f.desc.JSONName()] = f // goes before a name that is the same
	}
	return p
}

// formOf is the form of a type. One that only has the name of a well-known type, in the
// schema of a backend that made up its own, is an object as any other.
func formOf(desc protoreflect.MessageDescriptor) jsonForm {
	if set, ok := desc.(interface{ IsMessageSet() bool }); ok && set.IsMessageSet() {
		return formMessageSet
	}
	form := knownForms[desc.FullName()]
	if form == formObject {
		return form
	}
	real, err := protoregistry.GlobalFiles.FindDescriptorByName(desc.FullName())
	if err != nil {
		return formObject
	}
	want, got := real.(protoreflect.MessageDescriptor).Fields(), desc.Fields()
	if want.Len() != got.Len() {
		return formObject
	}
	for i := range want.Len() {
		w, g := want.Get(i), got.Get(i)
		if w.Number() != g.Number() || w.Kind() != g.Kind() || w.Cardinality() != g.Cardinality() || w.IsMap() != g.IsMap() {
			return formObject
		}
	}
	return form
}

func (p *messagePlan) addNumber(f *fieldPlan) {
	if f.number >= smallNumber {
		if p.byBig == nil {
			p.byBig = make(map[protowire.Number]*fieldPlan)
		}
		p.byBig[f.number] = f
		return
	}
	for len(p.byNumber) <= int(f.number) {
		p.byNumber = append(p.byNumber, nil)
	}
	p.byNumber[f.number] = f
}

// numbered is the field of a number, nil for none.
func (p *messagePlan) numbered(n protowire.Number) *fieldPlan {
	if int(n) < len(p.byNumber) {
		return p.byNumber[n]
	}
	return p.byBig[n]
}

func newFieldPlan(desc protoreflect.FieldDescriptor, plans *planSet) *fieldPlan {
	f := &fieldPlan{
		desc:     desc,
		plans:    plans,
		index:    -1,
		number:   desc.Number(),
		kind:     desc.Kind(),
		list:     desc.IsList(),
		mapped:   desc.IsMap(),
		presence: desc.HasPresence(),
		oneof:    -1,
	}
	f.wire = wireTypes[f.kind]
	f.tag = protowire.AppendTag(nil, f.number, f.wire)
	if desc.IsPacked() {
		f.pack = protowire.AppendTag(nil, f.number, protowire.BytesType)
	}
	f.jsonKey, _ = appendJSONString(nil, []byte(desc.JSONName()))
	f.jsonKey = append(f.jsonKey, ':')
	if o := desc.ContainingOneof(); o != nil {
		f.oneof, f.member = o.Index(), !o.IsSynthetic()
	}
	if f.mapped {
		f.key, f.value = newFieldPlan(desc.MapKey(), plans), newFieldPlan(desc.MapValue(), plans)
	}
	if e := desc.Enum(); e != nil {
		f.enum = plans.ofEnum(e)
		f.null = e.FullName() == "google.protobuf.NullValue"
	}
	f.unset = f.unsetJSON()
	return f
}

// enumPlan is the values of an enum.
type enumPlan struct {
	numbers map[string]int32
	names   map[int32]string // in quotes; the first of several of the same number
}

func newEnumPlan(e protoreflect.EnumDescriptor) *enumPlan {
	values := e.Values()
	p := &enumPlan{make(map[string]int32, values.Len()), make(map[int32]string, values.Len())}
	for i := range values.Len() {
		v := values.Get(i)
		n := int32(v.Number())
		p.numbers[string(v.Name())] = n
		if p.names[n] == "" {
			p.names[n] = strconv.Quote(string(v.Name()))
		}
	}
	return p
}

// unsetJSON is how protojson says that a field is not set, when it is told to: null
// where being set means something, but nothing of a oneof.
func (f *fieldPlan) unsetJSON() string {
	switch {
	case f.oneof >= 0:
		return ""
	case f.list:
		return "[]"
	case f.mapped:
		return "{}"
	case f.presence:
		return "null"
	}
	return f.zeroJSON()
}

// zeroJSON is the JSON of a scalar that has the default value of proto3.
func (f *fieldPlan) zeroJSON() string {
	switch f.kind {
	case protoreflect.BoolKind:
		return "false"
	case protoreflect.StringKind, protoreflect.BytesKind:
		return `""`
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind,
		protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return `"0"`
	case protoreflect.EnumKind:
		if f.null {
			return "null"
		}
		if name := f.enum.names[0]; name != "" {
			return name
		}
	}
	return "0"
}

// isMessage tells whether the field holds messages, groups included.
func (f *fieldPlan) isMessage() bool {
	return f.kind == protoreflect.MessageKind || f.kind == protoreflect.GroupKind
}

// sub is the plan of the messages that the field holds.
func (f *fieldPlan) sub() *messagePlan {
	if p := f.message.Load(); p != nil {
		return p
	}
	p := f.plans.of(f.desc.Message())
	f.message.Store(p)
	return p
}

// name is how errors call the field: as JSON does.
func (f *fieldPlan) name() string { return f.desc.JSONName() }

var wireTypes = map[protoreflect.Kind]protowire.Type{
	protoreflect.BoolKind:     protowire.VarintType,
	protoreflect.EnumKind:     protowire.VarintType,
	protoreflect.Int32Kind:    protowire.VarintType,
	protoreflect.Sint32Kind:   protowire.VarintType,
	protoreflect.Uint32Kind:   protowire.VarintType,
	protoreflect.Int64Kind:    protowire.VarintType,
	protoreflect.Sint64Kind:   protowire.VarintType,
	protoreflect.Uint64Kind:   protowire.VarintType,
	protoreflect.Sfixed32Kind: protowire.Fixed32Type,
	protoreflect.Fixed32Kind:  protowire.Fixed32Type,
	protoreflect.FloatKind:    protowire.Fixed32Type,
	protoreflect.Sfixed64Kind: protowire.Fixed64Type,
	protoreflect.Fixed64Kind:  protowire.Fixed64Type,
	protoreflect.DoubleKind:   protowire.Fixed64Type,
	protoreflect.StringKind:   protowire.BytesType,
	protoreflect.BytesKind:    protowire.BytesType,
	protoreflect.MessageKind:  protowire.BytesType,
	protoreflect.GroupKind:    protowire.StartGroupType,
}
