package web

import (
	"bytes"
	"strings"
	"testing"

	"sluice/gateway/wire"
)

func TestAppendTrailersWritesOneFrame(t *testing.T) {
	for _, tc := range []struct {
		name  string
		pairs []string
		want  string // the frame's payload
	}{
		{"none", nil, ""},
		{"a status", []string{"grpc-status", "0"}, "grpc-status: 0\r\n"},
		{"in their order, names in lower case", []string{"Grpc-Status", "5", "GRPC-MESSAGE", "no such cart", "x-a-bin", "AAE"}, "grpc-status: 5\r\ngrpc-message: no such cart\r\nx-a-bin: AAE\r\n"},
		{"twice the same name", []string{"x-a", "1", "X-A", "2"}, "x-a: 1\r\nx-a: 2\r\n"},
		{"an empty value", []string{"grpc-message", ""}, "grpc-message: \r\n"},
		{"a colon in a value", []string{"x-a", "a: b"}, "x-a: a: b\r\n"},
		{"a value with line breaks", []string{"x-a", "1\r\ngrpc-status: 0\r\n"}, "x-a: 1  grpc-status: 0  \r\n"},
		{"a value with nul and delete", []string{"x-a", "1\x00\x7f\t2"}, "x-a: 1  \t2\r\n"},
		{"a name with a line break", []string{"x-a\r\ngrpc-status", "0", "x-b", "1"}, "x-b: 1\r\n"},
		{"a name with a colon", []string{":status", "200", "x: y", "1", "x-b", "1"}, "x-b: 1\r\n"},
		{"no name", []string{"", "1"}, ""},
		{"a name that is not ASCII", []string{"x-é", "1"}, ""},
		{"a name without value", []string{"grpc-status", "0", "x-a"}, "grpc-status: 0\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := AppendTrailers([]byte(">"), tc.pairs...)
			want := ">" + message(0x80, tc.want)
			if string(got) != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func FuzzAppendTrailers(f *testing.F) {
	f.Add("grpc-status", "0", "X-A", "b")
	f.Add("x\r\ny", "0", "x", "1\r\ngrpc-status: 0")
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string) {
		frame := AppendTrailers(nil, n1, v1, n2, v2)
		p, ok := wire.ParsePrefix(frame)
		if !ok || p.Flags != wire.FlagWebTrailers || int(p.Length) != len(frame)-wire.PrefixLen {
			t.Fatalf("not one frame: %q", frame)
		}
		lines := bytes.Split(frame[wire.PrefixLen:], []byte("\r\n"))
		if len(lines) > 3 || len(lines[len(lines)-1]) != 0 {
			t.Fatalf("%d lines for two fields: %q", len(lines)-1, frame)
		}
		for _, line := range lines[:len(lines)-1] {
			name, _, found := bytes.Cut(line, []byte(": "))
			if !found || len(name) == 0 || bytes.ContainsAny(line, "\r\n\x00") || strings.ToLower(string(name)) != string(name) {
				t.Fatalf("bad line %q", line)
			}
		}
	})
}

func TestAppendTrailersNeedsNoMemoryOfItsOwn(t *testing.T) {
	out := make([]byte, 0, 256)
	allocations := testing.AllocsPerRun(100, func() {
		out = AppendTrailers(out[:0], "Grpc-Status", "0", "grpc-message", "", "x-served-by", "cart-v1")
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}

func BenchmarkAppendTrailers(b *testing.B) {
	out := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		out = AppendTrailers(out[:0], "grpc-status", "0", "grpc-message", "")
	}
}
