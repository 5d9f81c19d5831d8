package gateway

import (
	"net/http"
	"strings"

	"sluice/gateway/h2"
	"sluice/gateway/route"
	"sluice/gateway/web"
	"sluice/store"
)

// newCORS compiles what a rule says of pages of other origins; nil lets none in.
func newCORS(p *store.CORS) *web.CORS {
	if p == nil {
		return nil
	}
	return web.CompileCORS(web.CORSPolicy(*p))
}

// corsOf is what a rule says, nil when there is no rule.
func corsOf(rule *route.Rule) *web.CORS {
	if rule == nil {
		return nil
	}
	return rule.Attached.(*targets).cors
}

// preflight answers a preflight for whatever the gateway would answer itself. It is
// false when no route leads anywhere, or to a backend that answers its own.
func (g *Gateway) preflight(w http.ResponseWriter, r *http.Request) bool {
	method := r.Header.Get("Access-Control-Request-Method")
	asked := announcedBy(r)
	if asked.isRPC() {
		// What an HTTPRoute says is not for those who name a method.
		if rule, _ := g.table.Load().routes.Lookup(r.Host, r.URL.Path, asked); rule != nil {
			corsOf(rule).Preflight(w, r)
			return true
		}
	}
	if cors, ok := g.preflightHTTP(r, method); ok {
		if cors == nil {
			return false
		}
		cors.Preflight(w, r)
		return true
	}
	rule, _ := g.ruleOfPath(r, method, asked)
	if rule == nil {
		return false
	}
	corsOf(rule).Preflight(w, r)
	return true
}

// announced are the names of the fields that a preflight asks for, in lower case.
type announced map[string]bool

func announcedBy(r *http.Request) announced {
	names := make(announced)
	for _, line := range r.Header["Access-Control-Request-Headers"] {
		for name := range strings.SplitSeq(line, ",") {
			if len(names) == maxAnnounced {
				return names
			}
			names[strings.ToLower(strings.TrimSpace(name))] = true
		}
	}
	return names
}

// maxAnnounced bounds them; a preflight that asks for more is refused later.
const maxAnnounced = 200

// Get implements route.Header.
func (a announced) Get(string) (string, bool) { return "", false }

// Announces implements route.Announced.
func (a announced) Announces(name string) bool { return a[name] }

// isRPC tells whether the request will be one of gRPC-Web or Connect.
func (a announced) isRPC() bool {
	return a["x-grpc-web"] || a["connect-protocol-version"] || a["connect-timeout-ms"]
}

// ruleOfPath is the rule that a request with that method would meet, by the path of a
// method or by one of REST, for which backends are asked as for the request itself;
// known tells that such a method is known.
func (g *Gateway) ruleOfPath(r *http.Request, method string, hdr route.Header) (rule *route.Rule, known bool) {
	routes := g.table.Load().routes
	rule, _ = routes.Lookup(r.Host, r.URL.Path, hdr)
	if rule != nil && g.schemas.knows(r.URL.Path) {
		return rule, true
	}
	found, _ := g.schemas.table().Match(method, r.URL.EscapedPath())
	if len(found) == 0 {
		if learnt := (&way{g: g}).Learn(r); learnt != nil {
			found, _ = learnt.Match(method, r.URL.EscapedPath())
		}
	}
	if len(found) > 0 {
		rule, _ = routes.Lookup(r.Host, found[0].Method.Path, hdr)
	}
	return rule, rule != nil && len(found) > 0
}

// corsWriter adds to a response what the browser of a page of another origin asks
// for, once it is known by which rule it is answered.
type corsWriter struct {
	http.ResponseWriter
	g       *Gateway
	request *http.Request
	cors    *web.CORS
	placed  bool // cors is the rule's
	begun   bool
}

// allow notes the rule. A nil writer leaves it to others.
func (c *corsWriter) allow(rule *route.Rule) {
	if c != nil && rule != nil {
		c.cors, c.placed = corsOf(rule), true
	}
}

// begin completes the header section, once.
func (c *corsWriter) begin() {
	if c.begun {
		return
	}
	c.begun = true
	if !c.placed && c.request.Header["Origin"] != nil {
		// It was refused before it was placed: the page is to see why.
		rule, _ := c.g.ruleOfPath(c.request, c.request.Method, headerOf(c.request.Header))
		c.allow(rule)
	}
	c.cors.Set(c.Header(), c.request)
}

// WriteHeader implements http.ResponseWriter.
func (c *corsWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		c.begin()
	}
	c.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (c *corsWriter) Write(p []byte) (int, error) {
	c.begin()
	return c.ResponseWriter.Write(p)
}

// FlushError sends what has been written.
func (c *corsWriter) FlushError() error {
	c.begin()
	return http.NewResponseController(c.ResponseWriter).Flush()
}

// Flush implements http.Flusher, which the library of gRPC-Web wants.
func (c *corsWriter) Flush() { c.FlushError() }

// Unwrap is for http.ResponseController.
func (c *corsWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// allow adds to a response's fields what the page may see of it. What the backend says
// of that gives way to the rule. The given fields stay as they are.
func (w *webCaller) allow(fields []h2.Field) []h2.Field {
	cors := corsOf(w.rule)
	if cors == nil {
		return fields
	}
	allowed, names := make([]h2.Field, 0, len(fields)+4), make([]string, 0, len(fields))
	for i := range fields {
		f := &fields[i]
		if strings.HasPrefix(f.Name, "access-control-") {
			continue
		}
		if allowed = append(allowed, *f); !f.Pseudo() {
			names = append(names, f.Name)
		}
	}
	for _, f := range cors.Fields(w.origin, names) {
		allowed = append(allowed, h2.IndexedField(f[0], f[1]))
	}
	return allowed
}

// corsOfWeb is what holds for a request of gRPC-Web: of one that opens a WebSocket the
// metadata is not known yet, and so the rule is that of its path.
func (g *Gateway) corsOfWeb(r *http.Request) *web.CORS {
	if p := g.wayOf(r).placed; p != nil {
		return corsOf(p.rule)
	}
	rule, _ := g.table.Load().routes.Lookup(r.Host, r.URL.Path, headerOf(r.Header))
	return corsOf(rule)
}
