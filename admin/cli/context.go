package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
)

func (p *program) contextCommand() *cobra.Command {
	return group(
		&cobra.Command{
			Use:   "context",
			Short: "Name servers, and choose the one that is meant",
			Long: `A context is a server and the token for it under a name, in contexts.yaml in your
own configuration folder. The current one is meant when a command says nothing else;
--server, --data-dir and --context do. sluice login makes one, too.`,
		},
		p.addContextCommand(), p.useContextCommand(), p.listContextsCommand(), p.deleteContextCommand(),
	)
}

func (p *program) addContextCommand() *cobra.Command {
	var pinned string
	cmd := &cobra.Command{
		Use:   "add NAME URL",
		Short: "Name a server without asking it",
		Long: `Name a server, with the token of --token-file or SLUICE_TOKEN if there is one. A URL
may be unix:/path/to/admin.sock.`,
		Example: "  sluice context add here unix:/var/lib/sluice/admin.sock",
		Args:    wants(2, 2),
	}
	cmd.Flags().StringVar(&pinned, "fingerprint", "", "`SHA-256` of the server's certificate")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		entry, err := p.newContext(args[0], args[1], pinned)
		if err != nil {
			return err
		}
		if entry.Token, err = p.token(cmd.InOrStdin()); err != nil {
			return err
		}
		at, err := entry.target()
		if err != nil {
			return err
		}
		if err := at.check(); err != nil {
			return err
		}
		return p.changeContexts(func(known *contextList) error {
			known.put(*entry)
			return nil
		})
	}
	return cmd
}

func (p *program) useContextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "use NAME",
		Short: "Make a context the current one; - for the server of this machine",
		Args:  wants(1, 1),
	}
	cmd.ValidArgsFunction = p.completeContexts
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return p.changeContexts(func(known *contextList) error {
			switch {
			case args[0] == "-":
				known.Current = ""
			case known.index(args[0]) < 0:
				return known.unknown(args[0])
			default:
				known.Current = args[0]
			}
			return nil
		})
	}
	return cmd
}

func (p *program) deleteContextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Forget a context and its token",
		Args:  wants(1, 1),
	}
	cmd.ValidArgsFunction = p.completeContexts
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return p.changeContexts(func(known *contextList) error {
			i := known.index(args[0])
			if i < 0 {
				return known.unknown(args[0])
			}
			known.List = slices.Delete(known.List, i, i+1)
			if known.Current == args[0] {
				known.Current = ""
			}
			return nil
		})
	}
	return cmd
}

func (p *program) listContextsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List contexts; * is the current one",
		Args:  wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			known, err := p.contexts()
			if err != nil {
				return err
			}
			if len(known.List) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "there are none: the server of this machine is meant")
				return nil
			}
			t := newTable("CURRENT", "NAME", "SERVER", "TOKEN")
			for _, c := range known.List {
				current, token := "", "no"
				if c.Name == known.Current {
					current = "*"
				}
				if c.Token != "" {
					token = "yes"
				}
				t.add(current, c.Name, c.Server, token)
			}
			return t.write(cmd.OutOrStdout(), "")
		},
	}
}

func (p *program) changeContexts(change func(*contextList) error) error {
	known, err := p.contexts()
	if err != nil {
		return err
	}
	if err := change(known); err != nil {
		return err
	}
	return p.saveContexts(known)
}
