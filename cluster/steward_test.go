package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sluice/store"
)

// seeing is a membership that sees these nodes live.
func seeing(self string, others ...string) *membership {
	m := &membership{self: self, members: map[string]*member{}}
	for _, id := range others {
		m.members[id] = &member{state: Alive}
	}
	return m
}

func TestStewardIsTheWriterWhileItLives(t *testing.T) {
	id := store.ID{Kind: store.RegistrationKind, Namespace: "default", Name: "a"}
	m := seeing("n1", "n2", "n3")
	for _, writer := range []string{"n1", "n2", "n3"} {
		if got := m.steward(id, writer); got != writer {
			t.Errorf("of what %s wrote: %s", writer, got)
		}
	}
	if got := seeing("n1").steward(id, "n9"); got != "n1" {
		t.Errorf("of a node that is alone: %s", got)
	}
}

func TestStewardsShareEvenlyAndStay(t *testing.T) {
	const things = 4000
	nodes := []string{"aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd", "eeeeeeee"}
	steward := func(live []string, at int, i int) string {
		m := seeing(live[at], slices.Concat(live[:at], live[at+1:])...)
		return m.steward(store.ID{Kind: store.RegistrationKind, Namespace: "default", Name: fmt.Sprint("r", i)}, "gone")
	}
	rest := slices.Delete(slices.Clone(nodes), 2, 3)
	count := map[string]int{}
	for i := range things {
		before := steward(nodes, i%5, i)
		count[before]++
		if other := steward(nodes, (i+1)%5, i); other != before {
			t.Fatalf("two nodes name %s and %s", before, other)
		}
		after := steward(rest, i%4, i)
		if before != nodes[2] && after != before {
			t.Fatalf("thing %d moves from %s to %s, and neither is gone", i, before, after)
		}
		if before == nodes[2] {
			count["then "+after]++
		}
	}
	for _, node := range nodes {
		if n := count[node]; n < things/5*85/100 || n > things/5*115/100 {
			t.Errorf("%s has %d of %d", node, n, things)
		}
		if n := count["then "+node]; node != nodes[2] && (n < things/20*7/10 || n > things/20*13/10) {
			t.Errorf("%s takes %d of those of who is gone", node, n)
		}
	}
}

func TestMemoryIsBoundedAndQuiet(t *testing.T) {
	b := newBody(t, nil)
	m, err := recall(b.store)
	if err != nil {
		t.Fatal(err)
	}
	peers := map[string]remembered{}
	for i := range maxRemembered + 50 {
		peers[fmt.Sprintf("%s%c%c", "aaaaaa", 'a'+i/26%26, 'a'+i%26)+fmt.Sprint(i)] = remembered{Addresses: []string{"10.0.0.1:7946"}, Seen: time.Unix(int64(i), 0).UTC()}
	}
	seq := b.store.Snapshot().Seq()
	if err := m.keep(&b.mu, peers); err != nil {
		t.Fatal(err)
	}
	if len(m.peers) != maxRemembered {
		t.Errorf("%d are remembered", len(m.peers))
	}
	if b.store.Snapshot().Seq() != seq {
		t.Error("remembering is a change of the objects")
	}
	few := map[string]remembered{
		"aaaaaaaa": {Addresses: []string{"10.0.0.1:7946"}, Host: "a", Seen: time.Unix(1, 0).UTC()},
		"bbbbbbbb": {Addresses: []string{"10.0.0.2:7946", "10.0.0.3:7946"}, Seen: time.Unix(2, 0).UTC()},
	}
	if err := m.keep(&b.mu, few); err != nil {
		t.Fatal(err)
	}
	again, err := recall(b.store)
	if err != nil || fmt.Sprint(again.peers) != fmt.Sprint(few) {
		t.Errorf("remembered are %v, %v", again.peers, err)
	}
	if _, alone, err := again.alone(); alone || err != nil {
		t.Errorf("alone: %v, %v", alone, err)
	}
}
