package faults

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Who does not belong to the peers and reaches their port.

func TestPeersRefuseStrangers(t *testing.T) {
	longOnly(t)
	if !inNetwork(t) {
		return
	}
	b := callersBackends(t, "one")
	p := startPeers(t, 3, splitManifest(b["one"]))
	outside := newMachine(t, 100)
	loads := p.beginLoads(t, 300, 5)
	from := loads[0].now()
	wait(5 * time.Second)
	before := loads.between(from, loads[0].now()).quantile(0.99)
	for _, attack := range []struct {
		name string
		do   func(p *peers, t *testing.T, outside *machine)
	}{
		{"another key", func(p *peers, t *testing.T, _ *machine) { p.beStranger(t, 101, newKey()) }},
		{"no key", func(p *peers, t *testing.T, _ *machine) { p.beStranger(t, 102, "", "--gossip-insecure") }},
		{"another label", func(p *peers, t *testing.T, _ *machine) { p.beStranger(t, 103, p.key, "--gossip-label", "another") }},
		{"packets of garbage", (*peers).sendGarbage},
		{"streams of garbage", (*peers).streamGarbage},
		{"1,000 connections", (*peers).connectOften},
		{"a flood of packets", (*peers).flood},
	} {
		t.Run(attack.name, func(t *testing.T) {
			s := begin(t, "a stranger: %s", attack.name)
			refused, from := p.refused(), loads[0].now()
			attack.do(p, t, outside)
			part := loads.between(from, loads[0].now())
			s.note("%d refused and counted", p.refused()-refused)
			s.want(p.refused() > refused, "counted", "%d refused", p.refused()-refused)
			p99 := part.quantile(0.99)
			s.want(len(part.failed()) == 0, "0 failed", "%d of %s RPCs failed", len(part.failed()), thousands(len(part.rpcs)))
			s.want(p99 <= 2*before+20*time.Millisecond, "p99 twice that of before and 20 ms at most", "p99 %s, before %s", ms(p99), ms(before))
			s.want(p.allSee(3), "3 live everywhere", "%d live at the first", p.all[0].alive())
		})
	}
	begin(t, "strangers, all in all").noneFailed(loads.stop())
}

// between is the part of all loads that was due then.
func (l loads) between(from, to time.Duration) *seen {
	all := &seen{}
	for _, r := range l {
		part := r.soFar().between(from, to)
		all.rpcs = append(all.rpcs, part.rpcs...)
		all.rate += part.rate
		all.lasted = part.lasted
	}
	return all
}

// refused is what all peers have refused.
func (p *peers) refused() (n int) {
	for _, g := range p.up() {
		n += g.refused()
	}
	return n
}

// allSee tells whether each peer believes so many to live.
func (p *peers) allSee(want int) bool {
	for _, g := range p.up() {
		if g.alive() != want {
			return false
		}
	}
	return true
}

// beStranger runs a gateway for a while that has no part in the cluster, and knows where
// it is.
func (p *peers) beStranger(t *testing.T, number int, key string, flags ...string) {
	t.Helper()
	known := p.key
	defer func() { p.key = known }()
	p.key = key
	stranger := p.newPeer(t, number, flags...)
	stranger.run()
	stranger.awaitReady()
	wait(12 * time.Second)
	if got := stranger.alive(); got != 1 {
		t.Errorf("the stranger sees %d live, want itself alone", got)
	}
	stranger.terminate(patience)
}

// each calls do for each peer's address of gossip, from a machine, and waits.
func (p *peers) each(t *testing.T, from *machine, do func(address string)) {
	t.Helper()
	var all sync.WaitGroup
	for _, g := range p.up() {
		all.Go(func() { do(g.at.gossipAddress() + gossipPort) })
	}
	all.Wait()
}

// dialGossip connects from a machine, or fails the test.
func dialGossip(t *testing.T, from *machine, network, address string) net.Conn {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := from.dial(ctx, network, address)
	if err != nil {
		t.Errorf("dial %s %s: %v", network, address, err)
		return nil
	}
	return conn
}

