package store

import (
	"fmt"
	"strings"
	"testing"
)

// splitText declares a route with one rule "all", and its backends, each with the
// weight that follows its name: "cart-v1=90".
func splitText(name string, shares ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: %s\nkind: GRPCRoute\nmetadata: {name: %s}\nspec:\n  rules:\n  - name: all\n    backendRefs:\n", GRPCRouteVersion, name)
	for _, share := range shares {
		backend, weight, _ := strings.Cut(share, "=")
		fmt.Fprintf(&b, "    - {group: sluice.dev, kind: Backend, name: %s, weight: %s}\n", backend, weight)
	}
	for _, share := range shares {
		backend, _, _ := strings.Cut(share, "=")
		fmt.Fprintf(&b, "---\napiVersion: %s\nkind: Backend\nmetadata: {name: %s}\nspec: {endpoints: [{address: \"%s:1\"}, {address: \"%s:2\"}]}\n",
			BackendVersion, backend, backend, backend)
	}
	return b.String()
}

func TestStoreKeepsWhatIsApplied(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, Options{Dir: dir})
	result := applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	if len(result.Changes) != 3 || result.Seq != 3 {
		t.Fatalf("result %+v", result)
	}
	digest := s.Snapshot().Digest()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, Options{Dir: dir})
	if got := s.Snapshot().Digest(); got != digest {
		t.Errorf("digest %s after a restart, %s before", got, digest)
	}
}
