package route

import (
	"hash/maphash"
	"maps"
	"slices"
)

// levelEdit makes a level from that of the table before, which goes on as it is:
// what changes is copied first, once. What carries the new table's generation is
// the edit's own.
type levelEdit struct {
	*level
	generation uint32
	cloned     bool                     // the maps are the edit's own
	unsorted   map[*candidates]struct{} // lists that have got something
}

// newLevelEdit begins with what the level is edited from.
func newLevelEdit(l *level, from level, generation uint32) *levelEdit {
	*l = from
	return &levelEdit{level: l, generation: generation, unsorted: make(map[*candidates]struct{})}
}

func (e *levelEdit) add(host string, m *match) {
	e.clone()
	b := e.bucket(host)
	b.matches++
	list := b.list(m)
	if list == nil {
		list = e.literal(host, m)
	}
	list.add(m)
	if len(list.more) > 0 {
		e.unsorted[list] = struct{}{}
	}
}

func (e *levelEdit) remove(host string, m *match) {
	e.clone()
	b := e.bucket(host)
	b.matches--
	if list := b.list(m); list != nil {
		list.remove(m)
	} else if list = e.literal(host, m); list.remove(m) {
		e.dropLiteral(host, m)
	}
	if b.matches == 0 {
		delete(e.hosts, host)
	}
}

// finish puts the lists in order.
func (e *levelEdit) finish() {
	for list := range e.unsorted {
		list.sort()
	}
}

func (e *levelEdit) clone() {
	if e.cloned {
		return
	}
	e.cloned = true
	e.literals, e.hosts = maps.Clone(e.literals), maps.Clone(e.hosts)
	if e.hosts == nil {
		e.literals, e.hosts = make(map[uint64]*literal), make(map[string]*bucket)
	}
}

// bucket is the hostname's, to be changed.
func (e *levelEdit) bucket(host string) *bucket {
	b := e.hosts[host]
	switch {
	case b == nil:
		b = &bucket{generation: e.generation}
	case b.generation != e.generation:
		own := *b
		own.generation = e.generation
		for _, list := range []*candidates{&own.servicePatterns, &own.methodPatterns, &own.all} {
			list.more = slices.Clone(list.more)
		}
		b = &own
	default:
		return b
	}
	e.hosts[host] = b
	return b
}

// list is where the bucket has a match, nil when a literal has.
func (b *bucket) list(m *match) *candidates {
	switch service, method := m.service.rank(), m.method.rank(); {
	case service == isPattern:
		return &b.servicePatterns
	case service == isNone && method == isPattern:
		return &b.methodPatterns
	case service == isNone && method == isNone:
		return &b.all
	}
	return nil
}

// literalText is what a match compares literally.
func (m *match) literalText() (kind, string) {
	switch {
	case m.service.rank() == isNone:
		return byMethod, "/" + m.method.text
	case m.method.rank() == isNone:
		return byService, "/" + m.service.text + "/"
	}
	return byPath, "/" + m.service.text + "/" + m.method.text
}

// literal is the list of a match's text on a hostname, to be changed. The others of
// the same hash are copied with it: there are none but by a rare chance.
func (e *levelEdit) literal(host string, m *match) *candidates {
	kind, text := m.literalText()
	hash := literalHash(host, text)
	for l := e.ownChain(hash); l != nil; l = l.next {
		if l.is([]byte(host), text) {
			return &l.list
		}
	}
	e.used[kind]++
	l := &literal{key: host + text, hostLen: int32(len(host)), generation: e.generation, next: e.literals[hash]}
	e.literals[hash] = l
	return &l.list
}

func (e *levelEdit) dropLiteral(host string, m *match) {
	kind, text := m.literalText()
	hash := literalHash(host, text)
	e.used[kind]--
	var rest *literal
	for l := e.ownChain(hash); l != nil; {
		next := l.next
		if !l.is([]byte(host), text) {
			l.next, rest = rest, l
		}
		l = next
	}
	if rest == nil {
		delete(e.literals, hash)
		return
	}
	e.literals[hash] = rest
}

// ownChain is the first literal of a hash, after all of them have been copied.
func (e *levelEdit) ownChain(hash uint64) *literal {
	first := e.literals[hash]
	if first == nil || first.generation == e.generation {
		return first
	}
	var copies *literal
	for l := first; l != nil; l = l.next {
		own := *l
		own.generation, own.next = e.generation, copies
		own.list.more = slices.Clone(l.list.more)
		copies = &own
	}
	e.literals[hash] = copies
	return copies
}

func literalHash(host, text string) uint64 {
	return join(maphash.String(seed, host), maphash.String(seed, text))
}

func (c *candidates) add(m *match) {
	if c.one.rule == nil {
		c.one = m.candidate()
		return
	}
	c.more = append(c.more, m.candidate())
}

// remove reports whether nothing is left.
func (c *candidates) remove(m *match) (empty bool) {
	if c.one.match != m {
		c.more = slices.DeleteFunc(c.more, func(other candidate) bool { return other.match == m })
		return false
	}
	if len(c.more) == 0 {
		c.one = candidate{}
		return true
	}
	c.one, c.more = c.more[0], c.more[1:]
	return false
}

// sort puts the match first that has precedence.
func (c *candidates) sort() {
	if len(c.more) == 0 {
		return
	}
	all := append([]candidate{c.one}, c.more...)
	slices.SortFunc(all, func(a, b candidate) int { return a.match.compare(b.match) })
	c.one, c.more = all[0], all[1:]
}
