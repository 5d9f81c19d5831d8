package store

import "encoding/json"

// The kinds of a GRPCRoute and of what it refers to.
const (
	GatewayGroup      = "gateway.networking.k8s.io"
	GRPCRouteVersion  = GatewayGroup + "/v1"
	GRPCRouteKind     = "GRPCRoute"
	parentKind        = "Gateway"
	serviceKind       = "Service"
	defaultRefWeight  = 1
	maxWeight         = 1_000_000
	maxHeaderValueLen = 4096
)

// GRPCRoute says which RPCs go to which backends: gateway.networking.k8s.io/v1,
// field by field.
type GRPCRoute struct {
	Meta `json:"metadata"`
	Spec GRPCRouteSpec `json:"spec"`
}

// GRPCRouteSpec is the wish itself. A route without rules matches nothing.
type GRPCRouteSpec struct {
	// ParentRefs are kept for whoever asks for the manifest again. We have no
	// Gateway objects: every route is attached to the one port.
	ParentRefs []ParentRef `json:"parentRefs,omitempty"`
	// Hostnames that the route serves, in lower case; a first label "*" stands for
	// one or more labels. None means every authority.
	Hostnames []string        `json:"hostnames,omitempty"`
	Rules     []GRPCRouteRule `json:"rules,omitempty"`
}

// ParentRef names the Gateway that a manifest was written for.
type ParentRef struct {
	Group       string `json:"group"`
	Kind        string `json:"kind"`
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name"`
	SectionName string `json:"sectionName,omitempty"`
	Port        int    `json:"port,omitempty"`
}

// GRPCRouteRule sends what any of its matches matches to its backends, shared out
// by weight. No matches means every RPC.
type GRPCRouteRule struct {
	Name        string           `json:"name,omitempty"` // unique within the route, may be empty
	Matches     []GRPCRouteMatch `json:"matches,omitempty"`
	Filters     []Filter         `json:"filters,omitempty"`
	BackendRefs []BackendRef     `json:"backendRefs,omitempty"`
	// Steering and Treatment are filled in only in effective sets; no text declares them.
	Steering  Steering  `json:"-"`
	Treatment Treatment `json:"-"`
}

// GRPCRouteMatch matches when all its parts do.
type GRPCRouteMatch struct {
	Method  *MethodMatch  `json:"method,omitempty"` // nil means every method
	Headers []HeaderMatch `json:"headers,omitempty"`
}

// MatchType is how a value is compared.
type MatchType string

// Exact compares byte by byte. RegularExpression is RE2 and must match the whole
// value, as CompilePattern has it.
const (
	Exact             MatchType = "Exact"
	RegularExpression MatchType = "RegularExpression"
)

// MethodMatch matches the two segments of a gRPC path. An empty one matches any;
// not both are empty.
type MethodMatch struct {
	Type    MatchType `json:"type"`
	Service string    `json:"service,omitempty"`
	Method  string    `json:"method,omitempty"`
}

// HeaderMatch matches one header of the request. Of several with the same name
// (whatever its case) only the first counts, as the Gateway API has it.
type HeaderMatch struct {
	Type  MatchType `json:"type"`
	Name  string    `json:"name"` // as written; compare without regard to case
	Value string    `json:"value"`
}

// BackendRef sends a share of a rule's RPCs to a Backend: weight by the sum of the
// rule's weights. A Kubernetes Service means the Backend of that name; its Port is
// kept and has no effect, since a Backend's endpoints have their own.
type BackendRef struct {
	Group     string   `json:"group"`
	Kind      string   `json:"kind"`
	Namespace string   `json:"namespace,omitempty"` // the route's when the text does not say
	Name      string   `json:"name"`
	Port      int      `json:"port,omitempty"`
	Weight    uint32   `json:"weight"` // 0 means no RPC at all
	Filters   []Filter `json:"filters,omitempty"`
	// Origin is where the reference is written.
	Origin Position `json:"-"`
}

// BackendKey is the key of the Backend that ref, one of this route's, means.
func (r *GRPCRoute) BackendKey(ref *BackendRef) string {
	return refKey(r.Namespace, ref.Namespace, ref.Name)
}

// refKey is the key of what an object of namespace own refers to.
func refKey(own, namespace, name string) string {
	if namespace == "" {
		namespace = own
	}
	return key(namespace, name)
}

// MarshalJSON writes a manifest that Parse accepts.
func (r *GRPCRoute) MarshalJSON() ([]byte, error) {
	type fields GRPCRoute
	return json.Marshal(struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		*fields
	}{GRPCRouteVersion, GRPCRouteKind, (*fields)(r)})
}
