package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// What operators do beside the declarations: splits, drains, and routes taken out of
// the table. Files do not own it, so that nothing need be adopted.

// Split shares out the RPCs of one rule.
func (s *resourceService) Split(ctx context.Context, req *connect.Request[adminv1.SplitRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	m := req.Msg
	id, err := s.kindOf("route", m.GetRoute(), routeKinds...)
	if err != nil {
		return nil, err
	}
	edit := splitEdit(m)
	edit.By, edit.At = IdentityFrom(ctx).Actor, time.Now()
	return s.write(ctx, m, store.Txn{
		Action: "split", DryRun: m.GetDryRun(),
		Ops: []store.Op{{
			ID: id, IfRevision: m.GetIfRevision(),
			State: func(state store.State, o *store.Object) (store.State, error) {
				route, ok := o.Resource.(store.Route)
				if !ok {
					return state, fmt.Errorf("split %s: it is a %T", id, o.Resource)
				}
				return store.EditSplit(route, state, m.GetRule(), edit)
			},
		}},
	})
}

func splitEdit(m *adminv1.SplitRequest) store.SplitEdit {
	edit := store.SplitEdit{Whole: true, ClearPins: m.GetClearPins(), Sticky: m.Sticky, SpillOver: m.SpillOver, Reset: m.GetReset_()}
	for _, share := range m.GetShares() {
		edit.Shares = append(edit.Shares, store.Share{Backend: share.GetBackend(), Weight: share.GetWeight()})
	}
	for _, pin := range m.GetPins() {
		edit.Pins = append(edit.Pins, store.Pin{Header: pin.GetHeader(), Value: pin.GetValue(), Backend: pin.GetBackend()})
	}
	return edit
}

// routeKinds are the kinds that can be split and disabled.
var routeKinds = []string{store.GRPCRouteKind, store.HTTPRouteKind}

// kindOf is the object that a request names by a reference that may leave out the
// kind, when there is one object of that name among the kinds.
func (s *api) kindOf(field string, ref *adminv1.Ref, kinds ...string) (store.ID, error) {
	if ref.GetKind() != "" {
		id, err := idOf(field, ref)
		if err == nil && !slices.Contains(kinds, id.Kind) {
			err = store.Faults{{Field: field + ".kind", Message: fmt.Sprintf("%q: want %s", id.Kind, strings.Join(kinds, " or "))}}
		}
		return id, err
	}
	named := func(kind string) (store.ID, error) {
		return idOf(field, &adminv1.Ref{Kind: kind, Namespace: ref.GetNamespace(), Name: ref.GetName()})
	}
	first, err := named(kinds[0])
	if err != nil {
		return first, err
	}
	var there []store.ID
	for _, kind := range kinds {
		if id, err := named(kind); err == nil {
			if _, found := s.store.Snapshot().Get(id); found {
				there = append(there, id)
			}
		}
	}
	switch len(there) {
	case 0:
		return first, nil // which says that it is not there
	case 1:
		return there[0], nil
	}
	return first, store.Faults{{
		Field:   field + ".kind",
		Message: fmt.Sprintf("there are a %s and an %s %s: say which of them", there[0].Kind, there[1].Kind, there[1].Key()),
	}}
}

// Drain takes a backend, or endpoints of it, out of the choice, or puts it back.
func (s *resourceService) Drain(ctx context.Context, req *connect.Request[adminv1.DrainRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	m := req.Msg
	id, err := s.kindOf("backend", m.GetBackend(), store.BackendKind)
	if err != nil {
		return nil, err
	}
	action := "drain"
	if m.GetUndo() {
		action = "undrain"
	}
	grace, err := durationOf("grace", m.GetGrace())
	if err != nil {
		return nil, err
	}
	edit := store.DrainEdit{
		Endpoints: m.GetEndpoints(), Grace: grace, Undo: m.GetUndo(), At: time.Now(), By: IdentityFrom(ctx).Actor,
	}
	resp, err := s.write(ctx, m, store.Txn{
		Action: action, DryRun: m.GetDryRun(),
		Ops: []store.Op{{
			ID: id,
			State: func(state store.State, o *store.Object) (store.State, error) {
				backend, ok := o.Resource.(*store.Backend)
				if !ok {
					return state, fmt.Errorf("drain %s: it is a %T", id, o.Resource)
				}
				return store.EditDrain(backend, state, edit)
			},
		}},
	})
	if err == nil && !m.GetUndo() && !m.GetDryRun() {
		resp.Msg.Draining = s.draining(id, m.GetEndpoints())
	}
	return resp, err
}

// Disable takes a route out of the table, or puts it back.
func (s *resourceService) Disable(ctx context.Context, req *connect.Request[adminv1.DisableRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	m := req.Msg
	id, err := s.kindOf("route", m.GetRoute(), routeKinds...)
	if err != nil {
		return nil, err
	}
	action := "disable"
	if m.GetUndo() {
		action = "enable"
	}
	return s.write(ctx, m, store.Txn{
		Action: action, DryRun: m.GetDryRun(),
		Ops: []store.Op{{
			ID: id,
			State: func(state store.State, _ *store.Object) (store.State, error) {
				state.Disabled = !m.GetUndo()
				return state, nil
			},
		}},
	})
}
