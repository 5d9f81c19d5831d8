package gateway

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice/gateway/upstream"
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
// until an Apply finds its files in order.
func (g *Gateway) Apply(set *store.Set) error {
	g.applying.Lock()
	defer g.applying.Unlock()
	plan := g.pool.Prepare(set)
	letGo := g.pool.Commit(plan)
	t, removed := g.compiler.next(g.table.Load(), set, plan.Changed, g.pool.Backend)
	g.table.Store(t)
	letGo()
	g.compiler.release(removed)
	if problems := g.problems(); len(problems) > 0 {
		return problems
	}
	return nil
}

func (g *Gateway) problems() Problems {
	problems := make(Problems)
	for spec, err := range g.pool.Problems() {
		problems[store.ResourceID(spec)] = err
	}
	return problems
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
		if err := upstream.Check(spec); err != nil {
			at := spec.Origin
			faults = append(faults, store.Fault{
				File: at.File, Line: at.Line, Column: at.Column,
				Field: "spec." + err.Field, Message: errors.Unwrap(err).Error(),
			})
		}
	}
	return faults
}
