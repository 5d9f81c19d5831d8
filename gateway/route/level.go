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
	used     [numKinds]int       // how many literals there are of each kind
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
	key        string // the hostname, and the text behind it
	hostLen    int32
	generation uint32 // of the table that it was made for
	list       candidates
	next       *literal // of the same hash
}

// is tells whether the literal is that of a text on a hostname.
func (l *literal) is(host []byte, text string) bool {
	n := int(l.hostLen)
	return n == len(host) && l.key[:n] == string(host) && l.key[n:] == text
}

// bucket is what one hostname matches by other means than literals.
type bucket struct {
	servicePatterns candidates // regular expressions for the service, and perhaps the method
	methodPatterns  candidates // regular expressions for the method alone
	all             candidates // every service and method

	matches    int    // of the hostname, literals among them
	generation uint32 // of the table that it was made for
}

// candidates are in order of precedence. Nearly always there is just one.
type candidates struct {
	one  candidate // the first, no rule when there is none
	more []candidate
}

// candidate is a match as a lookup meets it.
type candidate struct {
	rule  *Rule
	rest  *match // what is to be compared yet; nil when nothing is
	match *match // for the order of the list
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
	if l.used[k] == 0 || text == "" {
		return nil
	}
	if q.hashes[k] == 0 {
		q.hashes[k] = maphash.String(seed, text)
	}
	for e := l.literals[join(hostHash, q.hashes[k])]; e != nil; e = e.next {
		if e.is(host, text) {
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
