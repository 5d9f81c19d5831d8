package cluster

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

// intruder is a member that has the key and says what it should not.
type intruder struct {
	f    *fleet
	list *memberlist.Memberlist
	id   string
	only string // whom it tells; empty is all
}

// newIntruder joins the fleet with a memberlist of its own.
func (f *fleet) newIntruder(id string) *intruder {
	f.t.Helper()
	text, err := os.ReadFile(f.keyFile())
	if err != nil {
		f.t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		f.t.Fatal(err)
	}
	conf := memberlist.DefaultLANConfig()
	conf.Name, conf.Transport, conf.Label, conf.SecretKey = id, f.net.transport(id), "sluice", key
	conf.BindAddr, conf.EnableCompression, conf.Logger = "", false, log.New(io.Discard, "", 0)
	conf.Delegate = silent{}
	list, err := memberlist.Create(conf)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := list.Join([]string{f.net.address(f.nodes[0].name)}); err != nil {
		f.t.Fatal(err)
	}
	pass(time.Second)
	return &intruder{f: f, list: list, id: id}
}

// silent is the delegate of an intruder: it hears nothing, and says that it is of Sluice.
type silent struct{}

func (silent) NodeMeta(int) []byte             { return []byte("\x01{\"h\":\"intruder\",\"i\":\"a\"}") }
func (silent) NotifyMsg([]byte)                {}
func (silent) GetBroadcasts(int, int) [][]byte { return nil }
func (silent) LocalState(bool) []byte          { return nil }
func (silent) MergeRemoteState([]byte, bool)   {}

// tell sends bytes to each node, as a packet if they fit one, and as a stream.
func (in *intruder) tell(message []byte) {
	for _, m := range in.list.Members() {
		if m.Name == in.id || in.only != "" && m.Name != in.only {
			continue
		}
		if len(message) <= 1200 {
			_ = in.list.SendBestEffort(m, message) // refused is as good
		}
		_ = in.list.SendReliable(m, message)
	}
}

// say sends a message in the name of somebody.
func (in *intruder) say(from string, m *clusterv1.Message) {
	in.f.t.Helper()
	m.Version, m.From, m.Life = 1, from, "a"
	for _, node := range in.list.Members() { // what everybody's metadata tell
		if told, err := decodeMeta(node.Meta); err == nil && node.Name == from {
			m.Life = told.Life
		}
	}
	encoded, err := proto.Marshal(m)
	if err != nil {
		in.f.t.Fatal(err)
	}
	in.tell(encoded)
}

// changes is a message with one object of that row.
func changes(kind, name string, level uint32, row []byte) *clusterv1.Message {
	return &clusterv1.Message{Body: &clusterv1.Message_Changes{Changes: &clusterv1.Changes{
		Objects: []*clusterv1.Object{{Kind: kind, Namespace: "default", Name: name, Level: level, Row: row}},
	}}}
}

// rowOf is a foreign row of an object that another store has made at that time; spoil may
// do to it what no store does.
func (f *fleet) rowOf(manifest string, id store.ID, at time.Time, spoil func(*store.Object)) []byte {
	f.t.Helper()
	dir, err := os.MkdirTemp(f.dir, "foreign-")
	if err != nil {
		f.t.Fatal(err)
	}
	s, err := store.Open(store.Options{Dir: filepath.Join(dir, "store"), Now: func() time.Time { return at }})
	if err != nil {
		f.t.Fatal(err)
	}
	defer s.Close()
	(&fleetNode{fleet: f, name: "foreign", store: s}).apply(manifest)
	o, ok := s.Snapshot().Get(id)
	if !ok {
		f.t.Fatalf("no %s", id)
	}
	if spoil != nil {
		spoil(o)
	}
	row, err := store.EncodeForeign(o)
	if err != nil {
		f.t.Fatal(err)
	}
	return row
}

