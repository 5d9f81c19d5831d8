package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"

	adminv1 "sluice/admin/v1"
	"sluice/demo"
	shopv1 "sluice/demo/shop/v1"
)

// operator speaks the admin API by the socket of a data directory.
type operator struct {
	t         testing.TB
	resources adminv1.ResourceServiceClient
	node      adminv1.NodeServiceClient
	backends  adminv1.BackendServiceClient
	cluster   adminv1.ClusterServiceClient
}

func operate(t testing.TB, dataDir string) *operator {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dataDir, "admin.sock"))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	return &operator{
		t:         t,
		resources: adminv1.NewResourceServiceClient(client, "http://localhost"),
		node:      adminv1.NewNodeServiceClient(client, "http://localhost"),
		backends:  adminv1.NewBackendServiceClient(client, "http://localhost"),
		cluster:   adminv1.NewClusterServiceClient(client, "http://localhost"),
	}
}

func (o *operator) apply(text string) *adminv1.WriteResponse {
	o.t.Helper()
	reply, err := o.resources.Apply(o.t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: text}))
	if err != nil {
		o.t.Fatalf("apply: %v", err)
	}
	return reply.Msg
}

func (o *operator) split(route string, shares ...*adminv1.Share) *adminv1.WriteResponse {
	o.t.Helper()
	reply, err := o.resources.Split(o.t.Context(), connect.NewRequest(&adminv1.SplitRequest{
		Route: &adminv1.Ref{Kind: "GRPCRoute", Name: route}, Shares: shares,
	}))
	if err != nil {
		o.t.Fatalf("split: %v", err)
	}
	return reply.Msg
}

// canary declares a route to two versions of the shop, the second in reserve.
func canary(shop *demo.Backends) string {
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart}
spec:
  rules:
  - name: all
    backendRefs:
    - {group: sluice.dev, kind: Backend, name: v1, weight: 1}
    - {group: sluice.dev, kind: Backend, name: v2, weight: 0}
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: v1}
spec:
  endpoints: [{address: %q}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: v2}
spec:
  endpoints: [{address: %q}]
`, shop.Addr("v1"), shop.Addr("v2"))
}

// manyRoutes declares n routes, each with a host name of its own, to backend v1.
func manyRoutes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: route-%[1]d}
spec:
  hostnames: [host-%[1]d.example.com]
  rules:
  - name: all
    matches: [{method: {service: shop.v1.Cart}}]
    backendRefs: [{group: sluice.dev, kind: Backend, name: v1}]
`, i)
	}
	return b.String()
}

func sharing(backend string, weight uint32) *adminv1.Share {
	return &adminv1.Share{Backend: backend, Weight: weight}
}

// What was acknowledged is there after the process was killed, and serves.
func TestServeComesBackWithWhatItKept(t *testing.T) {
	shop := startShop(t, "v1", "v2")
	data := t.TempDir()
	s := startServer(t, "--data-dir", data)
	o := operate(t, data)
	o.apply(canary(shop))
	o.split("cart", sharing("v1", 0), sharing("v2", 1))
	s.end(t)
	s = startServer(t, "--data-dir", data)
	if got := s.who(t); got != "v2" {
		t.Errorf("served by %s after a restart, want v2 as the split has it", got)
	}
}

// A split made by hand stays when the file is read again.
func TestServeKeepsASplitBesideAFile(t *testing.T) {
	shop := startShop(t, "v1", "v2")
	data, file := t.TempDir(), filepath.Join(t.TempDir(), "cart.yaml")
	writeFile(t, file, canary(shop))
	s := startServer(t, "--data-dir", data, "--resources", file)
	o := operate(t, data)
	if got := s.who(t); got != "v1" {
		t.Fatalf("served by %s, want v1", got)
	}
	o.split("cart", sharing("v1", 0), sharing("v2", 1))
	writeFile(t, file, strings.Replace(canary(shop), "metadata: {name: cart}", "metadata: {name: cart, labels: {changed: 'yes'}}", 1))
	s.log.await(t, `(?s)msg="configuration applied".*msg="configuration applied".*msg="configuration applied"`)
	if got := s.who(t); got != "v2" {
		t.Errorf("served by %s after the file was read again, want v2", got)
	}
	if _, err := o.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: canary(shop)})); err == nil {
		t.Error("the API changed what the file owns")
	} else if !strings.Contains(err.Error(), file) {
		t.Errorf("refused with %v, want the file named", err)
	}
}

// Changes at the pace of a thousand a minute, as many as SLUICE_CHANGES says, and no
// RPC comes to harm.
func TestServeChangesUnderLoad(t *testing.T) {
	shop := startShop(t, "v1", "v2")
	data := t.TempDir()
	s := startServer(t, "--data-dir", data)
	o := operate(t, data)
	o.apply(canary(shop))
	ctx, stop := context.WithCancel(t.Context())
	var answered atomic.Int64
	var load sync.WaitGroup
	for range 4 {
		conn := s.dial(t)
		load.Go(func() { callUntil(ctx, t, conn, &answered) })
	}
	tick := time.NewTicker(time.Minute / 1000)
	defer tick.Stop()
	changes := asked("SLUICE_CHANGES", 100)
	for i := range changes {
		<-tick.C
		o.split("cart", sharing("v1", uint32(i%100)), sharing("v2", uint32(100-i%100)))
	}
	stop()
	load.Wait()
	t.Logf("%d RPCs were answered during %d changes", answered.Load(), changes)
	if answered.Load() < 100 {
		t.Errorf("%d RPCs were answered, want a load", answered.Load())
	}
}

// callUntil calls until ctx is done; each call must be answered.
func callUntil(ctx context.Context, t *testing.T, conn *grpc.ClientConn, answered *atomic.Int64) {
	cart := shopv1.NewCartClient(conn)
	for ctx.Err() == nil {
		if _, err := cart.Get(t.Context(), &shopv1.GetRequest{Id: "1"}); err != nil {
			t.Errorf("an RPC came to harm: %v", err)
			return
		}
		answered.Add(1)
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What is wrong with the files is told to who asks for the status, as long as it lasts.
func TestServeTellsOfFilesThatAreRefused(t *testing.T) {
	shop := startShop(t, "v1", "v2")
	data, file := t.TempDir(), filepath.Join(t.TempDir(), "cart.yaml")
	writeFile(t, file, canary(shop))
	s := startServer(t, "--data-dir", data, "--resources", file)
	o := operate(t, data)
	problems := func() string {
		t.Helper()
		status, err := o.node.Status(t.Context(), connect.NewRequest(&adminv1.StatusRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(status.Msg.GetProblems(), "\n")
	}
	if got := problems(); got != "" {
		t.Errorf("problems %q, want none", got)
	}
	writeFile(t, file, "kind: Nonsense\n---\nkind: Folly\n")
	s.log.await(t, "resources refused")
	if got := problems(); !strings.Contains(got, file+":1:") || !strings.Contains(got, "other fault") {
		t.Errorf("problems %q, want the file and how many faults it has", got)
	}
	writeFile(t, file, canary(shop))
	s.log.await(t, `(?s)resources refused.*msg="resources applied"`)
	if got := problems(); got != "" {
		t.Errorf("problems %q after the file was mended, want none", got)
	}
}
