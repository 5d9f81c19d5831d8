package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	adminv1 "sluice/admin/v1"
	shopv1 "sluice/demo/shop/v1"
)

// All gateways are restarted one after the other, as an upgrade does, under a load
// through all of them. They find each other by what they remember.
func TestClusterRestartsNodeByNode(t *testing.T) {
	t.Parallel()
	shop := startShop(t, "v1", "v2")
	peers := startPeers(t, 3)
	applyAll(t, peers[0], canary(shop))
	stop := callAll(t, peers, 4)
	for i, p := range peers {
		begun := time.Now()
		p.end(t)
		ended := time.Since(begun)
		p.forgetJoin()
		p.start()
		if p.log.String() == "" || p.who(t) == "" {
			t.Errorf("gateway %d does not serve what it knew", i)
		}
		awaitAgreement(t, peers...)
		t.Logf("gateway %d ended in %v, was back and in step after %v", i, ended, time.Since(begun))
	}
	answered := stop()
	t.Logf("%d RPCs were answered meanwhile", answered)
	if answered < 100 {
		t.Errorf("%d RPCs were answered, want a load", answered)
	}
	restartAll(t, peers)
}

// restartAll ends all gateways and starts them anew, without a word of who the others are.
func restartAll(t *testing.T, peers []*peer) {
	for _, p := range peers {
		p.end(t)
	}
	for _, p := range slices.Backward(peers) {
		p.start()
		if got := p.who(t); got != "v1" {
			t.Errorf("served by %s while alone, want v1 as it knew", got)
		}
	}
	begun := time.Now()
	awaitAgreement(t, peers...)
	t.Logf("after all were down, they had found each other again in %v", time.Since(begun))
}

// One gateway is killed as a power cut does. No RPC at another comes to harm, who
// registered at it stays, and the others know within 10 s.
func TestClusterSurvivesACrash(t *testing.T) {
	t.Parallel()
	shop := startShop(t, "v1", "v2")
	peers := startPeers(t, 2)
	crashing, data := startKillable(t, peers[0])
	until(t, "the process is a member", func() bool { return peers[0].agrees(3) && peers[1].agrees(3) })
	applyAll(t, peers[0], registering())
	mustSluice(t, data, "backend", "register", "cart", shop.Addr("v1"), "--lease", "2s")
	until(t, "its registration is known", func() bool { return strings.Contains(peers[1].listed("cart"), shop.Addr("v1")) })
	awaitServers(t, peers[1].dial(t), "v1")

	stop := callAll(t, peers, 4)
	begun := time.Now()
	if err := crashing.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	crashing.Wait()
	for _, p := range peers {
		until(t, "the crash is known", func() bool { return len(p.in(adminv1.Member_STATE_DEAD)) == 1 })
		t.Logf("known after %v", time.Since(begun))
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the crash was known to all after %v, want 10s", took)
	}
	<-time.After(3 * time.Second) // longer than the lease, which nobody renews
	if !strings.Contains(peers[0].listed("cart"), shop.Addr("v1")) {
		t.Error("a backend that can be reached is gone with the gateway at which it registered")
	}
	t.Logf("%d RPCs were answered meanwhile", stop())
}

// Who ends says so before it drains, and goodbye when it has.
func TestClusterHearsThatANodeEnds(t *testing.T) {
	t.Parallel()
	shop := startShop(t, "v1", "v2")
	peers := startPeers(t, 2)
	applyAll(t, peers[0], canary(shop))
	till, err := shopv1.NewCartClient(peers[1].dial(t)).Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	scan := func() {
		t.Helper()
		if err := till.Send(&shopv1.ScanRequest{Item: &shopv1.Item{Quantity: 1, Price: 7}}); err != nil {
			t.Fatal(err)
		}
		if _, err := till.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	scan()
	peers[1].cancel()
	until(t, "the peer knows of the drain", func() bool {
		return slices.ContainsFunc(peers[0].in(adminv1.Member_STATE_ALIVE), (*adminv1.Member).GetDraining)
	})
	scan() // the stream goes on meanwhile
	applyAll(t, peers[0], strings.Replace(canary(shop), "metadata: {name: cart}", "metadata: {name: cart, labels: {a: b}}", 1))
	if err := till.CloseSend(); err != nil {
		t.Fatal(err)
	}
	peers[1].end(t)
	until(t, "the peer knows that it left", func() bool { return peers[0].sees(peers[1]) == adminv1.Member_STATE_LEFT })
}

// startKillable starts a gateway as a process of its own, that joins another.
func startKillable(t *testing.T, other *peer) (cmd *exec.Cmd, data string) {
	t.Helper()
	data = t.TempDir()
	args := append([]string{"serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"}, other.args...)
	args = append(args, "--gossip", "127.0.0.1:0", "--join", other.gossip()) // the last word counts
	cmd = program(t, []string{"SLUICE_CONFIG=/dev/null"}, args...)
	log := newOutput()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	log.await(t, "msg=serving")
	return cmd, data
}

// in are the members in a state, as this one sees them.
func (p *peer) in(state adminv1.Member_State) (found []*adminv1.Member) {
	for _, m := range p.members() {
		if m.GetState() == state {
			found = append(found, m)
		}
	}
	return found
}
