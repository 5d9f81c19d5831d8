package h2

import "sync"

// Sizes of the pieces that a queue is made of, bytes: a stalled stream of small
// messages should not hold a large piece, a bulk stream not many small ones.
const (
	smallPiece = 1 << 10
	largePiece = 16 << 10
)

var (
	smallPieces = sync.Pool{New: func() any { return &piece{buf: make([]byte, smallPiece)} }}
	largePieces = sync.Pool{New: func() any { return &piece{buf: make([]byte, largePiece)} }}
)

type piece struct {
	next       *piece
	buf        []byte
	start, end int
}

func (p *piece) free() {
	p.next, p.start, p.end = nil, 0, 0
	if len(p.buf) == smallPiece {
		smallPieces.Put(p)
	} else {
		largePieces.Put(p)
	}
}

// queue is DATA that waits, without the frames that it came in: a peer that
// sends single bytes does not make it longer than its window. The zero value is
// empty.
type queue struct {
	head, tail *piece
	size       int // bytes
}

func (q *queue) push(p []byte) {
	q.size += len(p)
	for len(p) > 0 {
		if q.tail == nil || q.tail.end == len(q.tail.buf) {
			q.grow(len(p))
		}
		n := copy(q.tail.buf[q.tail.end:], p)
		q.tail.end += n
		p = p[n:]
	}
}

func (q *queue) grow(n int) {
	pool := &largePieces
	if n <= smallPiece && q.tail == nil {
		pool = &smallPieces
	}
	p := pool.Get().(*piece)
	if q.tail == nil {
		q.head = p
	} else {
		q.tail.next = p
	}
	q.tail = p
}

// pop moves the first n bytes, which the queue holds, to the end of b.
func (q *queue) pop(b []byte, n int) []byte {
	q.size -= n
	for n > 0 {
		p := q.head
		m := min(n, p.end-p.start)
		b = append(b, p.buf[p.start:p.start+m]...)
		p.start += m
		n -= m
		if p.start == p.end {
			if q.head = p.next; q.head == nil {
				q.tail = nil
			}
			p.free()
		}
	}
	return b
}

// drop empties the queue and returns how many bytes it held.
func (q *queue) drop() int {
	n := q.size
	for p := q.head; p != nil; {
		next := p.next
		p.free()
		p = next
	}
	*q = queue{}
	return n
}
