package admin

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

func (s *site) setUpSecret(t *testing.T) string {
	t.Helper()
	link, err := s.SetUpLink()
	if err != nil {
		t.Fatal(err)
	}
	_, secret, found := strings.Cut(link.URLs[0], "#")
	if !found || len(secret) != 43 {
		t.Fatalf("link %s", link.URLs[0])
	}
	return secret
}

func (c *client) setUp(ctx context.Context, secret, name string) error {
	_, err := c.access().SetUp(ctx, connect.NewRequest(&adminv1.SetUpRequest{Secret: secret, Name: name, Password: goodPassword}))
	return err
}

func TestSetUpMakesTheFirstAdministrator(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	if who, err := b.whoAmI(t.Context()); err != nil || who != "  true" {
		t.Errorf("before: %q, %v", who, err)
	}
	secret := s.setUpSecret(t)
	if strings.Contains(s.records.all(), secret) {
		t.Error("the link's secret is in the records")
	}
	for name, wrong := range map[string]string{"empty": "", "wrong": "x", "cut": secret[:42], "its hash": hashSecret(secret)} {
		s.wantRefused(t, name, func() error { return b.setUp(t.Context(), wrong, "alice") },
			connect.CodePermissionDenied, "make a new one on the machine itself: sluice admin setup-link")
	}
	// A mistake costs the link nothing.
	s.wantRefused(t, "bad name", func() error { return b.setUp(t.Context(), secret, "A l i c e") }, connect.CodeInvalidArgument, "name")
	s.wantRefused(t, "reserved name", func() error { return b.setUp(t.Context(), secret, "sluice") },
		connect.CodeInvalidArgument, "stands for the node itself")
	if err := b.setUp(t.Context(), secret, "alice"); err != nil {
		t.Fatal(err)
	}
	line := s.lines(t)[0]
	if line.Action != "SetUp" || line.Actor != "alice" || line.Refused || len(line.Changes) != 1 {
		t.Errorf("audit line %v", line)
	}
	if err := b.signIn(t.Context(), "alice", goodPassword); err != nil {
		t.Fatal(err)
	}
	if who, err := b.whoAmI(t.Context()); err != nil || who != "alice admin false" {
		t.Errorf("after: %q, %v", who, err)
	}
	s.wantRefused(t, "again", func() error { return s.browser().setUp(t.Context(), secret, "mallory") },
		connect.CodePermissionDenied, "this link has been used")
}

func TestSetUpLinkEnds(t *testing.T) {
	s := newSite(t)
	first := s.setUpSecret(t)
	second := s.setUpSecret(t)
	s.wantRefused(t, "an earlier one", func() error { return s.browser().setUp(t.Context(), first, "alice") },
		connect.CodePermissionDenied, "is not the latest")
	s.clock.advance(24 * time.Hour)
	s.wantRefused(t, "a day later", func() error { return s.browser().setUp(t.Context(), second, "alice") },
		connect.CodePermissionDenied, "has ended")
	third := s.setUpSecret(t)
	s.clock.advance(24*time.Hour - time.Second)
	if err := s.browser().setUp(t.Context(), third, "alice"); err != nil {
		t.Errorf("just in time: %v", err)
	}
}

// A link stands in the log of the start. When there is an administrator it must open
// nothing any more, however that one was made; one that is made later is meant.
func TestSetUpLinkEndsWithTheFirstAdministrator(t *testing.T) {
	for name, administrator := range map[string]func(*testing.T, *site){
		"created": func(t *testing.T, s *site) { s.addAccount(t, "alice", adminv1.Role_ROLE_ADMIN) },
		"raised": func(t *testing.T, s *site) {
			s.addAccount(t, "alice", adminv1.Role_ROLE_VIEWER)
			_, err := s.local().access().UpdateAccount(t.Context(), connect.NewRequest(&adminv1.UpdateAccountRequest{
				Name: "alice", Role: adminv1.Role_ROLE_ADMIN,
			}))
			if err != nil {
				t.Fatal(err)
			}
		},
		"by the password file": func(t *testing.T, s *site) {
			if err := s.setFilePassword(t.Context(), nil, goodPassword); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			secret := s.setUpSecret(t)
			administrator(t, s)
			s.wantRefused(t, name, func() error { return s.browser().setUp(t.Context(), secret, "mallory") },
				connect.CodePermissionDenied, "make a new one on the machine itself")
			if err := s.browser().setUp(t.Context(), s.setUpSecret(t), "bob"); err != nil {
				t.Errorf("a link that was made afterwards: %v", err)
			}
		})
	}
	s := newSite(t)
	secret := s.setUpSecret(t)
	s.addAccount(t, "viewer", adminv1.Role_ROLE_VIEWER)
	if err := s.browser().setUp(t.Context(), secret, "alice"); err != nil {
		t.Errorf("after an account that is no administrator: %v", err)
	}
}

