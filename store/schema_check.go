package store

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	_ "google.golang.org/genproto/googleapis/api/annotations" // google/api/*.proto: what schemas import most
	_ "google.golang.org/genproto/googleapis/api/httpbody"
	_ "google.golang.org/genproto/googleapis/api/visibility"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	_ "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	_ "google.golang.org/protobuf/types/known/anypb" // google/protobuf/*.proto
	_ "google.golang.org/protobuf/types/known/apipb"
	_ "google.golang.org/protobuf/types/known/durationpb"
	_ "google.golang.org/protobuf/types/known/emptypb"
	_ "google.golang.org/protobuf/types/known/fieldmaskpb"
	_ "google.golang.org/protobuf/types/known/sourcecontextpb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"
	_ "google.golang.org/protobuf/types/known/typepb"
	_ "google.golang.org/protobuf/types/known/wrapperspb"
)

// What one descriptor set may ask of us. A message of two bytes takes some 200 bytes
// of memory once it is decoded, so they are counted before.
const (
	maxDescriptorFiles    = 2000
	maxDescriptorMessages = 300_000  // of descriptor.proto: files, messages, fields, locations
	maxDescriptorDepth    = 64       // of messages within messages
	maxPublicImports      = 100_000  // ways from all files to others by imports and public imports
	maxDescriptorNames    = 32 << 20 // bytes of the full names of all declarations
	maxDescriptorLookups  = 64 << 20 // bytes to compare where names of types are relative
)

var limitOfDescriptors = fmt.Sprintf("more than %d bytes of descriptors, the limit of one %s: leave out source information, or make several", MaxDescriptorSet, SchemaKind)

// checkDescriptorSet has an error for each file that is not what a compiler would
// have written, or imports what is not there.
func checkDescriptorSet(raw []byte) []error {
	if len(raw) > MaxDescriptorSet {
		return []error{errors.New(limitOfDescriptors)}
	}
	count := 0
	if err := countMessages(raw, (&descriptorpb.FileDescriptorSet{}).ProtoReflect().Descriptor(), maxDescriptorDepth, &count); err != nil {
		return []error{fmt.Errorf("not a google.protobuf.FileDescriptorSet: %s", libraryMessage(err))}
	}
	// Extensions stay as they are: what they become has not been counted.
	var set descriptorpb.FileDescriptorSet
	if err := (proto.UnmarshalOptions{Resolver: (*protoregistry.Types)(nil)}).Unmarshal(raw, &set); err != nil {
		return []error{fmt.Errorf("not a google.protobuf.FileDescriptorSet: %s", libraryMessage(err))}
	}
	switch n := len(set.GetFile()); {
	case n == 0:
		return []error{errors.New("not a google.protobuf.FileDescriptorSet: it has no file")}
	case n > maxDescriptorFiles:
		return []error{fmt.Errorf("%d files, limit %d", n, maxDescriptorFiles)}
	}
	if err := weigh(&set); err != nil {
		return []error{err}
	}
	return linkFiles(&set)
}

// countMessages counts the messages within a message, and refuses more than memory is
// meant for.
func countMessages(raw []byte, kind protoreflect.MessageDescriptor, depth int, count *int) error {
	if depth == 0 {
		return fmt.Errorf("messages deeper than %d within one another", maxDescriptorDepth)
	}
	for len(raw) > 0 {
		number, wire, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return protowire.ParseError(n)
		}
		raw = raw[n:]
		n = protowire.ConsumeFieldValue(number, wire, raw)
		if n < 0 {
			return protowire.ParseError(n)
		}
		field := kind.Fields().ByNumber(number)
		if field != nil && field.Message() != nil && wire == protowire.BytesType {
			if *count++; *count > maxDescriptorMessages {
				return fmt.Errorf("more than %d messages, fields and other parts", maxDescriptorMessages)
			}
			part, _ := protowire.ConsumeBytes(raw)
			if err := countMessages(part, field.Message(), depth-1, count); err != nil {
				return err
			}
		}
		raw = raw[n:]
	}
	return nil
}

// linker puts the files of a set together, each after those that it imports.
type linker struct {
	files  map[string]*descriptorpb.FileDescriptorProto
	linked protoregistry.Files
	public map[string]int // ways to the files that a file imports publicly
	ways   int            // of all files
	state  map[string]linkState
	faults []error
}

type linkState int

const (
	linkPending linkState = iota + 1
	linkDone
	linkFailed
)

