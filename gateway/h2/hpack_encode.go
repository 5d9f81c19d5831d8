package h2

import "golang.org/x/net/http2/hpack"

// encoder is the outbound half of a connection's compression state, RFC 7541. It
// belongs to the connection's output mutex. It finds a field by the hash that the
// decoder of the other hop computed once, when the field entered that hop's
// table, instead of hashing both strings for each RPC.
type encoder struct {
	table  fieldTable
	lowest uint32 // smallest capacity since the last block, section 4.2
	resize bool   // a capacity change has yet to be told to the peer
}

func newEncoder() encoder { return encoder{table: fieldTable{max: defaultTableSize}} }

// setMax obeys the peer's SETTINGS_HEADER_TABLE_SIZE, up to our own cap.
func (e *encoder) setMax(n uint32) {
	n = min(n, defaultTableSize)
	if n == e.table.max {
		return
	}
	if !e.resize || n < e.lowest {
		e.lowest = n
	}
	e.resize = true
	e.table.resize(n)
}

// begin starts a header block.
func (e *encoder) begin(b []byte) []byte {
	if !e.resize {
		return b
	}
	e.resize = false
	if e.lowest < e.table.max {
		b = appendInt(b, 0x20, 5, e.lowest)
	}
	return appendInt(b, 0x20, 5, e.table.max)
}

// field appends one field. A :path goes into the table even if its sender kept it
// out: methods are few, and every RPC names one.
func (e *encoder) field(b []byte, f *Field) []byte {
	switch {
	case f.indexing == neverIndexed:
		return e.literal(b, f, 0x10, 4)
	case f.indexing == notIndexed && f.kind != kindPath || f.kind == kindTimeout || f.kind == kindVolatile:
		return e.literal(b, f, 0x00, 4)
	}
	if f.hash == 0 {
		f.hash = fieldHash(f.Name, f.Value)
	}
	if i := staticPair(f); i != 0 {
		return append(b, 0x80|i)
	}
	// Newest first: what one client just sent it will send again.
	live := e.table.fields[e.table.first:]
	for i := len(live) - 1; i >= 0; i-- {
		if t := &live[i]; t.hash == f.hash && t.Name == f.Name && t.Value == f.Value {
			return appendInt(b, 0x80, 7, uint32(staticLen+len(live)-i))
		}
	}
	// A field that would take a quarter of the table is not worth the entries
	// that it pushes out.
	if f.size() > e.table.max/4 {
		return e.literal(b, f, 0x00, 4)
	}
	b = e.literal(b, f, 0x40, 6)
	e.table.insert(*f)
	return b
}

// literal appends section 6.2's forms; the name goes by index when it is one of
// the static table's.
func (e *encoder) literal(b []byte, f *Field, pattern byte, prefix uint8) []byte {
	if i, ok := staticNames[f.Name]; ok {
		b = appendInt(b, pattern, prefix, uint32(i))
	} else {
		b = append(b, pattern)
		b = appendString(b, f.Name, pattern == 0x40)
	}
	return appendString(b, f.Value, pattern == 0x40)
}

// appendInt encodes v with an n-bit prefix, section 5.1.
func appendInt(b []byte, pattern byte, n uint8, v uint32) []byte {
	mask := uint32(1)<<n - 1
	if v < mask {
		return append(b, pattern|byte(v))
	}
	b = append(b, pattern|byte(mask))
	for v -= mask; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// appendString encodes s, by Huffman when that is shorter and the string will
// stay in the table; a literal that is sent once is cheaper raw at both ends.
func appendString(b []byte, s string, keep bool) []byte {
	if keep {
		if n := hpack.HuffmanEncodeLength(s); n < uint64(len(s)) {
			b = appendInt(b, 0x80, 7, uint32(n))
			return hpack.AppendHuffmanString(b, s)
		}
	}
	b = appendInt(b, 0x00, 7, uint32(len(s)))
	return append(b, s...)
}
