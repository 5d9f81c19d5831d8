package cluster

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	clusterv1 "sluice/cluster/v1"
)

// sampleMessages are messages of all kinds.
func sampleMessages() []*clusterv1.Message {
	name := &clusterv1.Name{Kind: "Backend", Namespace: "default", Name: "cart-v1"}
	entry := &clusterv1.Entry{Name: name, Revision: &clusterv1.Revision{Wall: 1763766000123, Node: "k3f9x2ab"}, Sum: 7}
	bodies := []*clusterv1.Message{
		changesMessage(&clusterv1.Changes{
			Objects: []*clusterv1.Object{{Kind: "Backend", Namespace: "default", Name: "cart-v1", Level: 1, Row: []byte("row"), Sum: 7}},
			Gone:    []*clusterv1.Name{name}, Later: []*clusterv1.Name{name}, Answer: true, Last: true,
		}),
		noticeMessage([]*clusterv1.Entry{entry}),
		{Body: &clusterv1.Message_Beat{Beat: &clusterv1.Beat{
			Seq: 1, Wall: 5, Digests: map[string]uint64{"Backend": 5}, Content: make([]byte, contentSize), Clock: entry.Revision,
		}}},
		{Body: &clusterv1.Message_Compare{Compare: &clusterv1.Compare{
			Kinds: []*clusterv1.KindSums{{Kind: "Backend", Buckets: make([]uint64, numBuckets)}},
		}}},
		inventoryMessage(&clusterv1.Inventory{Kind: "Backend", Buckets: []uint32{0, 255}, Entries: []*clusterv1.Entry{entry}}),
		{Body: &clusterv1.Message_Ask{Ask: &clusterv1.Ask{Names: []*clusterv1.Name{name}}}},
		{Body: &clusterv1.Message_Confirm{Confirm: &clusterv1.Confirm{Id: 1, Entries: []*clusterv1.Entry{entry}, Within: 1000}}},
		{Body: &clusterv1.Message_Confirmed{Confirmed: &clusterv1.Confirmed{Id: 1, Error: "no"}}},
		{Body: &clusterv1.Message_Renewed{Renewed: &clusterv1.Renewed{Names: []*clusterv1.Name{name}}}},
		{Body: &clusterv1.Message_Hints{Hints: &clusterv1.Hints{Hints: []*clusterv1.Hint{{Backend: "default/cart-v1", Address: "10.0.0.1:1", Down: true}}}}},
		{Body: &clusterv1.Message_KeyRequest{KeyRequest: &clusterv1.KeyRequest{Id: 1, Verb: clusterv1.KeyVerb_KEY_VERB_ADD, Key: "k"}}},
		{Body: &clusterv1.Message_KeyResponse{KeyResponse: &clusterv1.KeyResponse{Id: 1, Keys: []string{"a", "b"}}}},
	}
	for _, m := range bodies {
		m.From = "k3f9x2ab"
	}
	return bodies
}

func TestMessageIsReadAsItWasWritten(t *testing.T) {
	for _, m := range sampleMessages() {
		got, err := decodeMessage(encodeMessage(m))
		if err != nil || !proto.Equal(got, m) {
			t.Errorf("%v came as %v, %v", m, got, err)
		}
	}
}

