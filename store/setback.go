package store

import (
	"context"
	"fmt"
	"maps"

	"sluice/store/disk"
)

// A node whose store was set back to an earlier state has forgotten what it said since,
// and its peers have not. Were it to go on under its name, its next edit would be taken
// for a successor of all that it has ever said, and what it has forgotten would be lost
// with nobody told. Under another name that edit is one of a stranger: a conflict.

// renameLossy gives the node another name when it opens a store that may have lost what
// was written last.
func (s *Store) renameLossy(node nodeRow) (nodeRow, error) {
	former := node.Node
	node.Node = newNode()
	s.renamed = fmt.Sprintf("what this node wrote last may be lost, and peers may have it: from now on it is node %s, it was %s", node.Node, former)
	return node, s.disk.Update(func(tx *disk.Tx) error { return writeNode(tx, node) })
}

// Forgot tells whether a peer has seen a revision that this node has made, and of which it
// does not know: its store was set back. See SetBack.
func (s *Store) Forgot(r Revision) bool { return s.clock.forgot(r) }

// SetBack is told of a revision that this node has forgotten. From then on it makes
// revisions under another name, which is that of the node from its next start on; those
// that it has made since it was opened have that name, too, and do not claim to have seen
// what was forgotten. It tells whether there was anything to do.
func (s *Store) SetBack(ctx context.Context, forgotten Revision) (bool, error) {
	if err := s.begin(ctx); err != nil {
		return false, err
	}
	defer s.end()
	if !s.clock.forgot(forgotten) {
		return false, nil
	}
	former, name := s.clock.name(), newNode()
	if err := s.rename(former, name); err != nil {
		return false, fmt.Errorf("take another name than %s: %w", former, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renamed = fmt.Sprintf("this node was set back to an earlier state: a peer has seen its revision %s, of which it does not know; what it writes is that of node %s from now on, and from its next start on that is its name: restart it when it suits", forgotten, name)
	return true, nil
}

// rename has the node write under another name, and what it has written since it was
// opened be of that. Its caller writes.
func (s *Store) rename(former, name string) error {
	p := s.newPlan(&Txn{Action: ActionReassert})
	for _, o := range append(p.base.All(""), p.base.tombstones...) {
		if r := o.Revision; r.Node == former && r.Wall > firstWall && r.after(s.clock.before) {
			p.note(o, o.renamed(name, s.clock.before))
		}
	}
	p.next = p.base.with(p.base.seq+uint64(len(p.changes)), p.versions())
	s.clock.rename(name)
	err := s.commit(p)
	if err == nil && len(p.changes) == 0 { // nothing was written
		err = s.disk.Update(s.writeName)
	}
	if err != nil {
		s.clock.rename(former)
	}
	return err
}

// writeName keeps the name under which the node writes.
func (s *Store) writeName(tx *disk.Tx) error {
	node, err := readNode(tx)
	if err != nil {
		return err
	}
	node.Node = s.clock.name()
	return writeNode(tx, node)
}

// renamed is the version as one of another name, which has seen of the former one what it
// had made before, and what has lost to the version.
func (o *Object) renamed(name string, before Revision) *Object {
	c := o.copy()
	former := o.Revision.Node
	c.Vector = maps.Clone(o.Vector)
	delete(c.Vector, former)
	if before.Node == former {
		c.Vector[former] = before
	}
	for _, lost := range o.Lost {
		if r := lost.Revision; r.Node == former && !c.Vector.Seen(r) {
			c.Vector[former] = r
		}
	}
	c.Revision.Node = name
	c.Vector = c.Vector.with(c.Revision).latest(maxPast, o.Lost)
	return c
}
