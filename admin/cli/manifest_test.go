package cli

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"sluice/store"
)

func TestPrintedManifestsAreTakenAgain(t *testing.T) {
	u := newUser(t)
	for _, args := range []string{
		"get -o yaml", "get -o json", "get -o yaml --no-status", "get -o json --no-status",
		"get route cart -o yaml", "get route cart -o json", "get policy -o json",
	} {
		got := u.run(strings.Fields(args)...)
		set, faults := store.Parse("printed", []byte(got.stdout))
		if len(faults) > 0 {
			t.Errorf("%s: %v", args, faults)
			continue
		}
		if args == "get -o yaml" && (len(set.GRPCRoutes) != 2 || len(set.Backends) != 2 || len(set.RPCPolicies) != 1) {
			t.Errorf("%s: not all objects are there", args)
		}
	}
}

func TestManifestKeepsItsMeaning(t *testing.T) {
	for _, text := range []string{
		`{"a":"yes","b":"on","c":"1","d":"1e3","e":"null","f":"~","g":"true","h":"0x1f","i":"1:20","j":"2026-01-31"}`,
		`{"a":"line\nline\n","b":" edges ","c":"# no remark","d":"a: b","e":"- x","f":"","g":"\t","h":"\u0007\u2028\ud83d\ude00","i":"say \"x\"","j":"a\\b"}`,
		`{"n":1,"m":1.5,"o":1e21,"p":-0,"q":90071992547409931,"t":true,"f":false,"z":null,"l":[],"m2":{},"ll":[[1],[{"a":[]}]]}`,
	} {
		checkMeaning(t, text)
	}
}

// FuzzManifestKeepsItsMeaning prints any JSON as YAML and as JSON and reads it again.
func FuzzManifestKeepsItsMeaning(f *testing.F) {
	f.Add(`{"apiVersion":"v1","spec":{"a":["no","1_000","!!x","%","@","&a","*a",">","|"]}}`)
	f.Add(cartManifest)
	f.Fuzz(func(t *testing.T, text string) {
		var value map[string]any
		if json.Unmarshal([]byte(text), &value) != nil || strings.ContainsRune(text, '\ufffd') {
			t.Skip()
		}
		checkMeaning(t, text)
	})
}

func checkMeaning(t *testing.T, text string) {
	t.Helper()
	n, err := parseJSON(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var printed bytes.Buffer
	if err := writeJSON(&printed, n, true); err != nil {
		t.Fatal(err)
	}
	if want, got := normal(t, []byte(text)), normal(t, printed.Bytes()); !reflect.DeepEqual(got, want) {
		t.Errorf("as JSON: got %v, want %v", got, want)
	}
	asYAML, err := marshalYAML(n)
	if err != nil {
		t.Fatal(err)
	}
	var again yaml.Node
	if err := yaml.Unmarshal(asYAML, &again); err != nil {
		t.Fatalf("%s: %v\n%s", text, err, asYAML)
	}
	back := appendJSON(nil, again.Content[0])
	if want, got := normal(t, []byte(text)), normal(t, back); !reflect.DeepEqual(got, want) {
		t.Errorf("as YAML: got %v, want %v\n%s", got, want, asYAML)
	}
}

func normal(t *testing.T, text []byte) any {
	t.Helper()
	var value any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&value); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return value
}

func TestMomentIsReadAsAPersonSaysIt(t *testing.T) {
	zone := time.FixedZone("here", 2*60*60)
	p := &program{Options: Options{Now: func() time.Time { return now.In(zone) }}} // 17:30
	tests := []struct{ text, want string }{
		{"2026-01-31T15:04:05Z", "2026-01-31T15:04:05Z"},
		{"2026-01-31T15:04:05.123+02:00", "2026-01-31T13:04:05.123Z"},
		{"2026-01-31 15:04:05", "2026-01-31T13:04:05Z"},
		{"2026-01-31 15:04", "2026-01-31T13:04:00Z"},
		{"15:04", "2026-05-04T13:04:00Z"},
		{"15:04:30", "2026-05-04T13:04:30Z"},
		{"10m", "2026-05-04T15:20:00Z"},
		{"1h30m ago", "2026-05-04T14:00:00Z"},
		{"2d", "2026-05-02T15:30:00Z"},
		{"-10m", ""},
		{"yesterday", ""},
		{"", ""},
		{"99999d", ""},
	}
	for _, test := range tests {
		got, err := p.parseMoment("--to", test.text)
		if test.want == "" {
			if err == nil {
				t.Errorf("%q: got %s, want an error", test.text, got)
			}
			continue
		}
		if err != nil || got.UTC().Format(time.RFC3339Nano) != test.want {
			t.Errorf("%q: got %s, %v, want %s", test.text, got.UTC().Format(time.RFC3339Nano), err, test.want)
		}
	}
}

func TestKindIsKnownByAllItsNames(t *testing.T) {
	tests := map[string]string{
		"route": grpcRoute, "Routes": grpcRoute, "GRPCRoute": grpcRoute, "grpcroutes": grpcRoute,
		"httproute": httpRoute, "HTTPRoutes": httpRoute,
		"backend": backend, "BACKENDS": backend,
		"policy": rpcPolicy, "policies": rpcPolicy, "RPCPolicy": rpcPolicy, "rpcpolicies": rpcPolicy,
		"gateway": "", "": "", "s": "", "routess": "",
	}
	for word, want := range tests {
		if got, err := parseKind(word); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", word, got, err, want)
		}
	}
}

func TestReadManifestsTellsWhereATextIsNotUTF8(t *testing.T) {
	_, err := readManifests([]string{"-"}, strings.NewReader("a: 1\nb: ü\xff\n"))
	if err == nil || err.Error() != "-:2:5: not UTF-8: byte 0xff; save the file as UTF-8" {
		t.Errorf("error %v", err)
	}
}
