package admin

import (
	"context"
	"strings"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// resourceService answers sluice.admin.v1.ResourceService. Its reads are from one
// snapshot each; its writes are in resources_write.go.
type resourceService struct{ *api }

var _ adminv1.ResourceServiceHandler = (*resourceService)(nil)

// Get reads one object, with its conditions, and what is seen of a route.
func (s *resourceService) Get(_ context.Context, req *connect.Request[adminv1.GetRequest]) (*connect.Response[adminv1.GetResponse], error) {
	id, err := idOf("ref", req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	snapshot := s.store.Snapshot()
	o, found := snapshot.Get(id)
	if !found {
		return nil, &store.NotFoundError{ID: id}
	}
	c, err := s.conditionsOf(snapshot)
	if err != nil {
		return nil, err
	}
	room := manifests{room: maxListed}
	m, err := room.objectMessage(o)
	if err != nil {
		return nil, err
	}
	m.Conditions = c.of(o)
	return connect.NewResponse(&adminv1.GetResponse{Object: m, Observed: s.observed(o)}), nil
}

// List reads all objects of a kind and a namespace.
func (s *resourceService) List(_ context.Context, req *connect.Request[adminv1.ListRequest]) (*connect.Response[adminv1.ListResponse], error) {
	if err := checkKind("kind", req.Msg.GetKind()); err != nil {
		return nil, err
	}
	snapshot := s.store.Snapshot()
	c, err := s.conditionsOf(snapshot)
	if err != nil {
		return nil, err
	}
	room := manifests{room: maxListed}
	resp := &adminv1.ListResponse{Sequence: snapshot.Seq()}
	for _, o := range snapshot.All(req.Msg.GetKind()) {
		if n := req.Msg.GetNamespace(); n != "" && n != o.ID.Namespace {
			continue
		}
		m, err := room.objectMessage(o)
		if err != nil {
			return nil, err
		}
		m.Conditions = c.of(o)
		resp.Objects = append(resp.Objects, m)
	}
	if room.short {
		return nil, refuse(connect.CodeResourceExhausted,
			"the objects are more than %d bytes: ask for one kind or namespace, or use Watch with initial", maxListed)
	}
	return connect.NewResponse(resp), nil
}

// checkKind takes the kinds that there are, and none.
func checkKind(field, kind string) error {
	if kind == "" {
		return nil
	}
	for _, k := range store.Kinds() {
		if k == kind {
			return nil
		}
	}
	return store.Faults{{Field: field, Message: "want one of " + strings.Join(store.Kinds(), ", ") + ", or nothing"}}
}

// The number of changes that History answers with, and at most.
const (
	defaultHistory = 100
	maxHistory     = 1000
)

// History reads changes, the latest first. It has fewer than asked for when their
// manifests are too long for one answer: who goes on from the last gets the rest.
func (s *resourceService) History(_ context.Context, req *connect.Request[adminv1.HistoryRequest]) (*connect.Response[adminv1.HistoryResponse], error) {
	var id store.ID
	if req.Msg.GetRef() != nil {
		var err error
		if id, err = idOf("ref", req.Msg.GetRef()); err != nil {
			return nil, err
		}
	}
	limit := int(min(req.Msg.GetLimit(), maxHistory))
	if limit == 0 {
		limit = defaultHistory
	}
	changes, err := s.store.History(id, req.Msg.GetBefore(), limit)
	if err != nil {
		return nil, err
	}
	resp := &adminv1.HistoryResponse{}
	room := manifests{room: maxShown}
	for i := range changes {
		m, err := room.changeMessage(&changes[i])
		if err != nil {
			return nil, err
		}
		if room.short && i > 0 {
			break
		}
		resp.Changes = append(resp.Changes, m)
	}
	return connect.NewResponse(resp), nil
}

// Explain asks the gateway where an RPC would go.
func (s *resourceService) Explain(_ context.Context, req *connect.Request[adminv1.ExplainRequest]) (*connect.Response[adminv1.ExplainResponse], error) {
	path := req.Msg.GetPath()
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if service, method, ok := strings.Cut(path[1:], "/"); !ok || service == "" || method == "" || strings.Contains(method, "/") {
		return nil, store.Faults{{Field: "path", Message: "want /service/method, as /shop.v1.Cart/Get"}}
	}
	headers := make([][2]string, len(req.Msg.GetHeaders()))
	for i, h := range req.Msg.GetHeaders() {
		headers[i] = [2]string{strings.ToLower(h.GetName()), h.GetValue()}
	}
	e := s.gateway.Explain(req.Msg.GetAuthority(), path, headers)
	resp := &adminv1.ExplainResponse{
		Verdict: e.Verdict, Shares: sharesMessage(e.Shares), Chosen: e.Backend, ChosenWhy: e.Because,
	}
	for _, c := range e.Candidates {
		resp.Candidates = append(resp.Candidates, &adminv1.Candidate{
			Route: c.Route, Rule: c.Rule, Hostname: c.Hostname, Match: c.Match, Wins: c.Wins, Why: c.Why,
		})
		if c.Wins {
			s.declare(resp.Shares, c.Route, c.Rule)
		}
	}
	return connect.NewResponse(resp), nil
}

// declare adds to the shares of a rule what the route declares.
func (s *resourceService) declare(shares []*adminv1.ObservedShare, key, rule string) {
	namespace, name, _ := strings.Cut(key, "/")
	o, found := s.store.Snapshot().Get(store.ID{Kind: store.GRPCRouteKind, Namespace: namespace, Name: name})
	if !found {
		return
	}
	if route, ok := o.Resource.(*store.GRPCRoute); ok {
		declared := declaredWeights(route, rule)
		for _, share := range shares {
			share.DeclaredWeight = declared[share.Backend]
		}
	}
}
