package cluster

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

const (
	// directPeers is to how many peers a change is sent at once; gossip has the rest.
	directPeers = 16
	// maxQueued bounds the broadcasts that wait for a packet: at three packets each 200 ms
	// and several times each, that many take a minute. What is left out is found by
	// comparing.
	maxQueued = 512
	// retransmitMult is memberlist's for a LAN: 4 times the digits of the number of nodes.
	retransmitMult = 4
)

// shared is the store as the exchange sees it.
type shared interface {
	Node() string
	Snapshot() *store.Snapshot
	Clock() store.Revision
	Witness(r store.Revision) error
	Merge(ctx context.Context, objects []*store.Object) (*store.MergeResult, error)
	Forgot(r store.Revision) bool
	SetBack(ctx context.Context, forgotten store.Revision) (bool, error)
	Forget(ctx context.Context, ids []store.ID, by store.Author, reason string) (*store.Result, error)
	Records(name string) *store.Records
	LastChange(id store.ID) uint64
}

// exchange is what a node tells its peers and what it takes from them. It has no
// goroutine, no clock and no network of its own: whoever owns it, the loop or a
// simulation, calls its methods one at a time.
type exchange struct {
	// Fixed at construction.
	self    string
	store   shared
	parts   Parts
	courier courier
	now     func() time.Time // never jumps: for pauses and deadlines
	wall    func() time.Time // the clock that revisions are made of
	rand    *rand.Rand
	log     *slog.Logger
	spawn   spawner
	keys    keyHolder // nil: this node has none

	queue    *memberlist.TransmitLimitedQueue // may be asked by other goroutines
	refused  *refusals
	snapshot *store.Snapshot // that the inventory is of
	have     *inventory
	peers    map[string]*peer // all that were ever live
	live     []string         // of the others, in order
	liveSet  map[string]bool

	intake     intake
	seen       recent             // rows that gossip has brought already
	unwanted   unwanted           // versions that were refused
	pulls      map[string]*pull   // by peer
	asked      map[store.ID]asked // by whatever pull
	carrying   map[store.ID]*carried
	carriedDue map[store.ID]*carried // of carrying: not written down yet
	carriage   carriage
	beats      beats
	compares   comparisons
	confirms   confirms
	keyAsks    keyAsks
	notes      notes // renewals and hints on their way
	staleness  staleness
	steps      steps
	unknowns   unknowns
	ahead      map[string]time.Time // nodes of which the clock made revisions that were refused, and when last

	conflictLog       conflictLog
	merged, conflicts uint64
}

// spawner runs work that takes a while beside the exchange, and calls then, with nothing
// else of the exchange running, when it has ended. It tells false when there is no room.
type spawner func(work func(ctx context.Context) (then func(context.Context))) bool

// setting is what an exchange is made of.
type setting struct {
	store     shared
	parts     Parts
	courier   courier
	now, wall func() time.Time
	rand      *rand.Rand
	log       *slog.Logger
	refused   *refusals
	spawn     spawner
}

func newExchange(s setting) *exchange {
	e := &exchange{
		self: s.store.Node(), store: s.store, parts: s.parts, courier: s.courier,
		now: s.now, wall: s.wall, rand: s.rand, log: s.log, spawn: s.spawn,
		refused: s.refused, have: newInventory(), peers: map[string]*peer{},
		liveSet: map[string]bool{}, pulls: map[string]*pull{}, asked: map[store.ID]asked{},
		carrying: map[store.ID]*carried{}, carriedDue: map[store.ID]*carried{}, ahead: map[string]time.Time{}, conflictLog: conflictLog{log: s.log},
		unwanted: unwanted{}, confirms: newConfirms(), keyAsks: newKeyAsks(), notes: newNotes(), steps: newSteps(), unknowns: newUnknowns(),
	}
	return e
}

// start reads what was kept, and what the store has.
func (e *exchange) start(ctx context.Context) {
	e.rememberSteps()
	e.snapshot = e.store.Snapshot()
	for _, o := range append(e.snapshot.All(""), e.snapshot.Tombstones()...) {
		e.have.put(e.versionOf(o))
	}
	e.loadCarried(ctx)
	e.have.fade(e.wall())
	e.setLive(ctx)
}

// setLive takes note of who lives, and greets those that are new.
func (e *exchange) setLive(ctx context.Context) {
	before := e.liveSet
	e.live = slices.DeleteFunc(slices.Clone(e.courier.Live()), func(id string) bool { return id == e.self })
	e.liveSet = make(map[string]bool, len(e.live))
	var fresh []string
	for _, id := range e.live {
		e.liveSet[id] = true
		if !before[id] {
			fresh = append(fresh, id)
			e.peerOf(id).met()
			if n := e.unknowns.came(id); n > 0 {
				e.log.Debug("a gateway was heard before it was known to live", "node", id, "messages", n)
			}
		}
	}
	e.judgeStaleness()
	for _, id := range e.some(fresh, directPeers) {
		e.beat(e.peerOf(id), false)
		e.beat(e.peerOf(id), true)
	}
	for id := range before {
		if !e.liveSet[id] {
			e.lost(id)
		}
	}
}

