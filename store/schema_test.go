package store

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

type (
	fileProto    = descriptorpb.FileDescriptorProto
	messageProto = descriptorpb.DescriptorProto
)

// protoFile is a file of proto3 with one message, M, and these imports.
func protoFile(name string, imports ...string) *fileProto {
	return &fileProto{
		Name: proto.String(name), Syntax: proto.String("proto3"), Package: proto.String(strings.NewReplacer("/", ".", ".proto", "").Replace(name)),
		Dependency: imports, MessageType: []*messageProto{{Name: proto.String("M")}},
	}
}

func descriptorSet(t testing.TB, files ...*fileProto) []byte {
	t.Helper()
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(&descriptorpb.FileDescriptorSet{File: files})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// schemaText declares a Schema of these descriptors; more follows its name.
func schemaText(name, more string, set []byte) string {
	return "apiVersion: sluice.dev/v1alpha1\nkind: Schema\nmetadata: {name: " + name + "}\nspec:\n  descriptorSet: " +
		base64.StdEncoding.EncodeToString(set) + "\n" + more
}

// largeSet is as many bytes of descriptors as one Schema may have, or a few less; an
// eighth of that where everything takes ten times as long. The seed makes it another one.
func largeSet(t testing.TB, seed uint64) []byte {
	t.Helper()
	size, count := MaxDescriptorSet, 64
	if raceDetector {
		size, count = size/8, count/8
	}
	rng := rand.New(rand.NewPCG(seed, seed))
	var files []*fileProto
	for n := range count {
		files = append(files, largeFile(fmt.Sprintf("large/v1/file%d.proto", n), rng))
	}
	set := descriptorSet(t, files...)
	files[0].Options = &descriptorpb.FileOptions{JavaPackage: proto.String(strings.Repeat("x", size-len(set)-100))}
	set = descriptorSet(t, files...)
	if len(set) > size || len(set) < size-100 {
		t.Fatalf("%d bytes", len(set))
	}
	return set
}

func largeFile(name string, rng *rand.Rand) *fileProto {
	f := protoFile(name)
	for i := range 95 {
		m := &messageProto{Name: proto.String(fmt.Sprintf("Message%d", i))}
		for j := range 13 {
			m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{
				Name: proto.String(fmt.Sprintf("field_%d_%08x", j, rng.Uint32())), Number: proto.Int32(int32(j + 1)),
				Type:  descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			})
		}
		f.MessageType = append(f.MessageType, m)
	}
	return f
}

// ladder are files of which each imports both of the next step, publicly.
func ladder(steps int) []*fileProto {
	var files []*fileProto
	for i := range steps {
		for _, side := range []string{"a", "b"} {
			f := protoFile(fmt.Sprintf("step%d/%s.proto", i, side))
			if i+1 < steps {
				f.Dependency = []string{fmt.Sprintf("step%d/a.proto", i+1), fmt.Sprintf("step%d/b.proto", i+1)}
				f.PublicDependency = []int32{0, 1}
			}
			files = append(files, f)
		}
	}
	return files
}

// nested is a message with so many within one another.
func nested(depth int) *messageProto {
	m := &messageProto{Name: proto.String("M")}
	for range depth - 1 {
		m = &messageProto{Name: proto.String("M"), NestedType: []*messageProto{m}}
	}
	return m
}

func withEdition(name string, edition descriptorpb.Edition) *fileProto {
	f := protoFile(name)
	f.Syntax, f.Edition = proto.String("editions"), edition.Enum()
	return f
}

func withField(f *fileProto, typeName string) *fileProto {
	f.MessageType[0].Field = []*descriptorpb.FieldDescriptorProto{{
		Name: proto.String("f"), Number: proto.Int32(1), TypeName: proto.String(typeName),
		Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}}
	return f
}

func TestSchemaTakesWhatACompilerWrites(t *testing.T) {
	var chain []*fileProto // in the wrong order, and as many files as there may be
	for i := range maxDescriptorFiles {
		f := protoFile(fmt.Sprintf("chain/f%d.proto", i))
		if i+1 < maxDescriptorFiles {
			f.Dependency = []string{fmt.Sprintf("chain/f%d.proto", i+1)}
		}
		f.Package = proto.String(fmt.Sprintf("chain.f%d", i))
		chain = append(chain, f)
	}
	deep := protoFile("deep.proto")
	deep.MessageType = []*messageProto{nested(maxDescriptorDepth - 2)}
	own := protoFile("google/protobuf/timestamp.proto")
	for name, files := range map[string][]*fileProto{
		"one file":              {protoFile("a.proto")},
		"imports of Google's":   {withField(protoFile("a.proto", "google/api/annotations.proto", "google/api/field_behavior.proto", "google/api/httpbody.proto", "google/rpc/status.proto", "google/protobuf/struct.proto"), ".google.rpc.Status")},
		"its own of Google's":   {withField(protoFile("a.proto", "google/protobuf/timestamp.proto"), ".google.protobuf.timestamp.M"), own},
		"editions":              {withEdition("a.proto", descriptorpb.Edition_EDITION_2023), withEdition("b.proto", descriptorpb.Edition_EDITION_2024)},
		"a long chain":          chain,
		"a ladder of ten steps": ladder(10),
		"deep messages":         {deep},
	} {
		if errs := checkDescriptorSet(descriptorSet(t, files...)); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
	}
	if errs := checkDescriptorSet(largeSet(t, 1)); len(errs) > 0 {
		t.Errorf("a large set: %v", errs)
	}
}

