package cli

import (
	"errors"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

// written are the flags of the commands that change something.
type written struct {
	reason     string
	dryRun     bool
	unresolved bool
	peers      waiting
}

func (w *written) addReason(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.reason, "reason", "", "`why`, for the history and the audit log")
}

func (w *written) addDryRun(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.dryRun, "dry-run", false, "check and show, change nothing")
}

func (w *written) addUnresolved(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.unresolved, "allow-unresolved", false, "accept references to what does not exist; their share is answered UNAVAILABLE")
}

func addFiles(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringSliceVarP(files, "file", "f", nil, "`file` or folder to read, - for standard input; may be repeated")
}

func (p *program) applyCommand() *cobra.Command {
	var files []string
	var w written
	var takeOver bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Declare routes, backends and policies",
		Long: `Declare the objects of a text: all of them, or none when there is a fault. The
command is done when they are on disk and in force.

An object with metadata.resourceVersion is refused when it was changed since.`,
		Example: "  sluice apply -f routes.yaml --reason 'new backend'\n  sluice get route cart -o yaml | sed s/old/new/ | sluice apply -f -",
		Args:    wants(0, 0),
	}
	addFiles(cmd, &files)
	w.addReason(cmd)
	w.addDryRun(cmd)
	w.addUnresolved(cmd)
	p.addWait(cmd, &w.peers)
	cmd.Flags().BoolVar(&takeOver, "take-over", false, "adopt objects that a file of the server declares")
	output := p.addFormat(cmd, true)
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		m, err := readManifests(files, c.in)
		if err != nil {
			return err
		}
		request := &adminv1.ApplyRequest{
			Text: m.text, File: m.name, DryRun: w.dryRun, Reason: w.reason,
			AllowUnresolved: w.unresolved, TakeOver: takeOver, Wait: w.peers.is,
		}
		response, err := ask(c.ctx, c.resources.Apply, request)
		if err != nil {
			c.showConflict(m, err)
			return c.ofText(m, err)
		}
		return c.printWrite(output, m.spoken(response), w.dryRun)
	})
	return cmd
}

// ofText puts an error about a text into words that speak of the user's files.
func (c *call) ofText(m *manifests, err error) error {
	faults, ok := detailOf[*adminv1.Faults](err)
	if !ok {
		return err
	}
	for _, fault := range faults.GetFaults() {
		m.place(fault)
		fault.Message = m.shortened(fault.GetMessage())
	}
	return c.faults(faults)
}

func (p *program) diffCommand() *cobra.Command {
	var files []string
	var w written
	cmd := &cobra.Command{
		Use:   "diff -f FILE|DIR|-",
		Short: "Show what apply would change",
		Long: `Show, as a unified diff of YAML, what apply of the same text would change.
The exit code is 0 when nothing would, 1 when something would, 2 for wrong usage;
1, too, when the text has a fault.`,
		Example: "  sluice diff -f routes.yaml",
		Args:    wants(0, 0),
	}
	addFiles(cmd, &files)
	w.addUnresolved(cmd)
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		m, err := readManifests(files, c.in)
		if err != nil {
			return err
		}
		request := &adminv1.DiffRequest{Text: m.text, File: m.name, AllowUnresolved: w.unresolved}
		response, err := ask(c.ctx, c.resources.Diff, request)
		if err != nil {
			return c.ofText(m, err)
		}
		c.warn(m.spoken(response).GetWarnings())
		if len(response.GetChanges()) == 0 {
			return nil
		}
		for _, change := range response.GetChanges() {
			if err := writeDifference(c.out, change, "in force", "declared"); err != nil {
				return err
			}
		}
		return ErrDiffers
	})
	return cmd
}

func (p *program) deleteCommand() *cobra.Command {
	var files []string
	var w written
	var namespace, ifRevision string
	var takeOver bool
	cmd := &cobra.Command{
		Use:   "delete KIND NAME... | -f FILE|DIR|-",
		Short: "Remove objects",
		Long: `Remove objects, by name or those that a file declares. They are removed one by
one, routes before the backends that they refer to. What others refer to is not
removed, unless --allow-unresolved. History keeps it: sluice rollback brings it back.

What a file of another gateway declares is removed with --take-over; it is there again
as long as that gateway is, and has the file.`,
		Example: "  sluice delete route cart\n  sluice delete -f routes.yaml",
		Args:    wants(0, -1),
	}
	addFiles(cmd, &files)
	w.addReason(cmd)
	w.addDryRun(cmd)
	w.addUnresolved(cmd)
	p.addWait(cmd, &w.peers)
	cmd.Flags().StringVar(&ifRevision, "if-revision", "", "only if the object still has this `revision`")
	cmd.Flags().BoolVar(&takeOver, "take-over", false, "also remove what a file of another gateway declares")
	addNamespace(cmd, &namespace, defaultNamespace)
	output := p.addFormat(cmd, true)
	cmd.ValidArgsFunction = p.completeRefs(-1)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		refs, err := c.named(namespace, files, args)
		if err != nil {
			return err
		}
		return c.deleteEach(refs, &adminv1.DeleteRequest{IfRevision: ifRevision, TakeOver: takeOver}, &w, output)
	})
	return cmd
}

// deleteEach removes objects, one by one, as asked has it.
func (c *call) deleteEach(refs []*adminv1.Ref, asked *adminv1.DeleteRequest, w *written, output *format) error {
	all := &adminv1.WriteResponse{}
	for _, ref := range refs {
		response, err := ask(c.ctx, c.resources.Delete, &adminv1.DeleteRequest{
			Ref: ref, Reason: w.reason, IfRevision: asked.GetIfRevision(), TakeOver: asked.GetTakeOver(), AllowUnresolved: w.unresolved, DryRun: w.dryRun, Wait: w.peers.is,
		})
		if err != nil {
			// What is gone already is told all the same.
			return errors.Join(c.printSome(output, all, w.dryRun), err)
		}
		all.Changes = append(all.Changes, response.GetChanges()...)
		all.Unchanged = append(all.Unchanged, response.GetUnchanged()...)
		all.Warnings = append(all.Warnings, response.GetWarnings()...)
		all.Sequence = response.GetSequence()
		all.Peers = joined(all.GetPeers(), response.GetPeers())
	}
	return c.printWrite(output, all, w.dryRun)
}

func (c *call) printSome(f *format, w *adminv1.WriteResponse, dryRun bool) error {
	if len(w.GetChanges()) == 0 {
		return nil
	}
	return c.printWrite(f, w, dryRun)
}

// named are the objects that a command line means, by files or by KIND NAME...
func (c *call) named(namespace string, files, args []string) ([]*adminv1.Ref, error) {
	if len(files) > 0 {
		if len(args) > 0 {
			return nil, usageErrorf("%q and --file: want one of both", args[0])
		}
		m, err := readManifests(files, c.in)
		if err != nil {
			return nil, err
		}
		return m.refs()
	}
	if len(args) < 2 {
		return nil, usageErrorf("want KIND NAME..., or --file")
	}
	kind, err := parseKind(args[0])
	if err != nil {
		return nil, err
	}
	var refs []*adminv1.Ref
	for _, name := range args[1:] {
		ref, err := parseName(kind, namespace, name)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}
