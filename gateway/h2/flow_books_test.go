package h2

import (
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// books are a peer's view of what it lets us send.
type books struct {
	conn    int64
	initial int64
	streams map[uint32]*account
}

type account struct {
	window int64
	due    int // bytes that we were given to send
	got    int
	end    bool // END_STREAM has come
}

func flowBooks(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := greetedServer(t, Limits{WindowUpdates: 1 << 20, Settings: 1 << 20})
	k := &books{conn: defaultWindow, initial: defaultWindow, streams: make(map[uint32]*account)}
	for i := range 20 {
		id := uint32(2*i + 1)
		k.streams[id] = &account{window: defaultWindow}
		p.request(id, true)
	}
	const each = 300_000
	for {
		open := 0
		for id, a := range k.streams {
			if a.due < each {
				n := min(rng.IntN(50_000), each-a.due)
				a.due += n
				sendData(p.rec.stream(id), strings.Repeat("x", n), a.due == each)
			}
			if !a.end {
				open++
			}
		}
		if open == 0 {
			break
		}
		k.read(p)
		k.grant(p, rng)
		k.read(p)
	}
	for id, a := range k.streams {
		if a.got != each {
			t.Errorf("stream %d: %d of %d bytes came", id, a.got, each)
		}
	}
}

// read takes what was sent, and finds fault with what there was no window for.
func (k *books) read(p *peer) {
	p.t.Helper()
	for _, f := range p.skipFrames() {
		d, ok := f.(debugData)
		if !ok {
			continue // acknowledgements
		}
		a := k.streams[d.id]
		a.window -= int64(len(d.data))
		k.conn -= int64(len(d.data))
		if len(d.data) > 0 && (a.window < 0 || k.conn < 0) {
			p.t.Fatalf("stream %d: window %d, connection's %d after %d bytes", d.id, a.window, k.conn, len(d.data))
		}
		a.got += len(d.data)
		a.end = a.end || d.end
	}
	// All that may be sent has been.
	for id, a := range k.streams {
		if a.got < a.due && a.window > 0 && k.conn > 0 {
			p.t.Fatalf("stream %d: %d of %d bytes came, with %d of window and the connection's %d left", id, a.got, a.due, a.window, k.conn)
		}
	}
}

func (k *books) grant(p *peer, rng *rand.Rand) {
	if rng.IntN(4) == 0 {
		n := rng.Int64N(100_000)
		p.writeSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(n)})
		for _, a := range k.streams {
			a.window += n - k.initial
		}
		k.initial = n
	}
	for id, a := range k.streams {
		if n := rng.Uint32N(40_000); n > 0 && !a.end && rng.IntN(2) == 0 {
			p.writeWindowUpdate(id, n)
			a.window += int64(n)
		}
	}
	if n := rng.Uint32N(300_000); n > 0 {
		p.writeWindowUpdate(0, n)
		k.conn += int64(n)
	}
}
