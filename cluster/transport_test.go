package cluster

import (
	"bytes"
	"crypto/rand"
	"io"
	"log"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// stranger is memberlist as it comes, on the loopback address.
func stranger(t *testing.T, label string, secret []byte) *memberlist.Memberlist {
	t.Helper()
	conf := memberlist.DefaultLANConfig()
	conf.Name, conf.BindAddr, conf.AdvertiseAddr, conf.BindPort = "aaaaaaaa", "127.0.0.1", "127.0.0.1", 0
	conf.Label, conf.SecretKey, conf.Logger = label, secret, log.New(io.Discard, "", 0)
	conf.TCPTimeout = 2 * time.Second
	m, err := memberlist.Create(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Shutdown() })
	return m
}

// onLoopback is a membership with real sockets.
func onLoopback(t *testing.T, file string, join ...string) *body {
	t.Helper()
	b := newBody(t, nil, join...)
	b.key = file
	return b.start()
}

func (b *body) at() netip.AddrPort { return b.m.current.Load().at }

func waitUntilBegun(t *testing.T, b *body) {
	t.Helper()
	until(t, 5*time.Second, "gossip has begun", func() bool { return b.m.current.Load() != nil })
}

func TestSocketsCarryACluster(t *testing.T) {
	file := keyFile(t, testKey('a').text())
	first := onLoopback(t, file)
	waitUntilBegun(t, first)
	second := onLoopback(t, file, first.at().String())
	both := []*body{first, second}
	until(t, 10*time.Second, "both see both", func() bool { return allSee(both) })
	message := bytes.Repeat([]byte("m"), 18<<20)
	first.m.Send(second.id, message)
	first.m.SendPacket(second.id, []byte("p"))
	until(t, 20*time.Second, "a large message and a packet have come", func() bool {
		second.mu.Lock()
		defer second.mu.Unlock()
		return len(second.received) == 2
	})
	if in := second.m.traffic.streamsIn.Load(); in < 18<<20 {
		t.Errorf("counted %d bytes of streams", in)
	}
	for why, n := range second.m.refusals.counted() {
		if n != 0 {
			t.Errorf("refused were %d because of %s", n, why)
		}
	}
	if err := second.m.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "the first knows who has left", func() bool { return first.sees(second.id).State == Left })
	if answered, err := second.m.Join(t.Context(), []string{first.at().String()}); answered != 1 || err != nil {
		t.Errorf("Join: %d, %v", answered, err)
	}
	until(t, 5*time.Second, "both see both again", func() bool { return allSee(both) })
}

func TestSocketsRefuseStrangers(t *testing.T) {
	ours, old := testKey('a'), testKey('b')
	node := onLoopback(t, keyFile(t, ours.text()))
	waitUntilBegun(t, node)
	for _, test := range []struct {
		name, label string
		secret      []byte
		reasons     []string
	}{
		{"wrong key", "sluice", old[:], []string{"key"}},
		{"no key", "sluice", nil, []string{"plain"}},
		{"other label", "other", ours[:], []string{"label"}},
		{"no label", "", ours[:], []string{"label"}},
	} {
		before := node.m.refusals.counted()
		m := stranger(t, test.label, test.secret)
		if _, err := m.Join([]string{node.at().String()}); err == nil {
			t.Errorf("%s: joined", test.name)
		}
		peer := memberlist.Node{Name: node.id, Addr: node.at().Addr().AsSlice(), Port: node.at().Port()}
		if err := m.SendBestEffort(&peer, []byte("hello")); err != nil {
			t.Error(err)
		}
		for _, reason := range test.reasons { // one stream, one packet
			until(t, 5*time.Second, test.name+" is counted as "+reason, func() bool {
				return node.m.refusals.counted()[reason]-before[reason] >= 2
			})
		}
		if members := node.m.Members(); len(members) != 1 {
			t.Errorf("%s: members are %+v", test.name, members)
		}
		_ = m.Shutdown()
	}
	// Who has the key, and is no node of Sluice.
	m := stranger(t, "sluice", ours[:])
	if _, err := m.Join([]string{node.at().String()}); err != nil {
		t.Errorf("with the key: %v", err)
	}
	until(t, 5*time.Second, "what has no metadata is refused", func() bool { return node.m.refusals.counted()["member"] > 0 })
	if members := node.m.Members(); len(members) != 1 {
		t.Errorf("members are %+v", members)
	}
	node.mu.Lock()
	defer node.mu.Unlock()
	if len(node.received) > 0 {
		t.Errorf("received %q", node.received)
	}
}

func TestSocketsOutliveGarbage(t *testing.T) {
	for _, test := range []struct{ name, file string }{
		{"with a key", keyFile(t, testKey('a').text())},
		{"without a key", ""},
	} {
		t.Run(test.name, func(t *testing.T) { outliveGarbage(t, test.file) })
	}
}

