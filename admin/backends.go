package admin

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// backendService answers sluice.admin.v1.BackendService.
type backendService struct{ *api }

var _ adminv1.BackendServiceHandler = (*backendService)(nil)

// maxEndpointsListed bounds an answer: some 20 MB.
const maxEndpointsListed = 100_000

// ListEndpoints tells how endpoints are.
func (s *backendService) ListEndpoints(_ context.Context, req *connect.Request[adminv1.ListEndpointsRequest]) (*connect.Response[adminv1.ListEndpointsResponse], error) {
	snapshot := s.store.Snapshot()
	wanted := func(id store.ID) bool { return req.Msg.GetNamespace() == "" || id.Namespace == req.Msg.GetNamespace() }
	if req.Msg.GetBackend() != nil {
		one, err := s.kindOf("backend", req.Msg.GetBackend(), store.BackendKind)
		if err != nil {
			return nil, err
		}
		if _, found := snapshot.Get(one); !found {
			return nil, &store.NotFoundError{ID: one}
		}
		wanted = func(id store.ID) bool { return id == one }
	}
	resp, listed := &adminv1.ListEndpointsResponse{}, 0
	for _, b := range s.backendsSeen(snapshot, wanted) {
		m := b.message()
		if listed += len(m.GetEndpoints()); listed > maxEndpointsListed {
			return nil, refuse(connect.CodeResourceExhausted, "more than %d endpoints: ask for one backend, or one namespace", maxEndpointsListed)
		}
		resp.Backends = append(resp.Backends, m)
	}
	return connect.NewResponse(resp), nil
}

// seenBackend is a backend as it is kept and as the gateway sees it.
type seenBackend struct {
	object    *store.Object
	inForce   []store.Endpoint // of the effective set
	observed  []ObservedEndpoint
	announced map[string]*adminv1.Registration // by address
	problem   error
}

// backendsSeen are the backends of a snapshot that are wanted, in its order.
func (a *api) backendsSeen(snapshot *store.Snapshot, wanted func(store.ID) bool) []seenBackend {
	_, problems := a.gateway.Programmed()
	announced := a.announced(snapshot)
	inForce := map[store.ID][]store.Endpoint{}
	for _, b := range snapshot.Effective().Backends {
		inForce[store.ResourceID(b)] = b.Spec.Endpoints
	}
	var all []seenBackend
	for _, o := range snapshot.All(store.BackendKind) {
		if wanted(o.ID) {
			all = append(all, seenBackend{
				object: o, inForce: inForce[o.ID], observed: a.gateway.Endpoints(o.ID.Key()),
				announced: announced[o.ID], problem: problems[o.ID],
			})
		}
	}
	return all
}

func (b *seenBackend) message() *adminv1.BackendEndpoints {
	m := &adminv1.BackendEndpoints{Backend: refMessage(b.object.ID), Drains: drainMessages(b.object.State.Drains)}
	if b.problem != nil {
		m.Problem = b.problem.Error()
	}
	seen := make(map[string]bool, len(b.observed))
	for i := range b.observed {
		o := &b.observed[i]
		seen[o.Address] = true
		m.Endpoints = append(m.Endpoints, b.dressed(observedMessage(o)))
	}
	for i := range b.inForce {
		if e := &b.inForce[i]; !seen[e.Address] {
			m.Endpoints = append(m.Endpoints, b.dressed(&adminv1.Endpoint{
				Address: e.Address, Source: sourceMessage(e.Source), Zone: e.Zone, Version: e.Version, Weight: e.Weight,
				State: "unused", Why: "it is kept, but not in force",
			}))
		}
	}
	slices.SortFunc(m.Endpoints, func(x, y *adminv1.Endpoint) int { return cmp.Compare(x.GetAddress(), y.GetAddress()) })
	return m
}

// dressed adds what the store knows of an endpoint.
func (b *seenBackend) dressed(m *adminv1.Endpoint) *adminv1.Endpoint {
	m.Registration = b.announced[m.GetAddress()]
	m.Drain = drainMessage(b.object.State.DrainOf(m.GetAddress()))
	return m
}

func drainMessages(drains []store.Drain) (told []*adminv1.Drain) {
	for i := range drains {
		told = append(told, drainMessage(&drains[i]))
	}
	return told
}

func drainMessage(d *store.Drain) *adminv1.Drain {
	if d == nil {
		return nil
	}
	return &adminv1.Drain{Endpoint: d.Endpoint, Since: stamp(d.Since), Grace: duration(time.Duration(d.Grace)), By: d.By}
}

func sourceMessage(s store.Source) adminv1.Endpoint_Source {
	switch s {
	case store.SourceDNS:
		return adminv1.Endpoint_SOURCE_DNS
	case store.SourceRegistered:
		return adminv1.Endpoint_SOURCE_REGISTERED
	}
	return adminv1.Endpoint_SOURCE_STATIC
}

func observedMessage(o *ObservedEndpoint) *adminv1.Endpoint {
	m := &adminv1.Endpoint{
		Address: o.Address, Source: sourceMessage(o.Source), Zone: o.Zone, Version: o.Version, Weight: o.Weight,
		State: o.State, Why: o.Why, Since: stamp(o.Since), Active: whole(o.Active), Connections: whole(o.Connections),
		Rpcs: o.RPCs, P99: duration(o.P99),
	}
	if o.Success >= 0 && !math.IsNaN(o.Success) {
		m.Success = &o.Success
	}
	return m
}

// whole is a count as messages have it.
func whole(n int) uint32 { return uint32(min(max(n, 0), math.MaxUint32)) }

// draining are those endpoints of a backend that are drained, as they are now: of the
// addresses that are given, or all when there are none.
func (a *api) draining(id store.ID, addresses []string) (told []*adminv1.Endpoint) {
	meant := make(map[string]bool, len(addresses))
	for _, address := range addresses {
		meant[store.NormalAddress(address)] = true
	}
	for _, b := range a.backendsSeen(a.store.Snapshot(), func(other store.ID) bool { return other == id }) {
		for _, e := range b.message().GetEndpoints() {
			if e.GetDrain() != nil && (len(addresses) == 0 || meant[store.NormalAddress(e.GetAddress())]) {
				told = append(told, e)
			}
		}
	}
	return told
}

// Rebalance begins to move streams.
func (s *backendService) Rebalance(ctx context.Context, req *connect.Request[adminv1.RebalanceRequest]) (*connect.Response[adminv1.RebalanceResponse], error) {
	if _, err := author(ctx, req.Msg.GetReason()); err != nil {
		return nil, err
	}
	id, err := s.kindOf("backend", req.Msg.GetBackend(), store.BackendKind)
	if err != nil {
		return nil, err
	}
	if _, found := s.store.Snapshot().Get(id); !found {
		return nil, &store.NotFoundError{ID: id}
	}
	percent := cmp.Or(req.Msg.GetPercent(), 100)
	if percent > 100 {
		return nil, store.Faults{{Field: "percent", Message: fmt.Sprintf("%d: want 1 to 100", percent)}}
	}
	moved, err := s.gateway.Rebalance(id.Key(), int(percent))
	if err != nil {
		return nil, refuse(connect.CodeFailedPrecondition, "rebalance %s: %w", id, err)
	}
	return connect.NewResponse(&adminv1.RebalanceResponse{Moved: whole(moved)}), nil
}
