package cluster

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/store"
)

// fleet is a whole cluster in one bubble of testing/synctest, whose nodes have stores of
// their own and a network in memory between them. Methods that wait do so in the
// bubble's time.
type fleet struct {
	t     *testing.T
	net   *network
	dir   string
	nodes []*fleetNode
}

// fleetNode is one of them, in one or several lives.
type fleetNode struct {
	fleet *fleet
	name  string        // of the network's; the cluster knows it by store.Node()
	ahead time.Duration // of its clock, set before it is started
	log   *logBook

	store   *store.Store
	leases  *store.Leases
	cluster *Cluster
	stop    context.CancelFunc // nil while it does not run
	running sync.WaitGroup
}

// inBubble runs a test of n nodes, all of which run and know one another.
func inBubble(t *testing.T, n int, do func(t *testing.T, f *fleet)) {
	t.Helper()
	inBubbleOf(t, memoryDir(t), n, func(t *testing.T, f *fleet) {
		f.startAll()
		do(t, f)
	})
}

// inBubbleOf runs a test of n nodes that do not run yet.
func inBubbleOf(t *testing.T, dir string, n int, do func(t *testing.T, f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, dir, n)
		defer f.stop()
		do(t, f)
	})
}

// startAll starts all nodes; they know one another when it returns.
func (f *fleet) startAll() {
	f.t.Helper()
	for _, n := range f.nodes {
		n.start()
	}
	f.awaitAlive(time.Minute, len(f.nodes))
}

// memoryDir is for stores, on a disk that is none if there is one: what fsync costs is
// not looked at.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sluice-cluster-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newFleet makes n nodes that do not run yet.
func newFleet(t *testing.T, dir string, n int) *fleet {
	t.Helper()
	f := &fleet{t: t, net: newNetwork(t, 1), dir: dir}
	f.net.slow(time.Millisecond)
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	if err := os.WriteFile(f.keyFile(), []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		f.nodes = append(f.nodes, &fleetNode{fleet: f, name: fmt.Sprintf("n%02d", i), log: &logBook{}})
	}
	return f
}

func (f *fleet) keyFile() string { return filepath.Join(f.dir, "keys") }

// stop ends all nodes that run, and waits until memberlist has given up its last probes:
// in a bubble nothing may be left.
func (f *fleet) stop() {
	for _, n := range f.nodes {
		n.end()
	}
	pass(20 * time.Second)
}

// refusals are how many messages the node has refused, but for those of a peer of which it
// has not heard yet that it has joined.
func (n *fleetNode) refusals() (sum uint64) {
	for reason, count := range n.cluster.Stats().Refused {
		if reason != string(wrongSender) {
			sum += count
		}
	}
	return sum
}

// pass lets the bubble's time pass.
func pass(d time.Duration) { time.Sleep(d) }

// start opens the node's store and has it take part. All nodes are told the first two to
// join.
func (n *fleetNode) start() {
	n.fleet.t.Helper()
	var join []string
	for _, other := range n.fleet.nodes[:min(2, len(n.fleet.nodes))] {
		join = append(join, n.fleet.net.address(other.name))
	}
	n.startJoining(join)
}

func (n *fleetNode) startJoining(join []string) {
	n.fleet.t.Helper()
	n.openStore()
	n.begin(Config{Join: join, KeyFile: n.fleet.keyFile(), Host: n.name, Version: "test"}, Parts{
		Store: n.store, InForce: n.inForce, Renewed: n.leases.Renewed, Now: n.now,
		Peers:     func(int) { n.leases.Reconsider() },
		Transport: n.fleet.net.transport(n.name),
	})
}

func (n *fleetNode) now() time.Time { return time.Now().Add(n.ahead) }

func (n *fleetNode) openStore() {
	n.fleet.t.Helper()
	s, err := store.Open(store.Options{Dir: filepath.Join(n.fleet.dir, n.name), Now: n.now})
	if err != nil {
		n.fleet.t.Fatal(err)
	}
	n.store = s
	n.leases = store.NewLeases(s, store.LeaseOptions{Now: n.now, Peers: n, Reach: n.reach})
}

