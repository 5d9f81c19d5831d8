package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/admin/v1"
)

// largeAnswer is how many bytes an answer has, at least, that is cut short for its size.
const largeAnswer = 4 << 20

// past are the changes that a request asks for. The server cuts an answer short that
// has large objects in it; the rest is asked for again.
func (c *call) past(request *adminv1.HistoryRequest) (*adminv1.HistoryResponse, error) {
	limit := request.GetLimit()
	all := &adminv1.HistoryResponse{}
	for {
		got, err := ask(c.ctx, c.resources.History, request)
		if err != nil {
			return nil, err
		}
		all.Changes = append(all.Changes, got.GetChanges()...)
		n := len(got.GetChanges())
		if n == 0 || proto.Size(got) < largeAnswer || uint32(len(all.GetChanges())) >= limit {
			return all, nil
		}
		request = proto.CloneOf(request)
		request.Limit, request.Before = limit-uint32(len(all.GetChanges())), got.GetChanges()[n-1].GetSequence()
	}
}

func (p *program) historyCommand() *cobra.Command {
	var namespace string
	var limit uint32
	var before uint64
	var diff bool
	cmd := &cobra.Command{
		Use:   "history [KIND NAME]",
		Short: "Tell who changed what, when and why",
		Long: `List the changes of one object, or of all, the latest first. Deleted objects keep
their history. A revision of it is what rollback takes.`,
		Example: "  sluice history\n  sluice history route cart --diff",
		Args:    wants(0, 2),
	}
	output := p.addFormat(cmd, false)
	addNamespace(cmd, &namespace, defaultNamespace)
	cmd.Flags().Uint32Var(&limit, "limit", 20, "at most this `number` of changes")
	cmd.Flags().Uint64Var(&before, "before", 0, "go on from this `sequence`, of the last change that was shown")
	cmd.Flags().BoolVar(&diff, "diff", false, "show what each change made of its object")
	cmd.ValidArgsFunction = p.completeRefs(1)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		request := &adminv1.HistoryRequest{Limit: limit, Before: before}
		var err error
		if request.Ref, err = optionalRef(namespace, args); err != nil {
			return err
		}
		past, err := c.past(request)
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, past)
		}
		if len(past.GetChanges()) == 0 {
			c.note("no changes are remembered")
			return nil
		}
		if diff {
			return c.printPast(past.GetChanges())
		}
		return c.printHistory(past.GetChanges(), request.GetRef() == nil)
	})
	return cmd
}

// optionalRef reads [KIND NAME].
func optionalRef(namespace string, args []string) (*adminv1.Ref, error) {
	switch len(args) {
	case 0:
		return nil, nil
	case 1:
		return nil, usageErrorf("%q: want KIND NAME, or neither", args[0])
	}
	return parseRef(namespace, args)
}

func (c *call) printHistory(changes []*adminv1.Change, ofAll bool) error {
	header := []string{"SEQUENCE", "TIME", "ACTION", "REVISION", "WHO", "REASON"}
	if ofAll {
		header = slices.Insert(header, 3, "OBJECT")
	}
	t := newTable(header...)
	for _, change := range changes {
		row := []string{
			fmt.Sprint(change.GetSequence()), c.clock(change.GetTime()), change.GetAction(),
			change.GetRevision(), who(change), change.GetReason(),
		}
		if ofAll {
			row = slices.Insert(row, 3, refID(change.GetRef()))
		}
		t.add(row...)
	}
	return t.write(c.out, "")
}

// printPast shows each change with what it made of its object.
func (c *call) printPast(changes []*adminv1.Change) error {
	for i, change := range changes {
		if i > 0 {
			fmt.Fprintln(c.out)
		}
		fmt.Fprintf(c.out, "%d %s %s %s\n", change.GetSequence(), c.clock(change.GetTime()), refID(change.GetRef()), c.sentence(change))
		if err := writeDifference(c.out, change, "before", change.GetRevision()); err != nil {
			return err
		}
		if err := c.printLost(change); err != nil {
			return err
		}
	}
	return nil
}

// printLost shows what another node had made of an object at the same time, and was lost.
func (c *call) printLost(change *adminv1.Change) error {
	lost := change.GetLost()
	if lost == nil {
		return nil
	}
	fmt.Fprintf(c.out, "lost by that: %s, %s\n", lost.GetRevision(), c.sentence(lost.GetLastChange()))
	sides := &adminv1.Change{Ref: change.GetRef(), Before: change.GetAfter(), After: lost}
	return writeDifference(c.out, sides, change.GetRevision(), "lost, "+lost.GetRevision())
}

func (p *program) rollbackCommand() *cobra.Command {
	var w written
	var namespace, to string
	cmd := &cobra.Command{
		Use:   "rollback KIND NAME [REVISION] | --to TIME",
		Short: "Bring back what an object, or everything, was",
		Long: `Give one object the content and state that it had at a revision, else before its
last change; or give every object what it had at a time. It is a change like any
other: history goes on, and it can be rolled back itself. With --dry-run the
difference is shown and nothing is changed.

TIME is a time such as 2026-01-31T15:04:05Z, "2026-01-31 15:04", 15:04 of today, or
10m for ten minutes ago.`,
		Example: "  sluice rollback route cart\n  sluice rollback --to 10m --dry-run",
		Args:    wants(0, 3),
	}
	w.addReason(cmd)
	w.addDryRun(cmd)
	w.addUnresolved(cmd)
	p.addWait(cmd, &w.peers)
	addNamespace(cmd, &namespace, defaultNamespace)
	cmd.Flags().StringVar(&to, "to", "", "bring everything back to this `time`")
	output := p.addFormat(cmd, true)
	cmd.ValidArgsFunction = p.completeRevisions
	cmd.RunE = p.remote(func(c *call, args []string) error {
		request, err := p.rollback(namespace, to, args)
		if err != nil {
			return err
		}
		request.Reason, request.DryRun, request.AllowUnresolved, request.Wait = w.reason, w.dryRun, w.unresolved, w.peers.is
		response, err := ask(c.ctx, c.resources.Rollback, request)
		if err != nil {
			return err
		}
		if w.dryRun {
			return c.printPlan(output, response, "now", "then")
		}
		return c.printWrite(output, response, false)
	})
	return cmd
}

func (p *program) rollback(namespace, to string, args []string) (*adminv1.RollbackRequest, error) {
	if to != "" {
		if len(args) > 0 {
			return nil, usageErrorf("%q and --to: want one object, or a time for all of them", args[0])
		}
		moment, err := p.parseMoment("--to", to)
		if err != nil {
			return nil, err
		}
		if moment.After(p.Now()) {
			return nil, usageErrorf("--to %q: that is %s, in the future", to, moment.Format(clockFormat))
		}
		return &adminv1.RollbackRequest{To: timestamppb.New(moment)}, nil
	}
	if len(args) < 2 {
		return nil, usageErrorf("want KIND NAME for one object, or --to TIME for all of them")
	}
	ref, err := parseRef(namespace, args)
	request := &adminv1.RollbackRequest{Ref: ref}
	if len(args) == 3 {
		request.Revision = args[2]
	}
	return request, err
}
