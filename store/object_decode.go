package store

import "go.yaml.in/yaml/v3"

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
	if !ok {
		return
	}
	if d.passOver(m, version, kind) {
		return
	}
	want := ""
	switch kind {
	case GRPCRouteKind:
		want = GRPCRouteVersion
		d.in.addGRPCRoute(m)
	case HTTPRouteKind:
		want = HTTPRouteVersion
		d.in.addHTTPRoute(m)
	case BackendKind:
		want = BackendVersion
		d.in.addBackend(m)
	case RPCPolicyKind:
		want = RPCPolicyVersion
		d.in.addRPCPolicy(m)
	case SchemaKind:
		want = SchemaVersion
		d.in.addSchema(m)
	case RegistrationKind:
		m.optional("kind").fault("a %s is made by sluice backend register, and by no manifest", kind)
		return
	case "List":
		want = "v1"
		d.readList(m)
	default:
		m.optional("kind").fault("unknown kind %s, want %s", quote(kind), enumerate([]string{GRPCRouteKind, HTTPRouteKind, BackendKind, RPCPolicyKind, SchemaKind}))
		return
	}
	if hasVersion && version != want {
		m.optional("apiVersion").fault("%s: want %q for kind %s", quote(version), want, kind)
	}
	m.finish()
}

// readList reads what kubectl prints. A List in a List is none.
func (d *document) readList(m *mapping) {
	if m.up != nil {
		m.optional("kind").fault("a List within a List")
	}
	m.ignore("metadata")
	for _, item := range m.optional("items").list(0) {
		if m.up == nil {
			d.readObject(item)
		}
	}
}

func (in *intake) addGRPCRoute(m *mapping) {
	r := &GRPCRoute{Meta: readMeta(m)}
	in.declare(m, GRPCRouteKind, &r.Meta)
	r.Spec = in.readGRPCRouteSpec(m.required("spec").mapping(), r.Namespace)
	declareTreatment(r)
	in.set.GRPCRoutes = append(in.set.GRPCRoutes, r)
}

func (in *intake) addHTTPRoute(m *mapping) {
	r := &HTTPRoute{Meta: readMeta(m)}
	in.declare(m, HTTPRouteKind, &r.Meta)
	r.Spec = in.readHTTPRouteSpec(m.required("spec").mapping(), r.Namespace)
	declareTreatment(r)
	in.set.HTTPRoutes = append(in.set.HTTPRoutes, r)
}

func (in *intake) addBackend(m *mapping) {
	b := &Backend{Meta: readMeta(m)}
	in.declare(m, BackendKind, &b.Meta)
	b.Spec = readBackendSpec(m.required("spec").mapping())
	in.set.Backends = append(in.set.Backends, b)
}

func (in *intake) addRPCPolicy(m *mapping) {
	p := &RPCPolicy{Meta: readMeta(m)}
	in.declare(m, RPCPolicyKind, &p.Meta)
	p.Spec = readRPCPolicySpec(m.required("spec").mapping())
	in.set.RPCPolicies = append(in.set.RPCPolicies, p)
}

func (in *intake) addSchema(m *mapping) {
	s := &Schema{Meta: readMeta(m)}
	in.declare(m, SchemaKind, &s.Meta)
	s.Spec = readSchemaSpec(m.required("spec").mapping(), s.Namespace)
	in.set.Schemas = append(in.set.Schemas, s)
}

// declare reports an object that is there already. What a server says of its state
// is nothing that a text declares.
func (in *intake) declare(m *mapping, kind string, meta *Meta) {
	m.ignore("status")
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
	if v.absent() || v.node.Kind != yaml.ScalarNode {
		return ""
	}
	if _, err := ParseRevision(v.node.Value); err != nil {
		return ""
	}
	return v.node.Value
}

func anyText(string) string { return "" }
