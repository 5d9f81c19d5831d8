package web

import (
	"errors"
	"strings"
	"testing"

	"sluice/gateway/wire"
)

// message is one as a request has it.
func message(flags byte, payload string) string {
	return string(wire.AppendPrefix(nil, wire.Prefix{Flags: flags, Length: uint32(len(payload))})) + payload
}

// checkIn gives body to RequestFrames in pieces of the given size.
func checkIn(body string, size int) error {
	var f RequestFrames
	for len(body) > 0 {
		n := min(size, len(body))
		if err := f.Check([]byte(body[:n])); err != nil {
			return err
		}
		body = body[n:]
	}
	return f.End()
}

func TestRequestFramesRefuseWhatARequestCannotHold(t *testing.T) {
	small, empty := message(0, "one"), message(0, "")
	for _, tc := range []struct{ name, body, want string }{
		{"nothing", "", ""},
		{"one message", small, ""},
		{"an empty message", empty, ""},
		{"several, one compressed", small + empty + message(1, "two") + small, ""},
		{"trailers", small + message(0x80, "grpc-status: 0\r\n"), "trailers (flags 0x80)"},
		{"compressed trailers", message(0x81, "x"), "trailers (flags 0x81)"},
		{"an unknown flag", message(2, "x"), "flags 0x02"},
		{"an unknown flag beside a known one", small + message(0x41, "x"), "flags 0x41"},
		{"only a flag, and a wrong one", small + "\x80", "trailers (flags 0x80)"},
		{"the end within a prefix", small + "\x00\x00", "within the prefix of a message, after 2 of 5 bytes"},
		{"the end within a message", small[:len(small)-2], "2 bytes before its message does"},
		{"the end of a promise of 4 GiB", "\x00\xff\xff\xff\xff", "4294967295 bytes before"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for size := 1; size <= len(tc.body)+1; size++ {
				err := checkIn(tc.body, size)
				if !tells(err, tc.want) {
					t.Fatalf("in pieces of %d: %v, want an error about %q", size, err, tc.want)
				}
			}
		})
	}
}

// tells reports whether err says want to a caller, and is none when want is empty.
func tells(err error, want string) bool {
	if want == "" {
		return err == nil
	}
	var st *wire.Status
	return errors.As(err, &st) && st.Code == wire.InvalidArgument && st.Gateway &&
		strings.HasPrefix(st.Message, "sluice: gRPC-Web: ") && strings.Contains(st.Message, want)
}

func TestRequestFramesKeepTheirFault(t *testing.T) {
	var f RequestFrames
	first := f.Check([]byte{0x80})
	if first == nil || f.Check([]byte(message(0, "x"))) != first || f.End() != first {
		t.Errorf("a fault went away with what came after it")
	}
}

// judgeFrames is what RequestFrames decides, of a body that is there as a whole.
func judgeFrames(body []byte) bool {
	for len(body) > 0 {
		p, ok := wire.ParsePrefix(body)
		if !ok || p.Flags > 1 || uint64(len(body)-wire.PrefixLen) < uint64(p.Length) {
			return false
		}
		body = body[wire.PrefixLen+int(p.Length):]
	}
	return true
}

func FuzzRequestFrames(f *testing.F) {
	f.Add([]byte(message(0, "one")+message(1, "two")), uint8(3))
	f.Add([]byte(message(0, "one")+message(0x80, "grpc-status: 0\r\n")), uint8(1))
	f.Add([]byte("\x00\xff\xff\xff\xffx"), uint8(0))
	f.Fuzz(func(t *testing.T, body []byte, size uint8) {
		want := judgeFrames(body)
		for _, size := range []int{1, int(size) + 1, len(body) + 1} {
			if err := checkIn(string(body), size); (err == nil) != want {
				t.Fatalf("in pieces of %d: %v, want accepted %v", size, err, want)
			}
		}
	})
}

func BenchmarkRequestFrames(b *testing.B) {
	body := []byte(strings.Repeat(message(0, strings.Repeat("x", 105)), 100))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var f RequestFrames
		if err := f.Check(body); err != nil {
			b.Fatal(err)
		}
	}
}
