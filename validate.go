package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sluice/store"
)

func validateCommand() *cobra.Command {
	var paths []string
	var options store.LoadOptions
	cmd := &cobra.Command{
		Use:   "validate -f FILE|DIR|-",
		Short: "Check files with routes and backends",
		Long: `Check files with routes and backends, as serve would before it applies them.
Every fault is printed with its place; - reads standard input.`,
		Example: "  sluice validate -f routes.yaml\n  sluice validate -f /etc/sluice/resources",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := read(paths, options, cmd.InOrStdin())
			if err != nil {
				return refused(err, cmd.ErrOrStderr())
			}
			for _, warning := range set.Warnings() {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "ok:", counts(set))
			return err
		},
	}
	cmd.Flags().StringSliceVarP(&paths, "file", "f", nil, "`file` or directory to check, - for standard input; may be repeated")
	cmd.Flags().BoolVar(&options.AllowUnresolved, "allow-unresolved", false, "accept references to backends that do not exist")
	return cmd
}

// read parses what paths stand for: files and directories together, or
// standard input alone.
func read(paths []string, options store.LoadOptions, stdin io.Reader) (*store.Set, error) {
	switch {
	case len(paths) == 0:
		return nil, usageErrorf("nothing to check; give a file with -f, or -f - for standard input")
	case len(paths) == 1 && paths[0] == "-":
		return readStdin(stdin, options)
	}
	return store.Load(options, paths...)
}

func readStdin(stdin io.Reader, options store.LoadOptions) (*store.Set, error) {
	data, err := io.ReadAll(stdin)
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	set, faults := store.Parse("-", data)
	if len(faults) == 0 && !options.AllowUnresolved {
		faults = set.Unresolved()
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return set, nil
}

// refused prints each fault on a line of its own, as editors read them, and
// returns how many there are; another error it returns as it is.
func refused(err error, stderr io.Writer) error {
	var faults store.Faults
	if !errors.As(err, &faults) {
		return err
	}
	for _, fault := range faults {
		fmt.Fprintln(stderr, fault)
	}
	return fmt.Errorf("%s in the resources; nothing was applied", count(len(faults), "fault"))
}

// counts says how much a set declares: routes and backends always, the rest when
// there is some.
func counts(set *store.Set) string {
	parts := []string{count(len(set.GRPCRoutes), "route"), count(len(set.Backends), "backend")}
	if n := len(set.HTTPRoutes); n > 0 {
		parts = append(parts, count(n, "HTTP route"))
	}
	if n := len(set.RPCPolicies); n > 0 {
		parts = append(parts, plural(n, "policy", "policies"))
	}
	if n := len(set.Schemas); n > 0 {
		parts = append(parts, count(n, "schema"))
	}
	return strings.Join(parts, ", ")
}

// count says a number with its noun.
func count(n int, noun string) string { return plural(n, noun, noun+"s") }

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
