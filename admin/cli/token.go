package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/admin/v1"
)

// defaultTokenLife is what a token lives unless --expires says otherwise.
const defaultTokenLife = "90d"

func (p *program) tokenCommand() *cobra.Command {
	return group(
		&cobra.Command{Use: "token", Short: "Make, list and revoke tokens for machines"},
		p.createTokenCommand(), p.listTokensCommand(), p.revokeTokenCommand(),
	)
}

func (p *program) createTokenCommand() *cobra.Command {
	r := role{is: adminv1.Role_ROLE_VIEWER, token: true}
	var expires string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token for a machine, and print its secret",
		Long: `Make a token. Its secret is printed on standard output, once: the server keeps only
what it needs to know it again. Show it with --token-file, SLUICE_TOKEN or sluice login.`,
		Example: "  sluice admin token create deploy --role operator --expires 30d > deploy.token",
		Args:    wants(1, 1),
	}
	p.addRole(cmd, &r)
	cmd.Flags().StringVar(&expires, "expires", defaultTokenLife, "how long it lives, such as 12h or 30d, or never")
	output := p.addFormat(cmd, false)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		request := &adminv1.CreateTokenRequest{Name: args[0], Role: r.is}
		if expires != "never" {
			life, err := parseAge(expires)
			if err != nil || life == 0 {
				return usageErrorf("--expires %q: want a time such as 12h or 30d, or never", expires)
			}
			request.Expires = timestamppb.New(p.Now().Add(life))
		}
		made, err := ask(c.ctx, c.access.CreateToken, request)
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, made)
		}
		token := made.GetToken()
		c.note("token %s (%s), %s, expires %s; this is its secret, shown once:", token.GetName(), token.GetId(), roleWord(token.GetRole()), c.expiry(token))
		_, err = fmt.Fprintln(c.out, made.GetSecret())
		return err
	})
	return cmd
}

func (c *call) expiry(token *adminv1.Token) string {
	if token.GetExpires() == nil {
		return "never"
	}
	return c.clock(token.GetExpires())
}

func (p *program) listTokensCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List tokens, without their secrets", Args: wants(0, 0)}
	output := p.addFormat(cmd, false)
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		all, err := ask(c.ctx, c.access.ListTokens, &adminv1.ListTokensRequest{})
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, all)
		}
		if len(all.GetTokens()) == 0 {
			c.note("there are none")
			return nil
		}
		t := newTable("ID", "NAME", "ROLE", "CREATED", "BY", "EXPIRES", "LAST SEEN")
		for _, token := range all.GetTokens() {
			t.add(token.GetId(), token.GetName(), roleWord(token.GetRole()), c.clock(token.GetCreated()),
				token.GetCreatedBy(), c.expiry(token), c.ago(token.GetLastSeen()))
		}
		return t.write(c.out, "")
	})
	return cmd
}

func (p *program) revokeTokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "revoke ID", Short: "End a token at once", Args: wants(1, 1)}
	cmd.ValidArgsFunction = p.completeTokens
	cmd.RunE = p.remote(func(c *call, args []string) error {
		if _, err := ask(c.ctx, c.access.RevokeToken, &adminv1.RevokeTokenRequest{Id: args[0]}); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.out, "token %s revoked\n", args[0])
		return err
	})
	return cmd
}
