package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) adminCommand() *cobra.Command {
	return group(
		&cobra.Command{
			Use:   "admin",
			Short: "Manage who may do what: accounts, tokens, the set-up link",
			Long: `Manage accounts for people and tokens for machines. A viewer reads; an operator
applies, splits, drains and rolls back, too; an admin also manages accounts and
tokens, reads the audit log, and makes and restores backups. On the machine itself,
root and the user who runs the server are admins without a password.`,
		},
		p.createAccountCommand(), p.passwordCommand(), p.roleCommand(), p.listAccountsCommand(), p.deleteAccountCommand(),
		p.setUpLinkCommand(), p.tokenCommand(),
	)
}

// role is the value of --role.
type role struct {
	is    adminv1.Role
	token bool // of a token, which may also be a registrar
}

func (r *role) names() []string {
	var names []string
	values := adminv1.Role(0).Descriptor().Values()
	for i := 1; i < values.Len(); i++ { // the first is no role
		if of := adminv1.Role(values.Get(i).Number()); r.token || of != adminv1.Role_ROLE_REGISTRAR {
			names = append(names, roleWord(of))
		}
	}
	return names
}

func (r *role) String() string { return roleWord(r.is) }
func (r *role) Type() string   { return "role" }

func (r *role) Set(s string) error {
	n := slices.Index(r.names(), strings.ToLower(s))
	if n < 0 {
		return fmt.Errorf("want %s", list(r.names(), "or"))
	}
	r.is = adminv1.Role(n + 1)
	return nil
}

func (p *program) addRole(cmd *cobra.Command, r *role) {
	cmd.Flags().Var(r, "role", "`role`: "+list(r.names(), "or"))
	p.complete(cmd, "role", fixed(r.names()...))
}

func (p *program) createAccountCommand() *cobra.Command {
	r := role{is: adminv1.Role_ROLE_ADMIN}
	var passwordFile string
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Make an account for a person",
		Long:    "Make an account. The password is asked for, or read from --password-file.",
		Example: "  sudo sluice admin create alice\n  sluice admin create bob --role viewer --password-file bob.txt",
		Args:    wants(1, 1),
	}
	p.addRole(cmd, &r)
	addPasswordFile(cmd, &passwordFile)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		password, err := c.newPassword(passwordFile)
		if err != nil {
			return err
		}
		made, err := ask(c.ctx, c.access.CreateAccount, &adminv1.CreateAccountRequest{Name: args[0], Password: password, Role: r.is})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "account %s created, %s\n", made.GetAccount().GetName(), roleWord(made.GetAccount().GetRole()))
		return err
	})
	return cmd
}

func addPasswordFile(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "password-file", "", "`file` whose first line is the password, - for standard input")
}

func (p *program) passwordCommand() *cobra.Command {
	var passwordFile string
	cmd := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Give an account a new password; its sessions end",
		Args:  wants(1, 1),
	}
	addPasswordFile(cmd, &passwordFile)
	cmd.ValidArgsFunction = p.completeAccounts
	cmd.RunE = p.remote(func(c *call, args []string) error {
		password, err := c.newPassword(passwordFile)
		if err != nil {
			return err
		}
		if _, err := ask(c.ctx, c.access.UpdateAccount, &adminv1.UpdateAccountRequest{Name: args[0], Password: password}); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "account %s has a new password\n", args[0])
		return err
	})
	return cmd
}

func (p *program) roleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "role NAME ROLE",
		Short: "Give an account another role; its sessions end",
		Args:  wants(2, 2),
	}
	cmd.ValidArgsFunction = p.completeAccounts
	cmd.RunE = p.remote(func(c *call, args []string) error {
		var r role
		if err := r.Set(args[1]); err != nil {
			return usageErrorf("role %q: %w", args[1], err)
		}
		if _, err := ask(c.ctx, c.access.UpdateAccount, &adminv1.UpdateAccountRequest{Name: args[0], Role: r.is}); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.out, "account %s is %s\n", args[0], &r)
		return err
	})
	return cmd
}

func (p *program) listAccountsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List accounts", Args: wants(0, 0)}
	output := p.addFormat(cmd, false)
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		all, err := ask(c.ctx, c.access.ListAccounts, &adminv1.ListAccountsRequest{})
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, all)
		}
		if len(all.GetAccounts()) == 0 {
			c.note("there are none; sluice admin create NAME makes the first")
			return nil
		}
		t := newTable("NAME", "ROLE", "CREATED", "LAST SEEN")
		for _, a := range all.GetAccounts() {
			t.add(a.GetName(), roleWord(a.GetRole()), c.clock(a.GetCreated()), c.ago(a.GetLastSeen()))
		}
		return t.write(c.out, "")
	})
	return cmd
}

func (p *program) deleteAccountCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete an account; its sessions and tokens end",
		Args:  wants(1, 1),
	}
	cmd.ValidArgsFunction = p.completeAccounts
	cmd.RunE = p.remote(func(c *call, args []string) error {
		if _, err := ask(c.ctx, c.access.DeleteAccount, &adminv1.DeleteAccountRequest{Name: args[0]}); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.out, "account %s deleted\n", args[0])
		return err
	})
	return cmd
}

func (p *program) setUpLinkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "setup-link",
		Short: "Make a one-time link to set up the first administrator in a browser",
		Long:  "Make a one-time link; earlier ones end. Only on the machine itself.",
		Args:  wants(0, 0),
		RunE: p.remote(func(c *call, _ []string) error {
			link, err := ask(c.ctx, c.access.CreateSetUpLink, &adminv1.CreateSetUpLinkRequest{})
			if err != nil {
				return err
			}
			for _, url := range link.GetUrls() {
				fmt.Fprintln(c.out, url)
			}
			if link.GetHint() != "" {
				c.note("%s", link.GetHint())
			}
			if link.GetExpires() != nil {
				c.note("it works once, until %s", c.clock(link.GetExpires()))
			}
			return nil
		}),
	}
}
