package admin

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// How long a request waits for the network, and of how much.
const (
	joinTime       = 15 * time.Second // for peers to answer
	leaveTime      = 10 * time.Second // for the goodbye to have spread
	maxJoins       = 64               // addresses of one Join
	maxAddress     = 300              // bytes of one: a name of DNS, and a port
	thisCluster    = "this node was started without a cluster: see --gossip and --join of sluice serve"
	nobodyAnswered = "no peer answered; are the addresses and ports right, is the key the same, and do firewalls let UDP and TCP through?"
)

// clusterService answers sluice.admin.v1.ClusterService.
type clusterService struct{ *api }

var _ adminv1.ClusterServiceHandler = (*clusterService)(nil)

// cluster is the cluster that a request wants to change.
func (s *clusterService) cluster() (Cluster, error) {
	if s.parts.Cluster == nil {
		return nil, refuse(connect.CodeFailedPrecondition, thisCluster)
	}
	return s.parts.Cluster, nil
}

// begin checks what every request to a cluster has.
func (s *clusterService) begin(ctx context.Context, reason string) (Cluster, error) {
	if _, err := author(ctx, reason); err != nil {
		return nil, err
	}
	return s.cluster()
}

// ListMembers lists the gateways that this one knows of.
func (s *clusterService) ListMembers(context.Context, *connect.Request[adminv1.ListMembersRequest]) (*connect.Response[adminv1.ListMembersResponse], error) {
	resp := &adminv1.ListMembersResponse{Clustered: s.parts.Cluster != nil}
	if s.parts.Cluster == nil {
		resp.Members = []*adminv1.Member{s.alone()}
		return connect.NewResponse(resp), nil
	}
	for _, m := range s.parts.Cluster.Members() {
		resp.Members = append(resp.Members, memberMessage(&m))
	}
	resp.Problems = s.parts.Cluster.Problems()
	return connect.NewResponse(resp), nil
}

// alone is this node where there is no cluster.
func (s *clusterService) alone() *adminv1.Member {
	host, err := os.Hostname()
	if err != nil {
		host = "" // nobody needs it
	}
	snapshot := s.store.Snapshot()
	var highest store.Revision
	for _, o := range snapshot.All("") {
		if o.Revision.Compare(highest) > 0 {
			highest = o.Revision
		}
	}
	return &adminv1.Member{
		Id: s.store.Node(), Host: host, Version: s.parts.Version, Listen: s.gateway.Addr(), Admin: s.addr.String(),
		Self: true, State: adminv1.Member_STATE_ALIVE, Since: stamp(s.started),
		Digest: snapshot.Digest(), Revision: highest.String(),
	}
}

func memberMessage(m *Member) *adminv1.Member {
	message := &adminv1.Member{
		Id: m.ID, Host: m.Host, Version: m.Version, Address: m.Address, Listen: m.Listen, Admin: m.Admin,
		Self: m.Self, State: memberState(m.State), Since: stamp(m.Since), Draining: m.Draining,
		Digest: m.Digest, Revision: m.Revision, Drift: m.Drift, DriftSince: stamp(m.DriftSince),
		Rtt: duration(m.RTT), Heard: stamp(m.Heard), Silent: m.Silent,
		UdpOut: reachMessage(m.UDPOut), UdpIn: reachMessage(m.UDPIn),
		TcpOut: reachMessage(m.TCPOut), TcpIn: reachMessage(m.TCPIn),
	}
	if m.Clock != nil {
		message.ClockOffset = durationpb.New(*m.Clock)
	}
	return message
}

func memberState(s MemberState) adminv1.Member_State {
	switch s {
	case MemberAlive:
		return adminv1.Member_STATE_ALIVE
	case MemberDead:
		return adminv1.Member_STATE_DEAD
	case MemberLeft:
		return adminv1.Member_STATE_LEFT
	}
	return adminv1.Member_STATE_UNSPECIFIED
}

func reachMessage(r Reach) adminv1.Member_Reach {
	switch r {
	case ReachYes:
		return adminv1.Member_REACH_YES
	case ReachNo:
		return adminv1.Member_REACH_NO
	}
	return adminv1.Member_REACH_UNSPECIFIED
}

// clusterStatus counts the members.
func clusterStatus(c Cluster) *adminv1.ClusterStatus {
	status := &adminv1.ClusterStatus{Draining: c.Draining()}
	for _, m := range c.Members() {
		switch m.State {
		case MemberLeft:
			status.Left = status.Left || m.Self
		case MemberAlive:
			status.Alive++
			if m.Drift {
				status.Drifting++
			}
		case MemberDead:
			status.Dead++
		}
	}
	return status
}

// Join adds peers.
func (s *clusterService) Join(ctx context.Context, req *connect.Request[adminv1.JoinRequest]) (*connect.Response[adminv1.JoinResponse], error) {
	cluster, err := s.begin(ctx, req.Msg.GetReason())
	if err != nil {
		return nil, err
	}
	if err := checkAddresses(req.Msg.GetAddresses()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	answered, err := cluster.Join(ctx, req.Msg.GetAddresses())
	switch {
	case err != nil:
		return nil, refuse(connect.CodeUnavailable, "join: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	case answered == 0:
		return nil, refuse(connect.CodeUnavailable, nobodyAnswered)
	}
	return connect.NewResponse(&adminv1.JoinResponse{Answered: uint32(answered)}), nil
}

// checkAddresses refuses what cannot be an address. Whether somebody is there, the
// network knows.
func checkAddresses(addresses []string) error {
	if len(addresses) > maxJoins {
		return store.Faults{{Field: "addresses", Message: fmt.Sprintf("%d addresses, limit %d", len(addresses), maxJoins)}}
	}
	var faults store.Faults
	for i, address := range addresses {
		if address == "" || len(address) > maxAddress || !isPlain(address) {
			faults = append(faults, store.Fault{
				Field: fmt.Sprintf("addresses[%d]", i), Message: quoted(address) + ": want host:port, or host for port 7946",
			})
		}
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// isPlain tells whether a word has no spaces and nothing that does not show.
func isPlain(word string) bool {
	for _, r := range word {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			return false
		}
	}
	return true
}

// Leave says goodbye to the peers.
func (s *clusterService) Leave(ctx context.Context, req *connect.Request[adminv1.LeaveRequest]) (*connect.Response[adminv1.LeaveResponse], error) {
	cluster, err := s.begin(ctx, req.Msg.GetReason())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	if err := cluster.Leave(ctx); err != nil {
		return nil, refuse(connect.CodeUnavailable, "leave: %w", err)
	}
	return connect.NewResponse(&adminv1.LeaveResponse{}), nil
}

// DrainNode tells the peers, and whoever asks whether this node is ready, that it wants no
// new clients.
func (s *clusterService) DrainNode(ctx context.Context, req *connect.Request[adminv1.DrainNodeRequest]) (*connect.Response[adminv1.DrainNodeResponse], error) {
	cluster, err := s.begin(ctx, req.Msg.GetReason())
	if err != nil {
		return nil, err
	}
	cluster.SetDraining(!req.Msg.GetUndo())
	if req.Msg.GetUndo() { // the name of the method does not say it
		s.access.noteDone(ctx, &adminv1.AuditEntry{Action: "UndrainNode", Reason: req.Msg.GetReason()})
	}
	resp := &adminv1.DrainNodeResponse{Draining: cluster.Draining()}
	for _, m := range cluster.Members() {
		if m.State == MemberAlive && !m.Self && !m.Draining {
			resp.Others++
		}
	}
	return connect.NewResponse(resp), nil
}
