package admin

import (
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"net/http"
	"strings"
	"time"

	adminv1 "sluice/admin/v1"
)

// token lets a machine in. What it shows is "sluice_", the ID, "_" and the secret,
// of which the hash is kept. By its beginning a token is found where it should not
// be; by its ID it is known which one to revoke.
type token struct {
	ID        string       `json:"id"`
	Name      string       `json:"name"`
	Role      adminv1.Role `json:"role"`
	Hash      string       `json:"hash"`
	Created   time.Time    `json:"created"`
	Expires   time.Time    `json:"expires,omitzero"` // zero: never
	LastSeen  time.Time    `json:"lastSeen,omitzero"`
	CreatedBy string       `json:"createdBy"`         // as in Identity.Actor
	Account   string       `json:"account,omitempty"` // of who made it; empty by the socket
}

const (
	tokenPrefix  = "token/" // of the records
	tokenMark    = "sluice_"
	tokenIDBytes = 5 // 8 characters
	tokensInAll  = 1000
)

func tokenKey(id string) string { return tokenPrefix + id }

// newToken returns a token and what it shows.
func newToken() (t *token, shows string) {
	secret, hash := newSecret()
	id := strings.ToLower(base32.StdEncoding.EncodeToString(random(tokenIDBytes)))
	return &token{ID: id, Hash: hash}, tokenMark + id + "_" + secret
}

// checkTokenRole takes one role more than accounts have: no person is a registrar.
func checkTokenRole(role adminv1.Role) error {
	if role != adminv1.Role_ROLE_REGISTRAR && checkRole(role) != nil {
		return errors.New("role: want viewer, operator, admin or registrar")
	}
	return nil
}

// splitToken takes apart what a token shows.
func splitToken(shows string) (id, secret string, ok bool) {
	rest, ok := strings.CutPrefix(shows, tokenMark)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "_")
}

// public is what others may know of a token.
func (t *token) public() *adminv1.Token {
	return &adminv1.Token{
		Id: t.ID, Name: t.Name, Role: t.Role, CreatedBy: t.CreatedBy,
		Created: stamp(t.Created), Expires: stamp(t.Expires), LastSeen: stamp(t.LastSeen),
	}
}

func (t *token) over(now time.Time) bool {
	return !t.Expires.IsZero() && !now.Before(t.Expires)
}

// bearer is the token that a request shows. There are requests with credentials of
// another kind, such as those of scrapers; these are not for us.
func bearer(r *http.Request) (shows string, ok bool) {
	scheme, shows, found := strings.Cut(r.Header.Get("Authorization"), " ")
	if !found || !strings.EqualFold(scheme, "bearer") {
		return "", false
	}
	return strings.TrimSpace(shows), true
}

// identifyToken finds out whose token it is that a request shows. A token can do no
// more than the account that made it can do now.
func (a *Access) identifyToken(id Identity, shows string) (Identity, error) {
	tokenID, secret, _ := splitToken(shows)
	hash, now := hashSecret(secret), a.now()
	var t *token
	var role adminv1.Role
	err := a.records.View(func(tx RecordsTx) (err error) {
		if t, err = get[token](tx, tokenKey(tokenID)); err != nil || t == nil {
			return err
		}
		role, err = roleOfToken(tx, t)
		return err
	})
	if err != nil {
		return id, err
	}
	if t == nil || subtle.ConstantTimeCompare([]byte(hash), []byte(t.Hash)) != 1 || t.over(now) {
		return id, errTokenUnknown
	}
	if now.Sub(t.LastSeen) >= seenEvery {
		a.tokenSeen(t.ID, now)
	}
	id.Actor, id.Role = "token "+t.Name, role
	id.token, id.account, id.until = tokenKey(t.ID), t.Account, t.Expires
	return id, nil
}

func roleOfToken(tx RecordsTx, t *token) (adminv1.Role, error) {
	if t.Account == "" {
		return t.Role, nil
	}
	maker, err := getAccount(tx, t.Account)
	if err != nil || maker == nil {
		return adminv1.Role_ROLE_UNSPECIFIED, err
	}
	return noMoreThan(maker.Role, t.Role), nil
}

// tokenSeen writes down that the token was used. One that was revoked meanwhile
// stays revoked.
func (a *Access) tokenSeen(id string, now time.Time) {
	a.noteSeen(a.records.Update(func(tx RecordsTx) error {
		t, err := get[token](tx, tokenKey(id))
		if err != nil || t == nil {
			return err
		}
		t.LastSeen = now
		return put(tx, tokenKey(id), t)
	}))
}

// deleteTokensOf deletes the tokens that an account made.
func deleteTokensOf(tx RecordsTx, name string) error {
	var keys []string
	err := each(tx, tokenPrefix, func(key string, t *token) error {
		if t.Account == name {
			keys = append(keys, key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return deleteAll(tx, keys)
}

// tokenChange is one line of the audit log's before and after.
func tokenChange(action string, t *token) *adminv1.Change {
	view := map[string]string{"id": t.ID, "name": t.Name, "role": roleName(t.Role)}
	if !t.Expires.IsZero() {
		view["expires"] = t.Expires.UTC().Format(time.RFC3339)
	}
	if action == "delete" {
		return recordChange(action, "Token", t.ID, view, nil)
	}
	return recordChange(action, "Token", t.ID, nil, view)
}
