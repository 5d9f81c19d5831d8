package admin

import (
	"context"
	"sync"

	adminv1 "sluice/admin/v1"
)

// note is what a handler tells the audit line of its request.
type note struct {
	mu      sync.Mutex // guards the fields below: a stream may note from several goroutines
	actor   string
	role    adminv1.Role
	changes []*adminv1.Change
	settled bool // the handler has seen to the lines itself
}

// NoteChanges adds changes to the audit line of the request. It is for streams:
// what the WriteResponse of a unary call says is noted already.
func NoteChanges(ctx context.Context, changes []*adminv1.Change) {
	if c := callerFrom(ctx); c != nil {
		c.note.mu.Lock()
		defer c.note.mu.Unlock()
		c.note.changes = append(c.note.changes, changes...)
	}
}

// noteActor names who a request turned out to come from, where nobody was signed in.
func noteActor(ctx context.Context, actor string, role adminv1.Role) {
	if c := callerFrom(ctx); c != nil {
		c.note.mu.Lock()
		defer c.note.mu.Unlock()
		c.note.actor, c.note.role = actor, role
	}
}

// noteNothing says that a request has changed nothing, and needs no line.
func noteNothing(ctx context.Context) {
	if c := callerFrom(ctx); c != nil {
		c.note.mu.Lock()
		defer c.note.mu.Unlock()
		c.note.settled = true
	}
}

// noteDone writes a line about what a stream has done and that does not wait for its
// end. The stream gets no other. Who did it is the caller.
func (a *Access) noteDone(ctx context.Context, done *adminv1.AuditEntry) {
	noteNothing(ctx)
	line := auditLine(callerFrom(ctx), done.Action)
	line.Reason, line.Refs = done.Reason, done.Refs
	describeChanges(line, done.Changes)
	a.audit.write(line)
}
