package cli

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) watchCommand() *cobra.Command {
	var after uint64
	cmd := &cobra.Command{
		Use:   "watch [KIND]",
		Short: "Print changes as they happen",
		Long: `Print each change once and in order, from now on or after a sequence, until it is
interrupted. -o json prints one object a line.`,
		Example: "  sluice watch routes\n  sluice watch -o json --after 1042",
		Args:    wants(0, 1),
	}
	output := p.addFormat(cmd, false)
	output.allowed = []string{asTable, asJSON}
	cmd.Flags().Uint64Var(&after, "after", 0, "begin after this `sequence`, as history and -o json have it")
	cmd.ValidArgsFunction = p.completeRefs(0)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		kind, err := kindOf(args)
		if err != nil {
			return err
		}
		if !cmd.Flags().Changed("after") {
			status, err := ask(c.ctx, c.node.Status, &adminv1.StatusRequest{})
			if err != nil {
				return err
			}
			after = status.GetSequence()
		}
		return c.watch(kind, after, output)
	})
	return cmd
}

// watch prints until the context ends, which is no failure, or the server does.
func (c *call) watch(kind string, after uint64, output *format) error {
	stream, err := c.resources.Watch(c.ctx, connect.NewRequest(&adminv1.WatchRequest{Kind: kind, After: after}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if stream.Msg().GetKind() != adminv1.WatchResponse_KIND_CHANGE {
			continue
		}
		if err := c.printChange(stream.Msg().GetChange(), output); err != nil {
			return err
		}
		after = stream.Msg().GetChange().GetSequence()
	}
	switch err := stream.Err(); {
	case c.ctx.Err() != nil && errors.Is(c.ctx.Err(), context.Canceled):
		return nil
	case err != nil && (connect.IsWireError(err) || !isCut(err)):
		return err
	}
	return fmt.Errorf("%s: the server ended the watch; start it again with --after %d", c.at.name, after)
}

func (c *call) printChange(change *adminv1.Change, output *format) error {
	if output.is == asJSON {
		n, err := view(change)
		if err != nil {
			return err
		}
		return writeJSON(c.out, n, false)
	}
	reason := ""
	if change.GetReason() != "" {
		reason = ": " + change.GetReason()
	}
	_, err := fmt.Fprintf(c.out, "%s  %s\n", c.clock(change.GetTime()), printable(fmt.Sprintf("%s %s%s by %s%s",
		refID(change.GetRef()), doneWord(change.GetAction()), stateAfter(change), who(change), reason)))
	return err
}
