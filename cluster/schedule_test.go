package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

// simNodes is how many nodes a schedule has.
const simNodes = 4

// schedule is what happens to a cluster by chance.
type schedule struct {
	*simulation
	ctx    context.Context
	edits  int
	jumped bool // a clock was an hour off
	future int  // objects of a newer version
}

// schedules is how many random schedules a test plays: SLUICE_SCHEDULES, or few.
func schedules(t testing.TB, few int) []uint64 {
	if text := os.Getenv("SLUICE_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{seed}
	}
	if text := os.Getenv("SLUICE_SCHEDULES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		few = n
	}
	seeds := make([]uint64, few)
	for i := range seeds {
		seeds[i] = uint64(i)
	}
	return seeds
}

// Whatever happens, in the end all nodes have the same, and no edit is lost without a
// word. SLUICE_SEED plays one schedule again.
func TestExchangeAgreesAfterAnything(t *testing.T) {
	templates, folder := simTemplates(t, simNodes), simFolder(t)
	var slowest time.Duration
	total := struct{ edits, listed, excused int }{}
	few := 200
	if raceDetector {
		few = 60
	}
	for _, seed := range schedules(t, few) {
		sch := newSchedule(t, seed, templates, folder)
		took, err := sch.play()
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		slowest = max(slowest, took)
		total.edits += len(sch.truth.edits)
		total.listed += len(sch.truth.listed)
		total.excused += len(sch.truth.excused)
	}
	t.Logf("%d edits, %d shown as lost, %d lost with the state of a node; the slowest agreement took %v",
		total.edits, total.listed, total.excused, slowest)
}

func newSchedule(t testing.TB, seed uint64, templates []string, folder string) *schedule {
	folder = filepath.Join(folder, fmt.Sprint(seed))
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return &schedule{simulation: newSimulation(t, seed, templates, folder), ctx: t.Context()}
}

// play runs the schedule, and tells how long agreement took after all was well again.
func (sch *schedule) play() (time.Duration, error) {
	defer sch.close()
	for _, n := range sch.nodes {
		n.offset = time.Duration(sch.rng.IntN(100)-50) * time.Second / 2
		n.start()
	}
	sch.meet(0, time.Second)
	for range 30 + sch.rng.IntN(40) {
		sch.run(time.Duration(sch.rng.ExpFloat64() * float64(time.Second)))
		sch.something()
	}
	sch.mend()
	took, err := sch.untilAgreed(time.Minute)
	if err != nil {
		return took, err
	}
	return took, sch.truth.check(sch.nodes[0])
}

// mend ends all that is wrong.
func (sch *schedule) mend() {
	for _, n := range sch.nodes {
		if n.offset.Abs() > time.Minute {
			n.offset = 0
		}
	}
	if sch.jumped {
		sch.leap(2 * time.Hour) // until what the clock made is not in the future any more
	}
	clear(sch.cut)
	sch.loss, sch.twice = 0.02, 0
	for _, n := range sch.nodes {
		if n.store == nil {
			n.start()
		}
	}
	sch.meet(0, time.Second)
	sch.run(time.Second)
}

// something is one thing that happens.
func (sch *schedule) something() {
	n := sch.nodes[sch.rng.IntN(len(sch.nodes))]
	switch p := sch.rng.IntN(100); {
	case p < 55:
		sch.edit(n)
	case p < 60:
		sch.syncFiles(n)
	case p < 64:
		sch.newer(n)
	case p < 72:
		sch.part()
	case p < 79:
		clear(sch.cut)
		sch.meet(time.Second, 3*time.Second)
	case p < 83:
		n.keepCopyIfRunning()
	case p < 88:
		n.stop()
		sch.meet(time.Second, 5*time.Second)
	case p < 95:
		sch.restart()
	case p < 97:
		n.offset = time.Duration(sch.rng.IntN(100)-50) * time.Second / 2
	case p < 98:
		sch.jump(n)
	default:
		sch.loss, sch.twice = sch.rng.Float64()*0.3, sch.rng.Float64()*0.2
		sch.delay[1] = 5 + 300*sch.rng.Float64()
	}
}

func (n *simNode) keepCopyIfRunning() {
	if n.store != nil {
		n.keepCopy()
	}
}

// part cuts the nodes into two sides.
func (sch *schedule) part() {
	for i := range sch.nodes {
		sch.cut[i] = sch.rng.IntN(2)
	}
	sch.meet(2*time.Second, 5*time.Second)
}

