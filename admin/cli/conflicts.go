package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) conflictsCommand() *cobra.Command {
	cmd := group(
		&cobra.Command{
			Use:   "conflicts",
			Short: "See what two gateways changed unknown to each other, and settle it",
			Long: `When two gateways that do not hear each other change the same object, the later change
holds on all of them once they do, and the other is kept beside it. These are the
objects of which that is so. take writes the lost version anew, keep says that what
holds is right; any other change of the object settles it, too. All of that travels to
all gateways.`,
			Example: "  sluice conflicts\n  sluice conflicts show route cart\n  sluice conflicts take route cart --reason 'the split of the night shift'",
		},
		p.listConflictsCommand(), p.showConflictCommand(),
		p.settleCommand("take KIND NAME [REVISION]", "Have the version hold that was lost",
			`Write the version of an object anew that was lost, and so settle the conflict. Where
more than one was lost, REVISION says which. With --dry-run, show what that would change.`, adminv1.SettleConflictRequest_SIDE_TAKE),
		p.settleCommand("keep KIND NAME", "Say that the version that holds is right",
			"Settle a conflict: what holds goes on to hold, and what was lost stays in the history.", adminv1.SettleConflictRequest_SIDE_KEEP),
	)
	list, _, _ := cmd.Find([]string{"list"})
	help := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return help(cmd, args)
		}
		return list.RunE(cmd, args)
	}
	return cmd
}

func (p *program) listConflictsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the objects that are in conflict", Args: wants(0, 0)}
	output := p.addFormat(cmd, false)
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		all, err := ask(c.ctx, c.cluster.ListConflicts, &adminv1.ListConflictsRequest{})
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, all)
		}
		return c.printConflicts(all.GetConflicts())
	})
	return cmd
}

// printConflicts has a row for each version that was lost.
func (c *call) printConflicts(all []*adminv1.Contested) error {
	if len(all) == 0 {
		c.note("there are none")
		return nil
	}
	t := newTable("OBJECT", "HOLDS", "LOST", "REVISION LOST")
	for _, of := range all {
		for _, lost := range of.GetLost() {
			t.add(refID(of.GetHolds().GetObject().GetRef()), c.versionText(of.GetHolds()), c.versionText(lost), lost.GetObject().GetRevision())
		}
	}
	return t.write(c.out, "")
}

// versionText is who made a version, where and when: "by alice at gw-1 (k3f9x2ab), 5m ago".
func (c *call) versionText(v *adminv1.Version) string {
	change := v.GetObject().GetLastChange()
	word := "by " + who(change)
	if v.GetObject().GetDeleted() {
		word = "deleted " + word
	}
	return fmt.Sprintf("%s at %s, %s", word, memberName(v.GetHost(), v.GetNode()), c.ago(change.GetTime()))
}

func (p *program) showConflictCommand() *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use:     "show KIND NAME",
		Short:   "Show both sides of a conflict, and how they differ",
		Example: "  sluice conflicts show route cart",
		Args:    wants(2, 2),
	}
	output := p.addFormat(cmd, false)
	addNamespace(cmd, &namespace, defaultNamespace)
	cmd.ValidArgsFunction = p.completeConflicts
	cmd.RunE = p.remote(func(c *call, args []string) error {
		of, err := c.conflictOf(namespace, args)
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, of)
		}
		return c.printConflict(of)
	})
	return cmd
}

// conflictOf is the conflict of the object that KIND NAME names.
func (c *call) conflictOf(namespace string, args []string) (*adminv1.Contested, error) {
	ref, err := parseRef(namespace, args)
	if err != nil {
		return nil, err
	}
	found, err := ask(c.ctx, c.cluster.ListConflicts, &adminv1.ListConflictsRequest{Ref: ref})
	if err != nil {
		return nil, err
	}
	if len(found.GetConflicts()) == 0 {
		return nil, fmt.Errorf("%s is in no conflict", refID(ref))
	}
	return found.GetConflicts()[0], nil
}

// printConflict shows the sides, what it would mean to take each that was lost, and how.
func (c *call) printConflict(of *adminv1.Contested) error {
	t := &table{}
	c.addVersion(t, "Holds", of.GetHolds())
	for _, lost := range of.GetLost() {
		c.addVersion(t, "Lost", lost)
	}
	if err := t.write(c.out, ""); err != nil {
		return err
	}
	ref := of.GetHolds().GetObject().GetRef()
	for _, lost := range of.GetLost() {
		fmt.Fprintln(c.out)
		sides := &adminv1.Change{Ref: ref, Before: of.GetHolds().GetObject(), After: lost.GetObject()}
		if err := writeDifference(c.out, sides, "holds", "lost, "+lost.GetObject().GetRevision()); err != nil {
			return err
		}
	}
	revision := ""
	if len(of.GetLost()) > 1 {
		revision = " REVISION"
	}
	c.note("sluice conflicts take %s%s has the lost version hold; sluice conflicts keep %[1]s leaves it as it is", refArgs(ref), revision)
	return nil
}

func (c *call) addVersion(t *table, side string, v *adminv1.Version) {
	t.add(side, v.GetObject().GetRevision(), c.versionText(v), v.GetObject().GetLastChange().GetReason())
}

func (p *program) settleCommand(use, short, long string, side adminv1.SettleConflictRequest_Side) *cobra.Command {
	var w written
	var namespace, ifRevision string
	most := 2
	if side == adminv1.SettleConflictRequest_SIDE_TAKE {
		most = 3
	}
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: wants(2, most)}
	w.addReason(cmd)
	w.addDryRun(cmd)
	if most == 3 {
		w.addUnresolved(cmd)
	}
	p.addWait(cmd, &w.peers)
	addNamespace(cmd, &namespace, defaultNamespace)
	cmd.Flags().StringVar(&ifRevision, "if-revision", "", "only if this `revision` still holds")
	output := p.addFormat(cmd, true)
	cmd.ValidArgsFunction = p.completeConflicts
	cmd.RunE = p.remote(func(c *call, args []string) error {
		ref, err := parseRef(namespace, args)
		if err != nil {
			return err
		}
		request := &adminv1.SettleConflictRequest{
			Ref: ref, Side: side, IfRevision: ifRevision, Reason: w.reason, DryRun: w.dryRun,
			AllowUnresolved: w.unresolved, Wait: w.peers.is,
		}
		if len(args) == 3 {
			request.Revision = args[2]
		}
		response, err := ask(c.ctx, c.cluster.SettleConflict, request)
		if err != nil {
			return err
		}
		if w.dryRun {
			return c.printPlan(output, response, "holds", "would hold")
		}
		return c.printWrite(output, response, false)
	})
	return cmd
}
