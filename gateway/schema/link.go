package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// linker makes descriptors of the files of a set, each after what it imports.
type linker struct {
	schema *Schema
	set    []*descriptorpb.FileDescriptorProto
	files  map[string]*linking
	walked int // ways by public imports, from the imports of all files so far
}

// linking is how far a file of the set is.
type linking struct {
	proto      *descriptorpb.FileDescriptorProto
	state      linkState
	publicWays int    // in how many ways public imports lead on from here
	digest     digest // once it is linked
}

type linkState uint8

const (
	waiting linkState = iota
	underWay
	linked
	leftOut
)

func newLinker(s *Schema, set *descriptorpb.FileDescriptorSet) *linker {
	l := &linker{schema: s, files: make(map[string]*linking)}
	for _, f := range set.GetFile() {
		l.add(f)
	}
	return l
}

// add takes a file into account. Of several with one name the first counts.
func (l *linker) add(f *descriptorpb.FileDescriptorProto) {
	path := f.GetName()
	if standardFile(path) != nil {
		return
	}
	if other, twice := l.files[path]; twice {
		if !proto.Equal(other.proto, f) {
			l.schema.faultf("file %.100q: a second one with other content left out", path)
		}
		return
	}
	l.files[path] = &linking{proto: f}
	l.set = append(l.set, f)
}

func (l *linker) link() {
	for _, f := range l.set {
		l.linkFile(f.GetName())
	}
}

// importLoop is a chain of imports that leads back to where it begins.
type importLoop []string

func (c importLoop) Error() string { return "import loop: " + strings.Join(c, " → ") }

// linkFile links a file and first what it imports. What goes wrong is told as a fault,
// and the file then counts as missing. A loop is returned while it is not closed, so that
// all of its files are left out and none that merely leads to it.
func (l *linker) linkFile(path string) importLoop {
	f := l.files[path]
	if f == nil || f.state == linked || f.state == leftOut {
		return nil
	}
	if f.state == underWay {
		return importLoop{path}
	}
	f.state = underWay
	if loop := l.linkImports(f); loop != nil {
		f.state = leftOut
		last := loop[len(loop)-1]
		loop = append(importLoop{path}, loop...)
		if last != path {
			return loop
		}
		l.schema.faultf("files left out: %w", loop)
		return nil
	}
	if err := l.register(f); err != nil {
		f.state = leftOut
		l.schema.faultf("file %.100q left out: %w", path, err)
		return nil
	}
	f.state = linked
	return nil
}

func (l *linker) linkImports(f *linking) importLoop {
	for _, dependency := range f.proto.GetDependency() {
		if loop := l.linkFile(dependency); loop != nil {
			return loop
		}
	}
	return nil
}

// register makes the descriptor of a file, whose imports are linked or not to be had.
func (l *linker) register(f *linking) error {
	if path := f.proto.GetName(); !utf8.ValidString(path) || len(path) > maxPath {
		return fmt.Errorf("its path is not UTF-8, or has more than %d bytes", maxPath)
	}
	if err := checkEdition(f.proto); err != nil {
		return err
	}
	if err := l.countPublicWays(f); err != nil {
		return err
	}
	d, err := l.descriptor(f)
	if err != nil {
		return plain(err)
	}
	if name := impostor(d); name != "" {
		return fmt.Errorf("it declares %q otherwise than everybody knows it", name)
	}
	if err := l.schema.files.RegisterFile(d); err != nil {
		return plain(err)
	}
	l.schema.order = append(l.schema.order, file{FileDescriptor: d, digest: f.digest})
	return nil
}

// descriptor makes the descriptor of a file, and tries to encode it again, so that this
// can be done later. What the library does not expect ends no process: descriptors come
// from peers.
func (l *linker) descriptor(f *linking) (d protoreflect.FileDescriptor, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not understood: %v", p)
		}
	}()
	d, err = protodesc.FileOptions{AllowUnresolvable: true}.New(slim(f.proto), l)
	if err != nil {
		return nil, err
	}
	f.digest, err = l.digest(d)
	return d, err
}

// checkEdition refuses the editions of which the library knows no defaults: it ends the
// process for one of them.
func checkEdition(f *descriptorpb.FileDescriptorProto) error {
	if f.GetSyntax() != "editions" {
		return nil
	}
	switch e := f.GetEdition(); e {
	case descriptorpb.Edition_EDITION_2023, descriptorpb.Edition_EDITION_2024:
		return nil
	default:
		return fmt.Errorf("edition %v is not supported", e)
	}
}

