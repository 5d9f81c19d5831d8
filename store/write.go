package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sluice/store/disk"
)

// Txn is what one author does in one go: all of it or nothing.
type Txn struct {
	Author Author
	Ops    []Op
	// Action names the changes, in place of what the store would call them.
	Action string
	// AllowUnresolved accepts references that lead nowhere; they are warnings then.
	AllowUnresolved bool
	// DryRun does everything but the change.
	DryRun bool
	// TakeOver adopts what a file owns when the author declares it, or deletes it. What a
	// file of this node declares is not deleted: it would be there again.
	TakeOver bool
}

// Op is one thing to do to one object; exactly one of its fields that say what is set.
type Op struct {
	ID ID // Apply and Exact have their own
	// IfRevision is the revision that the object must have; empty means any. A
	// Resource's ResourceVersion means the same.
	IfRevision string

	// Apply declares the object. The store owns it from now on.
	Apply Resource
	// Delete removes it.
	Delete bool
	// State makes another state of the one it has. The State that it is given may be
	// changed, the object may not. It may be called more than once.
	State func(State, *Object) (State, error)
	// Exact gives the object the resource and the state of an earlier version, or
	// deletes it if that was deleted.
	Exact *Object
	// Adopt makes the API the owner of what a file declares, Release gives it back.
	Adopt, Release bool
	// Settle ends a conflict: the object, or its deletion, stays as it is, and gives up its
	// Lost versions. What has none is unchanged. The other way to end one is Exact with a
	// lost version, and so does every other edit.
	Settle bool
}

// Result is what a transaction did, or would do.
type Result struct {
	Seq       uint64 // of the last change, of this transaction or before it
	Changes   []Change
	Unchanged []ID // what was as it should be
	Warnings  []string
}

// Write does what txn asks. The error says why nothing was done: Faults, a
// *ConflictError, *OwnedError, *NotFoundError, or one of the disk, as disk.ErrFull.
// When it returns nil, the change is on the disk and in Snapshot.
func (s *Store) Write(ctx context.Context, txn Txn) (*Result, error) {
	return s.transact(ctx, &txn, func(p *plan) error {
		for i := range txn.Ops {
			if err := p.do(&txn.Ops[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// transact plans a transaction, checks it and commits it.
func (s *Store) transact(ctx context.Context, txn *Txn, fill func(*plan) error) (*Result, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if err := txn.Author.check(); err != nil {
		return nil, err
	}
	p := s.newPlan(txn)
	if err := fill(p); err != nil {
		return nil, err
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !txn.DryRun {
		if err := s.commit(p); err != nil {
			return nil, err
		}
		s.shadowed = p.shadowed
	}
	return p.result(), nil
}

// commit writes a plan to the disk and makes it visible.
func (s *Store) commit(p *plan) error {
	if len(p.changes) == 0 && len(p.touched) == 0 {
		return nil
	}
	c, err := s.encode(p)
	if err != nil {
		return err
	}
	if err := s.disk.Update(c.write); err != nil {
		return fmt.Errorf("write %d changes: %w", len(p.changes), err)
	}
	s.clock.keep(p.clock, p.first, p.made)
	s.publish(p.next, p.changes, c.events, c.dropped)
	return nil
}

// commitment is a plan in rows.
type commitment struct {
	forgotten []ID          // their rows go
	objects   []objectBytes // in the order of their keys, which the disk likes best
	changes   [][]byte
	events    []event // of changes
	dropped   []event
	node      nodeRow
}

// objectBytes is the row of an object.
type objectBytes struct {
	id  ID
	row []byte
}

// encode makes the rows of a plan, and decides what history drops for them.
func (s *Store) encode(p *plan) (*commitment, error) {
	c := &commitment{
		objects: make([]objectBytes, 0, len(p.changes)+len(p.touched)),
		changes: make([][]byte, len(p.changes)), events: make([]event, len(p.changes)),
	}
	for _, o := range p.touched {
		row, err := encodeObject(o)
		if err != nil {
			return nil, err
		}
		c.objects = append(c.objects, objectBytes{o.ID, row})
	}
	rows := make([][]byte, len(p.changes))
	err := inParallel(len(p.changes), func(i int) (err error) {
		change := p.changes[i]
		if rows[i], err = encodeObject(change.After); err != nil {
			return err
		}
		c.changes[i], err = encodeChange(change, rows[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, change := range p.changes {
		if p.forgotten[change.ID] {
			c.forgotten = append(c.forgotten, change.ID)
		} else {
			c.objects = append(c.objects, objectBytes{change.ID, rows[i]})
		}
		c.events[i] = event{change.Seq, change.Time, len(c.changes[i]), change.ID}
	}
	slices.SortFunc(c.objects, func(a, b objectBytes) int { return a.id.Compare(b.id) })
	s.mu.RLock()
	defer s.mu.RUnlock()
	c.dropped = s.timeline.surplus(c.events)
	c.node = nodeRow{
		Format: rowFormat, Node: s.clock.name(), Seq: p.next.seq, Clock: s.clock.seen(), Made: s.clock.highest(),
		Forgotten: s.timeline.forgotten, Until: s.timeline.until,
	}
	if p.clock.after(c.node.Clock) {
		c.node.Clock = p.clock
	}
	if p.made.after(c.node.Made) {
		c.node.Made = p.made
	}
	for _, e := range c.dropped {
		if e.seq > c.node.Forgotten {
			c.node.Forgotten, c.node.Until = e.seq, e.time
		}
	}
	return c, nil
}

func (c *commitment) write(tx *disk.Tx) error {
	for _, o := range c.objects {
		if err := tx.Put(objectRows, objectKey(o.id), o.row); err != nil {
			return err
		}
	}
	for _, id := range c.forgotten {
		if err := tx.Delete(objectRows, objectKey(id)); err != nil {
			return err
		}
	}
	for i, e := range c.events {
		key := seqKey(e.seq)
		if err := tx.Put(changeRows, key, c.changes[i]); err != nil {
			return err
		}
		if err := tx.Put(indexRows, key, e.encode()); err != nil {
			return err
		}
	}
	for _, e := range c.dropped {
		key := seqKey(e.seq)
		if err := tx.Delete(changeRows, key); err != nil {
			return err
		}
		if err := tx.Delete(indexRows, key); err != nil {
			return err
		}
	}
	return writeNode(tx, c.node)
}

// stamp is the time as changes have it: what a row keeps, and no more.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