func TestClusterWithstandsAPeerThatLies(t *testing.T) {
	for _, lie := range []struct {
		name    string
		tell    func(f *fleet, in *intruder)
		counted bool // as refused; what is merely of no use is not
	}{
		{"garbage", tellGarbage, true},
		{"messages of fields that are none", tellNonsense, true},
		{"objects that are none", tellNoObjects, true},
		{"objects that declare what may not be", tellInvalid, true},
		{"edits of the year 2100", tellFuture, true},
		{"messages beyond the limits", tellHuge, true},
		{"answers that nobody asked for", tellAnswers, false},
	} {
		t.Run(lie.name, func(t *testing.T) {
			inBubble(t, 3, func(t *testing.T, f *fleet) {
				f.nodes[0].apply(shop)
				f.awaitEqual(10 * time.Second)
				digest := f.nodes[0].store.Snapshot().Digest()
				in := f.newIntruder("intruder")
				defer in.list.Shutdown()
				lie.tell(f, in)
				pass(10 * time.Second)
				for _, n := range f.nodes {
					if n.store.Snapshot().Digest() != digest {
						t.Errorf("%s has taken it in", n.name)
					}
					if lie.counted && n.refusals() == 0 {
						t.Errorf("%s has counted nothing", n.name)
					}
					if n := len(n.log.find("WARN")); lie.counted && n == 0 || n > 20 {
						t.Errorf("%d warnings in the log, want some and not many", n)
					}
				}
				t.Logf("refused: %v; log:\n%s", f.nodes[0].cluster.Stats().Refused, f.nodes[0].log.tail(6))
				f.nodes[1].write(split(500))
				f.awaitHas(5*time.Second, f.nodes[1], cart)
			})
		})
	}
}

func tellGarbage(_ *fleet, in *intruder) {
	random := rand.New(rand.NewPCG(1, 1))
	for i := range often(2000, 300) {
		b := make([]byte, i)
		for at := range b {
			b[at] = byte(random.Uint32())
		}
		in.tell(b)
	}
}

// tellNonsense sends what is protobuf and says nothing, or lies about who says it.
func tellNonsense(f *fleet, in *intruder) {
	for _, from := range []string{in.id, "", "nobody", f.nodes[0].id(), strings.Repeat("x", 70), "../etc", "\xff"} {
		for _, m := range []*clusterv1.Message{
			{},
			{Body: &clusterv1.Message_Changes{}},
			{Body: &clusterv1.Message_Notice{Notice: &clusterv1.Notice{Entries: []*clusterv1.Entry{nil, {}, {Name: &clusterv1.Name{Kind: "Nothing"}}}}}},
			{Body: &clusterv1.Message_Beat{Beat: &clusterv1.Beat{Wall: -1, Content: make([]byte, 900), Digests: map[string]uint64{"": 1}}}},
			{Body: &clusterv1.Message_Beat{Beat: &clusterv1.Beat{EchoSeq: 1 << 60, EchoWall: -1 << 62, EchoReceived: 1 << 62, Stale: true}}},
			{Body: &clusterv1.Message_Compare{Compare: &clusterv1.Compare{Kinds: []*clusterv1.KindSums{{Kind: "GRPCRoute", Buckets: make([]uint64, 7)}}}}},
			{Body: &clusterv1.Message_Inventory{Inventory: &clusterv1.Inventory{Kind: "GRPCRoute", Buckets: []uint32{999}}}},
			{Body: &clusterv1.Message_Ask{Ask: &clusterv1.Ask{Names: []*clusterv1.Name{nil, {Kind: "\x00"}}}}},
			{Body: &clusterv1.Message_Renewed{Renewed: &clusterv1.Renewed{Names: []*clusterv1.Name{nil, {}}}}},
			{Body: &clusterv1.Message_KeyRequest{KeyRequest: &clusterv1.KeyRequest{Verb: 99, Key: "?"}}},
		} {
			if !strings.Contains(from, "\xff") {
				in.say(from, m)
			}
		}
	}
}

func tellNoObjects(f *fleet, in *intruder) {
	good := f.rowOf(additional("evil"), store.ID{Kind: store.BackendKind, Namespace: "default", Name: "evil"}, time.Now(), nil)
	for _, m := range []*clusterv1.Message{
		changes("Backend", "evil", 1, nil),
		changes("Backend", "evil", 1, []byte("x")),
		changes("Backend", "another", 1, good),
		changes("", "evil", 1, good),
		changes("Backend", "../../evil", 1, good),
		changes("Backend", "evil", 1, good[:len(good)/2]),
		changes("Backend", "evil", 1, append(slices.Clone(good), good...)),
		changes("Backend", "evil", 1, bytes.ReplaceAll(good, []byte("192.0.2.3:50051"), []byte("192.0.2.3:99999"))),
		changes("Backend", "evil", 1, bytes.ReplaceAll(good, []byte("endpoints"), []byte("endpoinsz"))),
	} {
		in.say(in.id, m)
	}
}

