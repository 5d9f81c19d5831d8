package route

import (
	"hash/maphash"
	"testing"
)

// TestLevelTellsTextsOfOneHashApart makes by hand what chance will not.
func TestLevelTellsTextsOfOneHashApart(t *testing.T) {
	right, wrong := &Rule{Name: "right"}, &Rule{Name: "wrong"}
	q := newQuery("/b/c", nil)
	hash := join(maphash.String(seed, "a"), maphash.String(seed, "/b/c"))
	entry := func(key string, hostLen int32, r *Rule, next *literal) *literal {
		return &literal{key: key, hostLen: hostLen, list: candidates{one: candidate{rule: r}}, next: next}
	}
	// Another text, another hostname, and the same bytes cut elsewhere.
	chain := entry("a/b/d", 1, wrong, entry("x/b/c", 1, wrong, entry("a/b/c", 3, wrong, entry("a/b/c", 1, right, nil))))
	l := level{literals: map[uint64]*literal{hash: chain}, used: [numKinds]int{1}, hosts: map[string]*bucket{"a": {}}}
	if r, served := l.find([]byte("a"), &q); r != right || !served {
		t.Errorf("got %v, %v; want the right one", r, served)
	}
	chain.next.next.next = nil
	if r, served := l.find([]byte("a"), &q); r != nil || !served {
		t.Errorf("without the right one: got %v, %v; want none", r, served)
	}
}

func TestLevelGathersTextsOfOneHash(t *testing.T) {
	hash := literalHash("a", "/s/")
	stranger := &literal{key: "b/s/", hostLen: 1, list: candidates{one: candidate{rule: &Rule{}}}}
	before := level{literals: map[uint64]*literal{hash: stranger}, used: [numKinds]int{byService: 1}, hosts: map[string]*bucket{}}
	first, second := &Rule{Index: 1}, &Rule{Index: 2}
	matches := []*match{{rule: second, service: segment{text: "s"}}, {rule: first, service: segment{text: "s"}}}
	q := newQuery("/s/m", nil)

	var added level
	e := newLevelEdit(&added, before, 1)
	for _, m := range matches {
		e.add("a", m)
	}
	e.finish()
	if r, _ := added.find([]byte("a"), &q); r != first {
		t.Errorf("got %p, want the first by precedence, %p", r, first)
	}
	if l := added.literals[hash]; l.next == nil || l.next.next != nil || len(l.list.more) != 1 {
		t.Errorf("got %+v, want two entries, the first with two candidates", l)
	}

	var removed level
	e = newLevelEdit(&removed, added, 2)
	for _, m := range matches {
		e.remove("a", m)
	}
	e.finish()
	if l := removed.literals[hash]; l == nil || l.key != stranger.key || l.next != nil || len(removed.hosts) != 0 || removed.used[byService] != 1 {
		t.Errorf("got %+v and hostnames %v, want the stranger alone", l, removed.hosts)
	}
	if r, _ := added.find([]byte("a"), &q); r != first {
		t.Error("the table before has changed")
	}
}