func TestMessageRefusesWhatNobodySends(t *testing.T) {
	object := func(change func(*clusterv1.Object)) *clusterv1.Message {
		o := &clusterv1.Object{Kind: "Backend", Namespace: "default", Name: "a", Level: 1, Row: []byte("r")}
		change(o)
		return changesMessage(&clusterv1.Changes{Objects: []*clusterv1.Object{o}})
	}
	entry := func(change func(*clusterv1.Entry)) *clusterv1.Message {
		e := &clusterv1.Entry{
			Name:     &clusterv1.Name{Kind: "Backend", Namespace: "default", Name: "a"},
			Revision: &clusterv1.Revision{Wall: 1, Node: "a"},
		}
		change(e)
		return noticeMessage([]*clusterv1.Entry{e})
	}
	big := func(n, size int) *clusterv1.Message {
		c := &clusterv1.Changes{}
		for range n {
			c.Objects = append(c.Objects, &clusterv1.Object{Kind: "Schema", Namespace: "default", Name: "a", Level: 1, Row: make([]byte, size)})
		}
		return changesMessage(c)
	}
	tests := []struct {
		name    string
		message *clusterv1.Message
		reason  reason // empty: it is taken
	}{
		{"a kind of no name", object(func(o *clusterv1.Object) { o.Kind = "a/b" }), malformed},
		{"no kind", object(func(o *clusterv1.Object) { o.Kind = "" }), malformed},
		{"a kind of a later version", object(func(o *clusterv1.Object) { o.Kind = "Wings" }), ""},
		{"a long name", object(func(o *clusterv1.Object) { o.Name = strings.Repeat("a", 254) }), malformed},
		{"a name of another alphabet", object(func(o *clusterv1.Object) { o.Name = "é" }), malformed},
		{"no level", object(func(o *clusterv1.Object) { o.Level = 0 }), malformed},
		{"no row", object(func(o *clusterv1.Object) { o.Row = nil }), malformed},
		{"no revision", entry(func(e *clusterv1.Entry) { e.Revision = nil }), malformed},
		{"a revision of nobody", entry(func(e *clusterv1.Entry) { e.Revision.Node = "A" }), malformed},
		{"a revision of no time", entry(func(e *clusterv1.Entry) { e.Revision.Wall = -1 }), malformed},
		{"an entry of nothing", entry(func(e *clusterv1.Entry) { e.Name = nil }), malformed},
		{"one large object", big(1, maxMessage+1), ""},
		{"one object that is too large", big(1, maxSingle), tooLarge},
		{"two large objects", big(2, maxMessage/2+1), tooLarge},
		{"a beat without a digest", &clusterv1.Message{Body: &clusterv1.Message_Beat{Beat: &clusterv1.Beat{}}}, malformed},
		{"a compare of few groups", &clusterv1.Message{Body: &clusterv1.Message_Compare{Compare: &clusterv1.Compare{
			Kinds: []*clusterv1.KindSums{{Kind: "Backend", Buckets: make([]uint64, 3)}},
		}}}, malformed},
		{"a group that there is not", inventoryMessage(&clusterv1.Inventory{Kind: "Backend", Buckets: []uint32{256}}), malformed},
		{"a long reason", &clusterv1.Message{Body: &clusterv1.Message_Confirmed{Confirmed: &clusterv1.Confirmed{Error: strings.Repeat("a", 1025)}}}, malformed},
	}
	for _, test := range tests {
		test.message.From = "k3f9x2ab"
		_, err := decodeMessage(encodeMessage(test.message))
		var refusal *refusalError
		switch {
		case test.reason == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.reason != "" && (!errors.As(err, &refusal) || refusal.reason != test.reason):
			t.Errorf("%s: %v, want %s", test.name, err, test.reason)
		}
	}
}

// A message of a million empty records is small, and would be large in memory.
func TestMessageBoundsRecordsBeforeReadingThem(t *testing.T) {
	names := bytes.Repeat([]byte{0x0a, 0x00}, 400_000)
	m := protowire.AppendTag(encodeMessage(&clusterv1.Message{From: "a"}), 15, protowire.BytesType)
	m = protowire.AppendBytes(m, names)
	var refusal *refusalError
	if _, err := decodeMessage(m); !errors.As(err, &refusal) || refusal.reason != tooLarge {
		t.Errorf("%v, want %s", err, tooLarge)
	}
}

// A newer peer says what this version does not know: that is counted, and no fault.
func TestExchangeIgnoresMessagesOfNewerVersions(t *testing.T) {
	sim := newSimulation(t, 1, simTemplates(t, 2), simFolder(t))
	defer sim.close()
	sim.begin()
	m := encodeMessage(&clusterv1.Message{From: sim.nodes[1].id})
	m = protowire.AppendTag(m, 99, protowire.BytesType)
	m = protowire.AppendBytes(m, []byte("what nobody knows yet"))
	sim.nodes[0].exchange.receive(context.Background(), []incoming{{m, sim.now}})
	if got := sim.nodes[0].exchange.stats().Refused[string(newerMessage)]; got != 1 {
		t.Errorf("%d counted, want 1", got)
	}
}

func FuzzMessage(f *testing.F) {
	for _, m := range sampleMessages() {
		f.Add(encodeMessage(m))
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0x7a, 0x00}, 100))
	sim := newSimulation(f, 1, simTemplates(f, 2), simFolder(f))
	sim.begin()
	f.Cleanup(sim.close)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		if again, err := decodeMessage(encodeMessage(m)); err != nil || !proto.Equal(again, m) {
			t.Errorf("%v came as %v, %v", m, again, err)
		}
		m.From = sim.nodes[1].id // a live peer, as bad as it may be
		sim.nodes[0].exchange.receive(t.Context(), []incoming{{encodeMessage(m), sim.now}})
		sim.nodes[0].exchange.tick(t.Context())
	})
}
