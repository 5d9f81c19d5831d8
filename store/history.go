package store

import (
	"fmt"
	"slices"
	"time"
)

// Bounds of one call of History.
const (
	defaultHistory = 100
	maxHistory     = 1000
)

// History lists changes, the latest first: those of one object, or of all when id is
// zero, with a sequence below before, or all when that is 0. A limit of 0 means 100;
// there are at most 1000, and fewer, but one, when they take more than 16 MiB. 50,000 changes are kept, or 128 MiB of them if that is
// less; of one object at most the last 200, and those of the last 5,000 of all, but no
// more than 32 MiB of one object.
func (s *Store) History(id ID, before uint64, limit int) ([]Change, error) {
	if limit <= 0 {
		limit = defaultHistory
	}
	limit = min(limit, maxHistory)
	if !id.IsZero() {
		var err error
		if id, err = id.normal(); err != nil {
			return nil, Faults{{Message: err.Error()}}
		}
	}
	s.mu.RLock()
	seqs := s.timeline.fitting(s.timeline.before(id, before, limit), s.timeline.limits.page)
	s.mu.RUnlock()
	changes := make([]Change, 0, len(seqs))
	if err := s.read(seqs, func(c *Change) { changes = append(changes, *c) }); err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	return changes, nil
}

// Version is an object as it was at a revision, or the one before its current version
// when revision is empty. The error is a *NotFoundError when history does not have it.
func (s *Store) Version(id ID, revision string) (*Object, error) {
	for before := uint64(0); ; {
		changes, err := s.History(id, before, 10)
		if err != nil {
			return nil, err
		}
		if len(changes) == 0 {
			return nil, &NotFoundError{id}
		}
		for _, c := range changes {
			if o := c.version(revision); o != nil {
				return o, nil
			}
			before = c.Seq
		}
	}
}

// version is the object of that revision that the change has to do with, or what was
// before the change when revision is empty; nil when there is none.
func (c *Change) version(revision string) *Object {
	switch {
	case revision == "" && c.Before == nil:
		return &Object{ID: c.ID, Deleted: true}
	case revision == "":
		return c.Before
	}
	for _, o := range [...]*Object{c.After, c.Before, c.Lost} {
		if o != nil && o.Revision.String() == revision {
			return o
		}
	}
	return nil
}

// At is all objects as they were at a time, in the order of their IDs. The error
// wraps ErrCompacted when history does not reach back that far.
func (s *Store) At(t time.Time) ([]*Object, error) {
	for {
		s.mu.RLock()
		snap := s.Snapshot()
		seq, known := s.timeline.moment(t)
		first := s.timeline.firstAfter(seq)
		since := s.timeline.since()
		s.mu.RUnlock()
		switch {
		case known:
		case since.IsZero():
			return nil, fmt.Errorf("go back to %s: nothing has been changed yet: %w", t.UTC().Format(time.RFC3339), ErrCompacted)
		default:
			return nil, fmt.Errorf("go back to %s: history begins at %s: %w",
				t.UTC().Format(time.RFC3339), since.UTC().Format(time.RFC3339), ErrCompacted)
		}
		was := make([]*Object, 0, len(first))
		if err := s.read(first, func(c *Change) { was = append(was, c.version("")) }); err != nil {
			return nil, fmt.Errorf("go back to %s: %w", t.UTC().Format(time.RFC3339), err)
		}
		switch {
		case len(was) == len(first):
			return overlay(snap.All(""), was, (*Object).live), nil
		case s.Snapshot() == snap: // else some were dropped meanwhile
			return nil, fmt.Errorf("go back to %s: history lacks %d changes", t.UTC().Format(time.RFC3339), len(first)-len(was))
		}
	}
}

// OpsTo are the operations that make the objects those of another time. What files
// declare stays theirs, and only its state goes back; the warnings tell of it.
// Registrations stay as they are: which processes run is nobody's wish.
func (s *Snapshot) OpsTo(objects []*Object) (ops []Op, warnings []string) {
	wanted := make(map[ID]bool, len(objects))
	for _, to := range objects {
		if to.ID.Kind == RegistrationKind {
			continue
		}
		wanted[to.ID] = true
		now, ok := s.Get(to.ID)
		switch {
		case ok && now.manifest == to.manifest && now.State.equal(to.State):
		case ok && now.Owner.OfFile():
			if now.manifest != to.manifest {
				warnings = append(warnings, fmt.Sprintf("%s stays as it is: %s declares it", to.ID, now.Owner))
			}
			state := to.State
			ops = append(ops, Op{ID: to.ID, State: func(State, *Object) (State, error) { return state, nil }})
		default:
			ops = append(ops, Op{ID: to.ID, Exact: to})
		}
	}
	for _, now := range s.All("") {
		switch {
		case wanted[now.ID], now.ID.Kind == RegistrationKind:
		case now.Owner.OfFile():
			warnings = append(warnings, fmt.Sprintf("%s stays: %s declares it", now.ID, now.Owner))
		default:
			ops = append(ops, Op{ID: now.ID, Delete: true})
		}
	}
	slices.SortStableFunc(ops, func(a, b Op) int { return a.ID.Compare(b.ID) })
	return ops, warnings
}
