package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

// statusInterval is how often status --wait asks: often enough for a script, and
// nothing to a server.
const statusInterval = 100 * time.Millisecond

func (p *program) statusCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how the server is",
		Long: `Tell who the server is, what it holds, whether it is ready, and what is wrong, if
anything. With --wait, wait until it is ready and fail when it is not in time.`,
		Example: "  sluice status\n  sluice status --wait 10s",
		Args:    wants(0, 0),
	}
	output := p.addFormat(cmd, false)
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait at most this `time` until the server is ready")
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		status, err := c.status(wait)
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, status)
		}
		return c.printStatus(status)
	})
	return cmd
}

// status asks until the server is ready or wait is over.
func (c *call) status(wait time.Duration) (*adminv1.StatusResponse, error) {
	if wait <= 0 {
		return ask(c.ctx, c.node.Status, &adminv1.StatusRequest{})
	}
	ctx, cancel := context.WithTimeout(c.ctx, wait)
	defer cancel()
	var last error
	for {
		status, err := ask(ctx, c.node.Status, &adminv1.StatusRequest{})
		switch {
		case err == nil && status.GetReady():
			return status, nil
		case err == nil:
			last = fmt.Errorf("%s: not ready after %s: %s", c.at.name, wait, problemsText(status))
		case connect.IsWireError(err) && connect.CodeOf(err) != connect.CodeUnavailable:
			return nil, err // it will say the same again
		case ctx.Err() == nil:
			last = err
		}
		select {
		case <-ctx.Done():
			return nil, cmp.Or(last, err)
		case <-time.After(statusInterval):
		}
	}
}

func (c *call) printStatus(s *adminv1.StatusResponse) error {
	t := &table{}
	ready := "yes"
	if !s.GetReady() {
		ready = "no"
	}
	t.add("Ready", ready)
	t.add("Version", s.GetVersion())
	t.add("Node", s.GetNode())
	t.add("Started", fmt.Sprintf("%s (%s)", c.clock(s.GetStarted()), c.ago(s.GetStarted())))
	t.add("Listens on", s.GetListen())
	t.add("Admin", s.GetAdmin())
	t.add("Objects", objectCounts(s.GetObjects()))
	t.add("Last change", fmt.Sprint(s.GetSequence()))
	t.add("In force", inForce(s))
	t.add("Digest", s.GetDigest())
	t.add("Cluster", clusterLine(s))
	if n := s.GetConflicts(); n > 0 {
		t.add("Conflicts", fmt.Sprintf("%d; see sluice conflicts", n))
	}
	if err := t.write(c.out, ""); err != nil {
		return err
	}
	for _, problem := range s.GetProblems() {
		fmt.Fprintf(c.out, "Problem: %s\n", printable(problem))
	}
	return nil
}

func objectCounts(objects map[string]uint32) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(objects)) {
		parts = append(parts, fmt.Sprintf("%d %s", objects[kind], kind))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func inForce(s *adminv1.StatusResponse) string {
	if s.GetProgrammed() < s.GetSequence() {
		return fmt.Sprintf("up to change %d", s.GetProgrammed())
	}
	return "all changes"
}

func problemsText(s *adminv1.StatusResponse) string {
	if len(s.GetProblems()) == 0 {
		return "it does not say why"
	}
	return strings.Join(s.GetProblems(), "; ")
}
