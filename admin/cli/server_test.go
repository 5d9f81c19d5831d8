package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/admin/v1"
)

// fakeServer answers the admin API from a small world that never changes, and
// writes down what it was asked to change.
type fakeServer struct {
	adminv1.UnimplementedResourceServiceHandler
	adminv1.UnimplementedNodeServiceHandler
	adminv1.UnimplementedAccessServiceHandler
	adminv1.UnimplementedSchemaServiceHandler
	adminv1.UnimplementedBackendServiceHandler
	adminv1.UnimplementedClusterServiceHandler

	objects []*adminv1.Object
	changes []*adminv1.Change // the latest first
	token   string            // when set, nobody without it is anybody

	mu      sync.Mutex
	log     strings.Builder
	agents  []string
	unready int // how often Status still says that the server is not ready

	applied func(text string) // is told what is applied, when set

	endpoints    []*adminv1.BackendEndpoints
	drained      func() // is told of each ListEndpoints, when set
	deregistered func() // is told of each Deregister, when set
	keep         func(context.Context, *adminv1.KeepRequest, *connect.ServerStream[adminv1.KeepResponse]) error

	alone bool // without a cluster, and without conflicts

	endWatch bool // in the middle of a message, as a server that is killed does
}

func newFakeServer() *fakeServer {
	f := &fakeServer{}
	f.objects, f.changes = world()
	f.endpoints = worldEndpoints()
	return f
}

func (f *fakeServer) handler() http.Handler {
	mux := http.NewServeMux()
	confirming := connect.WithInterceptors(connect.UnaryInterceptorFunc(waitedFor))
	mux.Handle(adminv1.NewResourceServiceHandler(f, confirming))
	mux.Handle(adminv1.NewNodeServiceHandler(f))
	mux.Handle(adminv1.NewAccessServiceHandler(f))
	mux.Handle(adminv1.NewSchemaServiceHandler(f))
	mux.Handle(adminv1.NewBackendServiceHandler(f, confirming))
	mux.Handle(adminv1.NewClusterServiceHandler(f, confirming))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.agents = append(f.agents, r.UserAgent())
		f.mu.Unlock()
		if f.token != "" && r.Header.Get("Authorization") != "Bearer "+f.token && !strings.HasSuffix(r.URL.Path, "/WhoAmI") {
			_ = connect.NewErrorWriter().Write(w, r, connect.NewError(connect.CodeUnauthenticated, errors.New("the token is not known")))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (f *fakeServer) serveSocket(t *testing.T, path string) {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f.handler()}
	ended := make(chan struct{})
	go func() { server.Serve(ln); close(ended) }()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
}

// note writes down one request, as JSON on a line.
func (f *fakeServer) note(m proto.Message) {
	n, err := view(m)
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(&f.log, "%s ", m.ProtoReflect().Descriptor().Name())
	_ = writeJSON(&f.log, n, false)
}

func (f *fakeServer) asked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

func (f *fakeServer) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log.Reset()
}

func (f *fakeServer) find(ref *adminv1.Ref) *adminv1.Object {
	for _, o := range f.objects {
		if refID(o.GetRef()) == refID(ref) {
			return proto.CloneOf(o)
		}
	}
	return nil
}

