package admin

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

// Identity is whom a request comes from. The zero Identity is nobody.
type Identity struct {
	Actor   string       // "alice", "token deploy", "local root"
	Role    adminv1.Role // unspecified: nobody
	Via     string       // cli, api or page: as the client says, for people to read
	Address string       // of the client: an IP address, or "socket"
	Local   bool         // by the socket, whose other end the kernel vouches for

	// What ends when the right is taken away: the keys of the session, of the token
	// and of the account in the records. Empty where there is none.
	session, token, account string
	until                   time.Time // the credentials count no longer than that; zero for ever
}

type callerKey struct{}

// caller is what Guard found out about a request, and what is noted on its way.
type caller struct {
	Identity
	problem error // why credentials that were shown do not count; nil when they do, or none were
	cookies cookieRule
	shown   string // the key of the session whose cookie was shown, whether it counts or not
	met     bool   // a call of the API was read, and came to the interceptor
	note    note
}

// IdentityFrom returns whom a request comes from, as Guard found out.
func IdentityFrom(ctx context.Context) Identity {
	if c := callerFrom(ctx); c != nil {
		return c.Identity
	}
	return Identity{}
}

func callerFrom(ctx context.Context) *caller {
	c, _ := ctx.Value(callerKey{}).(*caller)
	return c
}

func withCaller(ctx context.Context, c *caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// identifyAgain finds out what the credentials that Guard accepted allow now.
func (a *Access) identifyAgain(c *caller) error {
	role, now := adminv1.Role_ROLE_UNSPECIFIED, a.now()
	var there bool
	err := a.records.View(func(tx RecordsTx) (err error) {
		switch {
		case c.token != "":
			var t *token
			if t, err = get[token](tx, c.token); err != nil || t == nil || t.over(now) {
				return err
			}
			there = true
			role, err = roleOfToken(tx, t)
		case c.session != "":
			var s *session
			if s, err = get[session](tx, c.session); err != nil || s == nil || s.over(now) {
				return err
			}
			var acc *account
			if acc, err = getAccount(tx, s.Account); err != nil || acc == nil {
				return err
			}
			there, role = true, acc.Role
		default:
			there, role = true, c.Role // by the socket
		}
		return err
	})
	if err != nil {
		return err
	}
	if !there {
		return connect.NewError(connect.CodeUnauthenticated, c.ended())
	}
	c.Role = role
	return nil
}

// socketAddress stands for the address of those who come by the socket.
const socketAddress = "socket"

// clientAddress is where a request comes from.
func clientAddress(r *http.Request) string {
	if _, ok := PeerFrom(r.Context()); ok {
		return socketAddress
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return "unknown"
	}
	return host
}

// clientVia is what the client says that it is. Nothing is allowed or refused by it.
func clientVia(r *http.Request) string {
	if saysOrigin(r) {
		return "page"
	}
	if strings.HasPrefix(r.UserAgent(), "sluice") {
		return "cli"
	}
	return "api"
}
