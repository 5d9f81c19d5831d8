package admin

import (
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// startTold is a node whose backends have told of themselves.
func startTold(t *testing.T) *testNode {
	t.Helper()
	n := startNode(t)
	n.apply(t, cart)
	n.gateway.sources = []SchemaSource{
		{Backend: "default/cart-v1", Version: "v1", Methods: 4, Learnt: time.Unix(1_777_908_600, 0)},
		{Backend: "default/cart-v2", Problem: "reflect: UNIMPLEMENTED"},
		{Object: store.ID{Kind: "Schema", Namespace: "default", Name: "shop"}, Methods: 1, Learnt: time.Unix(1_777_908_600, 0)},
	}
	n.gateway.methods = []Method{{
		Name: "shop.v1.Cart/Get", Input: "shop.v1.GetRequest", Output: "shop.v1.GetResponse", ServerStreaming: true, NoSideEffects: true,
		Bindings: []HTTPBinding{{Verb: "GET", Path: "/v1/carts/{id}"}, {Verb: "POST", Path: "/v1/carts:get", Body: "*", ResponseBody: "items"}},
		Backends: []string{"default/cart-v1"}, Description: "Get returns a cart.",
	}}
	n.gateway.document = []byte(`{"openapi": "3.1.0"}`)
	return n
}

// wantMessage compares a message with its text in JSON.
func wantMessage(t *testing.T, got proto.Message, text string) {
	t.Helper()
	want := got.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal([]byte(text), want); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %s\nwant %s", protojson.Format(got), text)
	}
}

func TestSchemaServiceTellsWhereDescriptorsComeFrom(t *testing.T) {
	n := startTold(t)
	resp, err := n.schemas.ListSchemas(t.Context(), connect.NewRequest(&adminv1.ListSchemasRequest{Learn: true}))
	if err != nil {
		t.Fatal(err)
	}
	wantMessage(t, resp.Msg, `{"sources": [
		{"kind": "KIND_REFLECTION", "backend": "default/cart-v1", "version": "v1", "methods": 4, "learnt": "2026-05-04T15:30:00Z"},
		{"kind": "KIND_REFLECTION", "backend": "default/cart-v2", "problem": "reflect: UNIMPLEMENTED"},
		{"kind": "KIND_OBJECT", "object": {"kind": "Schema", "namespace": "default", "name": "shop"}, "methods": 1, "learnt": "2026-05-04T15:30:00Z"}]}`)
	wantAsked(t, n, "schemas learn=true")
}

func TestSchemaServiceListsMethods(t *testing.T) {
	n := startTold(t)
	resp, err := n.schemas.ListMethods(t.Context(), connect.NewRequest(&adminv1.ListMethodsRequest{
		Backend: "cart-v1", Route: &adminv1.Ref{Name: "cart"}, Learn: true,
	}))
	if err != nil {
		t.Fatal(err)
	}
	wantMessage(t, resp.Msg.GetMethods()[0], `{"name": "shop.v1.Cart/Get", "input": "shop.v1.GetRequest", "output": "shop.v1.GetResponse",
		"serverStreaming": true, "noSideEffects": true, "backends": ["default/cart-v1"], "description": "Get returns a cart.",
		"bindings": [{"verb": "GET", "path": "/v1/carts/{id}"}, {"verb": "POST", "path": "/v1/carts:get", "body": "*", "responseBody": "items"}]}`)
	if len(resp.Msg.GetProblems()) != 3 {
		t.Errorf("%d problems, want the 3 that the gateway told", len(resp.Msg.GetProblems()))
	}
	wantAsked(t, n, "methods backend=default/cart-v1 route=GRPCRoute default/cart learn=true")
}

func TestSchemaServiceDescribesARoute(t *testing.T) {
	n := startTold(t)
	resp, err := n.schemas.GetOpenAPI(t.Context(), connect.NewRequest(&adminv1.GetOpenAPIRequest{Route: ref("GRPCRoute", "cart")}))
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Msg.GetDocument(); got != `{"openapi": "3.1.0"}` {
		t.Errorf("document %s", got)
	}
	wantAsked(t, n, "openapi route=GRPCRoute default/cart")
}

// wantAsked checks what the gateway was asked, and that the questions had a deadline.
func wantAsked(t *testing.T, n *testNode, want string) {
	t.Helper()
	if got := strings.Join(n.gateway.asked, "\n"); got != want {
		t.Errorf("the gateway was asked %q, want %q", got, want)
	}
}

func TestSchemaServiceRefuses(t *testing.T) {
	n := startTold(t)
	methods := func(m *adminv1.ListMethodsRequest) func() error {
		return func() error {
			_, err := n.schemas.ListMethods(t.Context(), connect.NewRequest(m))
			return err
		}
	}
	openAPI := func(route *adminv1.Ref) func() error {
		return func() error {
			_, err := n.schemas.GetOpenAPI(t.Context(), connect.NewRequest(&adminv1.GetOpenAPIRequest{Route: route}))
			return err
		}
	}
	tests := []struct {
		name string
		do   func() error
		code connect.Code
		part string
	}{
		{"a backend that is not there", methods(&adminv1.ListMethodsRequest{Backend: "gone"}), connect.CodeNotFound, "gone"},
		{"a backend with two slashes", methods(&adminv1.ListMethodsRequest{Backend: "a/b/c"}), connect.CodeInvalidArgument, "backend: want a name, or namespace/name"},
		{"a route that is not there", methods(&adminv1.ListMethodsRequest{Route: ref("", "gone")}), connect.CodeNotFound, "gone"},
		{"a route of another kind", methods(&adminv1.ListMethodsRequest{Route: ref("Backend", "cart-v1")}), connect.CodeInvalidArgument, "want GRPCRoute or HTTPRoute"},
		{"a route without a name", openAPI(&adminv1.Ref{}), connect.CodeInvalidArgument, "route.name: is missing"},
		{"no route", openAPI(nil), connect.CodeInvalidArgument, "route: is missing"},
		{"nothing is known", openAPI(ref("GRPCRoute", "cart")), connect.CodeFailedPrecondition, "no schema is known"},
	}
	n.gateway.document = nil
	for _, tt := range tests {
		wantCode(t, tt.name, tt.do(), tt.code, tt.part)
	}
	if slices.ContainsFunc(n.gateway.asked, func(s string) bool { return !strings.HasPrefix(s, "openapi") }) {
		t.Errorf("the gateway was asked %q, want nothing for what is refused", n.gateway.asked)
	}
}
