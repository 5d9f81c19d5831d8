package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// testPort speaks HTTP/1 and HTTP/2 in clear text, as the port of a node does. It is
// net/http's, because this package cannot have the node's.
type testPort struct{ *plainPort }

func newTestPort(cfg PortConfig) (Port, error) {
	p := newPlainPort(cfg, slog.New(slog.DiscardHandler))
	p.server.Protocols.SetUnencryptedHTTP2(true)
	return testPort{p}, nil
}

// fakeGateway has everything in force at once, unless it is told otherwise.
type fakeGateway struct {
	store *store.Store

	mu       sync.Mutex // guards the fields below
	behind   uint64     // changes that are not in force
	problems map[store.ID]error
	observed map[string][]ObservedRule
	asked    []string // of Explain, Schemas, Methods and OpenAPI
	sources  []SchemaSource
	methods  []Method
	document []byte // of OpenAPI; nil when no schema is known

	endpoints map[string][]ObservedEndpoint // by backend
	moved     int                           // by Rebalance
	fails     error                         // of Rebalance
}

func (g *fakeGateway) Programmed() (uint64, map[store.ID]error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.store.Snapshot().Seq() - g.behind, g.problems
}

func (g *fakeGateway) WaitProgrammed(ctx context.Context, seq uint64) error {
	if now, _ := g.Programmed(); now < seq {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (g *fakeGateway) Observed(route store.ID) []ObservedRule {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.observed[route.String()]
}

func (g *fakeGateway) Explain(authority, path string, headers [][2]string) Explanation {
	g.mu.Lock()
	defer g.mu.Unlock()
	ask := authority + " " + path
	for _, h := range headers {
		ask += " " + h[0] + "=" + h[1]
	}
	g.asked = append(g.asked, ask)
	return Explanation{
		Verdict:    "goes to default/cart-v1",
		Backend:    "default/cart-v1",
		Because:    "it is the only one",
		Candidates: []Candidate{{Route: "default/cart", Rule: "all", Wins: true, Why: "it is the only one"}},
		Shares:     []ObservedShare{{Backend: "default/cart-v1", Weight: 1, RPCs: 7}},
	}
}

func (g *fakeGateway) Addr() string { return "127.0.0.1:8080" }

func (g *fakeGateway) Schemas(ctx context.Context, learn bool) []SchemaSource {
	g.ask(ctx, "schemas learn=%v", learn)
	return g.sources
}

func (g *fakeGateway) Methods(ctx context.Context, of MethodsOf) ([]Method, []SchemaSource, error) {
	g.ask(ctx, "methods backend=%s route=%s learn=%v", of.Backend, of.Route, of.Learn)
	return g.methods, g.sources, nil
}

func (g *fakeGateway) OpenAPI(ctx context.Context, route store.ID) ([]byte, error) {
	g.ask(ctx, "openapi route=%s", route)
	if g.document == nil {
		return nil, fmt.Errorf("describe %s: %w", route, ErrUnknownMethods)
	}
	return g.document, nil
}

func (g *fakeGateway) Endpoints(backend string) []ObservedEndpoint {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.endpoints[backend]
}

func (g *fakeGateway) Rebalance(backend string, percent int) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, fmt.Sprintf("rebalance %s %d%%", backend, percent))
	return g.moved, g.fails
}

// ask notes a question that may take long, which has a deadline.
func (g *fakeGateway) ask(ctx context.Context, format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	question := fmt.Sprintf(format, args...)
	if _, bounded := ctx.Deadline(); !bounded {
		question += " without a deadline"
	}
	g.asked = append(g.asked, question)
}

// node is an Admin over a store of its own, on a loopback port and on its socket.
type testNode struct {
	dir     string
	addr    string
	store   *store.Store
	gateway *fakeGateway
	log     *journal
	admin   *Admin
	stop    func() error

	// As an administrator, by the socket, in JSON.
	resources adminv1.ResourceServiceClient
	node      adminv1.NodeServiceClient
	access    adminv1.AccessServiceClient
	schemas   adminv1.SchemaServiceClient
	backends  adminv1.BackendServiceClient
	cluster   adminv1.ClusterServiceClient
}

