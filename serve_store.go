package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"sluice/store"
	"sluice/store/disk"
)

// openStore opens what the operator asked for, kept from one start to the next, and says
// so when it is not as it was left.
func (n *node) openStore() error {
	log := n.log.With("part", "store")
	if err := os.MkdirAll(n.cfg.dataDir, 0o700); err != nil {
		return fmt.Errorf("%w; choose another data directory with --data-dir", err)
	}
	kept, err := store.Open(store.Options{
		Dir: n.cfg.dataDir, Verify: disk.InChild(verifyCommand), Check: n.gateway.Check,
		AllowUnresolved: n.cfg.allowUnresolved, Log: log,
	})
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		var cause *fs.PathError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return fmt.Errorf("open store in %q: %w; choose another data directory with --data-dir", n.cfg.dataDir, err)
	}
	if err != nil {
		return err
	}
	if found := kept.Recovery(); found != "" {
		log.Error("store recovered", "found", found)
	}
	n.store = kept
	n.applier = newApplier(kept, n.gateway, n.log.With("part", "applier"))
	return nil
}

// openFiles takes in what of it stands in files, which are kept in step from then on.
func (n *node) openFiles() error {
	n.resources = &resources{
		paths:   n.cfg.resources,
		options: store.LoadOptions{AllowUnresolved: true}, // the store looks at all there is
		apply:   n.syncFiles,
		log:     n.log.With("part", "resources"),
		now:     time.Now,
	}
	if err := n.resources.load(); errors.Is(err, store.ErrFull) {
		n.resources.reject(err) // what was kept is served, and the files are tried again
	} else if err != nil {
		return err
	}
	n.applier.catchUp() // also when nothing has changed since the last time
	return nil
}

// syncFiles makes what files declare part of the store, and puts it in force.
func (n *node) syncFiles(set *store.Set) error {
	result, err := n.store.SyncFiles(context.Background(), set, store.Author{Actor: "files", Via: "file"})
	if err != nil {
		return err
	}
	for _, warning := range result.Warnings {
		n.resources.log.Warn(warning)
	}
	n.applier.catchUp()
	return nil
}

// openLeases makes the leases of the processes that announce themselves, which end when
// they are not heard of any more.
func (n *node) openLeases() error {
	opts := store.LeaseOptions{
		OwnAddresses: n.gateway.OwnAddresses, Log: n.log.With("part", "leases"),
		Reach: func(ctx context.Context, backend store.ID, address string) bool {
			return n.gateway.Reach(ctx, backend.Key(), address)
		},
	}
	if n.peers != nil {
		opts.Peers = n.peers
	}
	n.leases = store.NewLeases(n.store, opts)
	return nil
}
