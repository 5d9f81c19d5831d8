package cli

import (
	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) backendCommand() *cobra.Command {
	return group(
		&cobra.Command{Use: "backend", Short: "List backends, take them out of the choice and put them back"},
		p.backendListCommand(),
		p.drainCommand("drain NAME [ENDPOINT...]", "Take a backend, or some of its endpoints, out of the choice",
			`Give a backend, or the endpoints that are named (host:port), no new RPCs. Streams
that are open go on. It lies beside what is declared and survives a reload.`, false),
		p.drainCommand("undrain NAME [ENDPOINT...]", "Put a backend, or some of its endpoints, back into the choice",
			"Give a backend, or the endpoints that are named, new RPCs again.", true),
	)
}

func (p *program) backendListCommand() *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the endpoints of all backends",
		Args:  wants(0, 0),
	}
	output := p.addFormat(cmd, true)
	addNamespace(cmd, &namespace, "all")
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		all, err := ask(c.ctx, c.resources.List, &adminv1.ListRequest{Kind: backend, Namespace: namespace})
		if err != nil {
			return err
		}
		switch output.is {
		case asJSON, asYAML:
			return c.printObjects(output, all.GetObjects(), true)
		case asName:
			return c.printNames(all.GetObjects())
		}
		return c.printEndpoints(all.GetObjects())
	})
	return cmd
}

// printEndpoints has a row for each endpoint.
func (c *call) printEndpoints(backends []*adminv1.Object) error {
	if len(backends) == 0 {
		c.note("there are none")
		return nil
	}
	t := newTable("BACKEND", "ENDPOINT", "WEIGHT", "STATE", "STATUS", "OWNER")
	for _, o := range backends {
		manifest, err := readManifest(o.GetManifest())
		if err != nil {
			return err
		}
		endpoints := items(manifest, "spec", "endpoints")
		for _, endpoint := range endpoints {
			address := word(endpoint, "address")
			t.add(refKey(o.GetRef()), address, word(endpoint, "weight"), endpointState(o.GetState(), address), statusWord(o), ownerText(o.GetOwner()))
		}
		if len(endpoints) == 0 {
			t.add(refKey(o.GetRef()), "none", "", "", statusWord(o), ownerText(o.GetOwner()))
		}
	}
	return t.write(c.out, "")
}

func (p *program) drainCommand(use, short, long string, undo bool) *cobra.Command {
	var w written
	var namespace string
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: wants(1, -1)}
	w.addReason(cmd)
	w.addDryRun(cmd)
	addNamespace(cmd, &namespace, defaultNamespace)
	output := p.addFormat(cmd, true)
	cmd.ValidArgsFunction = p.completeEndpoints(&namespace)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		ref, err := parseName(backend, namespace, args[0])
		if err != nil {
			return err
		}
		response, err := ask(c.ctx, c.resources.Drain, &adminv1.DrainRequest{
			Backend: ref, Endpoints: args[1:], Undo: undo, Reason: w.reason, DryRun: w.dryRun,
		})
		if err != nil {
			return err
		}
		return c.printWrite(output, response, w.dryRun)
	})
	return cmd
}
