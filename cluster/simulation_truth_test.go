package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"sluice/store"
)

// truth knows what was written and in the knowledge of what, by itself: what an edit was
// made on top of, not what vectors say of it.
type truth struct {
	parents  map[edition][]edition
	contents map[edition]string
	edits    []acknowledged
	listed   map[edition]bool // shown as lost at some time on some node
	excused  map[edition]bool // lost with the state of a node that was started from an older one
}

// edition is a version of an object: the changes of one write have one revision.
type edition struct {
	id       store.ID
	revision store.Revision
}

// editionOf is that of a version.
func editionOf(o *store.Object) edition { return edition{o.ID, o.Revision} }

// acknowledged is an edit that somebody was told is done.
type acknowledged struct {
	edition
	node *simNode
}

func newTruth() *truth {
	return &truth{
		parents: map[edition][]edition{}, contents: map[edition]string{},
		listed: map[edition]bool{}, excused: map[edition]bool{},
	}
}

var created = regexp.MustCompile(`"creationTimestamp":"[^"]*",?`)

// fingerprint is what a version declares.
func fingerprint(o *store.Object) string {
	if o == nil || o.Deleted {
		return "deleted"
	}
	manifest, _ := o.Manifest()
	state := o.State
	state.Splits, state.Drains = slices.Clone(state.Splits), slices.Clone(state.Drains)
	for i := range state.Splits {
		state.Splits[i].By, state.Splits[i].Since = "", time.Time{}
	}
	for i := range state.Drains {
		state.Drains[i].By, state.Drains[i].Since = "", time.Time{}
	}
	encoded, _ := json.Marshal(state)
	return string(created.ReplaceAll(manifest, nil)) + string(encoded)
}

// wrote notes the changes of one write.
func (t *truth) wrote(n *simNode, before *store.Snapshot, changes []store.Change) {
	for _, c := range changes {
		t.note(n, before.Find(c.ID), c.After)
		t.edits = append(t.edits, acknowledged{editionOf(c.After), n})
	}
}

// trace says what happens to objects, when asked to.
func (t *truth) trace(format string, args ...any) {
	if name := os.Getenv("SLUICE_SIMULATION_TRACE"); name != "" {
		if line := fmt.Sprintf(format, args...); strings.Contains(line, name) {
			fmt.Fprintln(os.Stderr, line)
		}
	}
}

func describeBase(o *store.Object) string {
	if o == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s %v lost %d", o.Revision, o.Vector, len(o.Lost))
}

func (t *truth) note(n *simNode, base, after *store.Object) {
	r := editionOf(after)
	switch {
	case r.revision.Wall == 1: // what a file says first has the same revision everywhere
	case r.revision.Compare(n.highest) < 0:
		t.excused[r] = true // from before it was started from an older state, with a clock set back
	default:
		n.highest = r.revision
	}
	t.contents[r] = after.ID.String() + fingerprint(after)
	t.trace("node %d at %v writes %s %s: %s on %v", n.index, n.sim.now.Format("04:05.000"), after.ID, r.revision, t.contents[r], describeBase(base))
	if base != nil {
		t.parents[r] = append(t.parents[r], editionOf(base))
		for _, lost := range base.Lost {
			t.parents[r] = append(t.parents[r], edition{base.ID, lost.Revision}) // whoever edits has been shown them
		}
	}
}

// merged notes what a merge showed as lost, and what it made anew.
func (t *truth) merged(n *simNode, before *store.Snapshot, theirs []*store.Object, result *store.MergeResult) {
	for _, c := range result.Changes {
		t.trace("node %d at %v merges %s: %s %s over %v (lost %v)", n.index, n.sim.now.Format("04:05.000"), c.ID, c.Action, describeBase(c.After), describeBase(before.Find(c.ID)), describeBase(c.Lost))
		if c.Lost != nil {
			t.listed[editionOf(c.Lost)] = true
		}
		for _, lost := range c.After.Lost {
			t.listed[edition{c.ID, lost.Revision}] = true
		}
		if r := editionOf(c.After); r.revision.Node == n.id && t.contents[r] == "" {
			t.note(n, before.Find(c.ID), c.After)
			for _, o := range theirs {
				if o.ID == c.ID {
					t.parents[r] = append(t.parents[r], editionOf(o))
				}
			}
		}
	}
}

// excuse lets the edits of a node be lost that it made since a copy and nobody else has.
func (t *truth) excuse(n *simNode, c simCopy) {
	for _, edit := range t.edits {
		if edit.node == n && edit.revision.Wall >= c.at.Add(n.offset).UnixMilli()-int64(120_000) {
			t.excused[edit.edition] = true
		}
	}
}

// check tells which acknowledged edit is neither in force nor succeeded by one that saw
// it, nor shown as lost.
func (t *truth) check(n *simNode) error {
	known, said := map[edition]bool{}, map[string]bool{}
	var mark func(r edition)
	mark = func(r edition) {
		if known[r] {
			return
		}
		known[r] = true
		said[t.contents[r]] = true
		for _, parent := range t.parents[r] {
			mark(parent)
		}
	}
	for r := range t.listed {
		mark(r)
	}
	for id, v := range n.exchange.have.versions {
		mark(edition{id, v.revision})
		if v.object != nil {
			said[id.String()+fingerprint(v.object)] = true
			for _, lost := range v.object.Lost {
				mark(edition{id, lost.Revision})
			}
		}
	}
	for again := true; again; {
		again = false
		for _, edit := range t.edits { // whoever has declared the same stands for it
			if !known[edit.edition] && said[t.contents[edit.edition]] {
				mark(edit.edition)
				again = true
			}
		}
	}
	for _, edit := range t.edits {
		if !known[edit.edition] && !t.excused[edit.edition] && edit.id.Kind != store.RegistrationKind {
			return fmt.Errorf("edit %s is lost and nobody was told: %s; now there is %s",
				edit.revision, t.contents[edit.edition], describe(n.exchange.have.versions[edit.id]))
		}
	}
	return nil
}
