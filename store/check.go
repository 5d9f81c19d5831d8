package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"sluice/store/disk"
)

// CheckConsistency compares what is served with what the disk has: every object with
// its row, every change with its index and with the changes around it, the digest
// with the objects, and the effective set with one made anew. It waits for the write
// that is under way and holds up others.
func (s *Store) CheckConsistency() error {
	s.writing <- struct{}{}
	defer func() { <-s.writing }()
	s.mu.RLock()
	closed := s.closed
	s.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	c := &checker{store: s, snap: s.Snapshot()}
	if err := s.disk.View(c.read); err != nil {
		return fmt.Errorf("check the store: %w", err)
	}
	c.checkObjects()
	c.checkHistory()
	c.checkTail()
	c.checkEffective()
	return errors.Join(c.wrong...)
}

// checker is one check.
type checker struct {
	store   *Store
	snap    *Snapshot
	node    nodeRow
	objects []*Object
	events  []event
	changes []*Change
	wrong   []error
}

func (c *checker) say(format string, args ...any) {
	if len(c.wrong) < maxFaults {
		c.wrong = append(c.wrong, fmt.Errorf(format, args...))
	}
}

func (c *checker) read(tx *disk.Tx) (err error) {
	if c.node, err = readNode(tx); err != nil {
		return err
	}
	if c.objects, err = readObjects(tx); err != nil {
		return err
	}
	if err = readIndex(tx, func(e event) { c.events = append(c.events, e) }); err != nil {
		return err
	}
	var failed error
	err = tx.Ascend(changeRows, nil, func(key, row []byte) bool {
		var seq uint64
		var change *Change
		if seq, failed = parseSeqKey(key); failed == nil {
			change, failed = decodeChange(seq, row)
		}
		c.changes = append(c.changes, change)
		return failed == nil
	})
	return errors.Join(err, failed)
}

// checkObjects compares the snapshot with the rows of objects.
func (c *checker) checkObjects() {
	served := append(c.snap.All(""), c.snap.tombstones...)
	if len(served) != len(c.objects) {
		c.say("%d objects are served and %d on the disk", len(served), len(c.objects))
	}
	if !slices.IsSortedFunc(c.snap.All(""), compareObjects) || !slices.IsSortedFunc(c.snap.tombstones, compareObjects) {
		c.say("the objects of the snapshot are not in order")
	}
	var digest [sha256.Size]byte
	for _, kept := range c.objects {
		o := c.snap.find(kept.ID)
		if o == nil {
			c.say("%s is on the disk and not served", kept.ID)
			continue
		}
		if difference := o.differs(kept); difference != "" {
			c.say("%s: %s is served otherwise than it is on the disk", kept.ID, difference)
		}
		if !kept.Deleted {
			digest = xor(digest, kept.sum())
		}
		c.checkVersion(o)
		if o.Revision.after(c.node.Clock) {
			c.say("%s: revision %s is later than the clock, %s", o.ID, o.Revision, c.node.Clock)
		}
	}
	if digest != c.snap.digest {
		c.say("the digest is not that of the objects")
	}
	if c.node.Seq != c.snap.seq || c.node.Clock.after(c.store.clock.seen()) || c.node.Node != c.store.clock.name() {
		c.say("the node is at %+v on the disk, and serves %d", c.node, c.snap.seq)
	}
}

// checkVersion compares an object with what it says of its past.
func (c *checker) checkVersion(o *Object) {
	if err := o.travelling().checkPast(); err != nil {
		c.say("%s: %v", o.ID, err)
	}
	if len(o.Lost) != len(normalLost(o.travelling(), slices.Clone(o.Lost))) {
		c.say("%s: it has lost versions that say what it says, or what another one says", o.ID)
	}
	if o.elsewhere != nil && (o.Owner.Kind != OwnerFile || o.elsewhere.manifest == o.manifest) {
		c.say("%s: other nodes have another manifest of it, and its owner is %s", o.ID, o.Owner)
	}
}

// differs names what is not the same in two versions of an object, "" when all is.
func (o *Object) differs(other *Object) string {
	switch {
	case o.ID != other.ID:
		return "the ID"
	case o.Revision != other.Revision:
		return "the revision"
	case !o.Vector.covers(other.Vector) || !other.Vector.covers(o.Vector):
		return "the vector"
	case o.Owner != other.Owner:
		return "the owner"
	case !equalVersions(o.Lost, other.Lost):
		return "what it won over"
	case (o.elsewhere == nil) != (other.elsewhere == nil) ||
		o.elsewhere != nil && (o.elsewhere.manifest != other.elsewhere.manifest || o.elsewhere.file != other.elsewhere.file):
		return "what other nodes have"
	case o.manifest != other.manifest || o.Deleted != other.Deleted:
		return "the resource"
	case !o.State.equal(other.State):
		return "the state"
	case !o.Created.Equal(other.Created) || !o.Changed.Equal(other.Changed) || o.Author != other.Author:
		return "the author or a time"
	}
	return ""
}

