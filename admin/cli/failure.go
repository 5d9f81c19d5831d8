package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	adminv1 "sluice/admin/v1"
)

// inWords turns an error of the API, or of the way to it, into one that says what
// to do. What belongs to it but is more than a line goes to the notes.
func (c *call) inWords(err error) error {
	var failed *connect.Error
	if !errors.As(err, &failed) {
		return err
	}
	if faults, ok := detailOf[*adminv1.Faults](err); ok {
		return c.faults(faults)
	}
	if conflict, ok := detailOf[*adminv1.Conflict](err); ok && conflict.GetCurrent() != nil {
		return c.conflict(conflict)
	}
	if !connect.IsWireError(err) {
		return c.unreachable(failed)
	}
	return c.refusal(failed)
}

// detailOf is what the server said beside its message.
func detailOf[T proto.Message](err error) (detail T, ok bool) {
	var failed *connect.Error
	if !errors.As(err, &failed) {
		return detail, false
	}
	for _, d := range failed.Details() {
		if value, unreadable := d.Value(); unreadable == nil { // else of a later version
			if detail, ok = value.(T); ok {
				return detail, true
			}
		}
	}
	return detail, false
}

// faults prints each fault on a line of its own, as editors read them.
func (c *call) faults(faults *adminv1.Faults) error {
	for _, fault := range faults.GetFaults() {
		c.note("%s", printable(faultLine(fault)))
	}
	return fmt.Errorf("%s; nothing was changed", count(len(faults.GetFaults()), "fault"))
}

