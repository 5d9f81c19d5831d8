package cluster

import (
	"encoding/binary"
	"fmt"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

// versionOf is what the inventory says of an object of the store.
func (e *exchange) versionOf(o *store.Object) *version {
	v := &version{id: o.ID, revision: o.Revision, vector: o.Vector, sum: sumOf(o), object: o}
	if o.Deleted {
		v.buried = o.Buried()
		v.faded = v.fades(e.wall())
	}
	return v
}

// sumOf is the sum of a version, as it is in entries.
func sumOf(o *store.Object) uint64 {
	sum := o.VersionSum()
	return binary.LittleEndian.Uint64(sum[:])
}

// wireObject is a version as it travels.
func wireObject(v *version) (*clusterv1.Object, error) {
	o := &clusterv1.Object{Kind: v.id.Kind, Namespace: v.id.Namespace, Name: v.id.Name, Sum: v.sum}
	if v.carried != nil {
		o.Level, o.Row = v.carried.Level, v.carried.Row
		return o, nil
	}
	row, err := store.EncodeForeign(v.object)
	if err != nil {
		return nil, fmt.Errorf("send %s: %w", v.id, err)
	}
	o.Level, o.Row = store.Vocabulary, row
	return o, nil
}

func wireEntry(v *version) *clusterv1.Entry {
	return &clusterv1.Entry{Name: wireName(v.id), Revision: wireRevision(v.revision), Sum: v.sum}
}

// objectSize is about how many bytes an object takes in a message.
func objectSize(o *clusterv1.Object) int {
	return len(o.Row) + len(o.Kind) + len(o.Namespace) + len(o.Name) + 32
}
