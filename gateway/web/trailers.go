package web

import (
	"encoding/binary"

	"sluice/gateway/wire"
)

// AppendTrailers appends the frame that ends a response: name and value alternate
// in pairs. Names become lower case ("HTTP/2 … lower-case names", PROTOCOL-WEB).
//
// A field that could be read as two is a way to forge a status: a name that is no
// token is left out, and a line break in a value becomes a blank.
func AppendTrailers(dst []byte, pairs ...string) []byte {
	start := len(dst)
	dst = wire.AppendPrefix(dst, wire.Prefix{Flags: wire.FlagWebTrailers})
	for i := 0; i+1 < len(pairs); i += 2 {
		dst = appendField(dst, pairs[i], pairs[i+1])
	}
	length := len(dst) - start - wire.PrefixLen
	binary.BigEndian.PutUint32(dst[start+1:], uint32(length))
	return dst
}

func appendField(dst []byte, name, value string) []byte {
	start := len(dst)
	for i := range len(name) {
		c := tokenBytes[name[i]]
		if c == 0 {
			return dst[:start]
		}
		dst = append(dst, c)
	}
	if name == "" {
		return dst
	}
	dst = append(dst, ": "...)
	from := len(dst)
	dst = append(dst, value...)
	for i, c := range dst[from:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			dst[from+i] = ' '
		}
	}
	return append(dst, "\r\n"...)
}

// tokenBytes has, for each byte that a field name may have, that byte in lower case
// (RFC 9110, section 5.6.2).
var tokenBytes = func() (t [256]byte) {
	for c := byte('a'); c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = c, c
	}
	for c := byte('0'); c <= '9'; c++ {
		t[c] = c
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] = c
	}
	return t
}()