// restart starts a node that does not run, now and then from an older state.
func (sch *schedule) restart() {
	for _, n := range sch.nodes {
		if n.store != nil {
			continue
		}
		if len(n.copies) > 0 && sch.rng.IntN(3) == 0 {
			c := n.copies[sch.rng.IntN(len(n.copies))]
			sch.truth.excuse(n, c)
			sch.truth.trace("node %d starts from the state of %v (b0 b1 b2 b3 b4)", n.index, c.at.Format("04:05.000"))
			copyFolder(sch.t, c.dir, n.dir)
		}
		n.start()
		sch.meet(0, time.Second)
		return
	}
}

// jump puts one clock an hour off, which the others refuse until it is mended.
func (sch *schedule) jump(n *simNode) {
	if !sch.jumped {
		sch.jumped = true
		n.offset = time.Hour * time.Duration(1-2*sch.rng.IntN(2))
	}
}

func simBackend(name, label string) string {
	return fmt.Sprintf("apiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: %s, labels: {by: %q}}\nspec: {registration: {}, endpoints: [{address: \"a:1\"}, {address: \"a:2\"}]}\n", name, label)
}

func simRoute(label string) string {
	return fmt.Sprintf("apiVersion: %s\nkind: GRPCRoute\nmetadata: {name: cart, labels: {by: %q}}\nspec:\n  rules:\n  - name: all\n    backendRefs:\n    - {group: sluice.dev, kind: Backend, name: b0, weight: 9}\n    - {group: sluice.dev, kind: Backend, name: b1, weight: 1}\n", store.GRPCRouteVersion, label)
}

func parseSim(t testing.TB, text string) []store.Resource {
	set, faults := store.Parse("sim.yaml", []byte(text))
	if faults != nil {
		t.Fatal(faults)
	}
	return set.Resources()
}

// edit is one edit by the API.
func (sch *schedule) edit(n *simNode) {
	if n.store == nil {
		return
	}
	sch.edits++
	name, label := fmt.Sprintf("b%d", sch.rng.IntN(5)), fmt.Sprint("e", sch.edits)
	id := store.ID{Kind: store.BackendKind, Namespace: "default", Name: name}
	route := store.ID{Kind: store.GRPCRouteKind, Namespace: "default", Name: "cart"}
	var op store.Op
	switch sch.rng.IntN(8) {
	case 0, 1, 2:
		op = store.Op{Apply: parseSim(sch.t, simBackend(name, label))[0]}
	case 3:
		op = store.Op{ID: id, Delete: true}
	case 4:
		op = store.Op{Apply: parseSim(sch.t, simRoute(label))[0]}
	case 5:
		op = splitSim(route, uint32(sch.rng.IntN(100)+1))
	case 6:
		op = store.Op{ID: id, State: func(s store.State, _ *store.Object) (store.State, error) {
			s.Drains = []store.Drain{{Endpoint: "a:1", By: label}}
			return s, nil
		}}
	case 7:
		op = registrationSim(sch.rng)
	}
	sch.write(n, store.Txn{Ops: []store.Op{op}, AllowUnresolved: true, Author: store.Author{Actor: label}})
}

func splitSim(route store.ID, weight uint32) store.Op {
	return store.Op{ID: route, State: func(s store.State, o *store.Object) (store.State, error) {
		return store.EditSplit(o.Resource.(store.Route), s, "all", store.SplitEdit{Shares: []store.Share{{Backend: "b0", Weight: weight}, {Backend: "b1", Weight: 1}}})
	}}
}

func registrationSim(rng *rand.Rand) store.Op {
	spec := store.RegistrationSpec{Backend: "b0", Address: fmt.Sprintf("10.0.0.%d:1", rng.IntN(3)), Weight: uint32(1 + rng.IntN(5)), Lease: store.Duration(time.Minute)}
	return store.Op{Apply: &store.Registration{
		Meta: store.Meta{Namespace: "default", Name: store.RegistrationName(spec.Backend, spec.Address)}, Spec: spec,
	}}
}

// write does what somebody asks of a node; what the node refuses was not acknowledged.
func (sch *schedule) write(n *simNode, txn store.Txn) {
	before := n.store.Snapshot()
	result, err := n.store.Write(sch.ctx, txn)
	if err != nil {
		return
	}
	sch.truth.wrote(n, before, result.Changes)
	n.changed()
}

