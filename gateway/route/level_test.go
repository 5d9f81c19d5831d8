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
	entry := func(key string, hostLen int, r *Rule, next *literal) *literal {
		return &literal{key: key, hostLen: hostLen, list: candidates{one: candidate{rule: r}}, next: next}
	}
	// Another text, another hostname, and the same bytes cut elsewhere.
	chain := entry("a/b/d", 1, wrong, entry("x/b/c", 1, wrong, entry("a/b/c", 3, wrong, entry("a/b/c", 1, right, nil))))
	l := level{literals: map[uint64]*literal{hash: chain}, used: [numKinds]bool{true}, hosts: map[string]*bucket{"a": {}}}
	if r, served := l.find([]byte("a"), &q); r != right || !served {
		t.Errorf("got %v, %v; want the right one", r, served)
	}
	chain.next.next.next = nil
	if r, served := l.find([]byte("a"), &q); r != nil || !served {
		t.Errorf("without the right one: got %v, %v; want none", r, served)
	}
}

func TestLevelGathersTextsOfOneHash(t *testing.T) {
	l := level{literals: map[uint64]*literal{}, hosts: map[string]*bucket{"a": {}}}
	hash := join(maphash.String(seed, "a"), maphash.String(seed, "/s/"))
	l.literals[hash] = &literal{key: "b/s/", hostLen: 1, list: candidates{one: candidate{rule: &Rule{}}}}
	first, second := &Rule{}, &Rule{}
	for _, r := range []*Rule{first, second} {
		l.add("a", &match{rule: r, service: segment{text: "s"}})
	}
	q := newQuery("/s/m", nil)
	if r, _ := l.find([]byte("a"), &q); r != first {
		t.Errorf("got %p, want the first that was added, %p", r, first)
	}
	if e := l.literals[hash]; e.next == nil || e.next.next != nil || len(e.list.more) != 1 {
		t.Errorf("got %+v, want two entries, the first with two candidates", e)
	}
}
