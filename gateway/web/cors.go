package web

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// CORSPolicy says which pages of other origins may call, as the Gateway API's
// HTTPCORSFilter does.
type CORSPolicy struct {
	// AllowOrigins are "https://shop.example.com", "https://*.example.com" for every
	// name below example.com, at any depth, and "*" for all.
	AllowOrigins []string
	// AllowCredentials lets pages send cookies, certificates and passwords.
	AllowCredentials bool
	// AllowMethods and AllowHeaders are what a request may use; none, and "*", mean
	// what the preflight asks for.
	AllowMethods, AllowHeaders []string
	// ExposeHeaders are fields of responses that a page may read, beside those that
	// gRPC-Web needs and the response's own.
	ExposeHeaders []string
	// MaxAge is how long a browser remembers the answer to a preflight, in seconds.
	MaxAge int
}

// What a preflight that is echoed may ask for. Chrome itself refuses to send header
// fields of more than 256 KiB; no page sets 100 of them.
const (
	maxAskedHeaders = 100  // names
	maxAskedBytes   = 4096 // of all names together
	maxOrigin       = 300  // bytes: a name of 253, scheme and port
	maxMethod       = 32   // bytes
)

// CORS answers browsers by a policy. A nil *CORS lets in no other origin: it adds
// nothing to a response, and without those fields a browser shows none to a page of
// another origin. A CORS does not change.
type CORS struct {
	any              bool
	exact            map[string]bool // origins in the form that Origin has
	below            []wildcard
	credentials      bool
	methods, headers string // empty: what is asked for
	expose           string
	maxAge           string
}

// wildcard is an origin of any host below one.
type wildcard struct{ scheme, suffix, port string }

// CompileCORS readies a policy that has been checked for errors.
func CompileCORS(p CORSPolicy) *CORS {
	c := &CORS{
		exact:       make(map[string]bool, len(p.AllowOrigins)),
		credentials: p.AllowCredentials,
		methods:     listed(p.AllowMethods),
		headers:     listed(p.AllowHeaders),
		expose:      exposed(p),
	}
	if p.MaxAge > 0 {
		c.maxAge = strconv.Itoa(p.MaxAge)
	}
	for _, o := range p.AllowOrigins {
		c.allow(o)
	}
	return c
}

func (c *CORS) allow(pattern string) {
	if pattern == "*" {
		c.any = true
		return
	}
	scheme, host, port, ok := splitOrigin(strings.ToLower(pattern))
	if !ok {
		return // no browser has such an origin
	}
	if suffix, found := strings.CutPrefix(host, "*"); found {
		c.below = append(c.below, wildcard{scheme, suffix, port})
		return
	}
	c.exact[joinOrigin(scheme, host, port)] = true
}

// listed is a list as a field has it, empty when the answer is what was asked for. A
// literal "*" would not do: browsers take it for a name where credentials are sent,
// and never for "authorization".
func listed(words []string) string {
	if slices.Contains(words, "*") {
		return ""
	}
	return strings.Join(words, ", ")
}

