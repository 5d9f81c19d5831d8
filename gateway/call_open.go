package gateway

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"sluice/gateway/h2"
	"sluice/gateway/rest"
	"sluice/gateway/wire"
)

// open makes a call of a request that has been placed at a backend that speaks gRPC.
func (g *Gateway) open(req *http.Request, o *rest.Opening, p *placement) (*call, error) {
	c := newCall(g, p, limitsOf(p.rule))
	c.r.target.series.Start()
	from := requester{g.sessionOf(req), rpcHeader{headerOf(o.Metadata), headerOf(req.Header)}, headerOf(req.Header)}
	e, how, after := g.enter(p.target, c.r.started, &from)
	if how != served {
		return nil, c.turnAway(how, after)
	}
	c.r.entry = e
	if o.Timeout > 0 {
		c.r.deadline = c.r.started.Add(o.Timeout)
	}
	fields, ok := g.requestFields(c.r.inline[:0], req, o)
	if !ok {
		return nil, c.refuse(badMetadata)
	}
	c.r.fields = p.target.modify.request(fields)
	var b h2.Batch
	c.r.mu.Lock()
	c.r.drawn(o.Method, &from)
	c.r.arm(&b) // whoever is called late, or not at all, is late too
	c.r.mu.Unlock()
	b.Flush()
	c.follow(req.Context())
	return c, nil
}

// refuse ends a call that nobody has got.
func (c *call) refuse(o outcome) error {
	var b h2.Batch
	c.r.mu.Lock()
	c.r.finish(o, outcomes[o].code, &b)
	c.r.mu.Unlock()
	return o.status()
}

// requestFields writes what the backend gets of a handler's RPC. It is false when
// the metadata cannot be sent.
func (g *Gateway) requestFields(dst []h2.Field, req *http.Request, o *rest.Opening) ([]h2.Field, bool) {
	se := g.sessionOf(req)
	dst = append(dst, fieldPost, schemes[req.TLS != nil],
		h2.IndexedField(":authority", req.Host), h2.IndexedField(":path", o.Method),
		contentTypeOf(o.Codec), fieldTE)
	if o.Encoding != "" && o.Encoding != "identity" {
		dst = append(dst, h2.IndexedField("grpc-encoding", o.Encoding))
	}
	if o.AcceptEncoding != "" {
		dst = append(dst, h2.IndexedField("grpc-accept-encoding", o.AcceptEncoding))
	}
	mark := len(dst)
	for name, values := range o.Metadata {
		if reserved(name) || listHas(req.Header["Connection"], name) {
			continue
		}
		for _, v := range values {
			before := len(dst)
			dst = h2.AppendHeader(dst, name, v)
			if len(dst) > before && (dst[before].Forwarding() || dst[before].Hop()) {
				dst = dst[:before] // what is believed of it comes below
			}
		}
	}
	if se.hops > 0 {
		dst = se.believed(dst, req.Header)
	}
	for i := mark; i < len(dst); i++ {
		if dst[i].BadBinary() {
			return nil, false
		}
	}
	return se.forwarded(dst, headerOf(req.Header), req.Host), true
}

// reserved tells the fields that an RPC has of the gateway and not of metadata.
func reserved(name string) bool {
	switch strings.ToLower(name) {
	case "proxy-authorization", "proxy-authenticate", "http2-settings",
		"te", "host", "content-type", "content-length", "trailer", "expect", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "grpc-status", "grpc-message":
		return true
	}
	return false
}

// believed appends what proxies of ours have said of the caller.
func (se *session) believed(dst []h2.Field, h http.Header) []h2.Field {
	for name, values := range h {
		for _, v := range values {
			if f := h2.LiteralField(strings.ToLower(name), v); f.Forwarding() && se.believes(&f) {
				dst = append(dst, f)
			}
		}
	}
	return dst
}

var (
	fieldPost      = h2.IndexedField(":method", http.MethodPost)
	fieldGRPCProto = h2.IndexedField("content-type", "application/grpc+proto")
	schemes        = map[bool]h2.Field{false: h2.IndexedField(":scheme", "http"), true: h2.IndexedField(":scheme", "https")}
)

func contentTypeOf(codec string) h2.Field {
	switch codec {
	case "proto":
		return fieldGRPCProto
	case "":
		return fieldGRPC
	}
	return h2.IndexedField("content-type", "application/grpc+"+codec)
}

// sessionOf is the connection of a request; of one that came by none of ours, what
// can be told of it.
func (g *Gateway) sessionOf(r *http.Request) *session {
	if se, _ := r.Context().Value(sessionKey{}).(*session); se != nil {
		return se
	}
	return g.newSession(remoteOf(r), r.TLS)
}

// headerOf is net/http's header as routing looks at one.
type headerOf http.Header

// Get returns the first value of a name, which is in lower case.
func (h headerOf) Get(name string) (value string, ok bool) {
	if v := h[http.CanonicalHeaderKey(name)]; len(v) > 0 {
		return v[0], true
	}
	return "", false
}

// Values calls f with each value of a name, which is in lower case.
func (h headerOf) Values(name string, f func(value string)) {
	for _, v := range h[http.CanonicalHeaderKey(name)] {
		f(v)
	}
}

// metadataOf is the metadata of a response's section: without what belongs to gRPC
// or to the hop.
func metadataOf(fields []h2.Field) http.Header {
	h := h2.HeaderOf(fields)
	for _, name := range []string{"Content-Type", "Content-Length", "Trailer", "Te", "Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin", "Grpc-Encoding", "Grpc-Accept-Encoding"} {
		delete(h, name)
	}
	return h
}

// statusOf reads the end of an RPC from its last section; nil is OK.
func statusOf(fields []h2.Field, how outcome) *wire.Status {
	st := &wire.Status{Code: wire.Unknown, Gateway: how != served}
	if st.Gateway {
		st.HTTP = outcomes[how].http
	}
	for i := range fields {
		switch f := &fields[i]; f.Name {
		case "grpc-status":
			st.Code, _ = wire.ParseStatus(f.Value)
		case "grpc-message":
			st.Message = wire.DecodeMessage(f.Value)
		case "grpc-status-details-bin":
			st.Details = decodeBin(f.Value)
		}
	}
	if st.Code == wire.OK {
		return nil
	}
	return st
}

// decodeBin reads base64 with or without padding; what is none is nil.
func decodeBin(s string) []byte {
	p, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return nil
	}
	return p
}

// tooLong is the end of an RPC whose message passes a limit.
func tooLong(what string, n int64, limit int) *wire.Status {
	return &wire.Status{
		Code: wire.ResourceExhausted, HTTP: http.StatusRequestEntityTooLarge, Gateway: true,
		Message: fmt.Sprintf("sluice: %s has %d bytes, the limit of this route is %d", what, n, limit),
	}
}

// encodeBin writes base64 as gRPC has it, without padding.
func encodeBin(p []byte) string { return base64.RawStdEncoding.EncodeToString(p) }
