package store

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// oneOfEach has every kind, in an order that is not that of Resources.
const oneOfEach = `apiVersion: sluice.dev/v1alpha1
kind: RPCPolicy
metadata: {name: policy, resourceVersion: "1763766000123.7@k3f9x2ab"}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: rpc, sectionName: all}]
  split: {sticky: {header: x-user}}
  cors: {allowOrigins: ["https://shop.example.com"]}
  translation: {maxMessageBytes: 1000}
  expose: {openAPI: true}
---
apiVersion: sluice.dev/v1alpha1
kind: Schema
metadata: {name: schema}
spec: {backendRefs: [{name: backend}], descriptorSet: ChkKB2EucHJvdG8SAWEiAwoBTWIGcHJvdG8z}
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: backend}
spec: {endpoints: [{address: "a:1"}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: http, creationTimestamp: "2026-01-02T03:04:05+01:00"}
spec: {rules: [{backendRefs: [{name: backend}], timeouts: {request: 0s}, filters: [{type: CORS, cors: {allowOrigins: ["*"]}}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: rpc, labels: {a: b}, annotations: {"c/d": "e\nf"}}
spec: {rules: [{name: all, backendRefs: [{name: backend}]}]}
`

func TestSetResourcesGoesKindByKind(t *testing.T) {
	set := mustParse(t, oneOfEach)
	var got []string
	for _, r := range set.Resources() {
		got = append(got, r.Kind()+" "+r.Metadata().Key())
	}
	want := []string{"GRPCRoute default/rpc", "HTTPRoute default/http", "Backend default/backend", "RPCPolicy default/policy", "Schema default/schema"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if faults := set.Unresolved(); faults != nil {
		t.Errorf("unresolved: %v", faults)
	}
	if set.GRPCRoutesByKey()["default/rpc"] != set.GRPCRoutes[0] || set.HTTPRoutesByKey()["default/http"] != set.HTTPRoutes[0] ||
		set.BackendsByKey()["default/backend"] != set.Backends[0] || set.RPCPoliciesByKey()["default/policy"] != set.RPCPolicies[0] {
		t.Error("a map by key does not have what the list has")
	}
}

// TestDecodeReadsWhatParseRead holds for every object of every golden file.
func TestDecodeReadsWhatParseRead(t *testing.T) {
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	texts := [][]byte{[]byte(oneOfEach), manyRoutes(3)}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		input, _, _ := bytes.Cut(data, []byte(resultLine))
		texts = append(texts, input)
	}
	seen := map[string]int{}
	for _, text := range texts {
		set, faults := Parse("in.yaml", text)
		if faults != nil {
			continue
		}
		for _, r := range set.Resources() {
			seen[r.Kind()]++
			checkDecode(t, r)
		}
	}
	for _, kind := range []string{GRPCRouteKind, HTTPRouteKind, BackendKind, RPCPolicyKind} {
		if seen[kind] < 2 {
			t.Errorf("%d of kind %s were tried, want more", seen[kind], kind)
		}
	}
}

// checkDecode has a resource written and read again.
func checkDecode(t *testing.T, r Resource) {
	t.Helper()
	manifest, err := r.MarshalJSON()
	if err != nil {
		t.Fatalf("%s %s: %v", r.Kind(), r.Metadata().Key(), err)
	}
	got, err := Decode(r.Kind(), manifest)
	if err != nil {
		t.Fatalf("%v\n%s", err, manifest)
	}
	clearOrigins(reflect.ValueOf(r))
	if !reflect.DeepEqual(got, r) {
		again, _ := got.MarshalJSON()
		t.Errorf("decoded\n%s\nfrom\n%s", again, manifest)
	}
}

// clearOrigins takes the places in a text out of whatever v leads to.
func clearOrigins(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			clearOrigins(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			clearOrigins(v.Index(i))
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[Position]() {
			v.SetZero()
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				clearOrigins(v.Field(i))
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, tt := range []struct{ name, kind, manifest, want string }{
		{"unknown kind", "Gate\nway", "{}", `decode a resource of unknown kind "Gate\nway"`},
		{"no JSON", GRPCRouteKind, "{", "decode a GRPCRoute: unexpected end of JSON input"},
		{"other type", BackendKind, `{"spec": {"endpoints": 5}}`, "decode a Backend: json: cannot unmarshal number into Go struct field BackendSpec.spec.endpoints of type []store.Endpoint"},
		{"no duration", RPCPolicyKind, `{"spec": {"timeouts": {"request": "1"}}}`, `decode a RPCPolicy: duration "1": want a form like 5s or 1m30s`},
	} {
		got, err := Decode(tt.kind, []byte(tt.manifest))
		if err == nil || err.Error() != tt.want || got != nil {
			t.Errorf("%s: got %v, error %v\nwant %s", tt.name, got, err, tt.want)
		}
	}
}

// TestResourceVersionIsKeptWhenOurs has what other servers write left out: it would
// be refused as a revision that was never there.
func TestResourceVersionIsKeptWhenOurs(t *testing.T) {
	for text, want := range map[string]string{
		`"1763766000123.0@k3f9x2ab"`:  "1763766000123.0@k3f9x2ab",
		`1763766000123.0@k3f9x2ab`:    "1763766000123.0@k3f9x2ab",
		`"81172"`:                     "",
		`"a@b"`:                       "",
		`"1.0@\0"`:                    "",
		`"1763766000123.0@k3f9x2ab "`: "",
		`81172`:                       "",
		`""`:                          "",
		`[a]`:                         "",
		`{a@b: c}`:                    "",
		`~`:                           "",
	} {
		set := mustParse(t, backendText("a", ", resourceVersion: "+text))
		if got := set.Backends[0].ResourceVersion; got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

// TestParseTakesJSON has each kind as a server's client writes it, in one List.
func TestParseTakesJSON(t *testing.T) {
	set := mustParse(t, oneOfEach)
	list := struct {
		APIVersion string     `json:"apiVersion"`
		Kind       string     `json:"kind"`
		Items      []Resource `json:"items"`
	}{"v1", "List", set.Resources()}
	for name, write := range map[string]func(any) ([]byte, error){
		"one line": json.Marshal,
		"indented": func(v any) ([]byte, error) { return json.MarshalIndent(v, "", "\t") },
	} {
		text, err := write(list)
		if err != nil {
			t.Fatal(err)
		}
		again, faults := Parse("in.json", text)
		if faults != nil {
			t.Fatalf("%s: %v", name, faults)
		}
		if got, want := normalForm(again), normalForm(set); got != want {
			t.Errorf("%s: became\n%s\nwas\n%s", name, got, want)
		}
	}
}
