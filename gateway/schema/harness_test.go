package schema

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// TestMain refuses goroutines of ours that outlive the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := goroutinesLeft(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines are left:\n\n"+left)
		code = 1
	}
	os.Exit(code)
}

func goroutinesLeft() (left string) {
	for range 200 {
		left = ""
		all := make([]byte, 1<<20)
		for _, g := range strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n") {
			if !strings.Contains(g, "goroutinesLeft") && strings.Contains(g, "sluice/") {
				left += g + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
		<-time.After(10 * time.Millisecond)
	}
	return left
}

// sourceFiles opens files that are given as text.
func sourceFiles(files map[string]string) func(path string) (io.ReadCloser, error) {
	return func(path string) (io.ReadCloser, error) {
		text, ok := files[path]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return io.NopCloser(strings.NewReader(text)), nil
	}
}

// compiledSet compiles sources, all that are given, to a set.
func compiledSet(t testing.TB, files map[string]string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	names := slices.Sorted(maps.Keys(files))
	set, err := CompileSources(context.Background(), sourceFiles(files), []string{"."}, names)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// schemaOf compiles sources to a schema without faults.
func schemaOf(t testing.TB, files map[string]string) *Schema {
	t.Helper()
	s, err := Compile(compiledSet(t, files))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Faults()) > 0 {
		t.Fatal(s.Faults())
	}
	return s
}

// bareSet is a set without the standard files and without comments: what a fuzz target
// begins with is to be short.
func bareSet(t testing.TB, files map[string]string) *descriptorpb.FileDescriptorSet {
	set := compiledSet(t, files)
	set.File = slices.DeleteFunc(set.File, func(f *descriptorpb.FileDescriptorProto) bool { return isStandardPath(f.GetName()) })
	for _, f := range set.File {
		f.SourceCodeInfo = nil
	}
	return set
}

// encode is what a FileDescriptorSet, or a file, is on the wire.
func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fileOf is the file of that path in a set.
func fileOf(t testing.TB, set *descriptorpb.FileDescriptorSet, path string) *descriptorpb.FileDescriptorProto {
	t.Helper()
	for _, f := range set.GetFile() {
		if f.GetName() == path {
			return f
		}
	}
	t.Fatalf("the set has no file %q", path)
	return nil
}

// paths are the methods of a schema, or of a view.
func paths(methods []*Method) []string {
	var list []string
	for _, m := range methods {
		list = append(list, m.Path)
	}
	return list
}

// shop is a small service that imports what services import.
var shop = map[string]string{
	"shop/v1/cart.proto": `
syntax = "proto3";
package shop.v1;
import "google/api/annotations.proto";
import "google/protobuf/timestamp.proto";
import "shop/v1/item.proto";

// Cart is a shopping cart.
service Cart {
  // Get returns it.
  rpc Get(GetRequest) returns (GetResponse) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {
      get: "/v1/{name=carts/*}"
      response_body: "items"
      additional_bindings { post: "/v1/carts:get" body: "*" }
      additional_bindings { custom: { kind: "HEAD" path: "/v1/any" } }
    };
  }
  rpc Watch(GetRequest) returns (stream GetResponse);
}
message GetRequest { string name = 1; }
message GetResponse {
  repeated Item items = 1;
  google.protobuf.Timestamp at = 2;
}
`,
	"shop/v1/item.proto": `
syntax = "proto3";
package shop.v1;
message Item { string sku = 1; uint32 quantity = 2; }
`,
}

// till is a service in another language version, with extensions.
var till = map[string]string{
	"till.proto": `
syntax = "proto2";
package till;
import public "base.proto";
service Till {
  rpc Scan(stream base.Slip) returns (stream Total);
}
message Total {
  required int64 cents = 1 [default = 7];
  extensions 100 to 200;
  enum Mood { GRIM = 1; MERRY = 2; }
  optional Mood mood = 2 [default = MERRY];
}
extend Total { optional string note = 100; }
message More { extend Total { optional base.Slip slip = 150; } }
`,
	"base.proto": `
edition = "2023";
package base;
message Slip { string text = 1 [features.field_presence = LEGACY_REQUIRED]; Slip inner = 2 [features.message_encoding = DELIMITED]; }
`,
}

// server plays a backend's side of one RPC of reflection: it takes questions, gives
// answers, and ends as its error says; nil is a good end.
type server func(ctx context.Context, ask func() ([]byte, error), answer func([]byte) error) error

// backends plays backends, by key and method; what is not there is unimplemented.
type backends map[string]map[string]server

// open implements Opener. Closing the stream waits for the server, so that no test
// leaves one behind.
func (b backends) open(ctx context.Context, backend, method string) (Stream, error) {
	serve := b[backend][method]
	if serve == nil {
		return nil, fmt.Errorf("%w: unknown method %q", ErrUnimplemented, method)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &playedStream{
		ctx: ctx, cancel: cancel,
		questions: make(chan []byte, outstanding), answers: make(chan []byte), ended: make(chan struct{}),
	}
	go func() {
		defer close(s.ended)
		s.err = serve(ctx, s.ask, s.answer)
	}()
	return s, nil
}

// playedStream is an RPC with a server in the same process.
type playedStream struct {
	ctx       context.Context
	cancel    context.CancelFunc
	questions chan []byte
	answers   chan []byte
	ended     chan struct{} // when the server has ended, with err
	err       error
}

func (s *playedStream) Send(message []byte) error {
	select {
	case s.questions <- slices.Clone(message):
		return nil
	case <-s.ended:
		return io.EOF
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *playedStream) Receive() ([]byte, error) {
	select {
	case a := <-s.answers:
		return a, nil
	case <-s.ended:
		if s.err == nil {
			return nil, io.EOF
		}
		return nil, s.err
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *playedStream) Close() {
	s.cancel()
	<-s.ended
}

func (s *playedStream) ask() ([]byte, error) {
	select {
	case q := <-s.questions:
		return q, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *playedStream) answer(a []byte) error {
	select {
	case s.answers <- a:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// grpcGo is grpc-go's own reflection for a schema.
func grpcGo(s *Schema) server {
	info := make(services)
	for _, name := range s.Services() {
		info[name] = grpc.ServiceInfo{}
	}
	served := reflection.NewServerV1(reflection.ServerOptions{
		Services: info, DescriptorResolver: s.files, ExtensionResolver: extensionTypes{s},
	})
	return func(ctx context.Context, ask func() ([]byte, error), answer func([]byte) error) error {
		return served.ServerReflectionInfo(&goStream{ctx: ctx, ask: ask, answer: answer})
	}
}

// services are those of a server of grpc-go.
type services map[string]grpc.ServiceInfo

func (s services) GetServiceInfo() map[string]grpc.ServiceInfo { return s }

// extensionTypes lets grpc-go see the extensions of a schema.
type extensionTypes struct{ *Schema }

func (e extensionTypes) RangeExtensionsByMessage(message protoreflect.FullName, visit func(protoreflect.ExtensionType) bool) {
	for _, n := range extensionNumbers([]*Schema{e.Schema})[message] {
		if xt, err := e.FindExtensionByNumber(message, protoreflect.FieldNumber(n)); err == nil && !visit(xt) {
			return
		}
	}
}

// goStream is a stream of grpc-go's server, in this process.
type goStream struct {
	grpc.ServerStream
	ctx    context.Context
	ask    func() ([]byte, error)
	answer func([]byte) error
}

func (s *goStream) Context() context.Context { return s.ctx }

func (s *goStream) Recv() (*grpc_reflection_v1.ServerReflectionRequest, error) {
	b, err := s.ask()
	if err != nil {
		return nil, err
	}
	q := new(grpc_reflection_v1.ServerReflectionRequest)
	return q, proto.Unmarshal(b, q)
}

func (s *goStream) Send(a *grpc_reflection_v1.ServerReflectionResponse) error {
	b, err := proto.Marshal(a)
	if err != nil {
		return err
	}
	return s.answer(b)
}

// ours is our own reflection.
func ours(r *Reflection) server {
	return func(_ context.Context, ask func() ([]byte, error), answer func([]byte) error) error {
		c := r.Converse()
		for {
			q, err := ask()
			if err != nil {
				return err
			}
			a, err := c.Answer(q)
			if err != nil {
				return err
			}
			if err := answer(a); err != nil {
				return err
			}
		}
	}
}

// answering answers each question by a function; nil ends the RPC well.
func answering(reply func(q *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse) server {
	return func(_ context.Context, ask func() ([]byte, error), answer func([]byte) error) error {
		for {
			b, err := ask()
			if err != nil {
				return err
			}
			q := new(grpc_reflection_v1.ServerReflectionRequest)
			if err := proto.Unmarshal(b, q); err != nil {
				return err
			}
			a := reply(q)
			if a == nil {
				return nil
			}
			if b, err = proto.Marshal(a); err != nil {
				return err
			}
			if err := answer(b); err != nil {
				return err
			}
		}
	}
}

// lists is the answer that lists services.
func lists(names ...string) *grpc_reflection_v1.ServerReflectionResponse {
	list := new(grpc_reflection_v1.ListServiceResponse)
	for _, n := range names {
		list.Service = append(list.Service, &grpc_reflection_v1.ServiceResponse{Name: n})
	}
	return &grpc_reflection_v1.ServerReflectionResponse{
		MessageResponse: &grpc_reflection_v1.ServerReflectionResponse_ListServicesResponse{ListServicesResponse: list},
	}
}

// sends is the answer that has files, encoded.
func sends(files ...[]byte) *grpc_reflection_v1.ServerReflectionResponse {
	return &grpc_reflection_v1.ServerReflectionResponse{
		MessageResponse: &grpc_reflection_v1.ServerReflectionResponse_FileDescriptorResponse{
			FileDescriptorResponse: &grpc_reflection_v1.FileDescriptorResponse{FileDescriptorProto: files},
		},
	}
}

// refuses is the answer that has an error.
func refuses(code int32, message string) *grpc_reflection_v1.ServerReflectionResponse {
	return &grpc_reflection_v1.ServerReflectionResponse{
		MessageResponse: &grpc_reflection_v1.ServerReflectionResponse_ErrorResponse{
			ErrorResponse: &grpc_reflection_v1.ErrorResponse{ErrorCode: code, ErrorMessage: message},
		},
	}
}

// wantText fails when an error, or a list of them, does not tell what is wanted.
func wantText(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %q, want it to tell %q", fmt.Sprint(err), want)
	}
}

func wantFault(t *testing.T, s *Schema, want string) {
	t.Helper()
	wantText(t, errors.Join(s.Faults()...), want)
}