func TestSchemaRefusesWhatNoCompilerWrites(t *testing.T) {
	deep := protoFile("deep.proto")
	deep.MessageType = []*messageProto{nested(maxDescriptorDepth)}
	public := protoFile("a.proto", "google/protobuf/any.proto")
	public.PublicDependency = []int32{1}
	many := protoFile("many.proto")
	for range maxDescriptorMessages {
		many.MessageType = append(many.MessageType, &messageProto{})
	}
	var files []*fileProto
	for i := range maxDescriptorFiles + 1 {
		files = append(files, protoFile(fmt.Sprintf("f%d.proto", i)))
	}
	twoFaults := []*fileProto{protoFile("a.proto", "b.proto"), withField(protoFile("b.proto"), ".nowhere.M"), withField(protoFile("c.proto"), ".nowhere.M")}
	long := protoFile("long.proto")
	long.MessageType[0].Name = proto.String(strings.Repeat("m", 100_000))
	relative := protoFile("relative.proto")
	relative.MessageType = []*messageProto{nested(maxDescriptorDepth / 2)}
	inner := relative.MessageType[0]
	for len(inner.NestedType) > 0 {
		inner.Name, inner = proto.String(strings.Repeat("m", 100)), inner.NestedType[0]
	}
	for i := range 1000 {
		for _, m := range []*messageProto{long.MessageType[0], inner} {
			m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{
				Name: proto.String(fmt.Sprint("f", i)), Number: proto.Int32(int32(i + 1)), TypeName: proto.String("M"),
				Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			})
		}
	}
	for _, test := range []struct {
		name string
		set  []byte
		want string
	}{
		{"long names", descriptorSet(t, long), `file "long.proto": full names of more than 33554432 bytes in all`},
		{"relative names", descriptorSet(t, relative), `file "relative.proto": relative names of types in too many scopes: write them in full, as compilers do`},
		{"nothing", nil, "not a google.protobuf.FileDescriptorSet: it has no file"},
		{"text", []byte("syntax = \"proto3\";"), "not a google.protobuf.FileDescriptorSet: cannot parse reserved wire type"},
		{"cut short", descriptorSet(t, protoFile("a.proto"))[:10], "not a google.protobuf.FileDescriptorSet: unexpected EOF"},
		{"no name", descriptorSet(t, protoFile("")), `file "": file path must be populated`},
		{"twice", descriptorSet(t, protoFile("a.proto"), protoFile("a.proto")), `file "a.proto": the file is there twice`},
		{"a circle", descriptorSet(t, protoFile("a.proto", "b.proto"), protoFile("b.proto", "a.proto")), `file "a.proto": it imports itself, by way of others`},
		{"an import of its own", descriptorSet(t, protoFile("a.proto", "a.proto")), `file "a.proto": it imports itself, by way of others`},
		{"no import", descriptorSet(t, protoFile("a.proto", "shop/v1/b.proto")), `file "a.proto": it imports "shop/v1/b.proto", which the set does not have: make the set with all imports`},
		{"none of Google's", descriptorSet(t, protoFile("a.proto", "google/secret.proto")), `file "a.proto": it imports "google/secret.proto", which the set does not have: make the set with all imports`},
		{"ours", descriptorSet(t, protoFile("a.proto", "sluice/admin/v1/admin.proto")), `file "a.proto": it imports "sluice/admin/v1/admin.proto", which the set does not have: make the set with all imports`},
		{"no type", descriptorSet(t, withField(protoFile("a.proto"), ".b.M")), `file "a.proto": message field "a.M.f" cannot resolve type: "b.M" not found`},
		{"a fault is told once", descriptorSet(t, twoFaults...), `file "b.proto": message field "b.M.f" cannot resolve type: "nowhere.M" not found` + "\n" + `file "c.proto": message field "c.M.f" cannot resolve type: "nowhere.M" not found`},
		{"one name in two files", descriptorSet(t, withPackage(protoFile("a.proto"), "p"), withPackage(protoFile("b.proto"), "p")), `file "b.proto": file "b.proto" has a name conflict over p.M`},
		{"an old edition", descriptorSet(t, withEdition("cmd/protoc-gen-go/testdata/a.proto", descriptorpb.Edition_EDITION_1_TEST_ONLY)), `file "cmd/protoc-gen-go/testdata/a.proto": edition EDITION_1_TEST_ONLY is not supported`},
		{"a future edition", descriptorSet(t, withEdition("cmd/protoc-gen-go/testdata/a.proto", descriptorpb.Edition_EDITION_MAX)), `file "cmd/protoc-gen-go/testdata/a.proto": edition EDITION_MAX is not supported`},
		{"no edition", descriptorSet(t, withEdition("cmd/protoc-gen-go/testdata/a.proto", 0)), `file "cmd/protoc-gen-go/testdata/a.proto": edition EDITION_UNKNOWN is not supported`},
		{"a public import that is none", descriptorSet(t, public), `file "a.proto": public import 1 of 1`},
		{"deep messages", descriptorSet(t, deep), "not a google.protobuf.FileDescriptorSet: messages deeper than 64 within one another"},
		{"many messages", descriptorSet(t, many), "not a google.protobuf.FileDescriptorSet: more than 300000 messages, fields and other parts"},
		{"many files", descriptorSet(t, files...), "2001 files, limit 2000"},
		{"too large", make([]byte, MaxDescriptorSet+1), "more than 4194304 bytes of descriptors, the limit of one Schema: leave out source information, or make several"},
	} {
		var got []string
		for _, err := range checkDescriptorSet(test.set) {
			got = append(got, err.Error())
		}
		if text := strings.Join(got, "\n"); text != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", test.name, text, test.want)
		}
	}
}

