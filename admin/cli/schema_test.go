package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"github.com/bufbuild/protocompile/reporter"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/admin/v1"
)

const (
	tillSource = `syntax = "proto3";
package till.v1;
import "google/api/annotations.proto";
// Till takes money.
service Till {
  rpc Pay(PayRequest) returns (PayResponse) {
    option (google.api.http) = {post: "/v1/tills/{till}:pay" body: "*" additional_bindings {get: "/v1/pay"}};
  }
  rpc Close(PayRequest) returns (PayResponse) { option deprecated = true; }
  rpc Watch(PayRequest) returns (stream PayResponse);
  rpc Scan(stream PayRequest) returns (stream PayResponse);
  rpc Fill(stream PayRequest) returns (PayResponse);
}
message PayRequest { string till = 1; uint32 cents = 2; }
message PayResponse { uint32 change = 1; }
`
	// tillBefore is what was pushed before: without Fill, and with Open.
	tillBefore = `syntax = "proto3";
package till.v1;
service Till {
  rpc Pay(PayRequest) returns (PayResponse);
  rpc Close(PayRequest) returns (PayResponse) { option deprecated = true; }
  rpc Watch(PayRequest) returns (stream PayResponse);
  rpc Scan(stream PayRequest) returns (stream PayResponse);
  rpc Open(PayRequest) returns (PayResponse);
}
message PayRequest { string till = 1; }
message PayResponse { uint32 change = 1; }
`
)

// compile is a compiler as the program has one.
func compile(ctx context.Context, imports, files []string) (*descriptorpb.FileDescriptorSet, error) {
	if len(imports) == 0 {
		imports = []string{"proto"} // a real one looks at packages
	}
	var told []error
	c := protocompile.Compiler{
		Resolver: protocompile.CompositeResolver{
			&protocompile.SourceResolver{ImportPaths: imports},
			protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
				f, err := protoregistry.GlobalFiles.FindFileByPath(path)
				return protocompile.SearchResult{Desc: f}, err
			}),
		},
		Reporter:       reporter.NewReporter(func(err reporter.ErrorWithPos) error { told = append(told, err); return nil }, nil),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	var names []string
	for _, file := range files {
		for _, root := range imports {
			file = strings.TrimPrefix(file, strings.TrimSuffix(root, "/")+"/")
		}
		names = append(names, file)
	}
	compiled, err := c.Compile(ctx, names...)
	if err != nil {
		return nil, errors.Join(append(told, err)[:max(1, len(told))]...)
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, f := range compiled {
		set.File = append(set.File, protoutil.ProtoFromFileDescriptor(f))
	}
	return set, nil
}

