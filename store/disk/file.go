package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// The files of a store. What is being written has newSuffix behind its name, and
// is renamed when it is whole and on the disk.
const (
	dbName      = "sluice.db"
	journalName = "sluice.journal"
	copyName    = "sluice.copy"
	newSuffix   = ".new"
	backupName  = "sluice.backup.*" + newSuffix // for os.CreateTemp
)

// makeDir makes dir and what it lies in, for good: a directory that is gone after a
// crash takes all that was synced in it along.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// removeUnfinished removes what a crash left behind of files that were being
// written. The caller holds the lock, so nobody is writing them.
func removeUnfinished(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "sluice.*"+newSuffix))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// putInPlace gives the new file at path+newSuffix its name, for good.
func putInPlace(path string) error {
	if err := os.Rename(path+newSuffix, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// keepAside gives the file at path a second name, under which it stays when another
// file takes its place, and returns that name. An earlier one is not replaced.
func keepAside(path string, now time.Time) (string, error) {
	stem := path + ".damaged-" + now.UTC().Format("20060102T150405Z")
	aside := stem
	for n := 2; ; n++ {
		err := os.Link(path, aside)
		if errors.Is(err, os.ErrExist) {
			aside = fmt.Sprintf("%s-%d", stem, n)
			continue
		}
		if err != nil {
			return aside, moveAside(path, aside)
		}
		return aside, nil
	}
}

// moveAside is for file systems without links. For a moment path is missing; a
// crash in that moment is as if it had been damaged.
func moveAside(path, aside string) error {
	if _, err := os.Lstat(aside); err == nil {
		return fmt.Errorf("move %q aside: %q is there", path, aside)
	}
	return os.Rename(path, aside)
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// durable is a file whose Sync waits for what a reader needs, not for its times.
type durable struct{ *os.File }

func (d durable) Sync() error { return datasync(d.File) }
