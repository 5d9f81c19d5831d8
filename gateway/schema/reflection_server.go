package schema

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Reflection answers grpc.reflection for a list of schemas, as if they were one server's.
// It does not change and is safe for use by several goroutines.
//
// What several schemas declare is told of the first that has it. Files that have one name
// but not the same content, in themselves or in what they import, get other names beyond
// the first, in their imports too: so whatever is told fits together.
type Reflection struct {
	schemas []*Schema
	routed  func(service string) bool

	once     sync.Once // for what follows
	services []string
	renamed  []map[string]string // of each schema, files' paths to others
	byPath   map[string]place
	// extensions are the numbers of extensions by what they extend.
	extensions map[protoreflect.FullName][]int32
}

// place is where a file is.
type place struct {
	schema int
	file   protoreflect.FileDescriptor
}

// NewReflection answers for the services of schemas that routed tells; nil means all.
// What there is to prepare is done when the first question comes.
func NewReflection(schemas []*Schema, routed func(service string) bool) *Reflection {
	return &Reflection{schemas: schemas, routed: routed}
}

// Conversation is one RPC of reflection, of either version. One goroutine uses it.
type Conversation struct {
	reflection *Reflection
	sent       map[string]bool // files, by the path that was told
}

// Converse begins an RPC.
func (r *Reflection) Converse() *Conversation {
	r.once.Do(r.prepare)
	return &Conversation{reflection: r, sent: make(map[string]bool)}
}

// Answer answers one message. What does not exist is told in the answer; an error is for
// a message that is no question, and ends the RPC with INVALID_ARGUMENT.
func (c *Conversation) Answer(message []byte) ([]byte, error) {
	request := new(grpc_reflection_v1.ServerReflectionRequest)
	if err := proto.Unmarshal(message, request); err != nil {
		return nil, fmt.Errorf("decoding a question to reflection: %w", plain(err))
	}
	r := c.reflection
	answer := &grpc_reflection_v1.ServerReflectionResponse{ValidHost: request.GetHost(), OriginalRequest: request}
	switch q := request.GetMessageRequest().(type) {
	case *grpc_reflection_v1.ServerReflectionRequest_ListServices:
		r.listServices(answer)
	case *grpc_reflection_v1.ServerReflectionRequest_FileByFilename:
		p, ok := r.fileByPath(q.FileByFilename)
		c.tell(answer, p, ok, "file", q.FileByFilename)
	case *grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol:
		p, ok := r.fileOfSymbol(protoreflect.FullName(q.FileContainingSymbol))
		c.tell(answer, p, ok, "symbol", q.FileContainingSymbol)
	case *grpc_reflection_v1.ServerReflectionRequest_FileContainingExtension:
		e := q.FileContainingExtension
		p, ok := r.fileOfExtension(protoreflect.FullName(e.GetContainingType()), protoreflect.FieldNumber(e.GetExtensionNumber()))
		c.tell(answer, p, ok, "extension", fmt.Sprintf("%s %d", e.GetContainingType(), e.GetExtensionNumber()))
	case *grpc_reflection_v1.ServerReflectionRequest_AllExtensionNumbersOfType:
		r.listExtensions(answer, q.AllExtensionNumbersOfType)
	default:
		return nil, errors.New("the question to reflection asks for nothing")
	}
	return proto.Marshal(answer)
}

