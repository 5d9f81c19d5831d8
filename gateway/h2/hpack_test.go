package h2

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/net/http2/hpack"
)

var wide = headerBound{bytes: 1 << 20, fields: 1 << 16}

func plainFields(fs []Field) (out []hpack.HeaderField) {
	for _, f := range fs {
		out = append(out, hpack.HeaderField{Name: f.Name, Value: f.Value, Sensitive: f.Sensitive()})
	}
	return out
}

// leadingUpdates counts the updates of the table's size that a block begins with.
func leadingUpdates(block []byte) (n int) {
	for len(block) > 0 && block[0]&0xe0 == 0x20 {
		more := block[0]&0x1f == 0x1f
		for block = block[1:]; more && len(block) > 0; block = block[1:] {
			more = block[0]&0x80 != 0
		}
		n++
	}
	return n
}

// FuzzDecoder holds our decoder against x/net's over several blocks of one
// connection: same fields, same verdict.
func FuzzDecoder(f *testing.F) {
	var seed bytes.Buffer
	enc := hpack.NewEncoder(&seed)
	for i := range 3 {
		enc.WriteField(hpack.HeaderField{Name: ":path", Value: fmt.Sprintf("/shop.v1.Cart/M%d", i)})
		enc.WriteField(hpack.HeaderField{Name: "authorization", Value: "Bearer x", Sensitive: true})
	}
	f.Add(seed.Bytes(), []byte{0x82, 0x86, 0x84})
	f.Add([]byte{0x20, 0x3f, 0xe1, 0x1f, 0x82}, []byte{0xbe, 0x40, 1, 'a', 1, 'b'})
	f.Add([]byte{0x40, 1, 'a', 1, 'b'}, []byte{0x3f, 0x30, 0x30})
	f.Add([]byte{0x00, 0x81, 0xff, 0x00}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var want []hpack.HeaderField
		oracle := hpack.NewDecoder(defaultTableSize, func(f hpack.HeaderField) { want = append(want, f) })
		ours := newDecoder()
		for _, block := range [][]byte{a, b} {
			want = nil
			_, werr := oracle.Write(block)
			if werr == nil {
				werr = oracle.Close()
			}
			got, large, err := ours.decode(nil, block, wide)
			if large {
				return
			}
			// x/net lets an empty table be resized late, and integers run to 63 bits.
			if err == errLateResize || err == errIntOverflow {
				return
			}
			// It takes the second of several updates at the beginning for a late one,
			// which RFC 7541 section 4.2 allows.
			if err == nil && werr != nil && leadingUpdates(block) > 1 {
				return
			}
			if (err == nil) != (werr == nil) {
				t.Fatalf("block %x: error %v, x/net says %v", block, err, werr)
			}
			if err != nil {
				return
			}
			if g := plainFields(got); fmt.Sprint(g) != fmt.Sprint(want) {
				t.Fatalf("block %x: got %v, want %v", block, g, want)
			}
		}
	})
}

// FuzzEncoder sends what a fuzzed decoder made through our encoder to x/net's
// decoder, with changes of the table's size between blocks.
func FuzzEncoder(f *testing.F) {
	f.Add([]byte{0x82, 0x86, 0x84, 0x40, 1, 'a', 1, 'b', 0x10, 1, 'c', 1, 'd', 0, 1, 'e', 1, 'f'}, uint16(4096), uint16(64))
	f.Add([]byte{0x40, 1, 'a', 1, 'b', 0x40, 1, 'a', 1, 'c', 0xbe, 0xbf}, uint16(70), uint16(0))
	f.Fuzz(func(t *testing.T, block []byte, size1, size2 uint16) {
		dec := newDecoder()
		fields, large, err := dec.decode(nil, block, wide)
		if err != nil || large {
			return
		}
		enc := newEncoder()
		var got []hpack.HeaderField
		oracle := hpack.NewDecoder(defaultTableSize, func(f hpack.HeaderField) { got = append(got, f) })
		for _, size := range []uint32{4096, uint32(size1), uint32(size2), 4096} {
			oracle.SetAllowedMaxDynamicTableSize(max(size, 4096))
			enc.setMax(size)
			for range 2 {
				got = nil
				b := enc.begin(nil)
				for i := range fields {
					b = enc.field(b, &fields[i])
				}
				if _, err := oracle.Write(b); err != nil {
					t.Fatalf("x/net refuses our block %x: %v", b, err)
				}
				if err := oracle.Close(); err != nil {
					t.Fatal(err)
				}
				if want := plainFields(fields); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("got %v, want %v", got, want)
				}
				if enc.table.size > min(size, defaultTableSize) {
					t.Fatalf("encoder table of %d bytes, peer allows %d", enc.table.size, size)
				}
			}
		}
	})
}

