package cluster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

const (
	// maxBatch and maxBatchBytes bound what is merged in one transaction.
	maxBatch      = 1000
	maxBatchBytes = 8 << 20
	// maxAhead is how far a revision may be in the future, as the store has it.
	maxAhead = 60 * time.Second
	// unwantedFor is how long a version that was refused is not asked for again, and
	// maxUnwanted bounds how many of them are remembered.
	unwantedFor = time.Minute
	maxUnwanted = 10_000
	// maxSeen is how many rows are known again without being read.
	maxSeen = 4096
)

var (
	errNotLive     = errors.New("no live member")
	errUnknownBody = errors.New("of a newer version of Sluice")
)

// intake is what came and is to be merged in one go.
type intake struct {
	objects []*store.Object
	bytes   int
	from    map[store.ID]arrival
}

// arrival is how a version came.
type arrival struct {
	peer   string
	sum    uint64
	answer bool // to an Ask: the peer wants to know what became of it
}

// takeChanges takes versions in, to be merged when the batch is full or the messages
// are at an end.
func (e *exchange) takeChanges(ctx context.Context, from string, stream bool, c *clusterv1.Changes) {
	var carriedNew []*version
	rows := e.unseen(c)
	for i, d := range decodeRows(rows) {
		if e.takeObject(ctx, from, rows[i], d, c.Answer) {
			carriedNew = append(carriedNew, e.have.versions[objectID(rows[i])])
		}
		e.seen.add(rowKey(rows[i]))
	}
	e.keepCarried()
	e.relay(slices.DeleteFunc(carriedNew, func(v *version) bool { return e.carrying[v.id] != v.carried }))
	if c.Answer || stream {
		e.arrived(ctx, from, c)
	}
}

// unseen are the rows of a message that are worth reading.
func (e *exchange) unseen(c *clusterv1.Changes) (rows []*clusterv1.Object) {
	for _, o := range c.Objects {
		if v := e.have.versions[objectID(o)]; v != nil && v.sum == o.Sum {
			continue
		}
		if c.Answer || !e.seen.has(rowKey(o)) {
			rows = append(rows, o)
		}
	}
	return rows
}

// takeObject queues one version for the store, or keeps it when it is of a newer
// vocabulary; it tells whether that was new.
func (e *exchange) takeObject(ctx context.Context, from string, o *clusterv1.Object, d decoded, answer bool) (carriedNew bool) {
	id := objectID(o)
	object, err := d.object, d.err
	if err != nil {
		if o.Level > store.Vocabulary {
			return e.carry(from, id, o)
		}
		e.refuseObject(from, id, o.Sum, badObject, err)
		return false
	}
	if _, twice := e.intake.from[id]; twice || len(e.intake.objects) == maxBatch || e.intake.bytes+len(o.Row) > maxBatchBytes {
		e.merge(ctx)
	}
	if e.intake.from == nil {
		e.intake.from = map[store.ID]arrival{}
	}
	e.intake.objects = append(e.intake.objects, object)
	e.intake.bytes += len(o.Row)
	e.intake.from[id] = arrival{from, sumOf(object), answer}
	return false
}

// merge gives the store what was taken in, and tells the peers what is new.
func (e *exchange) merge(ctx context.Context) {
	batch := e.intake
	e.intake = intake{}
	if len(batch.objects) == 0 {
		return
	}
	e.follow() // what was changed here before is told as such
	result, err := e.store.Merge(ctx, batch.objects)
	if err != nil { // such as a full disk: the comparison brings them again
		if ctx.Err() == nil {
			e.log.Warn("changes of peers not taken", "objects", len(batch.objects), "error", err)
		}
		e.seen = recent{}
		return
	}
	for _, r := range result.Refused {
		a := batch.from[r.ID]
		e.refuseMerge(a, r)
		delete(batch.from, r.ID)
	}
	e.merged += uint64(len(result.Changes))
	for _, c := range result.Changes {
		if c.Action == store.ActionConflict {
			e.conflicts++
			e.conflictLog.add(c, e.now())
		}
	}
	e.followMerge(batch.from)
}

// refuseMerge counts what the store refused. That somebody else is to say something first is
// no fault of the peer.
func (e *exchange) refuseMerge(a arrival, r store.Refusal) {
	if errors.Is(r.Err, store.ErrNotNow) {
		e.unwanted.add(unwantedKey{r.ID, a.sum}, e.now())
		e.confirms.refused(e, a.peer, r.ID, r.Err)
		return
	}
	if !errors.Is(r.Err, store.ErrClockAhead) {
		e.refuseObject(a.peer, r.ID, a.sum, badObject, r.Err)
		return
	}
	e.refuseObject(a.peer, r.ID, a.sum, clockAhead, r.Err)
	e.ahead[a.peer] = e.now()
	if len(e.ahead) > maxPeers {
		clear(e.ahead)
	}
}