// syncFiles reads files at a node: the same at all nodes, now and then of another version.
func (sch *schedule) syncFiles(n *simNode) {
	if n.store == nil {
		return
	}
	var text strings.Builder
	for i := range sch.rng.IntN(3) {
		fmt.Fprintf(&text, "%s---\n", simBackend(fmt.Sprintf("f%d", i), "file"))
	}
	set, faults := store.Parse("sim.yaml", []byte(text.String()))
	if faults != nil {
		sch.t.Fatal(faults)
	}
	before := n.store.Snapshot()
	result, err := n.store.SyncFiles(sch.ctx, set, store.Author{Actor: "files"})
	if err != nil {
		sch.t.Errorf("node %d: %v", n.index, err)
		return
	}
	sch.truth.wrote(n, before, result.Changes)
	n.changed()
}

// newer has a node get an object of a newer version of the program, which it passes on.
func (sch *schedule) newer(n *simNode) {
	if n.store == nil || len(n.live) == 0 {
		return
	}
	sch.future++
	kind := [...]string{"Future", store.BackendKind}[sch.rng.IntN(2)]
	r := store.Revision{Wall: n.wall().UnixMilli(), Counter: uint32(sch.future), Node: "newer"}
	message := &clusterv1.Message{From: n.live[0], Body: &clusterv1.Message_Changes{Changes: &clusterv1.Changes{
		Objects: []*clusterv1.Object{futureObject(kind, fmt.Sprintf("n%d", sch.rng.IntN(2)), r)},
	}}}
	n.inbox = append(n.inbox, incoming{encodeMessage(message), n.wall()})
	n.sim.at(time.Millisecond, n.handle)
}

// futureObject is an object that this version does not understand.
func futureObject(kind, name string, r store.Revision) *clusterv1.Object {
	head := fmt.Sprintf(`{"revision":%q,"vector":{%q:%q},"owner":{"kind":"api"},"created":"2026-11-22T00:00:00Z","changed":"2026-11-22T00:00:00Z","author":{}}`, r, r.Node, r)
	row := append(binary.AppendUvarint(nil, uint64(len(head))), head...)
	row = append(row, `{"apiVersion":"sluice.dev/v9","kind":"Future","spec":{"wings":2}}`...)
	return &clusterv1.Object{
		Kind: kind, Namespace: "default", Name: name, Level: store.Vocabulary + 1, Row: row,
		Sum: uint64(r.Wall)<<16 + uint64(r.Counter),
	}
}

// wrongWinner is a bug in Merge: what one node does not know yet it takes for a successor.
func wrongWinner(n *simNode, objects []*store.Object) {
	if n.index != 1 {
		return
	}
	for _, o := range objects {
		if mine := n.store.Snapshot().Find(o.ID); mine != nil && mine.Revision.Compare(o.Revision) < 0 {
			o.Vector = unionOf(o.Vector, mine.Vector)
		}
	}
}

// forgetfulUnion is another: the winner has not seen what the loser had.
func forgetfulUnion(n *simNode, objects []*store.Object) {
	if n.index != 1 {
		return
	}
	for _, o := range objects {
		o.Vector = store.Vector{o.Revision.Node: o.Revision}
	}
}

func unionOf(a, b store.Vector) store.Vector {
	u := store.Vector{}
	for _, v := range []store.Vector{a, b} {
		for node, r := range v {
			if have, ok := u[node]; !ok || have.Compare(r) < 0 {
				u[node] = r
			}
		}
	}
	return u
}

// The schedules are worth something only if they find what is wrong.
func TestSchedulesFindPlantedBugs(t *testing.T) {
	templates, folder := simTemplates(t, simNodes), simFolder(t)
	for name, bug := range map[string]func(*simNode, []*store.Object){
		"wrong winner": wrongWinner, "forgetful union": forgetfulUnion,
	} {
		found := -1
		for seed := range uint64(60) {
			sch := newSchedule(t, seed, templates, folder)
			sch.tamper = bug
			if _, err := sch.play(); err != nil {
				found = int(seed)
				t.Logf("%s: schedule %d finds it: %.300v", name, seed, err)
				break
			}
		}
		if found < 0 {
			t.Errorf("%s: no schedule finds it", name)
		}
	}
}
