package balance

import (
	"cmp"
	"math/bits"
	"slices"
)

// The tables' sizes, in slots of 4 bytes: 256 KiB, and 2.5 MiB beyond manyNodes. They
// are prime, as the nodes' permutations need. There are only two, because a table of
// another size moves every key.
const (
	slots     = 65537
	manySlots = 655373
	manyNodes = 1024
)

// NewMaglev makes a picker that sends RPCs with one key to one node, by a table in
// which each node has slots by its weight: more exactly so than on a ring, and found
// by one look. A node that comes or goes moves the keys that it gets or had, and about
// one in a hundred of the others. RPCs without a key are as with NewLeastRequest.
//
// The nodes' weights are read now and not again; the slice must not change.
func NewMaglev(nodes []*Node, h Hashing, s Settings) Picker {
	return newPicker(nodes, s, func(f field) chooser { return newHashed(f, h, newMaglev) })
}

type maglev []uint32 // nodes

// newMaglev has the nodes take free slots in turns, each in an order of its own, until
// none is left. It needs a total weight.
func newMaglev(f field, names []uint64) directory {
	size := slotsFor(len(f.nodes))
	var queue takers
	for i, w := range f.weights {
		if w > 0 {
			queue = append(queue, taker{
				node: uint32(i), name: names[i], weight: w,
				next: rehash(names[i], 0) % size, skip: 1 + rehash(names[i], 1)%(size-1),
			})
		}
	}
	slices.SortFunc(queue, func(a, b taker) int { return cmp.Compare(a.name, b.name) })
	const free = ^uint32(0)
	table := make(maglev, size)
	for i := range table {
		table[i] = free
	}
	for range size {
		t := &queue[0]
		for table[t.next] != free {
			t.step(size)
		}
		table[t.next] = t.node
		t.taken++
		queue.settle()
	}
	return table
}

func slotsFor(nodes int) uint64 {
	if nodes > manyNodes {
		return manySlots
	}
	return slots
}

// taker is a node that fills a table.
type taker struct {
	node       uint32
	name       uint64
	weight     uint64
	next, skip uint64 // of its permutation of the slots
	taken      uint64
}

func (t *taker) step(size uint64) {
	if t.next += t.skip; t.next >= size {
		t.next -= size
	}
}

// takers is a binary heap: the first is who has the least for his weight. Everyone has a
// turn before anyone has two, and the order in which the nodes are listed is of no account.
type takers []taker

// settle puts the first, who has had a turn, in his place.
func (q takers) settle() {
	for at := 0; ; {
		least := at
		for child := 2*at + 1; child <= 2*at+2 && child < len(q); child++ {
			if q[child].before(&q[least]) {
				least = child
			}
		}
		if least == at {
			return
		}
		q[at], q[least] = q[least], q[at]
		at = least
	}
}

func (t *taker) before(o *taker) bool {
	a, b := t.taken*o.weight, o.taken*t.weight
	return a < b || a == b && t.name < o.name
}

func (m maglev) find(hash uint64) int {
	slot, _ := bits.Mul64(hash, uint64(len(m)))
	return int(m[slot])
}
