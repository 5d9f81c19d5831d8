package cluster

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"sluice/store"
)

// tombstoneFades is how old a tombstone is when sums leave it out: a while before the
// store forgets it, so that nodes of which the clocks differ do not find differences in
// what none of them will have in an hour.
const tombstoneFades = 23 * time.Hour

// version is what this node has of an object: as it is in the store, or as it came from a
// node of a newer version.
type version struct {
	id       store.ID
	revision store.Revision
	vector   store.Vector
	sum      uint64
	object   *store.Object // nil when carried
	carried  *carried      // nil when in the store
	buried   time.Time     // of a tombstone: since when
	faded    bool          // no part of the sums
}

// knows tells whether the version was made in the knowledge of r, or is r.
func (v *version) knows(r store.Revision) bool { return v != nil && v.vector.Seen(r) }

// fades tells whether a tombstone is no part of the sums: its last twenty-fourth has begun.
func (v *version) fades(now time.Time) bool {
	life := store.TombstoneLifeOf(v.id.Kind)
	return now.Sub(v.buried) >= life-life/24
}

// inventory is what this node has, with sums by which two nodes find quickly where they
// differ: 64 bits of each version, combined by XOR, by kind and in 256 groups of it.
type inventory struct {
	versions map[store.ID]*version
	kinds    map[string]*kindInventory
	highest  map[string]store.Revision // of each node, of all that was ever put
}

type kindInventory struct {
	sum     uint64
	sums    [numBuckets]uint64
	buckets [numBuckets][]*version // in the order of their IDs
}

func newInventory() *inventory {
	return &inventory{versions: map[store.ID]*version{}, kinds: map[string]*kindInventory{}, highest: map[string]store.Revision{}}
}

func bucketOf(id store.ID) int { return int(xxhash.Sum64String(id.String()) % numBuckets) }

// put takes the place of another version of the same ID.
func (inv *inventory) put(v *version) {
	inv.drop(v.id)
	inv.noteHighest(v.vector)
	kind := inv.kinds[v.id.Kind]
	if kind == nil {
		kind = &kindInventory{}
		inv.kinds[v.id.Kind] = kind
	}
	inv.versions[v.id] = v
	bucket := bucketOf(v.id)
	at, _ := findVersion(kind.buckets[bucket], v.id)
	kind.buckets[bucket] = slices.Insert(kind.buckets[bucket], at, v)
	kind.count(bucket, v)
}

// drop removes the version of an ID, if there is one.
func (inv *inventory) drop(id store.ID) {
	v := inv.versions[id]
	if v == nil {
		return
	}
	delete(inv.versions, id)
	kind, bucket := inv.kinds[id.Kind], bucketOf(id)
	at, _ := findVersion(kind.buckets[bucket], id)
	kind.buckets[bucket] = slices.Delete(kind.buckets[bucket], at, at+1)
	kind.count(bucket, v)
}

// count adds a version to the sums, or takes it out of them.
func (k *kindInventory) count(bucket int, v *version) {
	if !v.faded {
		k.sum ^= v.sum
		k.sums[bucket] ^= v.sum
	}
}

// fade leaves tombstones out of the sums that are old by now.
func (inv *inventory) fade(now time.Time) {
	for _, v := range inv.versions {
		if v.buried.IsZero() || v.faded || !v.fades(now) {
			continue
		}
		kind := inv.kinds[v.id.Kind]
		kind.count(bucketOf(v.id), v)
		v.faded = true
	}
}

// digests are the sums of all kinds; a kind without any is left out.
func (inv *inventory) digests() map[string]uint64 {
	all := make(map[string]uint64, len(inv.kinds))
	for name, kind := range inv.kinds {
		if kind.sum != 0 {
			all[name] = kind.sum
		}
	}
	return all
}

// sums are those of the groups of a kind.
func (inv *inventory) sums(kind string) (sums [numBuckets]uint64) {
	if k := inv.kinds[kind]; k != nil {
		sums = k.sums
	}
	return sums
}

// bucket has the versions of a group, without those that are faded.
func (inv *inventory) bucket(kind string, bucket int) []*version {
	k := inv.kinds[kind]
	if k == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(k.buckets[bucket]), func(v *version) bool { return v.faded })
}

// kindNames are the kinds that there are, in order.
func (inv *inventory) kindNames() []string { return slices.Sorted(maps.Keys(inv.kinds)) }

func findVersion(list []*version, id store.ID) (at int, found bool) {
	return slices.BinarySearchFunc(list, id, func(v *version, id store.ID) int { return v.id.Compare(id) })
}

// differing are the kinds of which the sums differ, in order.
func differing(mine, theirs map[string]uint64) []string {
	var kinds []string
	for kind, sum := range mine {
		if theirs[kind] != sum {
			kinds = append(kinds, kind)
		}
	}
	for kind, sum := range theirs {
		if _, both := mine[kind]; !both && sum != 0 {
			kinds = append(kinds, kind)
		}
	}
	slices.SortFunc(kinds, strings.Compare)
	return kinds
}

// changedObjects yields what is in after and was not, in that version, in before, and
// what is gone. It compares pointers: an object of a snapshot never changes.
func changedObjects(before, after *store.Snapshot, changed func(*store.Object), gone func(store.ID)) {
	lists := func(s *store.Snapshot) [][]*store.Object {
		var all [][]*store.Object
		for _, kind := range store.Kinds() {
			all = append(all, s.All(kind))
		}
		return append(all, s.Tombstones())
	}
	old, now := lists(before), lists(after)
	for i := range now {
		changedIn(old[i], now[i], changed, func(id store.ID) {
			if after.Find(id) == nil {
				gone(id)
			}
		})
	}
}

func changedIn(before, after []*store.Object, changed func(*store.Object), gone func(store.ID)) {
	if len(before) == len(after) && (len(after) == 0 || &before[0] == &after[0]) {
		return
	}
	for len(before) > 0 || len(after) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(after) == 0:
			order = -1
		case before[0] != after[0]:
			order = before[0].ID.Compare(after[0].ID)
		}
		if order < 0 {
			gone(before[0].ID)
			before = before[1:]
			continue
		}
		if order > 0 || before[0] != after[0] {
			changed(after[0])
		}
		after = after[1:]
		if order == 0 {
			before = before[1:]
		}
	}
}
