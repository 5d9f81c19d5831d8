package wire

import (
	"math"
	"testing"
)

func TestPrefixIsReadAsItWasWritten(t *testing.T) {
	for _, tc := range []struct {
		prefix Prefix
		wire   string
	}{
		{Prefix{}, "\x00\x00\x00\x00\x00"},
		{Prefix{FlagCompressed, 1}, "\x01\x00\x00\x00\x01"},
		{Prefix{0, 0x01020304}, "\x00\x01\x02\x03\x04"},
		{Prefix{FlagWebTrailers, math.MaxUint32}, "\x80\xff\xff\xff\xff"},
	} {
		if got := string(AppendPrefix(nil, tc.prefix)); got != tc.wire {
			t.Errorf("AppendPrefix(%+v) = %q, want %q", tc.prefix, got, tc.wire)
		}
		got, ok := ParsePrefix([]byte(tc.wire + "message"))
		if got != tc.prefix || !ok {
			t.Errorf("ParsePrefix(%q) = %+v, %v; want %+v", tc.wire, got, ok, tc.prefix)
		}
	}
}

func TestParsePrefixWaitsForFiveBytes(t *testing.T) {
	for n := range PrefixLen {
		if p, ok := ParsePrefix(make([]byte, n)); ok || p != (Prefix{}) {
			t.Errorf("ParsePrefix of %d bytes = %+v, %v; want nothing", n, p, ok)
		}
	}
}

func FuzzPrefix(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := ParsePrefix(b)
		if ok != (len(b) >= PrefixLen) {
			t.Fatalf("ParsePrefix of %d bytes is ok = %v", len(b), ok)
		}
		if ok && string(AppendPrefix(nil, p)) != string(b[:PrefixLen]) {
			t.Fatalf("prefix %x came back as %x", b[:PrefixLen], AppendPrefix(nil, p))
		}
	})
}
