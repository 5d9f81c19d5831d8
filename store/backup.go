package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"sluice/store/disk"
)

// Backup writes everything that the store keeps, records included, as one file. The
// store goes on meanwhile.
func (s *Store) Backup(w io.Writer) error {
	if _, err := s.disk.Backup(w); err != nil {
		return fmt.Errorf("back up the store: %w", err)
	}
	return nil
}

// Restore makes the objects those of a backup: one transaction of changes like any
// other, with history. What files declare stays theirs. Records are left alone.
func (s *Store) Restore(ctx context.Context, path string, author Author, dryRun bool) (*Result, error) {
	objects, err := readBackup(path)
	if err != nil {
		return nil, fmt.Errorf("restore from %q: %w", path, err)
	}
	if err := s.checkForeign(objects); err != nil {
		return nil, fmt.Errorf("restore from %q: %w", path, err)
	}
	// What referred to nothing when it was backed up is restored as it was.
	txn := &Txn{Author: author, Action: ActionRestore, DryRun: dryRun, AllowUnresolved: true}
	return s.transact(ctx, txn, func(p *plan) error {
		ops, warnings := p.base.OpsTo(objects)
		for _, w := range warnings {
			p.warn("%s", w)
		}
		for i := range ops {
			if err := p.do(&ops[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// readBackup verifies a backup and reads its live objects.
func readBackup(path string) ([]*Object, error) {
	var objects []*Object
	known := false // that it is one of a node
	err := disk.ReadCopy(path, func(bucket string, key, row []byte) error {
		known = known || bucket == nodeRows
		if bucket != objectRows {
			return nil
		}
		id, err := parseObjectKey(key)
		if err != nil {
			return err
		}
		o, err := decodeObject(id, row)
		if err == nil && o.live() {
			objects = append(objects, o)
		}
		return err
	})
	if err == nil && !known {
		return nil, errors.New("it is no backup of a node")
	}
	return objects, err
}

// checkForeign reads what others say that objects declare as strictly as a text: they
// may be of another version of this program, or of nobody's. What is declared here
// just so was read before.
func (s *Store) checkForeign(objects []*Object) error {
	snap := s.Snapshot()
	found := make([]Faults, len(objects))
	err := inParallel(len(objects), func(i int) error {
		o := objects[i]
		if now, ok := snap.Get(o.ID); ok && now.manifest == o.manifest {
			return nil
		}
		if r, ok := o.Resource.(*Registration); ok {
			found[i] = r.check(o.ID, Duration(maxLease))
			return nil
		}
		manifest, err := o.Manifest()
		if err == nil {
			_, found[i] = Parse(o.ID.String(), manifest)
		}
		return err
	})
	if err != nil {
		return err
	}
	if faults := slices.Concat(found...); len(faults) > 0 {
		return faults[:min(len(faults), maxFaults)]
	}
	return nil
}
