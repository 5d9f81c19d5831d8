package main

import (
	"context"
	"errors"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"sluice/store/disk"
)

// verifyStoreCommand is what a node has a process of its own do, since a damaged
// file can end whoever maps it. It is not for people.
func verifyStoreCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "verify-store FILE",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if code := disk.VerifyChild(args[0], cmd.ErrOrStderr()); code != 0 {
				return exitStatus(code)
			}
			return nil
		},
	}
}

// verifyCommand is this program, verifying a file. The name is what tests know the
// program by.
func verifyCommand(ctx context.Context, path string) *exec.Cmd {
	self, err := os.Executable()
	cmd := exec.CommandContext(ctx, self, "verify-store", path)
	cmd.Err = errors.Join(cmd.Err, err)
	cmd.Args[0] = "sluice"
	return cmd
}
