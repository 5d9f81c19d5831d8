package store

import (
	"cmp"
	"math/bits"
	"slices"
)

// space is how many hashes there are to share out.
const space = 1 << 32

// piece is a part of the space, of one backend or, when that is "", of nobody.
type piece struct {
	start, end uint64
	backend    string
}

func (p piece) len() uint64 { return p.end - p.start }

// plainSides are the sides that weights mean, in the order of the backends.
func plainSides(shares []Share) []Side {
	var total uint64
	for _, s := range shares {
		total += uint64(s.Weight)
	}
	if total == 0 {
		return nil
	}
	var sides []Side
	var sum uint64
	for _, s := range shares {
		if s.Weight == 0 {
			continue
		}
		sum += uint64(s.Weight)
		high, low := bits.Mul64(sum, space)
		low, carry := bits.Add64(low, total-1, 0) // rounded up
		end, _ := bits.Div64(high+carry, low, total)
		sides = append(sides, Side{End: end, Backend: s.Backend})
	}
	return mergeSides(sides)
}

// mergeSides puts neighbours of one backend together, and drops what is empty.
func mergeSides(sides []Side) []Side {
	merged := sides[:0:0]
	var start uint64
	for _, s := range sides {
		switch {
		case s.End == start:
		case len(merged) > 0 && merged[len(merged)-1].Backend == s.Backend:
			merged[len(merged)-1].End = s.End
		default:
			merged = append(merged, s)
		}
		start = s.End
	}
	return merged
}

// moveSides changes sides so that each backend has what its weight means. No hash
// moves that need not: a backend that gets more keeps all it has, and one that gets
// less gains nothing. Without sides to begin with they are the plain ones.
func moveSides(sides []Side, shares []Share) []Side {
	plain := plainSides(shares)
	if len(sides) == 0 || len(plain) == 0 {
		return plain
	}
	m := newMove(sides, plain)
	for _, backend := range m.owners {
		m.take(backend)
	}
	m.join()
	m.give(m.neighbour)
	m.give(m.anyone)
	out := make([]Side, len(m.pieces))
	for i, p := range m.pieces {
		out[i] = Side{End: p.end, Backend: p.backend}
	}
	return mergeSides(out)
}

// move is the state of moveSides.
type move struct {
	pieces  []piece
	owners  []string         // of pieces and of plain ones, in their order
	surplus map[string]int64 // what an owner has too much; negative when too little
}

func newMove(sides, plain []Side) *move {
	m := &move{surplus: map[string]int64{}}
	note := func(list []Side, sign int64) {
		var start uint64
		for _, s := range list {
			if !slices.Contains(m.owners, s.Backend) {
				m.owners = append(m.owners, s.Backend)
			}
			m.surplus[s.Backend] += sign * int64(s.End-start)
			start = s.End
		}
	}
	note(sides, 1)
	note(plain, -1)
	var start uint64
	for _, s := range sides {
		m.pieces = append(m.pieces, piece{start, s.End, s.Backend})
		start = s.End
	}
	return m
}

// take frees what a backend has too much: first whole pieces, small ones before large
// ones, so that the space does not fall to pieces over time; then the end of one.
func (m *move) take(backend string) {
	for m.surplus[backend] > 0 {
		at := m.smallest(backend)
		p := &m.pieces[at]
		over := uint64(m.surplus[backend])
		if p.len() <= over {
			m.surplus[backend] -= int64(p.len())
			p.backend = ""
			continue
		}
		m.cut(at, over)
		m.surplus[backend] = 0
	}
}

// smallest is the smallest piece of a backend.
func (m *move) smallest(backend string) int {
	best := -1
	for i, p := range m.pieces {
		if p.backend == backend && (best < 0 || p.len() < m.pieces[best].len()) {
			best = i
		}
	}
	return best
}

// gains tells whether the owner of a piece will get more.
func (m *move) gains(at int) bool {
	return at >= 0 && at < len(m.pieces) && m.surplus[m.pieces[at].backend] < 0
}

// cut frees the last n of a piece, or the first n when a neighbour there gets more.
func (m *move) cut(at int, n uint64) {
	p := m.pieces[at]
	if m.gains(at-1) && !m.gains(at+1) {
		m.pieces[at].start += n
		m.pieces = slices.Insert(m.pieces, at, piece{p.start, p.start + n, ""})
		return
	}
	m.pieces[at].end -= n
	m.pieces = slices.Insert(m.pieces, at+1, piece{p.end - n, p.end, ""})
}

// join puts neighbours of one owner, or of nobody, together.
func (m *move) join() {
	joined := m.pieces[:0:0]
	for _, p := range m.pieces {
		if last := len(joined) - 1; last >= 0 && joined[last].backend == p.backend {
			joined[last].end = p.end
			continue
		}
		joined = append(joined, p)
	}
	m.pieces = joined
}

// give hands free pieces, or parts of them, to those whom to names; fromEnd says that
// the part is the last one of the piece.
func (m *move) give(to func(at int) (backend string, fromEnd bool)) {
	for at := 0; at < len(m.pieces); at++ {
		for m.pieces[at].backend == "" {
			backend, fromEnd := to(at)
			if backend == "" {
				break
			}
			p := m.pieces[at]
			n := min(p.len(), uint64(-m.surplus[backend]))
			m.surplus[backend] += int64(n)
			switch {
			case n == p.len():
				m.pieces[at].backend = backend
			case fromEnd:
				m.pieces[at].end -= n
				m.pieces = slices.Insert(m.pieces, at+1, piece{p.end - n, p.end, backend})
			default:
				m.pieces[at].start += n
				m.pieces = slices.Insert(m.pieces, at, piece{p.start, p.start + n, backend})
				at++
			}
		}
	}
}

// neighbour is who has a piece beside a free one and gets more.
func (m *move) neighbour(at int) (backend string, fromEnd bool) {
	if m.gains(at - 1) {
		return m.pieces[at-1].backend, false
	}
	if m.gains(at + 1) {
		return m.pieces[at+1].backend, true
	}
	return "", false
}

// anyone is who lacks exactly a piece, or else whoever lacks most.
func (m *move) anyone(at int) (backend string, fromEnd bool) {
	n := int64(m.pieces[at].len())
	return slices.MinFunc(m.owners, func(a, b string) int {
		x, y := m.surplus[a], m.surplus[b]
		if (x == -n) != (y == -n) {
			if x == -n {
				return -1
			}
			return 1
		}
		return cmp.Compare(x, y)
	}), false
}
