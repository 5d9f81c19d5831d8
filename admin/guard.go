package admin

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"path"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

// maxStrangerBody bounds what is read of the body of somebody who has not signed in.
// It is less than smallBody, so that none of them takes a place of the large ones.
const maxStrangerBody = smallBody / 2

// Guard stands before everything that the door answers. It refuses requests with a
// foreign Host or Origin, finds out whom the others come from, and refuses calls of
// the API for which the role does not suffice before their body is read.
func (a *Access) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := newCaller(r)
		if err := a.inspect(r, c); err != nil {
			a.refuse(w, r, c, err)
			return
		}
		if c.Role == adminv1.Role_ROLE_UNSPECIFIED {
			r.Body = http.MaxBytesReader(w, r.Body, maxStrangerBody)
		}
		next.ServeHTTP(w, r.WithContext(withCaller(r.Context(), c)))
		if isProcedure(r.URL.Path) && !c.met {
			a.unread(r, c)
		}
	})
}

// unread writes the audit line of a call whose message could not be read, or not as
// one: it never came to the interceptor, which writes the lines of all others.
func (a *Access) unread(r *http.Request, c *caller) {
	line := auditLine(c, auditAction(r))
	line.Refused, line.Why = true, "the request could not be read: too long, cut short, or not in the form of its content type"
	a.audit.write(line)
}

func newCaller(r *http.Request) *caller {
	return &caller{
		Identity: Identity{Address: clientAddress(r), Via: clientVia(r)},
		cookies:  newCookieRule(r),
	}
}

// inspect finds out whom a request comes from, and tells why it is refused, or nil.
func (a *Access) inspect(r *http.Request, c *caller) error {
	if err := a.hosts.check(r.Host); err != nil {
		return connect.NewError(connect.CodePermissionDenied, err)
	}
	if err := a.checkOrigin(r); err != nil {
		return connect.NewError(connect.CodePermissionDenied, err)
	}
	if err := a.identify(r, c); err != nil {
		return err
	}
	if _, isCall := permissions[r.URL.Path]; isCall {
		return authorise(c, r.URL.Path)
	}
	return nil
}

// checkOrigin refuses what another site's page makes a browser send. Reading is safe:
// answers are not for other origins, and the browser keeps them from the page.
func (a *Access) checkOrigin(r *http.Request) error {
	if isSafe(r.Method) {
		return nil
	}
	if err := a.crossOrigin.Check(r); err != nil {
		return errors.New("this request comes from the page of another site")
	}
	// Forms can send these, and scripts without asking first; clients of ours do not.
	switch media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media {
	case "text/plain", "multipart/form-data", "application/x-www-form-urlencoded":
		return fmt.Errorf("content type %s: want application/json, or one of gRPC", media)
	}
	return nil
}

func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// identify finds out whom a request comes from by the credentials that it shows: a
// token, the other end of the socket, or the cookie of a session. Credentials that
// do not count make nobody of the caller; an error is returned when it cannot be
// found out, or the request is not to be trusted.
func (a *Access) identify(r *http.Request, c *caller) error {
	shows, hasToken := bearer(r)
	peer, isLocal := PeerFrom(r.Context())
	cookie, _ := r.Cookie(c.cookies.name)
	var err error
	switch {
	case hasToken:
		c.Identity, err = a.identifyToken(c.Identity, shows)
	case isLocal:
		c.Actor, c.Role, c.Local = "local "+peer.User(), adminv1.Role_ROLE_ADMIN, true
	case cookie != nil:
		c.shown = sessionKey(cookie.Value)
		if !isSafe(r.Method) && !saysOrigin(r) {
			return connect.NewError(connect.CodePermissionDenied,
				errors.New("a request with a session's cookie has to say which origin it comes from"))
		}
		c.Identity, err = a.identifySession(c.Identity, cookie.Value)
	}
	if errors.Is(err, errSessionEnded) || errors.Is(err, errTokenUnknown) {
		c.problem = connect.NewError(connect.CodeUnauthenticated, err)
		return nil
	}
	return err
}

// saysOrigin tells whether a browser says where the request comes from. That it is
// from here has been checked; every browser says it of every request that is not safe.
func saysOrigin(r *http.Request) bool {
	return r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != ""
}

// refuse answers in the protocol of the request, and writes the audit line.
func (a *Access) refuse(w http.ResponseWriter, r *http.Request, c *caller, err error) {
	err = a.public(err, r.URL.Path)
	line := auditLine(c, auditAction(r))
	line.Refused, line.Why = true, why(err)
	a.audit.write(line)
	secureAnswer(w.Header())
	limitTime(w, r) // its body is nobody's
	if a.errors.IsSupported(r) && isProcedure(r.URL.Path) {
		_ = a.errors.Write(w, r, err) // the client has gone
		return
	}
	status := http.StatusForbidden
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated:
		status = http.StatusUnauthorized
	case connect.CodeInternal:
		status = http.StatusInternalServerError
	}
	writeText(w, status, why(err))
}

// secureAnswer sets what every answer carries: it is no page, belongs into none, and
// is kept by nobody.
func secureAnswer(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}

func isProcedure(path string) bool {
	_, ok := permissions[path]
	return ok
}

// auditAction is the method of a call; of another request, what it asks for.
func auditAction(r *http.Request) string {
	if isProcedure(r.URL.Path) {
		return path.Base(r.URL.Path)
	}
	return r.Method + " " + r.URL.Path
}

// public is the error as the client may know it. What nobody foresaw is for the log.
func (a *Access) public(err error, what string) error {
	var told *connect.Error
	if errors.As(err, &told) {
		return told
	}
	told = tell(err)
	if told.Code() == connect.CodeInternal {
		a.log.Error("admin call failed", "call", what, "error", err)
	}
	return told
}

// why is the message of an error, without its code.
func why(err error) string {
	var known *connect.Error
	if errors.As(err, &known) {
		return known.Message()
	}
	return err.Error()
}
