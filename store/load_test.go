package store

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const splitRoute = `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart}
spec:
  rules:
  - backendRefs:
    - {name: cart-v1, weight: 90}
    - name: cart-v2
      weight: 10
    - {group: sluice.dev, kind: Backend, name: cart-v1, namespace: other}
`

// folder writes files, by name, into a new folder and moves there, so that the
// names in faults are the same on every machine.
func folder(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoadReportsReferencesToNothing(t *testing.T) {
	v1 := backendText("cart-v1", "")
	tests := []struct {
		name   string
		files  map[string]string
		opts   LoadOptions
		faults string
	}{
		{
			"both missing",
			map[string]string{"a.yaml": splitRoute},
			LoadOptions{},
			`a.yaml:7:14: spec.rules[0].backendRefs[0].name: no Backend default/cart-v1 is declared
a.yaml:8:13: spec.rules[0].backendRefs[1].name: no Backend default/cart-v2 is declared
a.yaml:10:48: spec.rules[0].backendRefs[2].name: no Backend other/cart-v1 is declared`,
		},
		{
			"another file declares some",
			map[string]string{"a.yaml": splitRoute, "b.yaml": v1 + "---\n" + backendText("cart-v1", ", namespace: other")},
			LoadOptions{},
			`a.yaml:8:13: spec.rules[0].backendRefs[1].name: no Backend default/cart-v2 is declared`,
		},
		{"allowed", map[string]string{"a.yaml": splitRoute}, LoadOptions{AllowUnresolved: true}, ""},
		{
			"a faulty backend is declared all the same",
			map[string]string{"a.yaml": splitRoute + "---\n" + v1 + "---\n" + backendText("cart-v1", ", namespace: other") + "---\n" + backendText("cart-v2", ", x: y")},
			LoadOptions{},
			`a.yaml:24:27: metadata.x: unknown field`,
		},
		{
			"what cannot be read may declare it",
			map[string]string{"a.yaml": splitRoute, "b.yaml": "name: [cart-v1"},
			LoadOptions{},
			`a.yaml:8:13: spec.rules[0].backendRefs[1].name: no Backend default/cart-v2 is declared
b.yaml:1:1: not YAML: did not find expected ',' or ']'`,
		},
		{
			"much that cannot be read may declare anything",
			map[string]string{"a.yaml": splitRoute, "b.yaml": strings.Repeat("#", maxUnread) + "\x00"},
			LoadOptions{},
			`b.yaml:1:65537: control character 0x00`,
		},
		{
			"a faulty reference leads nowhere",
			map[string]string{"a.yaml": strings.Replace(splitRoute, "name: cart-v2", "kind: Ingress", 1)},
			LoadOptions{AllowUnresolved: true},
			`a.yaml:8:7: spec.rules[0].backendRefs[1].name: missing
a.yaml:8:13: spec.rules[0].backendRefs[1].kind: kind "Ingress" of group "" is not supported, want Backend of group sluice.dev`,
		},
		{
			"of a faulty namespace",
			map[string]string{"a.yaml": strings.Replace(splitRoute, "name: cart}", "name: cart, namespace: A}", 1) + "---\n" + backendText("cart-v1", ", namespace: other")},
			LoadOptions{},
			`a.yaml:3:35: metadata.namespace: "A": want lower-case letters, digits and "-"`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			folder(t, tt.files)
			set, err := Load(tt.opts, ".")
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.faults {
				t.Errorf("got\n%s\nwant\n%s", got, tt.faults)
			}
			if (set == nil) != (err != nil) {
				t.Errorf("set %v beside error %v, want one of the two", set, err)
			}
			if _, ok := errors.AsType[Faults](err); err != nil && !ok {
				t.Errorf("the error is a %T, want Faults", err)
			}
		})
	}
}

func TestLoadTakesFilesAndFolders(t *testing.T) {
	folder(t, map[string]string{
		"conf/b.yaml":        backendText("b", ""),
		"conf/a.yml":         backendText("a", ""),
		"conf/c.json":        `{"apiVersion":"sluice.dev/v1alpha1","kind":"Backend","metadata":{"name":"c"},"spec":{"endpoints":[]}}`,
		"conf/.d.yaml":       "hidden",
		"conf/e.txt":         "not ours",
		"conf/f.yaml/g.yaml": "a folder in the folder",
		"single":             backendText("single", ""),
		"conf/h.pem":         "",
	})
	if err := os.Symlink("../single", "conf/z.yaml"); err != nil {
		t.Fatal(err)
	}
	set, err := Load(LoadOptions{}, "conf")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range set.Backends {
		got = append(got, b.Name+" "+b.Origin.String())
	}
	want := "a conf/a.yml:1, b conf/b.yaml:1, c conf/c.json:1, single conf/z.yaml:1"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}

	set, err = Load(LoadOptions{}, "single", "conf/c.json")
	if err != nil || len(set.Backends) != 2 || set.Backends[0].Name != "single" {
		t.Errorf("got %v, %v; want single and c in this order", set, err)
	}
	if set, err = Load(LoadOptions{}); err != nil || len(set.Backends) != 0 {
		t.Errorf("nothing to load: got %v, %v; want an empty set", set, err)
	}
}

