package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Options is what the program around the commands decides. The zero Options is valid.
type Options struct {
	// DataDir is where the server of this machine has its socket, unless a flag
	// or the environment says otherwise.
	DataDir string

	// SystemDir is the DataDir of a server that runs as a service, for a hint when
	// there is none in DataDir. Empty means /var/lib/sluice.
	SystemDir string

	// ConfigDir has the user's contexts. Empty means the folder sluice in
	// os.UserConfigDir.
	ConfigDir string

	// Version of the program, told to the server.
	Version string

	// Compile makes descriptors of .proto files; imports are the folders in which they
	// and what they import are, found by their packages when there are none. Its errors
	// are of the form "file:line:column: what", one a line. nil means that the program
	// cannot.
	Compile func(ctx context.Context, imports, files []string) (*descriptorpb.FileDescriptorSet, error)

	// Getenv reads the environment; nil means os.Getenv.
	Getenv func(string) string

	// Now is the clock, and its location the zone in which times are shown and
	// read; nil means time.Now.
	Now func() time.Time
}

// ErrDiffers is what diff returns when there is a difference: the status of the
// process is 1, and there is nothing more to say.
var ErrDiffers = errors.New("what is declared differs from what is in force")

// UsageError is a command line, or a variable, that asks for something
// impossible: nothing has been tried yet.
type UsageError struct{ err error }

func (e UsageError) Error() string { return e.err.Error() }
func (e UsageError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return UsageError{fmt.Errorf(format, args...)}
}

// program is what all commands share. The flags are of the command that runs.
type program struct {
	Options

	server, tokenFile, context, dataDir, caFile string
}

// Commands are the commands that talk to a server, and the one that helps a shell to
// complete them.
func Commands(opts Options) []*cobra.Command {
	if opts.Getenv == nil {
		opts.Getenv = os.Getenv
	}
	if opts.SystemDir == "" {
		opts.SystemDir = "/var/lib/sluice"
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	p := &program{Options: opts}
	commands := []*cobra.Command{
		p.getCommand(), p.describeCommand(),
		p.applyCommand(), p.diffCommand(), p.editCommand(), p.deleteCommand(),
		p.splitCommand(), p.backendCommand(), p.routeCommand(),
		p.historyCommand(), p.rollbackCommand(), p.watchCommand(),
		p.adoptCommand(), p.releaseCommand(),
		p.schemaCommand(), p.methodsCommand(), p.openAPICommand(),
		p.statusCommand(), p.backupCommand(), p.restoreCommand(),
		p.membersCommand(), p.clusterCommand(), p.conflictsCommand(),
		p.adminCommand(), p.auditCommand(),
		p.loginCommand(), p.contextCommand(),
	}
	for _, cmd := range commands {
		p.addServerFlags(cmd)
	}
	commands = append(commands, completionCommand())
	for _, cmd := range commands {
		cmd.SetFlagErrorFunc(flagError)
		plainUse(cmd)
	}
	return commands
}

// plainUse keeps cobra from adding "[flags]" to each usage line.
func plainUse(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = true
	for _, below := range cmd.Commands() {
		plainUse(below)
	}
}

// addServerFlags declares which server is meant, for cmd and all below it.
func (p *program) addServerFlags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&p.server, "server", "", "`URL` of the server's admin address, or unix:/path/to/admin.sock (SLUICE_SERVER)")
	flags.StringVar(&p.tokenFile, "token-file", "", "`file` with the token to show, - for standard input (or SLUICE_TOKEN has the token itself)")
	flags.StringVar(&p.caFile, "ca-file", "", "PEM `file` with the authorities that the server's certificate may be of (SLUICE_CA_FILE)")
	flags.StringVar(&p.context, "context", "", "`name` of the context to use, see sluice context --help (SLUICE_CONTEXT)")
	flags.StringVar(&p.dataDir, "data-dir", "", "`directory` of the server on this machine, with its admin.sock (SLUICE_DATA_DIR)")
	p.complete(cmd, "context", p.completeContexts)
}

// call is one run of a command against one server.
type call struct {
	*program
	*client
	ctx   context.Context
	out   io.Writer // data
	notes io.Writer // everything else
	in    io.Reader
}

// remote makes do the RunE of a command that needs a server. What do returns as an
// error of the API is put into words here.
func (p *program) remote(do func(*call, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		at, err := p.target(cmd.Flags().Changed("data-dir"), cmd.InOrStdin())
		if err != nil {
			return err
		}
		return p.callAt(cmd, at, func(c *call) error { return do(c, args) })
	}
}

func (p *program) callAt(cmd *cobra.Command, at *target, do func(*call) error) error {
	client, err := newClient(at, p.Version)
	if err != nil {
		return err
	}
	c := &call{
		program: p, client: client, ctx: cmd.Context(),
		out: cmd.OutOrStdout(), notes: cmd.ErrOrStderr(), in: cmd.InOrStdin(),
	}
	defer c.close()
	return c.inWords(do(c))
}

// note tells the user something that is no data.
func (c *call) note(format string, args ...any) {
	fmt.Fprintf(c.notes, format+"\n", args...)
}

// group is a command that only has others below it.
func group(cmd *cobra.Command, below ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs // so that an unknown one comes to RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var names []string
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				names = append(names, c.Name())
			}
		}
		return usageErrorf("unknown command %q of %s, want %s; see %[2]s --help", args[0], cmd.CommandPath(), list(names, "or"))
	}
	cmd.AddCommand(below...)
	return cmd
}

// wants checks the number of arguments; most < 0 means any number.
func wants(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case most >= 0 && len(args) > most:
			return usageErrorf("unexpected argument %q; usage: %s", args[most], cmd.UseLine())
		case len(args) < least:
			return usageErrorf("%d of %d arguments; usage: %s", len(args), least, cmd.UseLine())
		}
		return nil
	}
}

// list is "a, b or c".
func list(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	n := len(words) - 1
	return strings.Join(words[:n], ", ") + " " + last + " " + words[n]
}

// count says a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
