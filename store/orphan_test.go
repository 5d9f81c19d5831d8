package store

import (
	"errors"
	"testing"
	"time"
)

// allGone is what a node says of others when it is alone with whoever it names.
func allGone(but ...*Store) func(string) bool {
	return func(node string) bool {
		for _, s := range but {
			if s.Node() == node {
				return false
			}
		}
		return true
	}
}

func mustRedeclare(t *testing.T, s *Store, gone func(string) bool, want int) {
	t.Helper()
	result, err := s.Redeclare(t.Context(), Author{Actor: "files"}, gone)
	if err != nil || len(result.Changes) != want {
		t.Fatalf("redeclared %d, want %d, %v", len(result.Changes), want, err)
	}
}

// A file of all nodes is changed while each of them is replaced by a new one without its
// data, and one that has no files looks on.
func TestRollingChangeOfAFileEndsWithTheNewText(t *testing.T) {
	for _, texts := range [][2]string{{"old", "new"}, {"new", "old"}} { // which first word is higher is by chance
		wall := newTestClock()
		open := func() *Store { return openStore(t, Options{AllowUnresolved: true, Now: wall.Now}) }
		watcher, pods := open(), []*Store{open(), open(), open()}
		for _, pod := range pods {
			mustSync(t, pod, labelled(texts[0]))
		}
		live := append([]*Store{watcher}, pods...)
		gossip(t, live...)
		for i := range pods {
			wall.pass(time.Minute)
			live[i+1] = open()
			mustSync(t, live[i+1], labelled(texts[1]))
			gossip(t, live...)
			for _, s := range live {
				if _, err := s.Redeclare(t.Context(), Author{Actor: "files"}, allGone(live...)); err != nil {
					t.Fatal(err)
				}
			}
			gossip(t, live...)
		}
		for i, s := range live {
			if got := mustGet(t, s, cartV1).Resource.Metadata().Labels["by"]; got != texts[1] {
				t.Errorf("node %d has %q, want %q", i, got, texts[1])
			}
			if n := len(s.Snapshot().Conflicts()); n > 0 {
				t.Errorf("node %d lists %d conflicts", i, n)
			}
			mustRedeclare(t, s, allGone(live...), 0)
		}
	}
}

// What a file declares of a node that is gone is deleted by who takes it over; what a file
// declares that is there is there again.
func TestOrphansCanBeDeleted(t *testing.T) {
	wall, a, b, c := trio(t)
	mustSync(t, a, labelled("a"))
	gossip(t, a, b, c)
	if got := b.Snapshot().Orphans(allGone(a, c)); len(got) != 0 {
		t.Errorf("%d orphans while the node is there", len(got))
	}
	b = reopen(t, b)
	got := b.Snapshot().Orphans(allGone(c))
	if len(got) != 1 || got[0].ID != cartV1 || got[0].FileNode != a.Node() {
		t.Fatalf("orphans %v", got)
	}
	wall.pass(time.Minute)
	remove := Txn{Ops: []Op{{ID: cartV1, Delete: true}}}
	var owned *OwnedError
	if _, err := b.Write(t.Context(), remove); !errors.As(err, &owned) {
		t.Errorf("deleted as it is: %v", err)
	}
	remove.TakeOver = true
	if _, err := a.Write(t.Context(), remove); !errors.As(err, &owned) {
		t.Errorf("deleted where the file is: %v", err)
	}
	mustWrite(t, b, remove)
	exchange(t, b, c)
	if _, there := c.Snapshot().Get(cartV1); there {
		t.Error("it is there still")
	}
	gossip(t, a, b, c) // it was not gone for good
	for i, s := range []*Store{a, b, c} {
		if _, there := s.Snapshot().Get(cartV1); !there {
			t.Errorf("node %d has it no more, and a file declares it", i)
		}
	}
	// The other way.
	b2 := openStore(t, Options{Now: wall.Now})
	exchange(t, b, b2)
	mustWrite(t, b2, Txn{Ops: []Op{{ID: cartV1, Adopt: true}}})
	mustWrite(t, b2, Txn{Ops: []Op{{ID: cartV1, Delete: true}}})
}

// A node that begins with an older text of a file than the one that all obey says nothing
// that anybody has to decide.
func TestFirstWordOfAFileIsNoConflictWithALaterOne(t *testing.T) {
	wall, a, b, c := trio(t)
	mustSync(t, a, labelled("old"))
	wall.pass(time.Minute)
	mustSync(t, a, labelled("new"))
	mustSync(t, b, labelled("old"))
	gossip(t, a, b, c)
	for i, want := range []string{"new of file in.yaml:1", "old of file in.yaml:1", "new of peer in.yaml:1"} {
		s := []*Store{a, b, c}[i]
		if got := labelOf(t, s); got != want || len(s.Snapshot().Conflicts()) > 0 {
			t.Errorf("node %d has %s over %d lost versions, want %s", i, got, len(mustGet(t, s, cartV1).Lost), want)
		}
	}
}
