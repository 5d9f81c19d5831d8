package schema

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// learnFrom asks one server, which speaks v1.
func learnFrom(s server) (*Schema, error) {
	got, _, err := learn(context.Background(), backends{"b": {ReflectionV1: s}}.open, "b")
	return got, err
}

func TestLearnUnderstandsGRPCGo(t *testing.T) {
	for name, files := range map[string]map[string]string{"proto3": shop, "proto2 and editions": till} {
		t.Run(name, func(t *testing.T) {
			want := schemaOf(t, files)
			got, err := learnFrom(grpcGo(want))
			if err != nil {
				t.Fatal(err)
			}
			// grpc-go lists nothing but the services that it was given.
			if !slices.Equal(paths(got.Methods()), paths(want.Methods())) || len(got.Methods()) == 0 || len(got.Faults()) > 0 {
				t.Errorf("methods %v, faults %v, want %v", paths(got.Methods()), got.Faults(), paths(want.Methods()))
			}
			if got.digest != want.digest {
				t.Error("the files are not the same")
			}
		})
	}
}

func TestLearnUnderstandsOurOwnReflection(t *testing.T) {
	want := schemaOf(t, shop)
	got, err := learnFrom(ours(NewReflection([]*Schema{want}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if got.digest != want.digest || !slices.Equal(got.Services(), []string{"shop.v1.Cart"}) {
		t.Errorf("services %v, want the same schema without reflection itself", got.Services())
	}
}

func TestLearnFallsBackToV1Alpha(t *testing.T) {
	want := schemaOf(t, shop)
	refusals := map[string]server{
		"at once": nil,
		"at the end": func(context.Context, func() ([]byte, error), func([]byte) error) error {
			return fmt.Errorf("%w: unknown service", ErrUnimplemented)
		},
		"after the question": func(_ context.Context, ask func() ([]byte, error), _ func([]byte) error) error {
			if _, err := ask(); err != nil {
				return err
			}
			return ErrUnimplemented
		},
		"in its answer": answering(func(*grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
			return refuses(12, "not here")
		}),
	}
	for name, refuse := range refusals {
		t.Run(name, func(t *testing.T) {
			servers := map[string]server{ReflectionV1Alpha: grpcGo(want)}
			if refuse != nil {
				servers[ReflectionV1] = refuse
			}
			got, version, err := learn(context.Background(), backends{"b": servers}.open, "b")
			if err != nil || version != "v1alpha" || got.digest != want.digest {
				t.Errorf("version %q, error %v", version, err)
			}
			delete(servers, ReflectionV1Alpha)
			if _, _, err := learn(context.Background(), backends{"b": servers}.open, "b"); !errors.Is(err, ErrUnimplemented) {
				t.Errorf("error %v when neither version is there", err)
			}
		})
	}
}

// fileServer sends the files of a set one by one, as simple servers do, and counts how
// often it is asked for each.
type fileServer struct {
	t        *testing.T
	services []string
	ofSymbol map[string]string // service to file
	files    map[string]*descriptorpb.FileDescriptorProto
	asked    map[string]int
}

func newFileServer(t *testing.T, set *descriptorpb.FileDescriptorSet) *fileServer {
	s := &fileServer{
		t: t, ofSymbol: make(map[string]string), asked: make(map[string]int),
		files: make(map[string]*descriptorpb.FileDescriptorProto),
	}
	for _, f := range set.GetFile() {
		s.files[f.GetName()] = f
		for _, service := range f.GetService() {
			name := f.GetPackage() + "." + service.GetName()
			s.services = append(s.services, name)
			s.ofSymbol[name] = f.GetName()
		}
	}
	return s
}

func (s *fileServer) reply(q *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
	name := q.GetFileByFilename()
	switch m := q.GetMessageRequest().(type) {
	case *grpc_reflection_v1.ServerReflectionRequest_ListServices:
		return lists(s.services...)
	case *grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol:
		s.asked[m.FileContainingSymbol]++
		name = s.ofSymbol[m.FileContainingSymbol]
	default:
		s.asked[name]++
	}
	if f := s.files[name]; f != nil {
		return sends(encode(s.t, f))
	}
	return refuses(5, "no such file")
}

func TestLearnAsksForEachFileOnceAndForNoStandardOne(t *testing.T) {
	want := schemaOf(t, shop)
	s := newFileServer(t, compiledSet(t, shop))
	got, err := learnFrom(answering(s.reply))
	if err != nil || got.digest != want.digest {
		t.Fatalf("error %v", err)
	}
	if want := map[string]int{"shop.v1.Cart": 1, "shop/v1/item.proto": 1}; !maps.Equal(s.asked, want) {
		t.Errorf("asked for %v, want %v", s.asked, want)
	}
}

func TestLearnAsksOnceForAFileThatIsMissing(t *testing.T) {
	set := &descriptorpb.FileDescriptorSet{}
	for _, name := range []string{"a", "b", "c"} {
		set.File = append(set.File, fileWith(name+".proto", name, "", "none.proto"))
	}
	s := newFileServer(t, set)
	got, err := learnFrom(answering(s.reply))
	if err != nil || len(got.Methods()) != 3 || s.asked["none.proto"] != 1 {
		t.Errorf("methods %v, error %v, asked for %v", paths(got.Methods()), err, s.asked)
	}
}

func TestLearnBearsServersThatLie(t *testing.T) {
	set := compiledSet(t, shop)
	cart, item := fileOf(t, set, "shop/v1/cart.proto"), fileOf(t, set, "shop/v1/item.proto")
	loop := proto.Clone(item).(*descriptorpb.FileDescriptorProto)
	loop.Dependency = []string{"shop/v1/cart.proto"}
	other := &descriptorpb.FileDescriptorProto{Name: proto.String("other.proto")}
	tests := []struct {
		name      string
		item      []byte // the answer when asked for item.proto
		wantFault string
	}{
		{"a file imports itself", encode(t, loop), "import loop: shop/v1/cart.proto → shop/v1/item.proto → shop/v1/cart.proto"},
		{"another file than asked for", encode(t, other), `file "shop/v1/item.proto": the backend did not send it`},
		{"no file", []byte("\xff\xff\xff"), "a file of the answer left out: the encoding is broken"},
		{"a file cut short", encode(t, item)[:25], "a file of the answer left out: the encoding is broken"},
		{"a missing import", nil, `file "shop/v1/item.proto": the backend says: "no such file" (code 5)`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newFileServer(t, &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{cart}})
			got, err := learnFrom(answering(func(q *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
				if q.GetFileByFilename() == "shop/v1/item.proto" && test.item != nil {
					return sends(test.item)
				}
				return s.reply(q)
			}))
			if err != nil {
				wantText(t, err, test.wantFault)
				return
			}
			wantFault(t, got, test.wantFault)
			if len(got.Methods()) > 0 {
				t.Errorf("methods %v, though their messages are not known", paths(got.Methods()))
			}
		})
	}
}

func TestLearnKeepsWhatIsRightBesideWhatIsWrong(t *testing.T) {
	s := newFileServer(t, compiledSet(t, shop))
	s.services = append(s.services, "ghost.Service", "no name!", "grpc.reflection.v1.ServerReflection")
	got, err := learnFrom(answering(s.reply))
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, got, `service "ghost.Service": the backend says: "no such file" (code 5)`)
	wantFault(t, got, `service "no name!" left out: it is no name of a service`)
	if !slices.Equal(paths(got.Methods()), []string{"/shop.v1.Cart/Get", "/shop.v1.Cart/Watch"}) {
		t.Errorf("methods %v", paths(got.Methods()))
	}
}

