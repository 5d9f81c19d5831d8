package balance

import "slices"

const (
	// pointsPerNode is how many points of the ring a node of mean weight has. Shares
	// differ from weights by a sixteenth in the mean: the root of it. A point takes 8
	// bytes, so the ring of a backend takes 2 KiB for each endpoint.
	pointsPerNode = 256

	// A point is its place on the ring in the upper bits and its node below. Two points
	// at one place are in the order of their nodes.
	nodeBits = 24
	nodeMask = 1<<nodeBits - 1
)

// NewRingHash makes a picker that sends RPCs with one key to one node: the one whose
// point follows the key's hash on a ring. A node has points by its weight, at places
// that come from its name alone; so a node that comes or goes moves no keys but those
// that it gets or had. RPCs without a key are as with NewLeastRequest.
//
// The nodes' weights are read now and not again; the slice must not change.
func NewRingHash(nodes []*Node, h Hashing, s Settings) Picker {
	return newPicker(nodes, s, func(f field) chooser { return newHashed(f, h, newRing) })
}

type ring []uint64 // points, in order

// newRing needs a total weight.
func newRing(f field, names []uint64) directory {
	nodes := uint64(0)
	for _, w := range f.weights {
		if w > 0 {
			nodes++
		}
	}
	r := make(ring, 0, nodes*(pointsPerNode+2))
	for i, w := range f.weights {
		if w == 0 {
			continue
		}
		// Relative to the mean, so that among equals a node's points never change.
		points := max(1, (pointsPerNode*nodes*w+f.total/2)/f.total)
		for k := range points {
			r = append(r, rehash(names[i], k)&^nodeMask|uint64(i))
		}
	}
	slices.Sort(r)
	return r
}

func (r ring) find(hash uint64) int {
	at, _ := slices.BinarySearch(r, hash&^nodeMask)
	if at == len(r) {
		at = 0
	}
	return int(r[at] & nodeMask)
}
