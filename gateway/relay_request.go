package gateway

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sluice/gateway/h2"
	"sluice/gateway/route"
	"sluice/gateway/upstream"
	"sluice/gateway/wire"
	"sluice/store"
)

// session is one caller's connection: what its RPCs have in common.
type session struct {
	g      *Gateway
	hops   int        // proxies of ours in front, whose forwarding fields are kept
	origin []h2.Field // what every RPC of the connection gets added
	proto  h2.Field   // likewise, unless a proxy in front has said
	peer   h2.Peer
	aged   time.Time // of HTTP/1: when the connection is old; zero never
}

// sessionKey is where the context of a request has the session of its connection.
type sessionKey struct{}

// asPeer is what handlers know of the connection. The context is made when the first
// of them does.
func (se *session) asPeer() h2.Peer {
	if se.peer.Context == nil {
		se.peer.Context = context.WithValue(context.Background(), sessionKey{}, se)
	}
	return se.peer
}

var (
	fieldTE        = h2.IndexedField("te", "trailers")
	fieldProtoHTTP = h2.IndexedField("x-forwarded-proto", "http")
	fieldProtoTLS  = h2.IndexedField("x-forwarded-proto", "https")
	fieldStatus200 = h2.IndexedField(":status", "200")
	fieldGRPC      = h2.IndexedField("content-type", "application/grpc")
)