// Also by two at the same moment, who both have seen that it can be used.
func TestSetUpLinkIsUsedOnce(t *testing.T) {
	s := newSite(t)
	secret := s.setUpSecret(t)
	var both sync.WaitGroup
	both.Add(hashesOfStrangers)
	derive := s.passwords.derive
	s.passwords.derive = func(password, salt []byte, c passwordCost) []byte {
		both.Done()
		both.Wait()
		return derive(password, salt, c)
	}
	made := make(chan error)
	for i := range hashesOfStrangers {
		go func() { made <- s.browser().setUp(t.Context(), secret, fmt.Sprint("admin", i)) }()
	}
	good := 0
	for range hashesOfStrangers {
		if <-made == nil {
			good++
		}
	}
	if good != 1 || strings.Count(s.records.state(), accountPrefix) != 1 {
		t.Errorf("%d administrators were made, want 1:\n%s", good, s.records.state())
	}
}

// Without the secret nobody learns anything, and nothing is computed.
func TestSetUpLooksAtTheSecretFirst(t *testing.T) {
	s := newSite(t)
	s.addAccount(t, "alice", adminv1.Role_ROLE_VIEWER)
	s.setUpSecret(t)
	s.passwords.derive = func([]byte, []byte, passwordCost) []byte {
		t.Error("a hash was computed")
		return nil
	}
	for _, name := range []string{"alice", "bob", "Not A Name"} {
		s.wantRefused(t, name, func() error { return s.browser().setUp(t.Context(), "wrong", name) },
			connect.CodePermissionDenied, "this link has been used")
	}
}

// Only who is on the machine gets a new link: also an administrator of the page not.
func TestSetUpLinkIsMadeByTheSocketAlone(t *testing.T) {
	s := newSite(t)
	create := func(c *client) error {
		_, err := c.access().CreateSetUpLink(t.Context(), connect.NewRequest(&adminv1.CreateSetUpLinkRequest{}))
		return err
	}
	s.wantRefused(t, "nobody", func() error { return create(s.program("")) }, connect.CodeUnauthenticated, "sign in")
	token := s.addToken(t, adminv1.Role_ROLE_ADMIN)
	s.wantRefused(t, "an administrator", func() error { return create(s.program(token)) },
		connect.CodePermissionDenied, "only be done on the machine itself")
	withToken := s.local()
	withToken.header.Set("Authorization", "Bearer "+token)
	s.wantRefused(t, "a token on the socket", func() error { return create(withToken) },
		connect.CodePermissionDenied, "only be done on the machine itself")
	answer, err := s.local().access().CreateSetUpLink(t.Context(), connect.NewRequest(&adminv1.CreateSetUpLinkRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.Msg; len(got.Urls) != 1 || !got.Expires.AsTime().Equal(s.clock.Now().Add(24*time.Hour)) {
		t.Errorf("got %v", got)
	}
	if line := s.lines(t)[0]; line.Action != "CreateSetUpLink" || line.Actor != "local root" {
		t.Errorf("audit line %v", line)
	}
}

func TestSetUpLinkNamesReachableAddresses(t *testing.T) {
	tcp := func(ip string, port int) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: port} }
	for _, tc := range []struct {
		name     string
		addr     net.Addr
		tls      bool
		want     string // before "/setup#", without port numbers
		wantHint string
	}{
		{"loopback", tcp("127.0.0.1", 8081), false, "http://127.0.0.1:8081", "begin with: ssh -L 8081:127.0.0.1:8081 "},
		{"loopback of IPv6", tcp("::1", 9), false, "http://[::1]:9", "begin with: ssh -L 9:[::1]:9 "},
		{"one address", tcp("192.0.2.7", 8081), true, "https://192.0.2.7:8081", ""},
	} {
		s := newSite(t, func(cfg *AccessConfig) { cfg.Addr, cfg.TLS = tc.addr, tc.tls })
		link, err := s.SetUpLink()
		if err != nil {
			t.Fatal(err)
		}
		if len(link.URLs) != 1 || !strings.HasPrefix(link.URLs[0], tc.want+"/setup#") {
			t.Errorf("%s: %v, want %s", tc.name, link.URLs, tc.want)
		}
		if !strings.Contains(link.Hint, tc.wantHint) || (link.Hint == "") != (tc.wantHint == "") {
			t.Errorf("%s: hint %q, want %q", tc.name, link.Hint, tc.wantHint)
		}
	}
	own := func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("127.0.0.1")}
	}
	for _, all := range []string{"0.0.0.0", "::"} {
		got := strings.Join(reachable(tcp(all, 1), own), " ")
		if got != "10.1.2.3 2001:db8::1 127.0.0.1" {
			t.Errorf("%s stands for %s", all, got)
		}
	}
	for _, ip := range interfaceAddresses() {
		if ip.IsUnspecified() || ip.IsLinkLocalUnicast() {
			t.Errorf("%s is no address to go to", ip)
		}
	}
	s := newSite(t, func(cfg *AccessConfig) { cfg.Addr = nil })
	if _, err := s.SetUpLink(); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("without a port: %v", err)
	}
}
