package gateway

import (
	"context"
	"net/http"
	"strings"
	"time"

	"sluice/gateway/route"
	"sluice/gateway/upstream"
	"sluice/gateway/web"
	"sluice/gateway/wire"
	"sluice/store"
)

// httpHeader is a request's header as rules look at it: names in lower case, several
// fields of a name as one.
type httpHeader struct{ r *http.Request }

// Get returns the value of a name, which is in lower case.
func (h httpHeader) Get(name string) (value string, ok bool) {
	switch values := h.r.Header[http.CanonicalHeaderKey(name)]; {
	case len(values) == 1:
		return values[0], true
	case len(values) > 1:
		return strings.Join(values, ", "), true
	case name == "host":
		return h.r.Host, h.r.Host != ""
	}
	return "", false
}

// rawTarget is path and query of a request as they came.
func rawTarget(r *http.Request) (path, query string) {
	target := r.RequestURI
	if scheme, rest, found := strings.Cut(target, "://"); found && !strings.Contains(scheme, "/") {
		// The absolute form, RFC 9112, section 3.2.2; its authority is r.Host.
		if slash := strings.IndexAny(rest, "/?"); slash < 0 {
			target = "/"
		} else if target = rest[slash:]; target[0] == '?' {
			target = "/" + target
		}
	}
	path, query, _ = strings.Cut(target, "?")
	return path, query
}

// foundHTTP is what the HTTPRoutes say of a request.
type foundHTTP struct {
	Everything bool // the rule says no more than "/" and below

	match   route.HTTPMatch
	path    route.HTTPPath
	query   string
	table   *table
	refused *wire.Status // of a path that nobody should be asked to understand; nil when all is well
}

// lookupHTTP finds the rule of an HTTPRoute that a request belongs to. It is false when
// the routes that serve the authority, if any, have none for it.
func (g *Gateway) lookupHTTP(r *http.Request) (foundHTTP, bool) {
	return g.lookupHTTPMethod(r, r.Method)
}

func (g *Gateway) lookupHTTPMethod(r *http.Request, method string) (foundHTTP, bool) {
	f := foundHTTP{table: g.table.Load()}
	if !f.table.routes.ServesHTTP(r.Host) {
		return f, false
	}
	raw, query := rawTarget(r)
	p, fault := route.ParseHTTPPath(raw)
	if fault != nil {
		f.refused = plainStatus(badTarget, "the path is refused: "+fault.Error())
		return f, true
	}
	var hdr route.Header = httpHeader{r}
	if method != r.Method { // it is a preflight for that
		hdr = announcedBy(r)
	}
	var miss route.Miss
	f.path, f.query = p, query
	f.match, miss = f.table.routes.LookupHTTP(&route.HTTPRequest{Authority: r.Host, Method: method, Path: p, Query: query, Header: hdr})
	if miss == route.TwoReadings {
		f.refused = plainStatus(badTarget, "the path is refused: "+miss.String())
		return f, true
	}
	f.Everything = f.match.Bare
	return f, miss == route.Found
}

// serveHTTPRoute answers a request that a rule of an HTTPRoute has got: by a
// redirection, by a backend that takes it as it is, or, where the backend speaks
// gRPC, by an RPC.
func (g *Gateway) serveHTTPRoute(w http.ResponseWriter, r *http.Request, found foundHTTP, to *way) {
	if found.refused != nil {
		g.count(&g.nowhere, badTarget)
		g.rest.Fail(w, r, found.refused)
		return
	}
	rule := found.match.Rule
	to.cors.allow(rule)
	if rule.Redirect != nil {
		g.redirect(w, r, &found)
		return
	}
	p := found.table.place(rule, httpHeader{r})
	if p.how != served {
		g.count(p.target, p.how)
		g.rest.Fail(w, r, plainStatus(p.how, outcomes[p.how].message))
		return
	}
	e := found.errand(r, &p)
	if passes(p.backend) {
		g.carry(w, r, e)
		return
	}
	g.transcode(w, e.rewritten(r), to, &p)
}

// errand is the request as the rule has it sent on.
func (f *foundHTTP) errand(r *http.Request, p *placement) *errand {
	rewrite := p.rule.Rewrite
	if own := p.target.rewrite; own != nil {
		rewrite = own
	}
	e := &errand{placement: p, path: rewrite.Path(&f.match, f.path), query: f.query, host: r.Host}
	if rewrite != nil && rewrite.Hostname != "" {
		e.host = rewrite.Hostname
	}
	return e
}

// rewritten is the request with the errand's path and host.
func (e *errand) rewritten(r *http.Request) *http.Request {
	out := *r
	out.Host, out.RequestURI, out.URL = e.host, e.path, e.url()
	if e.query != "" {
		out.RequestURI += "?" + e.query
	}
	return &out
}

// passes tells whether the backend takes plain HTTP requests as they are.
func passes(b *upstream.Backend) bool { return b.HTTP() || b.Accepts(store.AcceptHTTP) }

// transcode answers a plain request by an RPC to the backend that has been chosen, as
// that backend's own methods say.
func (g *Gateway) transcode(w http.ResponseWriter, r *http.Request, to *way, p *placement) {
	to.placed, to.only = p, true
	if t := p.rule.Treatment.HTTP; t != nil && t.Request != nil && *t.Request > 0 {
		ctx, cancel := context.WithTimeout(r.Context(), time.Duration(*t.Request))
		defer cancel()
		r = r.WithContext(ctx)
	}
	switch {
	case g.rest.ServeREST(w, r, to):
	case r.Method == http.MethodPost && wire.ValidPath(r.URL.Path):
		g.rest.ServeMethod(w, r, to)
	default:
		g.count(p.target, noRule)
		g.rest.NotFound(w, r, to)
	}
}

// redirect tells the client where to go instead.
func (g *Gateway) redirect(w http.ResponseWriter, r *http.Request, f *foundHTTP) {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if se := g.sessionOf(r); se.hops > 0 {
		if told := r.Header.Get("X-Forwarded-Proto"); told == "http" || told == "https" {
			scheme = told
		}
	}
	redirect := f.match.Rule.Redirect
	w.Header().Set("Location", redirect.Location(&f.match, scheme, r.Host, f.path, f.query))
	w.WriteHeader(redirect.Status)
	g.count(f.match.Rule.Attached.(*targets).none, served)
}

// preflightHTTP is what the HTTPRoutes say of a preflight for a request with method. It
// is false for a request that they have no rule for, or only one that comes after the
// methods' own paths.
func (g *Gateway) preflightHTTP(r *http.Request, method string) (*web.CORS, bool) {
	found, ok := g.lookupHTTPMethod(r, method)
	if !ok || found.refused != nil {
		return nil, false
	}
	if found.Everything {
		if _, known := g.ruleOfPath(r, method, announcedBy(r)); known {
			return nil, false
		}
	}
	return corsOf(found.match.Rule), true
}

// plainStatus is what a caller of plain HTTP is told of an outcome: whether nobody
// could be reached (503), or somebody has answered wrongly (502), or not in time (504).
func plainStatus(o outcome, message string) *wire.Status {
	st := o.status()
	st.Message = "sluice: " + message
	switch o {
	case backendLost, backendStalled:
		st.HTTP = http.StatusBadGateway
	}
	return st
}
