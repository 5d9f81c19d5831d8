package schema

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"
)

func TestCompileFindsMethodsAndTheirBindings(t *testing.T) {
	s := schemaOf(t, shop)
	m := s.Method("/shop.v1.Cart/Get")
	if m == nil || len(s.Methods()) != 2 {
		t.Fatalf("methods %v", s.Methods())
	}
	want := []Binding{
		{Verb: "GET", Template: "/v1/{name=carts/*}", ResponseBody: "items"},
		{Verb: "POST", Template: "/v1/carts:get", Body: "*"},
		{Verb: "HEAD", Template: "/v1/any"},
	}
	if !reflect.DeepEqual(m.Bindings, want) {
		t.Errorf("bindings %+v, want %+v", m.Bindings, want)
	}
	if !m.NoSideEffects || m.ServerStreaming || m.Schema != s {
		t.Errorf("method %+v", m)
	}
	if w := s.Method("/shop.v1.Cart/Watch"); !w.ServerStreaming || w.ClientStreaming || w.NoSideEffects || len(w.Bindings) > 0 {
		t.Errorf("method %+v", w)
	}
	if s.Method("/shop.v1.Cart/Drop") != nil || s.Method("") != nil {
		t.Error("a method that is not there")
	}
}

// withRule is the example service with another annotation of Get.
func withRule(t *testing.T, rule *annotations.HttpRule) *descriptorpb.FileDescriptorSet {
	set := compiledSet(t, shop)
	options := new(descriptorpb.MethodOptions)
	proto.SetExtension(options, annotations.E_Http, rule)
	fileOf(t, set, "shop/v1/cart.proto").Service[0].Method[0].Options = options
	return set
}

func TestCompileReadsEveryKindOfRule(t *testing.T) {
	inner := &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: "/inner"}}
	tests := []struct {
		name      string
		rule      *annotations.HttpRule
		want      []Binding
		wantFault string
	}{
		{"get", &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: "/a"}}, []Binding{{Verb: "GET", Template: "/a"}}, ""},
		{"put", &annotations.HttpRule{Pattern: &annotations.HttpRule_Put{Put: "/a"}, Body: "*"}, []Binding{{Verb: "PUT", Template: "/a", Body: "*"}}, ""},
		{"post", &annotations.HttpRule{Pattern: &annotations.HttpRule_Post{Post: "/a"}, Body: "b"}, []Binding{{Verb: "POST", Template: "/a", Body: "b"}}, ""},
		{"delete", &annotations.HttpRule{Pattern: &annotations.HttpRule_Delete{Delete: "/a"}}, []Binding{{Verb: "DELETE", Template: "/a"}}, ""},
		{"patch", &annotations.HttpRule{Pattern: &annotations.HttpRule_Patch{Patch: "/a"}, ResponseBody: "r"}, []Binding{{Verb: "PATCH", Template: "/a", ResponseBody: "r"}}, ""},
		{"custom", &annotations.HttpRule{Pattern: &annotations.HttpRule_Custom{Custom: &annotations.CustomHttpPattern{Kind: "*", Path: "/a"}}}, []Binding{{Verb: "*", Template: "/a"}}, ""},
		{"custom without kind", &annotations.HttpRule{Pattern: &annotations.HttpRule_Custom{}}, nil, "rule 1 left out: its custom pattern has no kind"},
		{"no pattern", &annotations.HttpRule{}, nil, `method "shop.v1.Cart.Get": google.api.http rule 1 left out: it has no path`},
		{
			"additional ones nest one level",
			&annotations.HttpRule{
				Pattern:            &annotations.HttpRule_Get{Get: "/a"},
				AdditionalBindings: []*annotations.HttpRule{{Pattern: &annotations.HttpRule_Get{Get: "/b"}, AdditionalBindings: []*annotations.HttpRule{inner}}},
			},
			[]Binding{{Verb: "GET", Template: "/a"}, {Verb: "GET", Template: "/b"}},
			"rule 2: its own additional_bindings left out",
		},
		{
			"too many",
			&annotations.HttpRule{
				Pattern:            &annotations.HttpRule_Get{Get: "/a"},
				AdditionalBindings: slices.Repeat([]*annotations.HttpRule{inner}, maxBindings),
			},
			append([]Binding{{Verb: "GET", Template: "/a"}}, slices.Repeat([]Binding{{Verb: "GET", Template: "/inner"}}, maxBindings-1)...),
			"google.api.http rules beyond the first 100 left out, of 101",
		},
		{
			"too large", &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: "/" + strings.Repeat("a", maxOptions)}},
			nil, "bytes of options, limit 65536",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			set := withRule(t, test.rule)
			// As they were linked into a program, and as unknown fields.
			for how, compile := range map[string]func() (*Schema, error){
				"linked":  func() (*Schema, error) { return Compile(set) },
				"unknown": func() (*Schema, error) { return Parse(encode(t, set)) },
			} {
				s, err := compile()
				if err != nil {
					t.Fatal(err)
				}
				if got := s.Method("/shop.v1.Cart/Get").Bindings; !slices.Equal(got, test.want) {
					t.Errorf("%s: bindings %+v, want %+v", how, got, test.want)
				}
				if test.wantFault != "" {
					wantFault(t, s, test.wantFault)
				} else if len(s.Faults()) > 0 {
					t.Errorf("%s: faults %v", how, s.Faults())
				}
			}
		})
	}
}

