package schema

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Schema is a set of descriptors that fit together. It does not change, and its methods
// are safe for use by several goroutines.
type Schema struct {
	files    *protoregistry.Files
	order    []file // those of the set, each after what it imports
	types    *dynamicpb.Types
	byPath   map[string]*Method
	methods  []*Method // by path
	services []string  // by name
	faults   []error
	unsaid   int // faults beyond maxFaults
	// incomplete are the messages that cannot be made, each with the name that it lacks.
	incomplete map[protoreflect.FullName]protoreflect.FullName
	digest     digest // of all files and services
}

// file is one file of a schema.
type file struct {
	protoreflect.FileDescriptor
	// digest is of its content and of all that it imports.
	digest digest
}

// maxFaults bounds what is kept to be told; a set of nonsense has thousands.
const maxFaults = 100

// Compile links the files of a set. What the set lacks of google/protobuf, google/api and
// google/rpc is filled in, and what it has of them is replaced, by the files that the
// binary was built with. What cannot be linked is left out, and told by Faults. It is an
// error when the set is beyond a bound, or when nothing is left of a set that has files.
func Compile(set *descriptorpb.FileDescriptorSet) (*Schema, error) {
	return compile(set, nil)
}

// Parse decodes a google.protobuf.FileDescriptorSet and compiles it.
func Parse(encoded []byte) (*Schema, error) {
	set, err := decodeSet(encoded)
	if err != nil {
		return nil, err
	}
	return Compile(set)
}

// compile is Compile for the services that serves tells; nil means all.
func compile(set *descriptorpb.FileDescriptorSet, serves func(service string) bool) (*Schema, error) {
	if err := checkSet(set); err != nil {
		return nil, err
	}
	s := &Schema{files: new(protoregistry.Files), byPath: make(map[string]*Method)}
	newLinker(s, set).link()
	s.types = dynamicpb.NewTypes(s.files)
	s.incomplete = incompleteMessages(s.order)
	if err := s.addServices(serves); err != nil {
		return nil, err
	}
	if len(s.order) == 0 && len(set.GetFile()) > len(standardOf(set)) {
		return nil, fmt.Errorf("linking descriptors: none of %d files can be used: %w", len(set.GetFile()), someOf(s.faults, s.unsaid))
	}
	s.digest = digestSchema(s)
	return s, nil
}

func (s *Schema) addServices(serves func(service string) bool) error {
	for _, f := range s.order {
		for i := range f.Services().Len() {
			if service := f.Services().Get(i); serves == nil || serves(string(service.FullName())) {
				s.addService(service)
			}
		}
	}
	if len(s.methods) > maxMethods {
		return fmt.Errorf("linking descriptors: %d methods, limit %d", len(s.methods), maxMethods)
	}
	slices.Sort(s.services)
	slices.SortFunc(s.methods, func(a, b *Method) int { return cmp.Compare(a.Path, b.Path) })
	return nil
}

// Method is the method of that path, "/shop.v1.Cart/Add", or nil.
func (s *Schema) Method(path string) *Method { return s.byPath[path] }

// Methods are all methods by path. The list is not to be changed.
func (s *Schema) Methods() []*Method { return s.methods }

// Services are the full names of the services, sorted. The list is not to be changed.
func (s *Schema) Services() []string { return s.services }

// Faults tell what was left out, and why.
func (s *Schema) Faults() []error {
	if s.unsaid == 0 {
		return s.faults
	}
	return append(slices.Clip(s.faults), fmt.Errorf("and %d more", s.unsaid))
}

func (s *Schema) faultf(format string, args ...any) {
	if len(s.faults) == maxFaults {
		s.unsaid++
		return
	}
	s.faults = append(s.faults, shortened(fmt.Errorf(format, args...)))
}

// shortened is an error that says no more than a page of what a peer may have made
// endless.
func shortened(err error) error {
	const most = 1000
	if text := err.Error(); len(text) > most {
		return errors.New(strings.ToValidUTF8(text[:most], "") + "…")
	}
	return err
}

// someOf are the first few of many faults, as one error. There are more unsaid.
func someOf(faults []error, unsaid int) error {
	const few = 3
	if more := len(faults) - few + unsaid; more > 0 {
		faults = append(slices.Clip(faults[:few]), fmt.Errorf("and %d more", more))
	}
	return errors.Join(faults...)
}

// FileSet is the schema as a set of files, each after what it imports, with the standard
// ones that it needs. It is made anew for each call.
func (s *Schema) FileSet() *descriptorpb.FileDescriptorSet {
	set := new(descriptorpb.FileDescriptorSet)
	seen := make(map[string]bool)
	for _, f := range s.order {
		closure(f.FileDescriptor, seen, func(d protoreflect.FileDescriptor) {
			set.File = append(set.File, protodesc.ToFileDescriptorProto(d))
		})
	}
	return set
}

// closure visits a file after all that it imports, but for what was seen and for imports
// that are not there.
func closure(f protoreflect.FileDescriptor, seen map[string]bool, visit func(protoreflect.FileDescriptor)) {
	if f.IsPlaceholder() || seen[f.Path()] {
		return
	}
	seen[f.Path()] = true
	for i := range f.Imports().Len() {
		closure(f.Imports().Get(i).FileDescriptor, seen, visit)
	}
	visit(f)
}
