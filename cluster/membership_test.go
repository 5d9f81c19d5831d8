package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/store"
)

// body is a node of which only the membership is there.
type body struct {
	t     *testing.T
	net   *network
	dir   string
	id    string
	join  []string
	key   string // file
	label string

	store  *store.Store
	m      *membership
	cancel context.CancelFunc
	ended  chan error
	log    *lines

	mu       sync.Mutex
	received [][]byte
	lives    []int // as Parts.Peers was told
	due      [][]byte
	lookup   func(host string) []string
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newBody(t *testing.T, n *network, join ...string) *body {
	b := &body{t: t, net: n, dir: t.TempDir(), join: join}
	b.open()
	b.id = b.store.Node()
	t.Cleanup(b.close)
	return b
}

func (b *body) open() {
	b.t.Helper()
	var err error
	if b.store, err = store.Open(store.Options{Dir: b.dir}); err != nil {
		b.t.Fatal(err)
	}
}

// start runs the membership; join is told by the addresses of bodies, or names.
func (b *body) start() *body {
	b.t.Helper()
	if b.store == nil {
		b.open()
	}
	b.log = &lines{}
	parts := Parts{Store: b.store, Now: time.Now, Peers: func(live int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.lives = append(b.lives, live)
	}}
	if b.net != nil {
		parts.Transport = b.net.transport(b.id)
	}
	if b.lookup != nil {
		parts.lookup = func(_ context.Context, host string) (found []netip.Addr, err error) {
			for _, address := range b.lookup(host) {
				found = append(found, netip.MustParseAddr(address))
			}
			if len(found) == 0 {
				return nil, errors.New("no such host")
			}
			return found, nil
		}
	}
	cfg := Config{Bind: "127.0.0.1:0", Join: b.join, KeyFile: b.key, Label: b.label, Host: "host-" + b.id, Version: "v1", Listen: ":8080", Admin: ":8081"}
	m, err := openMembership(cfg, parts, hooks{
		Received: func(message []byte) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.received = append(b.received, bytes.Clone(message))
		},
		Broadcasts: func(overhead, limit int) [][]byte {
			b.mu.Lock()
			defer b.mu.Unlock()
			due := b.due
			b.due = nil
			return due
		},
		Changed: func() {},
	}, slog.New(slog.NewTextHandler(b.log, nil)))
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.m, b.cancel, b.ended = m, cancel, make(chan error, 1)
	go func() { b.ended <- m.Run(ctx) }()
	return b
}

// stop ends the node in an orderly way.
func (b *body) stop() {
	b.t.Helper()
	if b.m == nil {
		return
	}
	b.cancel()
	if err := <-b.ended; err != nil {
		b.t.Errorf("node %s: %v", b.id, err)
	}
	b.m = nil
}

// crash ends the node without a word.
func (b *body) crash() {
	b.t.Helper()
	b.net.crash(b.id)
	b.stop()
}

func (b *body) close() {
	b.stop()
	if b.store != nil {
		if err := b.store.Close(); err != nil {
			b.t.Error(err)
		}
		b.store = nil
	}
}

// restart ends the process, as it were, and starts another one on its disk.
func (b *body) restart() {
	b.t.Helper()
	b.close()
	b.start()
}

func (b *body) address() string { return b.net.address(b.id) }

// sees is the state of another node.
func (b *body) sees(id string) Member {
	for _, m := range b.m.Members() {
		if m.ID == id {
			return m
		}
	}
	return Member{State: "unknown"}
}

// until waits until something is so, and fails after a while; it returns how long it took.
func until(t *testing.T, most time.Duration, what string, so func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	for !so() {
		if time.Since(begun) > most {
			t.Fatalf("not within %s: %s", most, what)
		}
		time.Sleep(20 * time.Millisecond) // allow:sleep
	}
	return time.Since(begun)
}

// company are nodes that have found each other.
func company(t *testing.T, n *network, size int) []*body {
	t.Helper()
	var all []*body
	for i := range size {
		b := newBody(t, n).start()
		if i > 0 { // by hand: they are not told where to look for each other later
			until(t, 5*time.Second, "it joins", func() bool {
				_, err := b.m.Join(t.Context(), []string{all[0].address()})
				return err == nil
			})
		}
		all = append(all, b)
	}
	until(t, 20*time.Second, "all see all", func() bool { return allSee(all) })
	return all
}

func allSee(all []*body) bool {
	return !slices.ContainsFunc(all, func(b *body) bool { return len(b.m.Live()) != len(all)-1 })
}

func stopAll(all []*body) {
	var wg sync.WaitGroup
	for _, b := range all {
		wg.Go(b.close)
	}
	wg.Wait()
	memberlistEnds()
}

// memberlistEnds waits for probes of memberlist, which it does not end at once. In a
// bubble that takes no time.
func memberlistEnds() { time.Sleep(15 * time.Second) } // allow:sleep

