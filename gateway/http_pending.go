package gateway

import (
	"net/http"

	"sluice/gateway/rest"
	"sluice/gateway/web"
)

// foundHTTP is what the HTTPRoutes say of a request.
type foundHTTP struct {
	Everything bool // the rule says no more than "/" and below
}

func (g *Gateway) lookupHTTP(*http.Request) (foundHTTP, bool) { return foundHTTP{}, false }

func (g *Gateway) serveHTTPRoute(w http.ResponseWriter, r *http.Request, found foundHTTP, to *way) {
	g.rest.Fail(w, r, unsupported.status())
}

func (g *Gateway) proxy(w http.ResponseWriter, r *http.Request, p *placement) {
	g.rest.Fail(w, r, unsupported.status())
}

func (g *Gateway) openHTTP(r *http.Request, o *rest.Opening, p *placement) (rest.Call, error) {
	g.count(p.target, unsupported)
	return nil, unsupported.status()
}

// preflightHTTP is what the HTTPRoutes say of a preflight for a request with method.
func (g *Gateway) preflightHTTP(r *http.Request, method string) (*web.CORS, bool) { return nil, false }