// tell answers with a file and all that it imports, but for what was told before. The
// file that was asked for comes first, and always.
func (c *Conversation) tell(answer *grpc_reflection_v1.ServerReflectionResponse, p place, found bool, kind, name string) {
	if !found {
		notFound(answer, kind, name)
		return
	}
	response := new(grpc_reflection_v1.FileDescriptorResponse)
	queue := []protoreflect.FileDescriptor{p.file}
	queued := map[string]bool{p.file.Path(): true}
	for ; len(queue) > 0; queue = queue[1:] {
		f := queue[0]
		path := c.reflection.path(p.schema, f.Path())
		if f == p.file || !c.sent[path] {
			c.sent[path] = true
			response.FileDescriptorProto = append(response.FileDescriptorProto, c.reflection.encode(p.schema, f))
		}
		for i := range f.Imports().Len() {
			if next := f.Imports().Get(i); !next.IsPlaceholder() && !queued[next.Path()] {
				queued[next.Path()] = true
				queue = append(queue, next.FileDescriptor)
			}
		}
	}
	answer.MessageResponse = &grpc_reflection_v1.ServerReflectionResponse_FileDescriptorResponse{FileDescriptorResponse: response}
}

func notFound(answer *grpc_reflection_v1.ServerReflectionResponse, kind, name string) {
	answer.MessageResponse = &grpc_reflection_v1.ServerReflectionResponse_ErrorResponse{
		ErrorResponse: &grpc_reflection_v1.ErrorResponse{
			ErrorCode:    int32(codes.NotFound),
			ErrorMessage: fmt.Sprintf("sluice: %s %.200q is not known here", kind, name),
		},
	}
}

// reflectionFiles are the files of the service itself, which is listed too.
var reflectionFiles = func() *protoregistry.Files {
	files := new(protoregistry.Files)
	for _, f := range []protoreflect.FileDescriptor{
		grpc_reflection_v1.File_grpc_reflection_v1_reflection_proto,
		grpc_reflection_v1alpha.File_grpc_reflection_v1alpha_reflection_proto,
	} {
		if err := files.RegisterFile(f); err != nil {
			panic(err) // two files of two packages
		}
	}
	return files
}()

// prepare decides which services are listed and what files are called.
func (r *Reflection) prepare() {
	listed := make(map[string]bool)
	r.byPath = make(map[string]place)
	reflectionFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		r.byPath[f.Path()] = place{schema: -1, file: f}
		listed[string(f.Services().Get(0).FullName())] = true
		return true
	})
	told := make(map[string]digest) // by path
	for i, s := range r.schemas {
		for _, service := range s.Services() {
			if r.routed == nil || r.routed(service) {
				listed[service] = true
			}
		}
		r.renamed = append(r.renamed, r.nameFiles(i, s, told))
	}
	r.services = slices.Sorted(maps.Keys(listed))
	r.extensions = extensionNumbers(r.schemas)
}

// nameFiles gives the files of a schema the paths that they are told by, and returns
// those that are not their own.
func (r *Reflection) nameFiles(schema int, s *Schema, told map[string]digest) map[string]string {
	renamed := make(map[string]string)
	for _, f := range s.order {
		path := f.Path()
		for n := 2; r.byPath[path].file != nil && told[path] != f.digest; n++ {
			path = fmt.Sprintf("%s.%d.proto", strings.TrimSuffix(f.Path(), ".proto"), n)
		}
		if path != f.Path() {
			renamed[f.Path()] = path
		}
		if r.byPath[path].file == nil {
			r.byPath[path] = place{schema: schema, file: f.FileDescriptor}
			told[path] = f.digest
		}
	}
	return renamed
}

// path is what a file of a schema is called.
func (r *Reflection) path(schema int, path string) string {
	if schema >= 0 {
		if other, ok := r.renamed[schema][path]; ok {
			return other
		}
	}
	return path
}

// encode encodes a file under the names that it and its imports are told by. It was
// encoded once when it was linked, so that it can be.
func (r *Reflection) encode(schema int, f protoreflect.FileDescriptor) []byte {
	told := protodesc.ToFileDescriptorProto(f)
	told.Name = proto.String(r.path(schema, f.Path()))
	for i, path := range told.Dependency {
		told.Dependency[i] = r.path(schema, path)
	}
	encoded, err := proto.MarshalOptions{AllowPartial: true}.Marshal(told)
	if err != nil {
		return nil
	}
	return encoded
}

