package store

import "context"

// Orphans are the objects that a file declares of a node that is gone, in the order of
// their IDs: nobody but that file says that they are to be there.
func (s *Snapshot) Orphans(gone func(node string) bool) []*Object {
	var list []*Object
	for _, objects := range s.live {
		for _, o := range objects {
			if o.Owner.Kind == OwnerPeer && o.Owner.OfFile() && o.FileNode != "" && gone(o.FileNode) {
				list = append(list, o)
			}
		}
	}
	return list
}

// Redeclare says anew to the other nodes what files here declare, where what they have
// instead is the word of a file of a node that is gone: the text of a file that is there
// goes before that of one which is not. So a new text has reached all nodes when the last
// node with the old one is gone.
func (s *Store) Redeclare(ctx context.Context, author Author, gone func(node string) bool) (*Result, error) {
	var ids []ID
	for _, o := range s.Snapshot().All("") {
		if o.outlivesWord(gone) {
			ids = append(ids, o.ID)
		}
	}
	if len(ids) == 0 {
		return &Result{Seq: s.Snapshot().seq}, nil
	}
	txn := &Txn{Author: author, Action: ActionReassert, AllowUnresolved: true}
	return s.transact(ctx, txn, func(p *plan) error {
		for _, id := range ids {
			if o := p.current(id); o.live() && o.outlivesWord(gone) {
				p.edit(id).elsewhere = nil
				p.restated[id] = true
			}
		}
		return nil
	})
}

// outlivesWord tells whether a file here says otherwise than one that is gone, which the
// other nodes obey.
func (o *Object) outlivesWord(gone func(node string) bool) bool {
	return o.Owner.Kind == OwnerFile && o.elsewhere != nil && o.elsewhere.node != "" && gone(o.elsewhere.node)
}
