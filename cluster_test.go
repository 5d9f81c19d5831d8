package main

import (
	"context"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/admin/v1"
	shopv1 "sluice/demo/shop/v1"
)

// A node that was told of no peers has nothing to do with any.
func TestServeIsAlone(t *testing.T) {
	data := t.TempDir()
	s := startServer(t, "--data-dir", data)
	if log := s.log.String(); strings.Contains(log, "cluster") || strings.Contains(log, "gossip") {
		t.Errorf("the log speaks of a cluster:\n%s", log)
	}
	if _, page := s.get(t, "/metrics"); strings.Contains(page, "sluice_cluster") {
		t.Error("there are metrics of a cluster")
	}
	_, err := operate(t, data).cluster.DrainNode(t.Context(), connect.NewRequest(&adminv1.DrainNodeRequest{}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("drain: %v, want a refusal", err)
	}
}

// What is told to one gateway, all obey: whoever registers, splits, drains or asks does
// so at any of them.
func TestClusterObeysAsOne(t *testing.T) {
	t.Parallel() // it waits more than it works
	shop := startShop(t, "v1", "v2", "v3")
	peers := startPeers(t, 3)

	t.Run("what one is told is in force at all when it was waited for", func(t *testing.T) {
		reply, err := peers[2].resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: canary(shop), Wait: adminv1.Wait_WAIT_ALL}))
		if err != nil {
			t.Fatal(err)
		}
		if got := reply.Msg.GetPeers(); got.GetConfirmed() != 2 || len(got.GetUnconfirmed()) > 0 {
			t.Errorf("confirmed by %v, want both peers", got)
		}
		for i, p := range peers {
			if got := p.who(t); got != "v1" {
				t.Errorf("gateway %d: served by %s, want v1", i, got)
			}
		}
	})
	t.Run("a split at one is obeyed by all", func(t *testing.T) {
		took := splitEverywhere(t, peers, 10)
		t.Logf("from the change to the RPC that obeys: %v at most", took[len(took)-1])
	})
	t.Run("a drain at one is one at all", func(t *testing.T) {
		drain := func(undo bool) {
			t.Helper()
			_, err := peers[1].resources.Drain(t.Context(), connect.NewRequest(&adminv1.DrainRequest{
				Backend: &adminv1.Ref{Name: "v2"}, Undo: undo, Wait: adminv1.Wait_WAIT_ALL,
			}))
			if err != nil {
				t.Fatal(err)
			}
		}
		drain(false)
		for i, p := range peers {
			if got := p.manifestState("Backend", "v2"); !strings.Contains(got, "drain") {
				t.Errorf("gateway %d does not know of the drain: %s", i, got)
			}
		}
		drain(true)
	})
	t.Run("who registers at one is called through another", func(t *testing.T) {
		applyAll(t, peers[0], strings.ReplaceAll(registering(), "cart}", "tills}"))
		begun := time.Now()
		_, err := peers[0].backends.Register(t.Context(), connect.NewRequest(&adminv1.RegisterRequest{
			Backend: &adminv1.Ref{Name: "tills"}, Address: shop.Addr("v3"), Lease: durationpb.New(10 * time.Minute),
		}))
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range peers {
			until(t, "the registration is known", func() bool { return strings.Contains(p.listed("tills"), shop.Addr("v3")) })
			t.Logf("gateway %d knows of it after %v", i, time.Since(begun))
		}
	})
	t.Run("any of them answers for the others", func(t *testing.T) {
		for i, p := range peers {
			history, err := p.resources.History(t.Context(), connect.NewRequest(&adminv1.HistoryRequest{Ref: &adminv1.Ref{Kind: "GRPCRoute", Name: "cart"}}))
			if err != nil || len(history.Msg.GetChanges()) == 0 {
				t.Errorf("gateway %d has no history: %v", i, err)
			}
			if len(p.members()) != 3 {
				t.Errorf("gateway %d lists %v", i, p.members())
			}
		}
		awaitAgreement(t, peers...)
	})
	t.Run("a node that is drained says so and serves", func(t *testing.T) { drainNode(t, peers) })
	t.Run("two sides that did not hear each other", func(t *testing.T) { partWays(t, peers, shop.Addr("v3")) })
}

