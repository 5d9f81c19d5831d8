package admin

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	adminv1 "sluice/admin/v1"
)

// halfSent is a body in two parts, between which something happens.
type halfSent struct {
	first, rest io.Reader
	between     func()
}

func (b *halfSent) Read(p []byte) (int, error) {
	if n, err := b.first.Read(p); err == nil {
		return n, nil
	}
	if b.between != nil {
		b.between()
		b.between = nil
	}
	return b.rest.Read(p)
}

// A right that ends while a change is being sent ends before it is made.
func TestChangeIsRefusedWhenTheRightEndsWhileItIsSent(t *testing.T) {
	for _, tc := range []struct {
		name   string
		token  bool
		end    func(ctx context.Context, s *site) error
		status int
		want   string
	}{
		{"nothing happens", true, func(context.Context, *site) error { return nil }, http.StatusOK, ""},
		{"nothing happens to the session", false, func(context.Context, *site) error { return nil }, http.StatusOK, ""},
		{"token revoked", true, revokeToken, http.StatusUnauthorized, "the token is unknown"},
		{"token expired", true, func(_ context.Context, s *site) error { s.clock.advance(time.Hour); return nil }, http.StatusUnauthorized, "the token is unknown"},
		{"its maker deleted", true, deleteAlice, http.StatusUnauthorized, "the token is unknown"},
		{"its maker lowered", true, lowerAlice, http.StatusForbidden, "has the role viewer"},
		{"account deleted", false, deleteAlice, http.StatusUnauthorized, "the session has ended"},
		{"account lowered", false, lowerAlice, http.StatusUnauthorized, "the session has ended"},
		{"session not used", false, func(_ context.Context, s *site) error { s.clock.advance(sessionIdle); return nil }, http.StatusUnauthorized, "the session has ended"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t)
			s.addAccount(t, "root", adminv1.Role_ROLE_ADMIN)
			c := s.signedIn(t, "alice", adminv1.Role_ROLE_ADMIN)
			if tc.token {
				expires := s.clock.Now().Add(time.Hour)
				c = s.program(c.addToken(t, "deploy", adminv1.Role_ROLE_OPERATOR, &expires))
			}
			r := httptest.NewRequest(http.MethodPost, adminv1.ResourceServiceApplyProcedure, &halfSent{
				first: strings.NewReader(`{"text":"a`), rest: strings.NewReader(`b"}`),
				between: func() {
					if err := tc.end(t.Context(), s); err != nil {
						t.Error(err)
					}
				},
			})
			r.Header.Set("Content-Type", "application/json")
			resp, text := c.send(t, r)
			if resp.StatusCode != tc.status || !strings.Contains(text, tc.want) {
				t.Errorf("got %d %s, want %d with %q", resp.StatusCode, text, tc.status, tc.want)
			}
			line := s.lines(t)[0]
			if refused := tc.status != http.StatusOK; s.routes.count() == 0 != refused || line.Action != "Apply" || line.Refused != refused {
				t.Errorf("%d calls reached the service; audit line %v", s.routes.count(), line)
			}
		})
	}
}