func TestCompileMakesMessagesThatEncodeAndDecode(t *testing.T) {
	files := maps.Clone(shop)
	maps.Copy(files, till)
	s := schemaOf(t, files)
	tests := []struct{ message, json string }{
		{"shop.v1.GetResponse", `{"items":[{"sku":"a","quantity":2}],"at":"2026-01-02T03:04:05Z"}`},
		{"till.Total", `{"cents":"5","mood":"GRIM","[till.More.slip]":{"text":"t","inner":{"text":"u"}},"[till.note]":"n"}`},
	}
	for _, test := range tests {
		mt, err := s.FindMessageByName(protoreflect.FullName(test.message))
		if err != nil {
			t.Fatal(err)
		}
		m := mt.New().Interface()
		if err := (protojson.UnmarshalOptions{Resolver: s}).Unmarshal([]byte(test.json), m); err != nil {
			t.Fatal(err)
		}
		decoded := mt.New().Interface()
		if err := (proto.UnmarshalOptions{Resolver: s}).Unmarshal(encode(t, m), decoded); err != nil {
			t.Fatal(err)
		}
		got, err := protojson.MarshalOptions{Resolver: s}.Marshal(decoded)
		if err != nil || strings.ReplaceAll(string(got), " ", "") != test.json {
			t.Errorf("%s, error %v, want %s", got, err, test.json)
		}
	}
}

func TestCompileUsesGeneratedTypesForStandardMessages(t *testing.T) {
	s := schemaOf(t, map[string]string{"ping.proto": `syntax = "proto3"; package ping; import "google/protobuf/empty.proto";
		service Ping { rpc Do(google.protobuf.Empty) returns (google.protobuf.Empty); }`})
	if m := s.Methods()[0].Input.New().Interface(); reflect.TypeOf(m) != reflect.TypeFor[*emptypb.Empty]() {
		t.Errorf("a %T", m)
	}
}

func TestSchemaResolvesAny(t *testing.T) {
	s := schemaOf(t, shop)
	for url, want := range map[string]bool{
		"type.googleapis.com/shop.v1.Item":                               true,
		"shop.v1.Item":                                                   true,
		"https://example.com/x/shop.v1.Item":                             true,
		"type.googleapis.com/google.rpc.ErrorInfo":                       true,
		"type.googleapis.com/google.rpc.Status":                          true,
		"type.googleapis.com/google.protobuf.Duration":                   true,
		"type.googleapis.com/google.protobuf.Timestamp":                  true,
		"type.googleapis.com/shop.v1.Cart":                               false, // a service
		"type.googleapis.com/none.None":                                  false,
		"type.googleapis.com/sluice.admin.v1.Backend":                    false, // of the binary, not of the set
		"type.googleapis.com/grpc.reflection.v1.ServerReflectionRequest": false,
		"": false,
	} {
		if mt, err := s.FindMessageByURL(url); (err == nil) != want {
			t.Errorf("%q: type %v, error %v", url, mt, err)
		}
	}
	if mt, _ := s.FindMessageByURL("google.rpc.ErrorInfo"); mt != (&errdetails.ErrorInfo{}).ProtoReflect().Type() {
		t.Errorf("google.rpc.ErrorInfo is a %T", mt)
	}
}

