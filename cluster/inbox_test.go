package cluster

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	clusterv1 "sluice/cluster/v1"
)

// total is of all reasons.
func total(counts map[string]uint64) (sum uint64) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

func encoded(t *testing.T, from string, m *clusterv1.Message) []byte {
	t.Helper()
	m.Version, m.From = 1, from
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func beatOf(t *testing.T, from string) []byte {
	return encoded(t, from, &clusterv1.Message{Body: &clusterv1.Message_Beat{Beat: &clusterv1.Beat{Content: make([]byte, contentSize)}}})
}

// One sender fills a share of the room, and leaves the rest to the others; a single message
// of his has room whatever its size.
func TestInboxHasAShareForEachSender(t *testing.T) {
	b := newInbox()
	now := time.Now()
	for range maxInbox {
		b.put(bulkLane, "flooder", []byte("message"), now)
	}
	if n := b.dropped[droppedShare]; n != maxInbox-maxInbox/inboxShares {
		t.Errorf("%d dropped of who fills more than a share", n)
	}
	for i := range maxInbox {
		b.put(bulkLane, fmt.Sprint("other-", i), []byte("message"), now)
	}
	if n := b.dropped[droppedFull]; n != maxInbox/inboxShares {
		t.Errorf("%d dropped when all is full, want %d", n, maxInbox/inboxShares)
	}
	if !b.put(urgentLane, "flooder", []byte("beat"), now) {
		t.Error("bulk takes the room of what is urgent")
	}
	large := newInbox()
	for range 5 {
		large.put(bulkLane, "flooder", make([]byte, maxSingle), now)
	}
	if n, other := large.dropped[droppedShare], large.put(bulkLane, "other", make([]byte, maxSingle), now); n != 4 || !other {
		t.Errorf("%d large ones of one sender dropped, want 4; one of another has room: %v", n, other)
	}
}

// Senders take turns, what is urgent comes first, and neither holds up the other for ever.
func TestInboxTakesTurns(t *testing.T) {
	b := newInbox()
	now := time.Now()
	for i := range 100 {
		b.put(bulkLane, "flooder", fmt.Append(nil, "f", i), now)
	}
	b.put(bulkLane, "other", []byte("o"), now)
	for range 2 * maxUrgentRow {
		b.put(urgentLane, "flooder", []byte("u"), now)
	}
	b.put(urgentLane, "other", []byte("beat"), now)
	at := map[string]int{}
	for i := 0; !b.empty(); i++ {
		m, found := b.take()
		if !found {
			t.Fatal("nothing is found of what waits")
		}
		at[string(m.bytes)] = max(at[string(m.bytes)], i)
	}
	if at["beat"] > 1 {
		t.Errorf("a beat is the %d. to be handled", at["beat"]+1)
	}
	if at["f0"] != maxUrgentRow || at["o"] > 2*maxUrgentRow+2 {
		t.Errorf("bulk begins at %d, and the other sender's is at %d", at["f0"], at["o"])
	}
	for to, lane := range b.lanes {
		if lane.count != 0 || lane.bytes != 0 || len(lane.boxes) != 0 || len(lane.turns) != 0 {
			t.Errorf("lane %d is not empty: %+v", to, lane)
		}
	}
}

func TestInboxKnowsWhereMessagesBelong(t *testing.T) {
	entry := &clusterv1.Message{Body: &clusterv1.Message_Renewed{Renewed: &clusterv1.Renewed{Names: []*clusterv1.Name{{Kind: "Backend"}}}}}
	beat, both := beatOf(t, "abcdefgh"), encoded(t, "abcdefgh", changes("Backend", "b", 1, []byte("row")))
	many := append([]byte(nil), beat...)
	for range maxEnvelope {
		many = protowire.AppendVarint(protowire.AppendTag(many, 99, protowire.VarintType), 1)
	}
	for _, c := range []struct {
		name    string
		message []byte
		sender  string
		to      urgency
	}{
		{"a beat", beat, "abcdefgh", urgentLane},
		{"renewals", encoded(t, "abcdefgh", entry), "abcdefgh", urgentLane},
		{"changes", both, "abcdefgh", bulkLane},
		{"changes that begin like a beat", append(append([]byte(nil), beat...), both...), "abcdefgh", bulkLane},
		{"of nobody", encoded(t, "", entry), "", urgentLane},
		{"nothing", nil, "", bulkLane},
		{"garbage", []byte("message"), "", bulkLane},
		{"more than an envelope has", many, "", bulkLane},
		{"too large to be urgent", encoded(t, "abcdefgh", &clusterv1.Message{Body: &clusterv1.Message_Beat{Beat: &clusterv1.Beat{Content: make([]byte, maxMessage)}}}), "abcdefgh", bulkLane},
	} {
		if sender, to := addressee(c.message); sender != c.sender || to != c.to {
			t.Errorf("%s: of %q in lane %d, want %q in %d", c.name, sender, to, c.sender, c.to)
		}
	}
}

func FuzzInboxAddressee(f *testing.F) {
	f.Add([]byte("message"))
	f.Fuzz(func(t *testing.T, message []byte) {
		sender, to := addressee(message)
		m := &clusterv1.Message{}
		if proto.Unmarshal(message, m) != nil || sender == "" && to == bulkLane {
			return
		}
		if m.From != sender {
			t.Errorf("of %q, and taken for one of %q", m.From, sender)
		}
		if _, is := m.Body.(*clusterv1.Message_Changes); is && to == urgentLane {
			t.Error("objects among what is urgent")
		}
	})
}

// A beat is heard though another peer has filled the inbox, and whoever is no member has no
// share of his own for each name that he gives himself.
func TestLoopHearsOthersDuringAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openLoop(t, "flooder", "honest")
		l.noteLive(&exchange{liveSet: map[string]bool{"flooder": true, "honest": true}})
		flood := encoded(t, "flooder", changes("Backend", "b", 1, []byte("row")))
		for range maxInbox {
			l.receive(flood)
		}
		for i := range maxInbox {
			l.receive(encoded(t, fmt.Sprint("stranger-", i), changes("Backend", "b", 1, []byte("row"))))
		}
		l.receive(beatOf(t, "honest"))
		l.receive(encoded(t, "honest", changes("Backend", "b", 1, []byte("row"))))
		if n, most := l.inbox.lanes[bulkLane].count, 2*maxInbox/inboxShares+1; n != most {
			t.Errorf("%d messages wait, want %d", n, most)
		}
		if m, _ := l.next(); string(m.bytes) != string(beatOf(t, "honest")) {
			t.Error("the beat of another waits behind a flood")
		}
		if d := l.stats().Dropped; d[droppedShare] != 2*(maxInbox-maxInbox/inboxShares) || d[droppedFull] != 0 {
			t.Errorf("dropped %v", d)
		}
	})
}
