package gateway

import (
	"testing"
	"time"

	"sluice/gateway/wire"
)

// sharing are gateways that live together, with one rule that all have.
func sharing(t *testing.T, n int, policy, address string) []*node {
	t.Helper()
	nodes := make([]*node, n)
	for i := range nodes {
		nodes[i] = startGateway(t, Config{}, gridSchema(t), backendAt("a", address), routeTo("r", "a"), policyFor("r", policy))
		nodes[i].SetPeers(n)
	}
	return nodes
}

// A client that is spread over the gateways gets what the rule allows the cluster, and what
// is left to those that live has not to be earned anew.
func TestClusterLimitIsSharedByThoseThatLive(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	nodes := sharing(t, 3, "rateLimits: [{requests: 300, scope: Cluster}]", b.addr)
	from := &requester{session: &session{}}
	now := time.Now()
	// second is how many of 3,000 RPCs a second, one after the other at each, begin.
	second := func(nodes []*node) (n int) {
		for i := range 3000 {
			if ok, _ := nodes[i%len(nodes)].table.Load().gates[0].take(now, from); ok {
				n++
			}
			now = now.Add(time.Second / 3000)
		}
		return n
	}
	within := func(what string, got, want int) {
		if t.Helper(); got < want*95/100 || got > want*105/100 {
			t.Errorf("%s: %d RPCs a second begin, want %d within 5 %%", what, got, want)
		}
	}
	within("three, with the burst", second(nodes), 600)
	for range 5 {
		within("three", second(nodes), 300)
	}
	left := nodes[:2]
	for _, n := range left {
		n.SetPeers(2)
	}
	for range 5 {
		within("two", second(left), 300)
	}
	for _, n := range nodes {
		n.SetPeers(3)
	}
	within("three again", second(left), 200)
	nodes[0].SetPeers(1)
	second(nodes[:1])
	within("one", second(nodes[:1]), 300)
}

// With keys it is the same for each, and who is over his limit at three gateways is over it
// when one of them leaves.
func TestClusterLimitIsSharedForEveryKey(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	nodes := sharing(t, 3, `rateLimits: [{requests: 30, interval: 1h, scope: Cluster, key: {header: x-user}}, {requests: 1000, interval: 1h}]`, b.addr)
	for i, n := range nodes {
		c := gridCallers(t, n)[0]
		ask := func(header, value string) wire.Code {
			return c.must(t, gridAsk{method: "Name", header: map[string]string{header: value}}).code
		}
		for j := range 12 {
			want := wire.OK
			if j >= 10 {
				want = wire.ResourceExhausted
			}
			if got := ask("X-User", "a"); got != want {
				t.Fatalf("gateway %d, RPC %d: %v, want %v", i, j, got, want)
			}
			if got := ask("X-User", "b"); j < 2 && got != wire.OK {
				t.Errorf("gateway %d, another key: %v", i, got)
			}
		}
		n.SetPeers(2)
		if got := ask("X-User", "a"); got != wire.ResourceExhausted {
			t.Errorf("gateway %d, when one has left: %v, though nothing has been earned since", i, got)
		}
		if got := ask("X-User", "c"); got != wire.OK {
			t.Errorf("gateway %d, a new key when one has left: %v", i, got)
		}
		n.SetPeers(3)
	}
}

// The retries that a rule always has are shared alike.
func TestClusterRetriesAreShared(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	nodes := sharing(t, 3, "retryConstraint: {budget: {percent: 0}, minRetryRate: {count: 30, interval: 1h}, scope: Cluster}", b.addr)
	now := time.Now()
	allowed := func(live int) (n int) {
		for _, node := range nodes[:live] {
			budget := node.table.Load().gates[0].budget
			for range 40 {
				if budget.Allow(now) {
					n++
				}
			}
		}
		return n
	}
	if got := allowed(3); got != 30 {
		t.Errorf("three gateways allow %d retries an hour, want 30", got)
	}
	for _, n := range nodes[:2] {
		n.SetPeers(2)
	}
	if got := allowed(2); got != 10 {
		t.Errorf("two of them allow %d more, want what was the third's", got)
	}
}

// What does not say that it is the cluster's, each gateway has for itself.
func TestGatewayLimitIsDividedByNobody(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	g := sharing(t, 3, "rateLimits: [{requests: 30, interval: 1h}]\nretryConstraint: {budget: {percent: 0}, minRetryRate: {count: 30, interval: 1h}}", b.addr)[0]
	gate := g.table.Load().gates[0]
	now, begun, retried := time.Now(), 0, 0
	for range 40 {
		if ok, _ := gate.take(now, &requester{session: &session{}}); ok {
			begun++
		}
		if gate.budget.Allow(now) {
			retried++
		}
	}
	if begun != 30 || retried != 30 {
		t.Errorf("%d RPCs begin, and %d retries, want 30", begun, retried)
	}
}