// refuseObject counts an object that is refused, and does not want it for a while.
func (e *exchange) refuseObject(from string, id store.ID, sum uint64, why reason, err error) {
	e.unwanted.add(unwantedKey{id, sum}, e.now())
	e.refuse(from, &refusalError{why, err})
	e.confirms.refused(e, from, id, err)
}

func (e *exchange) refuse(from string, err error) {
	why := malformed
	var refusal *refusalError
	if errors.As(err, &refusal) {
		why, err = refusal.reason, refusal.err
	}
	text := err.Error()
	e.refused.add(why, from, strings.ToValidUTF8(text[:min(len(text), maxRefusalLine)], "?"))
}

// follow takes note of what has changed in the store, and announces it: it was changed
// here.
func (e *exchange) follow() { e.announce(e.changes()) }

// followMerge is follow after a merge. What is as a peer had it is passed on; what has
// become something else is news, to that peer in particular.
func (e *exchange) followMerge(from map[store.ID]arrival) {
	var made, passed []*version
	for _, v := range e.changes() {
		if a, came := from[v.id]; came && a.sum == v.sum {
			passed = append(passed, v)
		} else {
			made = append(made, v)
		}
	}
	e.announce(made)
	e.relay(passed)
	better := map[string][]*version{}
	for id, a := range from {
		if v := e.have.versions[id]; a.answer && v != nil && v.sum != a.sum {
			better[a.peer] = append(better[a.peer], v)
		}
	}
	for _, peer := range e.live {
		e.offer(peer, better[peer])
	}
}

// changes brings the inventory up to the store's snapshot, and returns what is new in it.
func (e *exchange) changes() []*version {
	snap := e.store.Snapshot()
	if snap == e.snapshot {
		return nil
	}
	before := e.snapshot
	e.snapshot = snap
	e.beats.noteOwn(before.Digest(), snap.Digest(), e.now())
	e.beats.news(e.now())
	var fresh []*version
	changedObjects(before, snap, func(o *store.Object) {
		if v := e.versionOf(o); e.outdoes(v) {
			if old := e.have.versions[v.id]; old == nil || old.sum != v.sum {
				fresh = append(fresh, v)
			}
			e.have.put(v)
		}
	}, func(id store.ID) {
		if e.carrying[id] == nil {
			e.have.drop(id)
		}
	})
	if len(fresh) > 0 {
		e.confirms.progress(e)
	}
	return fresh
}

// outdoes tells whether a version of the store is the one to be told of, and forgets the
// one that was carried if so.
func (e *exchange) outdoes(v *version) bool {
	c := e.have.versions[v.id]
	if c == nil || c.carried == nil {
		return true
	}
	if carriedWins(v, c) {
		return false
	}
	if !v.knows(c.revision) {
		e.override(v.id)
	}
	delete(e.carrying, v.id)
	e.forgetRows([]string{carriedKey(v.id)})
	return true
}

// noteOwn remembers what this node obeyed until now.
func (b *beats) noteOwn(before, after string, now time.Time) {
	if before == after {
		return
	}
	b.mine = append(b.mine, ownDigest{before, now})
	if len(b.mine) > 16 {
		b.mine = slices.Delete(b.mine, 0, 1)
	}
}

// news has some peers told before their turn that this node has something else now, when
// that has reached them by itself.
func (b *beats) news(now time.Time) {
	if !b.tell.IsZero() {
		return
	}
	b.tell = now.Add(newsAfter)
	if again := b.told.Add(beatEvery); b.tell.Before(again) {
		b.tell = again
	}
}

// recent remembers the latest rows. The zero value has none.
type recent struct {
	keys map[uint64]bool
	ring []uint64
	at   int
}

func rowKey(o *clusterv1.Object) uint64 {
	h := xxhash.New()
	for _, part := range [...]string{o.Kind, "/", o.Namespace, "/", o.Name, "/"} {
		_, _ = h.WriteString(part) // never fails
	}
	_, _ = h.Write(o.Row)
	return h.Sum64()
}

func (r *recent) has(key uint64) bool { return r.keys[key] }

func (r *recent) add(key uint64) {
	if r.keys == nil {
		r.keys = map[uint64]bool{}
	}
	if r.keys[key] {
		return
	}
	r.keys[key] = true
	if len(r.ring) < maxSeen {
		r.ring = append(r.ring, key)
		return
	}
	delete(r.keys, r.ring[r.at])
	r.ring[r.at] = key
	r.at = (r.at + 1) % maxSeen
}

// unwanted are versions that were refused, and when.
type unwanted map[unwantedKey]time.Time

type unwantedKey struct {
	id  store.ID
	sum uint64
}

func (u unwanted) add(key unwantedKey, now time.Time) {
	if len(u) >= maxUnwanted {
		clear(u)
	}
	u[key] = now
}

func (u unwanted) has(key unwantedKey, now time.Time) bool {
	at, ok := u[key]
	if ok && now.Sub(at) >= unwantedFor {
		delete(u, key)
		return false
	}
	return ok
}
