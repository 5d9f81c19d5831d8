package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Verify checks the file at path as a whole: its size, its pages and how they hang
// together, the checksum of every row, and that these are all the rows that
// should be there. It is read before it is mapped, so that damage is an error and
// not the end of the process; bbolt's own check, which maps it, comes last.
func Verify(path string) error {
	err := verify(path)
	if err == nil {
		err = boltCheck(path)
	}
	if err != nil {
		return fmt.Errorf("verify %q: %w", path, err)
	}
	return nil
}

func verify(path string) error {
	im, file, err := openImage(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = im.verify(nil)
	return err
}

// verify checks all rows, and yields those that are not our own. A row is yielded
// before those behind it are checked.
func (im *image) verify(yield func(bucket string, key, value []byte) error) (state, error) {
	want, err := im.state()
	if err != nil {
		return state{}, err
	}
	var found state
	err = im.walk(func(bucket string, key, record []byte) error {
		value, s, err := readRecord(bucket, key, record)
		if err != nil || bucket == ownBucket {
			return err
		}
		found.rows++
		found.digest.fold(s)
		if yield == nil {
			return nil
		}
		return yield(bucket, key, value)
	})
	switch {
	case err != nil:
		return state{}, err
	case found.rows != want.rows:
		return state{}, damagef("%d rows, %d wanted", found.rows, want.rows)
	case found.digest != want.digest:
		return state{}, damagef("%d rows, not all of them those that were written last", found.rows)
	}
	return want, nil
}

// state returns what the file says that it holds, and reads nothing else. The
// format comes first: in a later one nothing else need be as we know it.
func (im *image) state() (state, error) {
	if err := im.begin(); err != nil {
		return state{}, err
	}
	var format, st []byte
	err := im.buckets(func(name string, bucket []byte) error {
		if name != ownBucket {
			return nil
		}
		return im.bucket(name, bucket, func(name string, key, record []byte) error {
			value, _, err := readRecord(name, key, record)
			switch string(key) {
			case formatKey:
				format = value
			case stateKey:
				st = value
			}
			return err
		})
	})
	if err != nil {
		return state{}, err
	}
	if format == nil || st == nil {
		return state{}, damagef("it does not say what it holds")
	}
	if err := checkFormat(format); err != nil {
		return state{}, err
	}
	return readState(st)
}

// boltCheck asks bbolt what it thinks of a file that we think well of.
func boltCheck(path string) (err error) {
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: 2 * time.Second, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("it is in use by %s", holder(path))
	}
	if err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			err = damagef("%v", p)
		}
		err = errors.Join(err, bolt.Close())
	}()
	return bolt.View(func(tx *bbolt.Tx) error {
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = damagef("%v", err)
			}
		}
		return first
	})
}

// Exit codes of a child that verifies. What the Go runtime ends with, 2, and a
// command line that is not understood, is not among them.
const (
	exitFine    = 0
	exitFailed  = 1 // the file could not be read
	exitDamaged = 3
	exitNewer   = 4
)

// VerifyChild is the whole work of the child process that InChild starts: it
// verifies the file, writes what is wrong with it to stderr, and returns what to
// exit with.
func VerifyChild(path string, stderr io.Writer) int {
	err := Verify(path)
	if err == nil {
		return exitFine
	}
	fmt.Fprintln(stderr, err)
	switch {
	case newer(err):
		return exitNewer
	case Damaged(err):
		return exitDamaged
	}
	return exitFailed
}

// InChild returns an Options.Verify that has the child process of command do the
// work: a file that ends the process that maps it ends only the child.
func InChild(command func(ctx context.Context, path string) *exec.Cmd) func(ctx context.Context, path string) error {
	return func(ctx context.Context, path string) error {
		var output bytes.Buffer
		cmd := command(ctx, path)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, nil, &output
		err := cmd.Run()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("verify %q: %w", path, ctx.Err())
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return fmt.Errorf("verify %q: %w", path, err)
		}
		return verdict(path, output.String(), exit)
	}
}

// verdict reads how the child ended.
func verdict(path, output string, exit *exec.ExitError) error {
	text, _, _ := strings.Cut(output, "\n")
	status, _ := exit.Sys().(syscall.WaitStatus)
	switch {
	case exit.ExitCode() == exitDamaged:
		return &damageError{what: text}
	case exit.ExitCode() == exitNewer:
		return &newerError{what: text}
	case exit.ExitCode() == exitFailed:
		return errors.New(text)
	case exit.ExitCode() == 2 && panicked(output), status.Signaled() && diesOfDamage(status.Signal()):
		return damagef("verify %q: the process that read it died of it: %v: %s", path, exit, text)
	case exit.ExitCode() == 2:
		return fmt.Errorf("verify %q: it could not be checked: %w: %s", path, exit, text)
	}
	return fmt.Errorf("verify %q: %w", path, exit)
}

// panicked reports whether a child of which the Go runtime made an end did so for
// what the child read. It exits with the same code when it gets no memory or no
// threads. A fault outside of a goroutine is named at the beginning of a line.
func panicked(output string) bool {
	for line := range strings.Lines(output) {
		for _, sign := range []string{"panic:", "unexpected fault address", "[signal SIG", "SIGBUS:", "SIGSEGV:"} {
			if strings.HasPrefix(line, sign) {
				return true
			}
		}
	}
	return false
}

// diesOfDamage reports whether what a process read can have ended it so. Others
// end a process from outside, whatever it read.
func diesOfDamage(s syscall.Signal) bool {
	switch s {
	case syscall.SIGBUS, syscall.SIGSEGV, syscall.SIGABRT, syscall.SIGILL, syscall.SIGFPE:
		return true
	}
	return false
}
