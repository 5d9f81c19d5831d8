package route

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"sluice/store"
)

var update = flag.Bool("update", false, "rewrite the results in testdata/*.golden")

// headers is metadata with one value for each name.
type headers map[string]string

func (h headers) Get(name string) (string, bool) {
	value, ok := h[name]
	return value, ok
}

// parse reads resources without a fault.
func parse(t testing.TB, text string) *store.Set {
	t.Helper()
	set, faults := store.Parse("in.yaml", []byte(text))
	if faults != nil {
		t.Fatal(faults)
	}
	return set
}

// routes makes documents of routes, each "NAME [TIMESTAMP]: SPEC" on its line.
func routes(lines string) string {
	var b strings.Builder
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		head, spec, _ := strings.Cut(line, ": ")
		name, created, _ := strings.Cut(head, " ")
		namespace, name, ok := strings.Cut(name, "/")
		if !ok {
			namespace, name = "default", namespace
		}
		if created == "" {
			created = "~"
		}
		fmt.Fprintf(&b, "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\n"+
			"metadata: {name: %s, namespace: %s, creationTimestamp: %s}\nspec: {%s}\n", name, namespace, created, spec)
	}
	return b.String()
}

// split makes a rule with these weights; backend i is called "b<i>".
func split(weights ...uint32) *store.Set {
	r := &store.GRPCRoute{Meta: store.Meta{Name: "r"}}
	var refs []store.BackendRef
	for i, w := range weights {
		refs = append(refs, store.BackendRef{Name: fmt.Sprintf("b%d", i), Weight: w})
	}
	r.Spec.Rules = []store.GRPCRouteRule{{BackendRefs: refs}}
	return &store.Set{GRPCRoutes: []*store.GRPCRoute{r}}
}
