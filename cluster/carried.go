package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

// carriedRecords are the rows of what is carried: "kind/namespace/name".
const carriedRecords = "cluster.carried"

const (
	// maxCarried and maxCarriedBytes bound what is kept for nodes of a newer version.
	maxCarried      = 1000
	maxCarriedBytes = 16 << 20
	// carriedPace is how often what is carried is looked through.
	carriedPace = time.Minute
	// overriddenFor is how long it is a problem that a change here has won over what is
	// not understood here, and maxOverridden bounds how many are told of.
	overriddenFor = 24 * time.Hour
	maxOverridden = 100
)

// carriage is what belongs to all that is carried.
type carriage struct {
	next       time.Time              // when it is looked through, by the steady clock
	again      bool                   // something is understood and could not be taken yet
	overridden map[store.ID]time.Time // what was won over by what did not know it, and when
}

// carried is a version that a newer version of this program wrote. It is not in force
// here, but it is kept and passed on, and tried again when this program has been
// replaced.
type carried struct {
	Level uint32 `json:"level"`
	Sum   uint64 `json:"sum"`
	Row   []byte `json:"row"`
}

func carriedKey(id store.ID) string { return id.Kind + "/" + id.Namespace + "/" + id.Name }

// carriedVersion is what the inventory says of what is carried.
func carriedVersion(id store.ID, c *carried, wall time.Time) (*version, error) {
	revision, seen, deleted, changed, err := store.PeekForeign(c.Row)
	if err != nil {
		return nil, err
	}
	if revision.IsZero() || !isNode(revision.Node) || !seen.Seen(revision) {
		return nil, fmt.Errorf("revision %s is not part of its own past", revision)
	}
	v := &version{id: id, revision: revision, vector: seen, sum: c.Sum, carried: c}
	if deleted {
		v.buried = store.Buried(v.revision, changed)
		v.faded = v.fades(wall)
	}
	return v, nil
}

// loadCarried reads what is carried, and takes into the store what is understood by now.
func (e *exchange) loadCarried(ctx context.Context) {
	var outdone []string
	err := e.store.Records(carriedRecords).Scan("", func(key string, value []byte) bool {
		kind, rest, _ := strings.Cut(key, "/")
		namespace, name, _ := strings.Cut(rest, "/")
		id := store.ID{Kind: kind, Namespace: namespace, Name: name}
		c := &carried{}
		if json.Unmarshal(value, c) != nil {
			outdone = append(outdone, key)
			return true
		}
		v, err := carriedVersion(id, c, e.wall())
		if err != nil || !carriedWins(e.have.versions[id], v) {
			outdone = append(outdone, key)
			return true
		}
		e.carrying[id] = c
		e.have.put(v)
		e.witness(v)
		return true
	})
	if err != nil {
		e.log.Warn("objects of a newer version not read", "error", err)
	}
	e.forgetRows(outdone)
	e.takeUnderstood(ctx)
}

// takeUnderstood takes into the store what is carried and understood by now. What the
// store refuses is carried on while that may change: when the clock has come so far, or by
// a version that allows more.
func (e *exchange) takeUnderstood(ctx context.Context) {
	e.carriage.again = false
	var understood []*store.Object
	for id, c := range e.carrying {
		if o, err := store.DecodeForeign(id, c.Row); err == nil {
			understood = append(understood, o)
		}
	}
	if len(understood) == 0 {
		return
	}
	slices.SortFunc(understood, func(a, b *store.Object) int { return a.ID.Compare(b.ID) })
	result, err := e.store.Merge(ctx, understood)
	if err != nil {
		e.carriage.again = true
		e.log.Warn("objects of a newer version not taken, after this one has become newer; tried again", "objects", len(understood), "error", err)
		return
	}
	kept := map[store.ID]bool{}
	for _, r := range result.Refused {
		ahead := errors.Is(r.Err, store.ErrClockAhead)
		kept[r.ID] = ahead || e.carrying[r.ID].Level > store.Vocabulary
		e.carriage.again = e.carriage.again || ahead
		e.log.Warn("object of a newer version refused, after this one has become newer", "object", r.ID, "carried_on", kept[r.ID], "error", r.Err)
	}
	for _, o := range understood {
		if !kept[o.ID] {
			e.dropCarried(o.ID)
		}
	}
	e.follow()
}

// tickCarried tries again what could not be taken, and forgets tombstones when their time
// is over, as the store does.
func (e *exchange) tickCarried(ctx context.Context) {
	now := e.now()
	if now.Before(e.carriage.next) {
		return
	}
	e.carriage.next = now.Add(carriedPace)
	if e.carriage.again {
		e.takeUnderstood(ctx)
	}
	e.ageCarried(ctx)
	for id, at := range e.carriage.overridden {
		if now.Sub(at) >= overriddenFor {
			delete(e.carriage.overridden, id)
		}
	}
}

// ageCarried forgets the tombstones that are older than tombstones become. What they have
// deleted goes with them, if the store has it still: nobody else has.
func (e *exchange) ageCarried(ctx context.Context) {
	var aged, left []store.ID
	for id := range e.carrying {
		v := e.have.versions[id]
		if v.buried.IsZero() || e.wall().Sub(v.buried) < store.TombstoneLifeOf(id.Kind) {
			continue
		}
		aged = append(aged, id)
		if o := e.snapshot.Find(id); o != nil && !o.Deleted {
			left = append(left, id)
		}
	}
	if len(left) > 0 {
		author := store.Author{Actor: "cluster", Via: "peer"}
		if _, err := e.store.Forget(ctx, left, author, "deleted by a newer version of Sluice"); err != nil {
			e.log.Warn("objects that a newer version has deleted not dropped", "error", err)
			return
		}
	}
	for _, id := range aged {
		e.dropCarried(id)
	}
	e.follow()
}