func TestDecoderBoundsWhatItKeeps(t *testing.T) {
	// One entry of 1 KiB, then indexed references to it.
	enc := hpackBlock(hpack.HeaderField{Name: "x-bomb", Value: string(bytes.Repeat([]byte{'v'}, 1000))})
	for _, tt := range []struct {
		name  string
		refs  int
		large bool
		err   error
		kept  int
	}{
		{"within", 14, false, nil, 15},
		{"over is decoded and not kept", 40, true, nil, 15},
		{"far over ends the connection", 70, true, errHeaderBomb, 15},
	} {
		d := newDecoder()
		block := append(append([]byte(nil), enc...), bytes.Repeat([]byte{0xbe}, tt.refs)...)
		fs, large, err := d.decode(nil, block, headerBound{bytes: 16 << 10, fields: 100})
		if large != tt.large || err != tt.err || len(fs) != tt.kept {
			t.Errorf("%s: %d fields kept, large %v, err %v; want %d, %v, %v", tt.name, len(fs), large, err, tt.kept, tt.large, tt.err)
		}
	}
}

func TestEncoderTableIsCappedWhateverThePeerOffers(t *testing.T) {
	e := newEncoder()
	e.setMax(1<<32 - 1)
	for i := range 100_000 {
		f := IndexedField("x-distinct", fmt.Sprint(i))
		e.field(nil, &f)
	}
	if e.table.size > defaultTableSize {
		t.Errorf("table of %d bytes, cap %d", e.table.size, defaultTableSize)
	}
	if n := cap(e.table.fields); n > 512 {
		t.Errorf("backing array of %d entries for a table of at most 128", n)
	}
}

func hpackBlock(fs ...hpack.HeaderField) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range fs {
		e.WriteField(f)
	}
	return b.Bytes()
}

var typicalRequest = []hpack.HeaderField{
	{Name: ":method", Value: "POST"},
	{Name: ":scheme", Value: "http"},
	{Name: ":path", Value: "/shop.v1.Cart/Get"},
	{Name: ":authority", Value: "shop.example.com"},
	{Name: "content-type", Value: "application/grpc"},
	{Name: "user-agent", Value: "grpc-go/1.85.0"},
	{Name: "te", Value: "trailers"},
}

func BenchmarkRecode(b *testing.B) {
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	write := func() []byte {
		buf.Reset()
		for _, f := range typicalRequest {
			enc.WriteField(f)
		}
		return bytes.Clone(buf.Bytes())
	}
	first, block := write(), write()
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		d, e := newDecoder(), newEncoder()
		fs, _, _ := d.decode(nil, first, wide)
		var out []byte
		for b.Loop() {
			fs, _, _ = d.decode(fs[:0], block, wide)
			out = e.begin(out[:0])
			for i := range fs {
				out = e.field(out, &fs[i])
			}
		}
	})
	b.Run("x-net", func(b *testing.B) {
		b.ReportAllocs()
		var out bytes.Buffer
		e := hpack.NewEncoder(&out)
		d := hpack.NewDecoder(4096, func(f hpack.HeaderField) { e.WriteField(f) })
		d.Write(first)
		for b.Loop() {
			out.Reset()
			d.Write(block)
		}
	})
}
