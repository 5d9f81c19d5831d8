package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/admin/v1"
)

// waitedFor answers a change that waits for the peers as the reason of it says.
func waitedFor(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		response, err := next(ctx, request)
		asked, waits := request.Any().(interface {
			GetReason() string
			GetWait() adminv1.Wait
		})
		if err != nil || !waits || asked.GetWait() != adminv1.Wait_WAIT_ALL {
			return response, err
		}
		peers := &adminv1.Confirmation{Confirmed: 2}
		switch asked.GetReason() {
		case "one is slow":
			peers = &adminv1.Confirmation{Confirmed: 1, Unconfirmed: []*adminv1.Unconfirmed{{Node: "zz9h2k3m", Host: "gw-3", Why: "no answer within 10s"}}}
		case "nobody lives":
			peers = &adminv1.Confirmation{}
		}
		switch m := response.Any().(type) {
		case *adminv1.WriteResponse:
			m.Peers = peers
		case *adminv1.RegisterResponse:
			m.Peers = peers
		}
		return response, nil
	}
}

// worldMembers are four gateways, of which the first is fine.
func worldMembers() []*adminv1.Member {
	at := func(ago time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-ago)) }
	const yes, no = adminv1.Member_REACH_YES, adminv1.Member_REACH_NO
	return []*adminv1.Member{
		{
			Id: "ab3d5f7h", Host: "gw-2", Version: "1.2.3", Address: "10.0.0.2:7946", Listen: "10.0.0.2:8080", Admin: "127.0.0.1:8081",
			State: adminv1.Member_STATE_ALIVE, Since: at(3 * time.Hour), Digest: "6f1ed00200000000", Revision: "1777908600000.0@k3f9x2ab",
			ClockOffset: durationpb.New(12 * time.Millisecond), Rtt: durationpb.New(431 * time.Microsecond), Heard: at(time.Second),
			UdpOut: yes, UdpIn: yes, TcpOut: yes, TcpIn: yes,
		},
		{
			Id: "k3f9x2ab", Host: "gw-1", Version: "1.2.3", Address: "10.0.0.1:7946", Listen: "10.0.0.1:8080", Admin: "127.0.0.1:8081",
			Self: true, State: adminv1.Member_STATE_ALIVE, Since: at(21 * time.Hour), Digest: "6f1ed00200000000", Revision: "1777908600000.0@k3f9x2ab",
		},
		{
			Id: "p4q6r8st", Host: "gw-4", Version: "1.1.0", Address: "10.0.0.4:7946", State: adminv1.Member_STATE_DEAD, Since: at(5 * time.Minute), Heard: at(6 * time.Minute),
		},
		{
			Id: "zz9h2k3m", Host: "gw-3", Version: "1.2.3", Address: "10.0.0.3:7946", Listen: "10.0.0.3:8080", Admin: "127.0.0.1:8081",
			State: adminv1.Member_STATE_ALIVE, Draining: true, Since: at(40 * time.Second), Digest: "0badbeef00000000", Revision: "1777908600009.0@zz9h2k3m",
			Drift: true, DriftSince: at(38 * time.Second), ClockOffset: durationpb.New(-75 * time.Second), Rtt: durationpb.New(2 * time.Millisecond),
			Heard: at(2 * time.Second), UdpOut: no, UdpIn: yes, TcpOut: yes,
		},
	}
}

func (f *fakeServer) ListMembers(context.Context, *connect.Request[adminv1.ListMembersRequest]) (*connect.Response[adminv1.ListMembersResponse], error) {
	if f.alone {
		return connect.NewResponse(&adminv1.ListMembersResponse{Members: []*adminv1.Member{
			{Id: "k3f9x2ab", Version: "1.2.3", Listen: "[::]:8080", Self: true, State: adminv1.Member_STATE_ALIVE, Since: timestamppb.New(now.Add(-21 * time.Hour)), Digest: "6f1ed002"},
		}}), nil
	}
	return connect.NewResponse(&adminv1.ListMembersResponse{
		Members: worldMembers(), Clustered: true, Problems: []string{"UDP of port 7946 does not get to gw-3: a firewall, maybe"},
	}), nil
}

func (f *fakeServer) Join(_ context.Context, r *connect.Request[adminv1.JoinRequest]) (*connect.Response[adminv1.JoinResponse], error) {
	f.note(r.Msg)
	if strings.HasPrefix(strings.Join(r.Msg.GetAddresses(), ""), "10.0.0.9") {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("join: 10.0.0.9:7946: connection refused"))
	}
	return connect.NewResponse(&adminv1.JoinResponse{Answered: 1}), nil
}

func (f *fakeServer) Leave(_ context.Context, r *connect.Request[adminv1.LeaveRequest]) (*connect.Response[adminv1.LeaveResponse], error) {
	f.note(r.Msg)
	return connect.NewResponse(&adminv1.LeaveResponse{}), nil
}

func (f *fakeServer) DrainNode(_ context.Context, r *connect.Request[adminv1.DrainNodeRequest]) (*connect.Response[adminv1.DrainNodeResponse], error) {
	f.note(r.Msg)
	return connect.NewResponse(&adminv1.DrainNodeResponse{Draining: !r.Msg.GetUndo()}), nil
}

