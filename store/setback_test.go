package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// spoilFile damages a file of a store that is not open.
func spoilFile(t *testing.T, s *Store, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.opts.Dir, name), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A store that may have lost what was written last is that of another node: its peers may
// have what it has lost.
func TestStoreThatHasLostSomethingTakesAnotherName(t *testing.T) {
	for _, tt := range []struct {
		name    string
		harmed  []string
		removed []string
		renamed bool
	}{
		{name: "nothing"},
		{name: "the rows, and the journal has them", harmed: []string{"sluice.db"}},
		{name: "the journal", harmed: []string{"sluice.journal"}, renamed: true},
		{name: "no journal, as behind a backup that was put in place", removed: []string{"sluice.journal"}, renamed: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, Options{})
			applyText(t, s, backendText("cart-v1", ""))
			digest, former := s.Snapshot().Digest(), s.Node()
			closeStore(t, s)
			for _, name := range tt.harmed {
				spoilFile(t, s, name)
			}
			for _, name := range tt.removed {
				if err := os.Remove(filepath.Join(s.opts.Dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			s = openStore(t, s.opts)
			if renamed := s.Node() != former; renamed != tt.renamed {
				t.Errorf("it was %s, and is %s", former, s.Node())
			}
			if says := strings.Contains(s.Recovery(), "from now on it is node "+s.Node()); says != tt.renamed {
				t.Errorf("recovery says %q", s.Recovery())
			}
			if s.Snapshot().Digest() != digest {
				t.Error("it has other objects")
			}
			name := s.Node()
			if s = reopen(t, s); s.Node() != name || s.Recovery() != "" {
				t.Errorf("the next start: node %s, recovery %q", s.Node(), s.Recovery())
			}
			applyText(t, s, backendText("cart-v1", ", labels: {by: later}"))
			if o := mustGet(t, s, cartV1); o.Revision.Node != name {
				t.Errorf("it writes as %s", o.Revision)
			}
			if err := s.CheckConsistency(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is forgotten is what was made before the first of this life, and after the last of
// those before. All else this node knows, or has never made.
func TestStoreForgotWhatItHasMade(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	applyText(t, s, backendText("cart-v1", ""))
	s = reopen(t, s)
	known := mustGet(t, s, cartV1).Revision
	wall.pass(time.Minute)
	forgotten := Revision{wall.Now().UnixMilli(), 0, s.Node()}
	foreign := Revision{forgotten.Wall, 0, "other"}
	check := func(step string, r Revision, want bool) {
		t.Helper()
		if s.Forgot(r) != want {
			t.Errorf("%s: forgot %s: %v", step, r, !want)
		}
		if want {
			return
		}
		if done, err := s.SetBack(t.Context(), r); done || err != nil {
			t.Errorf("%s: set back by %s: %v, %v", step, r, done, err)
		}
	}
	check("at first", known, false)
	check("at first", foreign, false)
	check("at first", Revision{firstWall, 7, s.Node()}, false)
	check("at first", forgotten, true)
	wall.pass(time.Minute)
	applyText(t, s, backendText("cart-v1", ", labels: {by: later}"))
	check("after an edit", mustGet(t, s, cartV1).Revision, false)
	check("after an edit", known, false)
	check("after an edit", forgotten, true)

	former := s.Node()
	done, err := s.SetBack(t.Context(), forgotten)
	o := mustGet(t, s, cartV1)
	if !done || err != nil || o.Revision.Node == former || o.Vector[former] != known || o.Vector.Seen(forgotten) {
		t.Fatalf("%v, %v: revision %s, seen %v", done, err, o.Revision, o.Vector)
	}
	if s.Node() != former || !strings.Contains(s.Recovery(), "set back") {
		t.Errorf("node %s, recovery %q", s.Node(), s.Recovery())
	}
	check("afterwards", forgotten, false)
	if err := s.CheckConsistency(); err != nil {
		t.Error(err)
	}
	name := o.Revision.Node
	if s = reopen(t, s); s.Node() != name {
		t.Errorf("the next start is of %s, want %s", s.Node(), name)
	}
	check("after the next start", Revision{forgotten.Wall, 0, name}, false)
}

// A restored backup brings objects and nothing of who took it: each is an edit of this
// node, and other records stay as they are.
func TestRestoreBringsNothingOfWhoBackedUp(t *testing.T) {
	from, to := openStore(t, Options{}), openStore(t, Options{})
	applyText(t, from, backendText("cart-v1", ""))
	for _, s := range []*Store{from, to} {
		if err := s.Records("cluster.step").Put("last", []byte(s.Node())); err != nil {
			t.Fatal(err)
		}
	}
	name := to.Node()
	if _, err := to.Restore(t.Context(), backUp(t, from), Author{}, false); err != nil {
		t.Fatal(err)
	}
	o := mustGet(t, to, cartV1)
	if _, seen := o.Vector[from.Node()]; seen || o.Revision.Node != name || to.Node() != name {
		t.Errorf("node %s, revision %s, seen %v", to.Node(), o.Revision, o.Vector)
	}
	if step, _, err := to.Records("cluster.step").Get("last"); err != nil || string(step) != name {
		t.Errorf("record %q, %v", step, err)
	}
	if to = reopen(t, to); to.Node() != name {
		t.Errorf("node %s after a restart", to.Node())
	}
}
