package faults

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// peers are gateways that know one another, each on a machine of its own.
type peers struct {
	t   *testing.T
	key string // of gossip
	all []*peer
}

// peer is one of them.
type peer struct {
	*gateway
	running bool
}

const gossipPort = ":7946"

// startPeers starts n gateways; they know one another, and the manifest, when it returns.
func startPeers(t *testing.T, n int, manifest string) *peers {
	t.Helper()
	p := &peers{t: t, key: newKey()}
	for number := 1; number <= n; number++ {
		p.all = append(p.all, p.newPeer(t, number))
	}
	for _, g := range p.all {
		g.run()
	}
	for _, g := range p.all {
		g.awaitReady()
	}
	p.awaitAlive(n, patience)
	if manifest != "" {
		p.all[0].apply(manifest)
		p.awaitEqual(patience)
	}
	return p
}

// newKey is one for gossip.
func newKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return base64.StdEncoding.EncodeToString(key)
}

// newPeer makes a gateway that does not run yet. Each has a key file of its own, and is
// told the first two to join.
func (p *peers) newPeer(t *testing.T, number int, flags ...string) *peer {
	t.Helper()
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(workDir, "peer-")
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, number)
	flags = append([]string{
		"--gossip", m.gossipAddress() + gossipPort,
		"--join", gossipNet + "1" + gossipPort, "--join", gossipNet + "2" + gossipPort,
	}, flags...)
	if p.key != "" {
		keys := filepath.Join(dir, "keys")
		if err := os.WriteFile(keys, []byte(p.key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		flags = append(flags, "--gossip-key-file", keys)
	}
	g := &peer{gateway: &gateway{
		t: t, binary: binary, dir: dir, at: m, log: filepath.Join(dir, "log"),
		address: m.callersAddress() + ":8080", admin: "127.0.0.1:9901", flags: flags,
	}}
	t.Cleanup(g.finish)
	return g
}

// run starts the gateway, for the first time or again.
func (g *peer) run() {
	g.t.Helper()
	g.start()
	g.running = true
}

// finish ends a gateway that runs, at the end of the test.
func (g *peer) finish() {
	if g.running {
		g.end()
	}
}

// kill ends the gateway as kill -9 does.
func (g *peer) kill() {
	g.t.Helper()
	if err := g.cmd.Process.Kill(); err != nil {
		g.t.Fatal(err)
	}
	<-g.ended
	g.running = false
}

// terminate ends the gateway as a service manager does, and tells how long that took.
func (g *peer) terminate(within time.Duration) time.Duration {
	g.t.Helper()
	begin := time.Now()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatal(err)
	}
	select {
	case <-g.ended:
	case <-time.After(within):
		g.t.Fatalf("%s: still there %v after SIGTERM", g.address, within)
	}
	g.running = false
	return time.Since(begin)
}

// up are the peers that run.
func (p *peers) up() []*peer {
	var up []*peer
	for _, g := range p.all {
		if g.running {
			up = append(up, g)
		}
	}
	return up
}

// gateways are the peers as a load knows them.
func gateways(all []*peer) []*gateway {
	var list []*gateway
	for _, g := range all {
		list = append(list, g.gateway)
	}
	return list
}

// alive is how many members a peer believes to live, itself included.
func (g *peer) alive() int { return int(g.metric("sluice_cluster_members", `state="alive"`)) }

// refused counts what a peer has refused of gossip.
func (g *peer) refused() int { return int(g.metric("sluice_cluster_refused_total")) }

// digest stands for all that a peer has.
func (g *peer) digest() string {
	g.t.Helper()
	var status struct{ Digest string }
	text := g.sluice("", "status", "-o", "json")
	if err := json.Unmarshal([]byte(text), &status); err != nil || status.Digest == "" {
		g.t.Fatalf("status of %s: %v: %s", g.address, err, text)
	}
	return status.Digest
}

// awaitAlive waits until all that run say that so many live, and tells how long that took.
func (p *peers) awaitAlive(want int, within time.Duration) time.Duration {
	p.t.Helper()
	return p.await(fmt.Sprintf("%d live", want), within, func(g *peer) bool { return g.alive() == want })
}

// await waits until all that run are so, looking at each until it is.
func (p *peers) await(what string, within time.Duration, is func(*peer) bool) time.Duration {
	p.t.Helper()
	begin := time.Now()
	for _, g := range p.up() {
		eventually(p.t, max(0, within-time.Since(begin)), g.address+": "+what, func() bool { return is(g) })
	}
	return time.Since(begin)
}

// awaitEqual waits until all that run have the same.
func (p *peers) awaitEqual(within time.Duration) time.Duration {
	p.t.Helper()
	return p.await("the same digest as the others", within, func(g *peer) bool { return g.digest() == p.up()[0].digest() })
}

// callersBackends starts backends where callers are, one process each.
func callersBackends(t *testing.T, names ...string) map[string]*backend {
	t.Helper()
	all := map[string]*backend{}
	for i, name := range names {
		address := fmt.Sprintf("%s250:%d", callersNet, 20_001+i)
		all[name] = startEndpoints(t, backendConfig{Servers: []serverConfig{{name, address}}})
	}
	for _, b := range all {
		b.await()
	}
	return all
}

// splitManifest is a route that shares its RPCs out over a Backend for each of these,
// all to the first.
func splitManifest(backends ...*backend) string {
	var refs, declared []string
	for i, b := range backends {
		weight := 0
		if i == 0 {
			weight = 1
		}
		refs = append(refs, fmt.Sprintf("{group: sluice.dev, kind: Backend, name: %s, weight: %d}", b.name(), weight))
		declared = append(declared, strings.Replace(backendManifest(endpoints(b), ""), "name: test", "name: "+b.name(), 1))
	}
	return `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: test}
spec:
  rules:
  - name: all
    backendRefs: [` + strings.Join(refs, ", ") + `]
---
` + strings.Join(declared, "---\n")
}

// loads are callers of each peer, by themselves.
type loads []*running

// beginLoads starts callers of each peer.
func (p *peers) beginLoads(t *testing.T, rate, conns int) loads {
	t.Helper()
	var all loads
	for _, g := range p.up() {
		all = append(all, load{rate: rate, conns: conns}.begin(t, g.gateway))
	}
	return all
}

// stop ends the loads, and puts what their callers saw together.
func (l loads) stop() *seen {
	all := &seen{}
	for _, r := range l {
		s := r.stop()
		all.rpcs = append(all.rpcs, s.rpcs...)
		all.rate += s.rate
		all.left += s.left
		all.resent += s.resent
		all.lasted = max(all.lasted, s.lasted)
	}
	return all
}