// faultLine is "file:line:column: field: message", as far as they are known.
func faultLine(f *adminv1.Fault) string {
	where := f.GetFile()
	for _, n := range []uint32{f.GetLine(), f.GetColumn()} {
		if n == 0 {
			break
		}
		where += fmt.Sprintf(":%d", n)
	}
	var parts []string
	for _, part := range []string{where, f.GetField(), f.GetMessage()} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// conflict shows what was written against and what is there now.
func (c *call) conflict(conflict *adminv1.Conflict) error {
	current := conflict.GetCurrent()
	c.note("you wrote against  %s", printable(conflict.GetExpected()))
	now := current.GetRevision()
	if current.GetDeleted() {
		now = "nothing"
	}
	if change := current.GetLastChange(); change != nil {
		now += ", " + c.sentence(change)
	}
	c.note("there is now       %s", now)
	return fmt.Errorf("%s was changed meanwhile; nothing was changed: look at it, and try again with what is there now", refID(current.GetRef()))
}

// showConflict shows, when err is about a conflict, what is there now beside what m
// wanted. It is a service beside the error: when it fails, nothing is shown.
func (c *call) showConflict(m *manifests, err error) {
	conflict, ok := detailOf[*adminv1.Conflict](err)
	if !ok {
		return
	}
	unconditional, err := m.withoutRevisions()
	if err != nil {
		return
	}
	response, err := ask(c.ctx, c.resources.Diff, &adminv1.DiffRequest{Text: unconditional, File: m.name, AllowUnresolved: true})
	if err != nil {
		return
	}
	for _, change := range response.GetChanges() {
		if refID(change.GetRef()) == refID(conflict.GetCurrent().GetRef()) {
			_ = writeDifference(c.notes, change, "there now", "yours")
		}
	}
}

// unreachable is an error on the way to the server.
func (c *call) unreachable(failed *connect.Error) error {
	cause := error(failed)
	if under := failed.Unwrap(); under != nil {
		cause = under
	}
	var name *net.DNSError
	var wrong *fingerprintError
	switch {
	case errors.Is(cause, context.Canceled):
		return errors.New("interrupted; what was asked for may have been done")
	case errors.Is(cause, context.DeadlineExceeded) || failed.Code() == connect.CodeDeadlineExceeded:
		return fmt.Errorf("%s: no answer in time; what was asked for may have been done", c.at.name)
	case isCut(cause):
		return fmt.Errorf("%s: the server ended before it answered; what was asked for may have been done: sluice history tells", c.at.name)
	case c.at.socket != "":
		return c.noSocket(cause)
	case errors.Is(cause, errWantsTLS):
		return fmt.Errorf("%s: %w; use https%s", c.at.name, errWantsTLS, strings.TrimPrefix(c.at.url, "http"))
	case errors.Is(cause, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: nobody listens there; is the server running, and is this its --admin address?", c.at.name)
	case errors.As(cause, &name):
		return fmt.Errorf("%s: host %q is not known; check the URL", c.at.name, name.Name)
	case errors.As(cause, &wrong):
		return fmt.Errorf("%s: %w; was it renewed? Compare it with the one in the server's log (sha256=), then sluice login again", c.at.name, wrong)
	}
	if cert, ok := unknownCertificate(cause); ok {
		return fmt.Errorf("%s: its certificate is not trusted: %w; give its authority with --ca-file, or compare the fingerprint with the one in the server's log (sha256=) and then use sluice login %s --fingerprint %s",
			c.at.name, innermost(cause), c.at.url, shownFingerprint(fingerprint(cert)))
	}
	if strings.Contains(cause.Error(), "HTTP response to HTTPS client") {
		return fmt.Errorf("%s: it does not speak TLS; use http:// if it is on this machine", c.at.name)
	}
	if strings.HasPrefix(failed.Message(), "400 ") && strings.HasPrefix(c.at.url, "http:") {
		return fmt.Errorf("%s: it cannot read the request; if it speaks TLS, use https://", c.at.name)
	}
	if strings.HasPrefix(failed.Message(), "404 ") {
		return fmt.Errorf("%s: no admin API there; is it the server's --admin address?", c.at.name)
	}
	return fmt.Errorf("%s: %w", c.at.name, innermost(cause))
}

// isCut tells whether a connection was there and then ended, as it does with its server.
func isCut(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// noSocket says why the server of this machine does not answer.
func (c *call) noSocket(cause error) error {
	const start = "start one with sluice serve, or name another with --data-dir, --server or --context"
	switch {
	case errors.Is(cause, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied; it is for root and the user who runs the server: use sudo, or --server with a token", c.at.name)
	case errors.Is(cause, fs.ErrNotExist) && c.at.isDefault && c.serviceRuns():
		return fmt.Errorf("%s: no server runs here, but one runs as a service: use sudo, or --server with a token", c.at.name)
	case errors.Is(cause, fs.ErrNotExist):
		return fmt.Errorf("%s: no server runs here; %s", c.at.name, start)
	case errors.Is(cause, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: the server that had this socket has ended; %s", c.at.name, start)
	}
	return fmt.Errorf("%s: %w", c.at.name, innermost(cause))
}

// serviceRuns tells whether there is a socket of a service, or a folder for one that
// others may not look into.
func (c *call) serviceRuns() bool {
	_, err := os.Lstat(filepath.Join(c.SystemDir, socketName))
	return err == nil || errors.Is(err, fs.ErrPermission)
}

// refusal is the server's own no, with what to do about it.
func (c *call) refusal(failed *connect.Error) error {
	message := failed.Message()
	switch failed.Code() {
	case connect.CodeUnauthenticated:
		if c.at.socket != "" {
			return fmt.Errorf("%s: %s; the socket needs no token, so leave --token-file out", c.at.name, cmp.Or(message, "not signed in"))
		}
		return fmt.Errorf("%s: %s; sluice login %s takes a token, and sluice admin token create makes one on the machine itself",
			c.at.name, cmp.Or(message, "not signed in"), c.at.url)
	case connect.CodePermissionDenied:
		return fmt.Errorf("%s: %s", c.at.name, cmp.Or(message, "permission denied"))
	}
	if message == "" {
		return fmt.Errorf("%s: %s", c.at.name, failed.Code())
	}
	return errors.New(message)
}

// innermost is the cause at the bottom, without the story of the way to it.
func innermost(err error) error {
	for {
		under := errors.Unwrap(err)
		if under == nil {
			return err
		}
		err = under
	}
}
