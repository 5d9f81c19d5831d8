package cli

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

// How a registration is kept.
const (
	retryFirst  = 500 * time.Millisecond // until the first new try; then twice as long each time
	retryMost   = 10 * time.Second
	goodbyeTime = 5 * time.Second // for one server to take a registration back

	// A server that keeps a registration says so in a third of the lease, or quietMost;
	// one that has missed two of these is gone.
	quietMost  = 15 * time.Second
	quietSlack = 5 * time.Second
)

// keeping is one registration, at the first of some servers that takes it.
type keeping struct {
	*program
	cmd      *cobra.Command
	output   *format
	request  *adminv1.RegisterRequest
	servers  []*target
	retryFor time.Duration // zero: for ever
	aside    bool          // standard output is somebody else's

	held       []bool // by server: it may have the registration
	registered bool   // some server has had it
}

// once registers at the first server that answers, and leaves it to the lease.
func (k *keeping) once() (err error) {
	for i, at := range k.servers {
		var passing bool
		err = k.callAt(k.cmd, at, func(c *call) error {
			response, err := ask(c.ctx, c.backends.Register, k.request)
			if passing = err != nil && mayPass(err); err != nil {
				return err
			}
			if err := c.printRegistration(k.output, response.GetRegistration(), response.GetWarnings()); err != nil {
				return err
			}
			return c.confirmed(response.GetPeers())
		})
		if !passing {
			return err
		}
		if i+1 < len(k.servers) {
			k.note("%v; trying %s", err, k.servers[i+1].name)
		}
	}
	return err
}

// note tells the user what happens meanwhile.
func (k *keeping) note(format string, args ...any) {
	fmt.Fprintf(k.cmd.ErrOrStderr(), format+"\n", args...)
}

// run keeps the registration until ctx ends, which is no failure, or it cannot be kept.
func (k *keeping) run(ctx context.Context) error {
	k.held = make([]bool, len(k.servers))
	err := k.keep(ctx)
	left := k.goodbye(ctx)
	if err != nil {
		return err
	}
	return left
}

// keep goes from server to server. It fails when no server takes the registration in a
// first round, or later for retryFor, or when one refuses it for good.
func (k *keeping) keep(ctx context.Context) error {
	lost, pause := time.Now(), retryFirst
	for at, tries := 0, 1; ; tries++ {
		held, passing, err := k.hold(ctx, at)
		switch {
		case ctx.Err() != nil:
			return nil
		case !passing:
			return err
		case !k.registered && tries >= len(k.servers):
			return err
		case held: // the same server next: it may only have begun anew
			lost, pause = time.Now(), retryFirst
		default:
			at = (at + 1) % len(k.servers)
		}
		if k.retryFor > 0 && time.Since(lost) > k.retryFor {
			return fmt.Errorf("no server has answered for %s: %w", k.retryFor, err)
		}
		wait := pause/2 + rand.N(pause) // so that all who lost the same server do not come at once
		k.note("%v; trying %s in %s", err, k.servers[at].name, wait.Round(100*time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		pause = min(2*pause, retryMost)
	}
}

// hold registers at one server and stays until that ends. It tells whether the server
// had the registration, and whether the error may pass.
func (k *keeping) hold(ctx context.Context, at int) (held, passing bool, err error) {
	err = k.callAt(k.cmd, k.servers[at], func(c *call) error {
		signalled := ctx
		ctx, end := context.WithCancelCause(ctx)
		defer end(nil)
		quiet := time.AfterFunc(unaryTimeout, func() { end(errQuiet) })
		defer quiet.Stop()
		stream, err := c.backends.Keep(ctx, connect.NewRequest(&adminv1.KeepRequest{Registration: k.request}))
		if err == nil {
			defer stream.Close()
			for stream.Receive() {
				quiet.Reset(2*min(stream.Msg().GetRegistration().GetLease().AsDuration()/3, quietMost) + quietSlack)
				if !held {
					held, k.held[at], err = true, true, k.tell(c, stream.Msg())
				}
				if err != nil {
					return err
				}
			}
			err = stream.Err()
		}
		passing = err == nil || mayPass(err) || errors.Is(context.Cause(ctx), errQuiet)
		if !passing && signalled.Err() == nil {
			k.held[at] = false // it is no more ours to take back
		}
		return k.broken(ctx, c, held, err)
	})
	return held, passing, err
}

var errQuiet = errors.New("the server has been silent for too long")

// broken is why a stream has ended, in words. Before it was registered, what went wrong
// is as with any other command.
func (k *keeping) broken(ctx context.Context, c *call, held bool, err error) error {
	var failed *connect.Error
	switch {
	case errors.Is(context.Cause(ctx), errQuiet):
		return fmt.Errorf("%s: %w", c.at.name, errQuiet)
	case err == nil:
		return fmt.Errorf("%s: the server has ended the stream", c.at.name)
	case held && errors.As(err, &failed) && connect.IsWireError(err):
		return fmt.Errorf("%s: %s", c.at.name, failed.Message())
	case held:
		return fmt.Errorf("%s: the connection broke: %w", c.at.name, innermost(err))
	}
	return err
}

// tell says that a server has the registration: the first time as data, then as a note.
func (k *keeping) tell(c *call, m *adminv1.KeepResponse) error {
	if k.registered || k.aside {
		again := ""
		if k.registered {
			again = " again"
		}
		k.registered = true
		k.note("%s registered%s at %s of %s", printable(m.GetRegistration().GetAddress()), again, refID(m.GetRegistration().GetBackend()), c.at.name)
		c.warn(m.GetWarnings())
		k.tellPeers(c, m)
		return nil
	}
	k.registered = true
	k.tellPeers(c, m)
	return c.printRegistration(k.output, m.GetRegistration(), m.GetWarnings())
}

// tellPeers says who has not confirmed a registration. It is kept all the same: it travels
// on, and its process lives.
func (k *keeping) tellPeers(c *call, m *adminv1.KeepResponse) {
	if err := c.confirmed(m.GetPeers()); err != nil {
		k.note("warning: %v", err)
	}
}

// goodbye takes the registration back from every server that may have it. Where that
// fails, the lease will end it.
func (k *keeping) goodbye(ctx context.Context) (err error) {
	request := &adminv1.DeregisterRequest{Backend: k.request.GetBackend(), Address: k.request.GetAddress(), Reason: "the process ends"}
	for i, at := range k.servers {
		if !k.held[i] {
			continue
		}
		failed := k.callAt(k.cmd, at, func(c *call) error {
			ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTime)
			defer cancel()
			_, err := ask(ending, c.backends.Deregister, request)
			if connect.IsWireError(err) && connect.CodeOf(err) == connect.CodeNotFound {
				return nil
			}
			return err
		})
		if failed != nil {
			err = fmt.Errorf("%s is not deregistered, its lease of %s ends it: %w", request.GetAddress(), k.request.GetLease().AsDuration(), failed)
			continue
		}
		k.note("%s deregistered at %s", printable(request.GetAddress()), at.name)
	}
	return err
}
