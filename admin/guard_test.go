package admin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

func TestHostNamesCheck(t *testing.T) {
	machine, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	hosts := newHostNames([]string{"gate.example", "UPPER.example."})
	for _, tc := range []struct {
		host string
		want bool
	}{
		{"127.0.0.1:8081", true},
		{"127.0.0.1", true},
		{"[::1]:8081", true},
		{"[::1]", true},
		{"10.1.2.3:9", true},
		{"[fe80::1%25eth0]:9", true},
		{"localhost", true},
		{"localhost:9000", true},
		{"LOCALHOST.:9000", true},
		{"node1.localhost:8081", true},
		{machine + ":8081", true},
		{"gate.example", true},
		{"Gate.Example:8081", true},
		{"gate.example.", true},
		{"upper.example", true},
		{"", true},

		{"evil.test", false},
		{"evil.test:8081", false},
		{"127.0.0.1.evil.test", false},
		{"localhost.evil.test", false},
		{"evillocalhost", false},
		{"gate.example.evil.test", false},
		{"evil-gate.example", false},
		{"127.0.0.1@evil.test", false},
		{"0x7f000001", false},
		{"2130706433", false},
		{"127.1", false},
		{".", false},
		{":8081", false},
		{"gate.example:8081:1", false},
		{"gate.example evil.test", false},
		{"gate.example\x00", false},
		{strings.Repeat("a", 5000), false},
	} {
		err := hosts.check(tc.host)
		if (err == nil) != tc.want {
			t.Errorf("Host %.100q: %v, want let in %v", tc.host, err, tc.want)
		}
		if err != nil && len(err.Error()) > auditTextBytes+200 {
			t.Errorf("Host of %d bytes: error of %d bytes", len(tc.host), len(err.Error()))
		}
	}
}

// D2: a name that somebody else has made to point here opens nothing, whoever asks.
func TestGuardRefusesForeignHosts(t *testing.T) {
	s := newSite(t)
	b := s.signedIn(t, "alice", adminv1.Role_ROLE_ADMIN)
	b.host = "evil.test:8081"
	b.header.Set("Origin", "http://evil.test:8081") // of the same origin, for all that the browser knows
	program := s.program(s.addToken(t, adminv1.Role_ROLE_ADMIN))
	program.host = "evil.test"
	local := s.local()
	local.host = "evil.test"
	for _, c := range []*client{b, program, local} {
		for _, path := range append(procedures(), "/healthz", "/", "/metrics", "/setup") {
			state, calls := s.records.state(), s.routes.count()
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				r := httptest.NewRequest(method, path, strings.NewReader("{}"))
				r.Header.Set("Content-Type", "application/json")
				resp, text := c.send(t, r)
				wantSecure(t, resp.Header)
				if resp.StatusCode != http.StatusForbidden || !strings.Contains(text, "evil.test") {
					t.Errorf("%s %s: %d %s, want 403", method, path, resp.StatusCode, text)
				}
			}
			if s.records.state() != state || s.routes.count() != calls {
				t.Errorf("%s: changed something", path)
			}
		}
	}
	if line := s.lines(t)[0]; !line.Refused || !strings.Contains(line.Why, "evil.test") || line.Address == "" {
		t.Errorf("audit line %v", line)
	}
}

// D1: what a page of another site makes the browser of a signed-in administrator
// send changes nothing.
func TestGuardRefusesForeignOrigins(t *testing.T) {
	s := newSite(t)
	b := s.signedIn(t, "alice", adminv1.Role_ROLE_ADMIN)
	const body = `{"text":"evil"}`
	for _, tc := range []struct {
		name, origin, site, contentType string
		want                            int
	}{
		{"own page", "http://127.0.0.1:8081", "same-origin", "application/json", 200},
		{"own page, an old browser", "http://127.0.0.1:8081", "", "application/json", 200},
		{"own page, no Origin", "", "same-origin", "application/json", 200},
		{"own page, gRPC-Web", "http://127.0.0.1:8081", "same-origin", "application/grpc-web+json", 200},

		{"another site", "https://evil.test", "cross-site", "application/json", 403},
		{"another site, an old browser", "https://evil.test", "", "application/json", 403},
		{"another site, gRPC-Web", "https://evil.test", "cross-site", "application/grpc-web+json", 403},
		{"another port", "http://127.0.0.1:9999", "same-site", "application/json", 403},
		{"another port, an old browser", "http://127.0.0.1:9999", "", "application/json", 403},
		{"a site below", "http://x.127.0.0.1:8081", "same-site", "application/json", 403},
		{"a sandboxed frame", "null", "cross-site", "application/json", 403},
		{"a sandboxed frame, an old browser", "null", "", "application/json", 403},
		{"no origin at all", "", "", "application/json", 403},
		{"a form", "http://127.0.0.1:8081", "same-origin", "application/x-www-form-urlencoded", 403},
		{"a form with files", "http://127.0.0.1:8081", "same-origin", "multipart/form-data; boundary=x", 403},
		{"no-cors, JSON as text", "https://evil.test", "cross-site", "text/plain", 403},
		{"JSON as text", "http://127.0.0.1:8081", "same-origin", "text/plain;charset=UTF-8", 403},
		{"JSON as text, hidden", "http://127.0.0.1:8081", "same-origin", "TEXT/plain; x=application/json", 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, value := range map[string]string{"Origin": tc.origin, "Sec-Fetch-Site": tc.site} {
				b.header.Del(name)
				if value != "" {
					b.header.Set(name, value)
				}
			}
			state, calls, lines := s.records.state(), s.routes.count(), len(s.lines(t))
			text := body
			if strings.Contains(tc.contentType, "grpc-web") {
				text = fmt.Sprintf("\x00\x00\x00\x00%c%s", len(body), body)
			}
			resp, answer := b.post(t, adminv1.ResourceServiceApplyProcedure, tc.contentType, text)
			refused := resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "" || strings.Contains(answer, "grpc-status: 7")
			if refused != (tc.want != 200) || tc.want == 403 && resp.StatusCode != 403 && !strings.Contains(tc.contentType, "grpc-web") {
				t.Errorf("answered %d %q, want %d", resp.StatusCode, answer, tc.want)
			}
			if (s.routes.count() != calls) != (tc.want == 200) || s.records.state() != state {
				t.Errorf("calls went from %d to %d", calls, s.routes.count())
			}
			if got := s.lines(t); len(got) != lines+1 || got[0].Refused != (tc.want != 200) {
				t.Errorf("%d audit lines, the last %v; want 1", len(got)-lines, got[0])
			}
			s.audit.pace = newAuditPace(s.now) // each refusal has its line here
		})
	}
}

