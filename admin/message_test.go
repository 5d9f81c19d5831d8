package admin

import (
	"strings"
	"testing"

	"sluice/store"
)

// The manifest of an object carries its revision, of whatever kind it is, and the
// stored resource does not.
func TestManifestsCarryTheirRevision(t *testing.T) {
	revision := store.Revision{Wall: 1763766000123, Node: "k3f9x2ab"}
	for _, r := range []store.Resource{
		&store.GRPCRoute{Meta: store.Meta{Namespace: "default", Name: "x"}},
		&store.HTTPRoute{Meta: store.Meta{Namespace: "default", Name: "x"}},
		&store.Backend{Meta: store.Meta{Namespace: "default", Name: "x"}},
		&store.RPCPolicy{Meta: store.Meta{Namespace: "default", Name: "x"}},
	} {
		room := manifests{room: 1 << 20}
		m, err := room.objectMessage(&store.Object{ID: store.ResourceID(r), Revision: revision, Resource: r})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(m.GetManifest(), `"resourceVersion":"`+revision.String()+`"`) || m.GetRevision() != revision.String() {
			t.Errorf("%s: revision %q in %s", r.Kind(), m.GetRevision(), m.GetManifest())
		}
		if r.Metadata().ResourceVersion != "" {
			t.Errorf("%s: the stored resource was changed", r.Kind())
		}
	}
	room := manifests{room: 1 << 20}
	m, err := room.objectMessage(&store.Object{ID: store.ID{Kind: "Backend", Name: "x"}, Revision: revision, Deleted: true})
	if err != nil || m.GetManifest() != "" || !m.GetDeleted() {
		t.Errorf("a deleted object: %v, error %v", m, err)
	}
}

// A conflict tells of the version that did not win.
func TestChangesTellWhatWasLost(t *testing.T) {
	object := func(name string) *store.Object {
		r := &store.Backend{Meta: store.Meta{Namespace: "default", Name: "x", Labels: map[string]string{"by": name}}}
		return &store.Object{ID: store.ResourceID(r), Resource: r, Author: store.Author{Actor: name}}
	}
	room := manifests{room: 1 << 20}
	m, err := room.changeMessage(&store.Change{
		Seq: 7, Action: store.ActionConflict, Before: object("alice"), After: object("bob"), Lost: object("alice"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if m.GetActor() != "bob" || !strings.Contains(m.GetLost().GetManifest(), "alice") || !strings.Contains(m.GetAfter().GetManifest(), "bob") {
		t.Errorf("told %v", m)
	}
}
