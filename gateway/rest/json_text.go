package rest

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxJSONDepth is how deep objects and arrays may lie in each other, in documents that
// are read and that are written: what other implementations of protobuf allow messages.
const maxJSONDepth = 100

// jsonText reads a JSON document (RFC 8259) value by value, strictly.
type jsonText struct {
	in      []byte
	pos     int
	depth   int
	scratch []byte // of the last string that had escapes
}

func (t *jsonText) fault(at int, format string, args ...any) *codecFault {
	return &codecFault{what: fmt.Sprintf(format, args...), at: at}
}

// next is the first byte of the next token, 0 at the end.
func (t *jsonText) next() byte {
	for t.pos < len(t.in) {
		switch c := t.in[t.pos]; c {
		case ' ', '\t', '\n', '\r':
			t.pos++
		default:
			return c
		}
	}
	return 0
}

// unexpected is the fault of the next token, which is not what was wanted.
func (t *jsonText) unexpected(want string) *codecFault {
	c := t.next()
	if t.pos >= len(t.in) {
		return t.fault(t.pos, "the document ends where %s is wanted", want)
	}
	found := ""
	switch c {
	case '"':
		found = "a string"
	case '{':
		found = "an object"
	case '[':
		found = "an array"
	case 't', 'f':
		found = "a boolean"
	case 'n':
		found = "null"
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		found = "a number"
	default:
		r, _ := utf8.DecodeRune(t.in[t.pos:])
		found = strconv.QuoteRune(r)
	}
	return t.fault(t.pos, "%s where %s is wanted", found, want)
}

// end wants nothing more.
func (t *jsonText) end() *codecFault {
	if t.next(); t.pos < len(t.in) {
		return t.fault(t.pos, "more text after the end of the document")
	}
	return nil
}

// open goes into an object or an array; close, with the same byte, leaves it.
func (t *jsonText) open(bracket byte, want string) *codecFault {
	if t.next() != bracket {
		return t.unexpected(want)
	}
	if t.depth++; t.depth > maxJSONDepth {
		return t.fault(t.pos, "nested deeper than %d levels", maxJSONDepth)
	}
	t.pos++
	return nil
}

// more tells whether another member of an object or element of an array follows, the
// first one or one behind a comma; else the bracket has been closed.
func (t *jsonText) more(bracket byte, first bool) (bool, *codecFault) {
	c := t.next()
	if c == bracket {
		t.pos++
		t.depth--
		return false, nil
	}
	if first {
		return true, nil
	}
	if c != ',' {
		return false, t.unexpected(`"," or ` + strconv.Quote(string(bracket)))
	}
	t.pos++
	return true, nil
}

// member reads a name and the colon behind it. The name is good until the next string
// is read.
func (t *jsonText) member() ([]byte, *codecFault) {
	if t.next() != '"' {
		return nil, t.unexpected("a name in quotes")
	}
	name, fault := t.string()
	if fault != nil {
		return nil, fault
	}
	if t.next() != ':' {
		return nil, t.unexpected(`":"`)
	}
	t.pos++
	return name, nil
}

// string reads a string, of which the quote is next. It is good until the next one.
func (t *jsonText) string() ([]byte, *codecFault) {
	start := t.pos + 1
	ascii := byte(0)
	for i := start; i < len(t.in); i++ {
		c := t.in[i]
		if c == '"' {
			t.pos = i + 1
			return t.checked(start, t.in[start:i], ascii)
		}
		if c == '\\' {
			return t.escaped(start, i, ascii)
		}
		if c < ' ' {
			return nil, t.fault(i, "the control character %#02x stands in a string without an escape", c)
		}
		ascii |= c
	}
	return nil, t.fault(start-1, "a string is not closed")
}

// checked refuses what is not UTF-8; ascii has no high bit when that cannot be.
func (t *jsonText) checked(start int, s []byte, ascii byte) ([]byte, *codecFault) {
	if ascii >= utf8.RuneSelf && !utf8.Valid(s) {
		return nil, t.fault(start-1, "a string is not UTF-8")
	}
	return s, nil
}

// escaped reads a string that begins at start and has its first escape at i.
func (t *jsonText) escaped(start, i int, ascii byte) ([]byte, *codecFault) {
	out := append(t.scratch[:0], t.in[start:i]...)
	for i < len(t.in) {
		c := t.in[i]
		switch {
		case c == '"':
			t.pos, t.scratch = i+1, out
			return t.checked(start, out, ascii)
		case c < ' ':
			return nil, t.fault(i, "the control character %#02x stands in a string without an escape", c)
		case c != '\\':
			out = append(out, c)
			ascii |= c
			i++
			continue
		}
		r, n := escapeOf(t.in[i:])
		if n == 0 {
			return nil, t.fault(i, "a bad escape in a string")
		}
		out = utf8.AppendRune(out, r)
		i += n
	}
	return nil, t.fault(start-1, "a string is not closed")
}

// escapeOf is the character of an escape and its length; 0 when it is bad.
func escapeOf(s []byte) (rune, int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	}
	r := hexEscape(s)
	switch {
	case r < 0:
		return 0, 0
	case !utf16.IsSurrogate(r):
		return r, 6
	}
	// A half of a pair alone is no character.
	if r = utf16.DecodeRune(r, hexEscape(s[6:])); r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

// hexEscape is the value of "\uXXXX", -1 for anything else.
func hexEscape(s []byte) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	r := rune(0)
	for _, c := range s[2:6] {
		if !isHex(c) {
			return -1
		}
		r = r<<4 | rune(unhex(c))
	}
	return r
}

