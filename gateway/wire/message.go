package wire

import (
	"strings"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

// AppendMessage appends msg as the value of a grpc-message field: UTF-8, then
// percent-encoded. What is not UTF-8 becomes U+FFFD, for there are clients that
// fail the call when the decoded message is not text.
//
// PROTOCOL-HTTP2 leaves a space as it is; at either end it is encoded all the
// same, because RFC 9113, section 8.2.1 makes a field value malformed that starts
// or ends with one.
func AppendMessage(b []byte, msg string) []byte {
	for i := 0; i < len(msg); {
		c := msg[i]
		if plainInMessage(c) && (c != ' ' || i > 0 && i < len(msg)-1) {
			b = append(b, c)
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = appendEscape(b, c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(msg[i:])
		b = appendEscapedRune(b, r)
		i += size
	}
	return b
}

// plainInMessage tells the bytes that stand for themselves. PROTOCOL-HTTP2:
// "Percent-Byte-Unencoded → 1*( %x20-%x24 / %x26-%x7E ) ; space and VCHAR,
// except %".
func plainInMessage(c byte) bool { return c >= ' ' && c <= '~' && c != '%' }

func appendEscapedRune(b []byte, r rune) []byte {
	var raw [utf8.UTFMax]byte
	for _, c := range raw[:utf8.EncodeRune(raw[:], r)] {
		b = appendEscape(b, c)
	}
	return b
}

func appendEscape(b []byte, c byte) []byte {
	return append(b, '%', upperHex[c>>4], upperHex[c&15])
}

// DecodeMessage reads the value of a grpc-message field. It never fails: a "%"
// that starts no escape stands for itself, and what is not UTF-8 in the end is
// replaced by U+FFFD. The result is the peer's text and may hold control
// characters: quote it before it goes into a log, a page or a field. It allocates
// only when there is something to decode.
func DecodeMessage(s string) string {
	first := strings.IndexByte(s, '%')
	if first < 0 {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	var b strings.Builder
	b.Grow(len(s))
	b.WriteString(s[:first])
	for i := first; i < len(s); i++ {
		if c, ok := unescape(s[i:]); ok {
			b.WriteByte(c)
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}

// unescape reads the "%XX" that s may start with.
func unescape(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	hi, ok1 := hexDigit(s[1])
	lo, ok2 := hexDigit(s[2])
	return hi<<4 | lo, ok1 && ok2
}

// hexDigit takes both cases: PROTOCOL-HTTP2 writes upper case and wants
// recipients to be liberal.
func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