// drainNode takes one out for a while, by the API.
func drainNode(t *testing.T, peers []*peer) {
	drain := func(undo bool) {
		t.Helper()
		if _, err := peers[1].cluster.DrainNode(t.Context(), connect.NewRequest(&adminv1.DrainNodeRequest{Undo: undo})); err != nil {
			t.Fatal(err)
		}
	}
	drain(false)
	if status, body := peers[1].get(t, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "drained") {
		t.Errorf("readyz of a drained node: %d %q, want 503 and why", status, body)
	}
	peers[1].who(t)
	draining := func(want bool) func() bool {
		return func() bool {
			return slices.ContainsFunc(peers[0].members(), func(m *adminv1.Member) bool {
				return m.GetListen() == peers[1].listen && m.GetDraining() == want
			})
		}
	}
	until(t, "a peer knows of the drain", draining(true))
	drain(true)
	until(t, "a peer knows that it is over", draining(false))
	if status, _ := peers[1].get(t, "/readyz"); status != http.StatusOK {
		t.Errorf("readyz: %d, want 200", status)
	}
}

// partWays has one leave, both sides change the same, and the two come together again.
func partWays(t *testing.T, peers []*peer, address string) {
	if _, err := peers[2].cluster.Leave(t.Context(), connect.NewRequest(&adminv1.LeaveRequest{})); err != nil {
		t.Fatal(err)
	}
	until(t, "the others know that it left", func() bool {
		return peers[0].sees(peers[2]) == adminv1.Member_STATE_LEFT && peers[1].sees(peers[2]) == adminv1.Member_STATE_LEFT
	})
	until(t, "limits are shared by those who live", func() bool {
		_, page := peers[0].get(t, "/metrics")
		return strings.Contains(page, "\nsluice_limit_gateways 2\n")
	})
	edit := func(p *peer, version string) {
		t.Helper()
		p.apply(`{apiVersion: sluice.dev/v1alpha1, kind: Backend, metadata: {name: contested, labels: {by: "` + version + `"}}, spec: {endpoints: [{address: "` + address + `"}]}}`)
	}
	edit(peers[0], "many")
	edit(peers[2], "one")
	peers[2].who(t) // it serves on
	if _, err := peers[2].cluster.Join(t.Context(), connect.NewRequest(&adminv1.JoinRequest{Addresses: []string{peers[0].gossip()}})); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	awaitAgreement(t, peers...)
	t.Logf("after they met again, all had the same in %v", time.Since(begun))
	for i, p := range peers {
		if list := p.conflicts(); len(list) != 1 || len(list[0].GetLost()) != 1 || !strings.Contains(list[0].GetLost()[0].GetObject().GetManifest(), "many") {
			t.Errorf("gateway %d lists the conflicts %v, want the one", i, list)
		}
	}
}

// What a file of one node declares is obeyed and read-only at the others.
func TestClusterTellsWhoseFileItIs(t *testing.T) {
	t.Parallel() // it waits more than it works
	shop := startShop(t, "v1", "v2")
	file := filepath.Join(t.TempDir(), "cart.yaml")
	writeFile(t, file, canary(shop))
	peers := startPeers(t, 2)
	peers[0].end(t)
	peers[0].args = append(peers[0].args, "--resources", file)
	peers[0].start()
	awaitAgreement(t, peers...)
	if got := peers[1].who(t); got != "v1" {
		t.Errorf("served by %s, want v1 as the other's file has it", got)
	}
	changed := strings.Replace(canary(shop), "metadata: {name: cart}", "metadata: {name: cart, labels: {a: b}}", 1)
	if _, err := peers[1].resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: changed})); err == nil || !strings.Contains(err.Error(), "cart.yaml") {
		t.Errorf("a change of what a file of the other has: %v, want it refused and the file named", err)
	}

	// With a file of its own, that says something else, each goes on with its own word.
	other := filepath.Join(t.TempDir(), "other.yaml")
	writeFile(t, other, strings.NewReplacer("name: v1, weight: 1", "name: v1, weight: 0", "name: v2, weight: 0", "name: v2, weight: 1").Replace(canary(shop)))
	peers[1].end(t)
	peers[1].args = append(peers[1].args, "--resources", other)
	peers[1].start()
	for i, p := range peers {
		until(t, "they are seen to differ", func() bool {
			return slices.ContainsFunc(p.in(adminv1.Member_STATE_ALIVE), (*adminv1.Member).GetDrift)
		})
		if got, want := p.who(t), []string{"v1", "v2"}[i]; got != want {
			t.Errorf("gateway %d: served by %s, want %s as its own file has it", i, got, want)
		}
	}
}

