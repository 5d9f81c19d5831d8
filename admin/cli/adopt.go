package cli

import (
	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) adoptCommand() *cobra.Command {
	return p.ownCommand("adopt KIND NAME", "Make an object of a file yours to change",
		`What a file of --resources declares is read-only here. Adopt makes the API its
owner: the file's word no longer counts for this object, until it is released.
A split, a drain and a disabled route need no adoption.`, false)
}

func (p *program) releaseCommand() *cobra.Command {
	return p.ownCommand("release KIND NAME", "Give an adopted object back to its file",
		"Give an adopted object back: what the file of --resources declares counts again.", true)
}

func (p *program) ownCommand(use, short, long string, undo bool) *cobra.Command {
	var w written
	var namespace string
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: wants(2, 2)}
	w.addReason(cmd)
	p.addWait(cmd, &w.peers)
	addNamespace(cmd, &namespace, defaultNamespace)
	output := p.addFormat(cmd, true)
	cmd.ValidArgsFunction = p.completeRefs(1)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		ref, err := parseRef(namespace, args)
		if err != nil {
			return err
		}
		response, err := ask(c.ctx, c.resources.Adopt, &adminv1.AdoptRequest{Ref: ref, Undo: undo, Reason: w.reason, Wait: w.peers.is})
		if err != nil {
			return err
		}
		return c.printWrite(output, response, false)
	})
	return cmd
}
