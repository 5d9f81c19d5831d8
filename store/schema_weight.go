package store

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/descriptorpb"
)

// weight is what it takes to link descriptors: each declaration has a full name, which
// repeats those around it, and a relative name of a type is looked up in scope after
// scope. Both may be many times the size of the text.
type weight struct{ names, lookups int }

// weigh refuses what would take too much, before it is linked.
func weigh(set *descriptorpb.FileDescriptorSet) error {
	var w weight
	for _, file := range set.GetFile() {
		w.addFile(file)
		if w.names > maxDescriptorNames {
			return fmt.Errorf("file %s: full names of more than %d bytes in all", quote(file.GetName()), maxDescriptorNames)
		}
		if w.lookups > maxDescriptorLookups {
			return fmt.Errorf("file %s: relative names of types in too many scopes: write them in full, as compilers do", quote(file.GetName()))
		}
	}
	return nil
}

// full reports whether there is more than may be: then nothing else need be added.
func (w *weight) full() bool {
	return w.names > maxDescriptorNames || w.lookups > maxDescriptorLookups
}

// scope is what declarations stand in.
type scope struct{ size, levels int } // of its full name: bytes, and parts

func (w *weight) addFile(file *descriptorpb.FileDescriptorProto) {
	in := scope{len(file.GetPackage()), 1 + strings.Count(file.GetPackage(), ".")}
	w.addMessages(in, file.GetMessageType())
	w.addEnums(in, file.GetEnumType())
	w.addFields(in, file.GetExtension())
	for _, service := range file.GetService() {
		inner := w.declare(in, service.GetName())
		for _, method := range service.GetMethod() {
			w.declare(inner, method.GetName())
			w.refer(inner, method.GetInputType())
			w.refer(inner, method.GetOutputType())
		}
	}
}

func (w *weight) addMessages(in scope, messages []*descriptorpb.DescriptorProto) {
	for _, message := range messages {
		if w.full() {
			return
		}
		inner := w.declare(in, message.GetName())
		w.addFields(inner, message.GetField())
		w.addFields(inner, message.GetExtension())
		for _, one := range message.GetOneofDecl() {
			w.declare(inner, one.GetName())
		}
		w.addEnums(inner, message.GetEnumType())
		w.addMessages(inner, message.GetNestedType())
	}
}

func (w *weight) addEnums(in scope, enums []*descriptorpb.EnumDescriptorProto) {
	for _, enum := range enums {
		w.declare(in, enum.GetName())
		for _, value := range enum.GetValue() {
			w.declare(in, value.GetName()) // beside the enum, not in it
		}
	}
}

func (w *weight) addFields(in scope, fields []*descriptorpb.FieldDescriptorProto) {
	for _, field := range fields {
		w.declare(in, field.GetName())
		w.refer(in, field.GetTypeName())
		w.refer(in, field.GetExtendee())
	}
}

func (w *weight) declare(in scope, name string) scope {
	if !w.full() {
		w.names += in.size + 1 + len(name)
	}
	return scope{in.size + 1 + len(name), in.levels + 1}
}

// refer counts what it takes to look a name up; a full one begins with a dot.
func (w *weight) refer(in scope, name string) {
	if name != "" && name[0] != '.' && !w.full() {
		w.lookups += in.levels * (in.size + len(name))
	}
}
