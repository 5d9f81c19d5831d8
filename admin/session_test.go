package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

func (c *client) signOut(ctx context.Context) error {
	_, err := c.access().SignOut(ctx, connect.NewRequest(&adminv1.SignOutRequest{}))
	return err
}

func (c *client) whoAmI(ctx context.Context) (string, error) {
	answer, err := c.access().WhoAmI(ctx, connect.NewRequest(&adminv1.WhoAmIRequest{}))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %s %v", answer.Msg.Actor, roleName(answer.Msg.Role), answer.Msg.NeedsSetUp), nil
}

func TestSessionCookieIsForThisHostAlone(t *testing.T) {
	for _, tc := range []struct {
		name, host string
		tls        bool
		want       string
	}{
		{"clear text", "127.0.0.1:8081", false, "sluice-session-8081=X; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"},
		{"a tunnel", "localhost:9000", false, "sluice-session-9000=X; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"},
		{"no port", "localhost", false, "sluice-session=X; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"},
		{"TLS", "gate.example:8081", true, "__Host-sluice-session-8081=X; Path=/; Max-Age=43200; HttpOnly; Secure; SameSite=Strict"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t)
			s.addAccount(t, "alice", adminv1.Role_ROLE_VIEWER)
			c := s.program("")
			c.host, c.tls = tc.host, tc.tls
			resp, text := c.post(t, adminv1.AccessServiceSignInProcedure, "application/json",
				`{"name":"alice","password":"`+goodPassword+`"}`)
			cookies := resp.Cookies()
			if resp.StatusCode != 200 || len(cookies) != 1 {
				t.Fatalf("answered %d %s with cookies %v", resp.StatusCode, text, cookies)
			}
			got := strings.Replace(resp.Header.Get("Set-Cookie"), cookies[0].Value, "X", 1)
			if got != tc.want || len(cookies[0].Value) != 43 {
				t.Errorf("cookie %s, want %s", got, tc.want)
			}
			if strings.Contains(s.records.all(), cookies[0].Value) {
				t.Error("the cookie's secret is in the records")
			}
			if strings.Contains(text, cookies[0].Value) {
				t.Error("the cookie's secret is in the body, where scripts read it")
			}
		})
	}
}