// A page of another site cannot sign its visitor in, or set up, either.
func TestGuardRefusesForeignSignIn(t *testing.T) {
	s := newSite(t)
	s.addAccount(t, "alice", adminv1.Role_ROLE_ADMIN)
	b := s.browser()
	b.header.Set("Origin", "https://evil.test")
	b.header.Set("Sec-Fetch-Site", "cross-site")
	s.wantRefused(t, "sign-in", func() error { return b.signIn(t.Context(), "alice", goodPassword) },
		connect.CodePermissionDenied, "another site")
	s.wantRefused(t, "set-up", func() error {
		_, err := b.access().SetUp(t.Context(), connect.NewRequest(&adminv1.SetUpRequest{Secret: "x"}))
		return err
	}, connect.CodePermissionDenied, "another site")
	if len(b.cookies) != 0 {
		t.Errorf("it got cookies: %v", b.cookies)
	}
}

// Programs say no origin, and need none.
func TestGuardLetsProgramsIn(t *testing.T) {
	s := newSite(t)
	for _, c := range []*client{s.program(s.addToken(t, adminv1.Role_ROLE_OPERATOR)), s.local()} {
		if err := c.apply(t.Context(), "x"); err != nil {
			t.Error(err)
		}
	}
	if s.routes.count() != 2 {
		t.Errorf("%d calls, want 2", s.routes.count())
	}
	browser := s.program(s.addToken(t, adminv1.Role_ROLE_OPERATOR)) // with a token that a page got hold of
	browser.header.Set("Origin", "https://evil.test")
	s.wantRefused(t, "token from another site", func() error { return browser.apply(t.Context(), "x") },
		connect.CodePermissionDenied, "another site")
}

// Who has not signed in cannot send much.
func TestGuardBoundsTheBodiesOfStrangers(t *testing.T) {
	s := newSite(t)
	long := `{"name":"` + strings.Repeat("x", maxStrangerBody) + `"}`
	resp, text := s.program("").post(t, adminv1.AccessServiceSignInProcedure, "application/json", long)
	if resp.StatusCode == http.StatusOK || !strings.Contains(text, "resource_exhausted") {
		t.Errorf("answered %d %.200s, want resource_exhausted", resp.StatusCode, text)
	}
	resp, text = s.program("").post(t, adminv1.ResourceServiceApplyProcedure, "application/json", long)
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("answered %d %.200s, want 401 before the body is read", resp.StatusCode, text)
	}
}

func TestGuardLeavesOtherCredentialsAlone(t *testing.T) {
	s := newSite(t)
	c := s.program("")
	c.header.Set("Authorization", "Basic c2NyYXBlcjp4")
	r := httptest.NewRequest(http.MethodGet, "/healthz", nil)
	if resp, text := c.send(t, r); resp.StatusCode != http.StatusOK {
		t.Errorf("answered %d %s, want 200", resp.StatusCode, text)
	}
}

// What nobody foresaw is for the log; the client learns that it happened.
func TestGuardHidesWhatNobodyForesaw(t *testing.T) {
	s := newSite(t)
	s.Access.records = brokenRecords{}
	resp, text := s.program("sluice_x_y").post(t, adminv1.ResourceServiceGetProcedure, "application/json", "{}")
	if resp.StatusCode != http.StatusInternalServerError || strings.Contains(text, "secret path") {
		t.Errorf("answered %d %s", resp.StatusCode, text)
	}
	if !strings.Contains(s.log.String(), "secret path") {
		t.Error("the log does not have the cause")
	}
}

type brokenRecords struct{}

func (brokenRecords) View(func(RecordsTx) error) error {
	return fmt.Errorf("read /secret path: broken")
}

func (brokenRecords) Update(func(RecordsTx) error) error {
	return fmt.Errorf("write /secret path: broken")
}

func FuzzHostNames(f *testing.F) {
	for _, host := range []string{"localhost:1", "[::1]:80", "gate.example", "evil.test", "a.localhost", "[fe80::1%25x]", "gate.example:"} {
		f.Add(host)
	}
	hosts := hostNames{"localhost": true, "gate.example": true}
	f.Fuzz(func(t *testing.T, host string) {
		if hosts.check(host) != nil || host == "" {
			return
		}
		// Whatever is let in must be, to a browser, an address or a name of ours. A
		// browser's host has no more than these.
		name := strings.ToLower(host)
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-_:[]%") != "" {
			return
		}
		for _, ours := range []string{"localhost", "gate.example"} {
			if strings.Contains(name, ours) {
				return
			}
		}
		if strings.Trim(name, "0123456789.:") != "" && !strings.Contains(name, ":") {
			t.Errorf("%q was let in", host)
		}
	})
}
