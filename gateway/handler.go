package gateway

import (
	"net/http"
	"strings"

	"sluice/gateway/rest"
	"sluice/gateway/web"
	"sluice/gateway/wire"
	"sluice/store"
)

// protocol is what a request that the handler answers was in.
type protocol uint8

const (
	protoGRPC protocol = iota
	protoWeb
	protoConnect
	protoREST
	protoHTTP // proxied by an HTTPRoute
	numProtocols
)

var protocolNames = [numProtocols]string{"grpc", "grpc-web", "connect", "rest", "http"}

// ServeHTTP answers every request that the relay does not: it decides, once, what a
// request is, and leaves it to who speaks that.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to := &way{g: g}
	if web.IsPreflight(r) && g.preflight(w, r) {
		return
	}
	to.cors = &corsWriter{ResponseWriter: w, g: g, request: r}
	w = to.cors
	kind := wire.KindOf(r.Header.Get("Content-Type"))
	isWeb, isSocket, isConnect := kind == wire.KindGRPCWeb || kind == wire.KindGRPCWebText, web.IsSocket(r), rest.IsConnect(r)
	switch {
	case (isWeb || isSocket || isConnect) && !to.leads(r, isSocket) && g.isForSite(r, kind, isConnect):
		g.servePlain(w, r, to)
	case isSocket:
		g.spoken[protoWeb].Add(1)
		g.web.ServeHTTP(to.plain(w), to.with(r))
	case kind == wire.KindGRPC:
		g.spoken[protoGRPC].Add(1)
		refuseGRPC(w, r)
	case isWeb:
		g.spoken[protoWeb].Add(1)
		g.serveWeb(w, r, to)
	case isConnect:
		g.spoken[protoConnect].Add(1)
		g.serveConnect(w, r, to)
	default:
		g.servePlain(w, r, to)
	}
}

// leads places an RPC of a web protocol whose path is its method, and tells whether a
// GRPCRoute leads there. The metadata of a WebSocket is not known yet: its RPC is placed
// when it is.
func (w *way) leads(r *http.Request, isSocket bool) bool {
	if !wire.ValidPath(r.URL.Path) {
		return false
	}
	if isSocket {
		rule, _ := w.g.table.Load().routes.Lookup(r.Host, r.URL.Path, headerOf(r.Header))
		return rule != nil
	}
	if p := w.g.place(r.Host, r.URL.Path, headerOf(r.Header)); p.rule != nil {
		w.placed = &p
		return true
	}
	return false
}

// isForSite tells a request that looks like an RPC of a web protocol, and names no method
// that a GRPCRoute leads to, where an HTTPRoute has its path: a backend of plain HTTP
// may speak what it likes. What is only marked as Connect may be REST, too.
func (g *Gateway) isForSite(r *http.Request, kind wire.Kind, marked bool) bool {
	if _, found := g.lookupHTTP(r); found {
		return true
	}
	content := r.Header.Get("Content-Type")
	return marked && kind != wire.KindConnectStream && (content == "" || strings.HasPrefix(content, "application/json")) && !wire.ValidPath(r.URL.Path)
}

// refuseGRPC answers native gRPC that the relay cannot take: over HTTP/1, or with a
// method other than POST.
func refuseGRPC(w http.ResponseWriter, r *http.Request) {
	const why = "sluice: native gRPC is a POST over HTTP/2"
	status := http.StatusMethodNotAllowed
	what := "; the method must be POST"
	if r.ProtoMajor == 1 {
		status, what = http.StatusHTTPVersionNotSupported, "; gRPC needs HTTP/2"
	} else {
		w.Header().Set("Allow", http.MethodPost)
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	setStatus(w.Header(), "", &wire.Status{Code: wire.Internal, Message: why + what})
	w.WriteHeader(status)
}

// serveWeb answers gRPC-Web over HTTP/1, and over HTTP/2 where the relay cannot.
func (g *Gateway) serveWeb(w http.ResponseWriter, r *http.Request, to *way) {
	if g.passThrough(w, r, to, store.AcceptGRPCWeb) {
		return
	}
	g.web.ServeHTTP(to.plain(w), to.with(r))
}

// serveConnect answers the Connect protocol.
func (g *Gateway) serveConnect(w http.ResponseWriter, r *http.Request, to *way) {
	if g.passThrough(w, r, to, store.AcceptConnect) {
		return
	}
	g.connect.ServeConnect(w, r, to)
}

// passThrough passes an RPC on as it is whose backend speaks the caller's protocol itself.
func (g *Gateway) passThrough(w http.ResponseWriter, r *http.Request, to *way, protocol store.Accept) bool {
	if p := to.placed; p != nil && p.how == served && p.backend.Accepts(protocol) {
		to.cors.allow(p.rule)
		g.proxy(w, r, p)
		return true
	}
	return false
}

// servePlain answers REST, JSON and plain HTTP. What an HTTPRoute says comes first,
// unless it says no more than "everything else".
func (g *Gateway) servePlain(w http.ResponseWriter, r *http.Request, to *way) {
	found, ok := g.lookupHTTP(r)
	if ok && !found.Everything {
		g.spoken[protoHTTP].Add(1)
		g.serveHTTPRoute(w, r, found, to)
		return
	}
	to.quiet = true
	switch {
	case g.rest.ServeREST(w, r, to) || g.describe(w, r, to):
	case g.isMethodCall(r, ok):
		to.quiet = false
		g.rest.ServeMethod(w, r, to)
	case ok:
		g.spoken[protoHTTP].Add(1)
		g.serveHTTPRoute(w, r, found, to)
		return
	default:
		g.count(&g.nowhere, noRule)
		g.rest.NotFound(w, r, to)
	}
	g.spoken[protoREST].Add(1)
}

// isMethodCall tells JSON for a method by its own path. Where an HTTPRoute takes
// everything, only methods that are known are meant.
func (g *Gateway) isMethodCall(r *http.Request, other bool) bool {
	if r.Method != http.MethodPost || !wire.ValidPath(r.URL.Path) || !strings.Contains(r.URL.Path[1:], ".") && other {
		return false
	}
	rule, _ := g.table.Load().routes.Lookup(r.Host, r.URL.Path, headerOf(r.Header))
	return rule != nil && (!other || g.schemas.knows(r.URL.Path))
}

// handlerOf answers a request of the relay's that has been placed where the relay
// cannot go: at a backend that speaks HTTP/1.
func (g *Gateway) handlerOf(p placement) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := &way{g: g, placed: &p}
		if wire.IsGRPC(r.Header.Get("Content-Type")) {
			g.spoken[protoGRPC].Add(1)
			g.serveGRPC(w, to.with(r))
			return
		}
		to.cors = &corsWriter{ResponseWriter: w, g: g, request: r}
		w = to.cors
		g.spoken[protoWeb].Add(1)
		g.serveWeb(w, r, to)
	})
}