// exposed is what pages may read of every response: what gRPC-Web says in header
// fields when it has no body, and what the policy adds.
func exposed(p CORSPolicy) string {
	names := []string{"grpc-status", "grpc-message", "grpc-status-details-bin"}
	for _, name := range p.ExposeHeaders {
		if name = strings.ToLower(name); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// splitOrigin takes an origin apart that a browser may have written (RFC 6454,
// section 6.2): no path, no user, no escapes. The port that the scheme implies is
// left out.
func splitOrigin(origin string) (scheme, host, port string, ok bool) {
	scheme, rest, ok := strings.Cut(origin, "://")
	if !ok || len(origin) > maxOrigin || !consists(scheme, "+-.") {
		return "", "", "", false
	}
	host, extra := rest, "-._*"
	colon := strings.LastIndexByte(rest, ':')
	if strings.HasPrefix(rest, "[") { // an IPv6 address
		end := strings.IndexByte(rest, ']')
		if end < 0 || colon < end {
			colon = -1
		}
		extra = "[]:"
	}
	if colon >= 0 {
		host, port = rest[:colon], rest[colon+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || port != strconv.FormatUint(n, 10) {
			return "", "", "", false
		}
	}
	if scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		port = ""
	}
	return scheme, host, port, consists(host, extra)
}

func joinOrigin(scheme, host, port string) string {
	if port == "" {
		return scheme + "://" + host
	}
	return scheme + "://" + host + ":" + port
}

// consists tells whether s has something, and only lower-case letters, digits and
// extra.
func consists(s, extra string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return s != ""
}

// Allow reports whether pages of the origin may call. "null", which is any page that
// hides its origin, may where all may, but not with credentials.
func (c *CORS) Allow(origin string) bool {
	if c == nil || origin == "" {
		return false
	}
	if c.any && !c.credentials || c.exact[origin] {
		return true
	}
	scheme, host, port, ok := splitOrigin(strings.ToLower(origin))
	if !ok || strings.Contains(host, "*") {
		return false
	}
	return c.any || c.exact[joinOrigin(scheme, host, port)] || slices.ContainsFunc(c.below, func(w wildcard) bool {
		return scheme == w.scheme && port == w.port && len(host) > len(w.suffix) && strings.HasSuffix(host, w.suffix)
	})
}

// AllowSocket reports whether the page that opens a WebSocket may: one of the same
// origin, and one that the policy lets in. Browsers ask nobody before they open one,
// to any origin, so the server must look. Programs that are no browser send no Origin.
func (c *CORS) AllowSocket(r *http.Request) bool {
	origins := r.Header["Origin"]
	switch len(origins) {
	case 0:
		return true
	case 1:
		return sameOrigin(r, origins[0]) || c.Allow(origins[0])
	}
	return false
}

// sameOrigin compares with what the browser took for the host. In front of the
// gateway TLS may end, so that a page of https may come in clear; the other way
// round it is another origin.
func sameOrigin(r *http.Request, origin string) bool {
	scheme, host, port, ok := splitOrigin(strings.ToLower(origin))
	if !ok || scheme != "https" && (scheme != "http" || r.TLS != nil) {
		return false
	}
	_, ownHost, ownPort, ok := splitOrigin(scheme + "://" + strings.ToLower(r.Host))
	return ok && host == ownHost && port == ownPort
}

// star tells that the answer is the same for every origin.
func (c *CORS) star() bool { return c.any && !c.credentials }

// allowed appends the fields that let the origin in.
func (c *CORS) allowed(fields [][2]string, origin string) [][2]string {
	if c.star() {
		return append(fields, [2]string{"access-control-allow-origin", "*"})
	}
	fields = append(fields, [2]string{"access-control-allow-origin", origin})
	if c.credentials {
		fields = append(fields, [2]string{"access-control-allow-credentials", "true"})
	}
	return fields
}

// Fields are what a response to a request with that Origin gets, names in lower
// case. names are those of the response's own fields, which the page is to see; they
// may be nil.
func (c *CORS) Fields(origin string, names []string) [][2]string {
	if c == nil {
		return nil
	}
	fields := make([][2]string, 0, 4)
	if c.Allow(origin) {
		fields = c.allowed(fields, origin)
		fields = append(fields, [2]string{"access-control-expose-headers", c.exposing(names)})
	} else if c.star() && origin == "" {
		// It may be kept, and be given to a page of another origin later (Fetch, "CORS
		// protocol and HTTP caches").
		fields = c.allowed(fields, origin)
	}
	if !c.star() {
		fields = append(fields, [2]string{"vary", "Origin"})
	}
	return fields
}

// exposing adds to what is exposed the names that a page would not see otherwise.
func (c *CORS) exposing(names []string) string {
	var b strings.Builder
	b.WriteString(c.expose)
	for _, name := range names {
		name = strings.ToLower(name)
		if isToken(name) && !visible[name] && !strings.HasPrefix(name, "access-control-") && !strings.HasPrefix(name, "grpc-") {
			b.WriteString(", ")
			b.WriteString(name)
		}
	}
	return b.String()
}

// visible are the fields that pages see anyway (Fetch, "CORS-safelisted
// response-header name"), never see, or that say nothing of the RPC.
var visible = map[string]bool{
	"cache-control": true, "content-language": true, "content-length": true, "content-type": true,
	"expires": true, "last-modified": true, "pragma": true,
	"set-cookie": true, "set-cookie2": true,
	"connection": true, "date": true, "keep-alive": true, "te": true, "trailer": true,
	"transfer-encoding": true, "upgrade": true, "vary": true,
}

// Set adds to the header of a response what the policy lets the page of r see of it.
// What a backend itself says of other origins gives way; without a policy it stays.
func (c *CORS) Set(h http.Header, r *http.Request) {
	if c == nil {
		return
	}
	names := make([]string, 0, len(h))
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	for _, f := range c.Fields(originOf(r), names) {
		h.Add(f[0], f[1])
	}
}

// originOf is the request's one Origin; with two of them it has none.
func originOf(r *http.Request) string {
	if origins := r.Header["Origin"]; len(origins) == 1 {
		return origins[0]
	}
	return ""
}

// IsPreflight tells a browser's question before a request of another origin's page,
// whatever headers it asks for.
func IsPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Origin"]) > 0 && len(r.Header["Access-Control-Request-Method"]) > 0
}

// Preflight answers one. A refusal has none of the fields that allow something, and
// says in its body, which developer tools show, what is missing.
func (c *CORS) Preflight(w http.ResponseWriter, r *http.Request) {
	if c != nil {
		w.Header().Add("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
	}
	origin := originOf(r)
	if !c.Allow(origin) {
		refusePreflight(w, http.StatusForbidden, "the origin %s may not call this route; its CORS policy can allow it", quoted(origin))
		return
	}
	methods, headers := c.methods, c.headers
	if methods == "" {
		if methods = r.Header.Get("Access-Control-Request-Method"); len(methods) > maxMethod || !isToken(methods) {
			refusePreflight(w, http.StatusBadRequest, "access-control-request-method is no method, or has more than %d bytes", maxMethod)
			return
		}
	}
	if headers == "" {
		var fault string
		if headers, fault = askedHeaders(r.Header["Access-Control-Request-Headers"]); fault != "" {
			refusePreflight(w, http.StatusBadRequest, "access-control-request-headers %s", fault)
			return
		}
	}
	h := w.Header()
	for _, f := range c.allowed(nil, origin) {
		h.Set(f[0], f[1])
	}
	h.Set("Access-Control-Allow-Methods", methods)
	if headers != "" {
		h.Set("Access-Control-Allow-Headers", headers)
	}
	if c.maxAge != "" {
		h.Set("Access-Control-Max-Age", c.maxAge)
	}
	w.WriteHeader(http.StatusNoContent)
}

// askedHeaders reads the names that a preflight asks for, as one list.
func askedHeaders(lines []string) (list, fault string) {
	bytes, names := 0, 0
	for _, line := range lines {
		if bytes += len(line); bytes > maxAskedBytes {
			return "", fmt.Sprintf("has more than %d bytes", maxAskedBytes)
		}
	}
	list = strings.Join(lines, ", ")
	for name := range strings.SplitSeq(list, ",") {
		name = strings.Trim(name, " \t")
		if names++; names > maxAskedHeaders {
			return "", fmt.Sprintf("has more than %d names", maxAskedHeaders)
		}
		if name != "" && !isToken(name) {
			return "", fmt.Sprintf("has %q, which is no name of a header", name)
		}
	}
	return list, ""
}

// isToken tells what RFC 9110, section 5.6.2, lets a method or a name be.
func isToken(s string) bool {
	for i := range len(s) {
		if tokenBytes[s[i]] == 0 {
			return false
		}
	}
	return s != ""
}

// quoted shows an origin that somebody sent, cut where no origin is as long.
func quoted(origin string) string {
	if origin == "" {
		return "of the request (none, or several)"
	}
	if len(origin) > maxOrigin {
		return strconv.Quote(origin[:maxOrigin]) + "…"
	}
	return strconv.Quote(origin)
}

func refusePreflight(w http.ResponseWriter, status int, format string, args ...any) {
	refusePlain(w, status, "CORS: "+fmt.Sprintf(format, args...))
}

// refusePlain answers a request that is none of gRPC-Web.
func refusePlain(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	fmt.Fprintln(w, "sluice: "+message)
}