// message is a file with one message M, of a field of that type.
func fileWith(name, pkg, fieldType string, imports ...string) *descriptorpb.FileDescriptorProto {
	f := &descriptorpb.FileDescriptorProto{
		Name: proto.String(name), Package: proto.String(pkg), Syntax: proto.String("proto3"), Dependency: imports,
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("M"),
			Field: []*descriptorpb.FieldDescriptorProto{{
				Name: proto.String("f"), Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}},
		}},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String("S"),
			Method: []*descriptorpb.MethodDescriptorProto{
				{Name: proto.String("Do"), InputType: proto.String("." + pkg + ".M"), OutputType: proto.String("." + pkg + ".M")},
			},
		}},
	}
	if fieldType != "" {
		field := f.MessageType[0].Field[0]
		field.Type, field.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), proto.String(fieldType)
	}
	return f
}

func TestCompileLeavesOutWhatDoesNotFit(t *testing.T) {
	good := fileWith("good.proto", "good", "")
	edited := func(f *descriptorpb.FileDescriptorProto, edit func(*descriptorpb.FileDescriptorProto)) *descriptorpb.FileDescriptorProto {
		edit(f)
		return f
	}
	stamp := fileWith("mine/timestamp.proto", "google.protobuf", "")
	stamp.MessageType[0].Name = proto.String("Timestamp")
	stamp.Service = nil
	tests := []struct {
		name  string
		files []*descriptorpb.FileDescriptorProto
		want  []string // methods beside those of good.proto
		fault string
	}{
		{
			"an import that nothing needs is missing",
			[]*descriptorpb.FileDescriptorProto{fileWith("a.proto", "a", "", "validate/validate.proto")},
			[]string{"/a.S/Do"},
			"",
		},
		{
			"a type is missing",
			[]*descriptorpb.FileDescriptorProto{fileWith("a.proto", "a", ".none.M", "none.proto")},
			nil, `method "a.S.Do" left out: its messages need "none.M", which no file of the set declares`,
		},
		{
			"a type is missing further on",
			[]*descriptorpb.FileDescriptorProto{fileWith("a.proto", "a", ".b.M", "b.proto"), fileWith("b.proto", "b", ".c.M", "c.proto"), fileWith("c.proto", "c", ".none.M", "none.proto")},
			nil, `method "a.S.Do" left out: its messages need "none.M"`,
		},
		{
			"files in a loop, and one that imports them",
			[]*descriptorpb.FileDescriptorProto{fileWith("c.proto", "c", ".a.M", "a.proto"), fileWith("a.proto", "a", ".b.M", "b.proto"), fileWith("b.proto", "b", ".a.M", "a.proto")},
			nil, "files left out: import loop: a.proto → b.proto → a.proto",
		},
		{
			"a file imports itself",
			[]*descriptorpb.FileDescriptorProto{fileWith("a.proto", "a", "", "a.proto")},
			nil, "import loop: a.proto → a.proto",
		},
		{
			"two files of one name",
			[]*descriptorpb.FileDescriptorProto{fileWith("a.proto", "a", ""), fileWith("a.proto", "b", "")},
			[]string{"/a.S/Do"},
			`file "a.proto": a second one with other content left out`,
		},
		{
			"one file twice",
			[]*descriptorpb.FileDescriptorProto{fileWith("a.proto", "a", ""), fileWith("a.proto", "a", "")},
			[]string{"/a.S/Do"},
			"",
		},
		{
			"two files declare one name",
			[]*descriptorpb.FileDescriptorProto{fileWith("a.proto", "a", ""), fileWith("b.proto", "a", "")},
			[]string{"/a.S/Do"},
			`file "b.proto" left out: file "b.proto" has a name conflict over a.`,
		},
		{
			"an edition of the future",
			[]*descriptorpb.FileDescriptorProto{edited(fileWith("a.proto", "a", ""), func(f *descriptorpb.FileDescriptorProto) {
				f.Syntax, f.Edition = proto.String("editions"), descriptorpb.Edition_EDITION_UNSTABLE.Enum()
			})},
			nil, `file "a.proto" left out: edition EDITION_UNSTABLE is not supported`,
		},
		{
			"an unknown syntax",
			[]*descriptorpb.FileDescriptorProto{edited(fileWith("a.proto", "a", ""), func(f *descriptorpb.FileDescriptorProto) { f.Syntax = proto.String("proto9") })},
			nil, `file "a.proto" left out: invalid syntax: "proto9"`,
		},
		{
			"a long path",
			[]*descriptorpb.FileDescriptorProto{fileWith(strings.Repeat("a", maxPath+1), "a", "")},
			nil, "left out: its path is not UTF-8, or has more than 1024 bytes",
		},
		{
			"no name",
			[]*descriptorpb.FileDescriptorProto{fileWith("", "a", "")},
			nil, `file "" left out: file path must be populated`,
		},
		{
			"a standard message that is another",
			[]*descriptorpb.FileDescriptorProto{stamp, fileWith("a.proto", "a", ".google.protobuf.Timestamp", "mine/timestamp.proto")},
			nil, `file "mine/timestamp.proto" left out: it declares "google.protobuf.Timestamp" otherwise than everybody knows it`,
		},
		{
			"a standard file that is another",
			[]*descriptorpb.FileDescriptorProto{edited(proto.Clone(stamp).(*descriptorpb.FileDescriptorProto), func(f *descriptorpb.FileDescriptorProto) {
				f.Name = proto.String("google/protobuf/timestamp.proto")
			}), fileWith("a.proto", "a", ".google.protobuf.Timestamp", "google/protobuf/timestamp.proto")},
			[]string{"/a.S/Do"},
			"",
		},
		{
			"a public import that is not there",
			[]*descriptorpb.FileDescriptorProto{edited(fileWith("a.proto", "a", ""), func(f *descriptorpb.FileDescriptorProto) { f.PublicDependency = []int32{3} })},
			nil, `file "a.proto" left out: public import 3 of 0`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := Compile(&descriptorpb.FileDescriptorSet{File: append(test.files, good)})
			if err != nil {
				t.Fatal(err)
			}
			want := append(test.want, "/good.S/Do")
			if got := paths(s.Methods()); !slices.Equal(got, want) {
				t.Errorf("methods %v, want %v", got, want)
			}
			if test.fault != "" {
				wantFault(t, s, test.fault)
			} else if len(s.Faults()) > 0 {
				t.Errorf("faults %v", s.Faults())
			}
			for _, name := range []protoreflect.FullName{"a.M", "c.M"} {
				// What resolves can be made.
				if mt, err := s.FindMessageByName(name); err == nil {
					mt.New().Interface()
				} else if slices.Contains(test.want, "/"+string(name.Parent())+".S/Do") {
					t.Errorf("type %q: %v", name, err)
				}
			}
		})
	}
}

