package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sluice/gateway"
	"sluice/store"
)

// applier puts in force what the store holds: each change as it comes, or several
// at once when they come faster than they can be put in force. It is the one road
// from the store to the gateway.
type applier struct {
	// Fixed at construction.
	store   *store.Store
	gateway gatewayPart
	log     *slog.Logger

	turn    sync.Mutex      // held while a snapshot is put in force, so that none overtakes a later one
	current *store.Snapshot // the one in force; guarded by turn

	mu      sync.Mutex    // guards the fields below
	seq     uint64        // of the last change in force
	changed chan struct{} // closed when seq grows
}

func newApplier(s *store.Store, gw gatewayPart, log *slog.Logger) *applier {
	return &applier{store: s, gateway: gw, log: log, changed: make(chan struct{})}
}

// Run follows the store until ctx is done.
func (a *applier) Run(ctx context.Context) error {
	watcher := a.store.Watch(a.inForce())
	for {
		_, err := watcher.Next(ctx)
		if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
			return nil
		}
		a.catchUp() // what is current is all that matters here, whatever Next could tell
		if err == nil {
			continue
		}
		if !errors.Is(err, store.ErrCompacted) {
			a.log.Error("history not read, going on with what is current", "error", err)
			select {
			case <-time.After(watchAgain):
			case <-ctx.Done():
			}
		}
		watcher = a.store.Watch(a.inForce())
	}
}

// watchAgain is how long the applier waits when the history cannot be read, which
// routing does not need.
const watchAgain = time.Second

// catchUp puts the current snapshot in force, unless it is. What of it cannot be, is
// told of and kept; all else is.
func (a *applier) catchUp() {
	a.turn.Lock()
	defer a.turn.Unlock()
	begin := time.Now()
	snapshot := a.store.Snapshot()
	if snapshot == a.current {
		return
	}
	set := snapshot.Effective()
	err := a.gateway.Apply(set)
	var problems gateway.Problems
	if err != nil && !errors.As(err, &problems) {
		a.log.Error("configuration refused, last good one kept", "sequence", snapshot.Seq(), "error", err)
		return
	}
	for id, problem := range problems {
		a.log.Error("cannot be put in force", "object", id.String(), "error", problem)
	}
	a.log.Info("configuration applied", "sequence", snapshot.Seq(), "routes", len(set.GRPCRoutes),
		"backends", len(set.Backends), "took", time.Since(begin).Round(time.Microsecond))

	a.current = snapshot
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seq = snapshot.Seq()
	close(a.changed)
	a.changed = make(chan struct{})
}

// Programmed is the last change in force, and what of the whole is not: of that the
// gateway knows by itself, since a certificate's file may come and go without a change.
func (a *applier) Programmed() (seq uint64, problems map[store.ID]error) {
	return a.inForce(), a.gateway.Problems()
}

func (a *applier) inForce() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seq
}

// WaitProgrammed waits until the change of that sequence is in force.
func (a *applier) WaitProgrammed(ctx context.Context, seq uint64) error {
	for {
		a.mu.Lock()
		now, changed := a.seq, a.changed
		a.mu.Unlock()
		if now >= seq {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Obeys waits until the change of that sequence is in force, and is the first reason why
// one of these objects is not.
func (a *applier) Obeys(ctx context.Context, seq uint64, ids []store.ID) error {
	if err := a.WaitProgrammed(ctx, seq); err != nil {
		return err
	}
	_, problems := a.Programmed()
	for _, id := range ids {
		if problem := problems[id]; problem != nil {
			return fmt.Errorf("%s cannot be put in force there: %w", id, problem)
		}
	}
	return nil
}
