package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) routeCommand() *cobra.Command {
	return group(
		&cobra.Command{Use: "route", Short: "Explain routes, take them out of the table and put them back"},
		p.explainCommand(),
		p.disableCommand("disable NAME", "Take a route out of the table without forgetting it",
			`Take a route out of the table: its RPCs meet the other routes, or none. Streams that
are open go on. It lies beside what is declared and survives a reload.`, false),
		p.disableCommand("enable NAME", "Put a route back into the table",
			"Put a route back into the table that sluice route disable took out.", true),
	)
}

func (p *program) disableCommand(use, short, long string, undo bool) *cobra.Command {
	var w written
	var namespace string
	var kind routeKind
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: wants(1, 1)}
	w.addReason(cmd)
	w.addDryRun(cmd)
	p.addWait(cmd, &w.peers)
	kind.addFlag(cmd)
	addNamespace(cmd, &namespace, defaultNamespace)
	output := p.addFormat(cmd, true)
	cmd.ValidArgsFunction = p.completeKinds(&namespace, grpcRoute, httpRoute)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		ref, err := parseName(grpcRoute, namespace, args[0])
		if err != nil {
			return err
		}
		if err := kind.set(ref); err != nil {
			return err
		}
		response, err := ask(c.ctx, c.resources.Disable, &adminv1.DisableRequest{
			Route: ref, Undo: undo, Reason: w.reason, DryRun: w.dryRun, Wait: w.peers.is,
		})
		if err != nil {
			return err
		}
		return c.printWrite(output, response, w.dryRun)
	})
	return cmd
}

func (p *program) explainCommand() *cobra.Command {
	var host string
	var headers []string
	cmd := &cobra.Command{
		Use:   "explain SERVICE/METHOD",
		Short: "Say which rule an RPC would meet, and why",
		Long: `Say which rule an RPC would meet, which others lose and why, and where the RPC
would go. Nothing is sent to a backend.`,
		Example: "  sluice route explain --host shop.example.com shop.v1.Cart/Get -H x-tester:yes",
		Args:    wants(1, 1),
	}
	output := p.addFormat(cmd, false)
	cmd.Flags().StringVar(&host, "host", "", "the RPC's `authority`, which routes compare with their hostnames")
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, "metadata of the RPC, `NAME:VALUE`; may be repeated")
	cmd.RunE = p.remote(func(c *call, args []string) error {
		request := &adminv1.ExplainRequest{Authority: host, Path: "/" + strings.TrimPrefix(args[0], "/")}
		if service, method, _ := strings.Cut(request.Path[1:], "/"); service == "" || method == "" || strings.Contains(method, "/") {
			return usageErrorf("%q: want SERVICE/METHOD, such as shop.v1.Cart/Get", args[0])
		}
		for _, header := range headers {
			name, value, ok := strings.Cut(header, ":")
			if !ok || name == "" {
				return usageErrorf("--header %q: want NAME:VALUE, such as x-tester:yes", header)
			}
			request.Headers = append(request.Headers, &adminv1.Header{Name: strings.ToLower(name), Value: strings.TrimSpace(value)})
		}
		response, err := ask(c.ctx, c.resources.Explain, request)
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, response)
		}
		return c.printExplanation(response)
	})
	return cmd
}

func (c *call) printExplanation(r *adminv1.ExplainResponse) error {
	fmt.Fprintln(c.out, printable(r.GetVerdict()))
	if r.GetChosen() != "" {
		fmt.Fprintln(c.out, printable(fmt.Sprintf("It goes to %s: %s", shortKey(r.GetChosen()), r.GetChosenWhy())))
	}
	if len(r.GetCandidates()) > 0 {
		fmt.Fprintln(c.out)
		t := newTable("RESULT", "ROUTE", "RULE", "HOSTNAME", "MATCH", "WHY")
		for _, candidate := range r.GetCandidates() {
			result := "loses"
			if candidate.GetWins() {
				result = "wins"
			}
			t.add(result, candidate.GetRoute(), candidate.GetRule(), candidate.GetHostname(), candidate.GetMatch(), candidate.GetWhy())
		}
		if err := t.write(c.out, ""); err != nil {
			return err
		}
	}
	if len(r.GetShares()) == 0 {
		return nil
	}
	fmt.Fprintln(c.out)
	return sharesTable(r.GetShares(), false).write(c.out, "")
}
