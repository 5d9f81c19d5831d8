package store

import "encoding/json"

// The kind of an HTTPRoute.
const (
	HTTPRouteVersion = GatewayGroup + "/v1"
	HTTPRouteKind    = "HTTPRoute"
)

// HTTPRoute says which plain HTTP requests go to which backends:
// gateway.networking.k8s.io/v1, field by field.
type HTTPRoute struct {
	Meta `json:"metadata"`
	Spec HTTPRouteSpec `json:"spec"`
}

// HTTPRouteSpec is the wish itself. ParentRefs and Hostnames are those of a
// GRPCRouteSpec. A text without rules means one that matches everything.
type HTTPRouteSpec struct {
	ParentRefs []ParentRef     `json:"parentRefs,omitempty"`
	Hostnames  []string        `json:"hostnames,omitempty"`
	Rules      []HTTPRouteRule `json:"rules,omitempty"`
}

// HTTPRouteRule sends what any of its matches matches to its backends, shared out by
// weight.
type HTTPRouteRule struct {
	Name        string           `json:"name,omitempty"` // unique within the route, may be empty
	Matches     []HTTPRouteMatch `json:"matches"`        // never empty: "/" and below when the text does not say
	Filters     []Filter         `json:"filters,omitempty"`
	BackendRefs []BackendRef     `json:"backendRefs,omitempty"`
	Timeouts    *HTTPTimeouts    `json:"timeouts,omitempty"`
	// Steering and Treatment are filled in only in effective sets; no text declares them.
	Steering  Steering  `json:"-"`
	Treatment Treatment `json:"-"`
}

// HTTPRouteMatch matches when all its parts do.
type HTTPRouteMatch struct {
	Path        PathMatch         `json:"path"`
	Headers     []HeaderMatch     `json:"headers,omitempty"`
	QueryParams []QueryParamMatch `json:"queryParams,omitempty"`
	Method      string            `json:"method,omitempty"` // in upper case; empty means every method
}

// PathPrefix compares whole segments of a path: "/a" matches "/a" and "/a/b", not "/ab".
const PathPrefix MatchType = "PathPrefix"

// PathMatch matches the path of a request, without its query.
type PathMatch struct {
	Type  MatchType `json:"type"`
	Value string    `json:"value"`
}

// QueryParamMatch matches one parameter of the query. Its name is compared byte by
// byte; of several with the same name only the first counts.
type QueryParamMatch struct {
	Type  MatchType `json:"type"`
	Name  string    `json:"name"`
	Value string    `json:"value"`
}

// HTTPTimeouts bound a request. Nil means that the text does not say, zero that there
// is no bound.
type HTTPTimeouts struct {
	Request        *Duration `json:"request,omitempty"`        // from the client's request to the end of the response
	BackendRequest *Duration `json:"backendRequest,omitempty"` // one attempt, no longer than Request
}

// BackendKey is the key of the Backend that ref, one of this route's, means.
func (r *HTTPRoute) BackendKey(ref *BackendRef) string {
	return refKey(r.Namespace, ref.Namespace, ref.Name)
}

// MirrorKey is the key of the Backend that ref, one of this route's, means.
func (r *HTTPRoute) MirrorKey(ref *MirrorRef) string {
	return refKey(r.Namespace, ref.Namespace, ref.Name)
}

// MarshalJSON writes a manifest that Parse accepts.
func (r *HTTPRoute) MarshalJSON() ([]byte, error) {
	type fields HTTPRoute
	return json.Marshal(struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		*fields
	}{HTTPRouteVersion, HTTPRouteKind, (*fields)(r)})
}
