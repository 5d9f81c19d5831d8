package cluster

import (
	"context"
	"slices"
	"time"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

const (
	// compareEvery is between comparisons that this node begins, with whomever;
	// comparePause between those with one peer, doubled each time that they did not end
	// the difference up to maxComparePause.
	compareEvery    = 500 * time.Millisecond
	comparePause    = 2 * time.Second
	maxComparePause = time.Minute
	// answerEvery is between inventories that one peer is given.
	answerEvery = 500 * time.Millisecond
	// askAtOnce is how many versions are asked for in one message, and maxAnswer how many
	// bytes of them are given in answer: the rest is asked for again.
	askAtOnce = 500
	maxAnswer = 4 << 20
	// pullPatience is how long an answer may take.
	pullPatience = 5 * time.Second
	// maxWanted bounds what is still to be asked for.
	maxWanted = 110_000
	// maxOffer is how many versions a peer is told of that it has not asked for in a
	// comparison; when there are more it is told to compare itself, at its own pace.
	maxOffer = 64
	// maxOfferBytes is up to which size it gets them and not their names.
	maxOfferBytes = 64 << 10
)

// comparisons is the pace of comparing.
type comparisons struct {
	next  time.Time
	begun uint64
}

// compare begins to find out where a peer differs, unless it is too early for that.
func (e *exchange) compare(p *peer) {
	now := e.now()
	if e.staleness.stale || p.stale {
		return
	}
	if now.Before(p.nextCompare) || e.pulls[p.id] != nil {
		e.recheckAfter(p, max(p.nextCompare.Sub(now), settle))
		return
	}
	if now.Before(e.compares.next) {
		e.recheckAfter(p, compareEvery+e.jitter(compareEvery))
		return
	}
	e.compares.begun++
	e.compares.next = now.Add(compareEvery)
	p.pause = min(max(2*p.pause, comparePause), maxComparePause)
	p.nextCompare = now.Add(p.pause)
	e.recheckAfter(p, p.pause+e.jitter(settle))
	c := &clusterv1.Compare{}
	for _, kind := range differing(e.have.digests(), p.digests) {
		sums := e.have.sums(kind)
		c.Kinds = append(c.Kinds, &clusterv1.KindSums{Kind: kind, Buckets: sums[:]})
	}
	e.send(p.id, &clusterv1.Message{Body: &clusterv1.Message_Compare{Compare: c}})
}

// answerCompare tells a peer what is in the groups that differ.
func (e *exchange) answerCompare(p *peer, c *clusterv1.Compare) {
	if now := e.now(); e.staleness.stale && !c.All || now.Before(p.nextAnswer) {
		return
	} else {
		p.nextAnswer = now.Add(answerEvery)
	}
	e.follow()
	if c.All {
		e.tellAll(p.id, c.Id)
		return
	}
	for _, k := range c.Kinds {
		mine := e.have.sums(k.Kind)
		var buckets []int
		for bucket, sum := range k.Buckets {
			if mine[bucket] != sum {
				buckets = append(buckets, bucket)
			}
		}
		for _, i := range e.inventories(k.Kind, buckets) {
			e.send(p.id, inventoryMessage(i))
		}
	}
}

// tellAll gives a peer the inventory of everything, in pieces of which each says how many
// there are: each has a connection of its own, and is lost or late by itself.
func (e *exchange) tellAll(to string, id uint64) {
	every := make([]int, numBuckets)
	for i := range every {
		every[i] = i
	}
	var pieces []*clusterv1.Inventory
	for _, kind := range e.have.kindNames() {
		pieces = append(pieces, e.inventories(kind, every)...)
	}
	pieces = append(pieces, &clusterv1.Inventory{Last: true})
	for n, i := range pieces {
		i.All, i.Id, i.Piece, i.Pieces = true, id, uint32(n+1), uint32(len(pieces))
		e.send(to, inventoryMessage(i))
	}
}

// inventories say what is in some groups of a kind, each group whole in one of them.
func (e *exchange) inventories(kind string, buckets []int) (pieces []*clusterv1.Inventory) {
	i := &clusterv1.Inventory{Kind: kind}
	for _, bucket := range buckets {
		i.Buckets = append(i.Buckets, uint32(bucket))
		for _, v := range e.have.bucket(kind, bucket) {
			i.Entries = append(i.Entries, wireEntry(v))
		}
		if len(i.Entries) >= entriesInChunk {
			pieces = append(pieces, i)
			i = &clusterv1.Inventory{Kind: kind}
		}
	}
	if len(i.Buckets) > 0 {
		pieces = append(pieces, i)
	}
	return pieces
}

func inventoryMessage(i *clusterv1.Inventory) *clusterv1.Message {
	return &clusterv1.Message{Body: &clusterv1.Message_Inventory{Inventory: i}}
}

// takeInventory asks for what this node lacks, and tells of what the peer lacks.
func (e *exchange) takeInventory(ctx context.Context, p *peer, i *clusterv1.Inventory) {
	if i.All {
		e.takeAll(ctx, p, i)
		return
	}
	e.merge(ctx) // what came in the same batch is not asked for again
	e.want(p.id, i.Entries)
	listed := make(map[store.ID]bool, len(i.Entries))
	var better []*version
	for _, entry := range i.Entries {
		id := nameID(entry.Name)
		listed[id] = true
		if v := e.have.versions[id]; v != nil && v.sum != entry.Sum && v.revision != revisionOf(entry.Revision) && v.knows(revisionOf(entry.Revision)) {
			better = append(better, v)
		}
	}
	for _, bucket := range i.Buckets {
		for _, v := range e.have.bucket(i.Kind, int(bucket)) {
			if !listed[v.id] {
				better = append(better, v)
			}
		}
	}
	if len(better) > maxOffer {
		e.beat(p, false)
		return
	}
	e.offer(p.id, better)
}

// offer tells a peer of versions that it seems to lack.
func (e *exchange) offer(to string, versions []*version) {
	if len(versions) == 0 || e.staleness.stale {
		return
	}
	objects, total := e.wireObjects(versions), 0
	for _, o := range objects {
		if o != nil {
			total += objectSize(o)
		}
	}
	if total > maxOfferBytes {
		e.notice(to, versions)
		return
	}
	e.sendObjects(to, objects, false)
}

// pull is what is being fetched from a peer.
type pull struct {
	wanted []*clusterv1.Entry
	open   map[store.ID]*clusterv1.Entry // asked for, and not come
	until  time.Time
}

// asked is a version that was asked for.
type asked struct {
	sum  uint64
	peer string
}

// lacks tells whether a version is worth asking for.
func (e *exchange) lacks(entry *clusterv1.Entry) bool {
	id := nameID(entry.Name)
	v := e.have.versions[id]
	r := revisionOf(entry.Revision)
	switch {
	case v != nil && v.sum == entry.Sum:
		return false
	case v != nil && v.revision != r && v.knows(r):
		return false
	case e.unwanted.has(unwantedKey{id, entry.Sum}, e.now()):
		return false
	}
	return true
}

// want fetches from a peer what this node lacks.
func (e *exchange) want(from string, entries []*clusterv1.Entry) {
	p := e.pulls[from]
	for _, entry := range entries {
		id := nameID(entry.Name)
		if a, ok := e.asked[id]; ok && a.sum == entry.Sum || !e.lacks(entry) {
			continue
		}
		if p == nil {
			p = &pull{open: map[store.ID]*clusterv1.Entry{}}
			e.pulls[from] = p
		}
		if len(p.wanted) < maxWanted {
			p.wanted = append(p.wanted, entry)
		}
	}
	if p != nil && len(p.open) == 0 {
		e.ask(from, p)
	}
}

// ask sends for the next versions; when there are none the pull is at its end.
func (e *exchange) ask(from string, p *pull) {
	var names []*clusterv1.Name
	for len(p.wanted) > 0 && len(names) < askAtOnce {
		entry := p.wanted[0]
		p.wanted = p.wanted[1:]
		id := nameID(entry.Name)
		if p.open[id] != nil || !e.lacks(entry) {
			continue
		}
		p.open[id] = entry
		e.asked[id] = asked{entry.Sum, from}
		names = append(names, entry.Name)
	}
	if len(names) == 0 {
		delete(e.pulls, from)
		return
	}
	p.until = e.now().Add(pullPatience)
	e.send(from, &clusterv1.Message{Body: &clusterv1.Message_Ask{Ask: &clusterv1.Ask{Names: names}}})
}

// answerAsk gives a peer the versions that it asks for, as many as one answer has.
func (e *exchange) answerAsk(to string, names []*clusterv1.Name) {
	last := &clusterv1.Changes{Answer: true, Last: true}
	var objects []*clusterv1.Object
	total := 0
	for _, name := range names {
		v := e.have.versions[nameID(name)]
		if v == nil || e.staleness.stale {
			last.Gone = append(last.Gone, name)
			continue
		}
		if total >= maxAnswer {
			last.Later = append(last.Later, name)
			continue
		}
		o, err := wireObject(v)
		if err != nil {
			last.Gone = append(last.Gone, name)
			continue
		}
		total += objectSize(o)
		objects = append(objects, o)
	}
	e.sendObjects(to, objects, true)
	e.send(to, changesMessage(last))
}

// arrived goes on with a pull after an answer.
func (e *exchange) arrived(ctx context.Context, from string, c *clusterv1.Changes) {
	p := e.pulls[from]
	if p == nil {
		return
	}
	p.until = e.now().Add(pullPatience)
	for _, o := range c.Objects {
		e.closeAsk(from, p, objectID(o))
	}
	for _, name := range c.Gone {
		e.closeAsk(from, p, nameID(name))
	}
	for _, name := range c.Later {
		id := nameID(name)
		if entry := p.open[id]; entry != nil {
			p.wanted = append(p.wanted, entry)
			e.closeAsk(from, p, id)
		}
	}
	if !c.Last {
		return
	}
	e.merge(ctx)
	for id := range p.open { // nothing was said of them
		e.closeAsk(from, p, id)
	}
	e.ask(from, p)
}

func (e *exchange) closeAsk(from string, p *pull, id store.ID) {
	delete(p.open, id)
	if e.asked[id].peer == from {
		delete(e.asked, id)
	}
}

// dropPull gives up what was asked of a peer.
func (e *exchange) dropPull(from string) {
	p := e.pulls[from]
	if p == nil {
		return
	}
	for id := range p.open {
		e.closeAsk(from, p, id)
	}
	delete(e.pulls, from)
}

// tickPulls gives up those that nobody answers: the next comparison begins anew.
func (e *exchange) tickPulls() {
	for _, id := range slices.Clone(e.live) {
		if p := e.pulls[id]; p != nil && !e.now().Before(p.until) {
			e.dropPull(id)
		}
	}
}
