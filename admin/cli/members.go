package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

// asWide is a table with what is of use to who looks for a cause.
const asWide = "wide"

// From when on a difference is told of as something that is wrong.
const (
	clockApart  = 5 * time.Second  // between two clocks: revisions can stand it, people who read times cannot
	clockTooFar = 60 * time.Second // what comes from further in the future is refused
	driftLong   = 10 * time.Second // that two nodes have not had the same; less is a change on its way
)

func (p *program) membersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "members",
		Short: "Tell which gateways there are, and how they are",
		Long: `Tell which gateways the server knows of, itself included, as it sees them: whether they
live and since when, their version, whether they have the same objects, how far their
clocks are ahead (+) or behind (-), and what is wrong, if anything.

alive is in touch; dead was not heard of any more; left said goodbye. A gateway that is
draining wants no new clients. -o wide, json and yaml tell everything: ports, digest and
revision, round trips, and whether UDP and TCP get there and back.`,
		Example: "  sluice members\n  sluice members -o wide",
		Args:    wants(0, 0),
	}
	output := &format{is: asTable, allowed: []string{asTable, asWide, asJSON, asYAML}}
	cmd.Flags().VarP(output, "output", "o", "`format`: "+list(output.allowed, "or"))
	p.complete(cmd, "output", fixed(output.allowed...))
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		all, err := ask(c.ctx, c.cluster.ListMembers, &adminv1.ListMembersRequest{})
		if err != nil {
			return err
		}
		if output.is == asJSON || output.is == asYAML {
			return c.structured(output, all)
		}
		return c.printMembers(all, output.is == asWide)
	})
	return cmd
}

// printMembers has a row for each member, and then what is wrong with the cluster.
func (c *call) printMembers(all *adminv1.ListMembersResponse, wide bool) error {
	header := []string{"NODE", "HOST", "VERSION", "ADDRESS", "STATE", "SINCE", "OBJECTS", "CLOCK", "PROBLEM"}
	if wide {
		header = slices.Insert(header, len(header)-1, "LISTEN", "ADMIN", "DIGEST", "REVISION", "HEARD", "RTT", "UDP", "TCP")
	}
	t := newTable(header...)
	own := ownDigest(all.GetMembers())
	for _, m := range all.GetMembers() {
		host := m.GetHost()
		if m.GetSelf() {
			host = strings.TrimSpace(host + " (this)")
		}
		row := []string{m.GetId(), host, m.GetVersion(), m.GetAddress(), stateWords(m), c.ago(m.GetSince()), c.objectsWord(m, own), clockText(m), c.memberProblem(m)}
		if wide {
			row = slices.Insert(row, len(row)-1, m.GetListen(), m.GetAdmin(), shortDigest(m), m.GetRevision(), c.ago(m.GetHeard()), rttText(m),
				ways(m.GetUdpOut(), m.GetUdpIn()), ways(m.GetTcpOut(), m.GetTcpIn()))
		}
		t.add(row...)
	}
	if err := t.write(c.out, ""); err != nil {
		return err
	}
	for _, problem := range all.GetProblems() {
		fmt.Fprintf(c.out, "Problem: %s\n", printable(problem))
	}
	if !all.GetClustered() {
		c.note("this server was started without a cluster; see --gossip and --join of sluice serve")
	}
	return nil
}

// stateWords is "alive", or "alive, draining".
func stateWords(m *adminv1.Member) string {
	word := enumWord(m.GetState().Descriptor(), m.GetState().Number())
	if m.GetDraining() && m.GetState() == adminv1.Member_STATE_ALIVE {
		word += ", draining"
	}
	return word
}

// ownDigest is that of the server that answered.
func ownDigest(members []*adminv1.Member) string {
	for _, m := range members {
		if m.GetSelf() {
			return m.GetDigest()
		}
	}
	return ""
}

// objectsWord is whether a member that lives has what the server has, of which the digest
// is own. What has changed a moment ago is on its way, or word of it is.
func (c *call) objectsWord(m *adminv1.Member, own string) string {
	switch {
	case m.GetSelf() || m.GetState() != adminv1.Member_STATE_ALIVE || m.GetDigest() == "" || m.GetSilent():
		return ""
	case !m.GetDrift() && m.GetDigest() != own:
		return "changing"
	case !m.GetDrift():
		return "the same"
	case m.GetDriftSince() == nil:
		return "differ"
	}
	return "differ for " + age(c.passed(m.GetDriftSince().AsTime()))
}

// passed is how long ago a time was; nothing when the clocks of two machines differ.
func (p *program) passed(t time.Time) time.Duration { return max(p.Now().Sub(t), 0) }

