package admin

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

func TestListMembersTellsHowTheyAre(t *testing.T) {
	n := startClustered(t)
	resp, err := n.cluster.ListMembers(t.Context(), connect.NewRequest(&adminv1.ListMembersRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	wantMessage(t, resp.Msg, `{"clustered": true, "problems": ["gw-3 is dead"], "members": [
		{"id": "aaaaaaaa", "host": "gw-1", "self": true, "state": "STATE_ALIVE", "version": "1.2.3"},
		{"id": "bbbbbbbb", "host": "gw-2", "version": "1.2.3", "address": "10.0.0.2:7946", "listen": "10.0.0.2:8080", "admin": "127.0.0.1:8081",
			"state": "STATE_ALIVE", "since": "2026-05-04T15:30:00Z", "digest": "6f1e", "revision": "1777908600000.0@bbbbbbbb",
			"drift": true, "driftSince": "2026-05-04T15:30:01Z", "heard": "2026-05-04T15:30:02Z", "clockOffset": "0.020s", "rtt": "0.001s",
			"udpOut": "REACH_NO", "udpIn": "REACH_YES", "tcpOut": "REACH_YES"},
		{"id": "cccccccc", "host": "gw-3", "state": "STATE_DEAD"},
		{"id": "dddddddd", "host": "gw-4", "state": "STATE_LEFT"},
		{"id": "eeeeeeee", "host": "gw-5", "state": "STATE_ALIVE", "draining": true}]}`)
	status, err := n.node.Status(t.Context(), connect.NewRequest(&adminv1.StatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	wantMessage(t, status.Msg.GetCluster(), `{"alive": 3, "dead": 1, "drifting": 1}`)
}

// A node without a cluster is a member of its own, and says of the rest what is missing.
func TestClusterServiceWithoutCluster(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	resp, err := n.cluster.ListMembers(t.Context(), connect.NewRequest(&adminv1.ListMembersRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	m := resp.Msg.GetMembers()
	if len(m) != 1 || resp.Msg.GetClustered() || !m[0].GetSelf() || m[0].GetId() != n.store.Node() || m[0].GetVersion() != "1.2.3" ||
		m[0].GetState() != adminv1.Member_STATE_ALIVE || m[0].GetSince() == nil || m[0].GetDigest() != n.store.Snapshot().Digest() ||
		!strings.HasSuffix(m[0].GetRevision(), "@"+n.store.Node()) || m[0].GetAdmin() != n.addr {
		t.Errorf("members %v", resp.Msg)
	}
	_, err = n.cluster.Join(t.Context(), connect.NewRequest(&adminv1.JoinRequest{Addresses: []string{"gw2"}}))
	wantCode(t, "join", err, connect.CodeFailedPrecondition, "--gossip")
	_, err = n.cluster.Leave(t.Context(), connect.NewRequest(&adminv1.LeaveRequest{}))
	wantCode(t, "leave", err, connect.CodeFailedPrecondition, "without a cluster")
	_, err = n.cluster.DrainNode(t.Context(), connect.NewRequest(&adminv1.DrainNodeRequest{}))
	wantCode(t, "drain", err, connect.CodeFailedPrecondition, "without a cluster")
	_, err = n.cluster.ListKeys(t.Context(), connect.NewRequest(&adminv1.ListKeysRequest{}))
	wantCode(t, "keys", err, connect.CodeFailedPrecondition, "without a cluster")
	all, err := n.cluster.ListConflicts(t.Context(), connect.NewRequest(&adminv1.ListConflictsRequest{}))
	if err != nil || len(all.Msg.GetConflicts()) != 0 {
		t.Errorf("conflicts %v, %v", all, err)
	}
}

func TestJoinAndLeave(t *testing.T) {
	n := startClustered(t)
	join := func(reason string, addresses ...string) (*connect.Response[adminv1.JoinResponse], error) {
		return n.cluster.Join(t.Context(), connect.NewRequest(&adminv1.JoinRequest{Addresses: addresses, Reason: reason}))
	}
	resp, err := join("three are more", "gw2.internal", "[2001:db8::2]:7946")
	if err != nil || resp.Msg.GetAnswered() != 2 {
		t.Errorf("join: %v, %v", resp, err)
	}
	if _, err := n.cluster.Leave(t.Context(), connect.NewRequest(&adminv1.LeaveRequest{})); err != nil {
		t.Error(err)
	}
	if got := n.peers.said(); got != "join gw2.internal,[2001:db8::2]:7946; leave" {
		t.Errorf("the cluster was asked %q", got)
	}
	for _, address := range []string{"", "gw 2", "gw2\x1b[2J", strings.Repeat("a", maxAddress+1)} {
		_, err = join("", "gw2", address)
		wantCode(t, "join "+address, err, connect.CodeInvalidArgument, "addresses[1]")
	}
	_, err = join("", slices.Repeat([]string{"gw2"}, maxJoins+1)...)
	wantCode(t, "join too many", err, connect.CodeInvalidArgument, "65 addresses, limit 64")
	_, err = join("why\nso", "gw2")
	wantCode(t, "join for two lines", err, connect.CodeInvalidArgument, "one line")
	if got := n.peers.said(); got != "" {
		t.Errorf("the cluster was asked %q", got)
	}
	_, err = join("", "nobody")
	wantCode(t, "join nobody", err, connect.CodeUnavailable, "firewalls")
	n.peers.fails = errors.Join(errNobodyThere, errNobodyThere)
	_, err = join("", "gw2")
	wantCode(t, "join in vain", err, connect.CodeUnavailable, "join: connection refused; connection refused")
	_, err = n.cluster.Leave(t.Context(), connect.NewRequest(&adminv1.LeaveRequest{}))
	wantCode(t, "leave in vain", err, connect.CodeUnavailable, "leave: connection refused")
}

func TestDrainNodeIsInTheAuditLog(t *testing.T) {
	n := startClustered(t)
	for _, undo := range []bool{false, true} {
		resp, err := n.cluster.DrainNode(t.Context(), connect.NewRequest(&adminv1.DrainNodeRequest{Undo: undo, Reason: fmt.Sprintf("undo %v", undo)}))
		if err != nil || resp.Msg.GetDraining() == undo || resp.Msg.GetOthers() != 1 || n.peers.Draining() == undo {
			t.Errorf("undo %v: %v, %v", undo, resp, err)
		}
	}
	lines, err := n.access.Audit(t.Context(), connect.NewRequest(&adminv1.AuditRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range lines.Msg.GetEntries() {
		got = append(got, e.GetAction()+" "+e.GetReason())
	}
	if want := "UndrainNode undo true; DrainNode undo false"; strings.Join(got, "; ") != want {
		t.Errorf("the audit log has %q, want %q", got, want)
	}
}

func TestStatusTellsThatTheNodeHasLeft(t *testing.T) {
	if got := clusterStatus(departed{}); !got.GetLeft() || got.GetAlive() != 0 {
		t.Errorf("status %v", got)
	}
}

// departed is a cluster that this node has left.
type departed struct{ *fakeCluster }

func (departed) Draining() bool    { return false }
func (departed) Members() []Member { return []Member{{ID: "aaaaaaaa", Self: true, State: MemberLeft}} }