func TestMembershipKnowsACrashWithinTenSecondsAtTenNodes(t *testing.T) {
	for _, loss := range []int{0, 10} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, 7)
			n.slow(time.Millisecond)
			all := company(t, n, 10)
			defer stopAll(all)
			n.lose(loss)
			time.Sleep(5 * time.Second)
			gone := all[3]
			n.crash(gone.id)
			rest := slices.Delete(slices.Clone(all), 3, 4)
			took := until(t, 10*time.Second, "all know of the crash", func() bool {
				return !slices.ContainsFunc(rest, func(b *body) bool { return b.sees(gone.id).State != Dead })
			})
			t.Logf("%d %% lost: known after %s", loss, took)
			for _, b := range rest {
				if live := b.m.Live(); len(live) != 8 {
					t.Errorf("node %s sees %d others, want 8: somebody else was taken for dead", b.id, len(live))
				}
			}
		})
	}
}

func TestMembershipTellsLeavingFromACrash(t *testing.T) {
	for _, loss := range []int{0, 10} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, 3)
			n.slow(time.Millisecond)
			all := company(t, n, 10)
			defer stopAll(all)
			n.lose(loss)
			left, ended := all[4], all[6]
			if err := left.m.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			ended.stop() // as by SIGTERM
			if took := time.Since(begun); took > 4*time.Second {
				t.Errorf("the end took %s", took)
			}
			rest := slices.DeleteFunc(slices.Clone(all), func(b *body) bool { return b == left || b == ended })
			took := until(t, 10*time.Second, "all know who has left", func() bool {
				return !slices.ContainsFunc(rest, func(b *body) bool { return b.sees(left.id).State != Left || b.sees(ended.id).State != Left })
			})
			t.Logf("%d %% lost: known after %s", loss, took)
			for _, b := range rest {
				b.m.mu.Lock()
				if b.m.partings[left.id].ends || !b.m.partings[ended.id].ends {
					t.Errorf("node %s does not tell a cluster that was left from a process that ended", b.id)
				}
				b.m.mu.Unlock()
			}
			if own := left.sees(left.id); own.State != Left || len(left.m.Live()) != 0 {
				t.Errorf("who has left says of itself %+v, and sees %v", own, left.m.Live())
			}
			time.Sleep(time.Minute)
			for _, b := range rest {
				if b.sees(left.id).State != Left {
					t.Errorf("node %s sees who has left as %s a minute later", b.id, b.sees(left.id).State)
				}
			}
		})
	}
}

func TestMembershipStaysAloneUntilJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 4)
		all := company(t, n, 3)
		defer stopAll(all)
		b := all[1]
		if err := b.m.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		b.join = []string{all[0].address()}
		b.restart()
		time.Sleep(time.Minute)
		if live := b.m.Live(); len(live) != 0 || b.sees(b.id).State != Left {
			t.Errorf("a node that was told to leave sees %v after a restart, itself as %+v", live, b.sees(b.id))
		}
		answered, err := b.m.Join(t.Context(), nil)
		if answered == 0 || err != nil {
			t.Errorf("Join: %d answered, %v", answered, err)
		}
		until(t, 5*time.Second, "all see all again", func() bool { return allSee(all) })
		b.restart()
		until(t, 10*time.Second, "all see all after another restart", func() bool { return allSee(all) })
	})
}

func TestMembershipSaysThatAFailedJoinEndsSolitude(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 4)
		all := company(t, n, 2)
		defer stopAll(all)
		b := all[1]
		if err := b.m.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		own := b.address()
		if _, err := b.m.Join(t.Context(), []string{own}); err == nil || !strings.Contains(err.Error(), own+" is this node itself") || !strings.Contains(err.Error(), "a member again") {
			t.Errorf("joining itself after it had left: %v", err)
		}
		if _, err := b.m.Join(t.Context(), []string{own}); err == nil || strings.Contains(err.Error(), "a member again") {
			t.Errorf("joining itself as a member: %v", err)
		}
	})
}

func TestMembershipSaysInWordsWhyNobodyIsJoined(t *testing.T) {
	for text, want := range map[string]string{
		"Failed to join 10.0.0.12:7946: dial tcp 10.0.0.12:7946: connect: no route to host":       "no route to it, or its machine is down",
		"failed to join [fd00::2]:7946: dial tcp [fd00::2]:7946: connect: network is unreachable": "no route to its network",
		"Reading remote state failed: EOF": "the port is not the one of its gossip",
	} {
		if got := explainJoin(errors.New(text)); !strings.Contains(got, want) {
			t.Errorf("%q is explained as %q, want %q", text, got, want)
		}
	}
}

