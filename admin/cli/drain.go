package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

func (p *program) drainCommand() *cobra.Command {
	var d drain
	cmd := &cobra.Command{
		Use:   "drain NAME [ENDPOINT...]",
		Short: "Take a backend, or some of its endpoints, out of the choice",
		Long: `Give a backend, or the endpoints that are named (host:port), no new RPCs. Those that
are open go on as long as they like, or for --grace: what is left then is ended softly,
with UNAVAILABLE, for clients to try again. It lies beside what is declared and
survives a reload, until undrain.

With --wait the command shows how many RPCs are left and is done when there are none;
it fails when some are left after the grace.`,
		Example: "  sluice backend drain cart-v1 10.0.0.11:50051 --grace 30s --wait\n  sluice backend drain cart-v1 --reason 'new kernel'",
		Args:    wants(1, -1),
	}
	cmd.Flags().DurationVar(&d.grace, "grace", 0, "`time` for open RPCs to end; none, and they may take as long as they like")
	cmd.Flags().BoolVar(&d.wait, "wait", false, "wait until no RPC is open, and show how many are")
	p.addDrain(cmd, &d)
	return cmd
}

func (p *program) undrainCommand() *cobra.Command {
	d := drain{undo: true}
	cmd := &cobra.Command{
		Use:     "undrain NAME [ENDPOINT...]",
		Short:   "Put a backend, or some of its endpoints, back into the choice",
		Long:    "Give a backend, or the endpoints that are named, new RPCs again.",
		Example: "  sluice backend undrain cart-v1\n  sluice backend undrain cart-v1 10.0.0.11:50051",
		Args:    wants(1, -1),
	}
	p.addDrain(cmd, &d)
	return cmd
}

// drain is one drain, or the end of one.
type drain struct {
	written
	namespace string
	undo      bool
	grace     time.Duration
	wait      bool
	waitPeers bool
}

func (p *program) addDrain(cmd *cobra.Command, d *drain) {
	d.addReason(cmd)
	d.addDryRun(cmd)
	addNamespace(cmd, &d.namespace, defaultNamespace)
	cmd.Flags().BoolVar(&d.waitPeers, "wait-peers", false, "wait for all live gateways of the cluster, as --wait all of other commands")
	output := p.addFormat(cmd, true)
	cmd.ValidArgsFunction = p.completeEndpoints(&d.namespace, func(e *adminv1.Endpoint) bool { return (e.GetDrain() != nil) == d.undo })
	cmd.RunE = p.remote(func(c *call, args []string) error {
		if d.grace < 0 {
			return usageErrorf("--grace %q: want a time such as 10s or 2m", d.grace)
		}
		ref, err := parseName(backend, d.namespace, args[0])
		if err != nil {
			return err
		}
		request := &adminv1.DrainRequest{Backend: ref, Endpoints: args[1:], Undo: d.undo, Reason: d.reason, DryRun: d.dryRun}
		if d.waitPeers {
			request.Wait = adminv1.Wait_WAIT_ALL
		}
		if d.grace > 0 {
			request.Grace = durationpb.New(d.grace)
		}
		response, err := ask(c.ctx, c.resources.Drain, request)
		if err != nil {
			return err
		}
		if err := c.printWrite(output, response, d.dryRun); err != nil || d.dryRun || d.undo {
			return err
		}
		if d.wait {
			return c.awaitDrained(ref, args[1:], d.grace)
		}
		if output.is != asTable {
			return nil
		}
		if open, at := openOn(response.GetDraining()); open > 0 {
			c.note("%s still open on %s", count(open, "RPC"), list(at, "and"))
		}
		if absent := absentFrom(response.GetDraining(), args[1:]); len(absent) > 0 {
			c.note("no endpoint has the address %s now; it is drained all the same, for whoever comes", list(absent, "or"))
		}
		return nil
	})
}

// openOn is how many RPCs are open on endpoints, and where.
func openOn(draining []*adminv1.Endpoint) (open int, at []string) {
	for _, e := range draining {
		if e.GetActive() == 0 {
			continue
		}
		open += int(e.GetActive())
		if address := printable(e.GetAddress()); !slices.Contains(at, address) {
			at = append(at, address)
		}
	}
	return open, at
}

