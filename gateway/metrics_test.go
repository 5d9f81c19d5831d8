package gateway

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestMetricsAgreeWithTheClients counts the codes of many RPCs on either side.
func TestMetricsAgreeWithTheClients(t *testing.T) {
	t.Parallel()
	b := startAnswering(t, map[string]answer{"Status": func(_ *backend, st grpc.ServerStream) error {
		var m []byte
		if err := st.RecvMsg(&m); err != nil {
			return err
		}
		if len(m) > 1 || m[0] == 0 { // in trailers
			if err := st.SendMsg(&m); err != nil {
				return err
			}
		}
		return status.Error(codes.Code(m[0]), "as asked")
	}})
	g := startGateway(t, Config{}, backendAt("a", b.addr), backendAt("dead", deadAddress()), routeTo("split", "a=80", "dead=10", "nobody=10"))
	conns := []*grpc.ClientConn{dial(t, g.address()), dial(t, g.address()), dial(t, g.address())}
	var mu sync.Mutex
	heard := make(map[codes.Code]int)
	const rpcs = 1000
	each(rpcs, 20, func(i int) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if i%10 == 9 {
			ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		}
		defer cancel()
		var err error
		if i%10 == 9 {
			_, err = invoke(ctx, conns[i%3], "/shop.Cart/Hang", nil)
		} else {
			request := make([]byte, 1+i%2)
			request[0] = byte(i % 17) // the code
			_, err = invoke(ctx, conns[i%3], "/shop.Cart/Status", request)
		}
		mu.Lock()
		heard[status.Code(err)]++
		mu.Unlock()
	})
	await(t, "every RPC to be over", func() bool { return g.metric(t, "sluice_rpc_open") == 0 })
	families := g.scrape(t)
	// A caller that gives up at its deadline says CANCEL, and on a busy machine that
	// can come long before our own clock says the same.
	gaveUp := heard[codes.DeadlineExceeded] + heard[codes.Canceled]
	if got := sample(t, families, "sluice_rpc_ended_total", "code", "DEADLINE_EXCEEDED") + sample(t, families, "sluice_rpc_ended_total", "code", "CANCELLED"); got != float64(gaveUp) {
		t.Errorf("%v RPCs were given up, the clients gave up %d", got, gaveUp)
	}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		if code == codes.DeadlineExceeded || code == codes.Canceled {
			continue
		}
		if got := sample(t, families, "sluice_rpc_ended_total", "code", wireName(code)); got != float64(heard[code]) {
			t.Errorf("%v RPCs ended as %v, the clients heard %d", got, code, heard[code])
		}
	}
	for _, name := range []string{"sluice_rpc_started_total", "sluice_rpc_ended_total", "sluice_rpc_seconds", "sluice_rpc_outcome_total"} {
		if got := sample(t, families, name); got != rpcs {
			t.Errorf("%s is %v, want %d", name, got, rpcs)
		}
	}
	for backend, want := range map[string]float64{"default/a": 800, "default/dead": 100, "default/nobody": 100} {
		if got := sample(t, families, "sluice_rpc_started_total", "route", "default/split", "backend", backend); got != want {
			t.Errorf("%v RPCs of %s, want %v", got, backend, want)
		}
	}
	if got := sample(t, families, "sluice_endpoint_dial_failures_total", "backend", "default/dead"); got < 1 {
		t.Errorf("%v dials of the dead endpoint failed", got)
	}
}

// TestMetricsAreThereFromTheStart: an alert on what never happened yet has something
// to look at.
func TestMetricsAreThereFromTheStart(t *testing.T) {
	t.Parallel()
	g := startGateway(t, Config{}, backendAt("a", deadAddress()), routeTo("a", "a"))
	families := g.scrape(t)
	outcomes := make(map[string]bool)
	for _, m := range families["sluice_rpc_outcome_total"].GetMetric() {
		outcomes[m.Label[0].GetValue()] = true
	}
	for o := range numOutcomes {
		if !outcomes[o.String()] {
			t.Errorf("no sluice_rpc_outcome_total of %v", o)
		}
	}
	for _, name := range []string{
		"sluice_rpc_path_total", "sluice_rpc_moved_total", "sluice_rpc_kept_bytes", "sluice_stream_queued_bytes",
		"sluice_conn_open", "sluice_conn_opened_total", "sluice_conn_closed_total", "sluice_stream_open", "sluice_stream_rejected_total",
		"sluice_bytes_total", "sluice_endpoint_active", "sluice_endpoint_connections", "sluice_endpoint_usable", "sluice_endpoint_dial_failures_total",
		"sluice_rpc_started_total", "sluice_rpc_ended_total", "sluice_rpc_open", "sluice_rpc_seconds",
	} {
		f := families[name]
		if len(f.GetMetric()) == 0 {
			t.Errorf("no %s", name)
		}
		if help := f.GetHelp(); !strings.HasSuffix(help, ".") {
			t.Errorf("%s: help %q is no sentence", name, help)
		}
	}
	if got := fmt.Sprint(sample(t, families, "sluice_rpc_started_total", "route", "default/a")); got != "0" {
		t.Errorf("%s RPCs started before the first", got)
	}
}
