package admin

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// stored is a site whose records are in a store on disk.
func stored(t *testing.T, dir string, c *clock) (*site, *store.Store) {
	t.Helper()
	st, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s := newSiteIn(t, func(cfg *AccessConfig) { cfg.Records, cfg.Now = RecordsOf(st), c.Now })
	s.clock = c
	return s, st
}

// What was made, ended and noted is so after a restart, too.
func TestAccessIsKeptInTheStore(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	s, st := stored(t, dir, c)
	alice := s.signedIn(t, "alice", adminv1.Role_ROLE_ADMIN)
	bob := s.signedIn(t, "bob", adminv1.Role_ROLE_VIEWER)
	old := s.browser()
	old.cookies["sluice-session-8081"] = bob.cookies["sluice-session-8081"]
	if err := bob.signOut(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept := alice.addToken(t, "kept", adminv1.Role_ROLE_OPERATOR, nil)
	gone := alice.addToken(t, "gone", adminv1.Role_ROLE_OPERATOR, nil)
	id, _, _ := splitToken(gone)
	if err := alice.revoke(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	secret := s.setUpSecret(t)
	lines := len(s.lines(t))
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}

	c.advance(time.Minute)
	s, st = stored(t, dir, c)
	defer st.Close()
	for _, browser := range []*client{alice, old} {
		browser.site = s
	}
	if got := len(s.lines(t)); got != lines {
		t.Errorf("%d audit lines after the restart, want %d", got, lines)
	}
	if err := alice.get(t.Context()); err != nil {
		t.Errorf("a session: %v", err)
	}
	if err := s.program(kept).apply(t.Context(), "x"); err != nil {
		t.Errorf("a token: %v", err)
	}
	for name, do := range map[string]func(context.Context) error{
		"a session that was ended": old.get,
		"a token that was revoked": s.program(gone).get,
	} {
		if err := do(t.Context()); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
	if err := s.browser().setUp(t.Context(), secret, "carol"); err != nil {
		t.Errorf("the link of before: %v", err)
	}
	ids := map[uint64]bool{}
	for _, line := range s.lines(t) {
		if ids[line.Id] {
			t.Errorf("two lines have the id %d", line.Id)
		}
		ids[line.Id] = true
	}
	needs, err := s.NeedsSetUp()
	if needs || err != nil {
		t.Errorf("needs set-up: %v, %v", needs, err)
	}
}