func TestLoadReportsEveryFile(t *testing.T) {
	folder(t, map[string]string{
		"conf/z.yaml": backendText("a", ""),
		"conf/a.yaml": backendText("a", "") + "---\nkind: Backend",
		"first.yaml":  backendText("a", ""),
		"big.yaml":    strings.Repeat("#", maxText+1),
		"route.yaml":  splitRoute, // what is missing may be in what cannot be read
	})
	if err := os.Symlink("nowhere", "conf/b.yaml"); err != nil {
		t.Fatal(err)
	}
	_, err := Load(LoadOptions{}, "route.yaml", "first.yaml", "conf", "no.yaml", "big.yaml")
	want := `conf/a.yaml:3:18: metadata.name: Backend default/a is declared already, at first.yaml:1
conf/a.yaml:6:1: apiVersion: missing
conf/a.yaml:6:1: metadata: missing
conf/a.yaml:6:1: spec: missing
conf/b.yaml: cannot be read: no such file or directory
conf/z.yaml:3:18: metadata.name: Backend default/a is declared already, at first.yaml:1
no.yaml: cannot be read: no such file or directory
big.yaml: more than 16777216 bytes, the limit of a file`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestLoadReportsWhatFailsWhileItIsRead(t *testing.T) {
	const file = "/proc/self/mem" // opens, and has nothing at offset 0
	_, err := Load(LoadOptions{}, file)
	if want := file + ": cannot be read: input/output error"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLoadJoinsFileNamesToTheirFolder(t *testing.T) {
	folder(t, map[string]string{"conf/tls.yaml": `apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: a}
spec: {endpoints: [], protocol: tls, tls: {caFile: ca.pem, certFile: /abs/crt.pem, keyFile: ../key.pem}}
`})
	set, err := Load(LoadOptions{}, "conf")
	if err != nil {
		t.Fatal(err)
	}
	want := BackendTLS{CAFile: "conf/ca.pem", CertFile: "/abs/crt.pem", KeyFile: "key.pem"}
	if got := *set.Backends[0].Spec.TLS; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSetFindsByKey(t *testing.T) {
	set := mustParse(t, splitRoute+"---\n"+backendText("b", ", namespace: n"))
	if got := set.GRPCRoute("default/cart"); got != set.GRPCRoutes[0] {
		t.Errorf("route default/cart: got %v", got)
	}
	if got := set.Backend("n/b"); got != set.Backends[0] {
		t.Errorf("backend n/b: got %v", got)
	}
	if set.GRPCRoute("cart") != nil || set.Backend("default/b") != nil {
		t.Error("found what is not there")
	}
	if got := set.GRPCRoutesByKey(); len(got) != 1 || got["default/cart"] != set.GRPCRoutes[0] {
		t.Errorf("routes by key: got %v", got)
	}
	if got := len(set.Unresolved()); got != 3 {
		t.Errorf("%d references to nothing, want 3", got)
	}
}

func TestKeysOfObjectsMadeByHand(t *testing.T) {
	r := &GRPCRoute{Meta: Meta{Name: "a"}}
	if got := r.Key(); got != "default/a" {
		t.Errorf("key of a route without namespace: got %s, want default/a", got)
	}
	if got := r.BackendKey(&BackendRef{Name: "b"}); got != "default/b" {
		t.Errorf("key of a reference without namespace: got %s, want default/b", got)
	}
	r.Namespace = "n"
	if got := r.BackendKey(&BackendRef{Name: "b"}); got != "n/b" {
		t.Errorf("key of a reference without namespace: got %s, want n/b", got)
	}
}

// TestObjectsSurviveJSON writes every golden object as JSON and reads it back, by
// Parse and by encoding/json: what a database keeps is what the operator wrote.
func TestObjectsSurviveJSON(t *testing.T) {
	for _, file := range []string{"route_pasted", "backend", "documents"} {
		data, err := os.ReadFile("testdata/" + file + ".golden")
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(string(data), resultLine)
		set := mustParse(t, text)
		want := normalForm(set)
		if got := normalForm(mustParse(t, want)); got != want {
			t.Errorf("%s, parsed again:\n%s\nwant\n%s", file, got, want)
		}
		var again Set
		for _, r := range set.GRPCRoutes {
			again.GRPCRoutes = append(again.GRPCRoutes, unmarshal[GRPCRoute](t, r))
		}
		for _, b := range set.Backends {
			again.Backends = append(again.Backends, unmarshal[Backend](t, b))
		}
		if got := normalForm(&again); got != want {
			t.Errorf("%s, unmarshalled:\n%s\nwant\n%s", file, got, want)
		}
	}
}

func unmarshal[T any](t *testing.T, object any) *T {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return &v
}
