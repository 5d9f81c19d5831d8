//go:build !race

package main

import (
	"slices"
	"testing"
	"time"

	shopv1 "sluice/demo/shop/v1"
)

// A split holds from the first RPC that begins after the write was acknowledged.
func TestMeasuredSplitIsObeyedAtOnce(t *testing.T) {
	shop := startShop(t, "v1", "v2")
	data := t.TempDir()
	s := startServer(t, "--data-dir", data)
	o := operate(t, data)
	o.apply(canary(shop))
	conn := s.dial(t)
	cart := shopv1.NewCartClient(conn)
	var took []time.Duration
	for i := range 100 {
		want := []string{"v1", "v2"}[(i+1)%2]
		o.split("cart", sharing("v1", uint32(i%2)), sharing("v2", uint32((i+1)%2)))
		acknowledged := time.Now()
		for {
			reply, err := cart.Get(t.Context(), &shopv1.GetRequest{Id: "1"})
			if err != nil {
				t.Fatal(err)
			}
			if reply.GetServedBy() == want {
				break
			}
			if time.Since(acknowledged) > patience {
				t.Fatalf("split %d is not in force after %v", i, patience)
			}
		}
		took = append(took, time.Since(acknowledged))
	}
	slices.Sort(took)
	t.Logf("from the acknowledged write to the end of the first RPC that obeys: median %v, p99 %v", took[50], took[98])
	if p99 := took[98]; p99 > 10*time.Millisecond {
		t.Errorf("p99 %v, want 10ms at most", p99)
	}
}

// A split at one of three gateways is obeyed by all, and who registers at one gets RPCs
// through another.
func TestMeasuredClusterObeysWithinASecond(t *testing.T) {
	shop := startShop(t, "v1", "v2", "v3")
	peers := startPeers(t, 3)
	applyAll(t, peers[0], canary(shop))
	took := splitEverywhere(t, peers, 50)
	n := len(took)
	t.Logf("from the acknowledged write to the end of the first RPC at any gateway that obeys: median %v, p99 %v, at most %v", took[n/2], took[n*99/100], took[n-1])
	if p99 := took[n*99/100]; p99 > time.Second {
		t.Errorf("p99 %v, want 1s at most", p99)
	}

	applyAll(t, peers[0], registering())
	tills := shopv1.NewCartClient(peers[2].dial(t))
	begun := time.Now()
	mustSluice(t, peers[0].data, "backend", "register", "cart", shop.Addr("v3"))
	for {
		if _, err := tills.Get(t.Context(), &shopv1.GetRequest{Id: "1"}); err == nil {
			break
		} else if time.Since(begun) > time.Second {
			t.Fatalf("a second after it registered, through another gateway: %v", err)
		}
	}
	t.Logf("from the start of the command that registers to the first RPC through another gateway: %v", time.Since(begun))
}

// 10,000 routes: how long the start takes, and a change.
func TestMeasuredTenThousandRoutes(t *testing.T) {
	shop := startShop(t, "v1", "v2")
	data := t.TempDir()
	s := startServer(t, "--data-dir", data)
	o := operate(t, data)
	o.apply(canary(shop))
	begin := time.Now()
	o.apply(manyRoutes(10_000))
	t.Logf("10,000 routes were applied in %v", time.Since(begin))
	var changes []time.Duration
	for i := range 11 {
		begin := time.Now()
		o.split("cart", sharing("v1", uint32(i%2)), sharing("v2", uint32((i+1)%2)))
		changes = append(changes, time.Since(begin))
	}
	slices.Sort(changes)
	t.Logf("a change among them took %v, %v at most", changes[5], changes[10])
	s.end(t)

	begin = time.Now()
	s = startServer(t, "--data-dir", data)
	s.who(t)
	took := time.Since(begin)
	t.Logf("from the start to the first RPC: %v", took)
	if took > 2*time.Second {
		t.Errorf("from the start to the first RPC: %v, want 2s at most", took)
	}
	if changes[5] > 50*time.Millisecond {
		t.Errorf("a change took %v, want 50ms at most", changes[5])
	}
}
