package cluster

import (
	"context"
	"encoding/json"
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
)

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
	var understood []*store.Object
	err := e.store.Records(carriedRecords).Scan("", func(key string, value []byte) bool {
		kind, rest, _ := strings.Cut(key, "/")
		namespace, name, _ := strings.Cut(rest, "/")
		id := store.ID{Kind: kind, Namespace: namespace, Name: name}
		c := &carried{}
		if json.Unmarshal(value, c) != nil {
			return true
		}
		if o, err := store.DecodeForeign(id, c.Row); err == nil {
			understood = append(understood, o)
		}
		if v, err := carriedVersion(id, c, e.wall()); err == nil && carriedWins(e.have.versions[id], v) {
			e.carrying[id] = c
			e.have.put(v)
		}
		return true
	})
	if err != nil {
		e.log.Warn("objects of a newer version not read", "error", err)
	}
	if len(understood) == 0 {
		return
	}
	if _, err := e.store.Merge(ctx, understood); err != nil {
		e.log.Warn("objects of a newer version not taken, after this one has become newer", "objects", len(understood), "error", err)
		return
	}
	for _, o := range understood {
		e.dropCarried(o.ID)
	}
	e.follow()
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
	if err := e.store.Records(carriedRecords).Delete(carriedKey(id)); err != nil {
		e.log.Warn("object of a newer version not forgotten", "object", id, "error", err)
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

// carriedProblem is a sentence about what is carried, empty when nothing is.
func (e *exchange) carriedProblem() string {
	if len(e.carrying) == 0 {
		return ""
	}
	names := make([]string, 0, len(e.carrying))
	for id := range e.carrying {
		names = append(names, id.String())
	}
	slices.Sort(names)
	more := ""
	if n := len(names) - 3; n > 0 {
		names, more = names[:3], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%s%s: written by a newer version of Sluice, kept and passed on, and not in force here until this node is upgraded",
		strings.Join(names, ", "), more)
}