func TestSessionIsRefusedAfterSignOut(t *testing.T) {
	s := newSite(t)
	b := s.signedIn(t, "alice", adminv1.Role_ROLE_OPERATOR)
	if err := b.apply(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	stolen := s.browser()
	stolen.cookies["sluice-session-8081"] = b.cookies["sluice-session-8081"]
	if err := b.signOut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(b.cookies) != 0 {
		t.Errorf("the browser keeps %v", b.cookies)
	}
	s.wantRefused(t, "replay", func() error { return stolen.apply(t.Context(), "x") },
		connect.CodeUnauthenticated, "the session has ended; sign in again")
	s.wantRefused(t, "replay of reading", func() error { return stolen.get(t.Context()) },
		connect.CodeUnauthenticated, "the session has ended")
	if who, err := stolen.whoAmI(t.Context()); err != nil || who != "  true" {
		t.Errorf("the stolen cookie is %q, %v; want nobody", who, err)
	}
	if err := stolen.signOut(t.Context()); err != nil { // does no harm, twice
		t.Error(err)
	}
	if err := stolen.signIn(t.Context(), "alice", goodPassword); err != nil { // an old cookie is in nobody's way
		t.Error(err)
	}
}

func TestSessionChangesAtSignIn(t *testing.T) {
	s := newSite(t)
	b := s.signedIn(t, "alice", adminv1.Role_ROLE_OPERATOR)
	before := s.browser()
	before.cookies["sluice-session-8081"] = b.cookies["sluice-session-8081"]
	if err := b.signIn(t.Context(), "alice", goodPassword); err != nil {
		t.Fatal(err)
	}
	if b.cookies["sluice-session-8081"] == before.cookies["sluice-session-8081"] {
		t.Error("the session is the same after another sign-in")
	}
	s.wantRefused(t, "the session before", func() error { return before.get(t.Context()) },
		connect.CodeUnauthenticated, "the session has ended")
	// A secret that an attacker made the browser keep beforehand opens nothing.
	chosen := s.browser()
	chosen.cookies["sluice-session-8081"] = "chosen-by-somebody-else"
	if err := chosen.signIn(t.Context(), "alice", goodPassword); err != nil {
		t.Fatal(err)
	}
	if chosen.cookies["sluice-session-8081"] == "chosen-by-somebody-else" {
		t.Error("the session has the secret that was there before")
	}
}

func TestSessionEnds(t *testing.T) {
	s := newSite(t)
	for _, tc := range []struct {
		name  string
		every time.Duration // between two uses
		for_  time.Duration // until then it is used
		want  bool          // it counts at the end
	}{
		{"used just in time", 59 * time.Minute, 11 * time.Hour, true},
		{"left alone for an hour", time.Hour, time.Hour, false},
		{"used all the time, for a day", 30 * time.Minute, 12 * time.Hour, false},
		{"used for half a day", 30 * time.Minute, 11*time.Hour + 30*time.Minute, true},
	} {
		name := strings.ReplaceAll(strings.ReplaceAll(tc.name, " ", "-"), ",", "")
		b := s.signedIn(t, name, adminv1.Role_ROLE_VIEWER)
		var err error
		for used := time.Duration(0); used+tc.every <= tc.for_; used += tc.every {
			s.clock.advance(tc.every)
			err = b.get(t.Context())
		}
		if (err == nil) != tc.want {
			t.Errorf("%s: %v, want it to count: %v", tc.name, err, tc.want)
		}
	}
	if err := s.tidy(); err != nil {
		t.Fatal(err)
	}
	s.clock.advance(sessionLifetime)
	if err := s.tidy(); err != nil || strings.Contains(s.records.state(), "session/") {
		t.Errorf("after the lifetime of all there are still sessions:\n%s, %v", s.records.state(), err)
	}
}

func TestSessionsAreNotTooMany(t *testing.T) {
	s := newSite(t)
	s.addAccount(t, "alice", adminv1.Role_ROLE_VIEWER)
	var browsers []*client
	for range sessionsOfAccount + 3 {
		s.clock.advance(time.Second)
		b := s.browser()
		if err := b.signIn(t.Context(), "alice", goodPassword); err != nil {
			t.Fatal(err)
		}
		browsers = append(browsers, b)
	}
	for i, b := range browsers {
		if err := b.get(t.Context()); (err == nil) != (i >= 3) {
			t.Errorf("session %d of %d: %v", i+1, len(browsers), err)
		}
	}
	if n := strings.Count(s.records.state(), "session/"); n != sessionsOfAccount {
		t.Errorf("%d sessions are kept, limit %d", n, sessionsOfAccount)
	}
}

func TestSessionEndsWithItsAccount(t *testing.T) {
	for name, change := range map[string]func(adminv1.AccessServiceClient) error{
		"password": func(c adminv1.AccessServiceClient) error {
			_, err := c.UpdateAccount(t.Context(), connect.NewRequest(&adminv1.UpdateAccountRequest{Name: "bob", Password: "another " + goodPassword}))
			return err
		},
		"role": func(c adminv1.AccessServiceClient) error {
			_, err := c.UpdateAccount(t.Context(), connect.NewRequest(&adminv1.UpdateAccountRequest{Name: "bob", Role: adminv1.Role_ROLE_VIEWER}))
			return err
		},
		"deletion": func(c adminv1.AccessServiceClient) error {
			_, err := c.DeleteAccount(t.Context(), connect.NewRequest(&adminv1.DeleteAccountRequest{Name: "bob"}))
			return err
		},
	} {
		s := newSite(t)
		alice := s.signedIn(t, "alice", adminv1.Role_ROLE_ADMIN)
		bob := s.signedIn(t, "bob", adminv1.Role_ROLE_OPERATOR)
		if err := change(alice.access()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s.wantRefused(t, name, func() error { return bob.apply(t.Context(), "x") }, connect.CodeUnauthenticated, "the session has ended")
		if err := alice.get(t.Context()); err != nil {
			t.Errorf("%s of another: %v", name, err)
		}
	}
}

// Answers about a session are for no cache, and no script of another site: the guard
// adds nothing that would allow it.
func TestGuardAllowsNoOtherOrigin(t *testing.T) {
	s := newSite(t)
	b := s.signedIn(t, "alice", adminv1.Role_ROLE_VIEWER)
	r := httptest.NewRequest(http.MethodOptions, adminv1.ResourceServiceGetProcedure, nil)
	r.Header.Set("Origin", "https://evil.test")
	r.Header.Set("Access-Control-Request-Method", "POST")
	resp, _ := b.send(t, r)
	for name := range resp.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("a preflight is answered with %s: %s", name, resp.Header.Get(name))
		}
	}
}

