package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"sync"
)

// Snapshot is everything as it was at one moment. It does not change; whatever it
// returns belongs to it and is not to be changed.
type Snapshot struct {
	seq        uint64
	live       [numKinds][]*Object // in the order of their IDs
	tombstones []*Object           // in the order of their IDs
	digest     [sha256.Size]byte   // of live, each object's sums combined by XOR
	superseded chan struct{}       // closed when there is a later snapshot, or never will be

	once      sync.Once
	effective *Set

	onceRegistered sync.Once
	byBackend      map[ID][]*Registration // in the order of their names
}

// Seq is the sequence of the last change that the snapshot has.
func (s *Snapshot) Seq() uint64 { return s.seq }

// Superseded is closed when there is a later snapshot, or never will be.
func (s *Snapshot) Superseded() <-chan struct{} { return s.superseded }

// Get is the object of that ID. It does not find tombstones.
func (s *Snapshot) Get(id ID) (*Object, bool) {
	if id.Namespace == "" {
		id.Namespace = DefaultNamespace
	}
	k := kindIndex(id.Kind)
	if k < 0 {
		return nil, false
	}
	at, found := search(s.live[k], id)
	if !found {
		return nil, false
	}
	return s.live[k][at], true
}

// All are the objects of a kind in the order of their keys, all objects when kind is
// empty, without tombstones.
func (s *Snapshot) All(kind string) []*Object {
	if kind == "" {
		return slices.Concat(s.live[:]...)
	}
	if k := kindIndex(kind); k >= 0 {
		return s.live[k]
	}
	return nil
}

// Tombstones are what is left of deleted objects, for a day or more.
func (s *Snapshot) Tombstones() []*Object { return s.tombstones }

// Len is how many objects of a kind there are, of all kinds when kind is empty.
func (s *Snapshot) Len(kind string) int {
	n := 0
	for k, list := range s.live {
		if kind == "" || kind == kinds[k] {
			n += len(list)
		}
	}
	return n
}

// registered are the processes that have announced themselves to a Backend, in the order
// of their names.
func (s *Snapshot) registered(backend ID) []*Registration {
	s.onceRegistered.Do(func() {
		s.byBackend = map[ID][]*Registration{}
		for _, o := range s.live[registrations] {
			r := o.Resource.(*Registration)
			to := r.backend()
			s.byBackend[to] = append(s.byBackend[to], r)
		}
	})
	return s.byBackend[backend]
}

// Digest is the same on two nodes that have the same objects with the same state,
// whoever declared them.
func (s *Snapshot) Digest() string { return hex.EncodeToString(s.digest[:]) }

// Find is the object of that ID or its tombstone, nil when there is neither.
func (s *Snapshot) Find(id ID) *Object {
	if id.Namespace == "" {
		id.Namespace = DefaultNamespace
	}
	return s.find(id)
}

// find is Find for an ID in normal form.
func (s *Snapshot) find(id ID) *Object {
	if o, ok := s.Get(id); ok {
		return o
	}
	if at, found := search(s.tombstones, id); found {
		return s.tombstones[at]
	}
	return nil
}

// with is a snapshot with other versions of some objects, one for each ID.
func (s *Snapshot) with(seq uint64, changed []*Object) *Snapshot {
	next := &Snapshot{seq: seq, live: s.live, digest: s.digest, superseded: make(chan struct{})}
	var byKind [numKinds][]*Object
	for _, o := range changed {
		k := kindIndex(o.ID.Kind)
		byKind[k] = append(byKind[k], o)
		if old, ok := s.Get(o.ID); ok {
			next.digest = xor(next.digest, old.sum())
		}
		if !o.Deleted {
			next.digest = xor(next.digest, o.sum())
		}
	}
	for k, list := range byKind {
		if len(list) > 0 {
			next.live[k] = overlay(s.live[k], list, func(o *Object) bool { return !o.Deleted })
		}
	}
	next.tombstones = overlay(s.tombstones, changed, func(o *Object) bool { return o.Deleted })
	return next
}

// without is a snapshot that has forgotten some tombstones.
func (s *Snapshot) without(tombstones []*Object) *Snapshot {
	next := &Snapshot{seq: s.seq, live: s.live, digest: s.digest, superseded: make(chan struct{})}
	gone := make(map[*Object]bool, len(tombstones))
	for _, o := range tombstones {
		gone[o] = true
	}
	next.tombstones = slices.DeleteFunc(slices.Clone(s.tombstones), func(o *Object) bool { return gone[o] })
	return next
}

// overlay is a list like base, in which each object of changed, in any order, takes
// the place of the one with its ID, if it belongs here at all.
func overlay(base, changed []*Object, belongs func(*Object) bool) []*Object {
	changed = slices.SortedFunc(slices.Values(changed), compareObjects)
	all := make([]*Object, 0, len(base)+len(changed))
	for _, o := range changed {
		at, found := search(base, o.ID)
		all = append(all, base[:at]...)
		base = base[at:]
		if found {
			base = base[1:]
		}
		if belongs(o) {
			all = append(all, o)
		}
	}
	return append(all, base...)
}

func compareObjects(a, b *Object) int { return a.ID.Compare(b.ID) }

func search(list []*Object, id ID) (at int, found bool) {
	return slices.BinarySearchFunc(list, id, func(o *Object, id ID) int { return o.ID.Compare(id) })
}

// sum stands for what the object is, without who made it so.
func (o *Object) sum() [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(o.ID.String()))
	h.Write(o.manifest[:])
	state := o.State
	state.Splits = slices.Clone(state.Splits)
	for i := range state.Splits {
		state.Splits[i].By, state.Splits[i].Since = "", zeroTime
	}
	state.Drains = slices.Clone(state.Drains)
	for i := range state.Drains {
		state.Drains[i].By, state.Drains[i].Since = "", zeroTime
	}
	encoded, _ := json.Marshal(state) // strings and numbers only
	h.Write(encoded)
	return [sha256.Size]byte(h.Sum(nil))
}

func xor(a, b [sha256.Size]byte) [sha256.Size]byte {
	for i := range a {
		a[i] ^= b[i]
	}
	return a
}

// Since are the objects, tombstones included, of which s has another version than an
// older snapshot, in the order of their IDs, the live ones first.
func (s *Snapshot) Since(old *Snapshot) []*Object {
	var list []*Object
	for k := range s.live {
		list = others(list, old.live[k], s.live[k])
	}
	return others(list, old.tombstones, s.tombstones)
}

// others adds the objects of b that are not those of a to a list. Both are in the order
// of their IDs.
func others(list, a, b []*Object) []*Object {
	if len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) {
		return list
	}
	for _, o := range b {
		for len(a) > 0 && a[0].ID.Compare(o.ID) < 0 {
			a = a[1:]
		}
		if len(a) == 0 || a[0] != o {
			list = append(list, o)
		}
	}
	return list
}
