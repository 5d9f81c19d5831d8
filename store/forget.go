package store

import "context"

// Forget drops objects without a tombstone that other nodes would get: they were deleted
// elsewhere while this node was away for longer than TombstoneLife. History has it. What
// a file here declares stays.
func (s *Store) Forget(ctx context.Context, ids []ID, author Author, reason string) (*Result, error) {
	author.Reason = reason
	txn := &Txn{Author: author, AllowUnresolved: true}
	return s.transact(ctx, txn, func(p *plan) error { return nil })
}
