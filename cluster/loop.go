package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"sluice/store"
)

const (
	// maxHandled is how many messages are handled, and maxHandling for how long, before
	// the exchange looks at the rest: a beat is late by as much.
	maxHandled  = 256
	maxHandling = 50 * time.Millisecond
	// tickEvery is how often the exchange does what is due.
	tickEvery = 100 * time.Millisecond
	// maxWork bounds what runs beside the exchange: waits for the gateway, key files.
	maxWork = 80
	// maxRequests bounds what other goroutines have asked of the exchange.
	maxRequests = 256
)

// courier carries messages to peers. None of its methods blocks, and all of them may be
// called from any goroutine.
type courier interface {
	Live() []string                       // ids of the other live nodes, sorted
	Send(to string, message []byte)       // by TCP; a bounded queue for each peer, dropped beyond and counted
	SendPacket(to string, message []byte) // by UDP at once, best effort
	PacketRoom() int                      // the most bytes of a message that fits one packet
	Life(id string) string                // the life of a live node, or of this one, by which a copy of it is told from it
}

// keyVerb is what is done to the keys of a node.
type keyVerb int

const (
	keyList keyVerb = iota
	keyAdd
	keyUse
	keyRemove
)

// keyReply is what a node says to a change of its keys.
type keyReply struct {
	Keys    []string // fingerprints, the first is used to send
	Warning string
	Err     error
}

// keyHolder changes the keys of this node and tells which there are then. It may write a
// file, and is called by one goroutine at a time.
type keyHolder func(verb keyVerb, key string) keyReply

// peerFacts is what the exchange knows of a peer, or of this node itself.
type peerFacts struct {
	Digest     string
	Revision   store.Revision
	Drift      bool
	DriftSince time.Time
	Heard      time.Time
	ClockKnown bool
	Clock, RTT time.Duration

	UDPOut, UDPIn, TCPOut, TCPIn Reach
}

// loopStats are the counters of the exchange.
type loopStats struct {
	Refused           map[string]uint64
	Dropped           map[string]uint64
	Merged, Conflicts uint64
	Comparisons       uint64
	Carried           int
}

// loop is the one goroutine that tells peers what is new here and takes in what they tell.
// Its methods may be called from any goroutine, also before Run.
type loop struct {
	// Fixed at construction, but for the courier, its refusals and the keys, which are set
	// before Run.
	parts    Parts
	log      *slog.Logger
	courier  courier
	refusals *refusals
	keys     keyHolder // nil: this node has none

	queue    memberlist.TransmitLimitedQueue
	nodes    atomic.Int64 // live ones, this one included
	requests chan func(context.Context, *exchange)
	wake     chan struct{} // there is something in the inbox
	changed  chan struct{} // another set of peers lives
	keyTurn  sync.Mutex    // of whoever changes keys

	mu       sync.Mutex // guards the fields below
	inbox    inbox
	live     map[string]bool              // the other nodes, as far as the exchange knows
	renewals map[string]map[store.ID]bool // by steward, on their way to the exchange
	renewing int                          // in renewals
	hints    map[hintKey]bool
	view     view
}

// view is what the exchange has last said of itself.
type view struct {
	peers    map[string]peerFacts
	stats    loopStats
	problems []string
}

// newLoop starts nothing. The courier may be set later, before Run.
func newLoop(parts Parts, courier courier, log *slog.Logger) *loop {
	if parts.Now == nil {
		parts.Now = time.Now
	}
	l := &loop{
		parts: parts, log: log, courier: courier, refusals: newRefusals(parts.Now, log),
		requests: make(chan func(context.Context, *exchange), maxRequests),
		wake:     make(chan struct{}, 1), changed: make(chan struct{}, 1),
		inbox: newInbox(), renewals: map[string]map[store.ID]bool{}, hints: map[hintKey]bool{},
	}
	l.queue.RetransmitMult = retransmitMult
	l.queue.NumNodes = func() int { return int(l.nodes.Load()) }
	l.nodes.Store(1)
	return l
}

