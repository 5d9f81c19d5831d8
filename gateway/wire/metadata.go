package wire

import "strings"

// IsBin tells a field whose value is base64 from one whose value is text.
// PROTOCOL-HTTP2: "Binary-Header → {Header-Name "-bin"} {base64 encoded value}".
// The name is in lower case, as HTTP/2 has it.
func IsBin(name string) bool { return strings.HasSuffix(name, "-bin") }

// ValidBin tells whether the value of a "-bin" field can be decoded: base64 of
// the standard alphabet, with or without padding, or several of them joined by
// commas. PROTOCOL-HTTP2: implementations "MUST accept padded and un-padded
// values" and "must split Binary-Headers on "," before decoding". Nothing,
// which is the empty value, is valid; so are blanks around a comma, which HTTP
// libraries put there.
func ValidBin(value string) bool {
	for {
		item, rest, more := strings.Cut(value, ",")
		if !validBase64(strings.Trim(item, " \t")) {
			return false
		}
		if !more {
			return true
		}
		value = rest
	}
}

// validBase64 is true of whole quanta, the last one padded or not. Bits that the
// last quantum does not use may be anything: decoders drop them (RFC 4648,
// section 3.5, leaves it to them).
func validBase64(s string) bool {
	if len(s)%4 == 0 {
		s = strings.TrimSuffix(s, "=")
		s = strings.TrimSuffix(s, "=")
	}
	if len(s)%4 == 1 {
		return false
	}
	for i := range len(s) {
		if !isBase64(s[i]) {
			return false
		}
	}
	return true
}

func isBase64(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/'
}
