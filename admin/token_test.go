package admin

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

func (c *client) tokens(t *testing.T) []*adminv1.Token {
	t.Helper()
	answer, err := c.access().ListTokens(t.Context(), connect.NewRequest(&adminv1.ListTokensRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	return answer.Msg.Tokens
}

func (c *client) revoke(ctx context.Context, id string) error {
	_, err := c.access().RevokeToken(ctx, connect.NewRequest(&adminv1.RevokeTokenRequest{Id: id}))
	return err
}

func TestTokenLetsInUntilItIsRevoked(t *testing.T) {
	s := newSite(t)
	alice := s.signedIn(t, "alice", adminv1.Role_ROLE_ADMIN)
	secret := alice.addToken(t, "deploy", adminv1.Role_ROLE_OPERATOR, nil)
	if !strings.HasPrefix(secret, "sluice_") || len(secret) != len("sluice_")+8+1+43 {
		t.Errorf("the token is %q", secret)
	}
	if strings.Contains(s.records.all(), secret[len(secret)-43:]) {
		t.Error("the token's secret is in the records")
	}
	program := s.program(secret)
	if err := program.apply(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if who, err := program.whoAmI(t.Context()); who != "token deploy operator false" {
		t.Errorf("it is %q, %v", who, err)
	}
	listed := alice.tokens(t)
	if len(listed) != 1 || listed[0].CreatedBy != "alice" || listed[0].Expires != nil || !listed[0].LastSeen.AsTime().Equal(s.clock.Now()) {
		t.Errorf("listed: %v", listed)
	}
	if err := alice.revoke(t.Context(), listed[0].Id); err != nil {
		t.Fatal(err)
	}
	s.wantRefused(t, "revoked", func() error { return program.apply(t.Context(), "x") },
		connect.CodeUnauthenticated, "the token is unknown, has expired or was revoked")
	s.wantRefused(t, "revoking it again", func() error { return alice.revoke(t.Context(), listed[0].Id) },
		connect.CodeNotFound, "there is no token with the id")
}

func TestTokenExpires(t *testing.T) {
	s := newSite(t)
	expires := s.clock.Now().Add(time.Hour)
	program := s.program(s.local().addToken(t, "ci", adminv1.Role_ROLE_VIEWER, &expires))
	s.clock.advance(time.Hour - time.Second)
	if err := program.get(t.Context()); err != nil {
		t.Error(err)
	}
	s.clock.advance(time.Second)
	s.wantRefused(t, "expired", func() error { return program.get(t.Context()) }, connect.CodeUnauthenticated, "has expired")
	past := s.clock.Now()
	s.wantRefused(t, "made in the past", func() error {
		_, err := s.local().access().CreateToken(t.Context(), connect.NewRequest(&adminv1.CreateTokenRequest{
			Name: "ci", Role: adminv1.Role_ROLE_VIEWER, Expires: stamp(past),
		}))
		return err
	}, connect.CodeInvalidArgument, "in the past")
}

func TestTokenThatIsWrongIsRefused(t *testing.T) {
	s := newSite(t)
	good := s.addToken(t, adminv1.Role_ROLE_ADMIN)
	other := s.addToken(t, adminv1.Role_ROLE_VIEWER)
	id, _, _ := splitToken(good)
	_, otherSecret, _ := splitToken(other)
	for name, shows := range map[string]string{
		"empty":                     "",
		"no mark":                   strings.TrimPrefix(good, "sluice_"),
		"mark alone":                "sluice_",
		"no secret":                 "sluice_" + id,
		"empty secret":              "sluice_" + id + "_",
		"cut":                       good[:len(good)-1],
		"longer":                    good + "A",
		"other case":                strings.ToUpper(good),
		"another token's secret":    "sluice_" + id + "_" + otherSecret,
		"the hash for the secret":   "sluice_" + id + "_" + hashSecret(good[len(good)-43:]),
		"an id that leads away":     "sluice_../account/alice_x",
		"an id of another record":   "sluice_" + strings.Repeat("x", 9000) + "_x",
		"a cookie's secret":         otherSecret,
		"two":                       good + " " + good,
		"control characters":        "sluice_\x01_\x02",
		"something else altogether": "eyJhbGciOiJub25lIn0.e30.",
	} {
		c := s.program("")
		c.header.Set("Authorization", "Bearer "+shows)
		s.audit.pace = newAuditPace(s.now)
		s.wantRefused(t, name, func() error { return c.get(t.Context()) }, connect.CodeUnauthenticated, "the token is unknown")
		if _, err := c.whoAmI(t.Context()); err != nil && shows != "" {
			continue // not even asking who one is
		}
	}
	// Wrong credentials do not fall back to others.
	b := s.signedIn(t, "alice", adminv1.Role_ROLE_ADMIN)
	b.header.Set("Authorization", "Bearer sluice_x_y")
	s.wantRefused(t, "with a session beside it", func() error { return b.get(t.Context()) }, connect.CodeUnauthenticated, "the token is unknown")
	local := s.local()
	local.header.Set("Authorization", "Bearer sluice_x_y")
	s.wantRefused(t, "by the socket", func() error { return local.get(t.Context()) }, connect.CodeUnauthenticated, "the token is unknown")
}

// A token can do no more than its maker can do now.
func TestTokenSinksWithItsMaker(t *testing.T) {
	s := newSite(t)
	s.addAccount(t, "root", adminv1.Role_ROLE_ADMIN)
	alice := s.signedIn(t, "alice", adminv1.Role_ROLE_ADMIN)
	program := s.program(alice.addToken(t, "deploy", adminv1.Role_ROLE_OPERATOR, nil))
	_, err := s.local().access().UpdateAccount(t.Context(), connect.NewRequest(&adminv1.UpdateAccountRequest{Name: "alice", Role: adminv1.Role_ROLE_VIEWER}))
	if err != nil {
		t.Fatal(err)
	}
	if err := program.get(t.Context()); err != nil {
		t.Errorf("reading: %v", err)
	}
	s.wantRefused(t, "changing", func() error { return program.apply(t.Context(), "x") },
		connect.CodePermissionDenied, "token deploy has the role viewer; Apply needs operator")
	if _, err := s.local().access().DeleteAccount(t.Context(), connect.NewRequest(&adminv1.DeleteAccountRequest{Name: "alice"})); err != nil {
		t.Fatal(err)
	}
	s.wantRefused(t, "after its maker", func() error { return program.get(t.Context()) }, connect.CodeUnauthenticated, "the token is unknown")
}

func TestTokensAreNotTooMany(t *testing.T) {
	s := newSite(t)
	err := s.records.Update(func(tx RecordsTx) error {
		for range tokensInAll {
			made, _ := newToken()
			if err := put(tx, tokenKey(made.ID), made); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.wantRefused(t, "one more", func() error {
		_, err := s.local().access().CreateToken(t.Context(), connect.NewRequest(&adminv1.CreateTokenRequest{Name: "x", Role: adminv1.Role_ROLE_VIEWER}))
		return err
	}, connect.CodeResourceExhausted, "there are 1000 tokens, limit 1000")
}
