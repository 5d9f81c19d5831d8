package cluster

import (
	"encoding/hex"
	"slices"
	"time"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

const (
	// beatEvery is between two rounds of beats; in each as many peers are asked as it
	// takes to ask all within beatTurn.
	beatEvery = time.Second
	beatTurn  = 20
	// newsPeers is how many peers are told before their turn that this node has something
	// else by now, newsAfter it has.
	newsPeers = 3
	newsAfter = 500 * time.Millisecond
	// streamTurn is each how many beats to a peer one goes over TCP.
	streamTurn = 4
	// settle is how long digests may differ before they are compared: what has just
	// changed is on its way.
	settle = time.Second
	// reachFor is how long something that was heard says that a way is open; reachTries
	// is after how many tries without an answer it is not.
	reachFor   = time.Minute
	reachTries = 2
	// clockSamples is of how many measurements the offset of a clock is the median.
	clockSamples = 5
	// maxPeers bounds of how many nodes something is known, dead ones included.
	maxPeers = 1000
)

// lane is one of the two ways to a peer, as it was used.
type lane struct {
	heard  time.Time // when something of his came, by the steady clock; zero means never
	tried  int       // beats to him that nothing came after, by this way
	hisAge time.Duration
	hisYes bool      // he has heard us by this way, hisAge before he said so
	told   time.Time // when he said so, or that he has not
	his    int       // his tries
}

// peer is what this node knows of another.
type peer struct {
	id       string
	udp, tcp lane
	visits   int // beats that were sent

	lastSeq     uint64
	samples     []clockSample // the latest last
	digests     map[string]uint64
	content     string
	clock       store.Revision
	stale       bool
	step        store.Revision // it knew that, when it last found us to have the same; zero means never
	since       time.Time      // what it lacks of all that there was since then was deleted; zero: it cannot say
	beaten      time.Time      // when the latest beat came, by the steady clock; zero means none
	heardAt     time.Time      // when the latest message came, by the wall clock
	differs     time.Time      // since when its digests are others, by the steady clock
	drift       time.Time      // since when it obeys something else, by the wall clock
	recheck     time.Time      // when it is to be asked again before its turn
	nextCompare time.Time
	pause       time.Duration // between comparisons
	nextAnswer  time.Time     // when it may compare with us again
	hints       int           // taken of it in this second
	double      double
}

type clockSample struct{ offset, rtt time.Duration }

// met begins anew with a node that lives again.
func (p *peer) met() {
	p.udp, p.tcp = lane{}, lane{}
	p.differs, p.recheck, p.nextCompare, p.pause = time.Time{}, time.Time{}, time.Time{}, 0
	p.beaten, p.stale, p.step, p.since = time.Time{}, false, store.Revision{}, time.Time{}
}

func (p *peer) lane(stream bool) *lane {
	if stream {
		return &p.tcp
	}
	return &p.udp
}

// heard notes that something came.
func (p *peer) heard(stream bool, now, wall time.Time) {
	w := p.lane(stream)
	w.heard, w.tried = now, 0
	p.heardAt = wall
}

// offset is how far its clock is ahead, the median of the latest samples.
func (p *peer) offset() (offset, rtt time.Duration, known bool) {
	if len(p.samples) == 0 {
		return 0, 0, false
	}
	sorted := slices.SortedFunc(slices.Values(p.samples), func(a, b clockSample) int { return int(a.offset - b.offset) })
	return sorted[len(sorted)/2].offset, p.samples[len(p.samples)-1].rtt, true
}

// in is whether his messages reach this node by a way.
func (w *lane) in(now time.Time) Reach {
	switch {
	case !w.heard.IsZero() && now.Sub(w.heard) < reachFor:
		return ReachYes
	case w.his >= reachTries:
		return ReachNo
	}
	return ReachUnknown
}

// out is whether this node's messages reach him, by what he says.
func (w *lane) out(now time.Time) Reach {
	switch {
	case w.told.IsZero() || now.Sub(w.told) > reachFor:
		return ReachUnknown
	case w.hisYes && w.hisAge < reachFor:
		return ReachYes
	case w.tried >= reachTries:
		return ReachNo
	}
	return ReachUnknown
}

// told takes what he says of a way.
func (w *lane) tell(age uint64, tried uint32, now time.Time) {
	w.hisYes, w.hisAge = age > 0, time.Duration(age)*time.Millisecond
	w.told, w.his = now, int(tried)
}

// age is what he is told of a way.
func (w *lane) age(now time.Time) uint64 {
	if w.heard.IsZero() {
		return 0
	}
	return uint64(now.Sub(w.heard).Milliseconds()) + 1
}

// beats is whose turn it is.
type beats struct {
	next  time.Time
	turn  []string // peers that are still to be asked in this round of all
	seq   uint64
	mine  []ownDigest // what this node obeyed lately, the latest last
	fades time.Time
	tell  time.Time // when some are told that this node has something else; zero: nothing is new
	told  time.Time // when some were told last
}

// ownDigest is a digest of this node's and until when it was that.
type ownDigest struct {
	content string
	until   time.Time
}

// tickBeats asks those whose turn it is.
func (e *exchange) tickBeats() {
	now := e.now()
	for _, id := range e.live {
		if p := e.peers[id]; !p.recheck.IsZero() && !now.Before(p.recheck) {
			p.recheck = time.Time{}
			e.beat(p, false)
		}
	}
	if b := &e.beats; !b.tell.IsZero() && !now.Before(b.tell) {
		b.tell, b.told = time.Time{}, now
		for _, id := range e.some(e.live, newsPeers) {
			e.beat(e.peers[id], false)
		}
	}
	if now.Before(e.beats.next) {
		return
	}
	e.beats.next = now.Add(beatEvery)
	for range (len(e.live) + beatTurn - 1) / beatTurn {
		if p := e.nextTurn(); p != nil {
			p.visits++
			e.beat(p, p.visits%streamTurn == 0)
		}
	}
	if !now.Before(e.beats.fades) {
		e.have.fade(e.wall())
		e.beats.fades = now.Add(10 * time.Second)
	}
}

// nextTurn is the next live peer in an order that is by chance in each round.
func (e *exchange) nextTurn() *peer {
	for range 2 {
		for len(e.beats.turn) > 0 {
			id := e.beats.turn[0]
			e.beats.turn = e.beats.turn[1:]
			if e.liveSet[id] {
				return e.peers[id]
			}
		}
		turn := slices.Clone(e.live)
		e.rand.Shuffle(len(turn), func(i, j int) { turn[i], turn[j] = turn[j], turn[i] })
		e.beats.turn = turn
	}
	return nil
}

// beat tells a peer how this node is, and wants to be told the same.
func (e *exchange) beat(p *peer, stream bool) {
	e.beats.seq++
	p.lane(stream).tried++
	p.lastSeq = e.beats.seq
	b := e.ownBeat(p)
	b.Seq = e.beats.seq
	e.sendBeat(p, stream, b)
}

func (e *exchange) sendBeat(p *peer, stream bool, b *clusterv1.Beat) {
	m := &clusterv1.Message{Body: &clusterv1.Message_Beat{Beat: b}}
	if stream {
		e.send(p.id, m)
		return
	}
	e.sendShort(p.id, m)
}

func (e *exchange) ownBeat(p *peer) *clusterv1.Beat {
	now := e.now()
	b := &clusterv1.Beat{
		Wall: e.wall().UnixMicro(), Digests: e.have.digests(), Stale: e.staleness.stale,
		UdpHeard: p.udp.age(now), TcpHeard: p.tcp.age(now),
		UdpTried: uint32(p.udp.tried), TcpTried: uint32(p.tcp.tried),
	}
	b.Content, _ = hex.DecodeString(e.snapshot.Digest())
	if clock := e.store.Clock(); !clock.IsZero() {
		b.Clock = wireRevision(clock)
	}
	if with := e.steps.with[p.id]; !with.Clock.IsZero() {
		b.InStep = wireRevision(with.Clock)
	}
	if e.steps.met && !e.steps.since.IsZero() {
		b.CompleteSince = e.steps.since.UnixMilli()
	}
	if seen, ok := e.have.highest[p.id]; ok {
		b.Seen = wireRevision(seen)
	}
	return b
}

// takeBeat notes how a peer is, answers, and finds out whether it differs.
func (e *exchange) takeBeat(p *peer, stream bool, b *clusterv1.Beat, at time.Time) {
	now := e.now()
	p.beaten = now
	e.heardOf()
	p.step, p.since = revisionOf(b.InStep), time.Time{}
	if b.CompleteSince > 0 {
		p.since = time.UnixMilli(b.CompleteSince)
	}
	p.digests, p.content, p.clock, p.stale = b.Digests, hex.EncodeToString(b.Content), revisionOf(b.Clock), b.Stale
	p.udp.tell(b.UdpHeard, b.UdpTried, now)
	p.tcp.tell(b.TcpHeard, b.TcpTried, now)
	if b.EchoSeq != 0 && b.EchoSeq == p.lastSeq {
		p.measure(b, at)
	}
	if b.Seq != 0 {
		answer := e.ownBeat(p)
		answer.EchoSeq, answer.EchoWall, answer.EchoReceived = b.Seq, b.Wall, at.UnixMicro()
		e.sendBeat(p, stream, answer)
	}
	e.follow()
	e.judgeDrift(p)
	e.judgeDigests(p)
}

// measure takes a sample of its clock from the answer to a beat.
func (p *peer) measure(b *clusterv1.Beat, at time.Time) {
	out, back := b.EchoReceived-b.EchoWall, b.Wall-at.UnixMicro()
	rtt := at.UnixMicro() - b.EchoWall - (b.Wall - b.EchoReceived)
	if rtt < 0 || rtt > time.Minute.Microseconds() { // a clock was set meanwhile
		return
	}
	p.samples = append(p.samples, clockSample{
		offset: time.Duration((out+back)/2) * time.Microsecond, rtt: time.Duration(rtt) * time.Microsecond,
	})
	if len(p.samples) > clockSamples {
		p.samples = p.samples[1:]
	}
}

// judgeDrift notes since when a peer obeys something else than this node does now, or
// did a moment ago.
func (e *exchange) judgeDrift(p *peer) {
	agrees := p.content == e.snapshot.Digest()
	for _, own := range e.beats.mine {
		agrees = agrees || own.content == p.content && e.now().Sub(own.until) < settle
	}
	switch {
	case agrees:
		p.drift = time.Time{}
	case p.drift.IsZero():
		p.drift = e.wall()
		e.recheckAfter(p, settle)
	}
}

// judgeDigests compares with a peer of which the digests have been others for a while.
func (e *exchange) judgeDigests(p *peer) {
	now := e.now()
	if len(differing(e.have.digests(), p.digests)) == 0 {
		p.differs, p.pause = time.Time{}, 0
		e.inStep(p)
		return
	}
	if p.differs.IsZero() {
		p.differs = now
		e.recheckAfter(p, settle+e.jitter(settle/2))
		return
	}
	if now.Sub(p.differs) < settle {
		return
	}
	e.compare(p)
}

// silentAfter is how long nothing comes of a peer before that is worth a word. In two rounds
// of beats every peer has been asked, and has asked this node.
func silentAfter(peers int) time.Duration {
	rounds := time.Duration(0)
	if perRound := (peers + beatTurn - 1) / beatTurn; perRound > 0 {
		rounds = 2 * time.Duration((peers+perRound-1)/perRound) * beatEvery
	}
	return max(5*time.Second, rounds+beatEvery)
}

// recheckAfter has a peer asked again before its turn, if not sooner.
func (e *exchange) recheckAfter(p *peer, pause time.Duration) {
	if at := e.now().Add(pause); p.recheck.IsZero() || at.Before(p.recheck) {
		p.recheck = at
	}
}

func (e *exchange) jitter(most time.Duration) time.Duration {
	return time.Duration(e.rand.Int64N(int64(most) + 1))
}

// facts is what is known of a peer, or of this node.
func (e *exchange) facts(id string) peerFacts {
	if id == e.self {
		return peerFacts{Digest: e.snapshot.Digest(), Revision: e.store.Clock(), Heard: e.wall(), ClockKnown: true}
	}
	p := e.peers[id]
	if p == nil {
		return peerFacts{}
	}
	now := e.now()
	f := peerFacts{
		Digest: p.content, Revision: p.clock, Drift: !p.drift.IsZero(), DriftSince: p.drift, Heard: p.heardAt,
		UDPOut: p.udp.out(now), UDPIn: p.udp.in(now), TCPOut: p.tcp.out(now), TCPIn: p.tcp.in(now),
	}
	f.Clock, f.RTT, f.ClockKnown = p.offset()
	return f
}