// A node that was told to join nobody but itself waits for others, and says so.
func TestMembershipSaysThatItWasToldToJoinItselfAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBody(t, newNetwork(t, 5))
		b.join = []string{b.address()}
		b.start()
		defer stopAll([]*body{b})
		time.Sleep(10 * time.Second)
		if got := fmt.Sprint(b.m.problems()); !strings.Contains(got, "(join) leads to this node alone") {
			t.Errorf("problems %s", got)
		}
	})
}

func TestMembershipFindsPeersWithoutBeingToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 5)
		all := company(t, n, 5)
		defer stopAll(all)
		time.Sleep(10 * time.Second)
		for _, b := range all {
			n.crash(b.id)
		}
		for _, b := range all {
			b.close()
			b.join = nil
		}
		time.Sleep(time.Hour)
		for _, b := range all {
			b.start()
		}
		took := until(t, 10*time.Second, "all see all", func() bool { return allSee(all) })
		t.Logf("found after %s", took)
	})
}

func TestMembershipHealsAfterAMinuteApart(t *testing.T) {
	for _, test := range []struct {
		name  string
		apart int // nodes on one side
		times []time.Duration
	}{
		{"one node", 1, []time.Duration{time.Minute}},
		{"halves", 5, []time.Duration{12 * time.Second, time.Minute}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, 6)
				n.slow(time.Millisecond)
				all := company(t, n, 10)
				defer stopAll(all)
				var sides [2][]string
				for i, b := range all {
					side := 0
					if i < test.apart {
						side = 1
					}
					sides[side] = append(sides[side], b.id)
				}
				for _, apart := range test.times {
					n.split(sides[0], sides[1])
					time.Sleep(apart)
					n.heal()
					took := until(t, 10*time.Second, "all see all", func() bool { return allSee(all) })
					t.Logf("together %s after %s apart", took, apart)
					time.Sleep(30 * time.Second)
				}
			})
		})
	}
}

func TestMembershipLooksUpNamesAnewWhileItIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 8)
		first := newBody(t, n).start()
		defer first.close()
		second := newBody(t, n, "gateways.example:7946")
		defer second.close()
		var mu sync.Mutex
		known := "10.9.9.9" // nobody is there
		second.lookup = func(host string) []string {
			mu.Lock()
			defer mu.Unlock()
			if host != "gateways.example" {
				t.Errorf("looked up %q", host)
			}
			return []string{known}
		}
		second.start()
		time.Sleep(time.Minute)
		if live := second.m.Live(); len(live) != 0 {
			t.Fatalf("found %v", live)
		}
		if got := fmt.Sprint(second.m.problems()); !strings.Contains(got, "alone, and looks for its peers: 10.9.9.9:7946:") {
			t.Errorf("problems %s", got)
		}
		mu.Lock()
		known = first.m.current.Load().at.Addr().String()
		mu.Unlock()
		until(t, 8*time.Second, "found by the name's new address", func() bool { return allSee([]*body{first, second}) })
		if got := second.m.problems(); len(got) != 0 {
			t.Errorf("problems %q", got)
		}
		if text := second.log.String(); strings.Count(text, "nobody to gossip with has answered") != 1 {
			t.Errorf("log:\n%s", text)
		}
		stopAll([]*body{first, second})
	})
}

func TestMembershipTakesAPlaceAgainAtAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 9)
		n.slow(time.Millisecond)
		all := company(t, n, 4)
		defer stopAll(all)
		b := all[2]
		b.crash()
		n.move(b.id)
		b.start() // at once: the others do not know yet that it was dead
		took := until(t, 30*time.Second, "all see it at its new address", func() bool {
			return allSee(all) && !slices.ContainsFunc(all, func(other *body) bool { return other.sees(b.id).Address != b.address() })
		})
		t.Logf("taken in after %s", took)
		time.Sleep(2 * time.Minute)
		if !allSee(all) {
			t.Error("it is not there any more")
		}
		for _, other := range all {
			if got := other.m.problems(); len(got) != 0 {
				t.Errorf("node %s: problems %q", other.id, got)
			}
		}
	})
}

func TestMembershipNamesACopiedDataDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 10)
		all := company(t, n, 3)
		defer stopAll(all)
		original := all[1]
		twin := newBody(t, n, all[0].address())
		twin.store.Close()
		twin.store = original.store
		defer func() { twin.stop(); twin.store = nil }()
		place := original.address()
		twin.id = original.id
		n.move(original.id)
		twin.start()
		time.Sleep(2 * time.Minute)
		for _, b := range all {
			if got := b.sees(original.id).Address; b != original && got != place {
				t.Errorf("node %s sees the name at %s, want it where it was, %s", b.id, got, place)
			}
		}
		if got := fmt.Sprint(all[0].m.problems()); !strings.Contains(got, "two nodes have the name "+original.id) {
			t.Errorf("problems of a third node: %s", got)
		}
		if got := fmt.Sprint(twin.m.problems()); !strings.Contains(got, "another node has the name of this one") {
			t.Errorf("problems of the copy: %s", got)
		}
	})
}

func TestMembershipFindsAClusterThatBeganApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 11)
		var all []*body
		for range 4 {
			all = append(all, newBody(t, n))
		}
		defer stopAll(all)
		for _, b := range all {
			b.join = []string{all[0].address(), all[1].address(), all[2].address(), all[3].address()}
		}
		n.split([]string{all[0].id, all[1].id}, []string{all[2].id, all[3].id})
		for _, b := range all {
			b.start()
		}
		time.Sleep(time.Minute)
		if len(all[0].m.Live()) != 1 || len(all[3].m.Live()) != 1 {
			t.Fatalf("halves are %v and %v", all[0].m.Live(), all[3].m.Live())
		}
		n.heal()
		took := until(t, 40*time.Second, "all see all", func() bool { return allSee(all) })
		t.Logf("found after %s", took)
	})
}

func TestMembershipFindsRememberedPeersWhenItHasFoundOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 14)
		all := company(t, n, 4)
		defer stopAll(all)
		time.Sleep(10 * time.Second)
		for _, b := range all {
			n.crash(b.id)
		}
		n.split([]string{all[0].id, all[1].id}, []string{all[2].id, all[3].id})
		for _, b := range all {
			b.close()
			b.join = nil
			b.start()
		}
		time.Sleep(time.Minute)
		if len(all[0].m.Live()) != 1 || len(all[3].m.Live()) != 1 {
			t.Fatalf("halves are %v and %v", all[0].m.Live(), all[3].m.Live())
		}
		n.heal()
		until(t, 40*time.Second, "all see all", func() bool { return allSee(all) })
	})
}

func TestMembershipTellsOfItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 12)
		all := company(t, n, 3)
		defer stopAll(all)
		all[1].m.SetDraining(true)
		until(t, 3*time.Second, "all know that it drains", func() bool {
			return all[0].sees(all[1].id).Draining && all[2].sees(all[1].id).Draining && all[1].sees(all[1].id).Draining
		})
		m := all[0].sees(all[1].id)
		if m.Host != "host-"+all[1].id || m.Version != "v1" || m.Listen != ":8080" || m.Admin != ":8081" || m.Address != all[1].address() || m.State != Alive || m.Since.IsZero() {
			t.Errorf("told is %+v", m)
		}
		all[1].m.SetDraining(false)
		until(t, 3*time.Second, "all know that it does not drain", func() bool { return !all[0].sees(all[1].id).Draining })
		pass(time.Second)
		for i, want := range [][]int{{2, 3, 2, 3}, {2, 3}} { // who drains has no part of the others' limits, and keeps its own
			all[i].mu.Lock()
			if got := all[i].lives; !slices.Equal(got, want) && !slices.Equal(got, want[1:]) {
				t.Errorf("node %d: the gateways that share limits were told as %v, want %v", i, got, want)
			}
			all[i].mu.Unlock()
		}
	})
}

func TestMembershipCarriesMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 13)
		all := company(t, n, 2)
		defer stopAll(all)
		from, to := all[0], all[1]
		packet := bytes.Repeat([]byte("p"), from.m.PacketRoom())
		large := bytes.Repeat([]byte("s"), 3<<20)
		broadcast := bytes.Repeat([]byte("b"), from.m.PacketRoom())
		from.m.SendPacket(to.id, packet)
		from.m.SendPacket(to.id, append(packet, 'x')) // too large
		from.m.SendPacket("aaaaaaaa", packet)         // nobody
		from.m.Send(to.id, large)
		from.mu.Lock()
		from.due = [][]byte{broadcast}
		from.mu.Unlock()
		got := func(want []byte) bool {
			to.mu.Lock()
			defer to.mu.Unlock()
			return slices.ContainsFunc(to.received, func(b []byte) bool { return bytes.Equal(b, want) })
		}
		until(t, 2*time.Second, "all arrive", func() bool { return got(packet) && got(large) && got(broadcast) })
		if dropped := from.m.dropped.Load(); dropped != 2 {
			t.Errorf("%d were dropped, want the one that is too large and the one for nobody", dropped)
		}
		n.cut(from.id, to.id)
		for range 2 * maxWaiting {
			from.m.Send(to.id, []byte("m"))
		}
		if dropped := from.m.dropped.Load() - 2; dropped < maxWaiting-2 || dropped > maxWaiting {
			t.Errorf("%d were dropped, want those beyond %d", dropped, maxWaiting)
		}
		time.Sleep(time.Minute)
		if sent := from.m.traffic.streamsOut.Load(); sent < 3<<20 {
			t.Errorf("counted %d bytes of streams", sent)
		}
	})
}
