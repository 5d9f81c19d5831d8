package h2

import (
	"hash/maphash"
	"strings"

	"sluice/gateway/wire"
)

// Field is one header field. Its strings are immutable and may be kept.
type Field struct {
	Name, Value string

	hash     uint32   // of name and value; 0 until an encoder asks
	indexing indexing // how the sender wrote it, and how we pass it on
	kind     kind     // what the field means to HTTP/2 itself
}

// indexing says what a field may leave behind in a compression table.
type indexing uint8

const (
	indexed      indexing = iota // sent from the table, or to be remembered there
	notIndexed                   // literal: changes from RPC to RPC
	neverIndexed                 // literal, at every hop (RFC 7541 section 7.1.3)
)

// Sensitive reports whether the field must never enter a compression table, here
// or at a later hop.
func (f Field) Sensitive() bool { return f.indexing == neverIndexed }

// Pseudo reports whether the field is one of HTTP/2's own, such as :path.
func (f *Field) Pseudo() bool { return f.kind.pseudo() }

// Hop reports whether the field speaks of one hop only, or is written anew at each:
// te, host, grpc-timeout.
func (f *Field) Hop() bool { return f.kind == kindTE || f.kind == kindHost || f.kind == kindTimeout }

// Forwarding reports whether the field claims to know where a request came from,
// under its own name or one that some server takes for it.
func (f *Field) Forwarding() bool { return f.kind == kindForwarding }

// BadBinary reports whether the field is a -bin one that is not base64, which gRPC
// forbids.
func (f *Field) BadBinary() bool { return f.kind == kindBadBinary }

// IndexedField makes a field that repeats from RPC to RPC.
func IndexedField(name, value string) Field {
	return Field{Name: name, Value: value, kind: classify(name, value), hash: fieldHash(name, value)}
}

// LiteralField makes a field whose value changes from RPC to RPC, and which
// would only push better ones out of the peer's table.
func LiteralField(name, value string) Field {
	return Field{Name: name, Value: value, kind: classify(name, value), indexing: notIndexed}
}

var hashSeed = maphash.MakeSeed()

// fieldHash is seeded per process, so that no peer can choose values that collide.
// It is never 0.
func fieldHash(name, value string) uint32 {
	h := maphash.String(hashSeed, name)*31 ^ maphash.String(hashSeed, value)
	return uint32(h>>32) | 1
}

// kind is found once per literal and kept with the table's entry: a field that
// arrives as an index has been checked before.
type kind uint8

const (
	kindPlain      kind = iota
	kindBad             // a name or value that RFC 9113 section 8.2.1 forbids
	kindConnection      // section 8.2.2: connection-specific, malformed in HTTP/2
	kindTE
	kindHost
	kindContentLength
	kindContentType
	kindTimeout    // grpc-timeout
	kindVolatile   // traceparent and the like: new for each RPC
	kindStatusGRPC // grpc-status
	kindForwarding // x-forwarded-for and its kin
	kindBadBinary  // a -bin field that is not base64: malformed in gRPC only

	kindPseudo // the first of the pseudo-fields; all below are
	kindMethod
	kindScheme
	kindAuthority
	kindPath
	kindStatus
)

func (k kind) pseudo() bool { return k >= kindPseudo }

// classify checks a field and says what it means to the engine.
func classify(name, value string) kind {
	if !validValue(value) {
		return kindBad
	}
	if strings.HasPrefix(name, ":") {
		return classifyPseudo(name, value)
	}
	if !validName(name) {
		return kindBad
	}
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return kindConnection
	case "te":
		if value != "trailers" { // the one value that section 8.2.2 leaves
			return kindConnection
		}
		return kindTE
	case "host":
		return kindHost
	case "content-length":
		return kindContentLength
	case "content-type":
		return kindContentType
	case "grpc-timeout":
		return kindTimeout
	case "grpc-status":
		return kindStatusGRPC
	case "forwarded", "x-real-ip":
		return kindForwarding
	case "traceparent", "tracestate", "x-request-id":
		return kindVolatile
	}
	if forwardingAlias(name) {
		return kindForwarding
	}
	if strings.HasSuffix(name, "-bin") && !wire.ValidBin(value) {
		return kindBadBinary
	}
	return kindPlain
}

// forwardingAlias knows x-forwarded-* however its dashes are written: many servers
// read an underscore as a dash.
func forwardingAlias(name string) bool {
	const prefix = "x-forwarded-"
	if len(name) < len(prefix) {
		return name == "x_real_ip" || name == "x-real_ip" || name == "x_real-ip"
	}
	for i := 0; i < len(prefix); i++ {
		if c := name[i]; c != prefix[i] && !(c == '_' && prefix[i] == '-') {
			return false
		}
	}
	return true
}

// classifyPseudo checks the values of pseudo-fields as well: x/net's Framer takes
// any. RFC 9113 section 8.3.
func classifyPseudo(name, value string) kind {
	ok, k := true, kindPseudo
	switch name {
	case ":method":
		ok, k = validToken(value), kindMethod
	case ":scheme":
		ok, k = value == "http" || value == "https", kindScheme
	case ":authority":
		ok, k = validAuthority(value), kindAuthority
	case ":path":
		ok, k = validPath(value), kindPath
	case ":status":
		ok, k = len(value) == 3 && '1' <= value[0] && value[0] <= '9' && digits(value[1:]), kindStatus
	}
	if !ok {
		return kindBad
	}
	return k
}

func digits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// validToken is RFC 9110's token; methods are case-sensitive.
func validToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !nameByte[c] && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}

// validPath wants an absolute path of visible ASCII without fragment, or the
// asterisk of OPTIONS.
func validPath(s string) bool {
	if s == "*" {
		return true
	}
	if s == "" || s[0] != '/' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// validAuthority refuses what an authority cannot hold, user information above all.
func validAuthority(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f:
			return false
		case c == '@' || c == '/' || c == '?' || c == '#' || c == '\\' || c == ',':
			return false
		}
	}
	return true
}

// validName reports whether name is a lower-case token, RFC 9110 section 5.6.2 and
// RFC 9113 section 8.2.1.
func validName(name string) bool {
	if name == "" {
		return false
	}
	for i := 0; i < len(name); i++ {
		if !nameByte[name[i]] {
			return false
		}
	}
	return true
}

// validValue refuses control characters other than tab, and white space at either
// end, RFC 9113 section 8.2.1.
func validValue(v string) bool {
	if v == "" {
		return true
	}
	if blank(v[0]) || blank(v[len(v)-1]) {
		return false
	}
	for i := 0; i < len(v); i++ {
		if c := v[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

var nameByte = func() (t [256]bool) {
	for c := 'a'; c <= 'z'; c++ {
		t[c] = true
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()
