package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/admin/v1"
)

func (f *fakeServer) ListEndpoints(_ context.Context, r *connect.Request[adminv1.ListEndpointsRequest]) (*connect.Response[adminv1.ListEndpointsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.drained != nil {
		f.drained()
	}
	response := &adminv1.ListEndpointsResponse{}
	for _, b := range f.endpoints {
		if r.Msg.GetBackend() != nil && refID(r.Msg.GetBackend()) != refID(b.GetBackend()) ||
			r.Msg.GetNamespace() != "" && r.Msg.GetNamespace() != b.GetBackend().GetNamespace() {
			continue
		}
		response.Backends = append(response.Backends, proto.CloneOf(b))
	}
	if r.Msg.GetBackend() != nil && len(response.GetBackends()) == 0 {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no %s", refID(r.Msg.GetBackend())))
	}
	return connect.NewResponse(response), nil
}

// draining are the endpoints that are drained.
func (f *fakeServer) draining(named []string) (found []*adminv1.Endpoint) {
	for _, b := range f.endpoints {
		for _, e := range b.GetEndpoints() {
			if e.GetDrain() != nil || slices.Contains(named, e.GetAddress()) {
				found = append(found, e)
			}
		}
	}
	return found
}

func (f *fakeServer) registration(r *adminv1.RegisterRequest) (*adminv1.Registration, error) {
	if r.GetAddress() == "0.0.0.0:50051" {
		return nil, detailed(connect.CodeInvalidArgument, "faults", &adminv1.Faults{Faults: []*adminv1.Fault{
			{Field: "spec.address", Message: `"0.0.0.0:50051": stands for every address of a machine, want one of them`},
		}})
	}
	return &adminv1.Registration{
		Backend: r.GetBackend(), Address: r.GetAddress(), Weight: r.GetWeight(), Zone: r.GetZone(), Version: r.GetVersion(), Lease: r.GetLease(),
		Expires: timestamppb.New(now.Add(r.GetLease().AsDuration())), Registered: timestamppb.New(now),
	}, nil
}

func (f *fakeServer) Register(_ context.Context, r *connect.Request[adminv1.RegisterRequest]) (*connect.Response[adminv1.RegisterResponse], error) {
	f.note(r.Msg)
	registration, err := f.registration(r.Msg)
	if err != nil {
		return nil, err
	}
	response := &adminv1.RegisterResponse{Registration: registration}
	if r.Msg.GetBackend().GetName() == "cart-v2" {
		response.Warnings = []string{"Backend default/cart-v2 is kept, but not in force: it has no certificate"}
	}
	return connect.NewResponse(response), nil
}

func (f *fakeServer) Deregister(_ context.Context, r *connect.Request[adminv1.DeregisterRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	f.note(r.Msg)
	if f.deregistered != nil {
		f.deregistered()
	}
	if r.Msg.GetAddress() == "10.0.0.9:1" {
		return nil, connect.NewError(connect.CodeNotFound, errors.New(`"10.0.0.9:1" is not registered at Backend default/cart-v1`))
	}
	return connect.NewResponse(&adminv1.WriteResponse{Changes: []*adminv1.Change{{Action: "deregister"}}, Sequence: 43}), nil
}

func (f *fakeServer) Keep(ctx context.Context, r *connect.Request[adminv1.KeepRequest], stream *connect.ServerStream[adminv1.KeepResponse]) error {
	f.note(r.Msg)
	registration, err := f.registration(r.Msg.GetRegistration())
	if err != nil {
		return err
	}
	registration.Kept, registration.Expires = true, nil
	if f.keep != nil {
		return f.keep(ctx, r.Msg, stream)
	}
	if err := stream.Send(&adminv1.KeepResponse{Registration: registration}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (f *fakeServer) Rebalance(_ context.Context, r *connect.Request[adminv1.RebalanceRequest]) (*connect.Response[adminv1.RebalanceResponse], error) {
	f.note(r.Msg)
	if r.Msg.GetBackend().GetName() == "cart-v2" {
		return connect.NewResponse(&adminv1.RebalanceResponse{}), nil
	}
	return connect.NewResponse(&adminv1.RebalanceResponse{Moved: 212}), nil
}