func (f *fakeServer) must(ref *adminv1.Ref) (*adminv1.Object, error) {
	if o := f.find(ref); o != nil {
		return o, nil
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no %s", refID(ref)))
}

func (f *fakeServer) Get(_ context.Context, r *connect.Request[adminv1.GetRequest]) (*connect.Response[adminv1.GetResponse], error) {
	o, err := f.must(r.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	o.Manifest = strings.Replace(o.GetManifest(), `"name":`, `"resourceVersion":"`+o.GetRevision()+`","creationTimestamp":"`+
		o.GetCreated().AsTime().Format(time.RFC3339)+`","name":`, 1)
	response := &adminv1.GetResponse{Object: o}
	if o.GetRef().GetName() == "cart" && o.GetRef().GetKind() == grpcRoute {
		response.Observed = []*adminv1.ObservedRule{{Rule: "all", Overridden: true, Shares: cartShares()}}
	}
	return connect.NewResponse(response), nil
}

func (f *fakeServer) List(_ context.Context, r *connect.Request[adminv1.ListRequest]) (*connect.Response[adminv1.ListResponse], error) {
	var found []*adminv1.Object
	for _, o := range f.objects {
		if (r.Msg.GetKind() == "" || r.Msg.GetKind() == o.GetRef().GetKind()) &&
			(r.Msg.GetNamespace() == "" || r.Msg.GetNamespace() == o.GetRef().GetNamespace()) {
			found = append(found, o)
		}
	}
	return connect.NewResponse(&adminv1.ListResponse{Objects: found, Sequence: 42}), nil
}

// Apply finds a fault in what says "bad", and a conflict in an old resourceVersion.
func (f *fakeServer) Apply(_ context.Context, r *connect.Request[adminv1.ApplyRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	shown := proto.CloneOf(r.Msg)
	shown.Text = fmt.Sprintf("%d lines", strings.Count(r.Msg.GetText(), "\n"))
	if strings.HasPrefix(shown.GetFile(), "/") {
		shown.File = "/…" + shown.GetFile()[strings.LastIndexByte(shown.GetFile(), '/'):]
	}
	f.note(shown)
	if f.applied != nil {
		f.applied(r.Msg.GetText())
	}
	return f.write(r.Msg.GetFile(), r.Msg.GetText())
}

func (f *fakeServer) Diff(_ context.Context, r *connect.Request[adminv1.DiffRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	return f.write(r.Msg.GetFile(), r.Msg.GetText())
}

func (f *fakeServer) write(file, text string) (*connect.Response[adminv1.WriteResponse], error) {
	if faults := badLines(file, text); len(faults.GetFaults()) > 0 {
		return nil, detailed(connect.CodeInvalidArgument, "the text has faults", faults)
	}
	response := &adminv1.WriteResponse{Sequence: 43}
	dec := yaml.NewDecoder(strings.NewReader(text))
	for {
		var n yaml.Node
		if err := dec.Decode(&n); errors.Is(err, io.EOF) {
			return connect.NewResponse(response), nil
		} else if err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		}
		change, err := f.change(n.Content[0])
		if err != nil {
			return nil, err
		}
		if change.GetBefore() != nil && change.GetBefore().GetManifest() == change.GetAfter().GetManifest() {
			response.Unchanged = append(response.Unchanged, change.GetRef())
			continue
		}
		response.Changes = append(response.Changes, change)
	}
}

// change is what one manifest makes of its object.
func (f *fakeServer) change(n *yaml.Node) (*adminv1.Change, error) {
	metadata := lookup(n, "metadata")
	ref := &adminv1.Ref{Kind: word(n, "kind"), Namespace: word(metadata, "namespace"), Name: word(metadata, "name")}
	if ref.Namespace == "" {
		ref.Namespace = defaultNamespace
	}
	before, version := f.find(ref), word(metadata, "resourceVersion")
	if version != "" && version != before.GetRevision() {
		return nil, detailed(connect.CodeAborted, "conflict", &adminv1.Conflict{Expected: version, Current: before})
	}
	remove(metadata, "resourceVersion")
	remove(n, "status")
	var value any
	if err := n.Decode(&value); err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	after := &adminv1.Object{Ref: ref, Manifest: string(manifest), State: before.GetState(), Owner: before.GetOwner()}
	change := &adminv1.Change{Ref: ref, Action: "create", After: after}
	if before != nil {
		sorted, _ := json.Marshal(json.RawMessage(before.GetManifest()))
		var value any
		_ = json.Unmarshal(sorted, &value)
		sorted, _ = json.Marshal(value)
		before.Manifest = string(sorted)
		change.Action, change.Before = "update", before
	}
	return change, nil
}

func badLines(file, text string) *adminv1.Faults {
	faults := &adminv1.Faults{}
	line := uint32(0)
	for text := range strings.Lines(text) {
		line++
		if column := strings.Index(text, "bad"); column >= 0 {
			faults.Faults = append(faults.Faults, &adminv1.Fault{
				File: file, Line: line, Column: uint32(column + 1), Field: "spec.bad", Message: "unknown field",
			})
		}
	}
	return faults
}

func detailed(code connect.Code, message string, detail proto.Message) error {
	failed := connect.NewError(code, errors.New(message))
	d, err := connect.NewErrorDetail(detail)
	if err != nil {
		return err
	}
	failed.AddDetail(d)
	return failed
}

// changed answers a request that concerns one object.
func (f *fakeServer) changed(request proto.Message, ref *adminv1.Ref, action string, edit func(*adminv1.Object), draining ...*adminv1.Endpoint) (*connect.Response[adminv1.WriteResponse], error) {
	f.note(request)
	if ref.GetKind() == "" { // there is one of that name
		for _, kind := range []string{grpcRoute, httpRoute, backend} {
			named := &adminv1.Ref{Kind: kind, Namespace: ref.GetNamespace(), Name: ref.GetName()}
			if f.find(named) != nil {
				ref = named
				break
			}
		}
	}
	before, err := f.must(ref)
	if err != nil {
		return nil, err
	}
	after := proto.CloneOf(before)
	edit(after)
	for _, o := range []*adminv1.Object{before, after} {
		o.Conditions, o.LastChange, o.Created = nil, nil, nil
	}
	return connect.NewResponse(&adminv1.WriteResponse{
		Changes: []*adminv1.Change{{Action: action, Ref: before.GetRef(), Before: before, After: after}}, Sequence: 43,
		Draining: draining,
	}), nil
}

func (f *fakeServer) Delete(_ context.Context, r *connect.Request[adminv1.DeleteRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	return f.changed(r.Msg, r.Msg.GetRef(), "delete", func(o *adminv1.Object) { o.Deleted, o.Manifest = true, "" })
}

func (f *fakeServer) Split(_ context.Context, r *connect.Request[adminv1.SplitRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	if r.Msg.GetIfRevision() == "old" {
		f.note(r.Msg)
		return nil, detailed(connect.CodeAborted, "conflict", &adminv1.Conflict{Expected: "old", Current: f.find(r.Msg.GetRoute())})
	}
	return f.changed(r.Msg, r.Msg.GetRoute(), "split", func(o *adminv1.Object) {
		o.State.Splits = nil
		if !r.Msg.GetReset_() {
			o.State.Splits = []*adminv1.RuleSplit{{
				Rule: "all", Shares: r.Msg.GetShares(), Pins: r.Msg.GetPins(), Sticky: r.Msg.GetSticky(), SpillOver: r.Msg.SpillOver,
				Turns: r.Msg.Sticky != nil && r.Msg.GetSticky() == "",
			}}
		}
	})
}

func (f *fakeServer) Drain(_ context.Context, r *connect.Request[adminv1.DrainRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	action := map[bool]string{false: "drain", true: "undrain"}[r.Msg.GetUndo()]
	return f.changed(r.Msg, r.Msg.GetBackend(), action, func(o *adminv1.Object) {
		o.State.Drained = !r.Msg.GetUndo() && len(r.Msg.GetEndpoints()) == 0
		o.State.DrainedEndpoints = r.Msg.GetEndpoints()
		for _, address := range r.Msg.GetEndpoints() {
			o.State.Drains = append(o.State.Drains, &adminv1.Drain{Endpoint: address, Grace: r.Msg.GetGrace()})
		}
		if o.State.Drained {
			o.State.Drains = []*adminv1.Drain{{Grace: r.Msg.GetGrace()}}
		}
	}, f.draining(r.Msg.GetEndpoints())...)
}

func (f *fakeServer) Disable(_ context.Context, r *connect.Request[adminv1.DisableRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	action := map[bool]string{false: "disable", true: "enable"}[r.Msg.GetUndo()]
	return f.changed(r.Msg, r.Msg.GetRoute(), action, func(o *adminv1.Object) { o.State.Disabled = !r.Msg.GetUndo() })
}

func (f *fakeServer) Adopt(_ context.Context, r *connect.Request[adminv1.AdoptRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	action := map[bool]string{false: "adopt", true: "release"}[r.Msg.GetUndo()]
	return f.changed(r.Msg, r.Msg.GetRef(), action, func(o *adminv1.Object) { o.Owner = &adminv1.Owner{Kind: adminv1.Owner_KIND_API} })
}

func (f *fakeServer) History(_ context.Context, r *connect.Request[adminv1.HistoryRequest]) (*connect.Response[adminv1.HistoryResponse], error) {
	var found []*adminv1.Change
	for _, change := range f.changes {
		if (r.Msg.GetRef() == nil || refID(change.GetRef()) == refID(r.Msg.GetRef())) &&
			(r.Msg.GetBefore() == 0 || change.GetSequence() < r.Msg.GetBefore()) {
			found = append(found, change)
		}
	}
	if limit := int(r.Msg.GetLimit()); limit > 0 {
		found = found[:min(limit, len(found))]
	}
	for i, size := 0, 0; i < len(found); i++ { // as the server does
		if size += proto.Size(found[i]); size > 16<<20 && i > 0 {
			found = found[:i]
		}
	}
	return connect.NewResponse(&adminv1.HistoryResponse{Changes: found}), nil
}

func (f *fakeServer) Rollback(_ context.Context, r *connect.Request[adminv1.RollbackRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	ref := r.Msg.GetRef()
	if ref == nil {
		ref = &adminv1.Ref{Kind: grpcRoute, Name: "cart"}
	}
	return f.changed(r.Msg, ref, "rollback", func(o *adminv1.Object) { o.State.Splits = nil })
}

// Watch sends the changes that are remembered and then waits.
func (f *fakeServer) Watch(ctx context.Context, r *connect.Request[adminv1.WatchRequest], stream *connect.ServerStream[adminv1.WatchResponse]) error {
	f.note(r.Msg)
	for _, change := range slices.Backward(f.changes) {
		for _, m := range []*adminv1.WatchResponse{
			{Kind: adminv1.WatchResponse_KIND_ALIVE},
			{Kind: adminv1.WatchResponse_KIND_CHANGE, Change: change, Sequence: change.GetSequence()},
		} {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
	if f.endWatch {
		panic(http.ErrAbortHandler)
	}
	<-ctx.Done()
	return ctx.Err()
}

func (f *fakeServer) Explain(_ context.Context, r *connect.Request[adminv1.ExplainRequest]) (*connect.Response[adminv1.ExplainResponse], error) {
	f.note(r.Msg)
	response := &adminv1.ExplainResponse{
		Verdict: "GRPCRoute default/cart, rule all, takes it",
		Candidates: []*adminv1.Candidate{
			{Route: "default/cart", Rule: "all", Hostname: "shop.example.com", Match: "shop.v1.Cart/*", Wins: true, Why: "its hostname is the most exact"},
			{Route: "shop/any", Rule: "0", Hostname: "*", Match: "every method", Why: "its hostname is less exact"},
		},
		Shares: cartShares(),
	}
	if len(r.Msg.GetHeaders()) > 0 {
		response.Chosen, response.ChosenWhy = "default/cart-v2", "x-tester is yes"
	}
	return connect.NewResponse(response), nil
}

func (f *fakeServer) Status(context.Context, *connect.Request[adminv1.StatusRequest]) (*connect.Response[adminv1.StatusResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	response := &adminv1.StatusResponse{
		Version: "1.2.3", Node: "k3f9x2ab", Started: timestamppb.New(now.Add(-21 * time.Hour)), Listen: "[::]:8080", Admin: "127.0.0.1:8081",
		Sequence: 42, Programmed: 42, Ready: true, Objects: map[string]uint32{backend: 2, grpcRoute: 2, rpcPolicy: 1}, Digest: "6f1ed002",
	}
	if !f.alone {
		response.Cluster, response.Conflicts = &adminv1.ClusterStatus{Alive: 3, Dead: 1, Drifting: 1, Draining: true}, 2
	}
	if f.unready > 0 {
		f.unready--
		response.Ready, response.Programmed, response.Problems = false, 40, []string{"the store is being read"}
	}
	return connect.NewResponse(response), nil
}

// backupText is more than one message carries.
var backupText = strings.Repeat("0123456789abcdef", 10_000)

func (f *fakeServer) Backup(_ context.Context, _ *connect.Request[adminv1.BackupRequest], stream *connect.ServerStream[adminv1.BackupResponse]) error {
	for chunk := range slices.Chunk([]byte(backupText), 64<<10) {
		if err := stream.Send(&adminv1.BackupResponse{Chunk: chunk}); err != nil {
			return err
		}
	}
	if f.token == "cut" {
		return connect.NewError(connect.CodeInternal, errors.New("the disk went away"))
	}
	return nil
}

func (f *fakeServer) Restore(_ context.Context, stream *connect.ClientStream[adminv1.RestoreRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	var got strings.Builder
	var first *adminv1.RestoreRequest
	for stream.Receive() {
		if first == nil {
			first = &adminv1.RestoreRequest{Reason: stream.Msg().GetReason(), DryRun: stream.Msg().GetDryRun(), Wait: stream.Msg().GetWait()}
		}
		got.Write(stream.Msg().GetChunk())
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if got.String() != backupText {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("this is no backup of a store"))
	}
	return f.changed(first, &adminv1.Ref{Kind: grpcRoute, Name: "cart"}, "restore", func(*adminv1.Object) {})
}

func (f *fakeServer) WhoAmI(_ context.Context, r *connect.Request[adminv1.WhoAmIRequest]) (*connect.Response[adminv1.WhoAmIResponse], error) {
	if f.token != "" && r.Header().Get("Authorization") != "Bearer "+f.token {
		return connect.NewResponse(&adminv1.WhoAmIResponse{}), nil
	}
	return connect.NewResponse(&adminv1.WhoAmIResponse{Actor: "token deploy", Role: adminv1.Role_ROLE_OPERATOR}), nil
}

func (f *fakeServer) CreateSetUpLink(context.Context, *connect.Request[adminv1.CreateSetUpLinkRequest]) (*connect.Response[adminv1.CreateSetUpLinkResponse], error) {
	return connect.NewResponse(&adminv1.CreateSetUpLinkResponse{
		Urls: []string{"http://127.0.0.1:8081/setup#SECRET"}, Expires: timestamppb.New(now.Add(24 * time.Hour)),
		Hint: "from another machine: ssh -L 8081:127.0.0.1:8081 gw1",
	}), nil
}

func (f *fakeServer) CreateAccount(_ context.Context, r *connect.Request[adminv1.CreateAccountRequest]) (*connect.Response[adminv1.CreateAccountResponse], error) {
	f.note(r.Msg)
	return connect.NewResponse(&adminv1.CreateAccountResponse{Account: &adminv1.Account{Name: r.Msg.GetName(), Role: r.Msg.GetRole()}}), nil
}

func (f *fakeServer) UpdateAccount(_ context.Context, r *connect.Request[adminv1.UpdateAccountRequest]) (*connect.Response[adminv1.UpdateAccountResponse], error) {
	f.note(r.Msg)
	return connect.NewResponse(&adminv1.UpdateAccountResponse{}), nil
}

func (f *fakeServer) ListAccounts(context.Context, *connect.Request[adminv1.ListAccountsRequest]) (*connect.Response[adminv1.ListAccountsResponse], error) {
	return connect.NewResponse(&adminv1.ListAccountsResponse{Accounts: []*adminv1.Account{
		{Name: "alice", Role: adminv1.Role_ROLE_ADMIN, Created: timestamppb.New(now.Add(-20 * time.Hour)), LastSeen: timestamppb.New(now.Add(-5 * time.Minute))},
		{Name: "bob", Role: adminv1.Role_ROLE_VIEWER, Created: timestamppb.New(now)},
	}}), nil
}

func (f *fakeServer) DeleteAccount(_ context.Context, r *connect.Request[adminv1.DeleteAccountRequest]) (*connect.Response[adminv1.DeleteAccountResponse], error) {
	f.note(r.Msg)
	return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("alice is the last administrator: make another first"))
}

func (f *fakeServer) CreateToken(_ context.Context, r *connect.Request[adminv1.CreateTokenRequest]) (*connect.Response[adminv1.CreateTokenResponse], error) {
	f.note(r.Msg)
	return connect.NewResponse(&adminv1.CreateTokenResponse{
		Token: &adminv1.Token{Id: "t7", Name: r.Msg.GetName(), Role: r.Msg.GetRole(), Expires: r.Msg.GetExpires()}, Secret: "sluice_SECRET",
	}), nil
}

func (f *fakeServer) ListTokens(context.Context, *connect.Request[adminv1.ListTokensRequest]) (*connect.Response[adminv1.ListTokensResponse], error) {
	return connect.NewResponse(&adminv1.ListTokensResponse{Tokens: []*adminv1.Token{
		{Id: "t7", Name: "deploy", Role: adminv1.Role_ROLE_OPERATOR, Created: timestamppb.New(now.Add(-time.Hour)), CreatedBy: "alice"},
	}}), nil
}

func (f *fakeServer) RevokeToken(_ context.Context, r *connect.Request[adminv1.RevokeTokenRequest]) (*connect.Response[adminv1.RevokeTokenResponse], error) {
	f.note(r.Msg)
	return connect.NewResponse(&adminv1.RevokeTokenResponse{}), nil
}

func (f *fakeServer) Audit(_ context.Context, r *connect.Request[adminv1.AuditRequest]) (*connect.Response[adminv1.AuditResponse], error) {
	f.note(r.Msg)
	return connect.NewResponse(&adminv1.AuditResponse{Entries: []*adminv1.AuditEntry{
		{
			Id: 9, Time: timestamppb.New(now), Actor: "mallory", Role: "viewer", Address: "10.0.0.9", Via: "api", Action: "Apply",
			Refused: true, Why: "mallory has the role viewer; Apply needs operator",
		},
		{
			Id: 8, Time: timestamppb.New(now.Add(-time.Minute)), Actor: "alice", Role: "admin", Address: "socket", Via: "cli", Action: "Split",
			Refs: []*adminv1.Ref{{Kind: grpcRoute, Namespace: "default", Name: "cart"}}, Reason: "canary\x1b[2J step 2",
		},
	}}), nil
}
