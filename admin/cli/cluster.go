package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) clusterCommand() *cobra.Command {
	return group(
		&cobra.Command{
			Use:   "cluster",
			Short: "Join gateways, take one out, and change their keys",
			Long: `Join gateways so that they behave as one, take one out for a while or for good, and
change the keys that encrypt what they tell each other. sluice members tells how they
are.`,
		},
		p.joinCommand(), p.leaveCommand(), p.drainNodeCommand(), p.keyringCommand(),
	)
}

func (p *program) joinCommand() *cobra.Command {
	request := &adminv1.JoinRequest{}
	cmd := &cobra.Command{
		Use:   "join [ADDRESS...]",
		Short: "Make the server a member of the cluster at these addresses",
		Long: `Have the server join the gateways at these addresses (host:port of gossip; port 7946
unless given), or without one those that it was started with (--join) and those that it
remembers. One that answers is enough: the others are made known by it. It ends what
leave began, also when nobody answers: the server goes on trying those that it knows.
Both sides keep what they have, and merge it.`,
		Example: "  sluice cluster join gw2.internal gw3.internal:7946",
		Args:    wants(0, -1),
	}
	cmd.Flags().StringVar(&request.Reason, "reason", "", "`why`, for the audit log")
	cmd.RunE = p.remote(func(c *call, args []string) error {
		request.Addresses = args
		response, err := ask(c.ctx, c.cluster.Join, request)
		if err != nil {
			return err
		}
		answered := int(response.GetAnswered())
		if len(args) > answered {
			_, err = fmt.Fprintf(c.out, "joined; %d of %d addresses answered\n", answered, len(args))
			return err
		}
		_, err = fmt.Fprintln(c.out, "joined")
		return err
	})
	return cmd
}

func (p *program) leaveCommand() *cobra.Command {
	request := &adminv1.LeaveRequest{}
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Take the server out of its cluster",
		Long: `Have the server say goodbye to its peers: they take it for gone at once. It serves on
with what it knows, and stays alone, also after a restart, until sluice cluster join.
Drain it first if clients are to go elsewhere.`,
		Args: wants(0, 0),
	}
	cmd.Flags().StringVar(&request.Reason, "reason", "", "`why`, for the audit log")
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		if _, err := ask(c.ctx, c.cluster.Leave, request); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.out, "left; the server is alone until sluice cluster join")
		return err
	})
	return cmd
}

func (p *program) drainNodeCommand() *cobra.Command {
	request := &adminv1.DrainNodeRequest{}
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Have the server answer that it is not ready, so that no new clients come",
		Long: `Have the server answer /readyz and health checks with not ready, and tell its peers. A
load balancer that asks sends new clients elsewhere. Open RPCs and connections go on,
new ones are still served, and the server stays a member. --undo puts it back.`,
		Example: "  sluice cluster drain --reason 'new kernel'\n  sluice cluster drain --undo",
		Args:    wants(0, 0),
	}
	cmd.Flags().BoolVar(&request.Undo, "undo", false, "put it back")
	cmd.Flags().StringVar(&request.Reason, "reason", "", "`why`, for the audit log")
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		response, err := ask(c.ctx, c.cluster.DrainNode, request)
		if err != nil {
			return err
		}
		word := "the server takes new clients again"
		if response.GetDraining() {
			word = "the server is draining: it answers that it is not ready"
		}
		if response.GetDraining() && response.GetOthers() == 0 {
			c.note("warning: no other gateway takes new clients")
		}
		_, err = fmt.Fprintln(c.out, word)
		return err
	})
	return cmd
}