// sendGarbage sends packets of each length and each first byte.
func (p *peers) sendGarbage(t *testing.T, from *machine) {
	p.each(t, from, func(address string) {
		conn := dialGossip(t, from, "udp", address)
		if conn == nil {
			return
		}
		defer conn.Close()
		random := rand.NewChaCha8([32]byte{1})
		for i := range 10_000 {
			packet := make([]byte, 1+i%1400)
			_, _ = random.Read(packet) // never fails
			packet[0] = byte(i)
			_, _ = conn.Write(packet) // refused is as good
			if i%100 == 99 {
				wait(10 * time.Millisecond)
			}
		}
	})
}

// streamGarbage opens streams that say nothing that is known, and as much as is taken.
func (p *peers) streamGarbage(t *testing.T, from *machine) {
	p.each(t, from, func(address string) {
		random := rand.NewChaCha8([32]byte{2})
		for i := range 100 {
			conn := dialGossip(t, from, "tcp", address)
			if conn == nil {
				return
			}
			text := make([]byte, 1+i*1000)
			_, _ = random.Read(text) // never fails
			text[0] = byte(i)
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			_, _ = conn.Write(text) // it may be hung up on at any time
			_, _ = io.Copy(io.Discard, io.LimitReader(conn, 1<<20))
			conn.Close()
			wait(30 * time.Millisecond)
		}
	})
}

// connectOften opens 1,000 connections to each peer and says nothing.
func (p *peers) connectOften(t *testing.T, from *machine) {
	p.each(t, from, func(address string) {
		var open []net.Conn
		for range 1000 {
			conn := dialGossip(t, from, "tcp", address)
			if conn == nil {
				break
			}
			open = append(open, conn)
		}
		wait(15 * time.Second)
		for _, conn := range open {
			conn.Close()
		}
	})
}

// flood sends 5,000 packets a second to each peer, as large as they come.
func (p *peers) flood(t *testing.T, from *machine) {
	p.each(t, from, func(address string) {
		conn := dialGossip(t, from, "udp", address)
		if conn == nil {
			return
		}
		defer conn.Close()
		packet := make([]byte, 1400)
		for until := time.Now().Add(10 * time.Second); time.Now().Before(until); wait(10 * time.Millisecond) {
			for range 50 {
				_, _ = conn.Write(packet) // refused is as good
			}
		}
	})
}

// Keys change by the command line, under load, and who has the old one alone is out.
func TestPeersChangeTheirKeysUnderLoad(t *testing.T) {
	longOnly(t)
	if !inNetwork(t) {
		return
	}
	s := begin(t, "3 peers, another key three times over, by the command line")
	b := callersBackends(t, "one")
	p := startPeers(t, 3, splitManifest(b["one"]))
	loads := p.beginLoads(t, 300, 5)
	wait(2 * time.Second)
	first, lowest := p.key, 3
	for i := range 3 {
		at, old := p.all[i], p.key
		p.key = newKey()
		for _, step := range [][2]string{{"add", p.key}, {"use", p.key}, {"remove", old}} {
			at.sluice(step[1]+"\n", "cluster", "keyring", step[0], "-")
			wait(5 * time.Second)
			for _, g := range p.all {
				lowest = min(lowest, g.alive())
			}
		}
	}
	s.want(lowest == 3, "nobody taken for dead", "%d live at least", lowest)
	now := p.key
	refused := p.refused()
	p.key = first
	p.beStranger(t, 101, first)
	p.key = now
	s.want(p.refused() > refused && p.allSee(3), "the old key refused", "%d messages with the old key refused", p.refused()-refused)
	p.all[1].terminate(patience)
	p.all[1].run()
	p.all[1].awaitReady()
	back := p.awaitAlive(3, patience)
	s.note("one started anew is back %.1f s later", back.Seconds())
	all := loads[0].stop()
	loads[1].stop() // of the one that was started anew
	for _, seen := range []*seen{all, loads[2].stop()} {
		s.noneFailed(seen)
	}
}
