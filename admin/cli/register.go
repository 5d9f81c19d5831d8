package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/admin/v1"
)

// registration is what a process says of itself.
type registration struct {
	written
	namespace     string
	weight        uint32
	zone, version string
	lease         time.Duration
	keep          bool
	retryFor      time.Duration
}

func (p *program) registerCommand() *cobra.Command {
	var r registration
	cmd := &cobra.Command{
		Use:   "register NAME ADDRESS [--keep [-- COMMAND...]]",
		Short: "Announce a process as an endpoint of a backend",
		Long: `Announce the process at ADDRESS (host:port, as the gateway reaches it) as an endpoint
of a backend whose manifest has registration. It is one for as long as the lease;
the same command again begins that anew.

With --keep the command stays, and the endpoint is registered as long as it runs.
SIGTERM and SIGINT take it back. When the server ends or cannot be reached, the command
tries again, in turn at each URL of --server URL,URL..., for as long as --retry-for,
and then fails. A command after -- is run beside it: when that ends, so does the
registration; when a signal comes, the registration ends first, and then the command
gets the signal. The status is that of the command.`,
		Example: `  sluice backend register cart-v1 10.0.0.5:50051 --lease 1m
  sluice backend register cart-v1 10.0.0.5:50051 --zone eu-1a --keep --server https://gw1:8081,https://gw2:8081
  sluice backend register cart-v1 10.0.0.5:50051 --keep -- cart --port 50051`,
		Args: func(cmd *cobra.Command, args []string) error {
			own, _ := beforeDash(cmd, args)
			return wants(2, 2)(cmd, own)
		},
	}
	flags := cmd.Flags()
	flags.Uint32Var(&r.weight, "weight", 1, "its `share`, relative to the other endpoints")
	flags.StringVar(&r.zone, "zone", "", "the `zone` that it is in")
	flags.StringVar(&r.version, "version", "", "the `version` of what runs there, for people to read")
	flags.DurationVar(&r.lease, "lease", 30*time.Second, "how `long` it holds without being renewed")
	flags.BoolVar(&r.keep, "keep", false, "stay, and keep it until SIGTERM, SIGINT or the end of the command")
	flags.DurationVar(&r.retryFor, "retry-for", 10*time.Minute, "with --keep, how `long` to try again when no server answers; 0 is for ever")
	r.addReason(cmd)
	p.addWait(cmd, &r.peers)
	addNamespace(cmd, &r.namespace, defaultNamespace)
	output := p.addFormat(cmd, false)
	cmd.ValidArgsFunction = p.completeNames(backend, &r.namespace)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		own, command := beforeDash(cmd, args)
		if len(command) > 0 && !r.keep {
			return usageErrorf("a command after -- needs --keep; see %s --help", cmd.CommandPath())
		}
		if r.retryFor < 0 {
			return usageErrorf("--retry-for %q: want a time such as 10s or 2m", r.retryFor)
		}
		ref, err := parseName(backend, r.namespace, own[0])
		if err != nil {
			return err
		}
		servers, err := p.targets(cmd.Flags().Changed("data-dir"), cmd.InOrStdin())
		if err != nil {
			return err
		}
		k := &keeping{program: p, cmd: cmd, output: output, servers: servers, retryFor: r.retryFor, request: r.request(ref, own[1])}
		switch {
		case len(command) > 0:
			return k.beside(cmd.Context(), command)
		case r.keep:
			return k.run(cmd.Context())
		}
		return k.once()
	}
	return cmd
}

// beforeDash is what stands before --, and the command behind it.
func beforeDash(cmd *cobra.Command, args []string) (own, command []string) {
	if at := cmd.ArgsLenAtDash(); at >= 0 {
		return args[:at], args[at:]
	}
	return args, nil
}

func (r *registration) request(ref *adminv1.Ref, address string) *adminv1.RegisterRequest {
	return &adminv1.RegisterRequest{
		Backend: ref, Address: address, Weight: &r.weight, Zone: r.zone, Version: r.version,
		Lease: durationpb.New(r.lease), Reason: r.reason, Wait: r.peers.is,
	}
}

func (p *program) deregisterCommand() *cobra.Command {
	var w written
	var namespace string
	cmd := &cobra.Command{
		Use:   "deregister NAME ADDRESS...",
		Short: "Take back what register announced",
		Long: `End registrations: the endpoints get no new RPCs, and those that are open go on. What a
manifest declares is not concerned: drain that.`,
		Example: "  sluice backend deregister cart-v1 10.0.0.5:50051",
		Args:    wants(2, -1),
	}
	w.addReason(cmd)
	p.addWait(cmd, &w.peers)
	addNamespace(cmd, &namespace, defaultNamespace)
	output := p.addFormat(cmd, false)
	cmd.ValidArgsFunction = p.completeEndpoints(&namespace, func(e *adminv1.Endpoint) bool { return e.GetRegistration() != nil })
	cmd.RunE = p.remote(func(c *call, args []string) error {
		ref, err := parseName(backend, namespace, args[0])
		if err != nil {
			return err
		}
		var peers *adminv1.Confirmation
		for _, address := range args[1:] {
			response, err := ask(c.ctx, c.backends.Deregister, &adminv1.DeregisterRequest{Backend: ref, Address: address, Reason: w.reason, Wait: w.peers.is})
			if err != nil {
				return err
			}
			if output.is != asTable {
				if err := c.structured(output, response); err != nil {
					return err
				}
			} else {
				c.warn(response.GetWarnings())
				if _, err := fmt.Fprintf(c.out, "%s of %s deregistered\n", printable(address), refID(ref)); err != nil {
					return err
				}
			}
			peers = joined(peers, response.GetPeers())
		}
		return c.confirmed(peers)
	})
	return cmd
}

// printRegistration tells what was announced.
func (c *call) printRegistration(output *format, r *adminv1.Registration, warnings []string) error {
	c.warn(warnings)
	if output.is != asTable {
		return c.structured(output, &adminv1.RegisterResponse{Registration: r, Warnings: warnings})
	}
	until := "kept by this command"
	if !r.GetKept() {
		until = "until " + c.clock(r.GetExpires()) + " unless it is renewed"
	}
	_, err := fmt.Fprintf(c.out, "%s registered at %s, weight %d, %s\n", printable(r.GetAddress()), refID(r.GetBackend()), r.GetWeight(), until)
	return err
}
