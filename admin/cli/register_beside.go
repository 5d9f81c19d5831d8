package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// ExitError is the end of a command that the user has had run: the status of the process
// is that of the command, and there is nothing more to say.
type ExitError struct{ Code int }

func (e ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// beside runs a command for as long as the registration, and the other way round. The
// registration ends before the command is told to, so that no RPC meets one that is gone.
func (k *keeping) beside(ctx context.Context, command []string) error {
	k.aside = true
	child := exec.Command(command[0], command[1:]...)
	child.Stdin, child.Stdout, child.Stderr = k.cmd.InOrStdin(), k.cmd.OutOrStdout(), k.cmd.ErrOrStderr()
	if err := child.Start(); err != nil {
		return fmt.Errorf("run %q: %w", command[0], errors.Unwrap(err))
	}
	ended, kept := make(chan error, 1), make(chan error, 1)
	go func() { ended <- child.Wait() }()
	keeping, stop := context.WithCancel(ctx)
	defer stop()
	go func() { kept <- k.run(keeping) }()

	select {
	case err := <-ended:
		stop()
		if failed := <-kept; failed != nil {
			k.note("%v", failed)
		}
		return statusOf(err)
	case err := <-kept:
		if err != nil {
			k.note("%v", err)
		}
		if ctx.Err() == nil && k.registered {
			// It serves, whatever became of the registration.
			k.note("%s goes on without being registered", command[0])
			select {
			case err := <-ended:
				return statusOf(err)
			case <-ctx.Done():
			}
		}
		terminate(child.Process)
		status := statusOf(<-ended)
		if err != nil && !k.registered {
			return ExitError{1}
		}
		return status
	}
}

// terminate asks a process to end, or ends it where it cannot be asked.
func terminate(p *os.Process) {
	if p.Signal(syscall.SIGTERM) != nil {
		_ = p.Kill() // unless it has ended by itself
	}
}

// statusOf is the end of a command as ours: 128 and the signal where it ended by one, as
// shells have it.
func statusOf(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return ExitError{128 + int(status.Signal())}
	}
	return ExitError{exit.ExitCode()}
}
