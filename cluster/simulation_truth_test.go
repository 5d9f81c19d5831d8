package cluster

import (
	"encoding/json"
	"fmt"
	"regexp"

	"sluice/store"
)

// truth knows what was written and in the knowledge of what, by itself: what an edit was
// made on top of, not what vectors say of it.
type truth struct {
	parents  map[store.Revision][]store.Revision
	contents map[store.Revision]string
	edits    []acknowledged
	listed   map[store.Revision]bool // shown as lost at some time on some node
	excused  map[store.Revision]bool // lost with the state of a node that was started from an older one
}

// acknowledged is an edit that somebody was told is done.
type acknowledged struct {
	id       store.ID
	revision store.Revision
	node     *simNode
}

func newTruth() *truth {
	return &truth{
		parents: map[store.Revision][]store.Revision{}, contents: map[store.Revision]string{},
		listed: map[store.Revision]bool{}, excused: map[store.Revision]bool{},
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
	for i := range state.Splits {
		state.Splits[i].By = ""
	}
	encoded, _ := json.Marshal(state)
	return string(created.ReplaceAll(manifest, nil)) + string(encoded)
}

// wrote notes the changes of one write.
func (t *truth) wrote(n *simNode, before *store.Snapshot, changes []store.Change) {
	for _, c := range changes {
		t.note(n, before.Find(c.ID), c.After)
		t.edits = append(t.edits, acknowledged{c.ID, c.After.Revision, n})
	}
}

func (t *truth) note(n *simNode, base, after *store.Object) {
	r := after.Revision
	if r.Compare(n.highest) <= 0 {
		t.excused[r] = true // from before it was started from an older state, with a clock set back
	} else {
		n.highest = r
	}
	t.contents[r] = fingerprint(after)
	if base != nil {
		t.parents[r] = append(t.parents[r], base.Revision)
		for _, lost := range base.Lost {
			t.parents[r] = append(t.parents[r], lost.Revision) // whoever edits has been shown them
		}
	}
}

// merged notes what a merge showed as lost, and what it made anew.
func (t *truth) merged(n *simNode, before *store.Snapshot, theirs []*store.Object, result *store.MergeResult) {
	for _, c := range result.Changes {
		if c.Lost != nil {
			t.listed[c.Lost.Revision] = true
		}
		for _, lost := range c.After.Lost {
			t.listed[lost.Revision] = true
		}
		if r := c.After.Revision; r.Node == n.id && t.contents[r] == "" {
			t.note(n, before.Find(c.ID), c.After)
			for _, o := range theirs {
				if o.ID == c.ID {
					t.parents[r] = append(t.parents[r], o.Revision)
				}
			}
		}
	}
}

// excuse lets the edits of a node be lost that it made since a copy and nobody else has.
func (t *truth) excuse(n *simNode, c simCopy) {
	for _, edit := range t.edits {
		if edit.node == n && edit.revision.Wall >= c.at.Add(n.offset).UnixMilli()-int64(120_000) {
			t.excused[edit.revision] = true
		}
	}
}

// check tells which acknowledged edit is neither in force nor succeeded by one that saw
// it, nor shown as lost.
func (t *truth) check(n *simNode) error {
	known := map[store.Revision]bool{}
	var mark func(r store.Revision)
	mark = func(r store.Revision) {
		if known[r] {
			return
		}
		known[r] = true
		for _, parent := range t.parents[r] {
			mark(parent)
		}
	}
	said := map[string]bool{}
	see := func(id store.ID, r store.Revision) {
		mark(r)
		said[id.String()+t.contents[r]] = true
	}
	for r := range t.listed {
		mark(r)
	}
	for id, v := range n.exchange.have.versions {
		see(id, v.revision)
		if v.object != nil {
			said[id.String()+fingerprint(v.object)] = true
			for _, lost := range v.object.Lost {
				see(id, lost.Revision)
			}
		}
	}
	for _, edit := range t.edits {
		switch {
		case known[edit.revision], t.excused[edit.revision], edit.id.Kind == store.RegistrationKind:
		case said[edit.id.String()+t.contents[edit.revision]]: // another has declared the same
		default:
			return fmt.Errorf("%s: edit %s is lost and nobody was told: %s; now there is %s",
				edit.id, edit.revision, t.contents[edit.revision], describe(n.exchange.have.versions[edit.id]))
		}
	}
	return nil
}
