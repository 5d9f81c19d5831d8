package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

// accessServer answers sluice.admin.v1.AccessService. Who may call what has been
// decided before.
type accessServer struct{ *Access }

func invalid(err error) error { return connect.NewError(connect.CodeInvalidArgument, err) }

var errWrongPassword = connect.NewError(connect.CodeUnauthenticated, errors.New("wrong name or password"))

// SignIn takes as long, and says the same, whether the account is unknown or the
// password wrong.
func (s *accessServer) SignIn(ctx context.Context, r *connect.Request[adminv1.SignInRequest]) (*connect.Response[adminv1.SignInResponse], error) {
	c := callerFrom(ctx)
	name, password := r.Msg.Name, r.Msg.Password
	if len(name) > maxPassword || len(password) > maxPassword {
		return nil, invalid(fmt.Errorf("name or password of more than %d bytes", maxPassword))
	}
	attempt, err := s.attempt(ctx, c, name)
	if err != nil {
		return nil, tooEarly(err)
	}
	good := false
	defer func() { attempt.end(good) }()
	acc, err := s.authenticate(ctx, name, password)
	if err != nil {
		return nil, err
	}
	good = true
	return s.signIn(c, acc)
}

// attempt returns when it is time to compare the password. By the socket it always is.
func (s *accessServer) attempt(ctx context.Context, c *caller, name string) (*attempt, error) {
	if c.Local {
		return new(attempt), nil
	}
	return s.throttle.admit(ctx, c.Address, name)
}

// tooEarly says when to try again, where that is known.
func tooEarly(err error) error {
	var throttled *throttledError
	if !errors.As(err, &throttled) {
		return err
	}
	refusal := connect.NewError(connect.CodeResourceExhausted, err)
	if throttled.wait > 0 {
		refusal.Meta().Set("Retry-After", strconv.FormatFloat(math.Ceil(throttled.wait.Seconds()), 'f', 0, 64))
	}
	return refusal
}

