package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"sluice/gateway/schema"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// compileMethods makes methods of a .proto source. What it may import is what the
// binary has of google/protobuf, google/api and google/rpc.
func compileMethods(t testing.TB, name, source string) []*schema.Method {
	t.Helper()
	c := protocompile.Compiler{
		Resolver: protocompile.CompositeResolver{
			&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(map[string]string{name: source})},
			protocompile.ResolverFunc(linkedFile),
		},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := c.Compile(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := schema.Compile(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{protoutil.ProtoFromFileDescriptor(files[0])}})
	if err != nil {
		t.Fatal(err)
	}
	if faults := compiled.Faults(); len(faults) > 0 {
		t.Fatal(faults)
	}
	return compiled.Methods()
}

func linkedFile(path string) (protocompile.SearchResult, error) {
	f, err := protoregistry.GlobalFiles.FindFileByPath(path)
	if err != nil {
		return protocompile.SearchResult{}, err
	}
	return protocompile.SearchResult{Desc: f}, nil
}

func describe(t testing.TB, o OpenAPIOptions, methods []*schema.Method) []byte {
	t.Helper()
	document, err := OpenAPI(o, methods)
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// Each testdata/openapi/NAME.proto is described as NAME.json says, and the document
// obeys the rules of OpenAPI.
func TestOpenAPIDescribesServices(t *testing.T) {
	sources, err := filepath.Glob("testdata/openapi/*.proto")
	if err != nil || len(sources) == 0 {
		t.Fatal("no sources", err)
	}
	sources = append(sources, "../../demo/shop/v1/shop.proto")
	for _, source := range sources {
		name := strings.TrimSuffix(filepath.Base(source), ".proto")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			methods := compileMethods(t, name+".proto", string(text))
			o := OpenAPIOptions{Title: name, Version: "v1", Servers: []string{"https://shop.example.com"}}
			got := describe(t, o, methods)
			slices.Reverse(methods) // the order in which they are known
			if !bytes.Equal(got, describe(t, o, methods)) {
				t.Error("the same methods in another order make another document")
			}
			checkOpenAPI(t, got)
			checkServed(t, got, methods)
			golden := "testdata/openapi/" + name + ".json"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: this is not what is made now; -update writes it down, and git diff shows it", golden)
			}
		})
	}
}

// checkOpenAPI holds a document against the rules of OpenAPI 3.1 that a machine can
// break: references, parameters of paths, identifiers, names.
func checkOpenAPI(t *testing.T, document []byte) {
	t.Helper()
	var doc struct {
		OpenAPI    string
		Info       struct{ Title, Version string }
		Tags       []struct{ Name string }
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Schemas, Responses map[string]json.RawMessage }
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || doc.Info.Title == "" || doc.Info.Version == "" {
		t.Errorf("openapi %q, info %+v: want version 3.1.0, title and version", doc.OpenAPI, doc.Info)
	}
	for name := range doc.Components.Schemas {
		if !regexp.MustCompile(`^[a-zA-Z0-9._-]+$`).MatchString(name) {
			t.Errorf("component %q: not a name that OpenAPI allows", name)
		}
	}
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`"\$ref": "([^"]*)"`).FindAllSubmatch(document, -1) {
		name, ok := strings.CutPrefix(string(m[1]), "#/components/schemas/")
		_, found := doc.Components.Schemas[name]
		if !ok {
			name, ok = strings.CutPrefix(string(m[1]), "#/components/responses/")
			_, found = doc.Components.Responses[name]
		}
		if !ok || !found {
			t.Errorf("$ref %s leads nowhere", m[1])
		}
		used[name] = true
	}
	for name := range doc.Components.Schemas {
		if !used[name] {
			t.Errorf("component %s: nothing refers to it", name)
		}
	}
	tags := map[string]bool{}
	for _, tag := range doc.Tags {
		tags[tag.Name] = true
	}
	c := &operationChecker{ids: map[string]bool{}, tags: tags}
	shapes := map[string]string{}
	for path, item := range doc.Paths {
		shape := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(path, "{}")
		if other := shapes[shape]; other != "" {
			t.Errorf("paths %s and %s cannot be told apart", path, other)
		}
		shapes[shape] = path
		for verb, operation := range item {
			c.check(t, verb, path, operation)
		}
	}
}

