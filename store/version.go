package store

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
)

// VersionSum stands for one version of an object, with what it has seen and the
// versions that it won over: two nodes that have the same need not exchange it.
type VersionSum [16]byte

// VersionSum is the sum of this version. What a file here declares in place of it does
// not count.
func (o *Object) VersionSum() VersionSum {
	if sum := o.version.Load(); sum != nil {
		return *sum
	}
	b := make([]byte, 0, 256)
	b = appendPart(b, objectKey(o.ID))
	b = appendRevision(b, o.Revision)
	seen := slices.SortedFunc(maps.Values(o.Vector), func(a, b Revision) int { return cmp.Compare(a.Node, b.Node) })
	b = binary.AppendUvarint(b, uint64(len(seen)))
	for _, r := range seen {
		b = appendRevision(b, r)
	}
	b = binary.AppendUvarint(b, uint64(len(o.Lost)))
	for _, lost := range o.Lost {
		b = appendRevision(b, lost.Revision)
	}
	if o.Deleted {
		b = append(b, 1)
	}
	full := sha256.Sum256(b)
	sum := VersionSum(full[:len(VersionSum{})])
	o.version.Store(&sum)
	return sum
}

func appendRevision(b []byte, r Revision) []byte {
	b = binary.AppendUvarint(b, uint64(r.Wall))
	b = binary.AppendUvarint(b, uint64(r.Counter))
	return appendPart(b, []byte(r.Node))
}