// Run exchanges until ctx is done; its goroutines have ended when it returns.
func (l *loop) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	e := l.exchange(ctx, &beside)
	e.start(ctx)
	l.noteLive(e)
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		snap := e.snapshot
		select {
		case <-ctx.Done():
			e.end()
			return nil
		case <-l.wake:
			l.handle(ctx, e)
		case <-l.changed:
			e.setLive(ctx)
			l.noteLive(e)
		case <-snap.Superseded():
			e.follow()
		case do := <-l.requests:
			do(ctx, e)
		case <-ticker.C:
			l.handOver(e)
			e.tick(ctx)
			l.publish(e)
		}
	}
}

// exchange makes the exchange that Run owns.
func (l *loop) exchange(ctx context.Context, beside *sync.WaitGroup) *exchange {
	e := newExchange(setting{
		store: l.parts.Store, parts: l.parts, courier: l.courier, now: time.Now, wall: l.parts.Now,
		rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), log: l.log, refused: l.refusals, spawn: l.spawner(ctx, beside),
	})
	e.queue = &l.queue
	if l.keys != nil {
		e.keys = l.ownKeys
	}
	return e
}

// spawner runs work in goroutines that Run waits for.
func (l *loop) spawner(ctx context.Context, beside *sync.WaitGroup) spawner {
	room := make(chan struct{}, maxWork)
	return func(work func(context.Context) func(context.Context)) bool {
		select {
		case room <- struct{}{}:
		default:
			return false
		}
		beside.Go(func() {
			defer func() { <-room }()
			then := work(ctx)
			_ = l.post(ctx, func(ctx context.Context, _ *exchange) { then(ctx) }) // or Run has ended
		})
		return true
	}
}

// ownKeys changes the keys of this node.
func (l *loop) ownKeys(verb keyVerb, key string) keyReply {
	l.keyTurn.Lock()
	defer l.keyTurn.Unlock()
	return l.keys(verb, key)
}

