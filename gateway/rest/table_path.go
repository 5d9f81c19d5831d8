package rest

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"sluice/gateway/wire"
)

// A path is split at its slashes before anything is decoded, and every segment is
// decoded at most once. What somebody else might decode, fold or cut in another way
// (empty and dot segments, controls, bad escapes) matches nothing. So whoever decides
// by the path and whoever acts on it have read the same.

// plainInSegment are the bytes that stand for themselves in a segment: RFC 3986's
// pchar without "%".
var plainInSegment = func() (set [256]bool) {
	const marks = "-._~" + "!$&'()*+,;=" + ":@"
	for _, chars := range []string{
		"abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", marks,
	} {
		for i := range len(chars) {
			set[chars[i]] = true
		}
	}
	return set
}()

// tablePath is a path with the ends of its first segments. A segment beyond those that
// a template can have is only ever part of a "**".
type tablePath struct {
	raw  string
	ends [maxTemplateSegments]int // in raw, of each segment
	n    int                      // segments, of which the first maxTemplateSegments have ends
}

// read splits raw. The fault, empty for none, says why raw is no path to be matched.
func (p *tablePath) read(raw string) (fault string) {
	if raw == "" || raw[0] != '/' {
		return `it does not begin with "/"`
	}
	p.raw = raw
	if raw == "/" {
		return ""
	}
	for start := 1; ; {
		end := len(raw)
		if i := strings.IndexByte(raw[start:], '/'); i >= 0 {
			end = start + i
		}
		var seg pathSegment
		if fault := seg.read(raw[start:end]); fault != "" {
			return fault
		}
		if p.n < len(p.ends) {
			p.ends[p.n] = end
		}
		p.n++
		if end == len(raw) {
			return ""
		}
		start = end + 1
	}
}

// start is where segment i begins; that of the segment behind the last one is beyond
// the end of the path.
func (p *tablePath) start(i int) int {
	if i == 0 {
		return 1
	}
	return p.ends[i-1] + 1
}

func (p *tablePath) segment(i int) string { return p.raw[p.start(i):p.ends[i]] }

// span is the raw text of segments [from:to); to may be beyond those that have ends.
func (p *tablePath) span(from, to int) string {
	if from >= to {
		return ""
	}
	if to == p.n {
		return p.raw[p.start(from):]
	}
	return p.raw[p.start(from):p.ends[to-1]]
}

// cutVerb is the path without the custom verb that begins at the colon at raw[at]. It is
// false when what is left of the last segment is none.
func (p *tablePath) cutVerb(at int) (tablePath, bool) {
	cut := *p
	cut.raw = p.raw[:at]
	if p.n <= len(p.ends) {
		cut.ends[p.n-1] = at
	}
	var seg pathSegment
	return cut, seg.read(cut.raw[strings.LastIndexByte(cut.raw, '/')+1:]) == ""
}

// pathSegment reads one segment of a path.
type pathSegment struct{ escaped bool }

// read says what is wrong with a segment, "" for nothing.
func (s *pathSegment) read(raw string) (fault string) {
	if raw == "" {
		return "it has an empty segment"
	}
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case plainInSegment[c]:
		case c != '%':
			return fmt.Sprintf("the byte %q must be percent-encoded", c)
		case i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]):
			return `a "%" without two hexadecimal digits behind it`
		default:
			if c := unhex(raw[i+1])<<4 | unhex(raw[i+2]); c < ' ' || c == 0x7f {
				return fmt.Sprintf("it holds the control character %s", raw[i:i+3])
			}
			s.escaped = true
			i += 2
		}
	}
	if s.escaped {
		raw = decodeSegment(raw)
		if !utf8.ValidString(raw) {
			return "what is percent-encoded in it is not UTF-8"
		}
	}
	if holdsDotSegment(raw, s.escaped) {
		return `it has a segment "." or ".."`
	}
	return ""
}

// holdsDotSegment tells whether a decoded segment is "." or "..", or would have one
// between its slashes for somebody who decodes too early.
func holdsDotSegment(s string, escaped bool) bool {
	if s[0] != '.' && !escaped {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}

// decodeSegment decodes every escape; they are known to be good.
func decodeSegment(s string) string { return decodePath(s, false) }

// decodeSegments decodes several segments: every escape but that of the slash, which
// stays as it was written, so that segments can still be told apart. (http.proto: "The
// server side does the reverse decoding, except "%2F" and "%2f" are left unchanged.")
func decodeSegments(s string) string { return decodePath(s, true) }

func decodePath(s string, keepSlash bool) string {
	at := strings.IndexByte(s, '%')
	if at < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for ; at >= 0; at = strings.IndexByte(s, '%') {
		out = append(out, s[:at]...)
		c := unhex(s[at+1])<<4 | unhex(s[at+2])
		if keepSlash && c == '/' {
			out = append(out, s[at:at+3]...)
		} else {
			out = append(out, c)
		}
		s = s[at+3:]
	}
	return string(append(out, s...))
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}

// PathFault is what is wrong with a path, if anything: such a path matches nothing. It
// is nil for a path that can be read in one way only.
func PathFault(rawPath string) *wire.Status {
	var p tablePath
	fault := p.read(rawPath)
	if fault == "" {
		return nil
	}
	return refuse(violation{what: fmt.Sprintf("path %q: %s", clip(rawPath), fault)})
}