// countPublicWays refuses what would take the library too long to walk.
func (l *linker) countPublicWays(f *linking) error {
	imports := f.proto.GetDependency()
	for _, i := range f.proto.GetPublicDependency() {
		if i < 0 || int(i) >= len(imports) {
			return fmt.Errorf("public import %d of %d", i, len(imports))
		}
		ways := 1
		if next := l.files[imports[i]]; next != nil {
			ways += next.publicWays
		}
		if f.publicWays += ways; f.publicWays > maxPublicWays {
			return fmt.Errorf("public imports lead on in more than %d ways", maxPublicWays)
		}
	}
	for _, path := range imports { // those of any import are walked, too
		if next := l.files[path]; next != nil {
			l.walked = min(l.walked+next.publicWays, maxWalked+1)
		}
	}
	if l.walked > maxWalked {
		return fmt.Errorf("imports of all files lead on in more than %d ways", maxWalked)
	}
	return nil
}

// FindFileByPath implements protodesc.Resolver.
func (l *linker) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if f, err := l.schema.files.FindFileByPath(path); err == nil {
		return f, nil
	}
	if f := standardFile(path); f != nil {
		return f, l.registerStandard(f)
	}
	return nil, protoregistry.NotFound
}

// FindDescriptorByName implements protodesc.Resolver.
func (l *linker) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	return l.schema.files.FindDescriptorByName(name)
}

// registerStandard makes a standard file part of the schema, with all that it imports.
func (l *linker) registerStandard(f protoreflect.FileDescriptor) error {
	if _, err := l.schema.files.FindFileByPath(f.Path()); err == nil {
		return nil
	}
	for i := range f.Imports().Len() {
		if err := l.registerStandard(f.Imports().Get(i).FileDescriptor); err != nil {
			return err
		}
	}
	return l.schema.files.RegisterFile(f)
}

// slim is a file without the places of its declarations in their source, of which there
// are several for each; those with comments stay.
func slim(f *descriptorpb.FileDescriptorProto) *descriptorpb.FileDescriptorProto {
	if f.GetSourceCodeInfo() == nil {
		return f
	}
	commented := slices.DeleteFunc(slices.Clone(f.GetSourceCodeInfo().GetLocation()), func(l *descriptorpb.SourceCodeInfo_Location) bool {
		spans := len(l.GetSpan()) == 3 || len(l.GetSpan()) == 4
		return !spans || l.GetLeadingComments() == "" && l.GetTrailingComments() == "" && len(l.GetLeadingDetachedComments()) == 0
	})
	slimmed := new(descriptorpb.FileDescriptorProto)
	f.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		slimmed.ProtoReflect().Set(field, v)
		return true
	})
	slimmed.SourceCodeInfo = &descriptorpb.SourceCodeInfo{Location: commented}
	return slimmed
}

// plain is an error of the protobuf library without the mark and the odd space that it
// begins its messages with.
func plain(err error) error {
	_, text, found := strings.Cut(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
	if !found {
		text = err.Error()
	}
	return errors.New(text)
}

// incompleteMessages are the messages that cannot be made, because a type that they are
// made of is declared nowhere; each with the name of that type.
func incompleteMessages(files []file) map[protoreflect.FullName]protoreflect.FullName {
	incomplete := make(map[protoreflect.FullName]protoreflect.FullName)
	users := make(map[protoreflect.FullName][]protoreflect.FullName)
	var visit func(messages protoreflect.MessageDescriptors)
	visit = func(messages protoreflect.MessageDescriptors) {
		for i := range messages.Len() {
			m := messages.Get(i)
			for j := range m.Fields().Len() {
				f := m.Fields().Get(j)
				if name := placeholder(f); name != "" {
					incomplete[m.FullName()] = name
				} else if f.Message() != nil {
					users[f.Message().FullName()] = append(users[f.Message().FullName()], m.FullName())
				}
			}
			visit(m.Messages())
		}
	}
	for _, f := range files {
		visit(f.Messages())
	}
	if len(incomplete) == 0 {
		return nil
	}
	spread(incomplete, users)
	return incomplete
}

// spread carries incompleteness to those that use an incomplete message.
func spread(incomplete map[protoreflect.FullName]protoreflect.FullName, users map[protoreflect.FullName][]protoreflect.FullName) {
	var open []protoreflect.FullName
	for name := range incomplete {
		open = append(open, name)
	}
	slices.Sort(open)
	for len(open) > 0 {
		name := open[0]
		open = open[1:]
		for _, user := range users[name] {
			if _, known := incomplete[user]; !known {
				incomplete[user] = incomplete[name]
				open = append(open, user)
			}
		}
	}
}

// placeholder is the name of a field's type that is declared nowhere, "" when there is none.
func placeholder(f protoreflect.FieldDescriptor) protoreflect.FullName {
	if m := f.Message(); m != nil && m.IsPlaceholder() {
		return m.FullName()
	}
	if e := f.Enum(); e != nil && e.IsPlaceholder() {
		return e.FullName()
	}
	return ""
}

// missing is what one of the messages lacks, "" when all can be made.
func (s *Schema) missing(messages ...protoreflect.MessageDescriptor) protoreflect.FullName {
	for _, m := range messages {
		if m.IsPlaceholder() {
			return m.FullName()
		}
		if name, ok := s.incomplete[m.FullName()]; ok {
			return name
		}
	}
	return ""
}