func TestCompileAcceptsACopyOfAStandardFileElsewhere(t *testing.T) {
	files := map[string]string{
		"third_party/timestamp.proto": `syntax = "proto3"; package google.protobuf; message Timestamp { int64 seconds = 1; int32 nanos = 2; }`,
		"a.proto":                     `syntax = "proto3"; package a; import "third_party/timestamp.proto"; message M { google.protobuf.Timestamp at = 1; }`,
	}
	mt, err := schemaOf(t, files).FindMessageByName("a.M")
	if err != nil {
		t.Fatal(err)
	}
	const text = `{"at":"2026-01-02T03:04:05Z"}`
	m := mt.New().Interface()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	if got := protojson.Format(m); strings.Join(strings.Fields(got), "") != text {
		t.Errorf("%s, want %s", got, text)
	}
}

func TestCompileRefusesASetOfWhichNothingIsLeft(t *testing.T) {
	_, err := Compile(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{fileWith("a.proto", "a", "", "a.proto")}})
	wantText(t, err, "linking descriptors: none of 1 files can be used: files left out: import loop")
	if s, err := Compile(nil); err != nil || len(s.Methods()) > 0 {
		t.Errorf("an empty set: %v", err)
	}
}

func TestCompileRefusesWhatIsBeyondItsBounds(t *testing.T) {
	many := new(descriptorpb.FileDescriptorSet)
	for i := range maxFiles + 1 {
		many.File = append(many.File, &descriptorpb.FileDescriptorProto{Name: proto.String(fmt.Sprint(i))})
	}
	crowd := fileWith("a.proto", "a", "")
	for range maxMethods {
		crowd.Service[0].Method = append(crowd.Service[0].Method, &descriptorpb.MethodDescriptorProto{})
	}
	long := fileWith("a.proto", strings.Repeat("a", 1<<20), "")
	for i := range 64 {
		long.MessageType = append(long.MessageType, &descriptorpb.DescriptorProto{Name: proto.String(fmt.Sprint("m", i))})
	}
	deep := fileWith("a.proto", "a", "")
	for m, i := deep.MessageType[0], 0; i < maxNesting; i++ {
		m.NestedType = []*descriptorpb.DescriptorProto{{Name: proto.String("N")}}
		m = m.NestedType[0]
	}
	parts := strings.Repeat("a.", 1<<20) + "a"
	scopes := fileWith("a.proto", strings.Repeat("a.", 10_000)+"a", "b.M", "b.proto")
	set := func(files ...*descriptorpb.FileDescriptorProto) *descriptorpb.FileDescriptorSet {
		return &descriptorpb.FileDescriptorSet{File: files}
	}
	tests := []struct {
		name string
		set  *descriptorpb.FileDescriptorSet
		want string
	}{
		{"files", many, "2001 files, limit 2000"},
		{"methods", set(crowd), `file "a.proto": more than 20000 methods`},
		{"names", set(long), "names of more than 67108864 bytes"},
		{"nesting", set(deep), "messages nested deeper than 32"},
		{"a package of a million parts", set(&descriptorpb.FileDescriptorProto{Package: &parts}), "type names of too many parts"},
		{"a type name of a million parts", set(fileWith("a.proto", "a", "."+parts)), "type names of too many parts"},
		{"scopes", set(scopes), "type names of too many parts"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Compile(test.set)
			wantText(t, err, test.want)
		})
	}
}