func (r *Reflection) listServices(answer *grpc_reflection_v1.ServerReflectionResponse) {
	list := new(grpc_reflection_v1.ListServiceResponse)
	for _, s := range r.services {
		list.Service = append(list.Service, &grpc_reflection_v1.ServiceResponse{Name: s})
	}
	answer.MessageResponse = &grpc_reflection_v1.ServerReflectionResponse_ListServicesResponse{ListServicesResponse: list}
}

func (r *Reflection) fileByPath(path string) (place, bool) {
	if p, ok := r.byPath[path]; ok {
		return p, true
	}
	f := standardFile(path)
	return place{schema: -1, file: f}, f != nil
}

// fileOfSymbol finds the declaration of a name.
func (r *Reflection) fileOfSymbol(name protoreflect.FullName) (place, bool) {
	for i, s := range r.schemas {
		if d, err := s.files.FindDescriptorByName(name); err == nil && r.tells(s, d) {
			return place{schema: i, file: d.ParentFile()}, true
		}
	}
	if d, err := reflectionFiles.FindDescriptorByName(name); err == nil {
		return place{schema: -1, file: d.ParentFile()}, true
	}
	if d := standardDescriptor(name); d != nil {
		return place{schema: -1, file: d.ParentFile()}, true
	}
	return place{}, false
}

// tells tells whether a declaration of a schema may be found by its name: a service only
// where it is served and routed.
func (r *Reflection) tells(s *Schema, d protoreflect.Descriptor) bool {
	if m, ok := d.(protoreflect.MethodDescriptor); ok {
		d = m.Parent()
	}
	service, ok := d.(protoreflect.ServiceDescriptor)
	if !ok {
		return true
	}
	_, served := slices.BinarySearch(s.services, string(service.FullName()))
	_, listed := slices.BinarySearch(r.services, string(service.FullName()))
	return served && listed
}

func (r *Reflection) fileOfExtension(message protoreflect.FullName, number protoreflect.FieldNumber) (place, bool) {
	for i, s := range r.schemas {
		if xt, err := s.types.FindExtensionByNumber(message, number); err == nil {
			return place{schema: i, file: xt.TypeDescriptor().ParentFile()}, true
		}
	}
	return place{}, false
}

// listExtensions answers with the numbers of the extensions of a message, those of all
// schemas.
func (r *Reflection) listExtensions(answer *grpc_reflection_v1.ServerReflectionResponse, message string) {
	numbers := r.extensions[protoreflect.FullName(message)]
	if _, known := r.fileOfSymbol(protoreflect.FullName(message)); !known && len(numbers) == 0 {
		notFound(answer, "type", message)
		return
	}
	answer.MessageResponse = &grpc_reflection_v1.ServerReflectionResponse_AllExtensionNumbersResponse{
		AllExtensionNumbersResponse: &grpc_reflection_v1.ExtensionNumberResponse{BaseTypeName: message, ExtensionNumber: numbers},
	}
}

// extensionNumbers are the numbers of all extensions in schemas, by what they extend.
func extensionNumbers(schemas []*Schema) map[protoreflect.FullName][]int32 {
	numbers := make(map[protoreflect.FullName][]int32)
	add := func(list protoreflect.ExtensionDescriptors) {
		for i := range list.Len() {
			message := list.Get(i).ContainingMessage().FullName()
			numbers[message] = append(numbers[message], int32(list.Get(i).Number()))
		}
	}
	var visit func(messages protoreflect.MessageDescriptors)
	visit = func(messages protoreflect.MessageDescriptors) {
		for i := range messages.Len() {
			add(messages.Get(i).Extensions())
			visit(messages.Get(i).Messages())
		}
	}
	for _, s := range schemas {
		s.files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
			add(f.Extensions())
			visit(f.Messages())
			return true
		})
	}
	for message, list := range numbers {
		slices.Sort(list)
		numbers[message] = slices.Compact(list)
	}
	return numbers
}
