package store

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxAhead is how far the clock of another node may be ahead of ours. What comes
// from further in the future would win over every edit until then.
const maxAhead = 60 * time.Second

// ErrClockAhead is returned for a revision that is more than 60 s in the future of
// this node's clock.
var ErrClockAhead = errors.New("the clock that made the revision is more than 60s ahead")

// Revision orders the changes of all nodes: a hybrid logical clock, and the node as
// the last resort. A later change of one node has a higher revision, and so has a
// change that was made in the knowledge of another. The zero value is no revision.
type Revision struct {
	Wall    int64  // milliseconds since 1970, never less than in an earlier one
	Counter uint32 // of changes within Wall
	Node    string // that made the change
}

// String is "1763766000123.0@k3f9x2ab", "" for no revision.
func (r Revision) String() string {
	if r.IsZero() {
		return ""
	}
	b := make([]byte, 0, 32)
	b = strconv.AppendInt(b, r.Wall, 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(r.Counter), 10)
	b = append(b, '@')
	return string(append(b, r.Node...))
}

// ParseRevision reads what String wrote.
func ParseRevision(s string) (Revision, error) {
	clock, node, ok := strings.Cut(s, "@")
	wall, counter, dotted := strings.Cut(clock, ".")
	w, err := strconv.ParseInt(wall, 10, 64)
	c, err2 := strconv.ParseUint(counter, 10, 32)
	r := Revision{w, uint32(c), node}
	if !ok || !dotted || err != nil || err2 != nil || w <= 0 || !isNode(node) || r.String() != s {
		return Revision{}, fmt.Errorf("revision %s: want a form like 1763766000123.0@k3f9x2ab", quote(s))
	}
	return r, nil
}

// Compare is negative when r is earlier than other, positive when it is later.
func (r Revision) Compare(other Revision) int {
	return cmp.Or(
		cmp.Compare(r.Wall, other.Wall),
		cmp.Compare(r.Counter, other.Counter),
		strings.Compare(r.Node, other.Node),
	)
}

// IsZero tells whether it is no revision at all.
func (r Revision) IsZero() bool { return r == Revision{} }

// MarshalText writes String.
func (r Revision) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads it.
func (r *Revision) UnmarshalText(text []byte) (err error) {
	*r = Revision{}
	if len(text) > 0 {
		*r, err = ParseRevision(string(text))
	}
	return err
}

// after tells whether r's clock, whatever the node, is later than other's.
func (r Revision) after(other Revision) bool {
	return cmp.Or(cmp.Compare(r.Wall, other.Wall), cmp.Compare(r.Counter, other.Counter)) > 0
}

// isNode tells whether s can be the name of a node.
func isNode(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if !isLower(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

// clock makes the revisions of one node.
type clock struct {
	// Fixed at construction.
	now    func() time.Time
	before Revision // the highest that was made when the store was opened

	mu    sync.Mutex
	node  string
	last  Revision // the highest that was made or seen
	made  Revision // the highest that was made
	first Revision // the first that was made since the store was opened
}

// name is under which name revisions are made.
func (c *clock) name() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.node
}

// rename has revisions be made under another name.
func (c *clock) rename(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node = node
}

// peek is the revision that follows all that were made and seen. It is made only by
// advance, when the change is kept.
func (c *clock) peek() Revision {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := max(c.now().UnixMilli(), 1)
	if wall > c.last.Wall {
		return Revision{wall, 0, c.node}
	}
	if c.last.Counter == 1<<32-1 {
		return Revision{c.last.Wall + 1, 0, c.node}
	}
	next := Revision{c.last.Wall, c.last.Counter + 1, c.node}
	if wall < c.last.Wall {
		next.Counter += c.stride()
	}
	return next
}

// stride spreads the counters of a clock that is behind what it has seen from others: a
// node that was started from an older state has forgotten which of them it has used, and
// the same revision twice would be two versions that nobody can tell apart.
func (c *clock) stride() uint32 {
	x := uint64(c.now().UnixNano()) * 0x9e3779b97f4a7c15
	return uint32(min(x>>48, uint64(1<<32-1-c.last.Counter-1)))
}

// follow is the revision that follows all that were made and seen, and r.
func (c *clock) follow(r Revision) Revision {
	next := c.peek()
	switch {
	case next.after(r):
		return next
	case r.Counter == 1<<32-1:
		return Revision{r.Wall + 1, 0, next.Node}
	}
	return Revision{r.Wall, r.Counter + 1, next.Node}
}

// seen is the highest revision that was made or seen.
func (c *clock) seen() Revision {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// advance notes a revision, of this node or of another: what is made from now on is
// later.
func (c *clock) advance(r Revision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.after(c.last) {
		c.last = r
	}
}

// keep notes the revisions of a transaction: the highest of all, and the lowest and the
// highest of those that were made.
func (c *clock) keep(all, first, made Revision) {
	c.advance(all)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first.IsZero() {
		c.first = first
	}
	if made.after(c.made) {
		c.made = made
	}
}

// highest is the highest revision that was made.
func (c *clock) highest() Revision {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made
}

// forgot tells whether this node has made a revision of which it does not know: it is
// later than all before the store was opened, and none of those since.
func (c *clock) forgot(r Revision) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return r.Node == c.node && r.Wall > firstWall && r.after(c.before) && (c.first.after(r) || r.after(c.made))
}

// check refuses a revision from too far in the future.
func (c *clock) check(r Revision) error {
	ahead := time.Duration(r.Wall-c.now().UnixMilli()) * time.Millisecond
	if r.Wall > c.now().Add(maxAhead).UnixMilli() {
		return fmt.Errorf("revision %s, %s ahead of this node's clock: %w", r, ahead.Round(time.Second), ErrClockAhead)
	}
	return nil
}

// Vector is what an object's change has seen: of each node the highest revision that
// went into it, its own included. Its Node fields are the keys.
type Vector map[string]Revision

// Seen tells whether r is part of the past of whoever has this vector.
func (v Vector) Seen(r Revision) bool {
	have, ok := v[r.Node]
	return ok && !r.after(have)
}

// with is a new vector that has seen r, too.
func (v Vector) with(r Revision) Vector {
	return v.union(Vector{r.Node: r})
}

// union is a new vector of all that either has seen.
func (v Vector) union(other Vector) Vector {
	u := make(Vector, len(v)+len(other))
	for node, r := range v {
		u[node] = r
	}
	for node, r := range other {
		if have, ok := u[node]; !ok || r.after(have) {
			u[node] = r
		}
	}
	return u
}

// covers tells whether v has seen all that other has.
func (v Vector) covers(other Vector) bool {
	for _, r := range other {
		if !v.Seen(r) {
			return false
		}
	}
	return true
}

// maxPast is how many nodes a version remembers to have seen, beside those of versions that
// lost to it. Of an object that files declare each node without a disk of its own would
// leave an entry for ever.
const maxPast = 100

// latest is a vector of no more than the n highest revisions of v, and those of the nodes
// of lost: of these it is to be known that they were seen. The order in which nodes hear of
// each other does not matter to it, since the highest of a union are among the highest of
// its parts. What is left out may come back as the loser of a conflict, never as what holds.
func (v Vector) latest(n int, lost []*Object) Vector {
	if len(v) <= n {
		return v
	}
	all := slices.SortedFunc(maps.Values(v), func(a, b Revision) int { return b.Compare(a) })
	u := make(Vector, n+len(lost))
	for _, r := range all[:n] {
		u[r.Node] = r
	}
	for _, o := range lost {
		if r, seen := v[o.Revision.Node]; seen {
			u[r.Node] = r
		}
	}
	return u
}
