package h2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// Many blocks of one connection, of few fields that come again and again in every
// form there is, are read as x/net reads them. It is what finds faults of a decoder
// that recognises what it has seen.
func TestDecoderReadsBlocksLikeTheOracle(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var want []hpack.HeaderField
		oracle := hpack.NewDecoder(defaultTableSize, func(f hpack.HeaderField) { want = append(want, f) })
		ours := newDecoder()
		for range 200 {
			want = nil
			block := randomBlock(rng)
			if _, err := oracle.Write(block); err != nil {
				t.Fatalf("seed %d: x/net refuses %x: %v", seed, block, err)
			}
			if err := oracle.Close(); err != nil {
				t.Fatal(err)
			}
			got, large, err := ours.decode(nil, block, wide)
			if err != nil || large {
				t.Fatalf("seed %d: block %x: %v, large %v", seed, block, err, large)
			}
			if g := plainFields(got); fmt.Sprint(g) != fmt.Sprint(want) {
				t.Fatalf("seed %d: block %x: got %v, want %v", seed, block, g, want)
			}
			for i := range got {
				if k := classify(got[i].Name, got[i].Value); k != got[i].kind {
					t.Fatalf("seed %d: %v is taken for kind %d, want %d", seed, got[i], got[i].kind, k)
				}
			}
		}
	}
}

// randomBlock uses each literal form of RFC 7541 section 6.2, names by index and by
// themselves, Huffman or not, and now and then another size of the table.
func randomBlock(rng *rand.Rand) []byte {
	var b []byte
	if rng.IntN(10) == 0 {
		b = appendInt(b, 0x20, 5, uint32(rng.IntN(300)))
	}
	names := []string{":path", ":authority", "x-long-enough-name", "x", "authorization", "grpc-timeout"}
	for range 1 + rng.IntN(6) {
		name := names[rng.IntN(len(names))]
		value := fmt.Sprintf("/v%d", rng.IntN(3))
		if rng.IntN(8) == 0 {
			value = string(bytes.Repeat([]byte{'v'}, 100+rng.IntN(60)))
		}
		forms := []struct {
			pattern byte
			prefix  uint8
		}{{0x40, 6}, {0x00, 4}, {0x10, 4}}
		form := forms[rng.IntN(len(forms))]
		if i, ok := staticNames[name]; ok && rng.IntN(2) == 0 {
			b = appendInt(b, form.pattern, form.prefix, uint32(i))
		} else {
			b = appendString(append(b, form.pattern), name, rng.IntN(2) == 0)
		}
		b = appendString(b, value, rng.IntN(2) == 0)
	}
	return b
}
