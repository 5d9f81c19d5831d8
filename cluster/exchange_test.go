package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

// openSimulation has n nodes that know each other.
func openSimulation(t *testing.T, n int) *simulation {
	t.Helper()
	sim := newSimulation(t, 1, simTemplates(t, n), simFolder(t))
	t.Cleanup(sim.close)
	sim.begin()
	return sim
}

// apply declares something at a node.
func (n *simNode) apply(text string) *store.Result {
	n.sim.t.Helper()
	var ops []store.Op
	for _, r := range parseSim(n.sim.t, text) {
		ops = append(ops, store.Op{Apply: r})
	}
	return n.write(store.Txn{Ops: ops, AllowUnresolved: true})
}

func (n *simNode) write(txn store.Txn) *store.Result {
	n.sim.t.Helper()
	result, err := n.store.Write(context.Background(), txn)
	if err != nil {
		n.sim.t.Fatal(err)
	}
	n.exchange.follow()
	return result
}

// forgetTombstones does what the store does by itself when they are old enough. It needs
// a bubble of synctest.
func (n *simNode) forgetTombstones() {
	ctx, cancel := context.WithTimeout(context.Background(), 11*time.Minute)
	defer cancel()
	if err := n.store.Run(ctx); err != nil {
		n.sim.t.Fatal(err)
	}
	if left := n.store.Snapshot().Tombstones(); len(left) > 0 {
		n.sim.t.Fatalf("node %d: %d tombstones are left", n.index, len(left))
	}
}

func backendID(name string) store.ID {
	return store.ID{Kind: store.BackendKind, Namespace: "default", Name: name}
}

// label is what a Backend is labelled with at a node, empty when it is not there.
func (n *simNode) label(name string) string {
	if o, ok := n.store.Snapshot().Get(backendID(name)); ok {
		return o.Resource.Metadata().Labels["by"]
	}
	return ""
}

func mustAgree(t *testing.T, sim *simulation, within time.Duration) time.Duration {
	t.Helper()
	took, err := sim.untilAgreed(within)
	if err != nil {
		t.Fatal(err)
	}
	return took
}

func TestExchangeTellsOfChangesAtOnce(t *testing.T) {
	sim := openSimulation(t, 4)
	sim.nodes[2].apply(simBackend("b0", "x"))
	sim.run(30 * time.Millisecond)
	for _, n := range sim.nodes {
		if n.label("b0") != "x" {
			t.Errorf("node %d has not got it", n.index)
		}
	}
}

