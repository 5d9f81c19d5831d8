package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sluice/store/disk"
)

const (
	// TombstoneLife is how long a deletion is remembered, so that a peer that was
	// away for that long does not bring the object back.
	TombstoneLife = 24 * time.Hour
	// registrationTombstoneLife is that of registrations, of which there are many, and
	// which end by themselves when they come back by mistake.
	registrationTombstoneLife = time.Hour
	// maxRegistrationTombstones bounds them; the oldest go first.
	maxRegistrationTombstones = 10_000
	// sweepEvery is how often Run looks for tombstones to forget.
	sweepEvery = 10 * time.Minute
)

// TombstoneLifeOf is how long the deletion of an object of a kind is remembered.
func TombstoneLifeOf(kind string) time.Duration {
	if kind == RegistrationKind {
		return registrationTombstoneLife
	}
	return TombstoneLife
}

// Buried is since when the object is deleted. The clock of revisions tells it where that
// of the node which has deleted it was behind.
func (o *Object) Buried() time.Time {
	return Buried(o.Revision, o.Changed)
}

// Buried is since when something is deleted of which that is known.
func Buried(r Revision, changed time.Time) time.Time {
	if wall := time.UnixMilli(r.Wall).UTC(); wall.After(changed) {
		return wall
	}
	return changed
}

// fades tells whether a deletion is old enough to be forgotten.
func (o *Object) fades(now time.Time) bool {
	return now.Sub(o.Buried()) > TombstoneLifeOf(o.ID.Kind)
}

func (s *Store) sweepUntil(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.crowded:
		case <-ticker.C:
		}
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.opts.Log.Warn("tombstones not forgotten", "error", err)
		}
	}
}

// buriedRegistrations are the tombstones of registrations: they are next to each other.
func (s *Snapshot) buriedRegistrations() []*Object {
	first, _ := search(s.tombstones, ID{Kind: RegistrationKind})
	last, _ := search(s.tombstones, ID{Kind: RegistrationKind + "\x00"})
	return s.tombstones[first:last]
}

// crowds asks Run for a sweep when there are too many tombstones of registrations, by a
// tenth: so a sweep is not asked for by each.
func (s *Store) crowds(snap *Snapshot) {
	if len(snap.buriedRegistrations()) <= maxRegistrationTombstones*11/10 {
		return
	}
	select {
	case s.crowded <- struct{}{}:
	default:
	}
}

// forgettable are the tombstones that have lived for long enough, and those of
// registrations that are too many.
func (s *Snapshot) forgettable(now time.Time) []*Object {
	var old []*Object
	for _, o := range s.tombstones {
		if o.fades(now) {
			old = append(old, o)
		}
	}
	var rest []*Object
	for _, o := range s.buriedRegistrations() {
		if !o.fades(now) {
			rest = append(rest, o)
		}
	}
	if more := len(rest) - maxRegistrationTombstones; more > 0 {
		slices.SortFunc(rest, func(a, b *Object) int { return a.Revision.Compare(b.Revision) })
		old = append(old, rest[:more]...)
	}
	return old
}

// sweep forgets tombstones.
func (s *Store) sweep(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	snap := s.Snapshot()
	old := snap.forgettable(s.opts.Now())
	if len(old) == 0 {
		return nil
	}
	err := s.disk.Update(func(tx *disk.Tx) error {
		for _, o := range old {
			if err := tx.Delete(objectRows, objectKey(o.ID)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget %d tombstones: %w", len(old), err)
	}
	s.publish(snap.without(old), nil, nil, nil)
	return nil
}