// lost forgets what was under way with a peer.
func (e *exchange) lost(id string) {
	e.unknowns.left(id, e.now())
	e.dropPull(id)
	e.confirms.lost(id)
	e.keyAsks.lost(id)
}

// peerOf is what is known of a node.
func (e *exchange) peerOf(id string) *peer {
	p := e.peers[id]
	if p == nil {
		if len(e.peers) >= maxPeers {
			e.forgetPeers()
		}
		p = &peer{id: id}
		e.peers[id] = p
	}
	return p
}

// forgetPeers forgets those that do not live.
func (e *exchange) forgetPeers() {
	for id := range e.peers {
		if !e.liveSet[id] {
			delete(e.peers, id)
		}
	}
}

// some are up to n of list, by chance when there are more.
func (e *exchange) some(list []string, n int) []string {
	if len(list) <= n {
		return list
	}
	chosen := slices.Clone(list)
	e.rand.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	return chosen[:n]
}

// incoming is a message as it came.
type incoming struct {
	bytes []byte
	at    time.Time // by the wall clock
}

// receive handles messages, and merges all that they bring in few transactions.
func (e *exchange) receive(ctx context.Context, messages []incoming) {
	for _, m := range messages {
		e.receiveOne(ctx, m)
	}
	e.merge(ctx)
}

func (e *exchange) receiveOne(ctx context.Context, in incoming) {
	m, err := decodeMessage(in.bytes)
	switch {
	case err != nil:
		e.refuse("", err)
		return
	case m.From == e.self: // gossip came around
		return
	case !e.liveSet[m.From]:
		e.refuseUnknown(m.From)
		return
	}
	p := e.peerOf(m.From)
	if known := e.courier.Life(m.From); m.Life != known {
		e.refuseStranger(p, m.Life, known)
		return
	}
	p.heard(m.Stream, e.now(), e.wall())
	e.dispatch(ctx, p, m, in.at)
}

// dispatch is the table of messages.
func (e *exchange) dispatch(ctx context.Context, p *peer, m *clusterv1.Message, at time.Time) {
	switch body := m.Body.(type) {
	case *clusterv1.Message_Changes:
		e.takeChanges(ctx, p.id, m.Stream, body.Changes)
	case *clusterv1.Message_Notice:
		e.want(p.id, body.Notice.Entries)
	case *clusterv1.Message_Beat:
		e.recollect(ctx, p, revisionOf(body.Beat.Seen))
		e.takeBeat(p, m.Stream, body.Beat, at)
	case *clusterv1.Message_Compare:
		e.answerCompare(p, body.Compare)
	case *clusterv1.Message_Inventory:
		e.takeInventory(ctx, p, body.Inventory)
	case *clusterv1.Message_Ask:
		e.answerAsk(p.id, body.Ask.Names)
	case *clusterv1.Message_Confirm:
		e.takeConfirm(p.id, body.Confirm)
	case *clusterv1.Message_Confirmed:
		e.confirms.answered(p.id, body.Confirmed)
	case *clusterv1.Message_Renewed:
		e.takeRenewed(body.Renewed)
	case *clusterv1.Message_Hints:
		e.takeHints(p, body.Hints)
	case *clusterv1.Message_KeyRequest:
		e.answerKeys(p.id, body.KeyRequest)
	case *clusterv1.Message_KeyResponse:
		e.keyAsks.answered(p.id, body.KeyResponse)
	default:
		e.refuse(p.id, &refusalError{newerMessage, errUnknownBody})
	}
}

// tick does what is due; it is called ten times a second or so.
func (e *exchange) tick(ctx context.Context) {
	e.follow()
	e.tickBeats()
	e.tickPulls()
	e.tickConfirms()
	e.tickNotes()
	e.tickCarried(ctx)
	e.tickStale(ctx)
	e.tickSteps()
	e.tickUnknown()
	e.conflictLog.tick(e.now())
}

// end writes down what would be lost.
func (e *exchange) end() {
	if !e.steps.heard.IsZero() {
		e.keepSteps()
	}
}

// send makes and sends a message over TCP.
func (e *exchange) send(to string, m *clusterv1.Message) {
	m.From, m.Life, m.Stream = e.self, e.courier.Life(e.self), true
	e.courier.Send(to, encodeMessage(m))
}

// packet makes a message for UDP, nil when it does not fit.
func (e *exchange) packet(m *clusterv1.Message) []byte {
	m.From, m.Life, m.Stream = e.self, e.courier.Life(e.self), false
	if b := encodeMessage(m); len(b) <= e.courier.PacketRoom() {
		return b
	}
	return nil
}

// sendShort sends by UDP what fits, else over TCP.
func (e *exchange) sendShort(to string, m *clusterv1.Message) {
	if b := e.packet(m); b != nil {
		e.courier.SendPacket(to, b)
		return
	}
	e.send(to, m)
}