// post has the exchange do something.
func (l *loop) post(ctx context.Context, do func(context.Context, *exchange)) error {
	select {
	case l.requests <- do:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// noteLive notes who lives: each of them has a share of the inbox of its own.
func (l *loop) noteLive(e *exchange) {
	l.nodes.Store(int64(len(e.live) + 1))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live = e.liveSet // replaced as a whole
}

// handle gives the exchange what has come, a part at a time: what is urgent
// first, also when it comes in between, and one merge for the whole.
func (l *loop) handle(ctx context.Context, e *exchange) {
	begin := time.Now()
	for n := 0; n < maxHandled && time.Since(begin) < maxHandling; n++ {
		m, ok := l.next()
		if !ok {
			break
		}
		e.receiveOne(ctx, m)
	}
	e.merge(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.inbox.empty() {
		l.ring()
	}
}

// next is the message to be handled next.
func (l *loop) next() (m incoming, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inbox.take()
}

func (l *loop) ring() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// handOver gives the exchange what is gathered for it.
func (l *loop) handOver(e *exchange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for steward, ids := range l.renewals {
		for id := range ids {
			e.renew(steward, id)
		}
	}
	clear(l.renewals)
	l.renewing = 0
	for key, down := range l.hints {
		e.observe([]Hint{{Backend: key.backend, Address: key.address, Down: down}})
	}
	clear(l.hints)
}

// publish makes what the exchange knows visible to others.
func (l *loop) publish(e *exchange) {
	v := view{peers: make(map[string]peerFacts, len(e.peers)+1), stats: e.stats(), problems: e.problems()}
	for id := range e.peers {
		v.peers[id] = e.facts(id)
	}
	v.peers[e.self] = e.facts(e.self)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.view = v
}

// receive takes a message; the bytes stay the caller's. What finds no room in the inbox is
// dropped and counted. Who is no live member shares one part of it with all of these.
func (l *loop) receive(message []byte) {
	now := l.parts.Now()
	sender, to := addressee(message)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.live[sender] {
		sender = ""
	}
	if l.inbox.put(to, sender, message, now) {
		l.ring()
	}
}

// broadcasts are messages for the next packet of gossip.
func (l *loop) broadcasts(overhead, limit int) [][]byte {
	return l.queue.GetBroadcasts(overhead, limit)
}

// membersChanged tells that courier.Live has another answer now.
func (l *loop) membersChanged() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// observe tells the peers what this gateway has seen of endpoints.
func (l *loop) observe(hints []Hint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range hints {
		key := hintKey{h.Backend, h.Address}
		if _, known := l.hints[key]; known || len(l.hints) < maxHints {
			l.hints[key] = h.Down
		}
	}
}

// renew passes a renewal on to the steward.
func (l *loop) renew(steward string, id store.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.renewals[steward] == nil {
		l.renewals[steward] = map[store.ID]bool{}
	}
	if !l.renewals[steward][id] && l.renewing < maxRenewals {
		l.renewals[steward][id] = true
		l.renewing++
	}
}

// confirm waits until every peer that lives obeys the changes or ctx is done. Each peer
// that has lived meanwhile is in the answer, with why it has not said that it obeys.
func (l *loop) confirm(ctx context.Context, changes []store.Change) confirmation {
	within := maxConfirmFor
	if deadline, ok := ctx.Deadline(); ok {
		within = time.Until(deadline)
	}
	before := l.courier.Live()
	answers, err := await(ctx, l, func(e *exchange, done func(confirmation)) uint64 {
		return e.confirm(changes, within, done)
	}, (*exchange).giveUp)
	if err == nil {
		return answers
	}
	return forAll(append(before, l.courier.Live()...), fmt.Errorf("it was not asked: %w", err))
}

// askKeys does the same to the keys of all live nodes, this one first, until ctx is done.
// Each node that lives when it returns has an answer.
func (l *loop) askKeys(ctx context.Context, verb keyVerb, key string) map[string]keyReply {
	self := l.parts.Store.Node()
	own := keyReply{Err: errKeyless}
	if l.keys != nil {
		own = l.ownKeys(verb, key)
	}
	all := map[string]keyReply{self: own}
	if own.Err != nil {
		return all
	}
	before := l.courier.Live()
	answers, err := await(ctx, l, func(e *exchange, done func(map[string]keyReply)) uint64 {
		return e.askKeys(verb, key, done)
	}, (*exchange).giveUpKeys)
	if err != nil {
		answers = noKeysOf(before, fmt.Errorf("it was not asked: %w", err))
	}
	maps.Copy(all, answers)
	for _, id := range l.courier.Live() {
		if _, answered := all[id]; !answered {
			all[id] = keyReply{Err: errNotAsked}
		}
	}
	return all
}

// await asks the exchange something that it answers later, or that is given up when ctx
// is done. An error says that there was no answer of any kind.
func await[T any](ctx context.Context, l *loop, begin func(*exchange, func(T)) uint64, giveUp func(*exchange, uint64, error) T) (answer T, err error) {
	answers := make(chan T, 2) // of begin, and of giveUp
	var id uint64              // the exchange's
	err = l.post(ctx, func(_ context.Context, e *exchange) {
		id = begin(e, func(t T) { answers <- t })
	})
	if err != nil {
		return answer, err
	}
	select {
	case answer = <-answers:
		return answer, nil
	case <-ctx.Done():
	}
	ended, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	err = l.post(ended, func(_ context.Context, e *exchange) {
		if len(answers) == 0 {
			answers <- giveUp(e, id, context.Cause(ctx))
		}
	})
	if err != nil {
		return answer, err
	}
	select {
	case answer = <-answers:
		return answer, nil
	case <-ended.Done(): // Run has ended
		return answer, context.Cause(ctx)
	}
}

// peer is what is known of a live or dead node, of this one too.
func (l *loop) peer(id string) peerFacts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view.peers[id]
}

// stats are the counters so far.
func (l *loop) stats() loopStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.view.stats
	s.Dropped = maps.Clone(l.inbox.dropped)
	s.Refused = l.refusals.counted()
	return s
}

// problems are what an operator should know of the exchange, in sentences.
func (l *loop) problems() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view.problems
}
