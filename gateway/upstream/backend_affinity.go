package upstream

import (
	"crypto/sha256"
	"encoding/base64"
	"time"

	"sluice/gateway/balance"
)

// Affinity is by what the RPCs of one client find back to one endpoint: exactly one of
// Header and Cookie says by which name the token comes and goes.
type Affinity struct {
	Header string // in lower case
	Cookie string
	TTL    time.Duration // of the cookie; zero is as long as the browser runs
}

// tokens are the endpoints of a backend by what their clients know them by.
type tokens struct {
	affinity Affinity
	of       []string       // by index
	index    map[string]int // by token
	endpoint map[*Endpoint]int
}

func newTokens(b *Backend) *tokens {
	s := b.spec.Spec.LoadBalancing.SessionAffinity
	t := &tokens{
		affinity: Affinity{Header: s.Header, Cookie: s.Cookie, TTL: time.Duration(s.TTL)},
		of:       make([]string, len(b.Endpoints)),
		index:    make(map[string]int, len(b.Endpoints)),
		endpoint: make(map[*Endpoint]int, len(b.Endpoints)),
	}
	for i, e := range b.Endpoints {
		t.of[i] = tokenOf(b.Key, e.Address())
		t.index[t.of[i]] = i
		t.endpoint[e] = i
	}
	return t
}

// tokenOf does not say where the endpoint is, and is the same at every gateway. It
// protects nothing: whoever knows an address may have its token.
func tokenOf(backend, address string) string {
	sum := sha256.Sum256([]byte(backend + "\x00" + address))
	return base64.RawURLEncoding.EncodeToString(sum[:15])
}

// Affinity is nil when RPCs are not bound to endpoints.
func (b *Backend) Affinity() *Affinity {
	if b.tokens == nil {
		return nil
	}
	return &b.tokens.affinity
}

// Stick is Pick for an RPC that brings a token: it counts a stream on that endpoint, or
// returns nil when there is none of that token, or it is not to have RPCs now. Then Pick
// finds another, whose token goes back with the answer.
func (b *Backend) Stick(token string, avoid balance.Mask) (e *Endpoint, index int) {
	if b.tokens == nil {
		return nil, -1
	}
	i, known := b.tokens.index[token]
	if !known || !b.picker.Take(i, avoid) {
		return nil, -1
	}
	return b.Endpoints[i], i
}

// Token is what brings an RPC back to e by Stick; empty without session affinity.
func (b *Backend) Token(e *Endpoint) string {
	if b.tokens == nil {
		return ""
	}
	if i, ok := b.tokens.endpoint[e]; ok {
		return b.tokens.of[i]
	}
	return ""
}
