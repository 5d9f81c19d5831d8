package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"
)

// AccessConfig is what decides who gets in.
type AccessConfig struct {
	// Records keep accounts, sessions, tokens and the audit log.
	Records Records

	// Hosts are the names, beside addresses and those of this machine, by which the
	// door may be called.
	Hosts []string

	// TLS says that the port speaks it: cookies are then for TLS alone, and links
	// begin with https.
	TLS bool

	// Addr is where the port listens, for links. Nil means that there is no port.
	Addr net.Addr

	// PasswordFile has the password of the account "admin"; empty means the systemd
	// credential of that purpose, and where there is none, no such account.
	PasswordFile string

	// Now is the time; nil means time.Now.
	Now func() time.Time

	Log *slog.Logger
}

// Access knows who may do what, and keeps the book of what was done.
type Access struct {
	cfg AccessConfig
}

// NewAccess checks cfg, reads the password file and starts nothing.
func NewAccess(cfg AccessConfig) (*Access, error) {
	return &Access{cfg: cfg}, nil
}

// Run tidies up until ctx ends: sessions that are over, audit lines that are too
// old or too many.
func (a *Access) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Guard stands before everything that the door answers. It refuses requests with a
// foreign Host or Origin, finds out whom the others come from, and refuses calls of
// the API for which the role does not suffice before their body is read.
func (a *Access) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(withCaller(r.Context(), &caller{})))
	})
}

// HandlerOptions are those of every service of the API: the interceptor that
// refuses and keeps the book, and a bound on the size of a message.
func (a *Access) HandlerOptions() []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithInterceptors(a.Interceptor()),
		connect.WithReadMaxBytes(maxMessageBytes),
	}
}

// maxMessageBytes is the longest message that is read: the text of some 20,000
// routes.
const maxMessageBytes = 32 << 20

// Interceptor refuses what the caller's role does not allow, and writes the audit
// line of every call that changes something or was refused.
func (a *Access) Interceptor() connect.Interceptor {
	return connect.UnaryInterceptorFunc(func(connect.UnaryFunc) connect.UnaryFunc {
		return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
			return nil, connect.NewError(connect.CodeUnimplemented, errors.New("access is being built"))
		}
	})
}

// Service answers sluice.admin.v1.AccessService at the returned path prefix.
func (a *Access) Service() (string, http.Handler) {
	return "/sluice.admin.v1.AccessService/", http.NotFoundHandler()
}

// NeedsSetUp says whether there is no administrator yet.
func (a *Access) NeedsSetUp() (bool, error) { return true, nil }

// SetUpLink makes a new one-time link, and ends earlier ones. The URLs are secret.
func (a *Access) SetUpLink() (*SetUpLink, error) { return &SetUpLink{}, nil }

// SetUpLink is a one-time link by which the first administrator is made.
type SetUpLink struct {
	URLs    []string // one for each address by which the port can be reached
	Expires time.Time
	Hint    string // how to come to it from elsewhere; may be empty
}