// absentFrom are those of the named addresses that no endpoint has.
func absentFrom(endpoints []*adminv1.Endpoint, named []string) (absent []string) {
	for _, address := range named {
		has := func(e *adminv1.Endpoint) bool { return sameAddress(e.GetAddress(), address) }
		if !slices.ContainsFunc(endpoints, has) {
			absent = append(absent, printable(address))
		}
	}
	return absent
}

// sameAddress compares as the server does: it keeps addresses in one spelling.
func sameAddress(a, b string) bool { return store.NormalAddress(a) == store.NormalAddress(b) }

// How often drain --wait asks, and for how long after the grace what was ended then
// may take to be gone.
const (
	drainInterval = 250 * time.Millisecond
	drainSlack    = 10 * time.Second
	drainSilence  = 30 * time.Second // of a server that starts again, say
)

// awaitDrained asks until no RPC is left on the endpoints that are named, all when none
// is, and tells when there are fewer. Zero for grace is no end.
func (c *call) awaitDrained(ref *adminv1.Ref, named []string, grace time.Duration) error {
	begun := time.Now()
	heard, told := begun, ""
	for {
		all, err := ask(c.ctx, c.backends.ListEndpoints, &adminv1.ListEndpointsRequest{Backend: ref})
		switch {
		case c.ctx.Err() != nil:
			return errDrainLeft
		case err != nil && (!mayPass(err) || time.Since(heard) > drainSilence):
			return err
		case err == nil:
			heard = time.Now()
			draining, err := drainingOf(all, named)
			if err != nil {
				return err
			}
			open, at := openOn(draining)
			if open == 0 {
				c.note("%s: no RPC is left%s", refID(ref), unseen(absentFrom(draining, named)))
				return nil
			}
			if now := fmt.Sprintf("%s open on %s", count(open, "RPC"), list(at, "and")); now != told {
				c.note("%s%s", now, left(grace, time.Since(begun)))
				told = now
			}
			if grace > 0 && time.Since(begun) > grace+drainSlack {
				return fmt.Errorf("%s: %s left after the grace of %s: %s", refID(ref), count(open, "RPC"), grace, strings.Join(at, ", "))
			}
		}
		select {
		case <-c.ctx.Done():
			return errDrainLeft
		case <-time.After(drainInterval):
		}
	}
}

// unseen tells of addresses of which nothing is known, so that nobody takes that for
// something that was seen.
func unseen(absent []string) string {
	if len(absent) == 0 {
		return ""
	}
	return " that this server knows of; no endpoint has the address " + list(absent, "or") + " now"
}

var errDrainLeft = errors.New("interrupted; the drain goes on, and sluice backend list shows what is left")

// drainingOf are those drained endpoints of the one backend of a list that are named, all
// when none is.
func drainingOf(all *adminv1.ListEndpointsResponse, named []string) (draining []*adminv1.Endpoint, err error) {
	for _, b := range all.GetBackends() {
		for _, e := range b.GetEndpoints() {
			meant := func(address string) bool { return sameAddress(address, e.GetAddress()) }
			switch {
			case len(named) > 0 && !slices.ContainsFunc(named, meant):
			case e.GetDrain() != nil:
				draining = append(draining, e)
			case len(named) > 0:
				return nil, fmt.Errorf("%s was put back into the choice meanwhile", printable(e.GetAddress()))
			}
		}
		if len(named) == 0 && len(b.GetEndpoints()) > 0 && len(draining) == 0 {
			return nil, fmt.Errorf("%s was put back into the choice meanwhile", refID(b.GetBackend()))
		}
	}
	return draining, nil
}

// left is what of the grace is left, in words.
func left(grace, passed time.Duration) string {
	switch {
	case grace == 0:
		return ""
	case passed >= grace:
		return "; the grace is over"
	}
	return fmt.Sprintf("; %s of the grace left", (grace - passed).Round(time.Second))
}

// mayPass tells whether an error may be gone when the same is asked again.
func mayPass(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	if !connect.IsWireError(err) {
		return true // on the way to the server
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeResourceExhausted, connect.CodeDeadlineExceeded, connect.CodeInternal, connect.CodeUnknown:
		return true
	}
	return false
}
