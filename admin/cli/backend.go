package cli

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) backendCommand() *cobra.Command {
	return group(
		&cobra.Command{Use: "backend", Short: "See how endpoints are, announce processes, and take them out of the choice"},
		p.backendListCommand(),
		p.registerCommand(), p.deregisterCommand(),
		p.drainCommand(), p.undrainCommand(),
		p.rebalanceCommand(),
	)
}

func (p *program) backendListCommand() *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use:   "list [NAME]",
		Short: "Tell how the endpoints of all backends, or of one, are",
		Long: `Tell of each endpoint who says that it is there, its state and why, since when, how
many RPCs are open on it, and what it did in the last minute: RPCs begun, the share
that ended well, and the time that 99 in 100 of those took at most.

A state is new, connecting, healthy, warming (it gets its share bit by bit), down (no
connection), unhealthy (its health check), ejected (too many of its RPCs failed),
stalled (its connection is silent), draining, or unused (kept, and not in force).
-o json and yaml tell everything, also version, lease and drain.`,
		Example: "  sluice backend list\n  sluice backend list cart-v1 -o json",
		Args:    wants(0, 1),
	}
	output := p.addFormat(cmd, true)
	addNamespace(cmd, &namespace, "all")
	cmd.ValidArgsFunction = p.completeNames(backend, &namespace)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		request := &adminv1.ListEndpointsRequest{Namespace: namespace}
		if len(args) > 0 {
			var err error
			if request.Backend, err = parseName(backend, namespace, args[0]); err != nil {
				return err
			}
		}
		all, err := ask(c.ctx, c.backends.ListEndpoints, request)
		if err != nil {
			return err
		}
		switch output.is {
		case asJSON, asYAML:
			return c.structured(output, all)
		case asName:
			return c.printAddresses(all.GetBackends())
		}
		return c.printEndpoints(all.GetBackends())
	})
	return cmd
}

// printAddresses has a line for each endpoint: its backend and its address, as other
// commands take them.
func (c *call) printAddresses(backends []*adminv1.BackendEndpoints) error {
	for _, b := range backends {
		for _, e := range b.GetEndpoints() {
			if _, err := fmt.Fprintf(c.out, "%s %s\n", refKey(b.GetBackend()), printable(e.GetAddress())); err != nil {
				return err
			}
		}
	}
	return nil
}

// printEndpoints has a row for each endpoint, and for each backend without one.
func (c *call) printEndpoints(backends []*adminv1.BackendEndpoints) error {
	if len(backends) == 0 {
		c.note("there are none")
		return nil
	}
	t := newTable("BACKEND", "ENDPOINT", "SOURCE", "ZONE", "WEIGHT", "STATE", "WHY", "SINCE", "ACTIVE", "RPC/MIN", "SUCCESS", "P99")
	for _, b := range backends {
		key := shortKey(refKey(b.GetBackend()))
		for _, e := range b.GetEndpoints() {
			t.add(key, e.GetAddress(), sourceWord(e), e.GetZone(),
				fmt.Sprint(e.GetWeight()), e.GetState(), e.GetWhy(), c.ago(e.GetSince()),
				fmt.Sprint(e.GetActive()), fmt.Sprint(e.GetRpcs()), successText(e), latencyText(e))
		}
		if len(b.GetEndpoints()) == 0 {
			t.add(key, "none", "", "", "", "", cmp.Or(b.GetProblem(), drainText(b.GetDrains())), "", "", "", "", "")
		}
	}
	if err := t.write(c.out, ""); err != nil {
		return err
	}
	for _, b := range backends {
		if b.GetProblem() != "" && len(b.GetEndpoints()) > 0 {
			c.note("%s: %s", shortKey(refKey(b.GetBackend())), printable(b.GetProblem()))
		}
		for _, d := range b.GetDrains() {
			if d.GetEndpoint() != "" && len(absentFrom(b.GetEndpoints(), []string{d.GetEndpoint()})) > 0 {
				c.note("%s: %s is no endpoint now, and stays drained by %s for whoever comes",
					shortKey(refKey(b.GetBackend())), printable(d.GetEndpoint()), printable(cmp.Or(d.GetBy(), "somebody")))
			}
		}
	}
	return nil
}

// sourceWord is who says that an endpoint is there: static, dns or registered.
func sourceWord(e *adminv1.Endpoint) string {
	return enumWord(e.GetSource().Descriptor(), e.GetSource().Number())
}

// drainText is by whom a backend is drained, whole; empty when it is not.
func drainText(drains []*adminv1.Drain) string {
	for _, d := range drains {
		if d.GetEndpoint() == "" {
			return "drained by " + cmp.Or(d.GetBy(), "somebody")
		}
	}
	return ""
}

// successText is "99.9%", and never 100% while an RPC failed.
func successText(e *adminv1.Endpoint) string {
	if e.Success == nil {
		return ""
	}
	tenths := int(e.GetSuccess() * 1000) // cut, not rounded
	if tenths%10 == 0 {
		return strconv.Itoa(tenths/10) + "%"
	}
	return fmt.Sprintf("%d.%d%%", tenths/10, tenths%10)
}

// latencyText is a time in three digits or fewer.
func latencyText(e *adminv1.Endpoint) string {
	if e.GetP99() == nil {
		return ""
	}
	d := e.GetP99().AsDuration()
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

func (p *program) rebalanceCommand() *cobra.Command {
	var w written
	var namespace string
	percent := uint32(100)
	cmd := &cobra.Command{
		Use:   "rebalance NAME",
		Short: "Move long streams from the endpoints that have too many",
		Long: `End a share of the long streams of those endpoints that have more than their part,
softly and spread over 10 s: clients get UNAVAILABLE and open their streams again,
which go to the endpoints that have fewer. It is for streams that clients open again
by themselves; others are better left alone. Nothing happens to unary RPCs.`,
		Example: "  sluice backend rebalance chat\n  sluice backend rebalance chat --percent 25 --reason 'two new nodes'",
		Args:    wants(1, 1),
	}
	cmd.Flags().Uint32Var(&percent, "percent", percent, "the `share` of its long streams that an endpoint loses at most, 1 to 100")
	w.addReason(cmd)
	addNamespace(cmd, &namespace, defaultNamespace)
	output := p.addFormat(cmd, false)
	cmd.ValidArgsFunction = p.completeNames(backend, &namespace)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		if percent < 1 || percent > 100 {
			return usageErrorf(`--percent "%d": want a whole number from 1 to 100; see %s --help`, percent, cmd.CommandPath())
		}
		ref, err := parseName(backend, namespace, args[0])
		if err != nil {
			return err
		}
		response, err := ask(c.ctx, c.backends.Rebalance, &adminv1.RebalanceRequest{Backend: ref, Percent: percent, Reason: w.reason})
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, response)
		}
		if response.GetMoved() == 0 {
			_, err = fmt.Fprintf(c.out, "%s: no stream has to move\n", refID(ref))
			return err
		}
		_, err = fmt.Fprintf(c.out, "%s: %s end within 10s, for clients to open them again\n", refID(ref), count(int(response.GetMoved()), "stream"))
		return err
	})
	return cmd
}
