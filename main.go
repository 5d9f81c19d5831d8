// Command sluice is a gateway appliance for gRPC: one binary that takes gRPC
// on one port and balances every RPC over the backends behind it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/descriptorpb"

	"sluice/admin/cli"
	"sluice/gateway/schema"
)

// echo is how long after the first signal another is taken for the same one:
// shells and supervisors signal a process and then its whole group.
const echo = time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal drains; a later one ends the process at once.
	context.AfterFunc(ctx, func() { time.AfterFunc(echo, stop) })
	os.Exit(exitCode(run(ctx, os.Args[1:], os.Stdout, os.Stderr), os.Stderr))
}

// run carries out one command line and returns when it is done: for serve and
// demo, when ctx is done and the last stream has ended.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "A gateway for gRPC that balances every RPC",
		Long: `Sluice takes gRPC on one port and balances every RPC and every stream over the
backends behind it.

  sluice demo                               see it work
  sluice serve                              run it
  sluice apply -f shop.yaml                 say what goes where
  sluice split cart/all shop=90 next=10     try a new version
  sluice describe route cart                see the share it gets
  sluice rollback route cart                go back`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs, // so that an unknown command comes to RunE
		RunE:          runRoot,

		SuggestionsMinimumDistance: 2, // letters between what was typed and what was meant
	}
	root.AddCommand(serveCommand(), demoCommand(), validateCommand(), versionCommand(), verifyStoreCommand(), demoGatewayCommand())
	root.AddCommand(cli.Commands(cli.Options{DataDir: defaultDataDir(), Version: version, Compile: compileSources})...)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageErrorf("%w; see %s --help", err, cmd.CommandPath())
	})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

func runRoot(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usageErrorf("unknown command %q; did you mean %q?", args[0], near[0])
	}
	return usageErrorf("unknown command %q; see sluice --help", args[0])
}

// compileSources makes descriptors of .proto files, for sluice schema push.
func compileSources(ctx context.Context, imports, files []string) (*descriptorpb.FileDescriptorSet, error) {
	open := func(path string) (io.ReadCloser, error) { return os.Open(path) }
	return schema.CompileSources(ctx, open, imports, files)
}

// noArgs refuses arguments to a command that takes none.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageErrorf("unexpected argument %q; see %s --help", args[0], cmd.CommandPath())
	}
	return nil
}

// usageError is a command line, a variable or a configuration file that says
// something impossible: nothing has been tried yet.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// exitCode reports err on stderr and returns the status of the process: 0
// done, 1 failed, 2 wrong usage.
func exitCode(err error, stderr io.Writer) int {
	var ready exitStatus
	var ran cli.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ran):
		return ran.Code
	case errors.As(err, &ready):
		return int(ready)
	case errors.Is(err, cli.ErrDiffers):
		return 1
	}
	fmt.Fprintln(stderr, "sluice:", err)
	if errors.As(err, new(usageError)) || errors.As(err, new(cli.UsageError)) {
		return 2
	}
	return 1
}

// exitStatus is the end of a command that has said all that there was to say.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }
