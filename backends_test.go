package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	adminv1 "sluice/admin/v1"
	shopv1 "sluice/demo/shop/v1"
)

// registering declares a route to a backend that takes registrations, and has the
// endpoints that are given.
func registering(endpoints ...string) string {
	var list []string
	for _, address := range endpoints {
		list = append(list, fmt.Sprintf("{address: %q}", address))
	}
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart}
spec:
  rules: [{backendRefs: [{group: sluice.dev, kind: Backend, name: cart}]}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: cart}
spec:
  endpoints: [%s]
  registration: {}
`, strings.Join(list, ", "))
}

// servers are the versions that answer to so many calls.
func servers(t *testing.T, conn *grpc.ClientConn, calls int) (versions []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range calls {
		reply, err := shopv1.NewCartClient(conn).Get(ctx, &shopv1.GetRequest{Id: "1"})
		if err != nil {
			t.Fatalf("get a cart: %v", err)
		}
		if !slices.Contains(versions, reply.GetServedBy()) {
			versions = append(versions, reply.GetServedBy())
		}
	}
	slices.Sort(versions)
	return versions
}

// awaitServers calls until those versions answer, and no others.
func awaitServers(t *testing.T, conn *grpc.ClientConn, want ...string) {
	t.Helper()
	var got []string
	for begun := time.Now(); time.Since(begun) < patience; {
		if got = servers(t, conn, 40); slices.Equal(got, want) {
			return
		}
	}
	t.Fatalf("served by %q, want %q", got, want)
}

// endpointStates are the endpoints of the backend as the command line lists them.
func endpointStates(t *testing.T, data string) map[string]*adminv1.Endpoint {
	t.Helper()
	all, err := operate(t, data).backends.ListEndpoints(t.Context(), connect.NewRequest(&adminv1.ListEndpointsRequest{Backend: &adminv1.Ref{Name: "cart"}}))
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]*adminv1.Endpoint{}
	for _, e := range all.Msg.GetBackends()[0].GetEndpoints() {
		states[e.GetAddress()] = e
	}
	return states
}

// Two processes announce themselves and get RPCs. One of them is not heard of any more.
func TestServeSendsRPCsToWhoRegisters(t *testing.T) {
	shop := startShop(t, "v1", "v2")
	data := t.TempDir()
	s := startServer(t, "--data-dir", data)
	operate(t, data).apply(registering())
	conn := s.dial(t)
	if _, err := shopv1.NewCartClient(conn).Get(t.Context(), &shopv1.GetRequest{Id: "1"}); status.Code(err) != codes.Unavailable {
		t.Fatalf("before anybody registers: %v, want UNAVAILABLE", err)
	}
	mustSluice(t, data, "backend", "register", "cart", shop.Addr("v1"), "--lease", "10m")
	if got := servers(t, conn, 10); !slices.Equal(got, []string{"v1"}) {
		t.Errorf("with the answer to register, served by %q", got)
	}
	mustSluice(t, data, "backend", "register", "cart", shop.Addr("v2"), "--lease", "2s", "--zone", "eu-1a")
	awaitServers(t, conn, "v1", "v2")
	listed := endpointStates(t, data)[shop.Addr("v2")]
	if listed.GetState() != "healthy" || listed.GetSource() != adminv1.Endpoint_SOURCE_REGISTERED || listed.GetZone() != "eu-1a" ||
		listed.GetRegistration().GetExpires() == nil || listed.GetRpcs() == 0 || listed.GetSuccess() != 1 {
		t.Errorf("it is listed as %v", listed)
	}
	s.log.await(t, "registration not renewed")
	awaitServers(t, conn, "v1")
	if states := endpointStates(t, data); len(states) != 1 {
		t.Errorf("after the lease there are %v", states)
	}
	mustSluice(t, data, "backend", "deregister", "cart", shop.Addr("v1"))
	if _, err := shopv1.NewCartClient(conn).Get(t.Context(), &shopv1.GetRequest{Id: "1"}); status.Code(err) != codes.Unavailable {
		t.Errorf("in the end: %v, want UNAVAILABLE", err)
	}
	audit := mustSluice(t, data, "audit")
	for action, want := range map[string]int{"  Register  ": 2, "  Deregister  ": 1} {
		if got := strings.Count(audit, action); got != want {
			t.Errorf("%d lines of%sin the audit log, want %d:\n%s", got, action, want, audit)
		}
	}
	for _, address := range []string{s.listen, "0.0.0.0:50051", "127.0.0.1:0", "nonsense"} {
		if _, notes, err := sluice(t, data, "backend", "register", "cart", address); err == nil || !strings.Contains(notes, "address: ") {
			t.Errorf("register of %s: %v, %q", address, err, notes)
		}
	}
}

// staying is a command that stays until its context ends.
type staying struct {
	out, notes *output
	stop       context.CancelFunc
	done       chan int
}

func stay(t *testing.T, args ...string) *staying {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &staying{out: newOutput(), notes: newOutput(), stop: cancel, done: make(chan int, 1)}
	go func() { c.done <- exitCode(run(ctx, args, c.out, c.notes), c.notes) }()
	t.Cleanup(c.stop)
	return c
}

func (c *staying) wantEnd(t *testing.T, want int) {
	t.Helper()
	select {
	case code := <-c.done:
		if code != want {
			t.Errorf("it ended with %d, want %d:\n%s", code, want, c.notes)
		}
	case <-time.After(patience):
		t.Fatalf("it has not ended:\n%s", c.notes)
	}
}

// A process keeps its registration through a restart of the gateway, and takes it back
// when it ends.
func TestRegisterKeepSurvivesARestartOfTheGateway(t *testing.T) {
	shop := startShop(t, "v1")
	data := t.TempDir()
	s := startServer(t, "--data-dir", data)
	operate(t, data).apply(registering())
	kept := stay(t, "backend", "register", "cart", shop.Addr("v1"), "--keep", "--data-dir", data)
	kept.out.await(t, "kept by this command")
	if got := servers(t, s.dial(t), 5); !slices.Equal(got, []string{"v1"}) {
		t.Errorf("served by %q", got)
	}
	s.end(t)
	kept.notes.await(t, "trying ")
	s = startServer(t, "--data-dir", data)
	// It is there from the beginning, and not when the process has come back.
	if got := servers(t, s.dial(t), 5); !slices.Equal(got, []string{"v1"}) {
		t.Errorf("served by %q after the restart", got)
	}
	kept.notes.await(t, "registered again at")
	if r := endpointStates(t, data)[shop.Addr("v1")].GetRegistration(); !r.GetKept() || r.GetExpires() != nil {
		t.Errorf("after the restart it is kept as %v", r)
	}
	kept.stop()
	kept.wantEnd(t, 0)
	if left := endpointStates(t, data); len(left) != 0 {
		t.Errorf("after its end there are %v", left)
	}
}

// A client that cancels its stream is gone; one whose connection breaks has its lease.
func TestServeTellsGoodbyeFromABreak(t *testing.T) {
	data := t.TempDir()
	s := startServer(t, "--data-dir", data)
	operate(t, data).apply(registering())
	token := strings.TrimSpace(mustSluice(t, data, "admin", "token", "create", "vm", "--role", "registrar"))
	keep := func(address string) (conn *grpc.ClientConn, cancel context.CancelFunc) {
		t.Helper()
		conn, err := grpc.NewClient("passthrough:///"+s.admin, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token))
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, adminv1.BackendServiceKeepProcedure)
		if err == nil {
			err = stream.SendMsg(&adminv1.KeepRequest{Registration: &adminv1.RegisterRequest{Backend: &adminv1.Ref{Name: "cart"}, Address: address}})
		}
		if err == nil {
			err = stream.CloseSend()
		}
		if err == nil {
			err = stream.RecvMsg(&adminv1.KeepResponse{})
		}
		if err != nil {
			t.Fatal(err)
		}
		return conn, cancel
	}
	_, cancel := keep("127.0.0.1:7001")
	broken, giveUp := keep("127.0.0.1:7002")
	defer giveUp()
	cancel()
	broken.Close()
	var states map[string]*adminv1.Endpoint
	for begun := time.Now(); ; {
		states = endpointStates(t, data)
		if len(states) == 1 && !states["127.0.0.1:7002"].GetRegistration().GetKept() {
			break
		}
		if time.Since(begun) > patience {
			t.Fatalf("there are %v", states)
		}
	}
	if left := time.Until(states["127.0.0.1:7002"].GetRegistration().GetExpires().AsTime()); left < 10*time.Second || left > 30*time.Second {
		t.Errorf("what broke expires in %s", left)
	}

	// A registrar announces, and nothing else.
	file := filepath.Join(t.TempDir(), "token")
	writeFile(t, file, token)
	port := []string{"--server", "http://" + s.admin, "--token-file", file}
	as := func(args ...string) error {
		_, _, err := sluice(t, "", append(args, port...)...)
		return err
	}
	if err := as("backend", "deregister", "cart", "127.0.0.1:7002"); err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{"backend", "list"}, {"backend", "drain", "cart"}, {"backend", "rebalance", "cart"}, {"get", "backends"}} {
		if err := as(args...); err == nil || !strings.Contains(err.Error(), "token vm has the role registrar") {
			t.Errorf("%q by a registrar: %v", args, err)
		}
	}
}

// load calls until it is stopped, and tells how many calls were answered; each must be.
func load(t *testing.T, s *server) (stop func() int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var answered atomic.Int64
	var callers sync.WaitGroup
	for range 4 {
		conn := s.dial(t)
		callers.Go(func() { callUntil(ctx, t, conn, &answered) })
	}
	return func() int64 {
		cancel()
		callers.Wait()
		return answered.Load()
	}
}

// Processes come and go as they like, and nobody who calls notices.
func TestServeLosesNoRPCToThoseWhoComeAndGo(t *testing.T) {
	shop := startShop(t, "v1", "v2")
	data := t.TempDir()
	s := startServer(t, "--data-dir", data)
	operate(t, data).apply(registering())
	mustSluice(t, data, "backend", "register", "cart", shop.Addr("v1"))
	stop := load(t, s)
	for range 20 {
		mustSluice(t, data, "backend", "register", "cart", shop.Addr("v2"))
		mustSluice(t, data, "backend", "deregister", "cart", shop.Addr("v2"))
	}
	answered := stop()
	t.Logf("%d RPCs were answered while a process came and went 20 times", answered)
	if answered < 100 {
		t.Errorf("%d RPCs were answered, want a load", answered)
	}
}

// An endpoint is drained under load: no unary RPC comes to harm, what is open may go on
// for the grace, and the command knows when all is over.
func TestServeDrainsAnEndpointUnderLoad(t *testing.T) {
	shop := startShop(t, "v1", "v2")
	data := t.TempDir()
	s := startServer(t, "--data-dir", data)
	operate(t, data).apply(registering(shop.Addr("v1"), shop.Addr("v2")))
	conn := s.dial(t)
	awaitServers(t, conn, "v1", "v2")
	ends := openScans(t, conn, 8)
	if open := endpointStates(t, data)[shop.Addr("v1")].GetActive(); open == 0 {
		t.Fatal("no stream is open on v1")
	}
	stop := load(t, s)
	_, notes, err := sluice(t, data, "backend", "drain", "cart", shop.Addr("v1"), "--grace", "500ms", "--wait")
	if err != nil {
		t.Errorf("drain --wait: %v", err)
	}
	if !strings.Contains(notes, "open on "+shop.Addr("v1")) || !strings.HasSuffix(notes, "no RPC is left\n") {
		t.Errorf("it told %q", notes)
	}
	awaitServers(t, conn, "v2")
	if e := endpointStates(t, data)[shop.Addr("v1")]; e.GetState() != "draining" || e.GetActive() != 0 || e.GetWeight() != 0 ||
		e.GetDrain().GetGrace().AsDuration() != 500*time.Millisecond || e.GetDrain().GetBy() == "" {
		t.Errorf("it is listed as %v", e)
	}
	mustSluice(t, data, "backend", "undrain", "cart", shop.Addr("v1"))
	awaitServers(t, conn, "v1", "v2")
	t.Logf("%d RPCs were answered meanwhile", stop())
	evicted := 0
	for range len(ends) {
		select {
		case err := <-ends:
			if status.Code(err) != codes.Unavailable {
				t.Errorf("a stream ended with %v, want UNAVAILABLE", err)
			}
			evicted++
		default:
		}
	}
	if evicted == 0 || evicted == 8 {
		t.Errorf("%d of 8 streams were ended, want those of v1", evicted)
	}
}

// openScans opens streams that stay, and tells of their ends.
func openScans(t *testing.T, conn *grpc.ClientConn, n int) (ends chan error) {
	t.Helper()
	ends = make(chan error, n)
	for range n {
		till, err := shopv1.NewCartClient(conn).Scan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := till.Send(&shopv1.ScanRequest{Item: &shopv1.Item{Quantity: 1, Price: 7}}); err != nil {
			t.Fatal(err)
		}
		if _, err := till.Recv(); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := till.Recv()
			ends <- err
		}()
	}
	return ends
}
