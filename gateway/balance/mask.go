package balance

const maskWord = 64 // nodes per element of a Mask

// Mask is a set of nodes by their index: those that an RPC has already tried. The
// nil Mask is empty.
type Mask []uint64

// Has tells whether node i is in the set.
func (m Mask) Has(i int) bool {
	word := i / maskWord
	return word < len(m) && m[word]&(1<<(i%maskWord)) != 0
}

// With puts node i into the set. As with append, use the result and forget m:
// they share memory unless m was too short.
func (m Mask) With(i int) Mask {
	for i/maskWord >= len(m) {
		m = append(m, 0)
	}
	m[i/maskWord] |= 1 << (i % maskWord)
	return m
}