// splitEverywhere changes a split as often as asked for, each time at another gateway,
// and returns how long each took to obey, from the shortest on.
func splitEverywhere(t *testing.T, peers []*peer, changes int) (took []time.Duration) {
	t.Helper()
	var mu sync.Mutex // guards took
	var carts []shopv1.CartClient
	for _, p := range peers {
		carts = append(carts, shopv1.NewCartClient(p.dial(t)))
	}
	for i := range changes {
		want := []string{"v1", "v2"}[(i+1)%2]
		var obeyed sync.WaitGroup
		peers[i%len(peers)].split("cart", sharing("v1", uint32(i%2)), sharing("v2", uint32((i+1)%2)))
		told := time.Now()
		for _, cart := range carts {
			obeyed.Go(func() {
				for {
					reply, err := cart.Get(t.Context(), &shopv1.GetRequest{Id: "1"})
					if err != nil || time.Since(told) > patience {
						t.Errorf("split %d: error %v after %v", i, err, time.Since(told))
						return
					}
					if reply.GetServedBy() == want {
						break
					}
				}
				mu.Lock()
				defer mu.Unlock()
				took = append(took, time.Since(told))
			})
		}
		obeyed.Wait()
	}
	slices.Sort(took)
	return took
}

// applyAll declares something and waits until all obey.
func applyAll(t *testing.T, p *peer, text string) {
	t.Helper()
	reply, err := p.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: text, Wait: adminv1.Wait_WAIT_ALL}))
	if err != nil {
		t.Fatal(err)
	}
	if list := reply.Msg.GetPeers().GetUnconfirmed(); len(list) > 0 {
		t.Errorf("not confirmed by %v", list)
	}
}

// manifestState is what operating has added to an object.
func (p *peer) manifestState(kind, name string) string {
	p.t.Helper()
	reply, err := p.resources.Get(p.t.Context(), connect.NewRequest(&adminv1.GetRequest{Ref: &adminv1.Ref{Kind: kind, Name: name}}))
	if err != nil {
		p.t.Fatal(err)
	}
	return reply.Msg.GetObject().GetState().String()
}

// conflicts are the objects that two gateways changed unknown to each other.
func (p *peer) conflicts() []*adminv1.Contested {
	p.t.Helper()
	reply, err := p.cluster.ListConflicts(p.t.Context(), connect.NewRequest(&adminv1.ListConflictsRequest{}))
	if err != nil {
		p.t.Fatal(err)
	}
	return reply.Msg.GetConflicts()
}

// listed are the endpoints of a backend, in one text.
func (p *peer) listed(backend string) string {
	p.t.Helper()
	reply, err := p.backends.ListEndpoints(p.t.Context(), connect.NewRequest(&adminv1.ListEndpointsRequest{Backend: &adminv1.Ref{Name: backend}}))
	if err != nil {
		p.t.Fatal(err)
	}
	return reply.Msg.String()
}

// callAll calls through a client that knows all of them until stopped, and wants every
// call answered.
func callAll(t *testing.T, peers []*peer, workers int) (stop func() int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var answered atomic.Int64
	var calling sync.WaitGroup
	conn := dialAll(t, peers)
	for range workers {
		calling.Go(func() { callUntil(ctx, t, conn, &answered) })
	}
	return func() int64 {
		cancel()
		calling.Wait()
		return answered.Load()
	}
}