// keysOf are three members, of which one does not answer.
func keysOf(keys ...string) *connect.Response[adminv1.KeysResponse] {
	return connect.NewResponse(&adminv1.KeysResponse{Answers: []*adminv1.KeyAnswer{
		{Node: "ab3d5f7h", Host: "gw-2", Fingerprints: keys, Warning: "the key file cannot be written: read-only file system"},
		{Node: "k3f9x2ab", Host: "gw-1", Fingerprints: keys},
		{Node: "zz9h2k3m", Host: "gw-3", Problem: "no answer within 5s"},
	}})
}

// noteKey writes down a request about a key, without the key.
func (f *fakeServer) noteKey(m proto.Message, key string) {
	f.note(m)
	f.mu.Lock()
	defer f.mu.Unlock()
	said := strings.ReplaceAll(f.log.String(), key, fmt.Sprintf("%d characters", len(key)))
	f.log.Reset()
	f.log.WriteString(said)
}

func (f *fakeServer) ListKeys(context.Context, *connect.Request[adminv1.ListKeysRequest]) (*connect.Response[adminv1.KeysResponse], error) {
	r := keysOf("5d41402a", "7d793037")
	r.Msg.Answers[1].Fingerprints = []string{"7d793037"}
	return r, nil
}

func (f *fakeServer) AddKey(_ context.Context, r *connect.Request[adminv1.AddKeyRequest]) (*connect.Response[adminv1.KeysResponse], error) {
	f.noteKey(r.Msg, r.Msg.GetKey())
	return keysOf("7d793037", "5d41402a"), nil
}

func (f *fakeServer) UseKey(_ context.Context, r *connect.Request[adminv1.UseKeyRequest]) (*connect.Response[adminv1.KeysResponse], error) {
	f.note(r.Msg)
	return keysOf("5d41402a", "7d793037"), nil
}

func (f *fakeServer) RemoveKey(_ context.Context, r *connect.Request[adminv1.RemoveKeyRequest]) (*connect.Response[adminv1.KeysResponse], error) {
	f.note(r.Msg)
	answers := keysOf("5d41402a")
	answers.Msg.Answers = append(answers.Msg.Answers[:2], &adminv1.KeyAnswer{Node: "p4q6r8st", Host: "gw-4", Warning: "dead: it needs the new key file before it comes back"})
	return answers, nil
}

// worldConflicts is one route that two gateways split, and one backend that one changed
// while two others deleted it.
func worldConflicts() []*adminv1.Contested {
	objects, _ := world()
	version := func(o *adminv1.Object, node, host, actor, reason string, ago time.Duration, edit func(*adminv1.Object)) *adminv1.Version {
		o = proto.CloneOf(o)
		o.Revision = fmt.Sprintf("%d.0@%s", now.Add(-ago).UnixMilli(), node)
		o.Conditions, o.LastChange = nil, &adminv1.Change{
			Time: timestamppb.New(now.Add(-ago)), Actor: actor, Via: "cli", Reason: reason, Ref: o.GetRef(), Revision: o.GetRevision(),
		}
		edit(o)
		return &adminv1.Version{Object: o, Node: node, Host: host}
	}
	same := func(*adminv1.Object) {}
	deleted := func(o *adminv1.Object) { o.Deleted, o.Manifest, o.State = true, "", &adminv1.State{} }
	return []*adminv1.Contested{
		{
			Holds: version(objects[0], "k3f9x2ab", "gw-1", "alice", "", 3*time.Minute, same),
			Lost: []*adminv1.Version{
				version(objects[0], "zz9h2k3m", "gw-3", "bob", "no more needed", 4*time.Minute, deleted),
				version(objects[0], "qqqqqqqq", "", "carol", "", 9*time.Minute, func(o *adminv1.Object) { o.State = &adminv1.State{} }),
			},
		},
		{
			Holds: version(objects[2], "k3f9x2ab", "gw-1", "alice", "canary step 2", 5*time.Minute, same),
			Lost: []*adminv1.Version{version(objects[2], "zz9h2k3m", "gw-3", "bob", "night shift", 6*time.Minute, func(o *adminv1.Object) {
				o.State.Splits[0].Shares[0].Weight, o.State.Splits[0].Shares[1].Weight = 0, 100
			})},
		},
	}
}

func (f *fakeServer) ListConflicts(_ context.Context, r *connect.Request[adminv1.ListConflictsRequest]) (*connect.Response[adminv1.ListConflictsResponse], error) {
	response := &adminv1.ListConflictsResponse{}
	for _, of := range worldConflicts() {
		if !f.alone && (r.Msg.GetRef() == nil || refID(r.Msg.GetRef()) == refID(of.GetHolds().GetObject().GetRef())) {
			response.Conflicts = append(response.Conflicts, of)
		}
	}
	return connect.NewResponse(response), nil
}

func (f *fakeServer) SettleConflict(_ context.Context, r *connect.Request[adminv1.SettleConflictRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	return f.changed(r.Msg, r.Msg.GetRef(), "settle", func(o *adminv1.Object) { o.State = &adminv1.State{} })
}
