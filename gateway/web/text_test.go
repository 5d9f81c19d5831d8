package web

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

// decodeIn gives text to a TextDecoder in pieces of the given size.
func decodeIn(text string, size int) ([]byte, error) {
	var d TextDecoder
	var out []byte
	var err error
	for len(text) > 0 {
		n := min(size, len(text))
		if out, err = d.Append(out, []byte(text[:n])); err != nil {
			return out, err
		}
		text = text[n:]
	}
	return out, d.End()
}

func TestTextDecoderTakesPaddingAtTheEndOfEveryQuantum(t *testing.T) {
	for _, tc := range []struct{ name, text, want, err string }{
		{"nothing", "", "", ""},
		{"whole quanta", "b25lb25l", "oneone", ""},
		{"padding at the end", "b25lbw==", "oneo", ""},
		{"one pad at the end", "b25lb24=", "oneon", ""},
		{"pieces, each padded", "bw==b24=b25lbw==b25l", "oon" + "one" + "o" + "one", ""},
		{"bits that nobody uses", "bx==", "o", ""},
		{"the whole alphabet", "+/+/", "\xfb\xff\xbf", ""},

		{"padding alone", "====", "", "padding at character 1"},
		{"padding after one character", "b25lb===", "one", "padding at character 6"},
		{"data after padding in a quantum", "bw=v", "", "data at character 4"},
		{"five pads", "bw===", "o", "padding at character 5"},
		{"a line break", "b25l\nb25l", "one", "byte 0x0a at character 5"},
		{"a carriage return in a quantum", "b2\r5", "", "byte 0x0d at character 3"},
		{"a blank", "b25 ", "", "byte 0x20 at character 4"},
		{"the alphabet of URLs", "b25lb2-_", "one", "byte 0x2d at character 7"},
		{"not ASCII", "b25l\xc3\xa9aa", "one", "byte 0xc3 at character 5"},
		{"nul", "\x00AAA", "", "byte 0x00 at character 1"},
		{"the end after one character", "b25lb", "one", "after 1 of them"},
		{"the end after two characters", "b25lbw", "one", "after 2 of them"},
		{"the end after a pad", "b25lbw=", "one", "after 3 of them"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for size := 1; size <= len(tc.text)+1; size++ {
				got, err := decodeIn(tc.text, size)
				if string(got) != tc.want || !tells(err, tc.err) {
					t.Fatalf("in pieces of %d: %q, %v; want %q, an error about %q", size, got, err, tc.want, tc.err)
				}
			}
		})
	}
}

func TestTextDecoderKeepsItsFault(t *testing.T) {
	var d TextDecoder
	_, first := d.Append(nil, []byte("b25l!"))
	out, again := d.Append(nil, []byte("b25l"))
	if first == nil || again != first || d.End() != first || len(out) != 0 {
		t.Errorf("a fault went away with what came after it: %q, %v, then %v", out, first, again)
	}
}

// Every way to cut a body into two pieces and encode each by itself, and every way
// to cut the text into two reads, decodes to the same body.
func TestTextDecoderReadsWhatAppendTextWrites(t *testing.T) {
	body := []byte("\x00\x00\x00\x00\x08 message")
	for cut := range len(body) + 1 {
		text := AppendText(AppendText([]byte(nil), body[:cut]), body[cut:])
		for read := 1; read <= len(text); read++ {
			var d TextDecoder
			got, err := d.Append(nil, text[:read])
			if err == nil {
				got, err = d.Append(got, text[read:])
			}
			if err != nil || d.End() != nil || !bytes.Equal(got, body) {
				t.Fatalf("cut at %d, read at %d: %q, %v", cut, read, got, err)
			}
		}
	}
}

// decodeQuanta is the decoder as a page would write it down, for comparison. The
// library's skips line breaks, and so must not see them.
func decodeQuanta(text string) ([]byte, bool) {
	var out []byte
	for ; len(text) >= 4; text = text[4:] {
		piece, err := base64.StdEncoding.DecodeString(text[:4])
		if err != nil || strings.ContainsAny(text[:4], "\r\n") {
			return out, false
		}
		out = append(out, piece...)
	}
	return out, text == ""
}

func FuzzTextDecoder(f *testing.F) {
	f.Add("AAAAAAUKA29uZQ==", uint8(1))
	f.Add("bw==b24=b25lbw==", uint8(2))
	f.Add("b25lb===", uint8(3))
	f.Add("b25l\nb25l", uint8(7))
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		want, ok := decodeQuanta(text)
		for _, size := range []int{1, int(size) + 1, len(text) + 1} {
			got, err := decodeIn(text, size)
			if (err == nil) != ok || !bytes.Equal(got, want) {
				t.Fatalf("in pieces of %d: %q, %v; want %q, accepted %v", size, got, err, want, ok)
			}
		}
	})
}

func TestTextNeedsNoMemoryOfItsOwn(t *testing.T) {
	body := bytes.Repeat([]byte("message"), 100)
	text := make([]byte, 0, 2*len(body))
	out := make([]byte, 0, 2*len(body))
	allocations := testing.AllocsPerRun(100, func() {
		text = AppendText(text[:0], body)
		var d TextDecoder
		out, _ = d.Append(out[:0], text[:333])
		out, _ = d.Append(out, text[333:])
	})
	if allocations != 0 || !bytes.Equal(out, body) {
		t.Errorf("%v allocations, same %v", allocations, bytes.Equal(out, body))
	}
}

func BenchmarkTextDecoder(b *testing.B) {
	for _, tc := range []struct {
		name string
		size int
	}{{"105 B", 105}, {"16 KiB", 16 << 10}} {
		b.Run(tc.name, func(b *testing.B) {
			text := AppendText(nil, bytes.Repeat([]byte{'x'}, tc.size))
			out := make([]byte, 0, len(text))
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				var d TextDecoder
				out, _ = d.Append(out[:0], text)
			}
		})
	}
}

func BenchmarkAppendText(b *testing.B) {
	body := bytes.Repeat([]byte{'x'}, 105)
	out := make([]byte, 0, 256)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		out = AppendText(out[:0], body)
	}
}
