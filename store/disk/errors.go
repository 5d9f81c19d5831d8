package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrFull is returned by a write for which there is no room: on the disk, in the
// quota, or below Options.MaxSize. Nothing was changed, everything can still be
// read, and writes work again when there is room.
var ErrFull = errors.New("no space left for the store; nothing was changed, free some space and try again")

// ErrClosed is returned by what is asked of a DB after Close.
var ErrClosed = errors.New("store is closed")

// Damaged reports whether err says that a file is not what was written to it, as
// opposed to one that cannot be reached.
func Damaged(err error) bool {
	var damage *damageError
	return errors.As(err, &damage)
}

// damageError is what is wrong with the content of a file.
type damageError struct{ what string }

func (e *damageError) Error() string { return e.what }

func damagef(form string, args ...any) error {
	return &damageError{what: fmt.Sprintf(form, args...)}
}

// newerError is a file of a later version of this program. It is not damaged, but
// it cannot be served either.
type newerError struct{ what string }

func (e *newerError) Error() string { return e.what }

func newer(err error) bool {
	var later *newerError
	return errors.As(err, &later)
}

// asFull turns the many ways of saying that there is no room into ErrFull. bbolt
// wraps some of them without %w, which leaves only the text.
func asFull(err error) error {
	if err == nil || errors.Is(err, ErrFull) {
		return err
	}
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		errors.Is(err, bolterrors.ErrMaxSizeReached) ||
		strings.Contains(err.Error(), syscall.ENOSPC.Error()) || strings.Contains(err.Error(), syscall.EDQUOT.Error())
	if full {
		return fmt.Errorf("%w: %w", err, ErrFull)
	}
	return err
}

// asDamage turns what the disk says of a sector that it cannot read any more
// into damage: the file is there, its content is not.
func asDamage(err error) error {
	if errors.Is(err, syscall.EIO) {
		return damagef("%v", err)
	}
	return err
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