// A change that all packets of are lost is found by its digest.
func TestExchangeMendsWhatWasLost(t *testing.T) {
	sim := openSimulation(t, 3)
	sim.cut[0] = 1
	sim.nodes[0].apply(simBackend("b0", "x"))
	sim.run(15 * time.Second) // until gossip has given up
	if sim.agreed() == nil {
		t.Fatal("the change has arrived")
	}
	clear(sim.cut)
	if took := mustAgree(t, sim, 10*time.Second); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A newcomer gets everything, in pieces; Schemas are as large as they may be.
func TestExchangeBringsNewcomersEverything(t *testing.T) {
	sim := newSimulation(t, 1, simTemplates(t, 3), simFolder(t))
	t.Cleanup(sim.close)
	sim.nodes[0].start()
	sim.nodes[1].start()
	sim.meet(0, time.Millisecond)
	sim.run(time.Second)
	var text strings.Builder
	for i := range 1000 {
		text.WriteString("---\n" + simBackend(fmt.Sprintf("many-%d", i), "x"))
	}
	sim.nodes[0].apply(text.String())
	mustAgree(t, sim, 10*time.Second)
	largest := 0
	sim.seen = func(message []byte) { largest = max(largest, len(message)) }
	sim.nodes[2].start()
	sim.meet(0, time.Millisecond)
	took := mustAgree(t, sim, 20*time.Second)
	if largest > maxMessage {
		t.Errorf("a message of %d bytes", largest)
	}
	t.Logf("1,000 objects in %v", took)
}

// Of one difference to one node the others make no storm.
func TestExchangeComparesAtAPace(t *testing.T) {
	sim := openSimulation(t, 12)
	for _, n := range sim.nodes[1:] {
		sim.cut[n.index] = 1
	}
	sim.nodes[1].apply(simBackend("b0", "x"))
	sim.run(20 * time.Second)
	clear(sim.cut)
	before := sim.comparisons()
	mustAgree(t, sim, 10*time.Second)
	sim.run(10 * time.Second)
	if n := sim.comparisons() - before; n > 12 {
		t.Errorf("%d comparisons", n)
	}
}

func (sim *simulation) comparisons() (n uint64) {
	for _, node := range sim.nodes {
		n += node.exchange.compares.begun
	}
	return n
}

// What a clock made that is an hour ahead is refused, counted and named; it is taken when
// its time has come.
func TestExchangeRefusesTheFuture(t *testing.T) {
	sim := openSimulation(t, 3)
	sim.nodes[1].offset = time.Hour
	sim.nodes[1].apply(simBackend("b0", "future"))
	sim.run(5 * time.Second)
	n := sim.nodes[0]
	if n.label("b0") != "" || n.exchange.stats().Refused[string(clockAhead)] == 0 {
		t.Errorf("taken %q, refused %v", n.label("b0"), n.exchange.stats().Refused)
	}
	problems := strings.Join(n.exchange.problems(), "\n")
	if !strings.Contains(problems, sim.nodes[1].id) || !strings.Contains(problems, "ahead") {
		t.Errorf("problems:\n%s", problems)
	}
	sim.nodes[1].offset = 0
	sim.leap(2 * time.Hour)
	mustAgree(t, sim, 2*time.Minute)
	if n.label("b0") != "future" {
		t.Error("it was never taken")
	}
}

func TestExchangeMeasuresClocks(t *testing.T) {
	sim := newSimulation(t, 1, simTemplates(t, 2), simFolder(t))
	t.Cleanup(sim.close)
	sim.nodes[1].offset = 7 * time.Second
	sim.begin()
	sim.run(10 * time.Second)
	f := sim.nodes[0].exchange.facts(sim.nodes[1].id)
	if off := f.Clock - 7*time.Second; !f.ClockKnown || off.Abs() > 10*time.Millisecond || f.RTT <= 0 || f.RTT > 20*time.Millisecond {
		t.Errorf("the clock is %v ahead (known %v), RTT %v", f.Clock, f.ClockKnown, f.RTT)
	}
	if f.UDPOut != ReachYes || f.UDPIn != ReachYes || f.TCPOut != ReachYes || f.TCPIn != ReachYes {
		t.Errorf("reach %v %v %v %v", f.UDPOut, f.UDPIn, f.TCPOut, f.TCPIn)
	}
}

// A firewall lets TCP through and no UDP: both sides see that.
func TestExchangeSeesWhichWaysThereAre(t *testing.T) {
	sim := newSimulation(t, 1, simTemplates(t, 2), simFolder(t))
	t.Cleanup(sim.close)
	sim.loss = 1
	sim.begin()
	sim.run(30 * time.Second)
	for i, n := range sim.nodes {
		f := n.exchange.facts(sim.nodes[1-i].id)
		if f.UDPOut != ReachNo || f.UDPIn != ReachNo || f.TCPOut != ReachYes || f.TCPIn != ReachYes {
			t.Errorf("node %d: UDP out %q in %q, TCP out %q in %q", i, f.UDPOut, f.UDPIn, f.TCPOut, f.TCPIn)
		}
	}
}

func TestExchangeShowsDrift(t *testing.T) {
	sim := openSimulation(t, 2)
	sim.cut[1] = 1
	sim.nodes[0].apply(simBackend("b0", "x"))
	sim.run(10 * time.Second)
	other := sim.nodes[1].exchange
	other.takeBeat(other.peerOf(sim.nodes[0].id), false, sim.nodes[0].exchange.ownBeat(&peer{}), sim.now)
	if f := other.facts(sim.nodes[0].id); !f.Drift || f.DriftSince.IsZero() {
		t.Errorf("drift %v since %v", f.Drift, f.DriftSince)
	}
	clear(sim.cut)
	mustAgree(t, sim, 10*time.Second)
	sim.run(5 * time.Second)
	if f := other.facts(sim.nodes[0].id); f.Drift {
		t.Error("it drifts still")
	}
}

// What a newer version wrote goes through an older node, also through its restart, and
// is in its digests.
func TestExchangeCarriesWhatIsNewer(t *testing.T) {
	sim := openSimulation(t, 3)
	r := store.Revision{Wall: sim.now.UnixMilli(), Node: "newer"}
	m := changesMessage(&clusterv1.Changes{Objects: []*clusterv1.Object{futureObject("Wings", "w", r)}})
	m.From = sim.nodes[1].id
	sim.nodes[0].exchange.receive(t.Context(), []incoming{{encodeMessage(m), sim.now}})
	mustAgree(t, sim, 10*time.Second)
	for _, n := range sim.nodes {
		if len(n.exchange.carrying) != 1 || !strings.Contains(strings.Join(n.exchange.problems(), "\n"), "Wings default/w") {
			t.Errorf("node %d carries %d; problems %q", n.index, len(n.exchange.carrying), n.exchange.problems())
		}
	}
	sim.nodes[2].stop()
	sim.nodes[2].start()
	if n := len(sim.nodes[2].exchange.carrying); n != 1 {
		t.Errorf("%d carried after a restart", n)
	}
	sim.meet(0, time.Millisecond)
	mustAgree(t, sim, 10*time.Second)
}

func TestExchangeBoundsWhatItCarries(t *testing.T) {
	sim := openSimulation(t, 2)
	c := &clusterv1.Changes{}
	for i := range maxCarried + 5 {
		r := store.Revision{Wall: sim.now.UnixMilli(), Counter: uint32(i), Node: "newer"}
		c.Objects = append(c.Objects, futureObject("Wings", fmt.Sprintf("w%d", i), r))
	}
	m := changesMessage(c)
	m.From = sim.nodes[1].id
	sim.nodes[0].exchange.receive(t.Context(), []incoming{{encodeMessage(m), sim.now}})
	if n := len(sim.nodes[0].exchange.carrying); n != maxCarried {
		t.Errorf("%d carried, limit %d", n, maxCarried)
	}
	if n := sim.nodes[0].exchange.stats().Refused[string(badObject)]; n != 5 {
		t.Errorf("%d refused, want 5", n)
	}
}

func TestExchangeRefusesBadObjects(t *testing.T) {
	sim := openSimulation(t, 2)
	var log bytes.Buffer
	e := sim.nodes[0].exchange
	e.refused = newRefusals(e.now, slog.New(slog.NewTextHandler(&log, nil)))
	r := store.Revision{Wall: sim.now.UnixMilli(), Node: "newer"}
	for range 100 {
		bad := futureObject("Wings", "w", r)
		bad.Level = store.Vocabulary
		m := changesMessage(&clusterv1.Changes{Objects: []*clusterv1.Object{bad}})
		m.From, m.Stream = sim.nodes[1].id, true
		e.seen = recent{}
		e.receive(t.Context(), []incoming{{encodeMessage(m), sim.now}, {[]byte("garbage"), sim.now}})
		m.From = "stranger"
		e.receive(t.Context(), []incoming{{encodeMessage(m), sim.now}})
	}
	sim.run(memberSoon + time.Second)
	got := e.stats().Refused
	if got[string(badObject)] != 100 || got[string(malformed)] != 100 || got[string(wrongSender)] != 100 {
		t.Errorf("refused %v", got)
	}
	if n := strings.Count(log.String(), "\n"); n != 3 {
		t.Errorf("%d lines of log, want one of each reason:\n%s", n, log.String())
	}
}

// A node that was away for longer than deletions are remembered brings back nothing that
// was deleted, and keeps what it was told after it was last in step.
func TestExchangeForgetsWhatWasDeletedWhileItWasAway(t *testing.T) {
	synctest.Test(t, testForgetsWhatWasDeleted)
}

func testForgetsWhatWasDeleted(t *testing.T) {
	sim := openSimulation(t, 3)
	away := sim.nodes[2]
	away.apply(simBackend("b0", "x") + "---\n" + simBackend("b1", "x"))
	mustAgree(t, sim, 5*time.Second)
	sim.run(15 * time.Second)
	away.stop()
	sim.run(time.Second)
	sim.nodes[0].write(store.Txn{Ops: []store.Op{{ID: backendID("b0"), Delete: true}}})
	sim.run(time.Second)
	sim.leap(25 * time.Hour)
	for _, n := range sim.nodes[:2] {
		n.forgetTombstones()
	}
	sim.run(5 * time.Second)
	away.start()
	away.apply(simBackend("b2", "alone"))
	sim.meet(time.Second, 2*time.Second)
	sim.run(15 * time.Second)
	mustAgree(t, sim, 20*time.Second)
	for _, n := range sim.nodes {
		if n.label("b0") != "" || n.label("b1") != "x" || n.label("b2") != "alone" {
			t.Errorf("node %d has b0 %q, b1 %q, b2 %q", n.index, n.label("b0"), n.label("b1"), n.label("b2"))
		}
		if n.exchange.staleness.stale {
			t.Errorf("node %d is stale still", n.index)
		}
	}
}

// When all were apart, nobody knows better.
func TestExchangeIsNotStaleWhenAllAre(t *testing.T) {
	sim := openSimulation(t, 3)
	sim.nodes[0].apply(simBackend("b0", "x"))
	mustAgree(t, sim, 5*time.Second)
	sim.run(5 * time.Second)
	for _, n := range sim.nodes {
		n.stop()
	}
	sim.leap(48 * time.Hour)
	for _, n := range sim.nodes {
		n.start()
	}
	sim.meet(0, time.Second)
	sim.run(20 * time.Second)
	for _, n := range sim.nodes {
		if n.label("b0") != "x" || n.exchange.staleness.stale {
			t.Errorf("node %d has b0 %q, stale %v", n.index, n.label("b0"), n.exchange.staleness.stale)
		}
	}
}

// What is too much for one answer is asked for again at once, also where an older version
// of it is known.
func TestExchangeAsksForTheRestOfAnAnswer(t *testing.T) {
	sim := openSimulation(t, 2)
	a, b := sim.nodes[0], sim.nodes[1]
	var text strings.Builder
	for i := range 5 {
		text.WriteString("---\n" + simBackend(fmt.Sprintf("b%d", i), "old"))
	}
	a.apply(text.String())
	mustAgree(t, sim, 5*time.Second)
	sim.cut[1] = 1
	a.apply(strings.ReplaceAll(text.String(), "old", "new"))
	var entries []*clusterv1.Entry
	var names []*clusterv1.Name
	for i := range 5 {
		v := a.exchange.have.versions[backendID(fmt.Sprintf("b%d", i))]
		entries, names = append(entries, wireEntry(v)), append(names, wireName(v.id))
	}
	var asked [][]*clusterv1.Name
	sim.seen = func(message []byte) {
		if m, err := decodeMessage(message); err == nil && m.GetAsk() != nil {
			asked = append(asked, m.GetAsk().Names)
		}
	}
	b.exchange.want(a.id, entries)
	b.exchange.arrived(t.Context(), a.id, &clusterv1.Changes{Answer: true, Last: true, Gone: names[:1], Later: names[1:]})
	if len(asked) != 2 || len(asked[0]) != 5 || len(asked[1]) != 4 {
		t.Errorf("asked %v", asked)
	}
}

// Messages and word of who lives come by different ways: who is a member soon, or was one,
// is no stranger.
func TestExchangeTakesMembersThatComeAndGoForNoStrangers(t *testing.T) {
	sim := newSimulation(t, 1, simTemplates(t, 2), simFolder(t))
	t.Cleanup(sim.close)
	a, b := sim.nodes[0], sim.nodes[1]
	a.start()
	b.start()
	e := a.exchange
	sends := func(from string) {
		m := noticeMessage(nil)
		m.From = from
		e.receive(t.Context(), []incoming{{encodeMessage(m), sim.now}})
	}
	sends(b.id)
	sends("nobody")
	sim.run(time.Second)
	a.lookAround()
	sim.cut[1] = 1
	a.lookAround()
	sends(b.id)
	sim.run(time.Minute)
	if n := e.stats().Refused[string(wrongSender)]; n != 1 || e.unknowns.early != 2 {
		t.Errorf("%d refused, want that of the stranger; %d of members, want 2", n, e.unknowns.early)
	}
	sends(b.id)
	for i := range 2 * maxUnknown {
		sends(fmt.Sprint("stranger-", i))
	}
	if len(e.unknowns.waiting) != maxUnknown {
		t.Errorf("%d strangers are waited for, limit %d", len(e.unknowns.waiting), maxUnknown)
	}
	sim.run(10 * time.Second)
	if n := e.stats().Refused[string(wrongSender)]; n != 2+2*maxUnknown {
		t.Errorf("%d refused, want %d", n, 2+2*maxUnknown)
	}
}

// Whoever has something else by now says so before its turn.
func TestExchangeTellsOfItsNewDigest(t *testing.T) {
	sim := openSimulation(t, 3)
	sim.run(5 * time.Second)
	for i := range 20 {
		sim.nodes[0].apply(simBackend("b0", fmt.Sprint(i)))
		sim.run(newsAfter + tickEvery + 50*time.Millisecond)
		if i > 0 {
			sim.run(time.Second)
		}
		for _, n := range sim.nodes[1:] {
			f := n.exchange.facts(sim.nodes[0].id)
			if f.Drift || f.Digest != sim.nodes[0].store.Snapshot().Digest() {
				t.Errorf("change %d: node %d takes node 0 for %.8s, drift %v", i, n.index, f.Digest, f.Drift)
			}
		}
	}
}

// Who is on call reads of a conflict in the log, and of a thousand in a few lines.
func TestExchangeNamesConflictsInTheLog(t *testing.T) {
	sim := openSimulation(t, 2)
	var log bytes.Buffer
	sim.nodes[0].exchange.conflictLog.log = slog.New(slog.NewTextHandler(&log, nil))
	sim.cut[1] = 1
	for i, n := range sim.nodes {
		var text strings.Builder
		for j := range 30 {
			text.WriteString("---\n" + simBackend(fmt.Sprintf("b%d", j), fmt.Sprint(i)))
		}
		n.apply(text.String())
	}
	sim.run(time.Second)
	clear(sim.cut)
	mustAgree(t, sim, 10*time.Second)
	lines := strings.Count(log.String(), "sluice conflicts")
	if !strings.Contains(log.String(), "Backend default/b") || lines == 0 || lines > 2*11 || sim.nodes[0].exchange.conflicts != 30 {
		t.Errorf("%d conflicts, %d lines:\n%s", sim.nodes[0].exchange.conflicts, lines, log.String())
	}
}

func TestExchangeConfirms(t *testing.T) {
	sim := openSimulation(t, 3)
	var failed confirmation
	asked := false
	confirm := func(n *simNode, label string, more time.Duration) {
		asked = false
		result := n.apply(simBackend("b0", label))
		n.exchange.confirm(result.Changes, 3*time.Second, func(c confirmation) { failed, asked = c.failed(), true })
		sim.run(more)
	}
	if confirm(sim.nodes[0], "x", 100*time.Millisecond); !asked || len(failed) != 0 {
		t.Errorf("confirmed %v, failed %v", asked, failed)
	}
	if sim.nodes[1].label("b0") != "x" {
		t.Error("confirmed, and not there")
	}
	// A node that is there and does not answer.
	sim.cut[2] = 1
	if confirm(sim.nodes[0], "y", 5*time.Second); !asked || !errors.Is(failed[sim.nodes[2].id], context.DeadlineExceeded) || len(failed) != 1 {
		t.Errorf("confirmed %v, failed %v", asked, failed)
	}
	clear(sim.cut)
	// A node that refuses.
	sim.nodes[0].offset = time.Hour
	if confirm(sim.nodes[0], "z", 500*time.Millisecond); !asked || !strings.Contains(fmt.Sprint(failed[sim.nodes[1].id]), "ahead") {
		t.Errorf("confirmed %v, failed %v", asked, failed)
	}
}

// A gateway that cannot obey says why.
func TestExchangeConfirmsWhenTheGatewayObeys(t *testing.T) {
	sim := newSimulation(t, 1, simTemplates(t, 2), simFolder(t))
	t.Cleanup(sim.close)
	sim.inForce = func(n *simNode) error { return fmt.Errorf("node %d is on strike", n.index) }
	sim.begin()
	result := sim.nodes[0].apply(simBackend("b0", "x"))
	var failed confirmation
	sim.nodes[0].exchange.confirm(result.Changes, time.Second, func(c confirmation) { failed = c })
	sim.run(time.Second)
	if err := failed[sim.nodes[1].id]; err == nil || err.Error() != "node 1 is on strike" {
		t.Errorf("failed %v", failed)
	}
}

func TestExchangePassesRenewalsAndHintsOn(t *testing.T) {
	sim := openSimulation(t, 2)
	var renewed []store.ID
	var hints []Hint
	sim.nodes[1].exchange.parts.Renewed = func(id store.ID) { renewed = append(renewed, id) }
	sim.nodes[1].exchange.parts.Hint = func(h Hint) { hints = append(hints, h) }
	e := sim.nodes[0].exchange
	for i := range 100 {
		e.renew(sim.nodes[1].id, store.ID{Kind: store.RegistrationKind, Namespace: "default", Name: fmt.Sprintf("r%d", i%50)})
	}
	for i := range 500 {
		e.observe([]Hint{{Backend: "default/b", Address: fmt.Sprintf("10.0.%d.1:1", i), Down: true}})
	}
	sim.run(900 * time.Millisecond)
	if len(renewed) != 50 {
		t.Errorf("%d renewals, want 50", len(renewed))
	}
	if len(hints) != maxHints || !hints[0].Down || hints[0].Node != sim.nodes[0].id {
		t.Errorf("%d hints, want %d", len(hints), maxHints)
	}
	sim.loss = 1 // of packets
	e.renew(sim.nodes[1].id, store.ID{Kind: store.RegistrationKind, Namespace: "default", Name: "r50"})
	sim.run(1100 * time.Millisecond)
	if len(renewed) != 51 {
		t.Errorf("%d renewals, want 51", len(renewed))
	}
}

// stewardIs is peers of which one looks after every lease.
type stewardIs string

func (s stewardIs) Steward(store.ID, string) string { return string(s) }
func (s stewardIs) Renew(string, store.ID)          {}

// The end of a lease that somebody else is to speak of is no fault of the peer that tells of
// it, and is asked for again a while later.
func TestExchangeTakesEndsOfLeasesLater(t *testing.T) {
	sim := openSimulation(t, 3)
	a, b, c := sim.nodes[0], sim.nodes[1], sim.nodes[2]
	a.apply(simBackend("b0", "x"))
	spec := store.RegistrationSpec{Backend: "b0", Address: "10.0.0.1:1", Weight: 1, Lease: store.Duration(time.Minute)}
	r := &store.Registration{Meta: store.Meta{Name: store.RegistrationName(spec.Backend, spec.Address)}, Spec: spec}
	a.write(store.Txn{Ops: []store.Op{{Apply: r}}})
	id := a.store.Snapshot().All(store.RegistrationKind)[0].ID
	mustAgree(t, sim, 10*time.Second)
	store.NewLeases(b.store, store.LeaseOptions{Now: b.wall, Peers: stewardIs(a.id)})
	c.write(store.Txn{Author: store.Author{Actor: "lease"}, Ops: []store.Op{{ID: id, Delete: true}}})
	sim.run(20 * time.Second)
	if _, there := b.store.Snapshot().Get(id); !there {
		t.Error("it has ended at once")
	}
	if n := b.exchange.stats().Refused[string(badObject)]; n != 0 {
		t.Errorf("%d objects are said to be invalid", n)
	}
	mustAgree(t, sim, 3*time.Minute)
	if _, there := b.store.Snapshot().Get(id); there {
		t.Error("it never ends")
	}
}

func TestExchangeAsksForKeys(t *testing.T) {
	sim := openSimulation(t, 3)
	sim.nodes[1].exchange.keys = func(verb keyVerb, key string) keyReply {
		return keyReply{Keys: []string{fmt.Sprint(verb, key)}, Warning: "careful"}
	}
	var answers map[string]keyReply
	sim.nodes[0].exchange.askKeys(keyUse, "k", func(a map[string]keyReply) { answers = a })
	sim.run(100 * time.Millisecond)
	if a := answers[sim.nodes[1].id]; len(answers) != 2 || len(a.Keys) != 1 || a.Keys[0] != fmt.Sprint(keyUse, "k") || a.Warning != "careful" {
		t.Errorf("answers %+v", answers)
	}
	if a := answers[sim.nodes[2].id]; a.Err == nil {
		t.Error("a node without keys has some")
	}
}

// A Schema is as large as a message may be only when it is alone in it.
func TestExchangeSendsLargeObjects(t *testing.T) {
	if raceDetector {
		t.Skip("reading the descriptors is most of it")
	}
	sim := openSimulation(t, 3)
	largest := 0
	sim.seen = func(message []byte) { largest = max(largest, len(message)) }
	var ops []store.Op
	for i := range 3 {
		ops = append(ops, store.Op{Apply: &store.Schema{
			Meta: store.Meta{Namespace: "default", Name: fmt.Sprintf("s%d", i)},
			Spec: store.SchemaSpec{DescriptorSet: largeDescriptors(t, i)},
		}})
	}
	sim.nodes[0].write(store.Txn{Ops: ops})
	mustAgree(t, sim, 10*time.Second)
	if n := sim.nodes[2].store.Snapshot().Len(store.SchemaKind); n != 3 {
		t.Errorf("%d schemas", n)
	}
	if largest < maxMessage || largest > maxSingle {
		t.Errorf("the largest message has %d bytes", largest)
	}
	sent := 0
	for _, n := range sim.nodes {
		sent += n.sent
	}
	if most := 3 * 3 * largest; sent > most { // twice is needed
		t.Errorf("%d bytes sent, want less than %d", sent, most)
	}
}

// largeDescriptors are about two megabytes.
func largeDescriptors(t *testing.T, number int) []byte {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{Name: proto.String(fmt.Sprintf("large%d.proto", number)), Syntax: proto.String("proto3")}
	for i := range 20_000 {
		name := fmt.Sprintf("Message%d%s%d", number, strings.Repeat("x", 80), i)
		file.MessageType = append(file.MessageType, &descriptorpb.DescriptorProto{Name: proto.String(name)})
	}
	b, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Of two rows of a newer version under one revision both sides choose the same, also when
// neither has seen all that the other has.
func TestCarriedWinsAtOneSide(t *testing.T) {
	r := store.Revision{Wall: 5, Node: "a"}
	row := func(sum uint64, seen ...string) *version {
		v := &version{revision: r, vector: store.Vector{"a": r}, sum: sum, carried: &carried{}}
		for _, node := range seen {
			v.vector[node] = store.Revision{Wall: 1, Node: node}
		}
		return v
	}
	for _, pair := range [][2]*version{
		{row(1, "b", "c"), row(2, "b")}, // the first is to hold
		{row(2, "b", "c"), row(1, "b")},
		{row(2, "b"), row(1, "c")},
		{row(2, "b"), row(1, "b")},
	} {
		if !carriedWins(pair[1], pair[0]) || carriedWins(pair[0], pair[1]) || carriedWins(pair[0], pair[0]) {
			t.Errorf("sums %d and %d, which have seen %v and %v", pair[0].sum, pair[1].sum, pair[0].vector, pair[1].vector)
		}
	}
}