// witness has what is changed here from now on be later than what is carried: else it
// would hold here alone.
func (e *exchange) witness(v *version) {
	if err := e.store.Witness(v.revision); err != nil {
		e.log.Warn("object of a newer version is of a clock that is ahead: changes here do not win over it", "object", v.id, "error", err)
	}
}

// override notes that what was carried has lost to a change that did not know it.
func (e *exchange) override(id store.ID) {
	if e.carriage.overridden == nil || len(e.carriage.overridden) >= maxOverridden {
		e.carriage.overridden = map[store.ID]time.Time{}
	}
	e.carriage.overridden[id] = e.now()
}

// carry keeps a version that this program does not understand, if it holds against what
// is here. It tells whether it is new.
func (e *exchange) carry(from string, id store.ID, o *clusterv1.Object) bool {
	c := &carried{Level: o.Level, Sum: o.Sum, Row: o.Row}
	theirs, err := carriedVersion(id, c, e.wall())
	if err != nil {
		e.refuseObject(from, id, o.Sum, badObject, err)
		return false
	}
	if ahead := time.UnixMilli(theirs.revision.Wall).Sub(e.wall()); ahead > maxAhead {
		e.refuseObject(from, id, o.Sum, clockAhead, fmt.Errorf("%s: %w", theirs.revision, store.ErrClockAhead))
		e.ahead[theirs.revision.Node] = e.now()
		return false
	}
	if !carriedWins(e.have.versions[id], theirs) || theirs.faded {
		return false
	}
	if err := e.roomFor(id, c); err != nil {
		e.refuseObject(from, id, o.Sum, badObject, err)
		return false
	}
	e.carrying[id] = c
	e.carriedDue[id] = c
	e.have.put(theirs)
	e.witness(theirs)
	return true
}

// carriedWins tells whether a version that is not understood holds against mine. It is
// what store.Merge does, as far as it goes by revisions alone.
func carriedWins(mine, theirs *version) bool {
	switch {
	case mine == nil:
		return true
	case mine.revision == theirs.revision && mine.carried == nil:
		return mine.sum != theirs.sum // it says more than what is understood here
	case mine.revision == theirs.revision:
		more, less := covers(theirs.vector, mine.vector), covers(mine.vector, theirs.vector)
		return more && !less || more == less && theirs.sum > mine.sum
	case mine.knows(theirs.revision):
		return false
	case theirs.knows(mine.revision):
		return true
	}
	return theirs.revision.Compare(mine.revision) > 0
}

func covers(v, other store.Vector) bool {
	for _, r := range other {
		if !v.Seen(r) {
			return false
		}
	}
	return true
}

// roomFor refuses what is beyond the bounds.
func (e *exchange) roomFor(id store.ID, c *carried) error {
	bytes, n := len(c.Row), 1
	for other, o := range e.carrying {
		if other != id {
			bytes, n = bytes+len(o.Row), n+1
		}
	}
	if n > maxCarried || bytes > maxCarriedBytes {
		return fmt.Errorf("%d objects of a newer version, %d bytes; limits %d and %d", n, bytes, maxCarried, maxCarriedBytes)
	}
	return nil
}

// keepCarried writes down what has come, all of one message at once. What cannot be
// written is let go of: the comparison brings it again.
func (e *exchange) keepCarried() {
	if len(e.carriedDue) == 0 {
		return
	}
	err := e.store.Records(carriedRecords).Update(func(tx store.RecordsTx) error {
		for id, c := range e.carriedDue {
			if e.carrying[id] != c { // outdone meanwhile
				continue
			}
			value, err := json.Marshal(c)
			if err == nil {
				err = tx.Put(carriedKey(id), value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		e.log.Warn("objects of a newer version not kept", "objects", len(e.carriedDue), "error", err)
		for id := range e.carriedDue {
			e.uncarry(id)
		}
	}
	clear(e.carriedDue)
}

// dropCarried forgets a version that was carried.
func (e *exchange) dropCarried(id store.ID) {
	if e.carrying[id] == nil {
		return
	}
	e.uncarry(id)
	e.forgetRows([]string{carriedKey(id)})
}

// forgetRows deletes rows of what was carried.
func (e *exchange) forgetRows(keys []string) {
	if len(keys) == 0 {
		return
	}
	err := e.store.Records(carriedRecords).Update(func(tx store.RecordsTx) error {
		for _, key := range keys {
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		e.log.Warn("objects of a newer version not forgotten", "objects", keys, "error", err)
	}
}

// uncarry has what is in the store take the place of what was carried.
func (e *exchange) uncarry(id store.ID) {
	delete(e.carrying, id)
	e.have.drop(id)
	if o := e.snapshot.Find(id); o != nil {
		e.have.put(e.versionOf(o))
	}
}

// carriedProblems are sentences about what is carried, and about what has lost to a
// change that could not know what it says.
func (e *exchange) carriedProblems() (list []string) {
	if len(e.carrying) > 0 {
		list = append(list, namesOf(e.carrying)+": written by a newer version of Sluice, kept and passed on, and not in force here until this node is upgraded")
	}
	if len(e.carriage.overridden) > 0 {
		list = append(list, namesOf(e.carriage.overridden)+": what a newer version of Sluice wrote was overridden by a change made where it is not understood; sluice conflicts on an upgraded node shows what is lost")
	}
	return list
}

// namesOf are the first few of some objects.
func namesOf[V any](ids map[store.ID]V) string {
	names := make([]string, 0, len(ids))
	for id := range ids {
		names = append(names, id.String())
	}
	slices.Sort(names)
	if n := len(names) - 3; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), n)
	}
	return strings.Join(names, ", ")
}
