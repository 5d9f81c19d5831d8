package cluster

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"sluice/store"
)

// simulation runs whole stores and exchanges in one thread and in a time of its own. What
// happens follows from the seed alone.
type simulation struct {
	t      testing.TB
	rng    *rand.Rand
	now    time.Time
	events eventQueue
	seq    int
	nodes  []*simNode
	log    *slog.Logger

	// The network.
	loss, twice float64     // shares of packets that are lost, and that come twice
	delay       [2]float64  // of packets, in milliseconds, least and most
	streamLoss  float64     // share of messages over TCP that are lost: a queue was full
	cut         map[int]int // by node: the side that it is on

	truth   *truth
	tamper  func(n *simNode, objects []*store.Object) // a bug, nil for none
	inForce func(n *simNode) error
	seen    func(message []byte) // everything that is sent over TCP
}

// event is something that happens at a moment.
type event struct {
	at  time.Time
	seq int
	do  func()
}

type eventQueue []event

func (q eventQueue) Len() int      { return len(q) }
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q eventQueue) Less(i, j int) bool {
	return cmp.Or(q[i].at.Compare(q[j].at), cmp.Compare(q[i].seq, q[j].seq)) < 0
}
func (q *eventQueue) Push(x any) { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// simNode is one node: a store in a folder, and while it runs an exchange.
type simNode struct {
	sim    *simulation
	index  int
	id     string
	dir    string
	offset time.Duration // of its clock

	store    *store.Store // nil while it does not run
	exchange *exchange
	queue    *memberlist.TransmitLimitedQueue
	life     int // counts the starts: what is meant for an earlier one is dropped
	live     []string
	inbox    []incoming
	sent     int // bytes
	packets  int
	copies   []simCopy
	highest  store.Revision // that it ever made
	refuses  store.ID       // an object that it never takes
}

// simCopy is an old state of a node.
type simCopy struct {
	dir string
	at  time.Time
}

// simFolder is where stores lie: in memory, when there is such a folder.
func simFolder(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "sluice")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// simTemplates are empty stores, in the order of the names of their nodes, so that the
// order of names is no chance.
func simTemplates(t testing.TB, n int) []string {
	t.Helper()
	folder := simFolder(t)
	type template struct{ dir, node string }
	var list []template
	for i := range n {
		dir := filepath.Join(folder, fmt.Sprint(i))
		s, err := store.Open(store.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, template{dir, s.Node()})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(list, func(a, b template) int { return cmp.Compare(a.node, b.node) })
	dirs := make([]string, n)
	for i, l := range list {
		dirs[i] = l.dir
	}
	return dirs
}

func copyFolder(t testing.TB, from, to string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Type().IsRegular() {
			copyOne(t, filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name()))
		}
	}
}

func copyOne(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
}