func withPackage(f *fileProto, name string) *fileProto {
	f.Package = &name
	return f
}

// The library walks every way by public imports: of forty steps there are a million
// million ways, and the check is to end all the same.
func TestSchemaRefusesALadderOfPublicImports(t *testing.T) {
	errs := checkDescriptorSet(descriptorSet(t, ladder(40)...))
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "more than 100000 ways to other files by public imports") {
		t.Errorf("got %d faults: %v", len(errs), errs[0])
	}
}

// So it does from every file that imports one of those, publicly or not.
func TestSchemaRefusesManyImportsOfALadder(t *testing.T) {
	files := ladder(10)
	for i := range 100 {
		f := protoFile(fmt.Sprintf("f%d.proto", i))
		for _, step := range ladder(10) {
			f.Dependency = append(f.Dependency, step.GetName())
		}
		files = append(files, f)
	}
	errs := checkDescriptorSet(descriptorSet(t, files...))
	if len(errs) == 0 || !strings.Contains(errs[0].Error(), "more than 100000 ways to other files by public imports") {
		t.Errorf("got %d faults", len(errs))
	}
}

// What a text of a few megabytes makes of itself must not fill the memory.
func TestSchemaIsCountedBeforeItIsDecoded(t *testing.T) {
	file := append([]byte{0x0a, 0x01, 'a'}, bytes.Repeat([]byte{0x22, 0x00}, 2_000_000)...) // empty messages
	set := append([]byte{0x0a, 0x83, 0x92, 0xf4, 0x01}, file...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	errs := checkDescriptorSet(set)
	runtime.ReadMemStats(&after)
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "more than 300000 messages") {
		t.Fatalf("got %v", errs)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("%d bytes were allocated to find that out", took)
	}
}

// FuzzDescriptorSet holds that no descriptors end the process, or take it long, and
// that what is accepted is accepted again.
func FuzzDescriptorSet(f *testing.F) {
	for _, files := range [][]*fileProto{
		{protoFile("a.proto")},
		{withField(protoFile("a.proto", "google/protobuf/any.proto"), ".google.protobuf.Any")},
		{withEdition("cmd/protoc-gen-go/testdata/a.proto", descriptorpb.Edition_EDITION_1_TEST_ONLY)},
		{protoFile("a.proto", "b.proto"), protoFile("b.proto", "a.proto")},
		ladder(3),
	} {
		f.Add(descriptorSet(f, files...))
	}
	f.Fuzz(func(t *testing.T, set []byte) {
		errs := checkDescriptorSet(set)
		for _, err := range errs {
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "\u00a0") {
				t.Errorf("message %q", err)
			}
		}
		if len(errs) > 0 {
			return
		}
		if _, faults := Parse("f", []byte(schemaText("s", "", set))); faults != nil {
			t.Error(faults)
		}
	})
}
