package route

import (
	"hash/maphash"
	"math/bits"
)

// level is all hostnames of one kind. What they compare literally is in one map
// for all of them, so that a lookup touches few places in memory however many
// hostnames and services there are.
type level struct {
	literals map[uint64]*literal // by hash
	used     [numKinds]bool      // kinds that literals has any of
	hosts    map[string]*bucket  // all hostnames of the level
}

// kind is which part of a path is compared literally. No text of one kind is a
// text of another, by its slashes.
type kind uint8

const (
	byPath    kind = iota // "/service/method"
	byService             // "/service/"
	byMethod              // "/method"
	numKinds
)

// literal is what is matched by one text on one hostname.
type literal struct {
	key     string // the hostname, and the text behind it
	hostLen int
	list    candidates
	next    *literal // of the same hash
}

// bucket is what one hostname matches by other means than literals.
type bucket struct {
	servicePatterns candidates // regular expressions for the service, and perhaps the method
	methodPatterns  candidates // regular expressions for the method alone
	all             candidates // every service and method
}

// candidates are in order of precedence. Nearly always there is just one.
type candidates struct {
	one  candidate // the first, no rule when there is none
	more []candidate
}

// candidate is a match as a lookup meets it.
type candidate struct {
	rule *Rule
	rest *match // what is to be compared yet; nil when nothing is
}

// find is the first rule on the hostname that matches. Served tells whether the
// level has the hostname, and is only right when there is no such rule.
func (l *level) find(host []byte, q *query) (r *Rule, served bool) {
	if len(l.hosts) == 0 {
		return nil, false
	}
	hash := maphash.Bytes(seed, host)
	if r := l.literal(byPath, hash, host, q); r != nil {
		return r, true
	}
	if r := l.literal(byService, hash, host, q); r != nil {
		return r, true
	}
	b := l.hosts[string(host)]
	if b == nil {
		return nil, false
	}
	if q.service != "" {
		if r := b.servicePatterns.first(q); r != nil {
			return r, true
		}
		if r := l.literal(byMethod, hash, host, q); r != nil {
			return r, true
		}
		if r := b.methodPatterns.first(q); r != nil {
			return r, true
		}
	}
	return b.all.first(q), true
}

// seed is the process's own, so that no caller can choose paths that collide.
var seed = maphash.MakeSeed()

func (l *level) literal(k kind, hostHash uint64, host []byte, q *query) *Rule {
	text := q.texts[k]
	if !l.used[k] || text == "" {
		return nil
	}
	if q.hashes[k] == 0 {
		q.hashes[k] = maphash.String(seed, text)
	}
	for e := l.literals[join(hostHash, q.hashes[k])]; e != nil; e = e.next {
		if e.hostLen == len(host) && e.key[:e.hostLen] == string(host) && e.key[e.hostLen:] == text {
			return e.list.first(q)
		}
	}
	return nil
}

// join makes one hash of a hostname's and a text's.
func join(host, text uint64) uint64 { return bits.RotateLeft64(host, 32) ^ text }

func (c *candidates) first(q *query) *Rule {
	if c.one.rule == nil || c.one.matches(q) {
		return c.one.rule
	}
	for i := range c.more {
		if c.more[i].matches(q) {
			return c.more[i].rule
		}
	}
	return nil
}

func (c *candidate) matches(q *query) bool { return c.rest == nil || c.rest.matches(q) }

// add puts m behind all that were added before, which have precedence over it.
func (l *level) add(host string, m *match) {
	b := l.hosts[host]
	switch service, method := m.service.rank(), m.method.rank(); {
	case service == isPattern:
		b.servicePatterns.add(m)
	case service == isNone && method == isPattern:
		b.methodPatterns.add(m)
	case service == isNone && method == isNone:
		b.all.add(m)
	case service == isNone:
		l.addLiteral(byMethod, host, "/"+m.method.text, m)
	case method == isNone:
		l.addLiteral(byService, host, "/"+m.service.text+"/", m)
	default:
		l.addLiteral(byPath, host, "/"+m.service.text+"/"+m.method.text, m)
	}
}

func (l *level) addLiteral(k kind, host, text string, m *match) {
	l.used[k] = true
	hash := join(maphash.String(seed, host), maphash.String(seed, text))
	key := host + text
	for e := l.literals[hash]; e != nil; e = e.next {
		if e.key == key && e.hostLen == len(host) {
			e.list.add(m)
			return
		}
	}
	e := &literal{key: key, hostLen: len(host), next: l.literals[hash]}
	e.list.add(m)
	l.literals[hash] = e
}

func (c *candidates) add(m *match) {
	if c.one.rule == nil {
		c.one = m.candidate()
		return
	}
	c.more = append(c.more, m.candidate())
}
