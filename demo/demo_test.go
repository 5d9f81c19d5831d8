package demo

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	shopv1 "sluice/demo/shop/v1"
)

// runBackends serves the versions until the test ends.
func runBackends(t *testing.T, versions ...string) *Backends {
	t.Helper()
	b, err := NewBackends(versions...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("backends ended with %v, want nil", err)
		}
	})
	return b
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestCartAnswersEveryKindOfRPCWithItsVersion(t *testing.T) {
	b := runBackends(t, "v1", "v2")
	for _, version := range []string{"v1", "v2"} {
		client := shopv1.NewCartClient(dial(t, b.Addr(version)))
		for i, kind := range kinds {
			got, err := kind(t.Context(), client)
			if err != nil || got != version {
				t.Errorf("kind %d on %s: served by %q, error %v", i, version, got, err)
			}
		}
	}
}

func TestCartAddsUp(t *testing.T) {
	b := runBackends(t, "v1")
	client := shopv1.NewCartClient(dial(t, b.Addr("v1")))
	stream, err := client.Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	item := &shopv1.Item{Quantity: 3, Price: 5}
	for want := uint64(15); want <= 45; want += 15 {
		if err := stream.Send(&shopv1.ScanRequest{Item: item}); err != nil {
			t.Fatal(err)
		}
		reply, err := stream.Recv()
		if err != nil || reply.GetTotal() != want {
			t.Fatalf("running total %d, error %v, want %d", reply.GetTotal(), err, want)
		}
	}
}

func TestCartRefusesAnUnboundedWatch(t *testing.T) {
	b := runBackends(t, "v1")
	client := shopv1.NewCartClient(dial(t, b.Addr("v1")))
	stream, err := client.Watch(t.Context(), &shopv1.WatchRequest{Changes: maxChanges + 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("watch of %d changes: %v, want InvalidArgument", maxChanges+1, err)
	}
}

func TestBackendsReportHealth(t *testing.T) {
	b := runBackends(t, "v1")
	client := healthpb.NewHealthClient(dial(t, b.Addr("v1")))
	for _, service := range []string{"", "shop.v1.Cart"} {
		reply, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || reply.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, error %v", service, reply.GetStatus(), err)
		}
	}
}

func TestBackendsResourcesNameEveryVersion(t *testing.T) {
	b, err := NewBackends("v1", "v2")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := string(b.Resources(90, 10))
	for _, want := range []string{"name: cart-v1, weight: 90", "name: cart-v2, weight: 10", b.Addr("v1"), b.Addr("v2")} {
		if !strings.Contains(got, want) {
			t.Errorf("resources lack %q:\n%s", want, got)
		}
	}
}

func TestLoadKeepsItsRate(t *testing.T) {
	b := runBackends(t, "v1")
	load, err := NewLoad(200, b.Addr("v1"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := load.Run(ctx); err != nil {
		t.Fatal(err)
	}
	got := load.Totals()
	// 100 at most; a busy machine may make less of it, but never more.
	if got.RPCs < 20 || got.RPCs > 110 {
		t.Errorf("%d RPCs in 500 ms at 200/s", got.RPCs)
	}
	if got.Errors != 0 || got.ByVersion["v1"] != got.RPCs || got.P99 == 0 {
		t.Errorf("totals %+v: want no errors, all served by v1, and a p99", got)
	}
}

// A client that knows several gateways goes on at those that are left.
func TestLoadGoesOnAtAnotherGateway(t *testing.T) {
	b := runBackends(t, "v1", "v2")
	gone, err := NewBackends("gone")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- gone.Run(ctx) }()
	load, err := NewLoad(300, b.Addr("v1"), gone.Addr("gone"), b.Addr("v2"))
	if err != nil {
		t.Fatal(err)
	}
	loading, end := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- load.Run(loading) }()
	await := func(version string, more uint64) {
		t.Helper()
		from := load.Totals().ByVersion[version]
		for deadline := time.Now().Add(10 * time.Second); load.Totals().ByVersion[version] < from+more; {
			if time.Now().After(deadline) {
				t.Fatalf("no %d RPCs more at %s: %+v", more, version, load.Totals())
			}
			time.Sleep(time.Millisecond) // allow:sleep
		}
	}
	await("gone", 20)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	await("v1", 20)
	await("v2", 20)
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
	got := load.Totals()
	if got.Errors != 0 || got.ByGateway[b.Addr("v1")] < 20 || got.ByGateway[gone.Addr("gone")] < 20 {
		t.Errorf("totals %+v: want no errors, and RPCs through each gateway", got)
	}
}

func TestLoadCountsErrors(t *testing.T) {
	load, err := NewLoad(100, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	load.record("", nil, io.ErrUnexpectedEOF, time.Millisecond)
	load.record("v1", nil, nil, time.Millisecond)
	got := load.Totals()
	if got.RPCs != 2 || got.Errors != 1 || !errors.Is(got.LastError, io.ErrUnexpectedEOF) {
		t.Errorf("totals %+v: want 2 RPCs, 1 error", got)
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100 - i)
	}
	tests := []struct {
		name   string
		values []time.Duration
		q      float64
		want   time.Duration
	}{
		{"of nothing", nil, 0.99, 0},
		{"of one", []time.Duration{7}, 0.99, 7},
		{"p99 of 1 to 100", hundred, 0.99, 99},
		{"p50 of 1 to 100", hundred, 0.50, 50},
	}
	for _, test := range tests {
		if got := quantile(test.values, test.q); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}