// TestCompileWalksPublicImportsNoMoreOftenThanItCan has a ladder of public imports, of
// 2^30 ways.
func TestCompileWalksPublicImportsNoMoreOftenThanItCan(t *testing.T) {
	set := new(descriptorpb.FileDescriptorSet)
	for i := range 30 {
		for _, side := range []string{"l", "r"} {
			f := &descriptorpb.FileDescriptorProto{Name: proto.String(fmt.Sprint(side, i))}
			if i > 0 {
				f.Dependency = []string{fmt.Sprint("l", i-1), fmt.Sprint("r", i-1)}
				f.PublicDependency = []int32{0, 1}
			}
			set.File = append(set.File, f)
		}
	}
	s, err := Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, s, "public imports lead on in more than 2000 ways")
}

func TestCompileTellsFaultsInShort(t *testing.T) {
	set := &descriptorpb.FileDescriptorSet{}
	for i := range 2 * maxFaults {
		f := fileWith(fmt.Sprint(i, ".proto"), "a", "")
		f.Syntax = proto.String(strings.Repeat("é", 10_000))
		set.File = append(set.File, f)
	}
	_, err := Compile(set)
	wantText(t, err, "and 197 more")
	if len(err.Error()) > 5000 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
	set.File = append(set.File, fileWith("good.proto", "good", ""))
	s, err := Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	faults := s.Faults()
	if len(faults) != maxFaults+1 || faults[maxFaults].Error() != "and 100 more" || len(faults[0].Error()) > 1010 {
		t.Errorf("%d faults: %v", len(faults), faults[0])
	}
}

// TestCompileWalksImportsOfALadderNoMoreOftenThanItCan has files that import others, of
// which each has but a thousand ways to go on.
func TestCompileWalksImportsOfALadderNoMoreOftenThanItCan(t *testing.T) {
	set := new(descriptorpb.FileDescriptorSet)
	file := func(name string, public bool, imports ...string) {
		f := &descriptorpb.FileDescriptorProto{Name: &name, Dependency: imports}
		for i := range imports {
			if public {
				f.PublicDependency = append(f.PublicDependency, int32(i))
			}
		}
		set.File = append(set.File, f)
	}
	file("l0", false)
	file("r0", false)
	for i := 1; i < 9; i++ {
		for _, side := range []string{"l", "r"} {
			file(fmt.Sprint(side, i), true, fmt.Sprint("l", i-1), fmt.Sprint("r", i-1))
		}
	}
	var tops []string
	for i := range 100 {
		tops = append(tops, fmt.Sprint("top", i))
		file(tops[i], true, "l8", "r8")
	}
	for i := range 100 {
		file(fmt.Sprint("user", i), false, tops...)
	}
	s, err := Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, s, "imports of all files lead on in more than 1000000 ways")
}

