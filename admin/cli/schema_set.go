package cli

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// Bounds of what is read.
const (
	maxSetFile    = 64 << 20 // bytes of a file with a descriptor set: JSON is longer, and comments are cut
	maxProtoFiles = 5000     // .proto files in the folders that are given
)

// descriptorSet is a google.protobuf.FileDescriptorSet. The zero one is empty.
type descriptorSet struct {
	file descriptorpb.FileDescriptorSet
	data []byte // the same on the wire
}

// read makes descriptors of what the user named: one descriptor set, or sources.
func (p *pushing) read(files []string) (*descriptorSet, error) {
	sources, err := isSources(files)
	if err != nil {
		return nil, err
	}
	var set *descriptorpb.FileDescriptorSet
	if sources {
		set, err = p.compile(files)
	} else {
		set, err = readSet(files[0], p.in)
	}
	if err != nil {
		return nil, err
	}
	return p.shortened(files[0], set)
}

// isSources tells whether files are .proto files and folders, or one descriptor set.
func isSources(files []string) (bool, error) {
	sources := 0
	for _, file := range files {
		info, err := os.Stat(file)
		if file != "-" && err != nil {
			return false, openError(file, err)
		}
		if file != "-" && info.IsDir() || strings.HasSuffix(file, ".proto") {
			sources++
		}
	}
	switch {
	case sources == len(files):
		return true, nil
	case sources > 0 || len(files) > 1:
		return false, usageErrorf("%s: want one descriptor set, or .proto files and folders of them", strings.Join(files, " "))
	}
	return false, nil
}

// compile makes descriptors of .proto files and of those in folders.
func (p *pushing) compile(files []string) (*descriptorpb.FileDescriptorSet, error) {
	if p.Compile == nil {
		return nil, errors.New("this program has no compiler for .proto files: give a descriptor set, as buf build -o writes it")
	}
	var sources []string
	for _, file := range files {
		found, err := protoFiles(file)
		if err != nil {
			return nil, err
		}
		sources = append(sources, found...)
	}
	if len(sources) == 0 {
		return nil, fmt.Errorf("no *.proto in %s", strings.Join(files, ", "))
	}
	set, err := p.Compile(p.ctx, p.imports, sources)
	if err == nil {
		return set, nil
	}
	var told int
	for line := range strings.Lines(err.Error()) {
		p.note("%s", printable(strings.TrimSuffix(line, "\n")))
		told++
	}
	return nil, fmt.Errorf("%s; nothing was changed", count(told, "fault"))
}

// protoFiles is the file itself, or all *.proto in a folder and below it.
func protoFiles(path string) ([]string, error) {
	if strings.HasSuffix(path, ".proto") {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return []string{path}, nil
		}
	}
	var found []string
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != path && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case !strings.HasSuffix(name, ".proto") || entry.IsDir():
			return nil
		case len(found) == maxProtoFiles:
			return fmt.Errorf("more than %d *.proto files, limit %[1]d", maxProtoFiles)
		}
		found = append(found, name)
		return nil
	})
	return found, openError(path, err)
}

// readSet reads a descriptor set, binary or in JSON.
func readSet(file string, stdin io.Reader) (*descriptorpb.FileDescriptorSet, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, openError(file, err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxSetFile+1))
	if err != nil {
		return nil, openError(file, err)
	}
	if len(data) > maxSetFile {
		return nil, fmt.Errorf("read %s: more than %d bytes, limit %[2]d", file, maxSetFile)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		// What other tools keep in it beside descriptors is nothing to us.
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, set)
	} else {
		err = proto.Unmarshal(data, set)
	}
	switch {
	case err != nil && bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		err = errors.New("it is compressed by gzip: unpack it first")
	case err == nil && len(set.GetFile()) == 0:
		err = errors.New("it has no file")
	}
	if err != nil {
		// The library varies its spaces, so that nobody compares its words.
		why := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
		return nil, fmt.Errorf("read %s: not a descriptor set, as protoc -o and buf build -o write it: %s", file, why)
	}
	return set, nil
}

