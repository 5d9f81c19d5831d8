package schema

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// What one set of descriptors may have. The largest public one, all of Google Ads, has
// about half of it.
const (
	maxFiles    = 2_000
	maxBytes    = 16 << 20 // encoded
	maxMethods  = 20_000
	maxServices = 1_000

	// maxElements bounds declarations, options and comments together. Each may take two
	// bytes encoded and some 500 once it is linked, so that bytes alone bound nothing.
	maxElements = 200_000

	// maxNames bounds the full names of all declarations, in bytes: each repeats its
	// parents'.
	maxNames = 64 << 20

	// maxLookups bounds the bytes that the library has to compare to find the names that
	// are referred to: it looks a name up by each of its prefixes, and a relative one in
	// scope after scope.
	maxLookups = 1 << 30

	// maxWalked bounds the ways by public imports that are walked from the imports of
	// all files together.
	maxWalked = 1_000_000

	// maxNesting is how deep messages are declared in messages; protoc allows 31.
	maxNesting = 32

	// maxPath bounds the path of a file, in bytes.
	maxPath = 1024

	// maxPublicWays bounds in how many ways public imports may lead on from a file,
	// because the library walks all of them: in n diamonds there are 2^n.
	maxPublicWays = 2_000
)

// decodeSet decodes a FileDescriptorSet within the bounds. Extensions stay unknown
// fields.
func decodeSet(encoded []byte) (*descriptorpb.FileDescriptorSet, error) {
	set := new(descriptorpb.FileDescriptorSet)
	if err := decodeBounded(encoded, set, new(elementCount)); err != nil {
		return nil, fmt.Errorf("decoding a set of descriptors: %w", err)
	}
	return set, nil
}

// decodeBounded decodes a message after counting what it has.
func decodeBounded(encoded []byte, m proto.Message, count *elementCount) error {
	if len(encoded) > maxBytes {
		return fmt.Errorf("%d bytes, limit %d", len(encoded), maxBytes)
	}
	if err := count.add(encoded, m.ProtoReflect().Descriptor(), 0); err != nil {
		return err
	}
	options := proto.UnmarshalOptions{AllowPartial: true, Resolver: (*protoregistry.Types)(nil)}
	if err := options.Unmarshal(encoded, m); err != nil {
		return plain(err)
	}
	return nil
}

// elementCount counts what decoding a message would allocate, without decoding it: the
// messages in it, and the elements of its lists.
type elementCount int

var (
	errEncoding        = errors.New("the encoding is broken")
	errTooManyElements = fmt.Errorf("more than %d declarations, options and comments", maxElements)
)

func (n *elementCount) add(b []byte, m protoreflect.MessageDescriptor, depth int) error {
	if depth > maxNesting+8 { // a message, its fields, their options and parts of names
		return fmt.Errorf("declarations nested deeper than %d", maxNesting)
	}
	for len(b) > 0 {
		number, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errEncoding
		}
		b = b[size:]
		if size = protowire.ConsumeFieldValue(number, kind, b); size < 0 {
			return errEncoding
		}
		field := m.Fields().ByNumber(number)
		if field != nil && (field.Message() != nil || field.IsList()) {
			*n++
		}
		if *n > maxElements {
			return errTooManyElements
		}
		if field != nil && field.Message() != nil && kind == protowire.BytesType {
			inner, _ := protowire.ConsumeBytes(b)
			if err := n.add(inner, field.Message(), depth+1); err != nil {
				return err
			}
		}
		b = b[size:]
	}
	return nil
}

// checkSet holds a decoded set against the bounds.
func checkSet(set *descriptorpb.FileDescriptorSet) error {
	if files := len(set.GetFile()); files > maxFiles {
		return fmt.Errorf("linking descriptors: %d files, limit %d", files, maxFiles)
	}
	if size := proto.Size(set); size > maxBytes {
		return fmt.Errorf("linking descriptors: %d bytes, limit %d", size, maxBytes)
	}
	var w weight
	for _, f := range set.GetFile() {
		w.addFile(f)
		if err := w.check(); err != nil {
			return fmt.Errorf("linking descriptors: file %q: %w", f.GetName(), err)
		}
	}
	return nil
}

