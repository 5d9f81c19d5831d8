package admin

import (
	"context"
	"strings"
	"testing"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

func TestAccountIsCheckedBeforeItIsMade(t *testing.T) {
	s := newSite(t)
	s.addAccount(t, "alice", adminv1.Role_ROLE_ADMIN)
	for _, tc := range []struct {
		what, name, password string
		role                 adminv1.Role
		wantCode             connect.Code
		want                 string
	}{
		{"no name", "", goodPassword, 1, connect.CodeInvalidArgument, `name "": want 1 to 64 of a-z`},
		{"upper case", "Bob", goodPassword, 1, connect.CodeInvalidArgument, `name "Bob"`},
		{"a space", "local root", goodPassword, 1, connect.CodeInvalidArgument, `name "local root"`},
		{"a slash", "../token/x", goodPassword, 1, connect.CodeInvalidArgument, `name "../token/x"`},
		{"control characters", "bob\x00\n\x1b[2J", goodPassword, 1, connect.CodeInvalidArgument, "name \"bob   [2J\""},
		{"long", strings.Repeat("b", 65), goodPassword, 1, connect.CodeInvalidArgument, "name \"bbb"},
		{"short password", "bob", "short", 1, connect.CodeInvalidArgument, "password of 5 characters, want at least 12"},
		{"short in letters of many bytes", "bob", "äöüäöüäöüäö", 1, connect.CodeInvalidArgument, "password of 11 characters"},
		{"long password", "bob", strings.Repeat("x", 1025), 1, connect.CodeInvalidArgument, "password of 1025 bytes, limit 1024"},
		{"one letter", "bob", strings.Repeat("é", 20), 1, connect.CodeInvalidArgument, "one character again and again"},
		{"the name", "bob-the-builder", "Bob-The-Builder", 1, connect.CodeInvalidArgument, "the account's name"},
		{"a line end in the password", "bob", goodPassword + "\n", 1, connect.CodeInvalidArgument, "without control characters"},
		{"not text", "bob", goodPassword + "\x80", 1, connect.CodeInvalidArgument, ""},
		{"no role", "bob", goodPassword, 0, connect.CodeInvalidArgument, "role: want viewer, operator or admin"},
		{"a role that is none", "bob", goodPassword, 4, connect.CodeInvalidArgument, "role: want"},
		{"a negative role", "bob", goodPassword, -1, connect.CodeInvalidArgument, "role: want"},
		{"the node", "sluice", goodPassword, 1, connect.CodeInvalidArgument, `name "sluice" stands for the node itself`},
		{"its files", "files", goodPassword, 3, connect.CodeInvalidArgument, `name "files" stands for the node itself`},
		{"taken", "alice", goodPassword, 1, connect.CodeAlreadyExists, `there is an account "alice" already`},
	} {
		if tc.what == "not text" { // protobuf refuses it before us
			if checkPassword(tc.name, tc.password) == nil {
				t.Error("a password that is not text is taken")
			}
			continue
		}
		s.audit.pace = newAuditPace(s.now)
		s.wantRefused(t, tc.what, func() error {
			_, err := s.local().access().CreateAccount(t.Context(), connect.NewRequest(&adminv1.CreateAccountRequest{
				Name: tc.name, Password: tc.password, Role: tc.role,
			}))
			return err
		}, tc.wantCode, tc.want)
	}
}

func TestAccountsKeepAnAdministrator(t *testing.T) {
	s := newSite(t)
	alice := s.signedIn(t, "alice", adminv1.Role_ROLE_ADMIN)
	s.addAccount(t, "bob", adminv1.Role_ROLE_OPERATOR)
	remove := func(name string) error {
		_, err := alice.access().DeleteAccount(t.Context(), connect.NewRequest(&adminv1.DeleteAccountRequest{Name: name}))
		return err
	}
	sink := func(name string) error {
		_, err := alice.access().UpdateAccount(t.Context(), connect.NewRequest(&adminv1.UpdateAccountRequest{Name: name, Role: adminv1.Role_ROLE_VIEWER}))
		return err
	}
	const want = `account "alice" is the last administrator; make another first`
	s.wantRefused(t, "deleting the last", func() error { return remove("alice") }, connect.CodeFailedPrecondition, want)
	s.wantRefused(t, "sinking the last", func() error { return sink("alice") }, connect.CodeFailedPrecondition, want)
	s.wantRefused(t, "deleting nobody", func() error { return remove("carol") }, connect.CodeNotFound, `there is no account "carol"`)
	s.wantRefused(t, "changing nothing", func() error {
		_, err := alice.access().UpdateAccount(t.Context(), connect.NewRequest(&adminv1.UpdateAccountRequest{Name: "bob"}))
		return err
	}, connect.CodeInvalidArgument, "nothing to change")
	s.addAccount(t, "carol", adminv1.Role_ROLE_ADMIN)
	if err := sink("alice"); err != nil {
		t.Error(err)
	}
	if err := s.browser().signIn(t.Context(), "carol", goodPassword); err != nil {
		t.Error(err)
	}
}

// Who tries names learns nothing from what is said, and from what it costs.
func TestSignInDoesNotTellWhichAccountsExist(t *testing.T) {
	s := newSite(t)
	s.addAccount(t, "alice", adminv1.Role_ROLE_ADMIN)
	var costs []passwordCost
	derive := s.passwords.derive
	s.passwords.derive = func(password, salt []byte, c passwordCost) []byte {
		costs = append(costs, c)
		return derive(password, salt, c)
	}
	var said []string
	for i, name := range []string{"alice", "nobody", "", "alice ", strings.Repeat("x", 999), "../session/x"} {
		c := s.program("")
		c.address = "198.51.100." + string(rune('1'+i))
		err := c.signIn(t.Context(), name, "wrong "+goodPassword)
		said = append(said, err.Error())
	}
	for i := range said {
		if said[i] != "unauthenticated: wrong name or password" {
			t.Errorf("sign-in %d: %s", i, said[i])
		}
	}
	if len(costs) != len(said) {
		t.Errorf("%d sign-ins computed %d hashes: they do not all take the same time", len(said), len(costs))
	}
	for _, c := range costs {
		if c != cheap {
			t.Errorf("a hash cost %v, want %v like the others", c, cheap)
		}
	}
}

// People type their password where the name should be.
func TestSignInWritesNoUnknownNameDown(t *testing.T) {
	s := newSite(t)
	s.addAccount(t, "alice", adminv1.Role_ROLE_ADMIN)
	c := s.program("")
	s.wantRefused(t, "unknown", func() error { return c.signIn(t.Context(), "hunter2hunter2", "x") }, connect.CodeUnauthenticated, "wrong name or password")
	if line := s.lines(t)[0]; line.Actor != "" || line.Action != "SignIn" || line.Address != "192.0.2.1" {
		t.Errorf("audit line %v", line)
	}
	s.wantRefused(t, "known", func() error { return c.signIn(t.Context(), "alice", "x") }, connect.CodeUnauthenticated, "wrong name or password")
	if line := s.lines(t)[0]; line.Actor != "alice" || line.Role != "" {
		t.Errorf("audit line %v", line)
	}
	if strings.Contains(s.log.String()+s.records.all(), "hunter2") {
		t.Error("what was typed as a name is written down")
	}
	if err := c.signIn(t.Context(), "alice", goodPassword); err != nil {
		t.Fatal(err)
	}
	if line := s.lines(t)[0]; line.Actor != "alice" || line.Role != "admin" || line.Refused || line.Action != "SignIn" {
		t.Errorf("audit line %v", line)
	}
	if !strings.Contains(s.log.String(), `msg="signed in" account=alice address=192.0.2.1`) {
		t.Errorf("log: %s", s.log)
	}
}

// An account that is changed or deleted while its password is compared is not signed
// in to.
func TestSignInLosesAgainstAChange(t *testing.T) {
	for name, change := range map[string]func(context.Context, adminv1.AccessServiceClient) error{
		"password": func(ctx context.Context, c adminv1.AccessServiceClient) error {
			_, err := c.UpdateAccount(ctx, connect.NewRequest(&adminv1.UpdateAccountRequest{Name: "bob", Password: "another " + goodPassword}))
			return err
		},
		"deletion": func(ctx context.Context, c adminv1.AccessServiceClient) error {
			_, err := c.DeleteAccount(ctx, connect.NewRequest(&adminv1.DeleteAccountRequest{Name: "bob"}))
			return err
		},
	} {
		for _, outdated := range []bool{false, true} {
			s := newSite(t)
			s.addAccount(t, "bob", adminv1.Role_ROLE_VIEWER)
			derive, first := s.passwords.derive, true
			if outdated {
				s.passwords.cost.passes++
			}
			s.passwords.derive = func(password, salt []byte, c passwordCost) []byte {
				if first {
					first = false
					if err := change(t.Context(), s.local().access()); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				return derive(password, salt, c)
			}
			if err := s.browser().signIn(t.Context(), "bob", goodPassword); connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("%s, outdated hash %v: %v, want a refusal", name, outdated, err)
			}
			if strings.Contains(s.records.state(), "session/") {
				t.Errorf("%s: there is a session", name)
			}
		}
	}
}

// A full disk keeps people from signing in, and nothing else: the answer says so.
func TestSignInOnAFullDisk(t *testing.T) {
	s := newSite(t)
	b := s.signedIn(t, "alice", adminv1.Role_ROLE_ADMIN)
	s.records.full = errFull
	if err := s.browser().signIn(t.Context(), "alice", goodPassword); connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), store.ErrFull.Error()) {
		t.Errorf("sign-in: %v", err)
	}
	s.clock.advance(2 * seenEvery)
	if err := b.get(t.Context()); err != nil {
		t.Errorf("reading: %v", err)
	}
	if !strings.Contains(s.log.String(), store.ErrFull.Error()) {
		t.Error("the log does not say why")
	}
}
