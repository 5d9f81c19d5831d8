package h2

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// A queue is held against bytes.Buffer over random pushes, pops and drops.
func TestQueueIsABuffer(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var q queue
		var want bytes.Buffer
		next := byte(0)
		for range 300 {
			switch rng.IntN(20) {
			case 0:
				if n := q.drop(); n != want.Len() {
					t.Fatalf("seed %d: dropped %d bytes, want %d", seed, n, want.Len())
				}
				want.Reset()
			case 1, 2, 3, 4, 5, 6, 7, 8, 9:
				n := rng.IntN(want.Len() + 1)
				prefix := []byte("before")
				got := q.pop(bytes.Clone(prefix), n)
				if w := append(prefix, want.Next(n)...); !bytes.Equal(got, w) {
					t.Fatalf("seed %d: popped %d bytes %x, want %x", seed, n, got, w)
				}
			default:
				p := make([]byte, []int{0, 1, 5, rng.IntN(2000), rng.IntN(40_000)}[rng.IntN(5)])
				for i := range p {
					p[i] = next
					next++
				}
				q.push(p)
				want.Write(p)
				clear(p) // the queue has a copy
			}
			if q.size != want.Len() {
				t.Fatalf("seed %d: size %d, want %d", seed, q.size, want.Len())
			}
			if (q.head == nil) != (want.Len() == 0) || (q.tail == nil) != (q.head == nil) {
				t.Fatalf("seed %d: %d bytes with head %v and tail %v", seed, want.Len(), q.head, q.tail)
			}
		}
		q.drop()
	}
}

// What a queue holds is close to what is in it, however small the pieces came.
func TestQueueHoldsLittleMoreThanItsBytes(t *testing.T) {
	for _, tt := range []struct{ size, chunk, most int }{
		{1, 1, smallPiece},
		{smallPiece, 1, smallPiece},
		{smallPiece + 1, 1, smallPiece + largePiece},
		{64 << 10, 1, 64<<10 + smallPiece + largePiece},
		{64 << 10, 7, 64<<10 + smallPiece + largePiece},
		{64 << 10, 16 << 10, 64<<10 + largePiece},
	} {
		var q queue
		for left := tt.size; left > 0; left -= tt.chunk {
			q.push(make([]byte, min(left, tt.chunk)))
		}
		held := 0
		for p := q.head; p != nil; p = p.next {
			held += len(p.buf)
		}
		if held > tt.most {
			t.Errorf("%d bytes in chunks of %d are held in %d bytes, want at most %d", tt.size, tt.chunk, held, tt.most)
		}
		q.drop()
	}
}

func TestQueueReusesItsPieces(t *testing.T) {
	p, out := make([]byte, 4000), make([]byte, 0, 4000)
	// The average is rounded down: the race detector drops a part of what is pooled.
	if n := testing.AllocsPerRun(1000, func() {
		var q queue
		q.push(p)
		q.pop(out, len(p))
	}); n != 0 {
		t.Errorf("%v allocations for a push and a pop, want none", n)
	}
}
