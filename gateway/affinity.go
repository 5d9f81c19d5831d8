package gateway

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/gateway/upstream"
)

// draw is what draws a request to one endpoint of its backend: a key that is hashed, or
// the token that its caller was given there. The zero draw leads nowhere.
type draw struct {
	key    uint64
	keyed  bool
	bound  bool   // the backend has session affinity
	secure bool   // the caller speaks TLS
	token  string // as the caller has sent it; empty when it did not
}

// drawOf is what the backend looks at of a request; path is the method's, or the
// request's own.
func drawOf(b *upstream.Backend, path string, from *requester) (d draw) {
	if on := b.HashOn(); on != nil {
		value, has := path, on.Path
		switch {
		case on.Header != "":
			value, has = from.header.Get(on.Header)
		case on.ClientAddress:
			value = from.address()
			has = value != ""
		}
		if has {
			d.key, d.keyed = balance.Hash(value), true
		}
	}
	if a := b.Affinity(); a != nil {
		d.bound = true
		d.secure = from.session.proto.Value == "https"
		if a.Header != "" {
			d.token, _ = from.header.Get(a.Header)
		} else {
			d.token = cookieOf(from.hops, a.Cookie)
		}
	}
	return d
}

// cookieOf is the value of a cookie, empty when there is none. Over HTTP/2 the cookies of
// a request may come in several fields.
func cookieOf(h forwarding, name string) (value string) {
	h.Values("cookie", func(line string) {
		for pair := range strings.SplitSeq(line, ";") {
			if k, v, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && k == name && value == "" {
				value = strings.Trim(v, `"`)
			}
		}
	})
	return value
}

// leads tells whether there is anything to be drawn by.
func (d *draw) leads() bool { return d.keyed || d.bound }

// pick chooses an endpoint of the backend and counts on it, as Backend.Pick.
func (d *draw) pick(b *upstream.Backend, avoid balance.Mask) (*upstream.Endpoint, int) {
	if d.token != "" {
		if e, i := b.Stick(d.token, avoid); e != nil {
			return e, i
		}
	}
	return b.Pick(balance.Request{Avoid: avoid, Key: d.key, Keyed: d.keyed})
}

// binding is the field by which the caller finds back to the endpoint that has answered,
// if he does not know it already.
func (d *draw) binding(b *upstream.Backend, e *upstream.Endpoint) (name, value string, ok bool) {
	if !d.bound || e == nil {
		return "", "", false
	}
	token := b.Token(e)
	if token == "" || token == d.token {
		return "", "", false
	}
	a := b.Affinity()
	if a.Header != "" {
		return a.Header, token, true
	}
	value = a.Cookie + "=" + token + "; Path=/"
	if a.TTL > 0 {
		value += "; Max-Age=" + strconv.Itoa(int((a.TTL+time.Second-1)/time.Second))
	}
	if value += "; HttpOnly; SameSite=Lax"; d.secure {
		value += "; Secure"
	}
	return "set-cookie", value, true
}

// bind adds that field to the header of a response. The fields are not changed in place.
func (r *rpc) bind(fields []h2.Field) []h2.Field {
	if c := r.care; c != nil && r.cur != nil {
		if name, value, ok := c.draw.binding(r.backend, r.cur.endpoint); ok {
			return append(slices.Clip(fields), h2.LiteralField(name, value))
		}
	}
	return fields
}

// rebind moves what binds a caller of HTTP from the metadata of an answer to the header of
// the response: there it is looked for, whatever becomes of metadata.
func rebind(to, metadata http.Header, a *upstream.Affinity) {
	name, mine := http.CanonicalHeaderKey(a.Header), func(string) bool { return true }
	if a.Cookie != "" {
		name, mine = "Set-Cookie", func(v string) bool { return strings.HasPrefix(v, a.Cookie+"=") }
	}
	var rest []string
	for _, v := range metadata[name] {
		if mine(v) {
			to.Add(name, v)
		} else {
			rest = append(rest, v)
		}
	}
	if delete(metadata, name); rest != nil {
		metadata[name] = rest
	}
}