func TestLearnLeavesServicesOutThatAreNotServed(t *testing.T) {
	two := map[string]string{"two.proto": `
syntax = "proto3"; package two;
message M {}
service A { rpc Do(M) returns (M); }
service B { rpc Do(M) returns (M); }
`}
	s := newFileServer(t, compiledSet(t, two))
	s.services = []string{"two.B"}
	got, err := learnFrom(answering(s.reply))
	if err != nil || !slices.Equal(paths(got.Methods()), []string{"/two.B/Do"}) {
		t.Errorf("methods %v, error %v", paths(got.Methods()), err)
	}
}

func TestLearnRefusesWhatIsBeyondItsBounds(t *testing.T) {
	many := make([]string, maxServices+1)
	for i := range many {
		many[i] = fmt.Sprintf("s.S%d", i)
	}
	chained := func(q *grpc_reflection_v1.ServerReflectionRequest, size int) *grpc_reflection_v1.ServerReflectionResponse {
		if q.GetListServices() != "" {
			return lists("s.S")
		}
		n := 0
		fmt.Sscanf(q.GetFileByFilename(), "%d.proto", &n)
		return sends(encode(t, &descriptorpb.FileDescriptorProto{
			Name:       proto.String(fmt.Sprintf("%d.proto", n)),
			Package:    proto.String(string(make([]byte, size))),
			Dependency: []string{fmt.Sprintf("%d.proto", n+1)},
		}))
	}
	crowd := &descriptorpb.FileDescriptorProto{Name: proto.String("crowd.proto")}
	for range maxElements + 1 {
		crowd.MessageType = append(crowd.MessageType, &descriptorpb.DescriptorProto{})
	}
	crowded := encode(t, crowd)
	tests := []struct {
		name  string
		reply func(q *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse
		want  string
	}{
		{"services", func(*grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
			return lists(many...)
		}, "1001 services, limit 1000"},
		{"files", func(q *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
			return chained(q, 0)
		}, "more than 2000 files"},
		{"bytes", func(q *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
			return chained(q, 1<<20)
		}, "answers of more than 16777216 bytes"},
		{"declarations", func(q *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
			if q.GetListServices() != "" {
				return lists("s.S")
			}
			return sends(crowded)
		}, "more than 200000 declarations"},
		{"another kind of answer", func(*grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
			return sends()
		}, "the answer is not a list of services"},
		{"no descriptors at all", func(q *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
			if q.GetListServices() != "" {
				return lists("s.S")
			}
			return sends()
		}, `none of 1 services is described: service "s.S" left out: no file that the backend sent declares it`},
		{"an early end", func(q *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
			if q.GetListServices() != "" {
				return lists("s.S")
			}
			return nil
		}, `asking for service "s.S": the backend ended the stream before its answer`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := learnFrom(answering(test.reply))
			wantText(t, err, test.want)
		})
	}
}

