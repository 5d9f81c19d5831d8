package cluster

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
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
		b := newBody(t, n)
		if i > 0 {
			b.join = []string{all[0].address()}
		}
		all = append(all, b.start())
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

