package web

import (
	"encoding/base64"
	"slices"
)

// TextDecoder decodes the body of a text request as it comes, however it is cut.
// Base64 is read in quanta of four characters, each of which may be padded:
// PROTOCOL-WEB lets a sender encode piece by piece and pad each piece. Anything
// else is refused, line breaks too. The zero value is ready.
type TextDecoder struct {
	quantum [4]byte
	have    int   // characters of quantum that have come
	read    int64 // characters before those, to say where something is wrong
	err     error // what was found; it does not go away
}

// Append appends what p decodes to. Its error is a *wire.Status; dst then has what
// came before the fault. It allocates nothing but what dst needs to grow.
func (d *TextDecoder) Append(dst, p []byte) ([]byte, error) {
	if d.err != nil {
		return dst, d.err
	}
	dst = slices.Grow(dst, (d.have+len(p))/4*3)
	for len(p) > 0 {
		if d.have == 0 {
			n := appendWhole(&dst, p)
			d.read += int64(n)
			p = p[n:]
		}
		n := copy(d.quantum[d.have:], p)
		d.have += n
		p = p[n:]
		if d.have < len(d.quantum) {
			// Garbage is known for what it is before its quantum is complete.
			d.err = d.checkPart()
			return dst, d.err
		}
		if dst, d.err = d.appendQuantum(dst); d.err != nil {
			return dst, d.err
		}
	}
	return dst, nil
}

// appendWhole decodes whole quanta without padding, of which nearly all text
// consists, and returns how many characters it took.
func appendWhole(dst *[]byte, p []byte) int {
	b, n := *dst, 0
	for ; n+4 <= len(p); n += 4 {
		q := p[n : n+4 : n+4]
		v := uint32(sextets[q[0]])<<18 | uint32(sextets[q[1]])<<12 | uint32(sextets[q[2]])<<6 | uint32(sextets[q[3]])
		if sextets[q[0]]|sextets[q[1]]|sextets[q[2]]|sextets[q[3]] > 63 {
			break
		}
		b = append(b, byte(v>>16), byte(v>>8), byte(v))
	}
	*dst = b
	return n
}

// appendQuantum decodes the one quantum that is not plain. Bits that it does not use
// may be anything, as everywhere in gRPC.
func (d *TextDecoder) appendQuantum(dst []byte) ([]byte, error) {
	if err := d.checkPart(); err != nil {
		return dst, err
	}
	q := d.quantum
	v := uint32(sextets[q[0]]&63)<<18 | uint32(sextets[q[1]]&63)<<12 | uint32(sextets[q[2]]&63)<<6 | uint32(sextets[q[3]]&63)
	switch {
	case q[2] == '=':
		dst = append(dst, byte(v>>16))
	case q[3] == '=':
		dst = append(dst, byte(v>>16), byte(v>>8))
	default:
		dst = append(dst, byte(v>>16), byte(v>>8), byte(v))
	}
	d.read += int64(len(q))
	d.have = 0
	return dst, nil
}

// checkPart judges the characters of the quantum that have come: two at least are
// data, and behind padding there is only padding.
func (d *TextDecoder) checkPart() error {
	for i, c := range d.quantum[:d.have] {
		at := d.read + int64(i) + 1
		switch {
		case c == '=' && i < 2:
			return fault("the text has padding at character %d, where a group of four has none", at)
		case c == '=':
		case sextets[c] > 63:
			return fault("the text has byte 0x%02x at character %d, which is not base64", c, at)
		case i == 3 && d.quantum[2] == '=':
			return fault("the text has data at character %d, after padding in a group of four", at)
		}
	}
	return nil
}

// End is what the end of the text means: an error when it is within a quantum.
func (d *TextDecoder) End() error {
	if d.err == nil && d.have > 0 {
		d.err = fault("the text ends within a group of four characters, after %d of them", d.have)
	}
	return d.err
}

// sextets are the values of the characters, above 63 for what is none.
var sextets = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	return t
}()

// AppendText appends p as text: one piece, padded at its end, which can be read as
// soon as it is there.
func AppendText(dst, p []byte) []byte { return base64.StdEncoding.AppendEncode(dst, p) }
