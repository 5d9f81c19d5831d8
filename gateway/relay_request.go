package gateway

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sluice/gateway/h2"
	"sluice/gateway/route"
	"sluice/gateway/wire"
)

// session is one caller's connection: what its RPCs have in common.
type session struct {
	g      *Gateway
	hops   int        // proxies of ours in front, whose forwarding fields are kept
	origin []h2.Field // what every RPC of the connection gets added
	proto  h2.Field   // likewise, unless a proxy in front has said
	peer   h2.Peer
}

var (
	fieldTE        = h2.IndexedField("te", "trailers")
	fieldProtoHTTP = h2.IndexedField("x-forwarded-proto", "http")
	fieldProtoTLS  = h2.IndexedField("x-forwarded-proto", "https")
	fieldStatus200 = h2.IndexedField(":status", "200")
	fieldGRPC      = h2.IndexedField("content-type", "application/grpc")
)

// AcceptStream decides what a new stream is: native gRPC goes to the relay,
// everything else through the seam to the handler.
func (se *session) AcceptStream(s *h2.Stream, h *h2.Head, end bool, b *h2.Batch) {
	native := h.Method == http.MethodPost && wire.IsGRPC(h.ContentType) && !se.g.handleAll
	if !native && !se.g.relayAll {
		se.g.handled.Add(1)
		se.g.seam.Serve(s, h, end, se.peer, b)
		return
	}
	r := &rpc{g: se.g, down: s, started: time.Now(), native: native, requestEnded: end, target: &se.g.nowhere}
	se.g.relayed.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Bind(r)
	if o := r.admit(se, h); o != served {
		r.target.series.Start()
		r.fail(o, b)
		return
	}
	r.target.series.Start()
	if !r.deadline.IsZero() {
		if !time.Now().Before(r.deadline) {
			r.fail(deadline, b)
			return
		}
		se.g.engine.Wheel().Set(&r.timer, r.deadline, r)
	}
	r.dispatch(b)
}

// admit checks the request, finds its route and backend, and writes the fields
// that the backend gets. It returns served when all is well.
func (r *rpc) admit(se *session, h *h2.Head) outcome {
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
	t := se.g.table.Load()
	rule, miss := t.routes.Lookup(h.Authority, h.Path, h)
	if rule == nil {
		if miss == route.NoHostname {
			return noHostname
		}
		return noRule
	}
	targets := rule.Attached.(*targets)
	i := t.choose(rule, h)
	if i < 0 {
		r.target = targets.none
		return noBackend
	}
	r.target = &targets.splits[i]
	if r.backend = t.backends[r.target.backend]; r.backend == nil {
		return unresolved
	}
	r.fields = r.target.modify.request(se.forward(r.inline[:0], h))
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
	if se.hops > 0 {
		if list := lastHops(h, se.hops); list != "" {
			dst = append(dst, h2.LiteralField("x-forwarded-for", list))
		}
	}
	dst = append(dst, se.origin...)
	if se.hops == 0 || !has(h, "x-forwarded-proto") {
		dst = append(dst, se.proto)
	}
	if h.Authority != "" && !(se.hops > 0 && has(h, "x-forwarded-host")) {
		dst = append(dst, h2.LiteralField("x-forwarded-host", h.Authority))
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
func lastHops(h *h2.Head, n int) string {
	var fields []string
	for i := range h.Fields {
		if f := &h.Fields[i]; f.Name == "x-forwarded-for" {
			fields = append(fields, f.Value)
		}
	}
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

func has(h *h2.Head, name string) bool {
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