func TestLearnRefusesAnswersThatAreNone(t *testing.T) {
	_, err := learnFrom(func(_ context.Context, ask func() ([]byte, error), answer func([]byte) error) error {
		if _, err := ask(); err != nil {
			return err
		}
		return answer([]byte("<html>"))
	})
	wantText(t, err, "listing services: the answer is not one of reflection")
}

func TestLearnEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), learnTimeout)
		defer cancel()
		silent := func(ctx context.Context, _ func() ([]byte, error), _ func([]byte) error) error {
			<-ctx.Done()
			return ctx.Err()
		}
		begun := time.Now()
		_, _, err := learn(ctx, backends{"b": {ReflectionV1: silent}}.open, "b")
		wantText(t, err, "not done within 5s")
		if d := time.Since(begun); d != learnTimeout {
			t.Errorf("ended after %v", d)
		}
	})
}

// FuzzLearn plays a server whose answers are arbitrary bytes, one after another.
func FuzzLearn(f *testing.F) {
	set := bareSet(f, shop)
	var files [][]byte
	for _, file := range set.GetFile() {
		files = append(files, encode(f, file))
	}
	f.Add(encode(f, lists("shop.v1.Cart")), encode(f, sends(files...)), []byte{})
	f.Add(encode(f, lists("shop.v1.Cart")), encode(f, sends(files[len(files)-1])), encode(f, sends(files[0])))
	f.Add(encode(f, lists("a.B", "c.D")), encode(f, refuses(5, "no")), encode(f, refuses(12, "no")))
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		left := [][]byte{first, second, third}
		s, err := learnFrom(func(_ context.Context, ask func() ([]byte, error), answer func([]byte) error) error {
			for len(left) > 0 {
				if _, err := ask(); err != nil {
					return err
				}
				if err := answer(left[0]); err != nil {
					return err
				}
				left = left[1:]
			}
			return nil
		})
		if (s == nil) == (err == nil) {
			t.Fatalf("schema %v with error %v", s, err)
		}
	})
}