// A browser over TLS, with everything that is between it and us.
func TestSessionOverTLS(t *testing.T) {
	s := newSite(t)
	s.addAccount(t, "alice", adminv1.Role_ROLE_ADMIN)
	server := httptest.NewTLSServer(s.handler)
	defer server.Close()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := server.Client()
	browser.Jar = jar
	ask := func(procedure, body, origin string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+procedure, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", origin)
		resp, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	signIn := `{"name":"alice","password":"` + goodPassword + `"}`
	for _, step := range []struct {
		procedure, body, origin string
		want                    int
	}{
		{adminv1.ResourceServiceApplyProcedure, "{}", server.URL, 401},
		{adminv1.AccessServiceSignInProcedure, signIn, server.URL, 200},
		{adminv1.ResourceServiceApplyProcedure, "{}", server.URL, 200},
		{adminv1.ResourceServiceApplyProcedure, "{}", "https://evil.test", 403},
		{adminv1.AccessServiceSignOutProcedure, "{}", server.URL, 200},
		{adminv1.ResourceServiceApplyProcedure, "{}", server.URL, 401},
	} {
		if got := ask(step.procedure, step.body, step.origin); got != step.want {
			t.Errorf("%s from %s: status %d, want %d", step.procedure, step.origin, got, step.want)
		}
	}
}

// Everything at once, for the race detector.
func TestAccessServesManyAtOnce(t *testing.T) {
	s := newSite(t)
	root := s.signedIn(t, "root", adminv1.Role_ROLE_ADMIN)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			name := fmt.Sprint("user", i)
			s.addAccount(t, name, adminv1.Role_ROLE_ADMIN)
			for round := range 5 {
				b := s.browser()
				b.address = fmt.Sprintf("10.0.%d.%d", round, i)
				b.signIn(t.Context(), name, "wrong "+goodPassword)
				if err := b.signIn(t.Context(), name, goodPassword); err != nil {
					t.Error(err)
					return
				}
				program := s.program(b.addToken(t, "x", adminv1.Role_ROLE_OPERATOR, nil))
				program.apply(t.Context(), name)
				s.clock.advance(time.Second)
				b.get(t.Context())
				b.signOut(t.Context())
				b.get(t.Context())
				if err := s.tidy(); err != nil {
					t.Error(err)
				}
			}
			if _, err := s.local().access().DeleteAccount(t.Context(), connect.NewRequest(&adminv1.DeleteAccountRequest{Name: name})); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := root.get(t.Context()); err != nil {
		t.Errorf("who was not concerned: %v", err)
	}
	if state := s.records.state(); strings.Count(state, sessionPrefix) != 1 || strings.Contains(state, "token/") || strings.Count(state, accountPrefix) != 1 {
		t.Errorf("left over:\n%s", state)
	}
	if got, want := s.routes.count(), 8*5*2+1; got != want { // an Apply and a Get of each, and root's
		t.Errorf("%d calls, want %d", got, want)
	}
}
