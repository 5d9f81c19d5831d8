package admin

import (
	"context"
	"slices"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// Conflicts live in the store, on each node the same: they can be seen and settled also
// where there is no cluster any more.

// ListConflicts lists the objects that nodes changed unknown to each other.
func (s *clusterService) ListConflicts(_ context.Context, req *connect.Request[adminv1.ListConflictsRequest]) (*connect.Response[adminv1.ListConflictsResponse], error) {
	var of store.ID
	if req.Msg.GetRef() != nil {
		var err error
		if of, err = idOf("ref", req.Msg.GetRef()); err != nil {
			return nil, err
		}
	}
	hosts := s.hosts()
	room := manifests{room: maxShown}
	resp := &adminv1.ListConflictsResponse{}
	for _, o := range contested(s.store.Snapshot()) {
		if req.Msg.GetRef() != nil && o.ID != of {
			continue
		}
		m, err := room.contestedMessage(o, hosts)
		if err != nil {
			return nil, err
		}
		resp.Conflicts = append(resp.Conflicts, m)
	}
	return connect.NewResponse(resp), nil
}

// contested are the objects that are in conflict, deleted ones included, in the order of
// their IDs.
func contested(snapshot *store.Snapshot) []*store.Object {
	list := snapshot.Conflicts()
	slices.SortFunc(list, func(a, b *store.Object) int { return a.ID.Compare(b.ID) })
	return list
}

// hosts are the names of the nodes that are known, by their IDs.
func (a *api) hosts() map[string]string {
	hosts := map[string]string{}
	if a.parts.Cluster != nil {
		for _, m := range a.parts.Cluster.Members() {
			hosts[m.ID] = m.Host
		}
	}
	return hosts
}

func (m *manifests) contestedMessage(o *store.Object, hosts map[string]string) (*adminv1.Contested, error) {
	holds, err := m.versionMessage(o, hosts)
	if err != nil {
		return nil, err
	}
	of := &adminv1.Contested{Holds: holds}
	for _, loser := range o.Lost {
		version, err := m.versionMessage(loser, hosts)
		if err != nil {
			return nil, err
		}
		of.Lost = append(of.Lost, version)
	}
	return of, nil
}

func (m *manifests) versionMessage(o *store.Object, hosts map[string]string) (*adminv1.Version, error) {
	object, err := m.message(o, o.Resource)
	if err != nil {
		return nil, err
	}
	return &adminv1.Version{Object: object, Node: o.Revision.Node, Host: hosts[o.Revision.Node]}, nil
}

// SettleConflict writes the side anew that is to hold.
func (s *clusterService) SettleConflict(ctx context.Context, req *connect.Request[adminv1.SettleConflictRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	m := req.Msg
	op, err := s.settlement(m)
	if err != nil {
		return nil, err
	}
	return s.write(ctx, m, store.Txn{
		Action: "settle", Ops: []store.Op{op}, DryRun: m.GetDryRun(), AllowUnresolved: m.GetAllowUnresolved(),
	})
}

// settlement is what it takes to have one side of a conflict hold.
func (s *clusterService) settlement(m *adminv1.SettleConflictRequest) (store.Op, error) {
	id, err := idOf("ref", m.GetRef())
	if err != nil {
		return store.Op{}, err
	}
	holds, err := s.contest(id)
	if err != nil {
		return store.Op{}, err
	}
	if want := m.GetIfRevision(); want != "" && want != holds.Revision.String() {
		return store.Op{}, &store.ConflictError{ID: id, Expected: want, Current: holds}
	}
	op := store.Op{ID: id}
	if !holds.Deleted { // of what is deleted the store knows no revision
		op.IfRevision = holds.Revision.String()
	}
	switch m.GetSide() {
	case adminv1.SettleConflictRequest_SIDE_KEEP:
		op.Settle = true
		return op, nil
	case adminv1.SettleConflictRequest_SIDE_TAKE:
		op.Exact, err = pick(holds, m.GetRevision())
		return op, err
	}
	return store.Op{}, store.Faults{{Field: "side", Message: "want SIDE_KEEP or SIDE_TAKE"}}
}

// contest is what holds of an object that is in conflict.
func (s *clusterService) contest(id store.ID) (*store.Object, error) {
	for _, o := range contested(s.store.Snapshot()) {
		if o.ID == id {
			return o, nil
		}
	}
	return nil, refuse(connect.CodeNotFound, "%s is in no conflict: it never was, or somebody has settled it", id)
}

// pick is the lost version of that revision; without one, the only one that there is.
func pick(holds *store.Object, revision string) (*store.Object, error) {
	if revision == "" && len(holds.Lost) == 1 {
		return holds.Lost[0], nil
	}
	for _, o := range holds.Lost {
		if o.Revision.String() == revision {
			return o, nil
		}
	}
	if revision == "" {
		return nil, store.Faults{{Field: "revision", Message: "more than one version was lost: say which is to hold"}}
	}
	return nil, refuse(connect.CodeNotFound, "%s: no lost version has the revision %s", holds.ID, quoted(revision))
}
