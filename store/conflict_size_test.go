package store

import (
	"fmt"
	"strings"
	"testing"
)

// Whatever is legal travels with what lost to it: what does not fit is let go of, and the
// same at all nodes.
func TestMergeBoundsWhatTravelsTogether(t *testing.T) {
	large := func(node, text string, counter uint32) *Object {
		manifest := fmt.Sprintf("apiVersion: %s\nkind: Backend\nmetadata: {name: b, annotations: {a: %q}}\nspec: {endpoints: [{address: \"a:1\"}]}\n",
			BackendVersion, strings.Repeat(text, maxDocument-400)+node)
		set, faults := Parse("b.yaml", []byte(manifest))
		if faults != nil {
			t.Fatal(faults)
		}
		r := Revision{Wall: 1_700_000_000_000, Counter: counter, Node: node}
		o := &Object{ID: ResourceID(set.Resources()[0]), Revision: r, Vector: Vector{node: r}, Owner: Owner{Kind: OwnerAPI}}
		if err := o.setResource(set.Resources()[0]); err != nil {
			t.Fatal(err)
		}
		return o
	}
	for text, kept := range map[string]int{"x": 2, "<": 0} { // the latter takes six bytes in JSON
		var objects []*Object
		for i := range 3 {
			objects = append(objects, large(fmt.Sprint("node", i), text, uint32(i)))
		}
		var forth, back *Object
		for i := range objects {
			forth, _ = Merge(forth, objects[i])
			back, _ = Merge(back, objects[len(objects)-1-i])
		}
		for _, o := range []*Object{forth, back} {
			row, err := EncodeForeign(o)
			if err != nil || len(o.Lost) != kept || o.Revision.Node != "node2" {
				t.Errorf("of %q: %d lost versions are kept, want %d, in %d bytes: %v", text, len(o.Lost), kept, len(row), err)
			}
		}
	}
}