// begin has the node take part until it is ended.
func (n *fleetNode) begin(cfg Config, parts Parts) {
	t := n.fleet.t
	t.Helper()
	var err error
	if n.cluster, err = New(cfg, parts, slog.New(n.log)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	n.running.Go(func() {
		if err := n.cluster.Run(ctx); err != nil {
			t.Errorf("%s: %v", n.name, err)
		}
	})
	n.running.Go(func() {
		if err := n.leases.Run(ctx); err != nil {
			t.Errorf("leases of %s: %v", n.name, err)
		}
	})
}

// Steward and Renew are of store.LeasePeers.
func (n *fleetNode) Steward(id store.ID, writer string) string { return n.cluster.Steward(id, writer) }
func (n *fleetNode) Renew(steward string, id store.ID)         { n.cluster.Renew(steward, id) }

// reach finds no endpoint there.
func (n *fleetNode) reach(context.Context, store.ID, string) bool { return false }

// inForce is at once: there is no gateway.
func (n *fleetNode) inForce(context.Context, uint64, []store.ID) error { return nil }

// end has the node say goodbye and stop.
func (n *fleetNode) end() {
	if n.stop == nil {
		return
	}
	n.stop()
	n.running.Wait()
	n.stop = nil
	if err := n.store.Close(); err != nil {
		n.fleet.t.Error(err)
	}
}

// crash ends the node as a power cut does: nobody hears anything of it.
func (n *fleetNode) crash() {
	n.fleet.net.crash(n.name)
	n.end()
}

func (n *fleetNode) id() string { return n.store.Node() }

// write changes the node's store as its API would.
func (n *fleetNode) write(ops ...store.Op) {
	n.fleet.t.Helper()
	if _, err := n.store.Write(context.Background(), store.Txn{Author: store.Author{Actor: "operator of " + n.name, Via: "api"}, Ops: ops}); err != nil {
		n.fleet.t.Fatalf("%s: %v", n.name, err)
	}
}

// apply declares what a manifest says.
func (n *fleetNode) apply(manifest string) {
	n.fleet.t.Helper()
	set, faults := store.Parse("test.yaml", []byte(manifest))
	if faults != nil {
		n.fleet.t.Fatal(faults)
	}
	var ops []store.Op
	for _, r := range set.Resources() {
		ops = append(ops, store.Op{Apply: r})
	}
	n.write(ops...)
}

// up are the nodes that run.
func (f *fleet) up() []*fleetNode {
	var up []*fleetNode
	for _, n := range f.nodes {
		if n.stop != nil {
			up = append(up, n)
		}
	}
	return up
}

// await waits in steps of 5 ms until all of these nodes are so, and tells how long that
// took; nodes that are not so in time fail the test.
func (f *fleet) await(within time.Duration, what string, nodes []*fleetNode, is func(*fleetNode) bool) time.Duration {
	f.t.Helper()
	begin := time.Now()
	waiting := slices.Clone(nodes)
	for {
		waiting = slices.DeleteFunc(waiting, is)
		if len(waiting) == 0 {
			return time.Since(begin)
		}
		if time.Since(begin) > within {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	var names []string
	for _, n := range waiting {
		names = append(names, n.name)
	}
	f.t.Fatalf("not within %v: %s: %s\n%s", within, what, strings.Join(names, " "), waiting[0].log.tail(20))
	return within
}

// awaitAlive waits until all that run say that so many live.
func (f *fleet) awaitAlive(within time.Duration, want int) time.Duration {
	f.t.Helper()
	return f.await(within, fmt.Sprintf("%d members live", want), f.up(), func(n *fleetNode) bool { return n.cluster.Alive() == want })
}

// awaitHas waits until all that run have an object as the node has it that changed it.
func (f *fleet) awaitHas(within time.Duration, by *fleetNode, id store.ID) time.Duration {
	f.t.Helper()
	changed, ok := by.store.Snapshot().Get(id)
	if !ok {
		f.t.Fatalf("%s has no %s", by.name, id)
	}
	return f.await(within, fmt.Sprintf("%s as %s changed it", id, by.name), f.up(), func(n *fleetNode) bool {
		have, ok := n.store.Snapshot().Get(id)
		return ok && have.Revision.Compare(changed.Revision) >= 0
	})
}

// awaitEqual waits until all that run have the same.
func (f *fleet) awaitEqual(within time.Duration) time.Duration {
	f.t.Helper()
	up := f.up()
	return f.await(within, "the digest of "+up[0].name, up, func(n *fleetNode) bool {
		return n.store.Snapshot().Digest() == up[0].store.Snapshot().Digest()
	})
}

// logBook keeps the lines that a node has logged.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (b *logBook) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (b *logBook) WithAttrs(attrs []slog.Attr) slog.Handler         { return logPart{b, attrs} }
func (b *logBook) WithGroup(string) slog.Handler                    { return b }

func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	line := fmt.Sprintf("%s %s %s", r.Time.Format("04:05.000"), r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line)
	return nil
}

// find are the lines with all of these texts.
func (b *logBook) find(texts ...string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for _, line := range b.lines {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			found = append(found, line)
		}
	}
	return found
}

func (b *logBook) tail(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.lines[max(0, len(b.lines)-n):], "\n")
}

// logPart is a logBook with attributes that each line has.
type logPart struct {
	*logBook
	attrs []slog.Attr
}

func (p logPart) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logPart{p.logBook, append(slices.Clone(p.attrs), attrs...)}
}

func (p logPart) Handle(ctx context.Context, r slog.Record) error {
	r.AddAttrs(p.attrs...)
	return p.logBook.Handle(ctx, r)
}
