package store

// FilterType names what a filter does.
type FilterType string

// The filters: those that change headers, or metadata, on its way are in every route,
// the others in an HTTPRoute alone.
const (
	RequestHeaderModifier  FilterType = "RequestHeaderModifier"
	ResponseHeaderModifier FilterType = "ResponseHeaderModifier"
	RequestMirror          FilterType = "RequestMirror"
	RequestRedirect        FilterType = "RequestRedirect"
	URLRewrite             FilterType = "URLRewrite"
	FilterCORS             FilterType = "CORS"
)

// Filter is one step between client and backend; the field that its Type names is
// set, the others are nil.
type Filter struct {
	Type                   FilterType      `json:"type"`
	RequestHeaderModifier  *HeaderModifier `json:"requestHeaderModifier,omitempty"`
	ResponseHeaderModifier *HeaderModifier `json:"responseHeaderModifier,omitempty"`
	RequestMirror          *MirrorFilter   `json:"requestMirror,omitempty"`
	RequestRedirect        *RedirectFilter `json:"requestRedirect,omitempty"`
	URLRewrite             *RewriteFilter  `json:"urlRewrite,omitempty"`
	CORS                   *CORS           `json:"cors,omitempty"`
}

// HeaderModifier changes headers. A name occurs once in all three lists together.
type HeaderModifier struct {
	Set    []Header `json:"set,omitempty"`    // replaces every value
	Add    []Header `json:"add,omitempty"`    // leaves the values that are there
	Remove []string `json:"remove,omitempty"` // takes away every value
}

// Header is a name, as written, and a value.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

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
