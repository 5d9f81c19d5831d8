package schema

import (
	"strings"

	_ "google.golang.org/genproto/googleapis/api" // google/api/launch_stage.proto
	_ "google.golang.org/genproto/googleapis/api/annotations"
	_ "google.golang.org/genproto/googleapis/api/httpbody"
	_ "google.golang.org/genproto/googleapis/api/visibility"
	_ "google.golang.org/genproto/googleapis/rpc/code"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	_ "google.golang.org/genproto/googleapis/rpc/http"
	_ "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	_ "google.golang.org/protobuf/types/gofeaturespb"
	_ "google.golang.org/protobuf/types/known/anypb"
	_ "google.golang.org/protobuf/types/known/apipb"
	_ "google.golang.org/protobuf/types/known/durationpb"
	_ "google.golang.org/protobuf/types/known/emptypb"
	_ "google.golang.org/protobuf/types/known/fieldmaskpb"
	_ "google.golang.org/protobuf/types/known/sourcecontextpb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"
	_ "google.golang.org/protobuf/types/known/typepb"
	_ "google.golang.org/protobuf/types/known/wrapperspb"
	_ "google.golang.org/protobuf/types/pluginpb"
)

// The files that everybody imports and nobody changes are always those that the binary
// was built with: a set often lacks them, and code that knows these messages by name must
// not meet others of the same name.

// standardFile is the linked file of that path, nil when there is none. The binary has
// other files too, of its own API for example; those are nobody's imports.
func standardFile(path string) protoreflect.FileDescriptor {
	if !isStandardPath(path) {
		return nil
	}
	f, err := protoregistry.GlobalFiles.FindFileByPath(path)
	if err != nil {
		return nil
	}
	return f
}

func isStandardPath(path string) bool {
	return strings.HasPrefix(path, "google/protobuf/") ||
		strings.HasPrefix(path, "google/api/") ||
		strings.HasPrefix(path, "google/rpc/")
}

// standardOf are the files of a set that linked ones take the place of.
func standardOf(set *descriptorpb.FileDescriptorSet) []string {
	var paths []string
	for _, f := range set.GetFile() {
		if standardFile(f.GetName()) != nil {
			paths = append(paths, f.GetName())
		}
	}
	return paths
}

// standardDescriptor is the declaration of that name in a linked standard file, or nil.
func standardDescriptor(name protoreflect.FullName) protoreflect.Descriptor {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil || !isStandardPath(d.ParentFile().Path()) {
		return nil
	}
	return d
}

// standardMessage is the generated type of that name, or nil.
func standardMessage(name protoreflect.FullName) protoreflect.MessageType {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil || !isStandardPath(mt.Descriptor().ParentFile().Path()) {
		return nil
	}
	return mt
}

// impostor is a declaration of a file that has the name of a standard one and is not like
// it; "" when there is none. Files are compiled under many paths, so that a copy is fine.
func impostor(f protoreflect.FileDescriptor) protoreflect.FullName {
	if f.Package() != "google" && !strings.HasPrefix(string(f.Package()), "google.") {
		return ""
	}
	for i := range f.Enums().Len() {
		if e := f.Enums().Get(i); standardDescriptor(e.FullName()) != nil && !sameEnum(e) {
			return e.FullName()
		}
	}
	return impostorMessage(f.Messages())
}

func impostorMessage(messages protoreflect.MessageDescriptors) protoreflect.FullName {
	for i := range messages.Len() {
		m := messages.Get(i)
		if standard := standardDescriptor(m.FullName()); standard != nil && !sameMessage(m, standard) {
			return m.FullName()
		}
		if name := impostorMessage(m.Messages()); name != "" {
			return name
		}
	}
	return ""
}

func sameEnum(e protoreflect.EnumDescriptor) bool {
	standard, ok := standardDescriptor(e.FullName()).(protoreflect.EnumDescriptor)
	if !ok || e.Values().Len() != standard.Values().Len() {
		return false
	}
	for i := range e.Values().Len() {
		a, b := e.Values().Get(i), standard.Values().Get(i)
		if a.Name() != b.Name() || a.Number() != b.Number() {
			return false
		}
	}
	return true
}

// sameMessage tells whether the fields are the same, but for their options and defaults.
func sameMessage(m protoreflect.MessageDescriptor, d protoreflect.Descriptor) bool {
	standard, ok := d.(protoreflect.MessageDescriptor)
	if !ok || m.Fields().Len() != standard.Fields().Len() || m.IsMapEntry() != standard.IsMapEntry() {
		return false
	}
	for i := range m.Fields().Len() {
		a := m.Fields().Get(i)
		if b := standard.Fields().ByNumber(a.Number()); b == nil || !sameField(a, b) {
			return false
		}
	}
	return true
}

func sameField(a, b protoreflect.FieldDescriptor) bool {
	return a.Name() == b.Name() && a.Kind() == b.Kind() && a.Cardinality() == b.Cardinality() &&
		a.IsMap() == b.IsMap() && a.HasPresence() == b.HasPresence() &&
		nameOf(a.Message()) == nameOf(b.Message()) && nameOf(a.Enum()) == nameOf(b.Enum()) &&
		nameOf(a.ContainingOneof()) == nameOf(b.ContainingOneof())
}

// nameOf is the full name of a descriptor, "" of none.
func nameOf(d protoreflect.Descriptor) protoreflect.FullName {
	if d == nil {
		return ""
	}
	return d.FullName()
}
