package store

import (
	"context"
	"fmt"
	"slices"
)

// MergeResult is what Store.Merge did.
type MergeResult struct {
	Seq       uint64
	Changes   []Change  // those of action "conflict" have a Lost version
	Refused   []Refusal // what was not taken
	Unchanged []ID      // what asks nothing else of this node than before
	// Taken are the objects whose version here is another one than before: the other nodes
	// may not have it yet.
	Taken []ID
}

// Refusal is a version of a peer that was not taken, and why.
type Refusal struct {
	ID  ID
	Err error
}

// Merge takes in versions of objects from another node: whichever side wins, both
// nodes have the same version afterwards. What a file declares here stays the file's as
// long as no API was told to take it over.
func (s *Store) Merge(ctx context.Context, objects []*Object) (*MergeResult, error) {
	result := &MergeResult{}
	refused := s.refuseForeign(objects)
	var merged *plan
	done, err := s.transact(ctx, &Txn{AllowUnresolved: true}, func(p *plan) error {
		p.merging, merged = true, p
		room := p.room()
		for i, theirs := range objects {
			err := refused[i]
			if err == nil {
				err = p.merge(theirs, room)
			}
			if err != nil {
				result.Refused = append(result.Refused, Refusal{theirs.ID, err})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	result.Seq, result.Changes, result.Unchanged = done.Seq, done.Changes, done.Unchanged
	for _, o := range merged.versions() {
		result.Taken = append(result.Taken, o.ID)
	}
	return result, nil
}

// refuseForeign has an error for each object that is not to be taken whatever is here.
func (s *Store) refuseForeign(objects []*Object) []error {
	snap := s.Snapshot()
	refused := make([]error, len(objects))
	_ = inParallel(len(objects), func(i int) error { // it returns none
		o := objects[i]
		if !o.checked {
			refused[i] = o.checkForeign(snap)
		}
		if refused[i] == nil {
			refused[i] = s.clock.checkTimes(o)
		}
		return nil
	})
	return refused
}

// merge plans what becomes of one object.
func (p *plan) merge(theirs *Object, room *room) error {
	taken, err := p.taken(theirs)
	if err != nil {
		return err
	}
	mine := p.current(taken.ID)
	if mine == nil && taken.Deleted && taken.fades(p.now) {
		p.unchanged = append(p.unchanged, taken.ID)
		return nil
	}
	if err := room.take(mine, taken); err != nil {
		return err
	}
	winner, _ := Merge(mine.travelling(), taken)
	if winner.Revision.after(p.clock) {
		p.clock = winner.Revision
	}
	o, err := p.here(mine, winner.copy())
	if err != nil {
		return err
	}
	if p.planned[o.ID] == nil {
		p.order = append(p.order, o.ID)
	}
	p.planned[o.ID] = o
	return nil
}

// taken is a version of another node as this node keeps it.
func (p *plan) taken(theirs *Object) (*Object, error) {
	taken, err := theirs.travelling().fromPeer()
	if err != nil {
		return nil, err
	}
	if taken.Owner.File == "" && taken.Revision.Node == p.store.clock.name() {
		taken.Owner.Kind = OwnerAPI
	}
	taken.Lost = slices.Clone(theirs.Lost)
	for i, lost := range taken.Lost {
		if taken.Lost[i], err = lost.fromPeer(); err != nil {
			return nil, err
		}
	}
	taken.Lost = normalLost(taken, taken.Lost)
	return taken, nil
}

// fromPeer is a copy that belongs to this node, in the form in which things are kept.
func (o *Object) fromPeer() (*Object, error) {
	c := o.copy()
	c.State, c.Owner = o.State.normal(), o.Owner.foreign()
	c.Created, c.Changed = stamp(o.Created), stamp(o.Changed)
	if o.Resource == nil || o.checked {
		return c, nil
	}
	return c, c.setResource(o.Resource)
}

// here is what this node makes of the version that has won over what it had: its files
// are obeyed, and what lives here is not ended by who does not hear of it.
func (p *plan) here(mine, o *Object) (*Object, error) {
	fileHere := mine.live() && mine.Owner.Kind == OwnerFile
	if o.Deleted {
		if fileHere {
			return p.reassert(mine, o, fmt.Sprintf("%s declares it", mine.Owner.File)), nil
		}
		return p.ended(mine, o)
	}
	word, declared := p.shadowed[o.ID]
	if fileHere {
		word = fileWord{mine.Resource, mine.Owner.File}
	}
	switch {
	case o.Owner.OfFile() && fileHere:
		return o, o.underFile(&word, p.store.node)
	case o.Owner.OfFile() && declared: // the API gave it back, elsewhere
		p.shadow(o.ID, nil)
		return o, o.underFile(&word, p.store.node)
	case fileHere: // the API took it over, elsewhere
		p.shadow(o.ID, &word)
	}
	return o, nil
}

// ended is what a deletion elsewhere becomes here.
func (p *plan) ended(mine, tombstone *Object) (*Object, error) {
	if !mine.live() {
		return tombstone, nil
	}
	switch p.store.judge(mine, tombstone) {
	case kept:
		return p.reassert(mine, tombstone, "it is renewed here"), nil
	case upheld:
		o := tombstone.copy()
		p.stamp(o, p.store.clock.follow(p.clock))
		o.Author = tombstone.Author
		return o, nil
	case delayed:
		return nil, fmt.Errorf("%s: ended by %s: %w", tombstone.ID, tombstone.Revision.Node, ErrNotNow)
	}
	return tombstone, nil
}

// reassert is a new version of what this node has, against a deletion elsewhere.
func (p *plan) reassert(mine, tombstone *Object, reason string) *Object {
	o := mine.copy()
	o.elsewhere, o.Vector = nil, tombstone.Vector
	p.stamp(o, p.store.clock.follow(p.clock))
	o.Author, o.Lost = mine.Author, normalLost(o, slices.Clone(tombstone.Lost))
	o.Vector = tombstone.Vector.with(o.Revision).latest(maxPast, o.Lost)
	o.Author.Reason = short(reason)
	p.reasserted[o.ID] = tombstone.asLost()
	return o
}

// sortMerged parts what was merged into changes, versions that ask nothing else of this
// node, and the rest.
func (p *plan) sortMerged() {
	for _, id := range p.order {
		old, o := p.base.find(id), p.planned[id]
		o.reuse(old)
		p.lost[id] = p.gaveWay(old, o)
		switch {
		case old != nil && old.VersionSum() == o.VersionSum() && old.same(o) && old.Owner == o.Owner:
			p.unchanged = append(p.unchanged, id)
		case old != nil && old.same(o) && p.lost[id] == nil && (old.Revision == o.Revision || o.Owner.OfFile()):
			p.unchanged = append(p.unchanged, id)
			p.touched = append(p.touched, o)
		default:
			p.note(old, o)
		}
	}
}

// gaveWay is the version that history is to tell of as lost, nil for none: a deletion
// that was not obeyed, or the latest that has lost to what it had not seen.
func (p *plan) gaveWay(old, o *Object) *Object {
	if tombstone := p.reasserted[o.ID]; tombstone != nil {
		return tombstone
	}
	for _, lost := range o.Lost {
		if old == nil || !slices.ContainsFunc(old.Lost, func(had *Object) bool { return had.Revision == lost.Revision }) {
			return lost
		}
	}
	return nil
}

// reuse lets a version have what the one before it was made into, as far as that is the
// same: the gateway compiles what has another address.
func (o *Object) reuse(old *Object) {
	if !old.live() || o.Deleted || old.manifest != o.manifest {
		return
	}
	o.Resource = old.Resource
	if old.State.identical(o.State) {
		o.State = old.State
		o.effective.Store(old.effective.Load())
	}
}

// room is how much more a merge may bring in.
type room struct{ objects, descriptors int }

func (p *plan) room() *room {
	r := &room{objects: maxObjects - p.base.Len(""), descriptors: p.store.opts.limits.descriptors}
	for _, o := range p.base.live[schemas] {
		r.descriptors -= o.descriptors()
	}
	return r
}

// take refuses what would be too much of what is there. The others of a message are none
// the worse for it.
func (r *room) take(mine, theirs *Object) error {
	more := theirs.descriptors()
	if mine.live() {
		more -= mine.descriptors()
	}
	isNew := !mine.live() && !theirs.Deleted
	switch {
	case isNew && r.objects <= 0:
		return fmt.Errorf("%s: more than %d objects", theirs.ID, maxObjects)
	case more > 0 && more > r.descriptors:
		return fmt.Errorf("%s: more than %d bytes of descriptors in all Schemas", theirs.ID, maxDescriptors)
	}
	if isNew {
		r.objects--
	}
	if more > 0 {
		r.descriptors -= more
	}
	return nil
}

// descriptors are the bytes that count against the bound of all Schemas.
func (o *Object) descriptors() int {
	if s, ok := o.Resource.(*Schema); ok {
		return len(s.Spec.DescriptorSet)
	}
	return 0
}

// stateAction is what a change of the state alone is called.
func stateAction(old, now State) string {
	switch {
	case now.Disabled != old.Disabled && now.Disabled:
		return "disable"
	case now.Disabled != old.Disabled:
		return "enable"
	case len(now.Drains) < len(old.Drains):
		return "undrain"
	case !slices.EqualFunc(now.Drains, old.Drains, Drain.same):
		return "drain"
	case len(now.Splits)+len(old.Splits) > 0:
		return "split"
	}
	return ActionUpdate
}
