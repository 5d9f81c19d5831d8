package h2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// spliceLink is a relay between two sockets, driven by bytes that were made
// before, so that what is measured is the relay's own.
type spliceLink struct {
	client, backend net.Conn
	buf             []byte
}

func newSpliceLink(t testing.TB) *spliceLink {
	t.Helper()
	eng := NewEngine(Limits{TinyData: unlimited, SmallData: unlimited, Window: 1 << 20})
	ctx, cancel := context.WithCancel(context.Background())
	var ran sync.WaitGroup
	t.Cleanup(func() { cancel(); ran.Wait() })

	backend, up := transportSockets(t, false)
	rec := newRecorder()
	upstream := eng.NewClient(NewTransport(up, nil), rec, 0)
	ran.Go(func() { upstream.Run(ctx) })
	begin := appendSettings(nil, http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow})
	begin = appendWindowUpdate(begin, 0, maxWindow-defaultWindow)
	begin = appendSettingsAck(begin)
	backend.Write(begin)
	transportAwait(t, "the backend is ready", func() bool {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		return len(rec.events) > 0
	})

	client, down := transportSockets(t, false)
	downstream := eng.NewServer(NewTransport(down, nil), &splice{t: t, to: upstream}, time.Now())
	ran.Go(func() { downstream.Run(ctx) })
	begin = append([]byte(http2.ClientPreface), appendSettings(nil)...)
	begin = appendSettingsAck(begin)
	block := hpackBlock(splitFields(requestLines()...)...)
	begin = appendFrameHeader(begin, len(block), typeHeaders, flagEndHeaders, 1)
	client.Write(append(begin, block...))
	go io.Copy(io.Discard, client) // what is granted to the client

	l := &spliceLink{client: client, backend: backend, buf: make([]byte, 64<<10)}
	l.send(t, appendData(nil, 1, make([]byte, 300), false)) // all is set up when it arrives
	return l
}

// send has DATA frames go through, and waits for the last byte. Everything else
// that arrives at the backend has come before.
func (l *spliceLink) send(t testing.TB, frames []byte) {
	if _, err := l.client.Write(frames); err != nil {
		t.Fatal(err)
	}
	end := frames[len(frames)-1]
	for left := len(frames); left > 0; {
		n, err := l.backend.Read(l.buf)
		if err != nil {
			t.Fatal(err)
		}
		if left -= n; left <= 0 && l.buf[n-1] != end {
			left = 1 // greetings were among it
		}
	}
}

// dataFrames are n DATA frames, the last byte of which is found nowhere else.
func dataFrames(n, size int) []byte {
	var b []byte
	for range n {
		b = appendData(b, 1, make([]byte, size), false)
	}
	b[len(b)-1] = 0xee
	return b
}

// No frame of DATA costs an allocation on its way from socket to socket, whatever
// its size. What the race detector drops from pools is per wake-up.
func TestSpliceAllocatesNothingPerFrame(t *testing.T) {
	for _, tt := range []struct{ frames, size int }{{100, 1}, {100, 128}, {100, 300}, {15, 4000}} {
		t.Run(fmt.Sprintf("%d of %d bytes", tt.frames, tt.size), func(t *testing.T) {
			l := newSpliceLink(t)
			frames := dataFrames(tt.frames, tt.size)
			n := testing.AllocsPerRun(200, func() { l.send(t, frames) })
			if most := max(3, float64(tt.frames)/20); n > most {
				t.Errorf("%v allocations for %d frames, want none for a frame", n, tt.frames)
			}
		})
	}
}

func BenchmarkSpliceData(b *testing.B) {
	for _, size := range []int{16, 128, 1024, 16384} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l := newSpliceLink(b)
			n := max(1, 32<<10/(size+frameHeaderLen))
			frames := dataFrames(n, size)
			b.ReportAllocs()
			b.SetBytes(int64(n * size))
			for b.Loop() {
				l.send(b, frames)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/frame")
		})
	}
}

// BenchmarkParseFrames holds our parsing of frames in place beside x/net's Framer,
// over what a busy connection brings: DATA, and window updates among it.
func BenchmarkParseFrames(b *testing.B) {
	var in []byte
	frames := 0
	for i := 0; len(in) < readBufferSize-1000; i++ {
		in = appendData(in, uint32(2*(i%50)+1), make([]byte, 128), i%3 == 0)
		frames++
		if i%4 == 0 {
			in = appendWindowUpdate(in, 0, 1000)
			in = appendPing(in, true, [8]byte{})
			frames += 2
		}
	}
	perFrame := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*frames), "ns/frame")
	}
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(in)))
		for b.Loop() {
			bytes, n := 0, 0
			for p := in; len(p) >= frameHeaderLen; n++ {
				h := consumeFrameHeader(p)
				payload, _, ok := unpad(h, p[frameHeaderLen:frameHeaderLen+h.length])
				if !ok {
					b.Fatal("padding")
				}
				bytes += len(payload)
				p = p[frameHeaderLen+h.length:]
			}
			if n != frames || bytes == 0 {
				b.Fatalf("%d frames, want %d", n, frames)
			}
		}
		perFrame(b)
	})
	b.Run("x-net", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(in)))
		r := bytes.NewReader(nil)
		fr := http2.NewFramer(nil, r)
		fr.SetReuseFrames()
		for b.Loop() {
			r.Reset(in)
			n := 0
			for ; ; n++ {
				if _, err := fr.ReadFrame(); err != nil {
					break
				}
			}
			if n != frames {
				b.Fatalf("%d frames, want %d", n, frames)
			}
		}
		perFrame(b)
	})
}
