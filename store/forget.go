package store

import "context"

// Forget drops objects without a tombstone that other nodes would get: they were deleted
// elsewhere while this node was away for longer than TombstoneLife. History has it. What
// a file here declares stays, and so does what a process that lives has registered here.
func (s *Store) Forget(ctx context.Context, ids []ID, author Author, reason string) (*Result, error) {
	author.Reason = reason
	txn := &Txn{Author: author, Action: ActionForget, AllowUnresolved: true}
	return s.transact(ctx, txn, func(p *plan) error {
		for _, id := range ids {
			p.forget(id)
		}
		return nil
	})
}

func (p *plan) forget(id ID) {
	o := p.current(id)
	if !o.live() || o.Owner.Kind == OwnerFile || p.store.keeps(id) {
		return
	}
	p.edit(id).bury()
	p.forgotten[id] = true
}

// remembered is a snapshot without what is forgotten.
func (p *plan) remembered(next *Snapshot) *Snapshot {
	if len(p.forgotten) == 0 {
		return next
	}
	var gone []*Object
	for _, o := range p.versions() {
		if p.forgotten[o.ID] {
			gone = append(gone, o)
		}
	}
	return next.without(gone)
}
