package store

import "encoding/json"

// The kind of an HTTPRoute.
const (
	HTTPRouteVersion = GatewayGroup + "/v1"
	HTTPRouteKind    = "HTTPRoute"
)

// HTTPRoute says which plain HTTP requests go to which backends:
// gateway.networking.k8s.io/v1, field by field. It is checked and kept; no request
// is routed by it yet.
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

// The filters that only an HTTPRoute has.
const (
	RequestMirror   FilterType = "RequestMirror"
	RequestRedirect FilterType = "RequestRedirect"
	URLRewrite      FilterType = "URLRewrite"
	CORS            FilterType = "CORS"
)

// MirrorFilter sends a copy of the requests, or of a share of them, to another
// backend, whose answers are dropped.
type MirrorFilter struct {
	BackendRef MirrorRef `json:"backendRef"`
	// Percent, or else Fraction, of the requests; both nil means all.
	Percent  *int      `json:"percent,omitempty"`
	Fraction *Fraction `json:"fraction,omitempty"`
}

// MirrorRef is a BackendRef without a weight.
type MirrorRef struct {
	Group     string `json:"group"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"` // the route's when the text does not say
	Name      string `json:"name"`
	Port      int    `json:"port,omitempty"`
	// Origin is where the reference is written.
	Origin Position `json:"-"`
}

// Fraction is Numerator of Denominator.
type Fraction struct {
	Numerator   int `json:"numerator"`
	Denominator int `json:"denominator"`
}

// RedirectFilter answers with a redirection; what is empty or nil stays as the
// request has it.
type RedirectFilter struct {
	Scheme     string        `json:"scheme,omitempty"` // http or https
	Hostname   string        `json:"hostname,omitempty"`
	Path       *PathModifier `json:"path,omitempty"`
	Port       int           `json:"port,omitempty"`
	StatusCode int           `json:"statusCode"`
}

// RewriteFilter changes the request on its way to the backend.
type RewriteFilter struct {
	Hostname string        `json:"hostname,omitempty"`
	Path     *PathModifier `json:"path,omitempty"`
}

// PathModifierType says which part of a path is replaced.
type PathModifierType string

// The whole path, or the part of it that a match of type PathPrefix has matched.
const (
	ReplaceFullPath    PathModifierType = "ReplaceFullPath"
	ReplacePrefixMatch PathModifierType = "ReplacePrefixMatch"
)

// PathModifier replaces a path; the field that its Type names is set, the other nil.
type PathModifier struct {
	Type               PathModifierType `json:"type"`
	ReplaceFullPath    *string          `json:"replaceFullPath,omitempty"`
	ReplacePrefixMatch *string          `json:"replacePrefixMatch,omitempty"`
}

// CORSFilter answers the questions that browsers ask before and with requests of
// another origin's page.
type CORSFilter struct {
	AllowOrigins     []string `json:"allowOrigins,omitempty"`
	AllowCredentials bool     `json:"allowCredentials,omitempty"`
	AllowMethods     []string `json:"allowMethods,omitempty"`
	AllowHeaders     []string `json:"allowHeaders,omitempty"`
	ExposeHeaders    []string `json:"exposeHeaders,omitempty"`
	MaxAge           int      `json:"maxAge"` // seconds
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