func tellInvalid(f *fleet, in *intruder) {
	spoilt := func(spoil func(o *store.Object)) {
		f.t.Helper()
		before := f.nodes[0].store.Snapshot().Seq()
		in.say(in.id, changes(store.GRPCRouteKind, "evil", 1,
			f.rowOf(strings.Replace(shop, "name: cart", "name: evil", 1), store.ID{Kind: store.GRPCRouteKind, Namespace: "default", Name: "evil"}, time.Now(), spoil)))
		pass(50 * time.Millisecond)
		if f.nodes[0].store.Snapshot().Seq() != before {
			f.t.Error("it was taken in")
		}
	}
	spoilt(func(o *store.Object) { o.Vector = nil })
	spoilt(func(o *store.Object) { o.Vector = store.Vector{"x": o.Revision} })
	spoilt(func(o *store.Object) { o.Revision.Node = strings.Repeat("n", 65) })
	spoilt(func(o *store.Object) { o.Revision = store.Revision{} })
	spoilt(func(o *store.Object) { o.Author.Actor = strings.Repeat("a", 5000) })
	spoilt(func(o *store.Object) { o.State.Splits = []store.RuleSplit{{Rule: "all", Sides: []store.Side{{}, {}}}} })
	spoilt(func(o *store.Object) {
		for i := range 5000 {
			o.State.Splits = append(o.State.Splits, store.RuleSplit{Rule: fmt.Sprint(i), Shares: []store.Share{{Backend: "shop", Weight: 1}}})
		}
	})
	spoilt(func(o *store.Object) { o.State.Drains = make([]store.Drain, 5000) })
	vector := store.Vector{}
	spoilt(func(o *store.Object) {
		vector[o.Revision.Node] = o.Revision
		for i := range 2000 {
			vector[fmt.Sprint("n", i)] = store.Revision{Wall: 1, Node: fmt.Sprint("n", i)}
		}
		o.Vector = vector
	})
}

func tellFuture(f *fleet, in *intruder) {
	for _, ahead := range []time.Duration{61 * time.Second, time.Hour, 100 * 365 * 24 * time.Hour} {
		in.say(in.id, changes(store.GRPCRouteKind, "cart", 1, f.rowOf(shop, cart, time.Now().Add(ahead), nil)))
	}
	in.say(in.id, changes(store.GRPCRouteKind, "cart", 1, f.rowOf(shop, cart, time.Now(), func(o *store.Object) {
		o.Revision.Wall = 1<<63 - 1
		o.Vector = store.Vector{o.Revision.Node: o.Revision}
	})))
}

func tellHuge(_ *fleet, in *intruder) {
	in.say(in.id, changes("Backend", "evil", 1, make([]byte, 19<<20)))
	if everything {
		in.say(in.id, changes("Backend", "evil", 99, make([]byte, 19<<20)))
	}
	many := &clusterv1.Changes{}
	for i := range 3000 {
		many.Objects = append(many.Objects, &clusterv1.Object{Kind: "Backend", Namespace: "default", Name: fmt.Sprint("evil", i), Row: make([]byte, 1000)})
	}
	in.say(in.id, &clusterv1.Message{Body: &clusterv1.Message_Changes{Changes: many}})
	entries := make([]*clusterv1.Entry, often(100_000, 21_000))
	for i := range entries {
		entries[i] = &clusterv1.Entry{Name: &clusterv1.Name{Kind: "Backend", Namespace: "default", Name: fmt.Sprint(i)}}
	}
	in.say(in.id, &clusterv1.Message{Body: &clusterv1.Message_Notice{Notice: &clusterv1.Notice{Entries: entries}}})
	in.say(in.id, &clusterv1.Message{Body: &clusterv1.Message_Inventory{Inventory: &clusterv1.Inventory{Kind: "Backend", Entries: entries}}})
}

