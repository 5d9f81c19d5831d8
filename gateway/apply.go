package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/store"
)

// Problems are the objects of a set that could not be put in force, and why. All
// the others are.
type Problems map[store.ID]error

// Error has one line for each object.
func (p Problems) Error() string {
	var lines []string
	for _, id := range slices.SortedFunc(maps.Keys(p), store.ID.Compare) {
		lines = append(lines, fmt.Sprintf("%s %q: %v", strings.ToLower(id.Kind), id.Key(), p[id]))
	}
	return strings.Join(lines, "\n")
}

// Apply puts a set in force, all at once. Streams that are open go on with the rule
// and the endpoint that they have. What is the same as in the set before, by its
// pointer, costs next to nothing.
//
// The error, when there is one, is of type Problems. It names every backend that is
// not as it should be: it stays as it was, or answers UNAVAILABLE when it is new,
// until its files are in order.
func (g *Gateway) Apply(set *store.Set) error {
	g.applying.Lock()
	defer g.applying.Unlock()
	first := g.set == nil
	g.put(set)
	if first && g.pool.LookUpFirst(firstLookUps) {
		g.put(set)
	}
	if len(g.problems) > 0 {
		return g.problems
	}
	return nil
}

// firstLookUps is how long the first set waits for the names of its backends. Without,
// a gateway that starts would turn RPCs away whose backends are well.
const firstLookUps = time.Second

// put is Apply. The caller holds applying.
func (g *Gateway) put(set *store.Set) {
	plan := g.pool.Prepare(set)
	letGo := g.pool.Commit(plan)
	t, removed := g.compiler.next(g.table.Load(), set, plan.Changed, g.pool.Backend)
	g.table.Store(t)
	letGo()
	g.compiler.release(removed)
	g.schemas.registry.Apply(set)
	g.set, g.problems = set, make(Problems)
	for spec, err := range g.pool.Problems() {
		g.problems[store.ResourceID(spec)] = err
	}
}

// Problems are what of the last set is not in force now. They change without an
// Apply, too: with the files that backends name, and with what name servers say.
func (g *Gateway) Problems() Problems {
	g.applying.Lock()
	problems := g.problems // replaced as a whole
	g.applying.Unlock()
	return g.withDiscovery(problems)
}

// filesEvery is how often the files that backends name are read again.
const filesEvery = 2 * time.Second

// newsEvery is how often what name servers say makes another table, at most.
const newsEvery = 50 * time.Millisecond

// follow puts changed files of backends, and endpoints that were found, in force, until
// ctx is done.
func (g *Gateway) follow(ctx context.Context) error {
	tick := time.NewTicker(filesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.readFilesAgain()
		case <-g.pool.News():
			g.takeNews()
			pause(ctx, newsEvery)
		}
	}
}

// takeNews puts the endpoints in force that were found.
func (g *Gateway) takeNews() {
	g.applying.Lock()
	defer g.applying.Unlock()
	if g.set != nil {
		g.put(g.set)
	}
}

// readFilesAgain tells what it finds: nobody waits for an answer.
func (g *Gateway) readFilesAgain() {
	g.applying.Lock()
	defer g.applying.Unlock()
	if g.set == nil || !g.pool.NamesFiles() {
		return
	}
	before := g.problems
	g.put(g.set)
	for id, err := range g.problems {
		if was := before[id]; was == nil || was.Error() != err.Error() {
			g.log.Error("backend not as declared, last good files kept", "backend", id.Key(), "error", err)
		}
	}
	for id := range before {
		if g.problems[id] == nil {
			g.log.Info("backend is as declared again", "backend", id.Key())
		}
	}
}

// ReloadCertificates reads the port's TLS files again, and those of the backends, and
// keeps the last good ones when that fails.
func (g *Gateway) ReloadCertificates() error {
	err := g.listener.Reload()
	g.readFilesAgain()
	if problems := g.Problems(); len(problems) > 0 {
		err = errors.Join(err, problems)
	}
	return err
}

// Check says which of the changed objects of a set Apply could not put in force. It
// reads the files that they name, and changes nothing.
func (g *Gateway) Check(set *store.Set, changed []store.ID) store.Faults {
	var faults store.Faults
	backends := set.BackendsByKey()
	for _, id := range changed {
		spec := backends[id.Key()]
		if id.Kind != store.BackendKind || spec == nil {
			continue
		}
		if err := g.pool.Check(spec); err != nil {
			at := spec.Origin
			faults = append(faults, store.Fault{
				File: at.File, Line: at.Line, Column: at.Column,
				Field: "spec." + err.Field, Message: errors.Unwrap(err).Error(),
			})
		}
	}
	return faults
}
