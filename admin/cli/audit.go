package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) auditCommand() *cobra.Command {
	var namespace string
	request := &adminv1.AuditRequest{}
	cmd := &cobra.Command{
		Use:   "audit [KIND NAME]",
		Short: "Tell what was done and what was refused",
		Long: `List what was done through the API and what was refused, the latest first: who, from
where, on which object, and why not. -o json has each object before and after.`,
		Example: "  sluice audit --refused\n  sluice audit route cart --actor alice",
		Args:    wants(0, 2),
	}
	output := p.addFormat(cmd, false)
	addNamespace(cmd, &namespace, defaultNamespace)
	cmd.Flags().Uint32Var(&request.Limit, "limit", 20, "at most this `number` of entries")
	cmd.Flags().Uint64Var(&request.Before, "before", 0, "go on from this `id`, of the last entry that was shown")
	cmd.Flags().StringVar(&request.Actor, "actor", "", "only what this `actor` did")
	cmd.Flags().BoolVar(&request.Refused, "refused", false, "only what was refused")
	cmd.ValidArgsFunction = p.completeRefs(1)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		var err error
		if request.Ref, err = optionalRef(namespace, args); err != nil {
			return err
		}
		response, err := ask(c.ctx, c.access.Audit, request)
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, response)
		}
		return c.printAudit(response.GetEntries())
	})
	return cmd
}

func (c *call) printAudit(entries []*adminv1.AuditEntry) error {
	if len(entries) == 0 {
		c.note("no such entries")
		return nil
	}
	t := newTable("ID", "TIME", "ACTOR", "ROLE", "FROM", "ACTION", "OBJECTS", "REASON", "RESULT")
	for _, e := range entries {
		var objects []string
		for _, ref := range e.GetRefs() {
			objects = append(objects, refID(ref))
		}
		result := "done"
		if e.GetRefused() {
			result = "refused: " + e.GetWhy()
		}
		from := strings.TrimSpace(e.GetVia() + " " + e.GetAddress())
		t.add(fmt.Sprint(e.GetId()), c.clock(e.GetTime()), e.GetActor(), e.GetRole(), from, e.GetAction(), brief(objects, ", "), e.GetReason(), result)
	}
	return t.write(c.out, "")
}
