package gateway

import (
	"net/http"
	"slices"
	"strings"

	"sluice/gateway/h2"
)

// hopFields concern one connection (RFC 9110, section 7.6.1), beside those that the
// connection field names.
var hopFields = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
}

// dropHopFields takes out of a header what concerns its own hop.
func dropHopFields(h http.Header) {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.TrimSpace(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopFields {
		h.Del(name)
	}
}

// dropFramingAliases takes out what some servers would read as a field that says where a
// request ends or what becomes of its connection: they take an underscore for a dash.
func dropFramingAliases(h http.Header) {
	for name := range h {
		if strings.IndexByte(name, '_') < 0 {
			continue
		}
		switch meant := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-")); {
		case meant == "Content-Length", slices.Contains(hopFields, meant):
			delete(h, name)
		}
	}
}

// listHas tells whether a field that is a list has an element, whatever its case.
func listHas(values []string, element string) bool {
	for _, list := range values {
		for one := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(one), element) {
				return true
			}
		}
	}
	return false
}

// forwardHTTP writes into a request's header what the gateway says of the hop, and
// takes out what it does not believe: as forward does for an RPC.
func (se *session) forwardHTTP(h http.Header, r *http.Request) {
	for name := range h {
		f := h2.IndexedField(strings.ToLower(name), "")
		if f.Forwarding() && !se.believes(&f) {
			delete(h, name)
		}
	}
	for _, f := range se.forwarded(nil, headerOf(r.Header), r.Host) {
		h.Add(f.Name, f.Value)
	}
	if hops := h["X-Forwarded-For"]; len(hops) > 1 {
		h["X-Forwarded-For"] = []string{strings.Join(hops, ", ")} // some look at one field only
	}
}

// address adds to a request for a backend what the gateway says of it, whoever made its
// header; caller is whose it is.
func (g *Gateway) address(out, caller *http.Request, to *target) {
	g.sessionOf(caller).forwardHTTP(out.Header, caller)
	if len(out.Header["User-Agent"]) == 0 {
		out.Header["User-Agent"] = []string{""} // else net/http would name itself
	}
	to.modify.requestHeader(out.Header)
	if host := out.Header.Get("Host"); host != "" {
		out.Host = host
	}
	out.Header.Del("Host")
}

// requestHeader changes the header of a plain request in place.
func (m *modifiers) requestHeader(h http.Header) {
	if m == nil {
		return
	}
	for i := range m.requests {
		c := &m.requests[i]
		for name := range h {
			// Some servers take an underscore for a dash.
			if strings.IndexByte(name, '_') >= 0 && c.drop[strings.ReplaceAll(strings.ToLower(name), "_", "-")] {
				delete(h, name)
			}
		}
		c.header(h)
	}
}

// responseHeader changes the header of a response to a plain request in place.
func (m *modifiers) responseHeader(h http.Header) {
	if m == nil {
		return
	}
	for i := range m.responses {
		m.responses[i].header(h)
	}
}

func (c *change) header(h http.Header) {
	for name := range c.drop {
		h.Del(name)
	}
	for i := range c.add {
		h.Add(c.add[i].Name, c.add[i].Value)
	}
}