// compiled is a set of one source, whose file is away again.
func compiled(t *testing.T, source string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/till.proto", []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := compile(t.Context(), []string{dir}, []string{"till.proto"})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func encoded(t *testing.T, m proto.Message) string {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// tillSchema is a Schema as it was pushed, and the change that did.
func tillSchema(t *testing.T) (*adminv1.Object, *adminv1.Change) {
	t.Helper()
	before, err := parseSet([]byte(encoded(t, compiled(t, tillBefore))))
	if err != nil {
		t.Fatal(err)
	}
	at := timestamppb.New(now.Add(-time.Hour))
	o := &adminv1.Object{
		Ref: &adminv1.Ref{Kind: schemaKind, Namespace: "default", Name: "till"}, Revision: "1777905000000.0@k3f9x2ab",
		Owner: &adminv1.Owner{Kind: adminv1.Owner_KIND_API}, Created: at, LastChange: &adminv1.Change{Time: at},
		Conditions: []*adminv1.Condition{{Type: "Accepted", Status: true, Reason: "Accepted"}},
		Manifest: fmt.Sprintf(`{"apiVersion":"sluice.dev/v1alpha1","kind":"Schema","metadata":{"namespace":"default","name":"till","labels":{"team":"on"}},`+
			`"spec":{"backendRefs":[{"namespace":"default","name":"cart-v1"}],"descriptorSet":%q}}`, before.base64()),
	}
	return o, &adminv1.Change{
		Sequence: 5, Time: at, Actor: "alice", Via: "cli", Action: "create", Ref: o.Ref, Revision: o.Revision,
		After: &adminv1.Object{Ref: o.Ref, Manifest: o.Manifest, Owner: o.Owner},
	}
}

// newPusher is a user beside whom there are sources and sets, and a Schema that was
// pushed before.
func newPusher(t *testing.T) *user {
	t.Helper()
	u := newUser(t)
	u.opts.Compile = compile
	o, change := tillSchema(t)
	u.fake.objects = append(u.fake.objects, o)
	u.fake.changes = append(u.fake.changes, change)
	set := compiled(t, tillSource)
	u.write("proto/till/v1/till.proto", tillSource)
	u.write("proto/.cache/bad.proto", "not a source")
	u.write("broken/bad.proto", "syntax = \"proto3\";\nmessage M {\n  Nothing x = 1;\n  Gone y = 2;\n}\n")
	u.write("till.binpb", encoded(t, set))
	asJSON, err := protojson.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	u.write("till.json", strings.Replace(string(asJSON), "{", `{"otherTool": {"x": 1}, `, 1))
	u.write("empty.binpb", "")
	u.write("empty/README", "")
	u.write("till.binpb.gz", "\x1f\x8b\x08\x00")
	u.write("noise.binpb", "\xff\xff\xff")
	u.write("noise.json", "{")
	return u
}

func TestSchemaCommandsDoWhatTheTranscriptSays(t *testing.T) {
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	transcript(t, "schema", newPusher(t), folder)
}

// Whatever the form in which it comes, the same is pushed.
func TestSchemaPushSendsTheSameInEveryForm(t *testing.T) {
	u := newPusher(t)
	var texts []string
	u.fake.applied = func(text string) { texts = append(texts, text) }
	for _, form := range []string{"till.binpb", "till.json", "-", "proto", "proto/till/v1/till.proto -I proto"} {
		if form == "-" {
			u.stdin = encoded(t, compiled(t, tillSource))
		}
		if got := u.run(append([]string{"schema", "push", "--name", "new"}, strings.Fields(form)...)...); got.code != 0 {
			t.Errorf("%s: exit %d, %s", form, got.code, got.stderr)
		}
	}
	if len(texts) != 5 {
		t.Fatalf("%d pushes, want 5", len(texts))
	}
	for i, text := range texts {
		n, err := parseJSON(text)
		if err != nil {
			t.Fatal(err)
		}
		set, err := readBase64(word(n, "spec", "descriptorSet"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range set.file.GetFile() {
			f.Name = nil // of a folder the files have their names below it
			for _, l := range f.GetSourceCodeInfo().GetLocation() {
				if l.GetLeadingComments() == "" && l.GetTrailingComments() == "" {
					t.Errorf("form %d: a place without a comment was sent", i)
				}
			}
		}
		want := compiled(t, tillSource)
		want.File[0].Name = nil
		got := proto.CloneOf(&set.file)
		got.File[0].SourceCodeInfo, want.File[0].SourceCodeInfo = nil, nil
		if encoded(t, got) != encoded(t, want) {
			t.Errorf("form %d: %v", i, got)
		}
	}
}

// What a Schema declares beside its descriptors stays, and it goes only where it was
// looked at.
func TestSchemaPushKeepsWhatItDoesNotSay(t *testing.T) {
	u := newPusher(t)
	at := slices.IndexFunc(u.fake.objects, func(o *adminv1.Object) bool { return o.GetRef().GetKind() == schemaKind })
	u.fake.objects[at].Manifest = strings.Replace(u.fake.objects[at].Manifest, `"labels"`, `"resourceVersion":"1777905000000.0@k3f9x2ab","labels"`, 1)
	var text string
	u.fake.applied = func(t string) { text = t }
	for _, tt := range []struct{ args, want string }{
		{"", `"metadata":{"name":"till","namespace":"default","resourceVersion":"1777905000000.0@k3f9x2ab","labels":{"team":"on"}},"spec":{"backendRefs":[{"namespace":"default","name":"cart-v1"}],`},
		{"--backend cart-v2 --backend shop/x", `"backendRefs":[{"namespace":"default","name":"cart-v2"},{"namespace":"shop","name":"x"}],`},
		{"--backend=", `"spec":{"descriptorSet":`},
	} {
		if got := u.run(append([]string{"schema", "push", "till.binpb", "--name", "till"}, strings.Fields(tt.args)...)...); got.code != 0 {
			t.Errorf("%q: exit %d, %s", tt.args, got.code, got.stderr)
		}
		if !strings.Contains(text, tt.want) {
			t.Errorf("%q: sent %.300s\nwant %s", tt.args, text, tt.want)
		}
	}
}

func TestEditKeepsTheBytesOfASchema(t *testing.T) {
	u := newPusher(t)
	var text string
	u.fake.applied = func(t string) { text = t }
	u.editor(`grep -q 'descriptorSet: as-it-is$' "$1"
sed -i s/cart-v1/cart-v2/ "$1"`)
	got := u.run("edit", "schema", "till")
	o, _ := tillSchema(t)
	manifest, err := readManifest(o.GetManifest())
	if err != nil {
		t.Fatal(err)
	}
	if got.code != 0 || !strings.Contains(text, "descriptorSet: "+word(manifest, "spec", "descriptorSet")+"\n") || !strings.Contains(text, "cart-v2") {
		t.Errorf("exit %d, %s, sent %.500s", got.code, got.stderr, text)
	}
}

func (f *fakeServer) ListSchemas(_ context.Context, r *connect.Request[adminv1.ListSchemasRequest]) (*connect.Response[adminv1.ListSchemasResponse], error) {
	f.note(r.Msg)
	return connect.NewResponse(&adminv1.ListSchemasResponse{Sources: schemaSources()}), nil
}

func schemaSources() []*adminv1.SchemaSource {
	return []*adminv1.SchemaSource{
		{Kind: adminv1.SchemaSource_KIND_REFLECTION, Backend: "default/cart-v1", Version: "v1", Methods: 4, Learnt: timestamppb.New(now.Add(-time.Minute))},
		{Kind: adminv1.SchemaSource_KIND_REFLECTION, Backend: "shop/cart", Problem: "reflect: UNIMPLEMENTED: no\x1b[31m reflection"},
		{Kind: adminv1.SchemaSource_KIND_OBJECT, Object: &adminv1.Ref{Kind: schemaKind, Namespace: "default", Name: "till"}, Methods: 5, Learnt: timestamppb.New(now.Add(-time.Hour))},
	}
}

func (f *fakeServer) ListMethods(_ context.Context, r *connect.Request[adminv1.ListMethodsRequest]) (*connect.Response[adminv1.ListMethodsResponse], error) {
	f.note(r.Msg)
	if r.Msg.GetBackend() == "default/cart-v2" {
		return connect.NewResponse(&adminv1.ListMethodsResponse{}), nil
	}
	return connect.NewResponse(&adminv1.ListMethodsResponse{
		Methods: []*adminv1.Method{
			{
				Name: "shop.v1.Cart/Get", Input: "shop.v1.GetRequest", Output: "shop.v1.GetResponse", NoSideEffects: true,
				Bindings: []*adminv1.HttpBinding{{Verb: "GET", Path: "/v1/carts/{id}"}},
				Backends: []string{"default/cart-v1", "shop/cart"}, Description: "Get returns a cart.",
			},
			{Name: "shop.v1.Cart/Watch", Input: "shop.v1.WatchRequest", Output: "shop.v1.WatchResponse", ServerStreaming: true, Backends: []string{"default/cart-v1"}},
		},
		Problems: schemaSources()[1:2],
	}), nil
}

func (f *fakeServer) GetOpenAPI(_ context.Context, r *connect.Request[adminv1.GetOpenAPIRequest]) (*connect.Response[adminv1.GetOpenAPIResponse], error) {
	f.note(r.Msg)
	if r.Msg.GetRoute().GetName() == "any" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("describe GRPCRoute shop/any: no schema is known"))
	}
	return connect.NewResponse(&adminv1.GetOpenAPIResponse{Document: "{\n  \"openapi\": \"3.1.0\",\n  \"info\": {\n    \"title\": \"cart\",\n    \"description\": \"on <b>\"\n  },\n  \"paths\": {}\n}\n"}), nil
}