func newSimulation(t testing.TB, seed uint64, templates []string, folder string) *simulation {
	sim := &simulation{
		t: t, rng: rand.New(rand.NewPCG(seed, 17)), now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
		delay: [2]float64{0.2, 5}, cut: map[int]int{}, log: slog.New(slog.DiscardHandler), truth: newTruth(),
	}
	if os.Getenv("SLUICE_SIMULATION_LOG") != "" {
		sim.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	for i, template := range templates {
		n := &simNode{sim: sim, index: i, dir: filepath.Join(folder, fmt.Sprint(i))}
		copyFolder(t, template, n.dir)
		sim.nodes = append(sim.nodes, n)
	}
	return sim
}

// at has something happen later.
func (sim *simulation) at(after time.Duration, do func()) {
	sim.seq++
	heap.Push(&sim.events, event{sim.now.Add(after), sim.seq, do})
}

// run lets time pass.
func (sim *simulation) run(d time.Duration) {
	end := sim.now.Add(d)
	for len(sim.events) > 0 && !sim.events[0].at.After(end) {
		e := heap.Pop(&sim.events).(event)
		sim.now = e.at
		e.do()
	}
	sim.now = end
}

// leap lets time pass in which nothing happens.
func (sim *simulation) leap(d time.Duration) {
	for i := range sim.events {
		sim.events[i].at = sim.events[i].at.Add(d)
	}
	sim.now = sim.now.Add(d)
}

func (sim *simulation) close() {
	for _, n := range sim.nodes {
		n.stop()
	}
}

func (n *simNode) wall() time.Time { return n.sim.now.Add(n.offset) }

// simStore is a store that can have a bug.
type simStore struct {
	*store.Store
	node *simNode
}

func (s *simStore) Merge(ctx context.Context, objects []*store.Object) (*store.MergeResult, error) {
	if s.node.sim.tamper != nil {
		s.node.sim.tamper(s.node, objects)
	}
	objects = slices.DeleteFunc(objects, func(o *store.Object) bool { return o.ID == s.node.refuses })
	before := s.Snapshot()
	result, err := s.Store.Merge(ctx, objects)
	if err == nil {
		s.node.sim.truth.merged(s.node, before, objects, result)
	}
	return result, err
}

func (s *simStore) SetBack(ctx context.Context, forgotten store.Revision) (bool, error) {
	before := s.Snapshot()
	done, err := s.Store.SetBack(ctx, forgotten)
	for _, o := range s.Snapshot().Since(before) {
		s.node.sim.truth.note(s.node, before.Find(o.ID), o) // the same under another name
	}
	return done, err
}

// start opens the store and begins to exchange.
func (n *simNode) start() {
	sim := n.sim
	s, err := store.Open(store.Options{Dir: n.dir, Now: n.wall, AllowUnresolved: true})
	if err != nil {
		sim.t.Fatalf("node %d: %v", n.index, err)
	}
	n.store, n.id = s, s.Node()
	n.life++
	n.inbox = nil
	n.queue = &memberlist.TransmitLimitedQueue{RetransmitMult: retransmitMult, NumNodes: func() int { return len(n.live) + 1 }}
	parts := Parts{Store: s}
	if sim.inForce != nil {
		parts.InForce = func(context.Context, uint64, []store.ID) error { return sim.inForce(n) }
	}
	log := sim.log.With("node", n.index)
	n.exchange = newExchange(setting{
		store: &simStore{s, n}, parts: parts, courier: n, now: func() time.Time { return sim.now }, wall: n.wall,
		rand: rand.New(rand.NewPCG(sim.rng.Uint64(), 1)), log: log, refused: newRefusals(func() time.Time { return sim.now }, log), spawn: n.spawn,
	})
	n.exchange.queue = n.queue
	n.live = nil
	n.exchange.start(context.Background())
	n.every(tickEvery, func() { n.exchange.tick(context.Background()) })
	n.every(200*time.Millisecond, n.gossip)
}

// every does something while the node runs.
func (n *simNode) every(d time.Duration, do func()) {
	life := n.life
	var again func()
	again = func() {
		if n.store != nil && n.life == life {
			do()
			n.sim.at(d, again)
		}
	}
	n.sim.at(time.Duration(n.sim.rng.Int64N(int64(d))), again)
}

func (n *simNode) spawn(work func(context.Context) func(context.Context)) bool {
	life := n.life
	n.sim.at(time.Millisecond, func() {
		if n.store != nil && n.life == life {
			work(context.Background())(context.Background())
		}
	})
	return true
}

// stop ends the node as a crash does: nothing is said, and what is on the disk stays.
func (n *simNode) stop() {
	if n.store == nil {
		return
	}
	if err := n.store.Close(); err != nil {
		n.sim.t.Errorf("node %d: %v", n.index, err)
	}
	n.store, n.exchange, n.live = nil, nil, nil
}

// keepCopy keeps the state of now, to be started from later.
func (n *simNode) keepCopy() {
	c := simCopy{fmt.Sprintf("%s-copy-%d", n.dir, len(n.copies)), n.sim.now}
	copyFolder(n.sim.t, n.dir, c.dir)
	n.copies = append(n.copies, c)
}

// reaches tells whether what n sends comes to other.
func (n *simNode) reaches(other *simNode) bool {
	return n.store != nil && other.store != nil && n.sim.cut[n.index] == n.sim.cut[other.index]
}

// meet lets all nodes find out, a while later, who lives.
func (sim *simulation) meet(least, most time.Duration) {
	for _, n := range sim.nodes {
		after := least + time.Duration(sim.rng.Int64N(int64(most-least)))
		sim.at(after, n.lookAround)
	}
}

func (n *simNode) lookAround() {
	if n.store == nil {
		return
	}
	n.live = nil
	for _, other := range n.sim.nodes {
		if other != n && n.reaches(other) {
			n.live = append(n.live, other.id)
		}
	}
	slices.Sort(n.live)
	n.exchange.setLive(context.Background())
}

// The courier of a node.

func (n *simNode) Live() []string     { return n.live }
func (n *simNode) PacketRoom() int    { return 1300 }
func (n *simNode) Life(string) string { return "" }

func (n *simNode) Send(to string, message []byte) {
	n.sent += len(message) + 200 // for the connection
	if n.sim.seen != nil {
		n.sim.seen(message)
	}
	other := n.sim.byID(to)
	if other == nil {
		return
	}
	if n.sim.streamLoss > 0 && n.sim.rng.Float64() < n.sim.streamLoss {
		return
	}
	// Each message has a connection of its own: the order is lost.
	n.deliver(other, message, n.sim.someDelay()+time.Millisecond)
}

func (n *simNode) SendPacket(to string, message []byte) {
	n.sent += len(message) + 28 + 29 + 3 // headers, encryption, type
	n.packets++
	other := n.sim.byID(to)
	rng := n.sim.rng
	if other == nil || rng.Float64() < n.sim.loss {
		return
	}
	n.deliver(other, message, n.sim.someDelay())
	if rng.Float64() < n.sim.twice {
		n.deliver(other, message, n.sim.someDelay()+time.Duration(rng.IntN(2000))*time.Millisecond)
	}
}

func (sim *simulation) someDelay() time.Duration {
	ms := sim.delay[0] + sim.rng.Float64()*(sim.delay[1]-sim.delay[0])
	return time.Duration(ms * float64(time.Millisecond))
}

func (sim *simulation) byID(id string) *simNode {
	for _, n := range sim.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

// deliver brings a message, if both can still talk then.
func (n *simNode) deliver(other *simNode, message []byte, after time.Duration) {
	life := other.life
	n.sim.at(after, func() {
		if !n.reaches(other) || other.life != life {
			return
		}
		other.inbox = append(other.inbox, incoming{message, other.wall()})
		if len(other.inbox) == 1 {
			n.sim.at(time.Duration(n.sim.rng.IntN(3))*time.Millisecond, other.handle)
		}
	})
}

func (n *simNode) handle() {
	messages := n.inbox
	n.inbox = nil
	if n.store != nil {
		n.exchange.receive(context.Background(), messages)
	}
}

// gossip is what memberlist does five times a second: some random nodes get what is due.
func (n *simNode) gossip() {
	for _, id := range n.exchange.some(n.live, 3) {
		for _, message := range n.queue.GetBroadcasts(3, 1300) {
			n.SendPacket(id, message)
		}
	}
}

// changed is what the loop does when somebody has written.
func (n *simNode) changed() {
	life := n.life
	n.sim.at(time.Duration(n.sim.rng.IntN(2000))*time.Microsecond, func() {
		if n.store != nil && n.life == life {
			n.exchange.follow()
		}
	})
}

// agreed is nil when all nodes that run have the same.
func (sim *simulation) agreed() error {
	var first *simNode
	for _, n := range sim.nodes {
		if n.store == nil {
			continue
		}
		n.exchange.follow()
		if first == nil {
			first = n
			continue
		}
		if err := n.agrees(first); err != nil {
			return err
		}
	}
	return nil
}

func (n *simNode) agrees(first *simNode) error {
	if kinds := differing(first.exchange.have.digests(), n.exchange.have.digests()); len(kinds) > 0 {
		return fmt.Errorf("nodes %d and %d differ in %v: %v", first.index, n.index, kinds, difference(first, n))
	}
	if first.store.Snapshot().Digest() != n.store.Snapshot().Digest() {
		return fmt.Errorf("nodes %d and %d obey something else: %v", first.index, n.index, difference(first, n))
	}
	return nil
}

// difference names what two nodes have otherwise.
func difference(a, b *simNode) (list []string) {
	ids := map[store.ID]bool{}
	for _, n := range []*simNode{a, b} {
		for id := range n.exchange.have.versions {
			ids[id] = true
		}
	}
	for id := range ids {
		x, y := a.exchange.have.versions[id], b.exchange.have.versions[id]
		if x == nil || y == nil || x.sum != y.sum || fingerprint(x.object) != fingerprint(y.object) {
			list = append(list, fmt.Sprintf("%s: %s and %s", id, describe(x), describe(y)))
		}
	}
	slices.Sort(list)
	return list
}

func describe(v *version) string {
	if v == nil {
		return "nothing"
	}
	text := fmt.Sprintf("%s seen %v carried %v", v.revision, v.vector, v.carried != nil)
	if v.object != nil {
		text += fmt.Sprintf(" deleted %v lost %d of %s: %s", v.object.Deleted, len(v.object.Lost), v.object.Owner, fingerprint(v.object))
	}
	return text
}

// untilAgreed lets time pass until all have the same, and tells how long that took.
func (sim *simulation) untilAgreed(most time.Duration) (time.Duration, error) {
	begin := sim.now
	for {
		err := sim.agreed()
		if err == nil || sim.now.Sub(begin) >= most {
			return sim.now.Sub(begin), err
		}
		sim.run(500 * time.Millisecond)
	}
}

// begin starts all nodes and lets them meet.
func (sim *simulation) begin() {
	for _, n := range sim.nodes {
		n.start()
	}
	sim.meet(0, time.Millisecond)
	sim.run(time.Second)
}