// AcceptStream decides what a new stream is: gRPC, native or for the web, goes to
// the relay, everything else through the seam to the handler.
func (se *session) AcceptStream(s *h2.Stream, h *h2.Head, end bool, b *h2.Batch) {
	kind := wire.KindOther
	if h.Method == http.MethodPost && !se.g.handleAll {
		kind = wire.KindOf(h.ContentType)
	}
	switch kind {
	case wire.KindGRPC:
	case wire.KindGRPCWeb, wire.KindGRPCWebText:
	default:
		if !se.g.relayAll {
			se.serve(s, h, end, se.g.handler, b)
			return
		}
	}
	if kind == wire.KindGRPC && isReflection(h.Path) && se.g.table.Load().routes.Exposes() {
		se.serve(s, h, end, http.HandlerFunc(se.g.serveReflection), b)
		return
	}
	r := &rpc{g: se.g, down: s, stream: s, started: time.Now(), native: kind != wire.KindOther, requestEnded: end, target: &se.g.nowhere}
	if kind == wire.KindGRPCWeb || kind == wire.KindGRPCWebText {
		r.web = newWebCaller(s, h)
		r.down = r.web
	}
	p, fault := r.admit(se, h)
	if p.backend != nil && r.native && !r.forRelay(p.backend) {
		se.serve(s, h, end, se.g.handlerOf(p), b)
		return
	}
	if r.web != nil && p.rule == nil && se.g.table.Load().routes.ServesHTTP(h.Authority) {
		se.serve(s, h, end, se.g.handler, b) // it may be an HTTPRoute's
		return
	}
	se.g.relayed.Add(1)
	if r.web != nil {
		se.g.relayedWeb.Add(1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Bind(r)
	r.begin(se, h, &p, fault, b)
}

// forRelay tells whether the backend can be sent the RPC as frames. A backend that
// speaks gRPC-Web itself gets it as it is.
func (r *rpc) forRelay(b *upstream.Backend) bool {
	if b.HTTP() {
		return false
	}
	if r.web != nil && b.Accepts(store.AcceptGRPCWeb) {
		r.web.passing, r.native = true, false
	}
	return true
}

// serve leaves a stream to a handler.
func (se *session) serve(s *h2.Stream, h *h2.Head, end bool, handler http.Handler, b *h2.Batch) {
	se.g.handled.Add(1)
	se.g.seam.ServeBy(handler, s, h, end, se.asPeer(), b)
}

// begin sends an RPC that has been placed on its way. The caller holds mu.
func (r *rpc) begin(se *session, h *h2.Head, p *placement, fault outcome, b *h2.Batch) {
	r.target = p.target
	r.target.series.Start()
	if fault != served {
		r.fail(fault, b)
		return
	}
	from := requester{se, h, h}
	e, how, after := se.g.enter(r.target, r.started, &from)
	if how != served {
		r.turnAway(how, after, b)
		return
	}
	r.entry = e
	r.backend = p.backend
	r.drawn(h.Path, &from)
	r.fields = r.target.modify.request(se.forward(r.inline[:0], h))
	if r.web != nil && !r.web.passing {
		r.fields = r.web.request(r.fields)
	}
	r.start(b)
}

// drawn notes what draws the RPC to one endpoint, if anything does. The caller holds mu.
func (r *rpc) drawn(path string, from *requester) {
	if d := drawOf(r.backend, path, from); d.leads() {
		r.careful().draw = d
	}
}

// start sends the request on its way to r.backend. The caller holds mu.
func (r *rpc) start(b *h2.Batch) {
	if r.arm(b) {
		r.dispatch(b)
	}
}

// treated puts in force what policies say of the RPC, before its deadline is set. The
// caller holds mu.
func (r *rpc) treated() {
	if r.target.treat != nil {
		r.bound()
		r.hedges()
	}
}

// arm has the RPC end at its deadline. It is false when that has passed, which ends it
// here and now. The caller holds mu.
func (r *rpc) arm(b *h2.Batch) bool {
	r.treated()
	at := r.until()
	if at.IsZero() {
		return true
	}
	if !time.Now().Before(at) {
		r.fail(deadline, b)
		return false
	}
	r.g.engine.Wheel().Set(&r.timer, at, r)
	return true
}

// path is the RPC's method. The inline fields have it for as long as the RPC lives: the
// pseudo-fields come first.
func (r *rpc) path() string {
	for i := range r.inline {
		if r.inline[i].Name == ":path" {
			return r.inline[i].Value
		}
	}
	return ""
}

// facts are those of the RPC's method.
func (r *rpc) facts() facts { return r.g.schemas.facts(r.backend.Key, r.path()) }

// factsOrLearn are the same for a rule whose policy asks for them: a backend that has not
// told yet is asked, for the RPCs to come.
func (r *rpc) factsOrLearn() facts {
	f := r.facts()
	if !f.known {
		r.g.schemas.registry.LearnSoon(r.backend.Key)
	}
	return f
}

// admit checks the request and finds its place. The outcome is served when all is
// well.
func (r *rpc) admit(se *session, h *h2.Head) (placement, outcome) {
	if o := r.check(h); o != served {
		if r.web != nil { // the page is to see why
			rule, _ := se.g.table.Load().routes.Lookup(h.Authority, h.Path, h)
			r.web.placed(rule)
		}
		return placement{target: &se.g.nowhere}, o
	}
	p := se.g.place(h.Authority, h.Path, h)
	if r.web != nil {
		r.web.placed(p.rule)
	}
	return p, p.how
}

// check is what can be told of a request by itself. It notes the deadline.
func (r *rpc) check(h *h2.Head) outcome {
	switch {
	case h.Large:
		return requestHeaders
	case r.native && !wire.ValidPath(h.Path):
		return badPath
	case r.native && h.BadBinary:
		return badMetadata
	}
	if h.Timed {
		d, ok := wire.ParseTimeout(h.Timeout)
		if !ok {
			return badTimeout
		}
		r.deadline = r.started.Add(d)
	}
	return served
}

// forward copies the caller's fields and adds what the gateway says of the hop.
// What only concerns the caller's own hop is left out.
func (se *session) forward(dst []h2.Field, h *h2.Head) []h2.Field {
	authority := false
	for i := range h.Fields {
		f := &h.Fields[i]
		switch {
		case f.Hop(), f.Forwarding() && !se.believes(f):
			continue
		case f.Name == ":authority":
			authority = true
		case !authority && !f.Pseudo():
			// The authority came in a host field: it belongs with the pseudo-fields.
			authority = true
			if h.Authority != "" {
				dst = append(dst, h2.IndexedField(":authority", h.Authority))
			}
		}
		dst = append(dst, *f)
	}
	dst = append(dst, fieldTE)
	return se.forwarded(dst, h, h.Authority)
}

// forwarding is what a request says of the hops before us.
type forwarding interface {
	route.Header
	// Values calls f with each value of a field, in order.
	Values(name string, f func(value string))
}

// forwarded appends what the gateway says of the hop itself.
func (se *session) forwarded(dst []h2.Field, h forwarding, authority string) []h2.Field {
	if se.hops > 0 {
		if list := lastHops(h, se.hops); list != "" {
			dst = append(dst, h2.LiteralField("x-forwarded-for", list))
		}
	}
	dst = append(dst, se.origin...)
	if se.hops == 0 || !has(h, "x-forwarded-proto") {
		dst = append(dst, se.proto)
	}
	if authority != "" && !(se.hops > 0 && has(h, "x-forwarded-host")) {
		dst = append(dst, h2.LiteralField("x-forwarded-host", authority))
	}
	return dst
}

// believes tells whether a field of a proxy's in front goes on as it is.
// x-forwarded-for does not: only its end is the proxies'. Underscores are none of
// theirs; some servers read them as dashes.
func (se *session) believes(f *h2.Field) bool {
	return se.hops > 0 && f.Name != "x-forwarded-for" && !strings.Contains(f.Name, "_")
}

// lastHops returns the last n entries of x-forwarded-for, in however many fields it
// came: what stands before them was written by whoever called the first proxy that
// we trust.
func lastHops(h forwarding, n int) string {
	var fields []string
	h.Values("x-forwarded-for", func(value string) { fields = append(fields, value) })
	list := strings.Join(fields, ", ")
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] == ',' {
			if n--; n == 0 {
				return strings.TrimLeft(list[i+1:], " ")
			}
		}
	}
	return list
}

