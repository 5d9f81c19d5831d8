package admin

import (
	"bytes"
	"context"
	"fmt"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// A write is a transaction of the store and then a wait for the gateway. Its answer
// says what has changed, and what went wrong behind the point of no return.

// Apply declares what a text has.
func (s *resourceService) Apply(ctx context.Context, req *connect.Request[adminv1.ApplyRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	m := req.Msg
	ops, warnings, err := s.declarations(ctx, m.GetFile(), m.GetText())
	if err != nil {
		return nil, err
	}
	resp, err := s.write(ctx, m, store.Txn{
		Ops: ops, AllowUnresolved: m.GetAllowUnresolved(), DryRun: m.GetDryRun(), TakeOver: m.GetTakeOver(),
	})
	return withWarnings(resp, warnings), err
}

// withWarnings puts what is to be said of a text before what is said of its writing.
func withWarnings(resp *connect.Response[adminv1.WriteResponse], warnings []string) *connect.Response[adminv1.WriteResponse] {
	if resp != nil {
		resp.Msg.Warnings = append(warnings, resp.Msg.Warnings...)
	}
	return resp
}

// declarations are what it takes to declare a text, and what of it has no effect.
// Large texts are parsed one at a time.
func (a *api) declarations(ctx context.Context, file, text string) (ops []store.Op, warnings []string, err error) {
	if file == "" {
		file = "text"
	}
	if len(text) > smallBody {
		select {
		case a.parsing <- struct{}{}:
			defer func() { <-a.parsing }()
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	set, faults := store.Parse(file, []byte(text))
	if len(faults) > 0 {
		return nil, nil, faults
	}
	for _, r := range set.Resources() {
		ops = append(ops, store.Op{ID: store.ResourceID(r), Apply: r})
	}
	if len(ops) == 0 {
		return nil, nil, store.Faults{{File: file, Message: "declares nothing"}}
	}
	return ops, set.Warnings(), nil
}

// Diff tells what Apply would change. That a file owns an object is no reason not to
// tell, but a warning.
func (s *resourceService) Diff(ctx context.Context, req *connect.Request[adminv1.DiffRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	ops, warnings, err := s.declarations(ctx, req.Msg.GetFile(), req.Msg.GetText())
	if err != nil {
		return nil, err
	}
	by, err := author(ctx, "")
	if err != nil {
		return nil, err
	}
	result, err := s.store.Write(ctx, store.Txn{
		Author: by, Ops: ops, AllowUnresolved: req.Msg.GetAllowUnresolved(), DryRun: true, TakeOver: true,
	})
	if err != nil {
		return nil, err
	}
	if err := withoutAdoptions(result); err != nil {
		return nil, err
	}
	resp, err := s.written(result, maxShown)
	return withWarnings(resp, warnings), err
}

// withoutAdoptions takes the change of the owner, which only Diff's own transaction
// wanted, out of a result.
func withoutAdoptions(result *store.Result) error {
	kept := result.Changes[:0]
	for _, c := range result.Changes {
		if c.Before == nil || !c.Before.Owner.OfFile() {
			kept = append(kept, c)
			continue
		}
		same, err := sameManifest(c.Before, c.After)
		if err != nil {
			return err
		}
		if same {
			result.Unchanged = append(result.Unchanged, c.ID)
			continue
		}
		c.Action = store.ActionUpdate
		kept = append(kept, c)
		result.Warnings = append(result.Warnings, fmt.Sprintf(
			"%s is declared by %s: apply refuses it, unless it is told to take it over", c.ID, c.Before.Owner))
	}
	result.Changes = kept
	return nil
}

// sameManifest says whether two objects declare the same.
func sameManifest(a, b *store.Object) (bool, error) {
	if a.Deleted != b.Deleted {
		return false, nil
	}
	first, err := a.Manifest()
	if err != nil {
		return false, err
	}
	second, err := b.Manifest()
	return bytes.Equal(first, second), err
}

// Delete removes one object.
func (s *resourceService) Delete(ctx context.Context, req *connect.Request[adminv1.DeleteRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	m := req.Msg
	id, err := idOf("ref", m.GetRef())
	if err != nil {
		return nil, err
	}
	return s.write(ctx, m, store.Txn{
		Ops:             []store.Op{{ID: id, Delete: true, IfRevision: m.GetIfRevision()}},
		AllowUnresolved: m.GetAllowUnresolved(), DryRun: m.GetDryRun(), TakeOver: m.GetTakeOver(),
	})
}

// Adopt changes the owner of an object.
func (s *resourceService) Adopt(ctx context.Context, req *connect.Request[adminv1.AdoptRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	id, err := idOf("ref", req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	return s.write(ctx, req.Msg, store.Txn{
		Ops: []store.Op{{ID: id, Adopt: !req.Msg.GetUndo(), Release: req.Msg.GetUndo()}},
	})
}

// write carries out a transaction, and waits until it is in force.
func (a *api) write(ctx context.Context, asked change, txn store.Txn) (*connect.Response[adminv1.WriteResponse], error) {
	err := checkWait(asked.GetWait())
	if err != nil {
		return nil, err
	}
	if txn.Author, err = author(ctx, asked.GetReason()); err != nil {
		return nil, err
	}
	result, err := a.store.Write(ctx, txn)
	if err != nil {
		return nil, err
	}
	if txn.DryRun {
		return a.written(result, maxWritten)
	}
	return a.kept(ctx, asked, result)
}

// kept is the answer to what was written, once it is in force here and, if that was asked
// for, at the live peers.
func (a *api) kept(ctx context.Context, asked change, result *store.Result) (*connect.Response[adminv1.WriteResponse], error) {
	a.await(ctx, result)
	peers := a.confirm(ctx, asked.GetWait(), a.toConfirm(result))
	resp, err := a.written(result, maxWritten)
	if err == nil {
		resp.Msg.Peers = peers
	}
	return resp, err
}

// await waits until what was written is in force, and adds to the warnings what is
// not. The write itself stands, whatever becomes of the wait.
func (a *api) await(ctx context.Context, result *store.Result) {
	if len(result.Changes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	if err := a.gateway.WaitProgrammed(ctx, result.Seq); err != nil {
		result.Warnings = append(result.Warnings, fmt.Sprintf(
			"the change is kept, but not in force after %s; see the problems that status tells of", programTime))
		return
	}
	_, problems := a.gateway.Programmed()
	for i := range result.Changes {
		if err := problems[result.Changes[i].ID]; err != nil {
			result.Warnings = append(result.Warnings, fmt.Sprintf("%s is kept, but not in force: %v", result.Changes[i].ID, err))
		}
	}
}

// written is the answer to a write. Beyond room the manifests are left out, of
// whole changes.
func (a *api) written(result *store.Result, room int) (*connect.Response[adminv1.WriteResponse], error) {
	resp := &adminv1.WriteResponse{Sequence: result.Seq, Warnings: result.Warnings}
	left := manifests{room: room}
	for i := range result.Changes {
		m, err := left.changeMessage(&result.Changes[i])
		if err != nil {
			return nil, err
		}
		if left.short {
			m.Before, m.After, m.Lost = nil, nil, nil
		}
		resp.Changes = append(resp.Changes, m)
	}
	for _, id := range result.Unchanged {
		resp.Unchanged = append(resp.Unchanged, refMessage(id))
	}
	if left.short {
		resp.Warnings = append(resp.Warnings, fmt.Sprintf(
			"the changes have more than %d bytes: some are told without what was before and after", room))
	}
	return connect.NewResponse(resp), nil
}
