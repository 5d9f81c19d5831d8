package schema

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

// The questions that reflection knows.
func listServices() *grpc_reflection_v1.ServerReflectionRequest {
	return &grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{ListServices: "*"}}
}

func fileByName(path string) *grpc_reflection_v1.ServerReflectionRequest {
	return &grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileByFilename{FileByFilename: path}}
}

func fileDeclaring(symbol string) *grpc_reflection_v1.ServerReflectionRequest {
	return &grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol}}
}

func fileOfExtension(message string, number int32) *grpc_reflection_v1.ServerReflectionRequest {
	return &grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingExtension{
		FileContainingExtension: &grpc_reflection_v1.ExtensionRequest{ContainingType: message, ExtensionNumber: number},
	}}
}

func extensionsOf(message string) *grpc_reflection_v1.ServerReflectionRequest {
	return &grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_AllExtensionNumbersOfType{AllExtensionNumbersOfType: message}}
}

// interview asks a server one question after another on one stream.
func interview(t *testing.T, s server, questions []*grpc_reflection_v1.ServerReflectionRequest) []*grpc_reflection_v1.ServerReflectionResponse {
	t.Helper()
	stream, err := backends{"b": v1(s)}.open(context.Background(), "b", ReflectionV1)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var answers []*grpc_reflection_v1.ServerReflectionResponse
	for _, q := range questions {
		if err := stream.Send(encode(t, q)); err != nil {
			t.Fatal(err)
		}
		b, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		a := new(grpc_reflection_v1.ServerReflectionResponse)
		if err := proto.Unmarshal(b, a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	return answers
}

// decoded are the files of an answer.
func decoded(t *testing.T, a *grpc_reflection_v1.ServerReflectionResponse) []*descriptorpb.FileDescriptorProto {
	t.Helper()
	var files []*descriptorpb.FileDescriptorProto
	for _, b := range a.GetFileDescriptorResponse().GetFileDescriptorProto() {
		f := new(descriptorpb.FileDescriptorProto)
		if err := proto.Unmarshal(b, f); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// TestReflectionAnswersLikeGRPCGo asks grpc-go's own reflection and ours the same, with
// one schema behind both.
func TestReflectionAnswersLikeGRPCGo(t *testing.T) {
	files := maps.Clone(shop)
	maps.Copy(files, till)
	s := schemaOf(t, files)
	questions := []*grpc_reflection_v1.ServerReflectionRequest{
		fileDeclaring("shop.v1.Cart"),
		fileDeclaring("shop.v1.Cart"), // again: only the file itself
		fileDeclaring("shop.v1.Cart.Get"),
		fileDeclaring("shop.v1.GetRequest.name"),
		fileDeclaring("shop.v1.Item"),
		fileDeclaring("till.Total.MERRY"),
		fileDeclaring("google.protobuf.Timestamp"),
		fileDeclaring("shop.v1"),
		fileDeclaring(""),
		fileDeclaring("no such symbol"),
		fileByName("shop/v1/cart.proto"),
		fileByName("google/api/http.proto"),
		fileByName("none.proto"),
		fileByName(""),
		fileOfExtension("till.Total", 100),
		fileOfExtension("till.Total", 101),
		fileOfExtension("till.None", 100),
		extensionsOf("till.Total"),
		extensionsOf("shop.v1.Item"),
		extensionsOf("none.None"),
		{Host: "shop.example.com", MessageRequest: fileDeclaring("till.Till").MessageRequest},
	}
	theirs := interview(t, grpcGo(s), questions)
	for i, got := range interview(t, ours(NewReflection([]*Schema{s}, nil)), questions) {
		want := theirs[i]
		if e := got.GetErrorResponse(); e != nil {
			e.ErrorMessage = want.GetErrorResponse().GetErrorMessage()
		}
		// They tell a file again for each way to it within one answer; so the rest is
		// held against each other as sets.
		gotFiles, wantFiles := decoded(t, got), decoded(t, want)
		if len(gotFiles) > 0 && len(wantFiles) > 0 {
			if !proto.Equal(gotFiles[0], wantFiles[0]) {
				t.Errorf("%v: first %q, want %q", questions[i], gotFiles[0].GetName(), wantFiles[0].GetName())
			}
			got.MessageResponse, want.MessageResponse = sends(sortedFiles(t, gotFiles)...).MessageResponse, sends(sortedFiles(t, wantFiles)...).MessageResponse
		}
		if !proto.Equal(got, want) {
			t.Errorf("%v: answer %v, want %v", questions[i], got, want)
		}
	}
}

func sortedFiles(t *testing.T, files []*descriptorpb.FileDescriptorProto) [][]byte {
	slices.SortFunc(files, func(a, b *descriptorpb.FileDescriptorProto) int { return cmp.Compare(a.GetName(), b.GetName()) })
	var encoded [][]byte
	for i, f := range files {
		if i == 0 || files[i-1].GetName() != f.GetName() {
			encoded = append(encoded, encode(t, f))
		}
	}
	return encoded
}

func TestReflectionListsWhatIsRouted(t *testing.T) {
	files := maps.Clone(shop)
	maps.Copy(files, till)
	r := NewReflection([]*Schema{schemaOf(t, files)}, func(service string) bool { return service != "till.Till" })
	answers := interview(t, ours(r), []*grpc_reflection_v1.ServerReflectionRequest{
		listServices(),
		fileDeclaring("till.Till"),
		fileDeclaring("till.Till.Scan"),
		fileDeclaring("grpc.reflection.v1alpha.ServerReflection"),
		fileDeclaring("google.rpc.ErrorInfo"),
	})
	var got []string
	for _, s := range answers[0].GetListServicesResponse().GetService() {
		got = append(got, s.GetName())
	}
	want := []string{"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "shop.v1.Cart"}
	if !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	for _, a := range answers[1:3] {
		if e := a.GetErrorResponse(); e.GetErrorCode() != 5 || !strings.HasPrefix(e.GetErrorMessage(), `sluice: symbol "till.Till`) {
			t.Errorf("a service that is not routed: %v", a)
		}
	}
	for _, a := range answers[3:] {
		if len(decoded(t, a)) == 0 {
			t.Errorf("answer %v", a)
		}
	}
}

func TestReflectionRefusesWhatIsNoQuestion(t *testing.T) {
	c := NewReflection(nil, nil).Converse()
	_, err := c.Answer([]byte("\xff"))
	wantText(t, err, "decoding a question to reflection")
	_, err = c.Answer(nil)
	wantText(t, err, "asks for nothing")
	if _, err := c.Answer(encode(t, listServices())); err != nil {
		t.Error(err)
	}
}

// version is a service whose messages are in a file of a name that others have too.
func version(service, field string) map[string]string {
	return map[string]string{
		service + ".proto": `syntax = "proto3"; package ` + service + `; import "common.proto"; import "middle.proto";
			service S { rpc Do(common.M) returns (middle.M); }`,
		"middle.proto": `syntax = "proto3"; package middle; import "common.proto"; message M { common.M m = 1; }`,
		"common.proto": `syntax = "proto3"; package common; message M { string ` + field + ` = 1; }`,
	}
}

// TestReflectionKeepsTheFilesOfABackendTogether has three backends, of which two share a
// file's content and one has another of the same name.
func TestReflectionKeepsTheFilesOfABackendTogether(t *testing.T) {
	schemas := []*Schema{schemaOf(t, version("a", "old")), schemaOf(t, version("b", "new")), schemaOf(t, version("c", "old"))}
	answers := interview(t, ours(NewReflection(schemas, nil)), []*grpc_reflection_v1.ServerReflectionRequest{
		fileDeclaring("a.S"), fileDeclaring("b.S"), fileDeclaring("c.S"), fileByName("common.2.proto"), fileByName("common.proto"),
	})
	var told []string
	set := make(map[string]*descriptorpb.FileDescriptorProto)
	for _, a := range answers[:3] {
		for _, f := range decoded(t, a) {
			told = append(told, f.GetName())
			set[f.GetName()] = f
		}
	}
	want := []string{
		"a.proto", "common.proto", "middle.proto",
		"b.proto", "common.2.proto", "middle.2.proto",
		"c.proto", // the rest was told
	}
	if !slices.Equal(told, want) {
		t.Errorf("files %v, want %v", told, want)
	}
	// What a client puts together of the names that it was told is what each backend has.
	for service, field := range map[string]string{"a": "old", "b": "new", "c": "old"} {
		var closure descriptorpb.FileDescriptorSet
		seen := make(map[string]bool)
		var add func(path string)
		add = func(path string) {
			if seen[path] {
				return
			}
			seen[path] = true
			for _, d := range set[path].GetDependency() {
				add(d)
			}
			closure.File = append(closure.File, set[path])
		}
		add(service + ".proto")
		linked, err := protodesc.NewFiles(&closure)
		if err != nil {
			t.Errorf("service %s: %v", service, err)
			continue
		}
		d, err := linked.FindDescriptorByName("common.M")
		if err != nil {
			t.Fatal(err)
		}
		if f := d.ParentFile().Messages().Get(0).Fields().Get(0); string(f.Name()) != field {
			t.Errorf("service %s has field %q, want %q", service, f.Name(), field)
		}
	}
	for i, want := range map[int]string{3: "new", 4: "old"} {
		if f := decoded(t, answers[i]); len(f) != 1 || f[0].GetMessageType()[0].GetField()[0].GetName() != want {
			t.Errorf("answer %v, want field %q", answers[i], want)
		}
	}
}

// TestReflectionTellsAServiceOfTheSchemaThatServesIt has a first backend whose file
// declares a service that only the second one serves.
func TestReflectionTellsAServiceOfTheSchemaThatServesIt(t *testing.T) {
	service := func(method string) map[string]string {
		return map[string]string{"s.proto": `syntax = "proto3"; package s; message M {} service A { rpc Do(M) returns (M); } service B { rpc ` + method + `(M) returns (M); }`}
	}
	first, err := compile(compiledSet(t, service("Old")), func(service string) bool { return service == "s.A" })
	if err != nil {
		t.Fatal(err)
	}
	r := NewReflection([]*Schema{first, schemaOf(t, service("New"))}, nil)
	answer := interview(t, ours(r), []*grpc_reflection_v1.ServerReflectionRequest{fileDeclaring("s.B")})[0]
	if f := decoded(t, answer); len(f) != 1 || f[0].GetService()[1].GetMethod()[0].GetName() != "New" {
		t.Errorf("answer %v", answer)
	}
}

// overGRPC serves our reflection by a server of grpc-go, for clients that need one.
func overGRPC(t *testing.T, r *Reflection) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	grpc_reflection_v1.RegisterServerReflectionServer(s, reflectionAdapter{r: r})
	ended := make(chan error)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-ended
	})
	return l.Addr().String()
}

type reflectionAdapter struct {
	grpc_reflection_v1.UnimplementedServerReflectionServer
	r *Reflection
}

func (a reflectionAdapter) ServerReflectionInfo(stream grpc_reflection_v1.ServerReflection_ServerReflectionInfoServer) error {
	c := a.r.Converse()
	for {
		q, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := proto.Marshal(q)
		if err != nil {
			return err
		}
		b, err = c.Answer(b)
		if err != nil {
			return err
		}
		answer := new(grpc_reflection_v1.ServerReflectionResponse)
		if err := proto.Unmarshal(b, answer); err != nil {
			return err
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

// TestReflectionIsUnderstoodByGRPCurl lists and describes with the tool that people use.
func TestReflectionIsUnderstoodByGRPCurl(t *testing.T) {
	grpcurl := filepath.Join(t.TempDir(), "grpcurl")
	build := exec.Command("go", "build", "-C", "../../tools", "-o", grpcurl, "github.com/fullstorydev/grpcurl/cmd/grpcurl")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build grpcurl: %v\n%s", err, out)
	}
	schemas := []*Schema{schemaOf(t, shop), schemaOf(t, till), schemaOf(t, version("a", "old")), schemaOf(t, version("b", "fresh"))}
	address := overGRPC(t, NewReflection(schemas, nil))
	run := func(args ...string) string {
		cmd := exec.Command(grpcurl, append([]string{"-plaintext"}, args...)...)
		cmd.Env = append(os.Environ(), "NO_PROXY=*")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("grpcurl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if got, want := run(address, "list"), "a.S\nb.S\ngrpc.reflection.v1.ServerReflection\ngrpc.reflection.v1alpha.ServerReflection\nshop.v1.Cart\ntill.Till\n"; got != want {
		t.Errorf("list: %q, want %q", got, want)
	}
	for symbol, want := range map[string]string{
		"shop.v1.Cart":      `get: "/v1/{name=carts/*}"`,
		"till.Till.Scan":    "rpc Scan ( stream .base.Slip ) returns ( stream .till.Total );",
		"till.Total":        "required int64 cents = 1 [default = 7];",
		"b.S":               "rpc Do ( .common.M ) returns ( .middle.M );",
		"google.rpc.Status": "repeated .google.protobuf.Any details = 3;",
	} {
		if got := run(address, "describe", symbol); !strings.Contains(got, want) {
			t.Errorf("describe %s: %s\nwant it to tell %q", symbol, got, want)
		}
	}
	run("-protoset-out", filepath.Join(t.TempDir(), "all.bin"), address, "describe", "shop.v1.Cart")
}

// FuzzAnswer asks arbitrary questions.
func FuzzAnswer(f *testing.F) {
	files := maps.Clone(shop)
	maps.Copy(files, till)
	r := NewReflection([]*Schema{schemaOf(f, files)}, nil)
	for _, q := range []*grpc_reflection_v1.ServerReflectionRequest{
		listServices(), fileByName("till.proto"), fileDeclaring("shop.v1.Cart"), fileOfExtension("till.Total", 100), extensionsOf("till.Total"),
	} {
		f.Add(encode(f, q))
	}
	f.Fuzz(func(t *testing.T, question []byte) {
		answer, err := r.Converse().Answer(question)
		if err != nil {
			return
		}
		if err := proto.Unmarshal(answer, new(grpc_reflection_v1.ServerReflectionResponse)); err != nil {
			t.Error(fmt.Errorf("the answer: %w", err))
		}
	})
}
