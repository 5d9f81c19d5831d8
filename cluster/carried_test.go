package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

// take gives a node objects of a peer.
func (n *simNode) take(from *simNode, objects ...*clusterv1.Object) {
	m := changesMessage(&clusterv1.Changes{Objects: objects})
	m.From = from.id
	n.exchange.receive(n.sim.t.Context(), []incoming{{encodeMessage(m), n.sim.now}})
}

// buriedObject is a tombstone that this version does not understand.
func buriedObject(kind, name string, r store.Revision) *clusterv1.Object {
	changed := time.UnixMilli(r.Wall).UTC().Format(time.RFC3339)
	head := fmt.Sprintf(`{"revision":%q,"vector":{%q:%q},"owner":{"kind":"api"},"created":%q,"changed":%q,"author":{},"deleted":true,"wings":2}`, r, r.Node, r, changed, changed)
	o := futureObject(kind, name, r)
	o.Row = append(binary.AppendUvarint(nil, uint64(len(head))), head...)
	return o
}

// keptRows is how many rows of what is carried are on the disk.
func (n *simNode) keptRows() (rows int) {
	n.sim.t.Helper()
	if err := n.store.Records(carriedRecords).Scan("", func(string, []byte) bool { rows++; return true }); err != nil {
		n.sim.t.Fatal(err)
	}
	return rows
}

// An edit of what a newer node has written, by a clock that is behind that one's, is later
// all the same: it travels, and the operator is told what it has overridden.
func TestExchangeEditsOverWhatItCarries(t *testing.T) {
	for _, restart := range []bool{false, true} {
		sim := openSimulation(t, 3)
		n := sim.nodes[0]
		n.apply(simBackend("b0", "old"))
		mustAgree(t, sim, 10*time.Second)
		n.take(sim.nodes[1], futureObject(store.BackendKind, "b0", store.Revision{Wall: sim.now.Add(50 * time.Second).UnixMilli(), Node: "newer"}))
		mustAgree(t, sim, 10*time.Second)
		if restart {
			n.stop()
			n.start()
			sim.meet(0, time.Millisecond)
			sim.run(time.Second)
		}
		if len(n.exchange.carrying) != 1 {
			t.Fatalf("%d carried", len(n.exchange.carrying))
		}
		n.apply(simBackend("b0", "edited"))
		mustAgree(t, sim, 10*time.Second)
		for _, n := range sim.nodes {
			if n.label("b0") != "edited" || len(n.exchange.carrying) != 0 || n.keptRows() != 0 {
				t.Errorf("restart %v: node %d has %q, carries %d and has %d rows", restart, n.index, n.label("b0"), len(n.exchange.carrying), n.keptRows())
			}
		}
		if text := strings.Join(n.exchange.problems(), "\n"); !strings.Contains(text, "default/b0") || !strings.Contains(text, "overridden") {
			t.Errorf("restart %v: problems %q", restart, text)
		}
	}
}

// A later version that knew what was carried overrides nothing.
func TestExchangeLetsGoOfWhatWasSucceeded(t *testing.T) {
	sim := openSimulation(t, 2)
	n := sim.nodes[0]
	r := store.Revision{Wall: sim.now.Add(-time.Second).UnixMilli(), Node: "newer"}
	n.take(sim.nodes[1], futureObject(store.BackendKind, "a-two", r))
	sim.nodes[1].apply(simBackend("a-one", "x"))
	o, _ := sim.nodes[1].store.Snapshot().Get(backendID("a-one"))
	row, err := store.EncodeForeign(o)
	if err != nil {
		t.Fatal(err)
	}
	row = bytes.ReplaceAll(row, []byte("a-one"), []byte("a-two"))
	seen := fmt.Appendf(nil, `"vector":{%q:%q,`, r.Node, r)
	head, at := binary.Uvarint(row)
	row = append(binary.AppendUvarint(nil, head+uint64(len(seen)-len(`"vector":{`))), bytes.Replace(row[at:], []byte(`"vector":{`), seen, 1)...)
	n.take(sim.nodes[1], &clusterv1.Object{Kind: store.BackendKind, Namespace: "default", Name: "a-two", Level: 1, Row: row, Sum: 1})
	if n.label("a-two") != "x" || len(n.exchange.carrying) != 0 || len(n.exchange.problems()) != 0 {
		t.Errorf("it has %q, carries %d, problems %q", n.label("a-two"), len(n.exchange.carrying), n.exchange.problems())
	}
}

