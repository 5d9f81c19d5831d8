package store

import (
	"errors"
	"fmt"

	"sluice/store/disk"
)

// ErrClosed is returned by whatever is asked of a store that is closed.
var ErrClosed = disk.ErrClosed

// ErrCompacted is returned to a watcher that asks for changes that are not kept any
// more. It starts again from a snapshot.
var ErrCompacted = errors.New("the changes asked for are not kept any more")

// ConflictError refuses a write against a revision that is not the current one.
type ConflictError struct {
	ID       ID
	Expected string  // the revision that was written against
	Current  *Object // as it is; nil when there is none
}

func (e *ConflictError) Error() string {
	if !e.Current.live() {
		return fmt.Sprintf("%s: written against revision %s, but there is no such object any more", e.ID, printable(short(e.Expected)))
	}
	return fmt.Sprintf("%s: written against revision %s, but %s is the current one", e.ID, printable(short(e.Expected)), e.Current.Revision)
}

// OwnedError refuses a write to what somebody else declares.
type OwnedError struct {
	ID    ID
	Owner Owner
}

func (e *OwnedError) Error() string {
	return fmt.Sprintf("%s: declared by %s and read-only here: change the file, or adopt the object", e.ID, e.Owner)
}

// NotFoundError refuses a write to what is not there.
type NotFoundError struct{ ID ID }

func (e *NotFoundError) Error() string { return printable(e.ID.String()) + ": there is no such object" }
