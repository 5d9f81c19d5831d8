package gateway

import (
	"context"
	"net/http"
	"net/netip"

	"sluice/gateway/rest"
	"sluice/gateway/route"
	"sluice/gateway/schema"
	"sluice/gateway/wire"
	"sluice/store"
)

// way leads the translated RPCs of one request to backends. It belongs to the
// goroutine that serves the request.
type way struct {
	g      *Gateway
	placed *placement // of the RPC that comes next, when that has been decided
	only   bool       // there is no other place: an HTTPRoute has chosen
	quiet  bool       // an RPC without a route is not counted: others may have the path
	cors   *corsWriter
}

var _ rest.Way = (*way)(nil)

// wayKey is where the context of a request has its way.
type wayKey struct{}

func (g *Gateway) wayOf(r *http.Request) *way {
	if w, _ := r.Context().Value(wayKey{}).(*way); w != nil {
		return w
	}
	return &way{g: g}
}

// with leaves the way to those who serve the request further down.
func (w *way) with(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), wayKey{}, w))
}

// plain is the writer without what it adds for pages of other origins: gRPC-Web sees
// to that itself.
func (w *way) plain(writer http.ResponseWriter) http.ResponseWriter {
	if w.cors == nil {
		return writer
	}
	plain := w.cors.ResponseWriter
	w.cors = nil
	return plain
}

// Open implements rest.Way.
func (w *way) Open(r *http.Request, o *rest.Opening) (rest.Call, error) {
	if !wire.ValidPath(o.Method) {
		return nil, w.refuse(&w.g.nowhere, badPath)
	}
	p := w.placed
	if p == nil {
		found := w.g.place(r.Host, o.Method, rpcHeader{headerOf(o.Metadata), headerOf(r.Header)})
		p = &found
	}
	if !w.only {
		w.placed = nil
	}
	w.cors.allow(p.rule)
	switch {
	case p.how != served:
		return nil, w.refuse(p.target, p.how)
	case p.backend.HTTP():
		return w.g.openHTTP(r, o, p)
	}
	c, err := w.g.open(r, o, p)
	if err != nil {
		return nil, err
	}
	if w.cors != nil && p.backend.Affinity() != nil {
		c.bound = w.cors.Header()
	}
	return c, nil
}

// refuse counts an RPC that goes nowhere.
func (w *way) refuse(to *target, o outcome) error {
	if !w.quiet || to != &w.g.nowhere {
		w.g.count(to, o)
	}
	return o.status()
}

// count is an RPC that ends where it began.
func (g *Gateway) count(to *target, o outcome) {
	to.series.Start()
	to.series.End(outcomes[o].code, 0)
	g.ended[o].Add(1)
}

// Table implements rest.Way.
func (w *way) Table(*http.Request) *rest.Table {
	if w.only {
		return w.g.schemas.tableOf(w.placed.backend.Key)
	}
	return w.g.schemas.table()
}

// Learn implements rest.Way. Only the backends that the request's authority leads to
// are asked: others have nothing to say to it.
func (w *way) Learn(r *http.Request) *rest.Table {
	var backends []string
	if w.only {
		backends = []string{w.placed.backend.Key}
	} else {
		backends = w.g.table.Load().routes.Backends(r.Host)
	}
	if !w.g.schemas.registry.Learn(r.Context(), backends) {
		return nil
	}
	return w.Table(r)
}

// Method implements rest.Way.
func (w *way) Method(ctx context.Context, backend, path string) (*schema.Method, error) {
	return w.g.schemas.registry.Method(ctx, backend, path)
}

// rpcHeader is what routing looks at of a translated RPC: its metadata, and then what
// else the request has.
type rpcHeader struct{ metadata, request headerOf }

// Get implements route.Header.
func (h rpcHeader) Get(name string) (value string, ok bool) {
	if value, ok = h.metadata.Get(name); ok {
		return value, true
	}
	return h.request.Get(name)
}

var _ route.Header = rpcHeader{}

// newLimits are those of a rule.
func newLimits(t *store.Translation) rest.Limits {
	l := rest.Limits{
		MaxMessage:              t.MaxMessageBytes,
		IgnoreUnknownFields:     t.UnknownFields == store.IgnoreUnknown,
		IgnoreUnknownParameters: t.UnknownParameters == store.IgnoreUnknown,
	}
	if l.MaxMessage == 0 {
		l.MaxMessage = rest.DefaultMaxMessage
	}
	return l
}

// limitsOf are the limits of what is translated for a rule.
func limitsOf(rule *route.Rule) rest.Limits {
	if rule == nil {
		return rest.Limits{MaxMessage: rest.DefaultMaxMessage}
	}
	return rule.Attached.(*targets).limits
}

// remoteOf is the address of who has sent a request.
func remoteOf(r *http.Request) netip.AddrPort {
	a, _ := netip.ParseAddrPort(r.RemoteAddr)
	return a
}
