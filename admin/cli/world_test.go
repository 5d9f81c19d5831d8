package cli

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/admin/v1"
)

const (
	cartManifest = `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"GRPCRoute",` +
		`"metadata":{"namespace":"default","name":"cart","labels":{"team":"on"}},` +
		`"spec":{"hostnames":["shop.example.com"],"rules":[{"name":"all",` +
		`"matches":[{"method":{"type":"Exact","service":"shop.v1.Cart"},"headers":[{"type":"Exact","name":"x-tenant","value":"a<b"}]}],` +
		`"backendRefs":[{"group":"sluice.dev","kind":"Backend","namespace":"default","name":"cart-v1","weight":90},` +
		`{"group":"sluice.dev","kind":"Backend","namespace":"default","name":"cart-v2","weight":10}]}]}}`

	anyManifest = `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"GRPCRoute","metadata":{"namespace":"shop","name":"any"},` +
		`"spec":{"rules":[{"backendRefs":[{"group":"sluice.dev","kind":"Backend","namespace":"shop","name":"gone","weight":1}]}]}}`

	cartV1Manifest = `{"apiVersion":"sluice.dev/v1alpha1","kind":"Backend","metadata":{"namespace":"default","name":"cart-v1"},` +
		`"spec":{"endpoints":[{"address":"10.0.0.11:50051","weight":1},{"address":"10.0.0.12:50051","weight":1}],` +
		`"protocol":"h2c","loadBalancing":{"policy":"LeastRequest"},"connectTimeout":"5s"}}`

	cartV2Manifest = `{"apiVersion":"sluice.dev/v1alpha1","kind":"Backend","metadata":{"namespace":"default","name":"cart-v2"},` +
		`"spec":{"endpoints":[],"protocol":"tls","loadBalancing":{"policy":"LeastRequest"},"connectTimeout":"5s"}}`

	registrationManifest = `{"apiVersion":"sluice.dev/v1alpha1","kind":"Registration","metadata":{"namespace":"default","name":"cart-v1-10-0-0-13-50051-6f1e"},` +
		`"spec":{"backend":"cart-v1","address":"10.0.0.13:50051","weight":2,"zone":"eu-1b","version":"1.4.2","lease":"30s"}}`

	policyManifest = `{"apiVersion":"sluice.dev/v1alpha1","kind":"RPCPolicy","metadata":{"namespace":"default","name":"cart"},` +
		`"spec":{"targetRefs":[{"group":"gateway.networking.k8s.io","kind":"GRPCRoute","name":"cart","sectionName":"all"}],` +
		`"timeouts":{"request":"2s"},"split":{"sticky":{"header":"x-user-id"}}}}`
)

func cartShares() []*adminv1.ObservedShare {
	return []*adminv1.ObservedShare{
		{Backend: "default/cart-v1", DeclaredWeight: 90, Weight: 50, Rpcs: 512, Endpoints: 2},
		{Backend: "default/cart-v2", DeclaredWeight: 10, Weight: 50, Rpcs: 488, Problem: "no endpoint takes RPCs"},
	}
}

// worldEndpoints is how the endpoints of the two backends are.
func worldEndpoints() []*adminv1.BackendEndpoints {
	at := func(ago time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-ago)) }
	ref := func(name string) *adminv1.Ref {
		return &adminv1.Ref{Kind: backend, Namespace: "default", Name: name}
	}
	return []*adminv1.BackendEndpoints{
		{
			Backend: ref("cart-v1"), Problem: "look-up of cart.internal: no answer; the last one is used",
			Drains: []*adminv1.Drain{{Endpoint: "10.0.0.12:50051", Since: at(time.Minute), Grace: durationpb.New(30 * time.Second), By: "alice"}},
			Endpoints: []*adminv1.Endpoint{
				{
					Address: "10.0.0.11:50051", Source: adminv1.Endpoint_SOURCE_STATIC, Weight: 1, State: "healthy", Since: at(3 * time.Hour),
					Active: 12, Connections: 2, Rpcs: 5120, Success: proto.Float64(0.9999), P99: durationpb.New(12340 * time.Microsecond),
				},
				{
					Address: "10.0.0.12:50051", Source: adminv1.Endpoint_SOURCE_DNS, Zone: "eu-1a", State: "draining", Why: "drained by alice", Since: at(time.Minute),
					Active: 3, Connections: 1, Rpcs: 40, Success: proto.Float64(1), P99: durationpb.New(1234 * time.Millisecond),
					Drain: &adminv1.Drain{Endpoint: "10.0.0.12:50051", Since: at(time.Minute), Grace: durationpb.New(30 * time.Second), By: "alice"},
				},
				{
					Address: "10.0.0.13:50051", Source: adminv1.Endpoint_SOURCE_REGISTERED, Zone: "eu-1b", Version: "1.4.2", Weight: 2, State: "ejected",
					Why: "5 RPCs failed in a row, the last with UNAVAILABLE", Since: at(7 * time.Second), Rpcs: 31, Success: proto.Float64(0),
					Registration: &adminv1.Registration{
						Ref:     &adminv1.Ref{Kind: "Registration", Namespace: "default", Name: "cart-v1-10-0-0-13-50051-6f1e"},
						Backend: ref("cart-v1"), Address: "10.0.0.13:50051", Weight: 2, Zone: "eu-1b", Version: "1.4.2",
						Lease: durationpb.New(30 * time.Second), Expires: at(-20 * time.Second), Registered: at(2 * time.Hour),
					},
				},
			},
		},
		{Backend: ref("cart-v2"), Drains: []*adminv1.Drain{{Since: at(time.Hour), By: "bob"}}},
	}
}

