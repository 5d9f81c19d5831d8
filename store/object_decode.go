package store

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// Kinds that the design has and this version does not read.
var laterKinds = map[string]bool{"HTTPRoute": true, "RPCPolicy": true}

// What an API server writes into an object's metadata, and we have no use for.
var serverMetadata = []string{
	"uid", "generation", "selfLink", "managedFields", "ownerReferences",
	"finalizers", "deletionTimestamp", "deletionGracePeriodSeconds",
}

// readObject reads a document, or an entry of a List, into the set.
func (d *document) readObject(root *value) {
	m := root.mapping()
	version, hasVersion := m.required("apiVersion").text()
	kind, ok := m.required("kind").text()
	want := ""
	switch {
	case !ok:
		return
	case kind == GRPCRouteKind:
		want = GRPCRouteVersion
		d.in.addGRPCRoute(m)
	case kind == BackendKind:
		want = BackendVersion
		d.in.addBackend(m)
	case kind == "List" && root.up == nil:
		want = "v1"
		m.ignore("metadata")
		for _, item := range m.optional("items").list(0) {
			d.readObject(item)
		}
	case laterKinds[kind]:
		m.optional("kind").fault("kind %s is not supported yet", kind)
		return
	default:
		m.optional("kind").fault("unknown kind %s, want %s or %s", quote(kind), GRPCRouteKind, BackendKind)
		return
	}
	if hasVersion && version != want {
		m.optional("apiVersion").fault("%s: want %q for a %s", quote(version), want, kind)
	}
	m.finish()
}

func (in *intake) addGRPCRoute(m *mapping) {
	r := &GRPCRoute{Meta: readMeta(m)}
	m.ignore("status")
	in.declare(m, GRPCRouteKind, &r.Meta)
	r.Spec = in.readGRPCRouteSpec(m.required("spec").mapping(), r.Namespace)
	in.set.GRPCRoutes = append(in.set.GRPCRoutes, r)
}

func (in *intake) addBackend(m *mapping) {
	b := &Backend{Meta: readMeta(m)}
	m.ignore("status")
	in.declare(m, BackendKind, &b.Meta)
	b.Spec = readBackendSpec(m.required("spec").mapping())
	in.set.Backends = append(in.set.Backends, b)
}

// declare reports an object that is there already.
func (in *intake) declare(m *mapping, kind string, meta *Meta) {
	if meta.Name == "" || meta.Namespace == "" { // reported
		return
	}
	id := kind + " " + meta.Key()
	if in.declared == nil {
		in.declared = make(map[string]Position)
	}
	if first, twice := in.declared[id]; twice {
		m.optional("metadata").mapping().optional("name").fault("%s is declared already, at %s", id, first)
		return
	}
	in.declared[id] = meta.Origin
}

func readMeta(object *mapping) Meta {
	m := object.required("metadata").mapping()
	defer m.finish()
	origin := object.position()
	origin.Column = 0
	meta := Meta{
		Namespace:         readNamespace(m.optional("namespace")),
		Name:              m.required("name").word(checkName),
		Labels:            m.optional("labels").texts(checkControls),
		Annotations:       m.optional("annotations").texts(anyText),
		CreationTimestamp: m.optional("creationTimestamp").timestamp(),
		ResourceVersion:   readResourceVersion(m.optional("resourceVersion")),
		Origin:            origin,
	}
	m.refuse("generateName")
	m.ignore(serverMetadata...)
	return meta
}

// readNamespace returns "" only when it has reported a fault.
func readNamespace(v *value) string {
	s, ok := v.text()
	switch {
	case v.absent() || ok && s == "":
		return DefaultNamespace
	case !ok:
		return ""
	}
	return v.word(checkNamespace)
}

// readResourceVersion returns "" for what is none of ours: another server's means
// nothing here, and is no fault.
func readResourceVersion(v *value) string {
	if v.absent() || v.node.Kind != yaml.ScalarNode || !strings.Contains(v.node.Value, "@") {
		return ""
	}
	return v.node.Value
}

func anyText(string) string { return "" }
