package store

import (
	"fmt"
	"strings"
)

// Ignored is an object that a text made for a cluster declares beside its routes, and
// that says nothing to us. It is no fault, so that such a text can be pasted.
type Ignored struct {
	Kind, Name string
	Origin     Position // the line that declares it
}

// String is one line: "file:line: Gateway edge is ignored: why".
func (i Ignored) String() string {
	return fmt.Sprintf("%s: %s %s is ignored: %s", i.Origin, i.Kind, i.Name, ignoredKinds[i.Kind])
}

// ignoredKinds has why each is of no use here.
var ignoredKinds = map[string]string{
	"GatewayClass":   "every route is served on the one port",
	"Gateway":        "every route is served on the one port",
	"ListenerSet":    "every route is served on the one port",
	"ReferenceGrant": "a reference to another namespace needs no grant",
	"Namespace":      "a namespace need not be declared",
}

// passOver tells whether an object is one to ignore, and notes it.
func (d *document) passOver(m *mapping, version, kind string) bool {
	if _, known := ignoredKinds[kind]; !known {
		return false
	}
	if group, _, _ := strings.Cut(version, "/"); group != GatewayGroup && (version != "v1" || kind != "Namespace") {
		return false
	}
	meta := m.required("metadata").mapping()
	name := meta.required("name").word(checkName)
	origin := m.position()
	origin.Column = 0
	d.in.set.Ignored = append(d.in.set.Ignored, Ignored{Kind: kind, Name: name, Origin: origin})
	return true
}
