package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// program is a suite's own client or server, run to its end or until stopped.
type program struct {
	cmd  *exec.Cmd
	out  *tail
	done chan struct{} // closed when it has ended
	err  error         // read after done
}

// start runs one of the rig's tools.
func (r *rig) start(name string, args ...string) (*program, error) {
	p := &program{cmd: exec.Command(r.tool(name), args...), out: &tail{next: r.log}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.Env = append(os.Environ(), "GRPC_GO_LOG_SEVERITY_LEVEL=error")
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop ends the program; none of them has anything to lose.
func (p *program) stop() {
	p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
}

// finish waits for the program, and returns the end of what it said when it failed.
func (p *program) finish(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-p.done:
	case <-ctx.Done():
		p.stop()
		return fmt.Errorf("not done after %s\n%s", limit, p.out)
	}
	if p.err != nil {
		return fmt.Errorf("%w\n%s", p.err, p.out)
	}
	return nil
}