// world is two routes, two backends and a policy, and how they came to be.
func world() ([]*adminv1.Object, []*adminv1.Change) {
	conditions := []*adminv1.Condition{
		{Type: "Accepted", Status: true, Reason: "Accepted"},
		{Type: "ResolvedRefs", Status: true, Reason: "ResolvedRefs"},
		{Type: "Programmed", Status: true, Reason: "Programmed"},
	}
	at := func(ago time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-ago)) }
	ref := func(kind, namespace, name string) *adminv1.Ref {
		return &adminv1.Ref{Kind: kind, Namespace: namespace, Name: name}
	}
	api, file := &adminv1.Owner{Kind: adminv1.Owner_KIND_API}, &adminv1.Owner{Kind: adminv1.Owner_KIND_FILE, File: "routes.yaml:3"}
	split := &adminv1.State{Splits: []*adminv1.RuleSplit{{
		Rule:   "all",
		Shares: []*adminv1.Share{{Backend: "default/cart-v1", Weight: 50}, {Backend: "default/cart-v2", Weight: 50}},
		Since:  at(5 * time.Minute), By: "alice",
		Pins: []*adminv1.Pin{{Header: "x-tester", Value: "yes", Backend: "default/cart-v2"}},
	}}}

	cart := &adminv1.Object{
		Ref: ref(grpcRoute, "default", "cart"), Revision: "1777908600000.0@k3f9x2ab", Owner: file, Manifest: cartManifest,
		State: split, Conditions: conditions, Created: at(50 * time.Hour),
	}
	changes := []*adminv1.Change{
		{
			Sequence: 42, Time: at(5 * time.Minute), Actor: "alice", Via: "cli", Address: "socket", Reason: "canary step 2", Action: "split",
			Ref: cart.Ref, Revision: cart.Revision,
			Before: &adminv1.Object{Ref: cart.Ref, Manifest: cartManifest, State: &adminv1.State{}, Owner: file},
			After:  &adminv1.Object{Ref: cart.Ref, Manifest: cartManifest, State: split, Owner: file},
		},
		{
			Sequence: 7, Time: at(50 * time.Hour), Actor: "file", Via: "file", Action: "create", Ref: cart.Ref, Revision: "1777728900000.0@k3f9x2ab",
			After: &adminv1.Object{Ref: cart.Ref, Manifest: cartManifest, Owner: file},
		},
	}
	cart.LastChange = proto.CloneOf(changes[0])
	cart.LastChange.Before, cart.LastChange.After = nil, nil
	cart.LastChange.Action, cart.LastChange.Sequence = "", 0

	objects := []*adminv1.Object{
		{
			Ref: ref(backend, "default", "cart-v1"), Revision: "1777908500000.0@k3f9x2ab", Owner: api, Manifest: cartV1Manifest, Conditions: conditions,
			State: &adminv1.State{DrainedEndpoints: []string{"10.0.0.12:50051"}}, LastChange: &adminv1.Change{Time: at(time.Hour)}, Created: at(time.Hour),
		},
		{
			Ref: ref(backend, "default", "cart-v2"), Revision: "1777908500001.0@k3f9x2ab", Owner: api, Manifest: cartV2Manifest, Conditions: conditions,
			State: &adminv1.State{Drained: true}, LastChange: &adminv1.Change{Time: at(time.Hour)}, Created: at(time.Hour),
		},
		cart,
		{
			Ref: ref(grpcRoute, "shop", "any"), Revision: "1777908600009.3@k3f9x2ab", Owner: api, Manifest: anyManifest, State: &adminv1.State{},
			Conditions: []*adminv1.Condition{
				{Type: "Accepted", Status: true, Reason: "Accepted"},
				{Type: "ResolvedRefs", Reason: "BackendNotFound", Message: "no Backend shop/gone is declared; apply one, or delete the route"},
			},
			LastChange: &adminv1.Change{Time: at(30 * time.Second)}, Created: at(30 * time.Second),
		},
		{
			Ref: ref(rpcPolicy, "default", "cart"), Revision: "1777908600010.0@k3f9x2ab", Owner: api, Manifest: policyManifest, State: &adminv1.State{},
			Conditions: conditions, LastChange: &adminv1.Change{Time: at(30 * time.Second)}, Created: at(30 * time.Second),
		},
	}
	return append(objects, &adminv1.Object{
		Ref: ref(registrationKind, "default", "cart-v1-10-0-0-13-50051-6f1e"), Revision: "1777908600011.0@k3f9x2ab", Owner: api, Manifest: registrationManifest,
		State: &adminv1.State{}, LastChange: &adminv1.Change{Time: at(2 * time.Hour), Actor: "token vm", Via: "api"}, Created: at(2 * time.Hour),
	}), changes
}