// checkServed checks that what a document describes is served: the table finds each
// operation's path, whatever is put in for the parameters, and the methods with no path
// have theirs.
func checkServed(t *testing.T, document []byte, methods []*schema.Method) {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	table, faults := NewTable(methods)
	t.Logf("left out of the table: %v", faults)
	served := 0
	for path, item := range doc.Paths {
		actual := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(path, "x%20y")
		for verb := range item {
			found, _ := table.Match(strings.ToUpper(verb), actual)
			plain := slices.ContainsFunc(methods, func(m *schema.Method) bool { return len(m.Bindings) == 0 && m.Path == path })
			if len(found) == 0 && !(plain && verb == "post") {
				t.Errorf("%s %s is described, and not served", verb, actual)
			}
			served++
		}
	}
	if served < 4 {
		t.Errorf("%d operations: these are not all", served)
	}
}

// operationChecker knows what must not be there twice.
type operationChecker struct{ ids, tags map[string]bool }

func (c *operationChecker) check(t *testing.T, verb, path string, raw []byte) {
	t.Helper()
	if !slices.Contains([]string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}, verb) {
		t.Errorf("%s %s: not a verb of OpenAPI", verb, path)
	}
	var op struct {
		OperationID string
		Tags        []string
		Parameters  []struct {
			Name, In string
			Required bool
			Schema   json.RawMessage
		}
		RequestBody *struct{ Content map[string]json.RawMessage }
		Responses   map[string]struct {
			Description string
			Content     map[string]json.RawMessage
			Ref         string `json:"$ref"`
		}
	}
	if err := json.Unmarshal(raw, &op); err != nil {
		t.Fatal(err)
	}
	if op.OperationID == "" || c.ids[op.OperationID] {
		t.Errorf("%s %s: operationId %q is missing, or another's", verb, path, op.OperationID)
	}
	c.ids[op.OperationID] = true
	for _, tag := range op.Tags {
		if !c.tags[tag] {
			t.Errorf("%s %s: tag %q is not declared", verb, path, tag)
		}
	}
	given, inPath := map[string]bool{}, map[string]bool{}
	for _, p := range op.Parameters {
		if given[p.In+" "+p.Name] || len(p.Schema) == 0 || p.In == "path" && !p.Required {
			t.Errorf("%s %s: parameter %+v is there twice, without a schema, or not required in a path", verb, path, p)
		}
		given[p.In+" "+p.Name] = true
		if p.In == "path" {
			inPath[p.Name] = true
		}
	}
	wanted := map[string]bool{}
	for _, m := range regexp.MustCompile(`\{([^}]*)\}`).FindAllStringSubmatch(path, -1) {
		wanted[m[1]] = true
	}
	if !maps.Equal(inPath, wanted) {
		t.Errorf("%s %s: parameters %v in the path, %v declared", verb, path, wanted, inPath)
	}
	if len(op.Responses) == 0 || op.RequestBody != nil && len(op.RequestBody.Content) == 0 {
		t.Errorf("%s %s: no responses, or a body without a content", verb, path)
	}
	for status, r := range op.Responses {
		if r.Ref == "" && (r.Description == "" || len(r.Content) == 0) {
			t.Errorf("%s %s: response %s without description or content", verb, path, status)
		}
	}
}

// chain makes a source in which message I has the next one in n fields, down to a
// depth: its fields are as many as n to the power of the depth.
func chain(n, depth int) string {
	var b strings.Builder
	b.WriteString("syntax = \"proto3\";\npackage x;\nimport \"google/api/annotations.proto\";\n" +
		"service S { rpc Get(M0) returns (M0) { option (google.api.http) = {get: \"/v1/x\"}; } }\n")
	for i := range depth {
		fmt.Fprintf(&b, "message M%d {\n", i)
		for f := range n {
			fmt.Fprintf(&b, "  M%d f%d = %d;\n", i+1, f, f+1)
		}
		b.WriteString("}\n")
	}
	fmt.Fprintf(&b, "message M%d { string leaf = 1; }\n", depth)
	return b.String()
}

func TestOpenAPIBoundsQueryParameters(t *testing.T) {
	for _, tt := range []struct{ name, source string }{
		{"a leaf below many ways", chain(20, maxOpenDepth-1)},
		{"no leaf within the depth", chain(20, maxOpenDepth+5)},
		{"a message within itself", strings.Replace(chain(1, 1), "string leaf = 1;", "M1 again = 1; string leaf = 2;", 1)},
	} {
		document := describe(t, OpenAPIOptions{}, compileMethods(t, "x.proto", tt.source))
		checkOpenAPI(t, document)
		if n := bytes.Count(document, []byte(`"in": "query"`)); n > maxOpenParameters {
			t.Errorf("%s: %d parameters, limit %d", tt.name, n, maxOpenParameters)
		}
		if len(document) > 1<<20 {
			t.Errorf("%s: %d bytes", tt.name, len(document))
		}
	}
}

