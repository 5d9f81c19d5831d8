package admin

import (
	"errors"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

func (g *registry) list(t *testing.T, r *adminv1.ListEndpointsRequest) *adminv1.ListEndpointsResponse {
	t.Helper()
	resp, err := g.backends.ListEndpoints(t.Context(), connect.NewRequest(r))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg
}

func TestListEndpointsTellsHowTheyAre(t *testing.T) {
	g := startRegistry(t)
	registration := g.register(t, announce("10.0.0.13:50051"))
	since := time.Unix(1_777_908_600, 0)
	g.gateway.endpoints = map[string][]ObservedEndpoint{"default/cart": {
		{Address: "10.0.0.13:50051", Source: store.SourceRegistered, Weight: 1, State: "ejected", Why: "5 RPCs failed in a row", Since: since, RPCs: 31},
		{
			Address: "10.0.0.12:50051", Source: store.SourceDNS, Zone: "eu-1a", Version: "1.4.2", Weight: 7, State: "healthy", Since: since,
			Active: 12, Connections: 2, RPCs: 5120, Success: 0.5, P99: 12 * time.Millisecond,
		},
		{Address: "10.0.0.99:50051", State: "new", Success: -1},
	}}
	g.gateway.problems = map[store.ID]error{{Kind: "Backend", Namespace: "default", Name: "closed"}: errors.New("no certificate")}
	if _, err := g.resources.Drain(t.Context(), connect.NewRequest(&adminv1.DrainRequest{
		Backend: ref("", "cart"), Endpoints: []string{"10.0.0.11:50051"}, Grace: durationpb.New(30 * time.Second),
	})); err != nil {
		t.Fatal(err)
	}
	all := g.list(t, &adminv1.ListEndpointsRequest{})
	drain := all.GetBackends()[0].GetDrains()[0]
	for _, e := range all.GetBackends()[0].GetEndpoints() {
		if (e.GetRegistration() != nil) != (e.GetAddress() == registration.GetAddress()) {
			t.Errorf("%s has the registration %v", e.GetAddress(), e.GetRegistration())
		}
		e.Registration = nil
		if e.Drain != nil && e.Drain.GetSince() == nil {
			t.Error("the drain says not since when")
		}
		if e.Drain != nil {
			e.Drain = &adminv1.Drain{Grace: e.Drain.GetGrace()}
		}
	}
	if drain.GetEndpoint() != "10.0.0.11:50051" || drain.GetBy() == "" || drain.GetGrace().AsDuration() != 30*time.Second {
		t.Errorf("the drain is %v", drain)
	}
	all.GetBackends()[0].Drains = nil
	wantMessage(t, all, `{"backends": [
		{"backend": {"kind": "Backend", "namespace": "default", "name": "cart"}, "endpoints": [
			{"address": "10.0.0.11:50051", "source": "SOURCE_STATIC", "state": "unused", "why": "it is kept, but not in force", "drain": {"grace": "30s"}},
			{"address": "10.0.0.12:50051", "source": "SOURCE_DNS", "zone": "eu-1a", "version": "1.4.2", "weight": 7, "state": "healthy", "since": "2026-05-04T15:30:00Z",
				"active": 12, "connections": 2, "rpcs": "5120", "success": 0.5, "p99": "0.012s"},
			{"address": "10.0.0.13:50051", "source": "SOURCE_REGISTERED", "weight": 1, "state": "ejected", "why": "5 RPCs failed in a row",
				"since": "2026-05-04T15:30:00Z", "rpcs": "31", "success": 0},
			{"address": "10.0.0.99:50051", "source": "SOURCE_STATIC", "state": "new"}]},
		{"backend": {"kind": "Backend", "namespace": "default", "name": "closed"}, "problem": "no certificate"}]}`)

	if one := g.list(t, &adminv1.ListEndpointsRequest{Backend: ref("", "closed")}); len(one.GetBackends()) != 1 {
		t.Errorf("of one backend: %v", one)
	}
	if none := g.list(t, &adminv1.ListEndpointsRequest{Namespace: "shop"}); len(none.GetBackends()) != 0 {
		t.Errorf("of another namespace: %v", none)
	}
	_, err := g.backends.ListEndpoints(t.Context(), connect.NewRequest(&adminv1.ListEndpointsRequest{Backend: ref("", "gone")}))
	wantCode(t, "of a backend that is not there", err, connect.CodeNotFound, "default/gone")
}

func TestListEndpointsHasABound(t *testing.T) {
	g := startRegistry(t)
	g.gateway.endpoints = map[string][]ObservedEndpoint{"default/cart": make([]ObservedEndpoint, maxEndpointsListed+1)}
	_, err := g.backends.ListEndpoints(t.Context(), connect.NewRequest(&adminv1.ListEndpointsRequest{}))
	wantCode(t, "too many", err, connect.CodeResourceExhausted, "ask for one backend")
}

func TestDrainTellsWhatIsLeft(t *testing.T) {
	g := startRegistry(t)
	g.gateway.endpoints = map[string][]ObservedEndpoint{"default/cart": {{Address: "10.0.0.11:50051", State: "draining", Active: 3}}}
	drain := func(r *adminv1.DrainRequest) *adminv1.WriteResponse {
		t.Helper()
		r.Backend = ref("", "cart")
		resp, err := g.resources.Drain(t.Context(), connect.NewRequest(r))
		if err != nil {
			t.Fatal(err)
		}
		return resp.Msg
	}
	if tried := drain(&adminv1.DrainRequest{DryRun: true}); len(tried.GetDraining()) != 0 {
		t.Errorf("a dry run is draining %v", tried.GetDraining())
	}
	for _, endpoints := range [][]string{{"10.0.0.11:50051"}, nil} {
		done := drain(&adminv1.DrainRequest{Endpoints: endpoints, Grace: durationpb.New(time.Minute)})
		if left := done.GetDraining(); len(left) != 1 || left[0].GetActive() != 3 || left[0].GetDrain().GetGrace().AsDuration() != time.Minute {
			t.Errorf("drain of %q: left is %v", endpoints, left)
		}
		if state := done.GetChanges()[0].GetAfter().GetState(); len(state.GetDrains()) == 0 || state.GetDrained() != (endpoints == nil) {
			t.Errorf("drain of %q: the state is %v", endpoints, state)
		}
	}
	g.gateway.endpoints["default/cart"] = append(g.gateway.endpoints["default/cart"], ObservedEndpoint{Address: "10.0.0.12:50051", State: "healthy"})
	g.register(t, announce("10.0.0.12:50051"))
	spelled := drain(&adminv1.DrainRequest{Endpoints: []string{"[::ffff:10.0.0.12]:50051"}})
	if left := spelled.GetDraining(); len(left) != 1 || left[0].GetAddress() != "10.0.0.12:50051" {
		t.Errorf("another spelling: left is %v", left)
	}
	if undone := drain(&adminv1.DrainRequest{Undo: true}); len(undone.GetDraining()) != 0 {
		t.Errorf("undrain is draining %v", undone.GetDraining())
	}
	client := adminv1.NewResourceServiceClient(g.bySocket(t), "http://localhost", connect.WithGRPC())
	for _, grace := range []*durationpb.Duration{durationpb.New(-time.Second), {Seconds: 1, Nanos: -1}} {
		_, err := client.Drain(t.Context(), connect.NewRequest(&adminv1.DrainRequest{Backend: ref("", "cart"), Grace: grace}))
		wantCode(t, "a grace that is none", err, connect.CodeInvalidArgument, "grace")
	}
}

func TestRebalanceMovesStreams(t *testing.T) {
	g := startRegistry(t)
	g.gateway.moved = 212
	rebalance := func(r *adminv1.RebalanceRequest) (*adminv1.RebalanceResponse, error) {
		resp, err := g.backends.Rebalance(t.Context(), connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	if got, err := rebalance(&adminv1.RebalanceRequest{Backend: ref("", "cart"), Percent: 25, Reason: "two new nodes"}); err != nil || got.GetMoved() != 212 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := rebalance(&adminv1.RebalanceRequest{Backend: ref("Backend", "cart")}); err != nil {
		t.Error(err)
	}
	wantAsked(t, g.testNode, "rebalance default/cart 25%\nrebalance default/cart 100%")
	_, err := rebalance(&adminv1.RebalanceRequest{Backend: ref("", "cart"), Percent: 101})
	wantCode(t, "more than all", err, connect.CodeInvalidArgument, "percent: 101: want 1 to 100")
	_, err = rebalance(&adminv1.RebalanceRequest{Backend: ref("", "gone")})
	wantCode(t, "of nothing", err, connect.CodeNotFound, "default/gone")
	g.gateway.fails = errors.New("a rebalance is under way")
	_, err = rebalance(&adminv1.RebalanceRequest{Backend: ref("", "cart")})
	wantCode(t, "twice", err, connect.CodeFailedPrecondition, "a rebalance is under way")
	if did := g.did(t); !slices.Equal(did, []string{"Rebalance", "Rebalance", "Rebalance refused", "Rebalance refused", "Rebalance refused"}) {
		t.Errorf("audit lines %q", did)
	}
}