func has(h route.Header, name string) bool {
	_, ok := h.Get(name)
	return ok
}

// newSession works out once what every RPC of the connection will carry.
func (g *Gateway) newSession(remote netip.AddrPort, state *tls.ConnectionState) *session {
	se := &session{g: g, peer: h2.Peer{RemoteAddr: remote.String(), TLS: state}}
	addr := remote.Addr().Unmap()
	trusted := len(g.cfg.TrustedProxies) == 0
	for _, p := range g.cfg.TrustedProxies {
		// A prefix of IPv4 addresses may be written in IPv6 form.
		trusted = trusted || p.Contains(addr) || p.Contains(netip.AddrFrom16(addr.As16()))
	}
	switch {
	case !trusted:
	case g.cfg.TrustedHops > 0:
		se.hops = g.cfg.TrustedHops
	case len(g.cfg.TrustedProxies) > 0:
		se.hops = 1
	}
	if addr.IsValid() {
		se.origin = append(se.origin, h2.LiteralField("x-forwarded-for", addr.String()))
	}
	se.proto = fieldProtoHTTP
	if state != nil {
		se.proto = fieldProtoTLS
	}
	return se
}

// statusFields is the end of an RPC in gRPC's own words: trailers, or a
// trailers-only response when nothing has gone before.
func statusFields(trailers bool, code wire.Code, message string) []h2.Field {
	fields := make([]h2.Field, 0, 4)
	if !trailers {
		fields = append(fields, fieldStatus200, fieldGRPC)
	}
	return append(fields,
		h2.IndexedField("grpc-status", strconv.Itoa(int(code))),
		h2.LiteralField("grpc-message", string(wire.AppendMessage(nil, "sluice: "+message))))
}

// plainError is the same for a caller that is not gRPC.
func plainError(code wire.Code) []h2.Field {
	return []h2.Field{h2.IndexedField(":status", strconv.Itoa(wire.HTTPStatus(code)))}
}

func statusText(status int) string {
	return strconv.Itoa(status) + " " + http.StatusText(status)
}