// weight is what linking a set takes.
type weight struct {
	elements, methods int
	names, lookups    int // bytes
	tooDeep           bool
}

func (w *weight) check() error {
	switch {
	case w.tooDeep:
		return fmt.Errorf("messages nested deeper than %d", maxNesting)
	case w.elements > maxElements:
		return errTooManyElements
	case w.methods > maxMethods:
		return fmt.Errorf("more than %d methods", maxMethods)
	case w.names > maxNames:
		return fmt.Errorf("names of more than %d bytes", maxNames)
	case w.lookups > maxLookups:
		return errors.New("type names of too many parts")
	}
	return nil
}

// scope is the name that declarations stand below.
type scope struct {
	size   int // bytes of the full name
	levels int
	depth  int // of messages
}

func (w *weight) addFile(f *descriptorpb.FileDescriptorProto) {
	s := scope{size: len(f.GetPackage()), levels: strings.Count(f.GetPackage(), ".")}
	w.lookups = bounded(w.lookups, s.lookup()) // the package itself
	w.elements += 1 + len(f.GetDependency()) + len(f.GetSourceCodeInfo().GetLocation())
	w.addMessages(s, f.GetMessageType())
	w.addEnums(s, f.GetEnumType())
	w.addFields(s, f.GetExtension())
	for _, service := range f.GetService() {
		inner := w.declare(s, service.GetName())
		for _, m := range service.GetMethod() {
			w.methods++
			w.declare(inner, m.GetName())
			w.refer(inner, m.GetInputType())
			w.refer(inner, m.GetOutputType())
		}
	}
}

func (w *weight) addMessages(s scope, messages []*descriptorpb.DescriptorProto) {
	for _, m := range messages {
		inner := w.declare(s, m.GetName())
		if inner.depth++; inner.depth > maxNesting {
			w.tooDeep = true
			return
		}
		w.elements += len(m.GetExtensionRange()) + len(m.GetReservedRange()) + len(m.GetReservedName())
		for _, o := range m.GetOneofDecl() {
			w.declare(inner, o.GetName())
		}
		w.addFields(inner, m.GetField())
		w.addFields(inner, m.GetExtension())
		w.addEnums(inner, m.GetEnumType())
		w.addMessages(inner, m.GetNestedType())
	}
}

func (w *weight) addEnums(s scope, enums []*descriptorpb.EnumDescriptorProto) {
	for _, e := range enums {
		w.declare(s, e.GetName())
		w.elements += len(e.GetReservedRange()) + len(e.GetReservedName())
		for _, v := range e.GetValue() {
			w.declare(s, v.GetName()) // values stand beside their enum
		}
	}
}

func (w *weight) addFields(s scope, fields []*descriptorpb.FieldDescriptorProto) {
	for _, f := range fields {
		w.declare(s, f.GetName())
		w.refer(s, f.GetTypeName())
		w.refer(s, f.GetExtendee())
	}
}

// declare counts a declaration and returns the scope in it.
func (w *weight) declare(s scope, name string) scope {
	s.size += 1 + len(name)
	s.levels++
	w.elements++
	w.names = bounded(w.names, s.size)
	return s
}

// refer counts what finding a type takes. Full names begin with a dot.
func (w *weight) refer(s scope, name string) {
	named := scope{size: len(name), levels: strings.Count(name, ".")}
	if strings.HasPrefix(name, ".") {
		w.lookups = bounded(w.lookups, named.lookup())
		return
	}
	named.size += s.size
	named.levels += s.levels
	w.lookups = bounded(w.lookups, bounded(0, (s.levels+1)*named.lookup()))
}

// lookup is how many bytes are compared to look a name up by each of its prefixes.
func (s scope) lookup() int { return min((s.levels+1)*s.size, 1<<31) }

// bounded adds without running over.
func bounded(sum, more int) int { return min(sum+more, 1<<60) }