func TestOpenAPIRefusesDocumentsWithoutEnd(t *testing.T) {
	var source strings.Builder
	source.WriteString("syntax = \"proto3\";\npackage x;\nimport \"google/api/annotations.proto\";\nservice S {\n")
	for i := range maxDocumentParts/maxOpenParameters + 1 {
		fmt.Fprintf(&source, "rpc Get%d(M0) returns (M0) { option (google.api.http) = {get: \"/v1/x%[1]d\"}; }\n", i)
	}
	source.WriteString("}\n" + chain(20, 3)[strings.Index(chain(20, 3), "message"):])
	_, err := OpenAPI(OpenAPIOptions{}, compileMethods(t, "x.proto", source.String()))
	if err == nil || !strings.Contains(err.Error(), "limit 200000") {
		t.Errorf("error %v, want one that tells the limit", err)
	}
}

// Names and comments are as long as the author of a schema likes, and stand wherever
// their types are used.
func TestOpenAPIBoundsTexts(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	var source strings.Builder
	source.WriteString("syntax = \"proto3\";\npackage x;\nimport \"google/api/annotations.proto\";\nservice S {\n")
	for i := range 300 {
		fmt.Fprintf(&source, "rpc Get%d(M) returns (M) { option (google.api.http) = {post: \"/v1/x%[1]d/{id}\" body: \"*\"}; }\n", i)
	}
	source.WriteString("}\nmessage M { string id = 1;\n// " + long + "\nstring a" + long + " = 2; }\n")
	document, err := OpenAPI(OpenAPIOptions{}, compileMethods(t, "x.proto", source.String()))
	if err == nil || !strings.Contains(err.Error(), "limit 200000") {
		t.Errorf("%d bytes, error %v, want one that tells the limit", len(document), err)
	}
	one := "syntax = \"proto3\";\npackage x;\nimport \"google/api/annotations.proto\";\nservice S { rpc Get(M) returns (M) { option (google.api.http) = {get: \"/v1/x\"}; } }\n" +
		"message M { string id = 1;\n// " + long + "\nstring b = 2; string a" + long + " = 3; }\n"
	if document = describe(t, OpenAPIOptions{}, compileMethods(t, "x.proto", one)); len(document) > 300<<10 {
		t.Errorf("%d bytes for a name of %d, which is written once", len(document), len(long))
	}
}

// What a document leaves out it says.
func TestOpenAPITellsWhatItLeavesOut(t *testing.T) {
	methods := compileMethods(t, "x.proto", `syntax = "proto3"; package x; import "google/api/annotations.proto";
		message M { string id = 1; }
		service S {
			rpc A(M) returns (M) { option (google.api.http) = {get: "/v1/{id}"}; }
			rpc B(M) returns (M) { option (google.api.http) = {get: "/v1/*"}; }
			rpc C(M) returns (M) { option (google.api.http) = {custom {kind: "FIND" path: "/v1/c"}}; }
			rpc D(M) returns (M) { option (google.api.http) = {get: "/v1/d/{none}"}; }
			rpc E(M) returns (M) { option (google.api.http) = {post: "/v1/e" body: "none"}; }
			rpc F(M) returns (M) { option (google.api.http) = {get: "/v1/f" response_body: "none"}; }
			rpc G(M) returns (M) { option (google.api.http) = {get: "v1/g"}; }
		}`)
	document := describe(t, OpenAPIOptions{}, methods)
	checkOpenAPI(t, document)
	var doc struct {
		LeftOut []struct{ Method, Binding, Reason string } `json:"x-sluice-left-out"`
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range doc.LeftOut {
		got = append(got, l.Method+": "+l.Binding+": "+l.Reason)
	}
	want := []string{
		"/x.S/B: GET /v1/*: another method has the same verb and path",
		`/x.S/C: FIND /v1/c: OpenAPI does not know the verb "FIND"`,
		`/x.S/D: GET /v1/d/{none}: x.M has no field "none"`,
		`/x.S/E: POST /v1/e: body: x.M has no field "none"`,
		`/x.S/F: GET /v1/f: response_body: x.M has no field "none"`,
		`/x.S/G: GET v1/g: reading path template "v1/g": does not begin with "/"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("left out\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
