package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

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
	// What referred to nothing when it was backed up is restored as it was.
	txn := &Txn{Author: author, Action: ActionRestore, DryRun: dryRun, AllowUnresolved: true}
	return s.transact(ctx, txn, func(p *plan) error {
		ops, warnings := p.base.OpsTo(objects)
		p.warnings = append(p.warnings, warnings...)
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
	b := &backupReader{}
	if err := b.read(path); err != nil {
		return nil, err
	}
	if !b.known {
		return nil, errors.New("it is no backup of a node")
	}
	return b.objects, nil
}

// backupReader gathers the objects of a backup.
type backupReader struct {
	objects []*Object
	known   bool // it has the row of a node
}

func (b *backupReader) row(bucket string, key, row []byte) error {
	b.known = b.known || bucket == nodeRows
	if bucket != objectRows {
		return nil
	}
	id, err := parseObjectKey(key)
	if err != nil {
		return err
	}
	o, err := decodeObject(id, row)
	if err == nil && o.live() {
		b.objects = append(b.objects, o)
	}
	return err
}

// read opens a copy of the backup as a store of its own.
func (b *backupReader) read(path string) error {
	dir, err := os.MkdirTemp("", "sluice-restore-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "sluice.db"), data, 0o600); err != nil {
		return err
	}
	db, err := disk.Open(disk.Options{Dir: dir})
	if err != nil {
		return err
	}
	return errors.Join(db.View(func(tx *disk.Tx) error {
		var failed error
		for _, bucket := range []string{nodeRows, objectRows} {
			err := tx.Ascend(bucket, nil, func(key, row []byte) bool {
				failed = b.row(bucket, key, row)
				return failed == nil
			})
			if err := errors.Join(err, failed); err != nil {
				return err
			}
		}
		return nil
	}), db.Close())
}
