package store

import (
	"context"
	"errors"
	"fmt"
)

// maxNodes bounds how many nodes may ever have changed one object.
const maxNodes = 1000

// MergeResult is what Store.Merge did.
type MergeResult struct {
	Seq       uint64
	Changes   []Change  // those of action "conflict" have a Lost version
	Refused   []Refusal // what was not taken
	Unchanged []ID
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
// nodes have the same afterwards. What a file declares here stays the file's.
func (s *Store) Merge(ctx context.Context, objects []*Object) (*MergeResult, error) {
	result := &MergeResult{}
	var planned *plan
	done, err := s.transact(ctx, &Txn{AllowUnresolved: true}, func(p *plan) error {
		p.merging, planned = true, p
		for _, theirs := range objects {
			if err := p.merge(theirs); err != nil {
				result.Refused = append(result.Refused, Refusal{theirs.ID, err})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	result.Seq, result.Changes, result.Unchanged = done.Seq, done.Changes, done.Unchanged
	for _, o := range planned.versions() {
		result.Taken = append(result.Taken, o.ID)
	}
	return result, nil
}

// merge plans what becomes of one object.
func (p *plan) merge(theirs *Object) error {
	if err := p.checkForeign(theirs); err != nil {
		return err
	}
	mine := p.base.find(theirs.ID)
	if mine.live() && mine.Owner.Kind == OwnerFile {
		return &OwnedError{mine.ID, mine.Owner}
	}
	if p.planned[theirs.ID] != nil {
		return fmt.Errorf("%s: two versions in one message", theirs.ID)
	}
	taken := theirs.copy()
	if theirs.Resource != nil {
		if err := taken.setResource(theirs.Resource); err != nil {
			return err
		}
	}
	taken.Owner = Owner{Kind: OwnerPeer}
	if taken.Revision.Node == p.store.clock.node {
		taken.Owner.Kind = OwnerAPI
	}
	winner, outcome := Merge(mine, taken)
	p.order = append(p.order, theirs.ID)
	p.planned[theirs.ID] = winner.copy()
	if winner.Revision.after(p.clock) {
		p.clock = winner.Revision
	}
	if outcome != MergeSame && outcome != MergeMine {
		p.foreign[theirs.ID] = outcome
	}
	switch outcome {
	case MergeConflictMine:
		p.lost[theirs.ID] = taken
	case MergeConflictTheirs:
		p.lost[theirs.ID] = mine
	}
	return nil
}

// checkForeign refuses what no node of good health would send.
func (p *plan) checkForeign(o *Object) error {
	if id, err := o.ID.normal(); err != nil || id != o.ID {
		return errors.Join(fmt.Errorf("%s: not the ID of an object", o.ID), err)
	}
	if o.Revision.IsZero() || !isNode(o.Revision.Node) || !o.Vector.Seen(o.Revision) {
		return fmt.Errorf("%s: revision %s is not part of its own past", o.ID, o.Revision)
	}
	if len(o.Vector) > maxNodes {
		return fmt.Errorf("%s: has seen %d nodes, limit %d", o.ID, len(o.Vector), maxNodes)
	}
	for node, r := range o.Vector {
		if node != r.Node || !isNode(node) {
			return fmt.Errorf("%s: has seen %s of node %s", o.ID, r, quote(node))
		}
		if r.Compare(o.Revision) > 0 {
			return fmt.Errorf("%s: revision %s has seen the later %s", o.ID, o.Revision, r)
		}
	}
	if o.Deleted == (o.Resource != nil) {
		return fmt.Errorf("%s: want either a resource or a deletion", o.ID)
	}
	if o.Resource != nil && ResourceID(o.Resource) != o.ID {
		return fmt.Errorf("%s: declares %s", o.ID, ResourceID(o.Resource))
	}
	if err := p.store.clock.check(o.Revision); err != nil || o.Resource == nil {
		return err
	}
	return p.store.checkForeign([]*Object{o})
}
