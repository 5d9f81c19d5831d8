package cluster

import (
	"fmt"
	"io"
	"log"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// newMember is memberlist alone, without anything of ours above it.
func newMember(t *testing.T, n *network, id string) *memberlist.Memberlist {
	t.Helper()
	conf := memberlist.DefaultLANConfig()
	conf.Name, conf.Transport, conf.Label = id, n.transport(id), "sluice"
	conf.AdvertiseAddr, conf.BindAddr, conf.EnableCompression = "", "", false
	conf.Logger = log.New(io.Discard, "", 0)
	m, err := memberlist.Create(conf)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNetworkCarriesMemberlist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1)
		n.slow(time.Millisecond)
		defer pass(10 * time.Second) // until the last probes are given up
		var members []*memberlist.Memberlist
		for i := range 3 {
			m := newMember(t, n, fmt.Sprint("node", i))
			defer func() { _ = m.Shutdown() }() // only of the transport, which never fails
			members = append(members, m)
			if i > 0 {
				if _, err := m.Join([]string{n.address("node0")}); err != nil {
					t.Fatal(err)
				}
			}
		}
		alive := func(i, want int, when string) {
			t.Helper()
			if got := members[i].NumMembers(); got != want {
				t.Errorf("%s node%d sees %d members, want %d", when, i, got, want)
			}
		}
		n.lose(10)
		time.Sleep(time.Minute)
		for i := range members {
			alive(i, 3, "after a minute")
		}
		n.split([]string{"node0", "node1"}, []string{"node2"})
		time.Sleep(30 * time.Second)
		alive(0, 2, "split")
		alive(2, 1, "split")
		n.heal()
		if _, err := members[2].Join([]string{n.address("node0")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		alive(1, 3, "healed")
		n.crash("node2")
		time.Sleep(20 * time.Second)
		alive(0, 2, "after a crash")
		if packets, streams := n.carried("node0"); packets.Sent == 0 || packets.Received == 0 || streams.Sent == 0 || streams.Received == 0 {
			t.Errorf("node0 is said to have carried packets %+v, streams %+v", packets, streams)
		}
	})
}

func TestNetworkCutsOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1)
		a, b := n.end("a"), n.end("b")
		defer a.Shutdown()
		defer b.Shutdown()
		n.cutPackets("a", "b")
		for _, way := range []way{{"a", "b"}, {"b", "a"}} {
			if _, err := n.ends[n.places[way.from]].WriteTo([]byte("hello"), n.places[way.to]); err != nil {
				t.Fatal(err)
			}
		}
		if len(b.packets) != 0 || len(a.packets) != 1 {
			t.Errorf("%d packets at b, %d at a; want none and one", len(b.packets), len(a.packets))
		}
		if _, err := a.DialTimeout(n.places["b"], time.Second); err != nil {
			t.Errorf("streams are cut, too: %v", err)
		}
		n.cut("a", "b")
		begin := time.Now()
		if _, err := a.DialTimeout(n.places["b"], time.Second); err == nil || time.Since(begin) != time.Second {
			t.Errorf("dialled where the way is cut: %v after %v, want an error after 1s", err, time.Since(begin))
		}
	})
}