// checkHistory compares the timeline with the rows, and each change with the one of
// the same object before it and with what the object is now.
func (c *checker) checkHistory() {
	t := c.store.timeline
	if !slices.Equal(c.events, t.events) {
		c.say("the index of %d changes is not the one on the disk, of %d", len(t.events), len(c.events))
	}
	if len(c.changes) != len(c.events) {
		c.say("%d changes and an index of %d", len(c.changes), len(c.events))
		return
	}
	if t.last != c.node.Seq || t.forgotten != c.node.Forgotten || !t.until.Equal(c.node.Until) {
		c.say("history ends at %d and is known from %d; on the disk it is %d and %d", t.last, t.forgotten, c.node.Seq, c.node.Forgotten)
	}
	bytes, ofObject := 0, map[ID][]uint64{}
	latest := map[ID]*Change{}
	for i, change := range c.changes {
		e := c.events[i]
		if e.seq != change.Seq || e.id != change.ID || !e.time.Equal(change.Time) || change.After == nil {
			c.say("change %d is not what its index says", change.Seq)
			continue
		}
		bytes += e.size
		ofObject[e.id] = append(ofObject[e.id], e.seq)
		c.checkSuccession(latest[e.id], change)
		latest[e.id] = change
	}
	if bytes != t.bytes || len(ofObject) != len(t.byObject) {
		c.say("the timeline counts %d bytes of %d objects, want %d of %d", t.bytes, len(t.byObject), bytes, len(ofObject))
	}
	for id, seqs := range ofObject {
		if !slices.Equal(seqs, t.byObject[id]) {
			c.say("%s: the timeline has changes %v, want %v", id, t.byObject[id], seqs)
		}
	}
	for id, change := range latest {
		o := c.snap.find(id)
		switch {
		case o == nil && !change.After.Deleted:
			c.say("%s: change %d is the last one, and the object is gone", id, change.Seq)
		case o != nil && !o.continues(change.After):
			c.say("%s: it is not what change %d, the last one, made of it", id, change.Seq)
		}
	}
}

// checkSuccession compares what a change began with and what the change before it had
// left. A change in between may have been dropped only when it is too many.
func (c *checker) checkSuccession(before, change *Change) {
	if before == nil {
		return
	}
	if change.Seq <= before.Seq {
		c.say("change %d comes after change %d", change.Seq, before.Seq)
	}
	left, began := before.After, change.Before
	switch {
	case began == nil && left.live():
		c.say("%s: change %d began with nothing, and change %d left something", change.ID, change.Seq, before.Seq)
	case began != nil && !began.continues(left):
		c.say("%s: change %d did not begin with what change %d had left", change.ID, change.Seq, before.Seq)
	}
}

// continues tells whether an object is what a change has left. Of what files declare at
// several nodes alike, one node's version may have taken the place of another's since, and
// the other one be so long ago that it is not remembered.
func (o *Object) continues(left *Object) bool {
	seen := o.Vector.Seen(left.Revision) || len(o.Vector) >= maxPast
	return o.same(left) && (o.Revision == left.Revision || o.Owner.OfFile() && seen)
}

// checkTail compares the changes in memory with those on the disk.
func (c *checker) checkTail() {
	tail := c.store.tail
	for i, change := range tail {
		if change.Seq != c.snap.seq-uint64(len(tail)-1-i) {
			c.say("change %d stands at the wrong place in memory", change.Seq)
		}
		at := slices.IndexFunc(c.changes, func(kept *Change) bool { return kept.Seq == change.Seq })
		if at < 0 {
			continue
		}
		if difference := change.After.differs(c.changes[at].After); difference != "" && difference != "the owner" {
			c.say("change %d: %s is not the same in memory and on the disk", change.Seq, difference)
		}
	}
}

// checkEffective makes the effective set of what is on the disk, and compares.
func (c *checker) checkEffective() {
	fresh := (&Snapshot{}).with(c.node.Seq, c.objects).Effective().Resources()
	served := c.snap.Effective().Resources()
	if len(fresh) != len(served) {
		c.say("the effective set has %d resources, want %d", len(served), len(fresh))
		return
	}
	for i := range fresh {
		if !sameResource(fresh[i], served[i]) {
			c.say("the effective %s is not what follows from the objects", ResourceID(fresh[i]))
		}
	}
}

// sameResource tells whether two effective resources ask the same of the gateway.
func sameResource(a, b Resource) bool {
	left, err := a.MarshalJSON()
	right, err2 := b.MarshalJSON()
	if err != nil || err2 != nil || !bytes.Equal(left, right) {
		return false
	}
	if backend, ok := a.(*Backend); ok {
		return reflect.DeepEqual(backend.Spec, b.(*Backend).Spec)
	}
	route, ok := a.(*GRPCRoute)
	if !ok {
		return true
	}
	for i, rule := range b.(*GRPCRoute).Spec.Rules {
		if !reflect.DeepEqual(route.Spec.Rules[i].Steering, rule.Steering) {
			return false
		}
	}
	return true
}
