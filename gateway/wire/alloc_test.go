package wire

import (
	"testing"
	"time"
)

// perRPC is what runs for each RPC, on values as they come from a client.
func perRPC(buf []byte) (func(), *int) {
	contentType, timeout, path, bin := "application/grpc+proto", "2000m", "/shop.v1.Cart/Add", "Zm9vYmFyYmF6,Zg"
	seen := 0
	count := func(ok bool) {
		if ok {
			seen++
		}
	}
	return func() {
		d, ok := ParseTimeout(timeout)
		count(ok)
		buf = AppendTimeout(buf[:0], d-3*time.Millisecond)
		count(IsGRPC(contentType))
		count(ValidPath(path))
		count(ValidBin(bin))
		code, ok := ParseStatus("0")
		count(ok)
		count(code.Label() == "OK")
		count(DecodeMessage("nothing to decode") != "")
		buf = AppendMessage(buf[:0], "no endpoint of \"cart\" is up: 100%")
		_, ok = ParsePrefix(AppendPrefix(buf[:0], Prefix{0, 105}))
		count(ok)
	}, &seen
}

func TestPerRPCWorkAllocatesNothing(t *testing.T) {
	work, seen := perRPC(make([]byte, 0, 128))
	if n := testing.AllocsPerRun(100, work); n != 0 {
		t.Errorf("%v allocations per RPC, want none", n)
	}
	if *seen == 0 || *seen%8 != 0 {
		t.Errorf("%d checks passed, want 8 per run", *seen)
	}
}

var (
	sinkDuration time.Duration
	sinkBool     bool
	sinkBytes    = make([]byte, 0, 64)
)

func BenchmarkParseTimeout(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		sinkDuration, sinkBool = ParseTimeout("1999874u")
	}
}

func BenchmarkAppendTimeout(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		sinkBytes = AppendTimeout(sinkBytes[:0], 1_999_874_321)
	}
}

func BenchmarkIsGRPC(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		sinkBool = IsGRPC("application/grpc+proto")
	}
}

func BenchmarkValidPath(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		sinkBool = ValidPath("/shop.v1.Cart/Add")
	}
}

func BenchmarkValidBin(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		sinkBool = ValidBin("CgdhYmNkZWZnEgNmb28aBGJhcnM")
	}
}