// authenticate returns the account whose password it is.
func (s *accessServer) authenticate(ctx context.Context, name, password string) (*account, error) {
	var acc *account
	err := s.records.View(func(tx RecordsTx) (err error) {
		acc, err = getAccount(tx, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	hash := s.passwords.nobody
	if acc != nil {
		hash = acc.Password
		// Only names that exist are written down: another may be a password.
		noteActor(ctx, acc.Name, adminv1.Role_ROLE_UNSPECIFIED)
	}
	good, err := s.passwords.verify(ctx, hash, password, callerFrom(ctx).Local)
	if err != nil {
		return nil, err
	}
	if !good || acc == nil {
		return nil, errWrongPassword
	}
	noteActor(ctx, acc.Name, acc.Role)
	if s.passwords.outdated(acc.Password) {
		if acc.Password, err = s.passwords.hash(ctx, password, callerFrom(ctx).Local); err != nil {
			return nil, err
		}
	}
	return acc, s.keepHash(acc, hash)
}

// keepHash replaces the hash that the password was compared with by the account's new
// one, or refuses when the account was changed or deleted meanwhile.
func (s *accessServer) keepHash(acc *account, compared string) error {
	if acc.Password == compared {
		return nil
	}
	return s.records.Update(func(tx RecordsTx) error {
		now, err := getAccount(tx, acc.Name)
		if err != nil {
			return err
		}
		if now == nil || now.Password != compared {
			return errWrongPassword
		}
		now.Password = acc.Password
		return put(tx, accountKey(acc.Name), now)
	})
}

// signIn answers with a session for the account.
func (s *accessServer) signIn(c *caller, acc *account) (*connect.Response[adminv1.SignInResponse], error) {
	now := s.now()
	var secret string
	err := s.records.Update(func(tx RecordsTx) error {
		current, err := getAccount(tx, acc.Name)
		if err != nil {
			return err
		}
		if current == nil || current.Password != acc.Password {
			return errWrongPassword // it was changed while we compared
		}
		current.LastSeen = now
		if err := put(tx, accountKey(acc.Name), current); err != nil {
			return err
		}
		acc = current
		secret, err = beginSession(tx, acc, c.shown, now)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.endStreams(c.shown)
	s.log.Info("signed in", "account", acc.Name, "address", c.Address)
	answer := connect.NewResponse(signedIn(acc, now))
	answer.Header().Add("Set-Cookie", c.cookies.cookie(secret).String())
	return answer, nil
}

// endStreams ends those of a session or token, by its key.
func (s *accessServer) endStreams(key string) {
	s.streams.end(func(id Identity) bool { return key != "" && (id.session == key || id.token == key) })
}

func (s *accessServer) SignOut(ctx context.Context, _ *connect.Request[adminv1.SignOutRequest]) (*connect.Response[adminv1.SignOutResponse], error) {
	c := callerFrom(ctx)
	if c.session != "" {
		if err := s.records.Update(func(tx RecordsTx) error { return tx.Delete(c.session) }); err != nil {
			return nil, err
		}
		s.endStreams(c.session)
	}
	answer := connect.NewResponse(&adminv1.SignOutResponse{})
	answer.Header().Add("Set-Cookie", c.cookies.cookie("").String())
	return answer, nil
}

func (s *accessServer) WhoAmI(ctx context.Context, _ *connect.Request[adminv1.WhoAmIRequest]) (*connect.Response[adminv1.WhoAmIResponse], error) {
	needs, err := s.NeedsSetUp()
	if err != nil {
		return nil, err
	}
	id := IdentityFrom(ctx)
	return connect.NewResponse(&adminv1.WhoAmIResponse{Actor: id.Actor, Role: id.Role, NeedsSetUp: needs}), nil
}

func (s *accessServer) SetUp(ctx context.Context, r *connect.Request[adminv1.SetUpRequest]) (*connect.Response[adminv1.SetUpResponse], error) {
	// The secret first: what comes after it costs time, and tells which names are taken.
	now := s.now()
	err := s.records.View(func(tx RecordsTx) error { return checkSetUp(tx, r.Msg.Secret, now) })
	if err != nil {
		return nil, err
	}
	acc, err := s.newAccount(ctx, r.Msg.Name, r.Msg.Password, adminv1.Role_ROLE_ADMIN)
	if err != nil {
		return nil, err
	}
	err = s.records.Update(func(tx RecordsTx) error { return useSetUp(tx, r.Msg.Secret, acc, now) })
	if err != nil {
		return nil, err
	}
	noteActor(ctx, acc.Name, acc.Role)
	NoteChanges(ctx, []*adminv1.Change{accountChange("create", nil, acc)})
	return connect.NewResponse(&adminv1.SetUpResponse{Account: acc.public()}), nil
}

func (s *accessServer) CreateSetUpLink(context.Context, *connect.Request[adminv1.CreateSetUpLinkRequest]) (*connect.Response[adminv1.CreateSetUpLinkResponse], error) {
	link, err := s.newSetUpLink()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.CreateSetUpLinkResponse{
		Urls: link.URLs, Expires: stamp(link.Expires), Hint: link.Hint,
	}), nil
}

// newAccount checks what was asked for and hashes the password; nothing is kept yet.
func (s *accessServer) newAccount(ctx context.Context, name, password string, role adminv1.Role) (*account, error) {
	err := errors.Join(checkAccountName("name", name), checkPassword(name, password), checkRole(role))
	if err != nil {
		return nil, invalid(err)
	}
	hash, err := s.passwords.hash(ctx, password, IdentityFrom(ctx).Actor != "")
	if err != nil {
		return nil, err
	}
	return &account{Name: name, Role: role, Password: hash, Created: s.now()}, nil
}

func (s *accessServer) CreateAccount(ctx context.Context, r *connect.Request[adminv1.CreateAccountRequest]) (*connect.Response[adminv1.CreateAccountResponse], error) {
	acc, err := s.newAccount(ctx, r.Msg.Name, r.Msg.Password, r.Msg.Role)
	if err != nil {
		return nil, err
	}
	if err := s.records.Update(func(tx RecordsTx) error { return createAccount(tx, acc) }); err != nil {
		return nil, err
	}
	NoteChanges(ctx, []*adminv1.Change{accountChange("create", nil, acc)})
	return connect.NewResponse(&adminv1.CreateAccountResponse{Account: acc.public()}), nil
}

func (s *accessServer) ListAccounts(context.Context, *connect.Request[adminv1.ListAccountsRequest]) (*connect.Response[adminv1.ListAccountsResponse], error) {
	answer := &adminv1.ListAccountsResponse{}
	err := s.records.View(func(tx RecordsTx) error {
		all, err := accounts(tx)
		for _, acc := range all {
			answer.Accounts = append(answer.Accounts, acc.public())
		}
		return err
	})
	return connect.NewResponse(answer), err
}

func (s *accessServer) UpdateAccount(ctx context.Context, r *connect.Request[adminv1.UpdateAccountRequest]) (*connect.Response[adminv1.UpdateAccountResponse], error) {
	name, role, password := r.Msg.Name, r.Msg.Role, r.Msg.Password
	if role == adminv1.Role_ROLE_UNSPECIFIED && password == "" {
		return nil, invalid(errors.New("nothing to change: want a role, a password, or both"))
	}
	hash := ""
	if password != "" {
		acc, err := s.newAccount(ctx, name, password, cmp.Or(role, adminv1.Role_ROLE_VIEWER))
		if err != nil {
			return nil, err
		}
		hash = acc.Password
	}
	var before, after account
	err := s.records.Update(func(tx RecordsTx) error {
		acc, err := mustAccount(tx, name)
		if err != nil {
			return err
		}
		before = *acc
		acc.Role, acc.Password = cmp.Or(role, acc.Role), cmp.Or(hash, acc.Password)
		after = *acc
		return updateAccount(tx, &before, acc)
	})
	if err != nil {
		return nil, err
	}
	s.streams.end(func(id Identity) bool { return id.account == name })
	NoteChanges(ctx, []*adminv1.Change{accountChange("update", &before, &after)})
	return connect.NewResponse(&adminv1.UpdateAccountResponse{Account: after.public()}), nil
}

func updateAccount(tx RecordsTx, before, after *account) error {
	if err := checkRole(after.Role); err != nil {
		return invalid(err)
	}
	if before.Role == adminv1.Role_ROLE_ADMIN && after.Role != adminv1.Role_ROLE_ADMIN {
		if err := keepAnAdministrator(tx, after.Name); err != nil {
			return err
		}
	}
	if before.Role != adminv1.Role_ROLE_ADMIN && after.Role == adminv1.Role_ROLE_ADMIN {
		if err := tx.Delete(setUpKey); err != nil { // as createAccount
			return err
		}
	}
	if err := endSessions(tx, func(s *session) bool { return s.Account == after.Name }); err != nil {
		return err
	}
	return put(tx, accountKey(after.Name), after)
}

func (s *accessServer) DeleteAccount(ctx context.Context, r *connect.Request[adminv1.DeleteAccountRequest]) (*connect.Response[adminv1.DeleteAccountResponse], error) {
	name := r.Msg.Name
	var before *account
	err := s.records.Update(func(tx RecordsTx) (err error) {
		if before, err = mustAccount(tx, name); err != nil {
			return err
		}
		return deleteAccount(tx, before)
	})
	if err != nil {
		return nil, err
	}
	s.streams.end(func(id Identity) bool { return id.account == name })
	NoteChanges(ctx, []*adminv1.Change{accountChange("delete", before, nil)})
	return connect.NewResponse(&adminv1.DeleteAccountResponse{}), nil
}

func deleteAccount(tx RecordsTx, acc *account) error {
	if acc.Role == adminv1.Role_ROLE_ADMIN {
		if err := keepAnAdministrator(tx, acc.Name); err != nil {
			return err
		}
	}
	if err := endSessions(tx, func(s *session) bool { return s.Account == acc.Name }); err != nil {
		return err
	}
	if err := deleteTokensOf(tx, acc.Name); err != nil {
		return err
	}
	return tx.Delete(accountKey(acc.Name))
}

func (s *accessServer) CreateToken(ctx context.Context, r *connect.Request[adminv1.CreateTokenRequest]) (*connect.Response[adminv1.CreateTokenResponse], error) {
	id, now := IdentityFrom(ctx), s.now()
	if err := errors.Join(checkAccountName("name", r.Msg.Name), checkTokenRole(r.Msg.Role)); err != nil {
		return nil, invalid(err)
	}
	t, shows := newToken()
	t.Name, t.Role, t.Created, t.CreatedBy, t.Account = r.Msg.Name, r.Msg.Role, now, id.Actor, id.account
	if r.Msg.Expires != nil {
		if t.Expires = r.Msg.Expires.AsTime(); t.over(now) {
			return nil, invalid(fmt.Errorf("expires: %s is in the past", t.Expires.Format(time.RFC3339)))
		}
	}
	if err := s.records.Update(func(tx RecordsTx) error { return createToken(tx, t) }); err != nil {
		return nil, err
	}
	NoteChanges(ctx, []*adminv1.Change{tokenChange("create", t)})
	return connect.NewResponse(&adminv1.CreateTokenResponse{Token: t.public(), Secret: shows}), nil
}

func createToken(tx RecordsTx, t *token) error {
	all, err := rows[token](tx, tokenPrefix)
	if err != nil {
		return err
	}
	if len(all) >= tokensInAll {
		return connect.NewError(connect.CodeResourceExhausted,
			fmt.Errorf("there are %d tokens, limit %d; revoke those that nobody uses", len(all), tokensInAll))
	}
	return put(tx, tokenKey(t.ID), t)
}

func (s *accessServer) ListTokens(context.Context, *connect.Request[adminv1.ListTokensRequest]) (*connect.Response[adminv1.ListTokensResponse], error) {
	answer := &adminv1.ListTokensResponse{}
	err := s.records.View(func(tx RecordsTx) error {
		all, err := rows[token](tx, tokenPrefix)
		slices.SortFunc(all, func(x, y *token) int { return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.ID, y.ID)) })
		for _, t := range all {
			answer.Tokens = append(answer.Tokens, t.public())
		}
		return err
	})
	return connect.NewResponse(answer), err
}

func (s *accessServer) RevokeToken(ctx context.Context, r *connect.Request[adminv1.RevokeTokenRequest]) (*connect.Response[adminv1.RevokeTokenResponse], error) {
	key := tokenKey(r.Msg.Id)
	var t *token
	err := s.records.Update(func(tx RecordsTx) (err error) {
		if t, err = get[token](tx, key); err != nil {
			return err
		}
		if t == nil {
			return connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no token with the id %s", quoted(r.Msg.Id)))
		}
		return tx.Delete(key)
	})
	if err != nil {
		return nil, err
	}
	s.endStreams(key)
	NoteChanges(ctx, []*adminv1.Change{tokenChange("delete", t)})
	return connect.NewResponse(&adminv1.RevokeTokenResponse{}), nil
}

// How many lines of the audit log are listed at a time.
const (
	auditDefaultLimit = 100
	auditMaxLimit     = 1000
)

func (s *accessServer) Audit(_ context.Context, r *connect.Request[adminv1.AuditRequest]) (*connect.Response[adminv1.AuditResponse], error) {
	entries, err := s.audit.list(auditQuery{
		limit:  min(int(cmp.Or(r.Msg.Limit, auditDefaultLimit)), auditMaxLimit),
		before: r.Msg.Before, actor: r.Msg.Actor, ref: r.Msg.Ref, refused: r.Msg.Refused,
	})
	return connect.NewResponse(&adminv1.AuditResponse{Entries: entries}), err
}
