package h2

import (
	"errors"
	"fmt"

	"golang.org/x/net/http2/hpack"
)

// decoder is the inbound half of a connection's compression state, RFC 7541. The
// reader owns it. An indexed field costs a copy of its table entry: no string is
// made and nothing is checked twice. x/net's decoder is the oracle of
// FuzzDecoder.
type decoder struct {
	table  fieldTable
	recent []recentLiteral // made with the first one
	turn   uint8           // of recent, where the next one goes
}

// recentLiteral is a field that came outside the table, as it was written and as
// it was read. Some encoders never index :path, and send the same few bytes for
// each RPC.
type recentLiteral struct {
	raw   []byte
	field Field
}

const (
	recentLiterals = 4
	recentSize     = 128 // bytes of the longest that is remembered
)

func newDecoder() decoder { return decoder{table: fieldTable{max: defaultTableSize}} }

// headerBound is how much of a header section is kept.
type headerBound struct {
	bytes  int // sum of sizes as RFC 9113 section 6.5.2 counts them
	fields int
}

// bombFactor times the bound is where decoding stops being worth the CPU: the
// connection ends there, as in hyperium/h2.
const bombFactor = 4

var (
	errIndexZero    = errors.New("index 0")
	errTruncated    = errors.New("truncated")
	errIntOverflow  = errors.New("integer of more than 32 bits")
	errLateResize   = errors.New("table size update after a field")
	errHeaderBomb   = errors.New("header section of more than four times the limit")
	errStringLength = errors.New("string longer than its block")
)

// decode appends the fields of a whole header block to dst. Past the bound
// fields are decoded, because the table must stay in step, but not kept: large is
// then true. An error ends the connection with COMPRESSION_ERROR, errHeaderBomb
// with ENHANCE_YOUR_CALM.
func (d *decoder) decode(dst []Field, block []byte, bound headerBound) (fields []Field, large bool, err error) {
	size, count := 0, 0
	for resize := true; len(block) > 0; {
		var f Field
		var rest []byte
		switch b := block[0]; {
		case b&0x80 != 0: // 6.1 indexed
			var i uint32
			if i, rest, err = consumeInt(block, 7); err != nil {
				return dst, false, err
			}
			e, err := d.entry(i)
			if err != nil {
				return dst, false, err
			}
			f = *e
		case b&0xe0 == 0x20: // 6.3 table size update
			if !resize {
				return dst, false, errLateResize
			}
			var n uint32
			if n, block, err = consumeInt(block, 5); err != nil {
				return dst, false, err
			}
			if n > defaultTableSize {
				return dst, false, fmt.Errorf("table size of %d bytes, limit %d", n, defaultTableSize)
			}
			d.table.resize(n)
			continue
		default:
			if f, rest, err = d.literal(block); err != nil {
				return dst, false, err
			}
		}
		resize = false
		block = rest
		size += int(f.size())
		count++
		if size > bound.bytes || count > bound.fields {
			large = true
			if size > bombFactor*bound.bytes || count > bombFactor*bound.fields {
				return dst, true, errHeaderBomb
			}
			continue
		}
		dst = append(dst, f)
	}
	return dst, large, nil
}

// literal decodes section 6.2: with incremental indexing (01), without (0000) and
// never indexed (0001).
func (d *decoder) literal(block []byte) (f Field, rest []byte, err error) {
	for i := range d.recent {
		if r := &d.recent[i]; len(r.raw) > 0 && len(block) >= len(r.raw) && string(block[:len(r.raw)]) == string(r.raw) {
			return r.field, block[len(r.raw):], nil
		}
	}
	prefix := uint8(4)
	switch b := block[0]; {
	case b&0x40 != 0:
		prefix, f.indexing = 6, indexed
	case b&0x10 != 0:
		f.indexing = neverIndexed
	default:
		f.indexing = notIndexed
	}
	i, rest, err := consumeInt(block, prefix)
	if err != nil {
		return f, nil, err
	}
	if i > 0 {
		e, err := d.entry(i)
		if err != nil {
			return f, nil, err
		}
		f.Name = e.Name
	} else if f.Name, rest, err = consumeString(rest); err != nil {
		return f, nil, err
	}
	if f.Value, rest, err = consumeString(rest); err != nil {
		return f, nil, err
	}
	f.kind = classify(f.Name, f.Value)
	switch {
	case f.indexing == indexed:
		f.hash = fieldHash(f.Name, f.Value)
		d.table.insert(f)
	case f.kind == kindPath && i <= staticLen:
		f.hash = fieldHash(f.Name, f.Value)
		d.remember(block[:len(block)-len(rest)], f)
	case f.indexing == notIndexed && i <= staticLen:
		d.remember(block[:len(block)-len(rest)], f)
	}
	return f, rest, nil
}

// remember keeps a literal whose name is the static table's or its own: its bytes
// mean the same however the dynamic table moves.
func (d *decoder) remember(raw []byte, f Field) {
	if len(raw) > recentSize {
		return
	}
	if d.recent == nil {
		d.recent = make([]recentLiteral, recentLiterals)
	}
	r := &d.recent[d.turn%recentLiterals]
	d.turn++
	r.raw = append(r.raw[:0], raw...)
	r.field = f
}

func (d *decoder) entry(i uint32) (*Field, error) {
	switch {
	case i == 0:
		return nil, errIndexZero
	case i <= staticLen:
		return &staticTable[i], nil
	case i-staticLen <= uint32(d.table.len()):
		return d.table.at(int(i - staticLen)), nil
	}
	return nil, fmt.Errorf("index %d, table ends at %d", i, staticLen+d.table.len())
}

// consumeInt decodes an integer with an n-bit prefix, section 5.1.
func consumeInt(b []byte, n uint8) (v uint32, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, errTruncated
	}
	mask := uint32(1)<<n - 1
	v = uint32(b[0]) & mask
	b = b[1:]
	if v < mask {
		return v, b, nil
	}
	for shift := 0; len(b) > 0; shift += 7 {
		c := b[0]
		b = b[1:]
		if shift > 21 {
			return 0, nil, errIntOverflow
		}
		v += uint32(c&0x7f) << shift
		if c&0x80 == 0 {
			return v, b, nil
		}
	}
	return 0, nil, errTruncated
}

// consumeString decodes a string, section 5.2.
func consumeString(b []byte) (s string, rest []byte, err error) {
	if len(b) == 0 {
		return "", nil, errTruncated
	}
	huffman := b[0]&0x80 != 0
	n, b, err := consumeInt(b, 7)
	if err != nil {
		return "", nil, err
	}
	if uint64(n) > uint64(len(b)) {
		return "", nil, errStringLength
	}
	raw, rest := b[:n], b[n:]
	if !huffman {
		return string(raw), rest, nil
	}
	s, err = hpack.HuffmanDecodeToString(raw)
	return s, rest, err
}
