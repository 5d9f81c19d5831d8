package h2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/net/http2"
)

// Every frame that we write is what x/net's Framer would have written.
func TestFramesAreThoseOfFramer(t *testing.T) {
	ping := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	settings := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1 << 30}, {ID: 0xffff, Val: 1<<32 - 1}}
	for _, tt := range []struct {
		name string
		ours func(b []byte) []byte
		want func(f *http2.Framer) error
	}{
		{
			"DATA", func(b []byte) []byte { return appendData(b, 7, []byte("payload"), false) },
			func(f *http2.Framer) error { return f.WriteData(7, false, []byte("payload")) },
		},
		{
			"last DATA", func(b []byte) []byte { return appendData(b, maxStreamID, nil, true) },
			func(f *http2.Framer) error { return f.WriteData(maxStreamID, true, nil) },
		},
		{
			"RST_STREAM", func(b []byte) []byte { return appendRSTStream(b, 9, http2.ErrCodeCancel) },
			func(f *http2.Framer) error { return f.WriteRSTStream(9, http2.ErrCodeCancel) },
		},
		{
			"WINDOW_UPDATE", func(b []byte) []byte { return appendWindowUpdate(b, 3, maxWindow) },
			func(f *http2.Framer) error { return f.WriteWindowUpdate(3, maxWindow) },
		},
		{
			"PING", func(b []byte) []byte { return appendPing(b, false, ping) },
			func(f *http2.Framer) error { return f.WritePing(false, ping) },
		},
		{
			"PING ack", func(b []byte) []byte { return appendPing(b, true, ping) },
			func(f *http2.Framer) error { return f.WritePing(true, ping) },
		},
		{
			"GOAWAY", func(b []byte) []byte { return appendGoAway(b, 11, http2.ErrCodeNo, "bye") },
			func(f *http2.Framer) error { return f.WriteGoAway(11, http2.ErrCodeNo, []byte("bye")) },
		},
		{
			"SETTINGS", func(b []byte) []byte { return appendSettings(b, settings...) },
			func(f *http2.Framer) error { return f.WriteSettings(settings...) },
		},
		{
			"SETTINGS ack", appendSettingsAck,
			func(f *http2.Framer) error { return f.WriteSettingsAck() },
		},
	} {
		var want bytes.Buffer
		if err := tt.want(http2.NewFramer(&want, nil)); err != nil {
			t.Fatal(err)
		}
		if got := tt.ours([]byte("before"))[len("before"):]; !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s: wrote %x, want %x", tt.name, got, want.Bytes())
		}
	}
}

func TestFrameHeaderIsReadAsWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		want := frameHeader{rng.Uint32N(1 << 24), uint8(rng.Uint32()), uint8(rng.Uint32()), rng.Uint32N(1 << 31)}
		b := appendFrameHeader(nil, int(want.length), want.typ, want.flags, want.id)
		b[5] |= 0x80 * byte(rng.IntN(2)) // the reserved bit
		if got := consumeFrameHeader(b); got != want {
			t.Fatalf("read %+v, want %+v", got, want)
		}
	}
}

// A header block is cut at every size into HEADERS and CONTINUATIONs that Framer
// puts together again.
func TestFrameHeadersAreCutToSize(t *testing.T) {
	const maxFrame = 10
	for size := range 45 {
		block := bytes.Repeat([]byte{0x82}, size)
		out := append([]byte("before"), make([]byte, frameHeaderLen)...)
		out = finishHeaders(append(out, block...), len("before"), 5, size%2 == 0, maxFrame)
		fr := http2.NewFramer(nil, bytes.NewReader(out[len("before"):]))
		var got []byte
		for first := true; ; first = false {
			f, err := fr.ReadFrame()
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if f.Header().StreamID != 5 || f.Header().Length > maxFrame {
				t.Fatalf("%d bytes: frame %v", size, f)
			}
			end := false
			switch f := f.(type) {
			case *http2.HeadersFrame:
				got, end = append(got, f.HeaderBlockFragment()...), f.HeadersEnded()
				if !first || f.StreamEnded() != (size%2 == 0) {
					t.Fatalf("%d bytes: frame %v", size, f)
				}
			case *http2.ContinuationFrame:
				got, end = append(got, f.HeaderBlockFragment()...), f.HeadersEnded()
			}
			if end {
				break
			}
		}
		if !bytes.Equal(got, block) {
			t.Errorf("%d bytes: %d came", size, len(got))
		}
	}
}

func TestFrameIsUnpadded(t *testing.T) {
	for _, tt := range []struct {
		payload string
		want    string
		padding int
		ok      bool
	}{
		{"", "", 0, false},
		{"\x00", "", 1, true},
		{"\x01", "", 0, false},
		{"\x00abc", "abc", 1, true},
		{"\x02abcd", "ab", 3, true},
		{"\x04abcd", "", 5, true},
		{"\x05abcd", "", 0, false},
	} {
		got, padding, ok := unpad(frameHeader{flags: flagPadded}, []byte(tt.payload))
		if string(got) != tt.want || padding != tt.padding || ok != tt.ok {
			t.Errorf("unpad(%q) = %q, %d, %v; want %q, %d, %v", tt.payload, got, padding, ok, tt.want, tt.padding, tt.ok)
		}
	}
	if got, padding, ok := unpad(frameHeader{}, []byte("\x09abc")); string(got) != "\x09abc" || padding != 0 || !ok {
		t.Errorf("a frame without padding is changed to %q", got)
	}
}

func TestEndingsAndReasonsHaveNames(t *testing.T) {
	for how := PeerReset; how <= DrainEnded; how++ {
		if how.String() == "" {
			t.Errorf("manner %d has no name", how)
		}
	}
	for r := ReasonNone; r < numReasons; r++ {
		if r.String() == "" {
			t.Errorf("reason %d has no name", r)
		}
	}
	if got, want := fmt.Sprint(Downstream, Upstream), "downstream upstream"; got != want {
		t.Errorf("sides are %q, want %q", got, want)
	}
}
