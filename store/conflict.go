package store

import (
	"bytes"
	"slices"
	"time"
)

// maxLost is how many versions of an object of a kind are kept that gave way to it. Two
// nodes that have heard of one process do not disagree about anything, and a Schema is
// so large that a message has room for two.
func maxLost(kind string) int {
	switch kind {
	case RegistrationKind:
		return 0
	case SchemaKind:
		return 1
	}
	return 4
}

// joinLost are the versions that lose to winner when it meets loser. What one side has
// seen and does not have any more was settled there: it stays so.
func joinLost(winner, loser *Object) []*Object {
	if len(winner.Lost)+len(loser.Lost) == 0 && winner.Vector.Seen(loser.Revision) {
		return nil
	}
	all := make([]*Object, 0, len(winner.Lost)+len(loser.Lost)+1)
	for _, lost := range winner.Lost {
		if !loser.Vector.Seen(lost.Revision) || loser.hasVersion(lost.Revision) {
			all = append(all, lost)
		}
	}
	for _, theirs := range loser.Lost {
		if !winner.Vector.Seen(theirs.Revision) {
			all = append(all, theirs)
		}
	}
	if !winner.Vector.Seen(loser.Revision) {
		all = append(all, loser.asLost())
	}
	return normalLost(winner, all)
}

// hasVersion tells whether a revision is that of the object or of one that lost to it.
func (o *Object) hasVersion(r Revision) bool {
	return o.Revision == r || slices.ContainsFunc(o.Lost, func(lost *Object) bool { return lost.Revision == r })
}

// asLost is the version as it is kept among those that lost.
func (o *Object) asLost() *Object {
	if o.Vector == nil && o.Lost == nil {
		return o
	}
	lost := o.copy()
	lost.Vector, lost.Lost = nil, nil
	return lost
}

// normalLost are versions that lost to winner as they are kept: the latest ones, in
// order, each that says something else.
func normalLost(winner *Object, all []*Object) []*Object {
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *Object) int { return b.Revision.Compare(a.Revision) })
	var kept []*Object
	room := winner.roomForLost()
	for _, lost := range all {
		switch {
		case lost.manifestBytes() > room: // history has it
		case len(kept) == maxLost(winner.ID.Kind):
			return kept
		case lost.yields(winner), slices.ContainsFunc(kept, lost.yields):
		default:
			kept = append(kept, lost)
		}
	}
	return kept
}

// maxTogether bounds the manifests of a version and of those that lost to it, in bytes:
// they travel in one row, beside their heads.
const maxTogether = maxForeign - 1<<20

// roomForLost is how large the manifest of each version that lost may be: no part of what
// is kept depends on which others are.
func (o *Object) roomForLost() int {
	return (maxTogether - o.manifestBytes()) / max(maxLost(o.ID.Kind), 1)
}

// manifestBytes is how long the manifest is.
func (o *Object) manifestBytes() int {
	manifest, err := o.Manifest()
	if err != nil {
		return maxForeign
	}
	return len(manifest)
}

// equalVersions tells whether two lists have the same versions.
func equalVersions(a, b []*Object) bool {
	return slices.EqualFunc(a, b, func(a, b *Object) bool { return a.Revision == b.Revision })
}

// yields tells whether nothing is lost when the object gives way to another version: both
// ask the same; or it is the first word of a file, which has nothing to say of splits and
// the like, and nothing at all to that of another file, since each is obeyed where it is.
func (o *Object) yields(to *Object) bool {
	if o.Revision.Wall == firstWall && (to.Revision.Wall == firstWall || !to.Deleted && to.Owner.OfFile()) {
		return true
	}
	if o.Deleted != to.Deleted || !o.State.equal(to.State) && o.Revision.Wall != firstWall {
		return false
	}
	return o.manifest == to.manifest || !o.Deleted && sameButForTime(o.Resource, to.Resource)
}

// sameButForTime tells whether two manifests differ in nothing but the time that an API
// gave one of them when it was first applied.
func sameButForTime(a, b Resource) bool {
	if a == nil || b == nil || a.Metadata().CreationTimestamp.Equal(b.Metadata().CreationTimestamp) {
		return false
	}
	timeless := func(r Resource) []byte {
		manifest, err := withMeta(r, func(m *Meta) { m.CreationTimestamp = time.Time{} }).MarshalJSON()
		if err != nil {
			return nil
		}
		return manifest
	}
	left := timeless(a)
	return left != nil && bytes.Equal(left, timeless(b))
}

// Conflicts are the objects, and what is left of deleted ones, that were changed at two
// nodes unknown to each other, until somebody edits them: they have Lost versions. They
// are in the order of their IDs, the live ones first.
func (s *Snapshot) Conflicts() []*Object {
	var list []*Object
	for _, objects := range append(s.live[:], s.tombstones) {
		for _, o := range objects {
			if len(o.Lost) > 0 {
				list = append(list, o)
			}
		}
	}
	return list
}
