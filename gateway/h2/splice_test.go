package h2

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// splice is the smallest relay there is: what comes on a stream of one
// connection goes out on a stream of another. It is acceptor of the one.
type splice struct {
	t     testing.TB
	to    *Conn
	lossy bool // the backend's connection may be gone

	mu    sync.Mutex // guards the fields below
	pairs []*splicedPair
}

// splicedPair is one RPC, and the sink of both its streams.
type splicedPair struct {
	down *Stream
	up   Stream
}

func (x *splice) AcceptStream(s *Stream, h *Head, end bool, b *Batch) {
	p := &splicedPair{down: s}
	s.Bind(p)
	x.mu.Lock()
	x.pairs = append(x.pairs, p)
	x.mu.Unlock()
	if err := x.to.Open(&p.up, &Opening{Fields: h.Fields, End: end, Sink: p, Source: s}, b); err != nil {
		if !x.lossy {
			x.t.Errorf("opening stream %d at the backend: %v", s.ID(), err)
		}
		s.Reset(http2.ErrCodeRefusedStream, b)
		return
	}
	s.SetSource(&p.up)
}

func (p *splicedPair) other(s *Stream) *Stream {
	if s == p.down {
		return &p.up
	}
	return p.down
}

func (p *splicedPair) Header(s *Stream, h *Head, end bool, b *Batch) {
	p.other(s).SendHeader(h.Fields, end, b)
}

func (p *splicedPair) Data(s *Stream, data []byte, end bool, b *Batch) {
	p.other(s).SendData(data, end, b)
}

func (p *splicedPair) Ended(s *Stream, e Ending, b *Batch) { p.other(s).Reset(e.Code, b) }

// newSplicedPeers returns the client of a relay and its backend, past the
// greetings.
func newSplicedPeers(t testing.TB, l Limits) (client, backend *peer) {
	t.Helper()
	eng := NewEngine(l)
	backend = newClientPeerOn(t, eng, newRecorder())
	backend.greet()
	ours, theirs := newMemoryConns(pipeRoom)
	client = newPeer(t, eng, theirs, newRecorder())
	client.run(eng.NewServer(NewTransport(ours, nil), &splice{t: t, to: backend.conn}, time.Now()))
	client.greet()
	return client, backend
}