// tellAnswers answers what nobody has asked.
func tellAnswers(f *fleet, in *intruder) {
	in.say(in.id, &clusterv1.Message{Body: &clusterv1.Message_Confirmed{Confirmed: &clusterv1.Confirmed{Id: 77}}})
	in.say(in.id, &clusterv1.Message{Body: &clusterv1.Message_KeyResponse{KeyResponse: &clusterv1.KeyResponse{Id: 77, Keys: make([]string, 10_000)}}})
	in.say(in.id, &clusterv1.Message{Body: &clusterv1.Message_Inventory{Inventory: &clusterv1.Inventory{Kind: "GRPCRoute", All: true, Last: true}}})
	in.say(f.nodes[1].id(), &clusterv1.Message{Body: &clusterv1.Message_Inventory{Inventory: &clusterv1.Inventory{Kind: "Backend", All: true, Last: true}}})
	in.say(in.id, &clusterv1.Message{Body: &clusterv1.Message_Confirm{Confirm: &clusterv1.Confirm{Id: 1, Within: 1 << 31}}})
}

// What was said once and is said again changes nothing: what was deleted since stays so.
func TestClusterForgetsReplays(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, f *fleet) {
		stop := f.net.record()
		f.nodes[0].apply(shop)
		f.nodes[0].apply(additional("gone"))
		f.awaitEqual(10 * time.Second)
		for i := range 20 {
			f.nodes[i%3].write(split(uint32(i + 1)))
			pass(300 * time.Millisecond)
		}
		f.nodes[1].write(store.Op{ID: store.ID{Kind: store.BackendKind, Namespace: "default", Name: "gone"}, Delete: true})
		pass(5 * time.Second)
		packets := stop()
		f.awaitEqual(10 * time.Second)
		digest, seq := f.nodes[0].store.Snapshot().Digest(), f.nodes[0].store.Snapshot().Seq()
		pass(time.Minute)
		for range 3 {
			for _, p := range packets {
				f.net.replay(p)
			}
			pass(time.Second)
		}
		pass(5 * time.Second)
		for _, n := range f.nodes {
			if n.store.Snapshot().Digest() != digest || n.store.Snapshot().Seq() != f.nodes[0].store.Snapshot().Seq() && n == f.nodes[0] {
				t.Errorf("%s has another state after %d packets came again", n.name, len(packets))
			}
			if got := n.cluster.Alive(); got != 3 {
				t.Errorf("%s sees %d alive after that", n.name, got)
			}
		}
		if got := f.nodes[0].store.Snapshot().Seq(); got != seq {
			t.Errorf("replays made changes %d to %d", seq+1, got)
		}
		t.Logf("%d packets, three times", len(packets))
	})
}

// A peer that says more than can be heard costs what the limits allow and no more.
func TestClusterBoundsAFlood(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, f *fleet) {
		f.nodes[0].apply(shop)
		f.awaitEqual(10 * time.Second)
		digest := f.nodes[0].store.Snapshot().Digest()
		in := f.newIntruder("intruder")
		defer in.list.Shutdown()
		beat, err := proto.Marshal(&clusterv1.Message{Version: 1, From: in.id, Life: "a", Body: &clusterv1.Message_Beat{Beat: &clusterv1.Beat{Seq: 1, Wall: time.Now().UnixMicro()}}})
		if err != nil {
			t.Fatal(err)
		}
		large := make([]byte, 900<<10)
		before := heapInUse()
		var most uint64
		for i := range often(20_000, 2000) {
			for _, m := range in.list.Members() {
				if m.Name != in.id {
					_ = in.list.SendBestEffort(m, beat) // refused is as good
				}
			}
			if i%400 == 0 {
				in.tell(large)
				most = max(most, heapInUse())
			}
			if i%100 == 0 {
				pass(time.Millisecond)
			}
		}
		if grown := int64(most) - int64(before); grown > 3*80<<20 {
			t.Errorf("three nodes grew by %d MiB, want 80 MiB each at most", grown>>20)
		}
		pass(5 * time.Second)
		for _, n := range f.nodes {
			if n.store.Snapshot().Digest() != digest {
				t.Errorf("%s has another state after a flood", n.name)
			}
		}
		f.nodes[1].write(split(500))
		took := f.awaitHas(5*time.Second, f.nodes[1], cart)
		t.Logf("grew by %d MiB; a change then took %v; refused %v, dropped %v", (int64(most)-int64(before))>>20, took, f.nodes[0].cluster.Stats().Refused, f.nodes[0].cluster.Stats().Dropped)
	})
}