// number reads a number's text.
func (t *jsonText) number() ([]byte, *codecFault) {
	start := t.pos
	n := numberLength(t.in[start:])
	if n == 0 || start+n < len(t.in) && isWord(t.in[start+n]) {
		return nil, t.fault(start, "a malformed number")
	}
	t.pos += n
	return t.in[start:t.pos], nil
}

// numberLength is how much of s is a number as RFC 8259, section 6 has it; 0 for none.
func numberLength(s []byte) int {
	i := 0
	digits := func() int {
		from := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		return i - from
	}
	if i < len(s) && s[i] == '-' {
		i++
	}
	if from := i; digits() == 0 || s[from] == '0' && i-from > 1 {
		return 0
	}
	if i < len(s) && s[i] == '.' {
		if i++; digits() == 0 {
			return 0
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		if i++; i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if digits() == 0 {
			return 0
		}
	}
	return i
}

// isWord tells whether c behind a literal makes it another word.
func isWord(c byte) bool {
	return c == '-' || c == '+' || c == '.' || c == '_' ||
		c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// literal takes a word when it is next.
func (t *jsonText) literal(word string) bool {
	t.next()
	rest := t.in[t.pos:]
	if len(rest) < len(word) || string(rest[:len(word)]) != word ||
		len(rest) > len(word) && isWord(rest[len(word)]) {
		return false
	}
	t.pos += len(word)
	return true
}

// skip reads over a value of any kind.
func (t *jsonText) skip() *codecFault {
	switch c := t.next(); c {
	case '{', '[':
		return t.skipNested(c)
	case '"':
		_, fault := t.string()
		return fault
	case 't', 'f', 'n':
		if t.literal("true") || t.literal("false") || t.literal("null") {
			return nil
		}
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		_, fault := t.number()
		return fault
	}
	return t.unexpected("a value")
}

func (t *jsonText) skipNested(bracket byte) *codecFault {
	closing := bracket + 2 // '{' and '}', '[' and ']' lie two apart
	if fault := t.open(bracket, "a value"); fault != nil {
		return fault
	}
	for first := true; ; first = false {
		more, fault := t.more(closing, first)
		if !more || fault != nil {
			return fault
		}
		if bracket == '{' {
			if _, fault := t.member(); fault != nil {
				return fault
			}
		}
		if fault := t.skip(); fault != nil {
			return fault
		}
	}
}

// integer is what the text of a JSON number says when that is an integer: the sign and
// the digits. "1e3", "1.0" and "100e-2" are integers.
func integer(s []byte) (negative bool, magnitude uint64, ok bool) {
	if len(s) > 0 && s[0] == '-' {
		negative, s = true, s[1:]
	}
	if len(s) < 19 { // no 18 digits pass 64 bits
		n := uint64(0)
		for i, c := range s {
			if c < '0' || c > '9' {
				n, ok := scientific(s, i)
				return negative, n, ok
			}
			n = n*10 + uint64(c-'0')
		}
		return negative, n, len(s) > 0
	}
	n, ok := scientific(s, 0)
	return negative, n, ok
}

// scientific is integer for all that is not a few digits. The first i bytes of s are
// known to be digits.
func scientific(s []byte, i int) (uint64, bool) {
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	whole, s := s[:i], s[i:]
	var fraction []byte
	if len(s) > 0 && s[0] == '.' {
		i := 1
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		fraction, s = s[1:i], s[i:]
	}
	for len(fraction) > 0 && fraction[len(fraction)-1] == '0' {
		fraction = fraction[:len(fraction)-1]
	}
	if len(whole) > 0 && whole[0] == '0' {
		whole = whole[1:]
	}
	if len(whole) == 0 && len(fraction) == 0 {
		return 0, true
	}
	exponent := 0
	if len(s) > 0 {
		n, err := strconv.ParseInt(string(s[1:]), 10, 32)
		if err != nil {
			return 0, false
		}
		exponent = int(n)
	}
	return shifted(whole, fraction, exponent)
}

// shifted is whole.fraction times ten to the exponent.
func shifted(whole, fraction []byte, exponent int) (uint64, bool) {
	if exponent < 0 {
		// Only zeros may be shifted out.
		if len(fraction) > 0 || len(whole)+exponent <= 0 {
			return 0, false
		}
		for _, c := range whole[len(whole)+exponent:] {
			if c != '0' {
				return 0, false
			}
		}
		return digits(0, whole[:len(whole)+exponent])
	}
	if len(fraction) > exponent || len(whole)+exponent > 20 {
		return 0, false
	}
	n, ok := digits(0, whole)
	if ok {
		n, ok = digits(n, fraction)
	}
	for range exponent - len(fraction) {
		if !ok {
			return 0, false
		}
		n, ok = digits(n, []byte{'0'})
	}
	return n, ok
}

// digits appends decimal digits to n; not ok when that passes 64 bits.
func digits(n uint64, s []byte) (uint64, bool) {
	for _, c := range s {
		d := uint64(c - '0')
		if n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// appendJSONString appends s in quotes; false when it is not UTF-8.
func appendJSONString(dst, s []byte) ([]byte, bool) {
	dst = append(dst, '"')
	from := 0
	high := byte(0)
	for i, c := range s {
		high |= c
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			const hex = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"'), high < utf8.RuneSelf || utf8.Valid(s)
}
