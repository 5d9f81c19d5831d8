package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) splitCommand() *cobra.Command {
	var w written
	var o splitOptions
	cmd := &cobra.Command{
		Use:   "split ROUTE[/RULE] [BACKEND=WEIGHT...]",
		Short: "Share out the RPCs of a route's rule",
		Long: `Share out the RPCs of one rule of a route among the backends that it declares, or
the requests of one rule of an HTTPRoute. RULE is the rule's name, or its number
from 0; a route with one rule needs none. The weights are relative to each other;
weight 0 keeps a backend in reserve. The split lies beside what is declared, whoever
declared it, and survives a reload; --reset takes it back. Who changes weights names
every backend that has one; what else is not mentioned stays as it was.`,
		Example: `  sluice split cart/all cart-v1=90 cart-v2=10
  sluice split cart/all --header x-tester=yes:cart-v2   # testers, whatever the weights
  sluice split cart/all cart-v1=50 cart-v2=50 --sticky x-user-id
  sluice split cart/all --reset`,
		Args: wants(1, -1),
	}
	w.addReason(cmd)
	w.addDryRun(cmd)
	p.addWait(cmd, &w.peers)
	o.addFlags(cmd)
	output := p.addFormat(cmd, false)
	cmd.ValidArgsFunction = p.completeSplit(&o.namespace)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		request, err := o.request(cmd, args)
		if err != nil {
			return err
		}
		request.Reason, request.DryRun, request.Wait = w.reason, w.dryRun, w.peers.is
		response, err := ask(c.ctx, c.resources.Split, request)
		if err != nil {
			return err
		}
		return c.printWrite(output, response, w.dryRun)
	})
	return cmd
}

// splitOptions are the flags of split.
type splitOptions struct {
	namespace    string
	kind         routeKind
	pins         []string
	clearHeaders bool
	sticky       string
	spillOver    bool
	reset        bool
	ifRevision   string
}

func (o *splitOptions) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&o.pins, "header", nil, "send RPCs with this metadata to one backend, `NAME=VALUE:BACKEND`; replaces all such; may be repeated")
	flags.BoolVar(&o.clearHeaders, "clear-headers", false, "forget every --header")
	flags.StringVar(&o.sticky, "sticky", "", "metadata `name` whose value decides the side, so that a user stays on one; empty for turns")
	flags.BoolVar(&o.spillOver, "spill-over", false, "give the share of a backend without endpoints to the others; --spill-over=false answers it UNAVAILABLE")
	flags.BoolVar(&o.reset, "reset", false, "back to what is declared, before anything else here")
	flags.StringVar(&o.ifRevision, "if-revision", "", "only if the route still has this `revision`")
	o.kind.addFlag(cmd)
	addNamespace(cmd, &o.namespace, defaultNamespace)
}

func (o *splitOptions) request(cmd *cobra.Command, args []string) (*adminv1.SplitRequest, error) {
	route, rule, err := splitRule(o.namespace, args[0])
	if err != nil {
		return nil, err
	}
	if err := o.kind.set(route); err != nil {
		return nil, err
	}
	request := &adminv1.SplitRequest{Route: route, Rule: rule, ClearPins: o.clearHeaders, Reset_: o.reset, IfRevision: o.ifRevision}
	for _, arg := range args[1:] {
		share, err := parseShare(arg)
		if err != nil {
			return nil, err
		}
		request.Shares = append(request.Shares, share)
	}
	for _, arg := range o.pins {
		pin, err := parsePin(arg)
		if err != nil {
			return nil, err
		}
		request.Pins = append(request.Pins, pin)
	}
	if cmd.Flags().Changed("sticky") {
		request.Sticky = &o.sticky
	}
	if cmd.Flags().Changed("spill-over") {
		request.SpillOver = &o.spillOver
	}
	if len(request.Shares)+len(request.Pins) == 0 && !o.clearHeaders && !o.reset && request.Sticky == nil && request.SpillOver == nil {
		return nil, usageErrorf("nothing to change: give BACKEND=WEIGHT..., --header, --sticky, --spill-over or --reset; see %s --help", cmd.CommandPath())
	}
	return request, nil
}

// parseShare reads BACKEND=WEIGHT.
func parseShare(arg string) (*adminv1.Share, error) {
	name, weight, ok := strings.Cut(arg, "=")
	n, err := strconv.ParseUint(strings.TrimSuffix(weight, "%"), 10, 32)
	if !ok || name == "" || err != nil {
		return nil, usageErrorf("%q: want BACKEND=WEIGHT with a whole number, such as cart-v2=10", arg)
	}
	return &adminv1.Share{Backend: name, Weight: uint32(n)}, nil
}

// parsePin reads NAME=VALUE:BACKEND; the value may have colons.
func parsePin(arg string) (*adminv1.Pin, error) {
	name, rest, ok := strings.Cut(arg, "=")
	colon := strings.LastIndexByte(rest, ':')
	if !ok || name == "" || colon < 0 || colon == len(rest)-1 {
		return nil, usageErrorf("--header %q: want NAME=VALUE:BACKEND, such as x-tester=yes:cart-v2", arg)
	}
	return &adminv1.Pin{Header: strings.ToLower(name), Value: rest[:colon], Backend: rest[colon+1:]}, nil
}
