package route

import (
	"errors"
	"slices"
	"strings"
)

// HTTPPath is the path of a request in the one form that is routed by and sent on.
// Hexadecimal digits are in upper case, what needs no escape has none, what needs
// one has it. The zero HTTPPath is no path.
type HTTPPath struct {
	text string
	// matched is what matches compare with: text, without the escapes that make no
	// difference to most servers (":" and the like).
	matched string
	// readings are what else a server may take the path for, in the form of matched:
	// one that decodes "%2F" before it looks for segments, or drops what follows a ";".
	readings []string
}

// String is the path as it is sent on.
func (p HTTPPath) String() string { return p.text }

// Why a path is refused: servers disagree on what it means, and so would the rule
// that it was let through by and the server that acts on it.
var (
	errNotAbsolute  = errors.New(`it does not begin with "/"`)
	errEscape       = errors.New(`two hexadecimal digits do not follow a "%"`)
	errNUL          = errors.New(`it has "%00"`)
	errControl      = errors.New("it has a control character")
	errBackslash    = errors.New(`it has a "\"`)
	errFragment     = errors.New(`it has a "#"`)
	errOverlong     = errors.New("it has an escape that is no UTF-8 but that some servers decode to ASCII")
	errEmptySegment = errors.New(`it has an empty segment ("//")`)
	errDotSegment   = errors.New(`it has "." or ".." as a segment`)
)

// plain are the bytes that stand for themselves in a path and mean the same to every
// server: what RFC 3986, section 3.3 allows, without ";".
var plain = byteSet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~" + "!$&'()*+,=" + ":@")

// unreserved are those of which an escape means the same (RFC 3986, section 2.3).
var unreserved = byteSet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

func byteSet(chars string) (set [256]bool) {
	for i := range len(chars) {
		set[chars[i]] = true
	}
	return set
}

// ParseHTTPPath brings the path of a request target, without the query, into its one
// form. It does not resolve what it does not like: a path with "..", "//" or the like
// is refused, since whoever sends one means another server than the one it goes to.
func ParseHTTPPath(raw string) (HTTPPath, error) {
	if raw == "" || raw[0] != '/' {
		return HTTPPath{}, errNotAbsolute
	}
	text, err := normalize(raw)
	if err != nil {
		return HTTPPath{}, err
	}
	if err := checkSegments(text, false); err != nil {
		return HTTPPath{}, err
	}
	p := HTTPPath{text: text, matched: text}
	if strings.IndexByte(text, '%') < 0 && strings.IndexByte(text, ';') < 0 {
		return p, nil
	}
	if overlong(text) {
		return HTTPPath{}, errOverlong
	}
	p.matched = unescape(text, func(c byte) bool { return plain[c] })
	if err := p.read(); err != nil {
		return HTTPPath{}, err
	}
	return p, nil
}

// normalize writes each byte in its one way. It returns raw itself when that is so.
func normalize(raw string) (string, error) {
	clean := 0
	for clean < len(raw) && (plain[raw[clean]] || raw[clean] == '/') {
		clean++
	}
	if clean == len(raw) {
		return raw, nil
	}
	out := make([]byte, clean, len(raw)+len(raw)/4)
	copy(out, raw)
	for i := clean; i < len(raw); i++ {
		c := raw[i]
		switch {
		case plain[c], c == '/', c == ';':
			out = append(out, c)
		case c == '%':
			v, ok := escaped(raw[i:])
			switch {
			case !ok:
				return "", errEscape
			case v == 0:
				return "", errNUL
			}
			if i += 2; unreserved[v] {
				out = append(out, v)
			} else {
				out = appendEscape(out, v)
			}
		case c < ' ', c == 0x7f:
			return "", errControl
		case c == '\\':
			return "", errBackslash
		case c == '#':
			return "", errFragment
		default:
			out = appendEscape(out, c)
		}
	}
	return string(out), nil
}

// overlong tells whether a normal path has an escape of 0xC0 or 0xC1, which begin no
// character of UTF-8, with another behind it: decoders that are lazy make ASCII of it.
func overlong(text string) bool {
	for i := 0; i+6 <= len(text); i++ {
		first, ok1 := escaped(text[i:])
		next, ok2 := escaped(text[i+3:])
		if ok1 && ok2 && first&0xfe == 0xc0 && next&0xc0 == 0x80 {
			return true
		}
	}
	return false
}

// escaped is the byte that an escape at the beginning of s stands for.
func escaped(s string) (v byte, ok bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	high, ok1 := hexDigit(s[1])
	low, ok2 := hexDigit(s[2])
	return high<<4 | low, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func appendEscape(b []byte, v byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(b, '%', digits[v>>4], digits[v&15])
}

// unescape decodes the escapes of some bytes in a text that normalize has written.
func unescape(s string, wanted func(c byte) bool) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if v, ok := escaped(s[i:]); ok && wanted(v) {
			out = append(out, v)
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

// checkSegments looks for segments that mean "here" and "up", and, unless merged, for
// empty ones. The last may be empty: "/a/" is another path than "/a".
func checkSegments(path string, merged bool) error {
	for rest := path[1:]; ; {
		segment, after, more := strings.Cut(rest, "/")
		switch {
		case segment == "." || segment == "..":
			return errDotSegment
		case segment == "" && more && !merged:
			return errEmptySegment
		case !more:
			return nil
		}
		rest = after
	}
}

// read fills in the readings.
func (p *HTTPPath) read() error {
	if !strings.Contains(p.text, "%2F") && !strings.Contains(p.text, "%5C") && !strings.Contains(p.text, "%3B") && strings.IndexByte(p.text, ';') < 0 {
		return nil
	}
	decoded := decodeSeparators(p.text)
	stripped := dropParameters(p.text)
	for _, text := range []string{decoded, stripped, decodeSeparators(stripped), dropParameters(decoded)} {
		if err := checkSegments(text, true); err != nil {
			return err
		}
		reading := unescape(mergeSlashes(text), func(c byte) bool { return plain[c] })
		if reading != p.matched && !slices.Contains(p.readings, reading) {
			p.readings = append(p.readings, reading)
		}
	}
	return nil
}

// decodeSeparators is how a server reads a path that decodes first; some take "\"
// for "/".
func decodeSeparators(s string) string {
	s = unescape(s, func(c byte) bool { return c == '/' || c == '\\' || c == ';' })
	return strings.ReplaceAll(s, `\`, "/")
}

// dropParameters is how a server reads a path that knows parameters of segments.
func dropParameters(s string) string {
	if strings.IndexByte(s, ';') < 0 {
		return s
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, ";")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		slash := strings.IndexByte(after, '/')
		if slash < 0 {
			return b.String()
		}
		s = after[slash:]
	}
}

func mergeSlashes(s string) string {
	for strings.Contains(s, "//") {
		s = strings.ReplaceAll(s, "//", "/")
	}
	return s
}

// behind is what follows the first n segments of the path, "" or from a slash on.
func (p HTTPPath) behind(n int) string {
	at := 0
	for ; n > 0; n-- {
		next := strings.IndexByte(p.text[at+1:], '/')
		if next < 0 {
			return ""
		}
		at += 1 + next
	}
	return p.text[at:]
}