func TestParseCountsBeforeItDecodes(t *testing.T) {
	// Two bytes each, and each a message once decoded.
	file := append([]byte{0x0a, 0x01, 'a'}, slices.Repeat([]byte{0x22, 0x00}, maxElements+1)...)
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{})
	if err != nil {
		t.Fatal(err)
	}
	set = append(set, 0x0a)
	for n := len(file); ; n >>= 7 {
		if n < 0x80 {
			set = append(set, byte(n))
			break
		}
		set = append(set, byte(n)|0x80)
	}
	set = append(set, file...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = Parse(set)
	runtime.ReadMemStats(&after)
	allocated := after.TotalAlloc - before.TotalAlloc
	if !errors.Is(err, errTooManyElements) || allocated > 100_000 {
		t.Errorf("error %v after %d bytes", err, allocated)
	}
	_, err = Parse(make([]byte, maxBytes+1))
	wantText(t, err, "16777217 bytes, limit 16777216")
	_, err = Parse([]byte("\xff"))
	wantText(t, err, "decoding a set of descriptors: the encoding is broken")
}

func TestFileSetCompilesToTheSame(t *testing.T) {
	files := maps.Clone(shop)
	maps.Copy(files, till)
	want := schemaOf(t, files)
	got, err := Parse(encode(t, want.FileSet()))
	if err != nil || got.digest != want.digest {
		t.Errorf("error %v", err)
	}
	locations := got.Method("/shop.v1.Cart/Get").Descriptor.ParentFile().SourceLocations()
	if c := locations.ByDescriptor(got.Method("/shop.v1.Cart/Get").Descriptor).LeadingComments; c != " Get returns it.\n" {
		t.Errorf("comment %q", c)
	}
	if locations.Len() != 2 {
		t.Errorf("%d locations, want those with comments", locations.Len())
	}
}

// FuzzCompile takes arbitrary bytes for a set. What comes out can be used.
func FuzzCompile(f *testing.F) {
	for _, files := range []map[string]string{shop, till, version("a", "old")} {
		f.Add(encode(f, bareSet(f, files)))
	}
	f.Add(encode(f, &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{fileWith("a.proto", "a", ".none.M", "none.proto"), fileWith("b.proto", "b", "M")}}))
	f.Fuzz(func(t *testing.T, encoded []byte) {
		s, err := Parse(encoded)
		if err != nil {
			return
		}
		for _, m := range s.Methods() {
			for _, mt := range []protoreflect.MessageType{m.Input, m.Output} {
				message := mt.New().Interface()
				proto.UnmarshalOptions{Resolver: s, AllowPartial: true}.Unmarshal(encoded, message)
				protojson.MarshalOptions{Resolver: s, AllowPartial: true, EmitUnpopulated: true}.Marshal(message)
			}
		}
		if _, err := Compile(s.FileSet()); err != nil {
			t.Errorf("its own set: %v", err)
		}
		r := NewReflection([]*Schema{s, s}, nil).Converse()
		for _, file := range s.order {
			if _, err := r.Answer(encode(t, fileByName(file.Path()))); err != nil {
				t.Error(err)
			}
		}
	})
}

// large is a service of 200 methods, each with messages of 20 fields and an annotation.
func large() map[string]string {
	var b strings.Builder
	b.WriteString("syntax = \"proto3\"; package large.v1; import \"google/api/annotations.proto\";\nservice Large {\n")
	for i := range 200 {
		fmt.Fprintf(&b, "rpc Method%d(Request%d) returns (Response%d) { option (google.api.http) = { post: \"/v1/method%d/{field1}\" body: \"*\" }; }\n", i, i, i, i)
	}
	b.WriteString("}\n")
	for i := range 200 {
		for _, kind := range []string{"Request", "Response"} {
			fmt.Fprintf(&b, "message %s%d {\n", kind, i)
			for f := range 20 {
				fmt.Fprintf(&b, "string field%d = %d;\n", f, f+1)
			}
			b.WriteString("}\n")
		}
	}
	return map[string]string{"large.proto": b.String()}
}

func BenchmarkCompile(b *testing.B) {
	encoded := encode(b, compiledSet(b, large()))
	b.ReportAllocs()
	b.SetBytes(int64(len(encoded)))
	for b.Loop() {
		if _, err := Parse(encoded); err != nil {
			b.Fatal(err)
		}
	}
}
