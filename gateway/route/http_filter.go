package route

import (
	"net"
	"strconv"
	"strings"

	"sluice/store"
)

// Rewrite changes where a request asks to go, on its way to the backend.
type Rewrite struct {
	Hostname string // empty leaves it
	path     *pathChange
}

// Path is the path of a request after the change.
func (w *Rewrite) Path(m *HTTPMatch, p HTTPPath) string {
	if w == nil || w.path == nil {
		return p.text
	}
	return w.path.apply(m, p)
}

// Redirect answers a request by where to go instead.
type Redirect struct {
	Status   int
	scheme   string
	hostname string
	port     int
	path     *pathChange
}

// Location is where the client is sent: scheme, authority and path are those of the
// request, but for what the filter says. Of a scheme that is another the usual port
// is meant; one that is usual is not written.
func (r *Redirect) Location(m *HTTPMatch, scheme, authority string, p HTTPPath, query string) string {
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && isPort(authority[i+1:]) {
		host, port = authority[:i], authority[i+1:]
	}
	if r.hostname != "" {
		host = r.hostname
	}
	if r.scheme != "" {
		scheme, port = r.scheme, ""
	}
	if r.port != 0 {
		port = strconv.Itoa(r.port)
	}
	if scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		port = ""
	}
	if port != "" {
		host = net.JoinHostPort(strings.Trim(host, "[]"), port)
	}
	path := p.text
	if r.path != nil {
		path = r.path.apply(m, p)
	}
	location := scheme + "://" + host + path
	if query != "" {
		location += "?" + query
	}
	return location
}

// pathChange puts something in the place of a path, or of the part of it that a
// prefix has matched.
type pathChange struct {
	text   string
	prefix bool
}

func newPathChange(spec *store.PathModifier) *pathChange {
	switch {
	case spec == nil:
		return nil
	case spec.ReplaceFullPath != nil:
		return &pathChange{text: *spec.ReplaceFullPath}
	case spec.ReplacePrefixMatch != nil:
		return &pathChange{text: *spec.ReplacePrefixMatch, prefix: true}
	}
	return nil
}

func (c *pathChange) apply(m *HTTPMatch, p HTTPPath) string {
	path := c.text
	if c.prefix {
		if rest := p.behind(m.segments); rest != "" {
			path = strings.TrimRight(c.text, "/") + rest
		}
	}
	if path == "" {
		return "/"
	}
	return path
}

// newURLFilters are nil where there is no such filter.
func newURLFilters(filters []store.Filter) (rewrite *Rewrite, redirect *Redirect) {
	for i := range filters {
		switch f := &filters[i]; {
		case f.Type == store.URLRewrite && f.URLRewrite != nil:
			rewrite = &Rewrite{Hostname: f.URLRewrite.Hostname, path: newPathChange(f.URLRewrite.Path)}
		case f.Type == store.RequestRedirect && f.RequestRedirect != nil:
			spec := f.RequestRedirect
			redirect = &Redirect{
				Status: spec.StatusCode, scheme: spec.Scheme, hostname: spec.Hostname,
				port: spec.Port, path: newPathChange(spec.Path),
			}
		}
	}
	return rewrite, redirect
}