func linkFiles(set *descriptorpb.FileDescriptorSet) []error {
	l := linker{
		files:  make(map[string]*descriptorpb.FileDescriptorProto, len(set.GetFile())),
		public: map[string]int{},
		state:  make(map[string]linkState, len(set.GetFile())),
	}
	for _, file := range set.GetFile() {
		if l.files[file.GetName()] != nil {
			l.fault(file.GetName(), errors.New("the file is there twice"))
			return l.faults
		}
		l.files[file.GetName()] = file
	}
	for _, file := range set.GetFile() {
		l.link(file.GetName())
	}
	return l.faults
}

func (l *linker) fault(file string, err error) {
	l.faults = append(l.faults, fmt.Errorf("file %s: %w", quote(file), err))
}

// link tells whether a file is fit to be imported. A fault is reported once, at the
// file that has it, not at those that import it.
func (l *linker) link(name string) bool {
	switch l.state[name] {
	case linkDone:
		return true
	case linkFailed:
		return false
	case linkPending:
		l.fault(name, errors.New("it imports itself, by way of others"))
		return false
	}
	l.state[name] = linkPending
	ok := l.linkImports(name)
	if ok {
		if err := l.linkFile(name); err != nil {
			l.fault(name, errors.New(libraryMessage(err)))
			ok = false
		}
	}
	l.state[name] = linkFailed
	if ok {
		l.state[name] = linkDone
	}
	return ok
}

// linkImports links what a file imports, or takes it from what this program has.
func (l *linker) linkImports(name string) bool {
	ok := true
	for _, path := range l.files[name].GetDependency() {
		if l.files[path] != nil {
			ok = l.link(path) && ok
			continue
		}
		if !l.adopt(path) {
			l.fault(name, fmt.Errorf("it imports %s, which the set does not have: make the set with all imports", quote(path)))
			ok = false
		}
	}
	return ok
}

// adopt takes a file of Google's from this program, with all that it imports but what
// the set has itself.
func (l *linker) adopt(path string) bool {
	if _, err := l.linked.FindFileByPath(path); err == nil {
		return true
	}
	if !strings.HasPrefix(path, "google/") {
		return false
	}
	file, err := protoregistry.GlobalFiles.FindFileByPath(path)
	return err == nil && l.linked.RegisterFile(file) == nil
}

func (l *linker) linkFile(name string) error {
	file := l.files[name]
	if err := checkEdition(file); err != nil {
		return err
	}
	if err := l.countPublic(file); err != nil {
		return err
	}
	descriptor, err := newFile(file, &l.linked)
	if err != nil {
		return err
	}
	return l.linked.RegisterFile(descriptor)
}

// checkEdition refuses what the library would end the process for.
func checkEdition(file *descriptorpb.FileDescriptorProto) error {
	if file.GetSyntax() != "editions" {
		return nil
	}
	switch edition := file.GetEdition(); edition {
	case descriptorpb.Edition_EDITION_2023, descriptorpb.Edition_EDITION_2024:
		return nil
	default:
		return fmt.Errorf("edition %v is not supported", edition)
	}
}

// countPublic bounds the ways by public imports: the library walks each of them from
// each file that imports one, and a ladder of 40 steps has a million million.
func (l *linker) countPublic(file *descriptorpb.FileDescriptorProto) error {
	imports, ways := file.GetDependency(), 0
	for _, i := range file.GetPublicDependency() {
		if i < 0 || int(i) >= len(imports) {
			return fmt.Errorf("public import %d of %d", i, len(imports))
		}
		ways = min(ways+1+l.public[imports[i]], maxPublicImports+1)
	}
	l.public[file.GetName()] = ways
	for _, path := range imports {
		l.ways = min(l.ways+l.public[path], maxPublicImports+1)
	}
	if l.ways > maxPublicImports || ways > maxPublicImports {
		return fmt.Errorf("more than %d ways to other files by public imports", maxPublicImports)
	}
	return nil
}

// newFile makes sure that whatever the library does not expect ends no process.
func newFile(file *descriptorpb.FileDescriptorProto, imports protodesc.Resolver) (descriptor protoreflect.FileDescriptor, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not understood: %v", p)
		}
	}()
	file.SourceCodeInfo = nil // comments are nothing to link
	return protodesc.NewFile(file, imports)
}

// libraryMessage is what the library says, on one line and not all of it when it is
// long, without its name and with the plain blanks that it puts there on some days only.
func libraryMessage(err error) string {
	const limit = 300 // names may be as long as the set
	message := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
	if len(message) > limit {
		message = strings.ToValidUTF8(message[:limit], "") + "…"
	}
	for _, r := range message {
		if !strconv.IsPrint(r) {
			return strconv.Quote(message)
		}
	}
	return message
}