// clockText is how far a clock is ahead, in a unit that fits.
func clockText(m *adminv1.Member) string {
	if m.GetSelf() || m.GetClockOffset() == nil {
		return ""
	}
	d := m.GetClockOffset().AsDuration().Round(time.Millisecond)
	sign := "+"
	if d < 0 {
		sign = "-"
	}
	if d == 0 {
		return "0s"
	}
	return sign + roundText(d.Abs())
}

// roundText is a time that is not negative, in few digits.
func roundText(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func rttText(m *adminv1.Member) string {
	if m.GetRtt() == nil {
		return ""
	}
	return m.GetRtt().AsDuration().Round(10 * time.Microsecond).String()
}

// shortDigest is enough of a digest to compare it by eye.
func shortDigest(m *adminv1.Member) string {
	const enough = 12
	return m.GetDigest()[:min(enough, len(m.GetDigest()))]
}

// memberProblem is what is wrong with a member, in words; empty when nothing is.
func (c *call) memberProblem(m *adminv1.Member) string {
	switch {
	case m.GetSelf() && m.GetState() == adminv1.Member_STATE_LEFT:
		return "alone until sluice cluster join"
	case m.GetSelf() || m.GetState() == adminv1.Member_STATE_LEFT:
		return ""
	case m.GetState() == adminv1.Member_STATE_DEAD:
		if m.GetHeard() == nil {
			return "it was not heard of any more"
		}
		return "last heard of " + c.ago(m.GetHeard())
	}
	var all []string
	for _, problem := range []string{c.silence(m), wayProblem("UDP", m.GetUdpOut(), m.GetUdpIn()), wayProblem("TCP", m.GetTcpOut(), m.GetTcpIn()), clockProblem(m), c.driftProblem(m)} {
		if problem != "" {
			all = append(all, problem)
		}
	}
	return strings.Join(all, "; ")
}

// silence is about a member that lives and is not heard of.
func (c *call) silence(m *adminv1.Member) string {
	switch {
	case !m.GetSilent():
		return ""
	case m.GetHeard() == nil:
		return "not heard of yet"
	}
	return "not heard of for " + age(c.passed(m.GetHeard().AsTime()))
}

// wayProblem says which of two ways is known not to work.
func wayProblem(network string, out, in adminv1.Member_Reach) string {
	const no = adminv1.Member_REACH_NO
	switch {
	case out == no && in == no:
		return "no " + network + " either way"
	case out == no:
		return network + " does not get there"
	case in == no:
		return "its " + network + " does not get here"
	}
	return ""
}

// clockProblem is about a clock that is far from the server's.
func clockProblem(m *adminv1.Member) string {
	d := m.GetClockOffset().AsDuration()
	way := "ahead"
	if d < 0 {
		way = "behind"
	}
	switch {
	case d > clockTooFar:
		return fmt.Sprintf("its clock is %s ahead: what it changes is refused", roundText(d))
	case d < -clockTooFar:
		return fmt.Sprintf("its clock is %s behind: it refuses what others change", roundText(-d))
	case d.Abs() >= clockApart:
		return fmt.Sprintf("its clock is %s %s", roundText(d.Abs()), way)
	}
	return ""
}

// driftProblem is about a difference that lasts.
func (c *call) driftProblem(m *adminv1.Member) string {
	if since := m.GetDriftSince(); m.GetDrift() && since != nil && c.passed(since.AsTime()) >= driftLong {
		return "its objects differ for too long"
	}
	return ""
}

// ways says which ways of a network work: "both", "out", "in", "none"; empty when neither
// was tried.
func ways(out, in adminv1.Member_Reach) string {
	const yes = adminv1.Member_REACH_YES
	switch {
	case out == adminv1.Member_REACH_UNSPECIFIED && in == adminv1.Member_REACH_UNSPECIFIED:
		return ""
	case out == yes && in == yes:
		return "both"
	case out == yes:
		return "out" + unknownWay(in)
	case in == yes:
		return "in" + unknownWay(out)
	}
	return "none"
}

func unknownWay(other adminv1.Member_Reach) string {
	if other == adminv1.Member_REACH_UNSPECIFIED {
		return "?"
	}
	return ""
}

// clusterLine is how the cluster is, for status.
func clusterLine(s *adminv1.StatusResponse) string {
	cluster := s.GetCluster()
	switch {
	case cluster == nil:
		return "none"
	case cluster.GetLeft():
		return "left; the server is alone until sluice cluster join"
	}
	parts := []string{count(int(cluster.GetAlive()), "gateway") + " alive"}
	for _, of := range []struct {
		n    uint32
		what string
	}{{cluster.GetDead(), "dead"}, {cluster.GetDrifting(), "with other objects than this"}} {
		if of.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", of.n, of.what))
		}
	}
	if cluster.GetDraining() {
		parts = append(parts, "this one is draining")
	}
	return strings.Join(parts, ", ")
}
