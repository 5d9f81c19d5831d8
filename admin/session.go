package admin

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	adminv1 "sluice/admin/v1"
)

// How long a browser stays signed in, and how many may be at a time. Where there
// would be more, the one that began first ends.
const (
	sessionIdle       = time.Hour
	sessionLifetime   = 12 * time.Hour // whatever it does: a working day
	sessionsOfAccount = 20
	sessionsInAll     = 1000
)

// seenEvery is how often it is written down that somebody is there: a write is
// durable, and reading should not wait for it.
const seenEvery = time.Minute

// session is one signed-in browser. The record's key is the hash of the cookie's
// secret: who reads the records cannot sign in with them.
type session struct {
	Account string    `json:"account"`
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen"`
}

const sessionPrefix = "session/"

var (
	errSessionEnded = errors.New("the session has ended; sign in again")
	errTokenUnknown = errors.New("the token is unknown, has expired or was revoked; ask an administrator for a new one")
)

// secretBytes is the length of every secret of ours: 256 bits are not guessed.
const secretBytes = 32

// newSecret returns a secret and the hash that is kept of it.
func newSecret() (secret, hash string) {
	secret = base64.RawURLEncoding.EncodeToString(random(secretBytes))
	return secret, hashSecret(secret)
}

// hashSecret needs neither salt nor cost: its input has 256 random bits. Records are
// found by the hash, whose comparison tells an attacker nothing about the secret.
func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func sessionKey(secret string) string { return sessionPrefix + hashSecret(secret) }

// over tells whether the session counts no more.
func (s *session) over(now time.Time) bool {
	return now.Sub(s.Seen) >= sessionIdle || now.Sub(s.Created) >= sessionLifetime
}

// identifySession finds out whose session a cookie is.
func (a *Access) identifySession(id Identity, secret string) (Identity, error) {
	key, now := sessionKey(secret), a.now()
	var s *session
	var acc *account
	err := a.records.View(func(tx RecordsTx) (err error) {
		if s, err = get[session](tx, key); err != nil || s == nil {
			return err
		}
		acc, err = getAccount(tx, s.Account)
		return err
	})
	if err != nil {
		return id, err
	}
	if s == nil || acc == nil || s.over(now) {
		return id, errSessionEnded
	}
	if now.Sub(s.Seen) >= seenEvery {
		a.seen(key, s.Account, now)
	}
	id.Actor, id.Role = acc.Name, acc.Role
	id.account, id.session, id.until = acc.Name, key, s.Created.Add(sessionLifetime)
	return id, nil
}

// seen writes down that the session and its account were there. A session that was
// ended meanwhile stays ended.
func (a *Access) seen(key, name string, now time.Time) {
	a.noteSeen(a.records.Update(func(tx RecordsTx) error {
		s, err := get[session](tx, key)
		if err != nil || s == nil {
			return err
		}
		s.Seen = now
		if err := put(tx, key, s); err != nil {
			return err
		}
		return accountSeen(tx, name, now)
	}))
}

func accountSeen(tx RecordsTx, name string, now time.Time) error {
	acc, err := getAccount(tx, name)
	if err != nil || acc == nil {
		return err
	}
	acc.LastSeen = now
	return put(tx, accountKey(name), acc)
}

// noteSeen logs why it could not be written down that somebody was there, which is
// no reason to turn them away.
func (a *Access) noteSeen(err error) {
	if err != nil {
		a.log.Warn("last use not recorded", "error", err)
	}
}

// beginSession makes a session for an account, in the place of the one that the
// browser had: a secret that was known before the sign-in opens nothing after it.
func beginSession(tx RecordsTx, acc *account, old string, now time.Time) (secret string, err error) {
	if old != "" {
		if err := tx.Delete(old); err != nil {
			return "", err
		}
	}
	if err := makeRoom(tx, acc.Name, now); err != nil {
		return "", err
	}
	secret, hash := newSecret()
	return secret, put(tx, sessionPrefix+hash, &session{Account: acc.Name, Created: now, Seen: now})
}

// makeRoom ends sessions that are over, and those that began first where one more
// would be too many.
func makeRoom(tx RecordsTx, name string, now time.Time) error {
	if err := endSessions(tx, func(s *session) bool { return s.over(now) }); err != nil {
		return err
	}
	mine := func(s *session) bool { return s.Account == name }
	if err := endFirst(tx, mine, sessionsOfAccount-1); err != nil {
		return err
	}
	return endFirst(tx, func(*session) bool { return true }, sessionsInAll-1)
}

// endFirst ends those sessions of a kind that began first, so that at most keep stay.
func endFirst(tx RecordsTx, kind func(*session) bool, keep int) error {
	var begun []time.Time
	err := each(tx, sessionPrefix, func(_ string, s *session) error {
		if kind(s) {
			begun = append(begun, s.Created)
		}
		return nil
	})
	if err != nil || len(begun) <= keep {
		return err
	}
	slices.SortFunc(begun, time.Time.Compare)
	last := begun[len(begun)-keep-1]
	return endSessions(tx, func(s *session) bool { return kind(s) && !s.Created.After(last) })
}

// endSessions deletes those sessions that the function picks.
func endSessions(tx RecordsTx, pick func(*session) bool) error {
	var keys []string
	err := each(tx, sessionPrefix, func(key string, s *session) error {
		if pick(s) {
			keys = append(keys, key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return deleteAll(tx, keys)
}

func deleteAll(tx RecordsTx, keys []string) error {
	for _, key := range keys {
		if err := tx.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// cookieRule is how the session's cookie is to look to the browser of a request.
type cookieRule struct {
	name   string
	secure bool
}

// newCookieRule depends on whether the request came by TLS, where a cookie can be tied
// to it and to this host (RFC 6265bis, section 4.1.3.2: "__Host-"). Cookies are
// shared by all ports of a host, so the port is in the name: two nodes behind
// tunnels to one machine do not sign each other's users out.
func newCookieRule(r *http.Request) cookieRule {
	name := "sluice-session"
	if _, port, err := net.SplitHostPort(r.Host); err == nil && isDigits(port) {
		name += "-" + port
	}
	if r.TLS != nil {
		return cookieRule{"__Host-" + name, true}
	}
	return cookieRule{name, false}
}

func isDigits(s string) bool {
	return s != "" && len(s) <= 5 && strings.Trim(s, "0123456789") == ""
}

// cookie is the one that keeps a secret, or with an empty one ends its keeping.
func (c cookieRule) cookie(secret string) *http.Cookie {
	age := int(sessionLifetime / time.Second)
	if secret == "" {
		age = -1
	}
	return &http.Cookie{
		Name: c.name, Value: secret, Path: "/", MaxAge: age,
		HttpOnly: true, Secure: c.secure, SameSite: http.SameSiteStrictMode,
	}
}

// signedIn is the answer to a sign-in.
func signedIn(acc *account, now time.Time) *adminv1.SignInResponse {
	return &adminv1.SignInResponse{Account: acc.public(), Expires: stamp(now.Add(sessionLifetime))}
}
