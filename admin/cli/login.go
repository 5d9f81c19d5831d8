package cli

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) loginCommand() *cobra.Command {
	var pinned string
	cmd := &cobra.Command{
		Use:   "login URL",
		Short: "Remember a server and the token for it",
		Long: `Show a server a token and, when it lets you in, remember both as a context, which is
then the current one. The token is asked for, or read from --token-file. The name of
the context is that of --context, else the server's host.

A server that was given no certificate has one that it signed itself. Compare its
fingerprint with the one in the server's log (sha256=), and give it with --fingerprint: from
then on that certificate alone is believed.`,
		Example: `  sluice login https://gateway.example.com:8081 --context prod
  sluice login https://10.0.0.5:8081 --token-file deploy.token --fingerprint SHA256`,
		Args: wants(1, 1),
	}
	cmd.Flags().StringVar(&pinned, "fingerprint", "", "`SHA-256` of the server's certificate")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		entry, err := p.newContext(cmp.Or(p.context, hostOf(args[0])), args[0], pinned)
		if err != nil {
			return err
		}
		at, err := entry.target()
		if err != nil {
			return err
		}
		return p.callAt(cmd, at, func(c *call) error { return c.login(entry) })
	}
	return cmd
}

// newContext is a context without a token, checked as far as it can be.
func (p *program) newContext(name, server, pinned string) (*namedContext, error) {
	entry := &namedContext{Name: name, Server: server}
	if pinned != "" {
		clean, err := parseFingerprint(pinned)
		if err != nil {
			return nil, err
		}
		entry.Fingerprint = clean
	}
	if file := cmp.Or(p.caFile, p.Getenv("SLUICE_CA_FILE")); file != "" {
		full, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		entry.CAFile = full
	}
	_, err := parseServer("server", server)
	return entry, err
}

func (c *call) login(entry *namedContext) error {
	// Whether it is the right server comes before the token that it gets to see.
	if _, err := ask(c.ctx, c.access.WhoAmI, &adminv1.WhoAmIRequest{}); err != nil && connect.CodeOf(err) != connect.CodeUnauthenticated {
		return err
	}
	token, err := c.askToken()
	if err != nil {
		return err
	}
	entry.Token, c.at.token = token, token
	if err := c.at.check(); err != nil {
		return err
	}
	who, err := ask(c.ctx, c.access.WhoAmI, &adminv1.WhoAmIRequest{})
	if err != nil {
		return err
	}
	if who.GetRole() == adminv1.Role_ROLE_UNSPECIFIED {
		return fmt.Errorf("%s: the token is not known there, or is no longer valid", c.at.name)
	}
	known, err := c.contexts()
	if err != nil {
		return err
	}
	known.put(*entry)
	known.Current = entry.Name
	if err := c.saveContexts(known); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "signed in to %s as %s (%s); context %s\n", c.at.name, printable(who.GetActor()), roleWord(who.GetRole()), entry.Name)
	return err
}

// askToken reads the token from where the user has it.
func (c *call) askToken() (string, error) {
	token, err := c.token(c.in)
	if token != "" || err != nil {
		return token, err
	}
	if terminal, ok := c.terminal(); ok {
		return c.prompt(terminal, "Token: ")
	}
	if token, err = readSecret("token", "-", c.in); err != nil {
		return "", errors.Join(err, errors.New("give it with --token-file, SLUICE_TOKEN or on standard input"))
	}
	return token, nil
}