// shortened leaves out where in a source things stand, but for the comments; these too
// when the set is else too long.
func (p *pushing) shortened(file string, set *descriptorpb.FileDescriptorSet) (*descriptorSet, error) {
	for _, f := range set.GetFile() {
		if info := f.GetSourceCodeInfo(); info != nil {
			info.Location = slices.DeleteFunc(info.GetLocation(), func(l *descriptorpb.SourceCodeInfo_Location) bool {
				return l.GetLeadingComments() == "" && l.GetTrailingComments() == ""
			})
		}
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(set)
	if err == nil && len(data) > store.MaxDescriptorSet {
		p.note("%s: %d bytes, limit %d: without its comments", file, len(data), store.MaxDescriptorSet)
		for _, f := range set.GetFile() {
			f.SourceCodeInfo = nil
		}
		data, err = proto.MarshalOptions{Deterministic: true}.Marshal(set)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(data) > store.MaxDescriptorSet {
		return nil, fmt.Errorf("%s: %d bytes of descriptors without comments, limit %d; push fewer services, under several names", file, len(data), store.MaxDescriptorSet)
	}
	return parseSet(data)
}

// parseSet reads a set on the wire, so that its options are of the types that this
// program knows, wherever they come from.
func parseSet(data []byte) (*descriptorSet, error) {
	s := &descriptorSet{data: data}
	if err := proto.Unmarshal(data, &s.file); err != nil {
		return nil, fmt.Errorf("read descriptors: %w", err)
	}
	return s, nil
}

// readBase64 reads the set of a manifest.
func readBase64(text string) (*descriptorSet, error) {
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("read descriptors: %w", err)
	}
	return parseSet(data)
}

func (s *descriptorSet) base64() string { return base64.StdEncoding.EncodeToString(s.data) }

// services are the names of all services, sorted.
func (s *descriptorSet) services() []string {
	var names []string
	for _, f := range s.file.GetFile() {
		for _, service := range f.GetService() {
			names = append(names, qualified(f.GetPackage(), service.GetName()))
		}
	}
	slices.Sort(names)
	return names
}

func qualified(scope, name string) string {
	if scope == "" {
		return name
	}
	return scope + "." + name
}

// methods are all methods by name.
func (s *descriptorSet) methods() []*adminv1.Method {
	var all []*adminv1.Method
	for _, f := range s.file.GetFile() {
		for _, service := range f.GetService() {
			for _, m := range service.GetMethod() {
				all = append(all, describedMethod(qualified(f.GetPackage(), service.GetName()), m))
			}
		}
	}
	slices.SortFunc(all, func(a, b *adminv1.Method) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return all
}

func describedMethod(service string, m *descriptorpb.MethodDescriptorProto) *adminv1.Method {
	told := &adminv1.Method{
		Name:  service + "/" + m.GetName(),
		Input: strings.TrimPrefix(m.GetInputType(), "."), Output: strings.TrimPrefix(m.GetOutputType(), "."),
		ClientStreaming: m.GetClientStreaming(), ServerStreaming: m.GetServerStreaming(),
		NoSideEffects: m.GetOptions().GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS,
		Deprecated:    m.GetOptions().GetDeprecated(),
	}
	if rule, ok := proto.GetExtension(m.GetOptions(), annotations.E_Http).(*annotations.HttpRule); ok && rule != nil {
		for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
			told.Bindings = append(told.Bindings, describedBinding(r))
		}
	}
	return told
}

func describedBinding(r *annotations.HttpRule) *adminv1.HttpBinding {
	b := &adminv1.HttpBinding{Body: r.GetBody(), ResponseBody: r.GetResponseBody()}
	switch p := r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		b.Verb, b.Path = "GET", p.Get
	case *annotations.HttpRule_Put:
		b.Verb, b.Path = "PUT", p.Put
	case *annotations.HttpRule_Post:
		b.Verb, b.Path = "POST", p.Post
	case *annotations.HttpRule_Delete:
		b.Verb, b.Path = "DELETE", p.Delete
	case *annotations.HttpRule_Patch:
		b.Verb, b.Path = "PATCH", p.Patch
	case *annotations.HttpRule_Custom:
		b.Verb, b.Path = p.Custom.GetKind(), p.Custom.GetPath()
	}
	return b
}

// maxChangesTold bounds the lines about one push.
const maxChangesTold = 30

// changes says line by line what is different from an older set: methods that are new
// or gone, and methods and types that are not what they were.
func (s *descriptorSet) changes(old *descriptorSet) []string {
	now, then := s.parts(), old.parts()
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(now)) {
		switch before, was := then[name]; {
		case !was && strings.Contains(name, "/"):
			lines = append(lines, "new: "+name)
		case was && !proto.Equal(before, now[name]):
			lines = append(lines, "changed: "+name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(then)) {
		if now[name] == nil && strings.Contains(name, "/") {
			lines = append(lines, "gone: "+name)
		}
	}
	if len(lines) > maxChangesTold {
		lines = append(lines[:maxChangesTold], fmt.Sprintf("and %d more", len(lines)-maxChangesTold))
	}
	return lines
}

// parts are the methods ("service/method"), messages and enums by name.
func (s *descriptorSet) parts() map[string]proto.Message {
	parts := map[string]proto.Message{}
	for _, f := range s.file.GetFile() {
		for _, e := range f.GetEnumType() {
			parts[qualified(f.GetPackage(), e.GetName())] = e
		}
		for _, m := range f.GetMessageType() {
			parts[qualified(f.GetPackage(), m.GetName())] = m
		}
		for _, service := range f.GetService() {
			for _, m := range service.GetMethod() {
				parts[qualified(f.GetPackage(), service.GetName())+"/"+m.GetName()] = m
			}
		}
	}
	return parts
}