func outliveGarbage(t *testing.T, file string) {
	first := onLoopback(t, file)
	waitUntilBegun(t, first)
	second := onLoopback(t, file, first.at().String())
	both := []*body{first, second}
	until(t, 10*time.Second, "both see both", func() bool { return allSee(both) })
	for i := range 300 {
		garbage := make([]byte, 1+i*13%1500)
		_, _ = rand.Read(garbage)
		switch i % 4 {
		case 0:
			garbage = append([]byte("\xf4\x06sluice"), garbage...)
		case 1:
			garbage[0] = byte(i % 16)
		case 2:
			garbage = append([]byte("\xf4\x06sluice\x0a\x00\x00\xff\xff\x01"), garbage...)
		}
		throwPacket(t, first.at(), garbage)
		if i%3 == 0 {
			throwStream(t, first.at(), garbage)
		}
	}
	throwPacket(t, first.at(), make([]byte, maxPacketBytes+1))
	until(t, 10*time.Second, "garbage is counted", func() bool {
		counts := first.m.refusals.counted()
		return counts["label"] > 0 && counts["malformed"]+counts["plain"]+counts["key"] > 50 && counts["too_large"] > 0
	})
	if !allSee(both) {
		t.Errorf("somebody is dead: %+v", first.m.Members())
	}
	if lines := strings.Count(first.log.String(), "\n"); lines > 30 {
		t.Errorf("%d lines of log:\n%s", lines, first.log)
	}
}

func throwPacket(t *testing.T, at netip.AddrPort, b []byte) {
	t.Helper()
	c, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write(b)
}

func throwStream(t *testing.T, at netip.AddrPort, b []byte) {
	t.Helper()
	c, err := net.DialTimeout("tcp", at.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = c.Write(b)
}

func TestSocketsBoundStreams(t *testing.T) {
	before := runtime.NumGoroutine()
	node := onLoopback(t, keyFile(t, testKey('a').text()))
	waitUntilBegun(t, node)
	var open []net.Conn
	for range 3 * maxStreamsOfOne {
		c, err := net.Dial("tcp", node.at().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	until(t, 5*time.Second, "those beyond the bound are refused", func() bool {
		return node.m.refusals.counted()["too_many_of_one"] == 2*maxStreamsOfOne
	})
	// A stream that says it is the largest there is, from who has no key.
	largest := open[0]
	_, _ = largest.Write([]byte("\xf4\x06sluice\x0a\x01\x40\x00\x00\x01"))
	node.stop()
	for _, c := range open {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("a stream is open after the end: %v", err)
		}
	}
	until(t, 15*time.Second, "goroutines end", func() bool { return runtime.NumGoroutine() <= before+2 })
}

func TestSocketsBoundWhatStreamsHold(t *testing.T) {
	w := &silentWatch{}
	s, err := openSockets(netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("127.0.0.1:0"), w)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	var readers, writers sync.WaitGroup
	readers.Go(func() {
		for {
			select {
			case c := <-s.streams:
				readers.Go(func() { _, _ = io.Copy(io.Discard, c) }) // and does not close it
			case <-s.closing:
				return
			}
		}
	})
	for range 4 {
		writers.Go(func() {
			c, err := net.Dial("tcp", s.at.String())
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.Copy(c, io.LimitReader(zeros{}, maxStreamBytes))
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
			_, _ = c.Read(make([]byte, 1))
		})
	}
	writers.Wait()
	if got := w.count(tooLarge); got == 0 {
		t.Error("nothing was refused")
	}
	if err := s.Shutdown(); err != nil {
		t.Error(err)
	}
	readers.Wait()
	if s.held.bytes != 0 || s.held.strangeBytes != 0 || s.held.strangers != 0 || len(s.held.of) != 0 || len(s.open) != 0 {
		t.Errorf("held after the end: %+v, %d streams", s.held, len(s.open))
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// silentWatch knows nobody, and counts.
type silentWatch struct {
	mu     sync.Mutex
	counts map[reason]int
}

func (w *silentWatch) livingAt(netip.Addr) int { return 0 }

func (w *silentWatch) refused(why reason, _ string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.counts == nil {
		w.counts = map[reason]int{}
	}
	w.counts[why]++
}

func (w *silentWatch) count(why reason) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[why]
}

func TestGateKeepsOutWhatEndsMemberlist(t *testing.T) {
	label := "\xf4\x06sluice"
	for _, test := range []struct {
		begins string
		passes bool
	}{
		{label + "\x0a\x00\x00\x00\x1d\x01", false}, // nothing is encrypted
		{label + "\x0a\x00\x00\x00\x1e\x01", true},
		{label + "\x0a\x00\x00\x00\x1e\x00", false}, // the encryption with a padding
		{"\x0a\x00\x00\x00\x00\x01", false},
		{"\x0a\x00\x01\x00\x00\x01and so on", true},
		{"\x06plain", true}, // memberlist refuses it
		{label, true},
		{"\xf4", true},
		{"\xf4\xff" + strings.Repeat("x", 255) + "\x0a\x00\x00\x00\x10\x01", false},
	} {
		for _, piece := range []int{1, 3, 1000} {
			g, passes := gate{}, true
			for rest := []byte(test.begins); len(rest) > 0; {
				n := min(piece, len(rest))
				passes = passes && g.look(rest[:n])
				rest = rest[n:]
			}
			if passes != test.passes {
				t.Errorf("%q in pieces of %d: passes is %v", test.begins, piece, passes)
			}
		}
	}
}