// Tombstones that are carried go when those of the store do, with what they have deleted.
func TestExchangeForgetsCarriedTombstones(t *testing.T) {
	sim := openSimulation(t, 2)
	n := sim.nodes[0]
	n.apply(simBackend("b0", "x"))
	mustAgree(t, sim, 10*time.Second)
	r := store.Revision{Wall: sim.now.Add(time.Second).UnixMilli(), Node: "newer"}
	n.take(sim.nodes[1], buriedObject("Wings", "w", r), buriedObject(store.BackendKind, "b0", r))
	mustAgree(t, sim, 10*time.Second)
	if len(n.exchange.carrying) != 2 {
		t.Fatalf("%d carried", len(n.exchange.carrying))
	}
	for range 25 {
		sim.leap(time.Hour)
		sim.run(carriedPace + 10*time.Second)
	}
	mustAgree(t, sim, 10*time.Second)
	for _, n := range sim.nodes {
		if len(n.exchange.carrying) != 0 || n.keptRows() != 0 || n.label("b0") != "" {
			t.Errorf("node %d carries %d, has %d rows, and %q of what was deleted", n.index, len(n.exchange.carrying), n.keptRows(), n.label("b0"))
		}
	}
}

// stubborn is a store that fails, or refuses, what is merged.
type stubborn struct {
	shared
	err, refuse error
}

func (s *stubborn) Merge(ctx context.Context, objects []*store.Object) (*store.MergeResult, error) {
	switch {
	case s.err != nil:
		return nil, s.err
	case s.refuse != nil:
		return &store.MergeResult{Refused: []store.Refusal{{ID: objects[0].ID, Err: s.refuse}}}, nil
	}
	return s.shared.Merge(ctx, objects)
}

// What is understood after an upgrade is taken as soon as the store takes it, and not
// forgotten before; what the store never takes is not kept for ever.
func TestExchangeTriesAgainWhatItUnderstands(t *testing.T) {
	for _, c := range []struct {
		name  string
		first stubborn
		level uint32
		kept  bool
	}{
		{"a full disk", stubborn{err: errors.New("no space left")}, store.Vocabulary, true},
		{"a clock that is ahead", stubborn{refuse: store.ErrClockAhead}, store.Vocabulary, true},
		{"not valid by what allows more", stubborn{refuse: errors.New("too many wings")}, store.Vocabulary + 1, true},
		{"not valid", stubborn{refuse: errors.New("too many wings")}, store.Vocabulary, false},
	} {
		sim := openSimulation(t, 2)
		n := sim.nodes[0]
		sim.nodes[1].apply(simBackend("b0", "x"))
		o, _ := sim.nodes[1].store.Snapshot().Get(backendID("b0"))
		row, err := store.EncodeForeign(o)
		if err != nil {
			t.Fatal(err)
		}
		sim.cut[1] = 1
		real := n.exchange.store
		n.exchange.carry(sim.nodes[1].id, backendID("b0"), &clusterv1.Object{Level: c.level, Row: row, Sum: sumOf(o)})
		n.exchange.keepCarried()
		c.first.shared = real
		n.exchange.store = &c.first
		n.exchange.takeUnderstood(t.Context())
		if kept := len(n.exchange.carrying) == 1; kept != c.kept || n.keptRows() != len(n.exchange.carrying) {
			t.Errorf("%s: carries %d and has %d rows, want it kept: %v", c.name, len(n.exchange.carrying), n.keptRows(), c.kept)
		}
		n.exchange.store = real
		sim.run(carriedPace + time.Second)
		if again := c.kept && c.level == store.Vocabulary; again != (n.label("b0") == "x") {
			t.Errorf("%s: it has %q after a minute", c.name, n.label("b0"))
		}
	}
}