// A member that fills the inbox of a node while that is held up by its disk takes nobody
// else's place: what others ask is answered when the node goes on.
func TestClusterHearsOthersDuringAFlood(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, f *fleet) {
		f.nodes[0].apply(shop)
		f.awaitEqual(10 * time.Second)
		in := f.newIntruder("intruder")
		defer in.list.Shutdown()
		in.only = f.nodes[0].id()
		pass(2 * time.Second)
		const stall = time.Second
		if err := f.nodes[0].cluster.loop.post(t.Context(), func(context.Context, *exchange) { pass(stall) }); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		flood := changes("Backend", "evil", 1, []byte("x"))
		flood.Version, flood.From = 1, in.id
		message, err := proto.Marshal(flood)
		if err != nil {
			t.Fatal(err)
		}
		for i := range maxInbox + maxInbox/inboxShares {
			for _, m := range in.list.Members() {
				if m.Name == in.only {
					_ = in.list.SendBestEffort(m, message) // refused is as good
				}
			}
			if i%100 == 0 {
				pass(time.Millisecond)
			}
		}
		waiting, stop := context.WithTimeout(t.Context(), confirmAgain-100*time.Millisecond)
		defer stop()
		f.nodes[1].write(split(500))
		o, _ := f.nodes[1].store.Snapshot().Get(cart)
		came := f.nodes[1].cluster.Confirm(waiting, []store.Change{{ID: cart, After: o}})
		if dropped := f.nodes[0].cluster.Stats().Dropped; dropped[droppedShare] == 0 || dropped[droppedFull] > 0 {
			t.Errorf("dropped %v, want some of one sender", dropped)
		}
		if len(came.Confirmed) != 2 || len(came.Unconfirmed) != 1 || came.Unconfirmed[0].Member.ID != in.id {
			t.Errorf("confirmed %d, not %+v; want all but the flooder", len(came.Confirmed), came.Unconfirmed)
		}
		if has := f.nodes[0].store.Snapshot().Digest(); has != f.nodes[1].store.Snapshot().Digest() {
			t.Errorf("after %v the change is not there", time.Since(begin))
		}
	})
}

// heapInUse is what the process has in use.
func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// What a later version of the program has written goes from node to node though none of
// them understands it, and through a restart.
func TestClusterCarriesWhatIsOfALaterVersion(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, f *fleet) {
		f.nodes[0].apply(shop)
		f.awaitEqual(10 * time.Second)
		digest := f.nodes[0].store.Snapshot().Digest()
		in := f.newIntruder("intruder")
		defer in.list.Shutdown()
		in.only = f.nodes[0].id()
		id := store.ID{Kind: store.BackendKind, Namespace: "default", Name: "newer"}
		row := f.rowOf(additional("newer"), id, time.Now(), nil)
		in.say(in.id, changes("Backend", "newer", 2, bytes.ReplaceAll(row, []byte("endpoints"), []byte("endpoinsz"))))
		in.say(in.id, changes("Novelty", "newer", 2, row))
		carries := func(n *fleetNode) bool { return n.cluster.Stats().Carried == 2 }
		took := f.await(20*time.Second, "two objects carried", f.nodes, carries)
		t.Logf("carried by all after %v", took)
		in.list.Shutdown()
		f.nodes[1].end()
		f.nodes[1].start()
		f.await(20*time.Second, "two objects carried after a restart", f.nodes, carries)
		for _, n := range f.nodes {
			if n.store.Snapshot().Digest() != digest {
				t.Errorf("%s has another state", n.name)
			}
			if !strings.Contains(strings.Join(n.cluster.Problems(), " "), "newer") {
				t.Errorf("%s does not say that it carries what it does not understand: %q", n.name, n.cluster.Problems())
			}
		}
	})
}
