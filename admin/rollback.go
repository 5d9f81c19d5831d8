package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// Rollback gives one object the content that it had, or all what they had at a time.
// What a file declares stays as the file says; the answer tells of it.
func (s *resourceService) Rollback(ctx context.Context, req *connect.Request[adminv1.RollbackRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	m := req.Msg
	var ops []store.Op
	var warnings []string
	var err error
	switch {
	case m.GetTo() != nil && m.GetRef() != nil:
		err = store.Faults{{Field: "to", Message: "want one object, or all objects to a time, not both"}}
	case m.GetTo() == nil:
		ops, warnings, err = s.rollbackOne(m.GetRef(), m.GetRevision())
	case m.GetTo().CheckValid() != nil:
		err = store.Faults{{Field: "to", Message: m.GetTo().CheckValid().Error()}}
	default:
		ops, warnings, err = s.rollbackAll(m.GetTo().AsTime())
	}
	if err != nil {
		return nil, err
	}
	resp, err := s.write(ctx, m, store.Txn{
		Action: "rollback", Ops: ops, DryRun: m.GetDryRun(), AllowUnresolved: m.GetAllowUnresolved(),
	})
	if err != nil {
		return nil, err
	}
	resp.Msg.Warnings = append(warnings, resp.Msg.Warnings...)
	return resp, nil
}

// rollbackAll plans to make everything what it was at a time.
func (s *resourceService) rollbackAll(to time.Time) ([]store.Op, []string, error) {
	then, err := s.store.At(to)
	if err != nil {
		return nil, nil, err
	}
	now := s.store.Snapshot()
	ops, warnings := now.OpsTo(then)
	for i := range ops {
		if o, there := now.Get(ops[i].ID); there {
			ops[i].IfRevision = o.Revision.String() // what was looked at
		}
	}
	return ops, warnings, nil
}

// rollbackOne plans to give an object the content of an earlier version, as far as
// no file has a say in it.
func (s *resourceService) rollbackOne(ref *adminv1.Ref, revision string) ([]store.Op, []string, error) {
	id, err := idOf("ref", ref)
	if err != nil {
		return nil, nil, err
	}
	to, err := s.store.Version(id, revision)
	if _, there := s.store.Snapshot().Get(id); there && revision != "" && errors.As(err, new(*store.NotFoundError)) {
		err = refuse(connect.CodeNotFound, "%s has no revision %q in what is kept of its history", id, revision)
	}
	if err != nil {
		return nil, nil, err
	}
	if revision == "" && to.Deleted {
		return nil, nil, refuse(connect.CodeFailedPrecondition,
			"%s: before its last change there was no such object; delete it, or name the revision to go back to", id)
	}
	op := store.Op{ID: id, Exact: to}
	now, there := s.store.Snapshot().Get(id)
	if !there {
		return []store.Op{op}, nil, nil
	}
	op.IfRevision = now.Revision.String() // what was looked at
	if !now.Owner.OfFile() {
		return []store.Op{op}, nil, nil
	}
	same, err := sameManifest(now, to)
	if err != nil || same {
		return []store.Op{op}, nil, err
	}
	warning := fmt.Sprintf("%s is declared by %s: what it declares stays, splits, drains and the like go back; change the file, or adopt the object first", id, now.Owner)
	op.Exact, op.State = nil, func(store.State, *store.Object) (store.State, error) { return to.State, nil }
	return []store.Op{op}, []string{warning}, nil
}
