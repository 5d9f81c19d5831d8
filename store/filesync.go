package store

import "context"

// SyncFiles makes the objects that files own those of set, which is all that the
// files declare: it creates, updates and deletes. What the API owns stays as it is,
// with a warning when a file declares it, too. Operational state stays. Set belongs
// to the store from now on.
func (s *Store) SyncFiles(ctx context.Context, set *Set, author Author) (*Result, error) {
	txn := &Txn{Author: author, AllowUnresolved: s.opts.AllowUnresolved}
	return s.transact(ctx, txn, func(p *plan) error { return p.syncFiles(set.Resources()) })
}

func (p *plan) syncFiles(resources []Resource) error {
	declared := make([]*Object, len(resources))
	err := inParallel(len(resources), func(i int) error {
		declared[i] = &Object{ID: ResourceID(resources[i])}
		return declared[i].setResource(withMeta(resources[i], keepMeta))
	})
	if err != nil {
		return err
	}
	ids := make(map[ID]bool, len(declared))
	p.shadowed, p.copied = map[ID]fileWord{}, true
	for _, o := range declared {
		ids[o.ID] = true
		old := p.base.find(o.ID)
		if old.live() && !old.Owner.OfFile() {
			p.shadowed[o.ID] = fileWord{o.Resource, fileLine(o.Resource)}
			p.warn("%s: declared by %s, but the API owns it and is obeyed; release it to give it back to the file",
				o.ID, fileLine(o.Resource))
			continue
		}
		p.declare(o.ID, o, Owner{Kind: OwnerFile, File: fileLine(o.Resource)})
	}
	for _, o := range p.base.All("") {
		if o.Owner.Kind == OwnerFile && !ids[o.ID] {
			p.edit(o.ID).bury()
		}
	}
	return nil
}
