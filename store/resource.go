package store

import (
	"encoding/json"
	"fmt"
)

// Resource is one object that a text declares: a *GRPCRoute, *HTTPRoute, *Backend,
// *RPCPolicy or *Schema; or a *Registration, which no text declares. What MarshalJSON
// writes, Parse and Decode read, of a Registration Decode alone.
type Resource interface {
	Kind() string
	Metadata() *Meta
	json.Marshaler
}

// Kind is GRPCRouteKind.
func (*GRPCRoute) Kind() string { return GRPCRouteKind }

// Kind is HTTPRouteKind.
func (*HTTPRoute) Kind() string { return HTTPRouteKind }

// Kind is BackendKind.
func (*Backend) Kind() string { return BackendKind }

// Kind is RPCPolicyKind.
func (*RPCPolicy) Kind() string { return RPCPolicyKind }

// Kind is RegistrationKind.
func (*Registration) Kind() string { return RegistrationKind }

// Kind is SchemaKind.
func (*Schema) Kind() string { return SchemaKind }

// Decode reads what MarshalJSON of a resource of this kind wrote. It is for texts of
// our own: it checks nothing that Parse checks, and fills in no defaults of the manifest. The
// resource has no Origin.
func Decode(kind string, manifest []byte) (Resource, error) {
	r := newResource(kind)
	if r == nil {
		return nil, fmt.Errorf("decode a resource of unknown kind %s", quote(kind))
	}
	if err := json.Unmarshal(manifest, r); err != nil {
		return nil, fmt.Errorf("decode a %s: %w", kind, err)
	}
	if route, ok := r.(Route); ok {
		declareTreatment(route)
	}
	return r, nil
}

// newResource is nil for a kind that there is not.
func newResource(kind string) Resource {
	switch kind {
	case GRPCRouteKind:
		return &GRPCRoute{}
	case HTTPRouteKind:
		return &HTTPRoute{}
	case BackendKind:
		return &Backend{}
	case RPCPolicyKind:
		return &RPCPolicy{}
	case RegistrationKind:
		return &Registration{}
	case SchemaKind:
		return &Schema{}
	}
	return nil
}