// startNode runs an Admin until the test ends.
func startNode(t *testing.T, change ...func(*Config, *Parts)) *testNode {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	n := &testNode{dir: dir, store: st, gateway: &fakeGateway{store: st}, log: new(journal)}
	cfg := Config{Listen: "127.0.0.1:0", DataDir: dir}
	parts := Parts{Store: st, Gateway: n.gateway, Port: newTestPort, Version: "1.2.3"}
	for _, c := range change {
		c(&cfg, &parts)
	}
	n.admin, err = New(cfg, parts, slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	n.addr = n.admin.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.admin.Run(ctx); close(ended) }()
	n.stop = func() error {
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Error(err)
		}
	})
	client := n.bySocket(t)
	n.resources = adminv1.NewResourceServiceClient(client, "http://localhost", connect.WithProtoJSON())
	n.node = adminv1.NewNodeServiceClient(client, "http://localhost", connect.WithProtoJSON())
	n.access = adminv1.NewAccessServiceClient(client, "http://localhost", connect.WithProtoJSON())
	n.schemas = adminv1.NewSchemaServiceClient(client, "http://localhost", connect.WithProtoJSON())
	n.backends = adminv1.NewBackendServiceClient(client, "http://localhost", connect.WithProtoJSON())
	n.cluster = adminv1.NewClusterServiceClient(client, "http://localhost", connect.WithProtoJSON())
	return n
}

// bySocket is a client of the node's socket, in HTTP/2, for all protocols.
func (n *testNode) bySocket(t *testing.T) *http.Client {
	return httpClient(t, 2, func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(n.dir, socketName))
	})
}

// httpClient speaks one version of HTTP; dial may be nil.
func httpClient(t *testing.T, major int, dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(major == 1)
	protocols.SetUnencryptedHTTP2(major == 2)
	transport := &http.Transport{Protocols: protocols, DialContext: dial}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// token is the secret of a new token.
func (n *testNode) token(t *testing.T, role adminv1.Role) string {
	t.Helper()
	resp, err := n.access.CreateToken(t.Context(), connect.NewRequest(&adminv1.CreateTokenRequest{Name: strings.ToLower(role.String()), Role: role}))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg.GetSecret()
}

// withToken signs every request.
func withToken(token string) connect.ClientOption {
	return connect.WithInterceptors(&signer{token})
}

type signer struct{ token string }

func (s *signer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		req.Header().Set("Authorization", "Bearer "+s.token)
		return next(ctx, req)
	}
}

func (s *signer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		conn.RequestHeader().Set("Authorization", "Bearer "+s.token)
		return conn
	}
}

func (s *signer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// dialGRPC is a client of grpc-go, with a token.
func (n *testNode) dialGRPC(t *testing.T) (*grpc.ClientConn, context.Context) {
	t.Helper()
	cc, err := grpc.NewClient(n.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc, metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+n.token(t, adminv1.Role_ROLE_ADMIN))
}

const (
	cartRoute = `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart}
spec:
  rules:
  - name: all
    backendRefs:
    - {group: sluice.dev, kind: Backend, name: cart-v1, weight: 90}
    - {group: sluice.dev, kind: Backend, name: cart-v2, weight: 10}
`
	cartBackends = `apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: cart-v1}
spec:
  endpoints: [{address: "127.0.0.1:50051"}, {address: "127.0.0.1:50053"}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: cart-v2}
spec:
  endpoints: [{address: "127.0.0.1:50052"}]
`
	cart = cartRoute + "---\n" + cartBackends
)

// apply declares a text, which must go well.
func (n *testNode) apply(t *testing.T, text string) *adminv1.WriteResponse {
	t.Helper()
	resp, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: text}))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg
}

// get reads one object, which must be there.
func (n *testNode) get(t *testing.T, kind, name string) *adminv1.GetResponse {
	t.Helper()
	resp, err := n.resources.Get(t.Context(), connect.NewRequest(&adminv1.GetRequest{Ref: ref(kind, name)}))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg
}

func ref(kind, name string) *adminv1.Ref { return &adminv1.Ref{Kind: kind, Name: name} }

// wantCode checks the code of an error, and a part of its message.
func wantCode(t *testing.T, what string, err error, code connect.Code, part string) {
	t.Helper()
	if err == nil || connect.CodeOf(err) != code || !strings.Contains(err.Error(), part) {
		t.Errorf("%s: error %v, want %v with %q", what, err, code, part)
	}
}

// detail is the first detail of that type; nil when there is none.
func detail[T any](t *testing.T, err error) T {
	t.Helper()
	var none T
	var e *connect.Error
	if !errors.As(err, &e) {
		t.Errorf("error %v has no details", err)
		return none
	}
	for _, d := range e.Details() {
		if m, err := d.Value(); err == nil {
			if typed, ok := m.(T); ok {
				return typed
			}
		}
	}
	t.Errorf("error %v has no detail of type %T", err, none)
	return none
}

func newJournalLog(j *journal) *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
