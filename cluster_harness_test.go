package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	adminv1 "sluice/admin/v1"
)

// peer is one gateway of a cluster: `sluice serve` inside the test, on the loopback
// interface, which speaks to the others by real gossip.
type peer struct {
	*server
	*operator
	t             *testing.T
	data          string
	listen, admin string // what it began with, kept over restarts
	args          []string
}

// startPeers returns n gateways that see each other and have the same objects. All are
// told the first one's address; args go to each.
func startPeers(t *testing.T, n int, args ...string) []*peer {
	t.Helper()
	key := filepath.Join(t.TempDir(), "gossip.key")
	secret := make([]byte, 32)
	rand.Read(secret)
	writeFile(t, key, base64.StdEncoding.EncodeToString(secret)+"\n")
	args = append([]string{"--gossip", "127.0.0.1:0", "--gossip-key-file", key}, args...)
	var peers []*peer
	for range n {
		p := &peer{t: t, data: t.TempDir(), listen: "127.0.0.1:0", admin: "127.0.0.1:0", args: slices.Clone(args)}
		if len(peers) > 0 {
			p.args = append(p.args, "--join", peers[0].gossip())
		}
		p.start()
		peers = append(peers, p)
	}
	awaitAgreement(t, peers...)
	return peers
}

// start starts the gateway, again at the addresses that it had.
func (p *peer) start() {
	p.t.Helper()
	p.server = startServer(p.t, append([]string{"--data-dir", p.data, "--listen", p.listen, "--admin", p.admin}, p.args...)...)
	p.operator = operate(p.t, p.data)
	p.listen, p.admin = p.server.listen, p.server.admin
	p.args[slices.Index(p.args, "--gossip")+1] = p.gossip()
}

// forgetJoin takes --join out of what it is started with.
func (p *peer) forgetJoin() {
	if i := slices.Index(p.args, "--join"); i >= 0 {
		p.args = slices.Delete(p.args, i, i+2)
	}
}

// members are all gateways, as this one sees them.
func (p *peer) members() []*adminv1.Member {
	p.t.Helper()
	reply, err := p.cluster.ListMembers(p.t.Context(), connect.NewRequest(&adminv1.ListMembersRequest{}))
	if err != nil {
		p.t.Fatalf("list members: %v", err)
	}
	return reply.Msg.GetMembers()
}

// gossip is where the gateway is found by its peers.
func (p *peer) gossip() (address string) {
	p.t.Helper()
	until(p.t, "a gateway lists itself", func() bool {
		for _, m := range p.members() {
			if m.GetSelf() {
				address = m.GetAddress()
			}
		}
		return address != ""
	})
	return address
}

// until waits until it holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) { // allow:sleep
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %s", what, patience)
		}
	}
}

// awaitAgreement waits until each of these sees all of them alive and no others, has the
// same objects, and knows that.
func awaitAgreement(t *testing.T, peers ...*peer) {
	t.Helper()
	seen := func() (lines []string) {
		for _, p := range peers {
			for _, m := range p.members() {
				lines = append(lines, fmt.Sprintf("%s sees %s %s drift=%v digest=%q", p.listen, m.GetListen(), m.GetState(), m.GetDrift(), m.GetDigest()))
			}
		}
		return lines
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // allow:sleep
		digest := peers[0].digest()
		if !slices.ContainsFunc(peers, func(p *peer) bool { return p.digest() != digest || !p.agrees(len(peers)) }) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no agreement after %s:\n%s\n%s", patience, strings.Join(seen(), "\n"), peers[0].log)
		}
	}
}

// digest is that of all objects which this gateway has.
func (p *peer) digest() string {
	p.t.Helper()
	status, err := p.node.Status(p.t.Context(), connect.NewRequest(&adminv1.StatusRequest{}))
	if err != nil {
		p.t.Fatalf("ask for the status: %v", err)
	}
	return status.Msg.GetDigest()
}

// agrees tells whether so many live, all of them with the same objects.
func (p *peer) agrees(number int) bool {
	p.t.Helper()
	alive := 0
	for _, m := range p.members() {
		if m.GetState() != adminv1.Member_STATE_ALIVE {
			continue
		}
		if m.GetDrift() || m.GetDigest() == "" {
			return false
		}
		alive++
	}
	return alive == number
}

// sees is the state of another, as this one sees it.
func (p *peer) sees(other *peer) adminv1.Member_State {
	p.t.Helper()
	for _, m := range p.members() {
		if m.GetListen() == other.listen {
			return m.GetState()
		}
	}
	return adminv1.Member_STATE_UNSPECIFIED
}

// dialAll is a client that knows the addresses of all of them, and does nothing of its
// own accord but go elsewhere when one does not answer.
func dialAll(t *testing.T, peers []*peer) *grpc.ClientConn {
	t.Helper()
	var state resolver.State
	for _, p := range peers {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: p.listen})
	}
	addresses := manual.NewBuilderWithScheme("peers")
	addresses.InitialState(state)
	conn, err := grpc.NewClient("peers:///all", grpc.WithResolvers(addresses),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
