package admin

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

const vms = "---\napiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: vms}\nspec: {registration: {}}\n"

// writes are all methods that change objects, by name.
func (c *clustered) writes(ctx context.Context, wait adminv1.Wait) map[string]func() (interface {
	GetPeers() *adminv1.Confirmation
}, error) {
	type told = interface {
		GetPeers() *adminv1.Confirmation
	}
	route, register := ref("GRPCRoute", "cart"), &adminv1.RegisterRequest{Backend: ref("", "vms"), Address: "10.0.0.5:50051", Wait: wait}
	return map[string]func() (told, error){
		"Apply": func() (told, error) {
			return msg(c.resources.Apply(ctx, connect.NewRequest(&adminv1.ApplyRequest{Text: strings.Replace(vms, "vms", "more", 1), Wait: wait})))
		},
		"Split": func() (told, error) {
			return msg(c.resources.Split(ctx, connect.NewRequest(&adminv1.SplitRequest{
				Route: route, Shares: []*adminv1.Share{{Backend: "cart-v1", Weight: 1}, {Backend: "cart-v2", Weight: 1}}, Wait: wait,
			})))
		},
		"Drain": func() (told, error) {
			return msg(c.resources.Drain(ctx, connect.NewRequest(&adminv1.DrainRequest{Backend: ref("", "cart-v1"), Wait: wait})))
		},
		"Disable": func() (told, error) {
			return msg(c.resources.Disable(ctx, connect.NewRequest(&adminv1.DisableRequest{Route: route, Wait: wait})))
		},
		"Adopt": func() (told, error) {
			return msg(c.resources.Adopt(ctx, connect.NewRequest(&adminv1.AdoptRequest{Ref: route, Wait: wait})))
		},
		"Delete": func() (told, error) {
			return msg(c.resources.Delete(ctx, connect.NewRequest(&adminv1.DeleteRequest{Ref: route, Wait: wait})))
		},
		"Rollback": func() (told, error) {
			disable := &adminv1.DisableRequest{Route: route}
			if _, err := c.resources.Disable(ctx, connect.NewRequest(disable)); err != nil {
				return nil, err
			}
			return msg(c.resources.Rollback(ctx, connect.NewRequest(&adminv1.RollbackRequest{Ref: route, Wait: wait})))
		},
		"Restore": func() (told, error) {
			var copied bytes.Buffer
			if err := c.store.Backup(&copied); err != nil {
				return nil, err
			}
			if _, err := c.resources.Delete(ctx, connect.NewRequest(&adminv1.DeleteRequest{Ref: route})); err != nil {
				return nil, err
			}
			stream := c.node.Restore(ctx)
			if err := stream.Send(&adminv1.RestoreRequest{Chunk: copied.Bytes(), Wait: wait}); err != nil {
				return nil, err
			}
			return msg(stream.CloseAndReceive())
		},
		"Register": func() (told, error) {
			return msg(c.backends.Register(ctx, connect.NewRequest(register)))
		},
		"Keep": func() (told, error) {
			stream, err := c.backends.Keep(ctx, connect.NewRequest(&adminv1.KeepRequest{Registration: register}))
			if err != nil {
				return nil, err
			}
			if !stream.Receive() {
				return nil, stream.Err()
			}
			return stream.Msg(), nil
		},
		"Deregister": func() (told, error) {
			if _, err := c.backends.Register(ctx, connect.NewRequest(&adminv1.RegisterRequest{Backend: register.Backend, Address: register.Address})); err != nil {
				return nil, err
			}
			return msg(c.backends.Deregister(ctx, connect.NewRequest(&adminv1.DeregisterRequest{Backend: register.Backend, Address: register.Address, Wait: wait})))
		},
	}
}

func msg[T any](resp *connect.Response[T], err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func TestEveryWriteWaitsForThePeers(t *testing.T) {
	const cartID = "GRPCRoute default/cart"
	registered := "Registration default/" + store.RegistrationName("vms", "10.0.0.5:50051")
	want := map[string]string{
		"Apply": "Backend default/more", "Split": cartID, "Drain": "Backend default/cart-v1", "Disable": cartID, "Adopt": cartID,
		"Delete": cartID + " deleted", "Rollback": cartID, "Restore": cartID,
		"Register": registered, "Keep": registered, "Deregister": registered + " deleted",
	}
	n := startClustered(t)
	if len(n.writes(t.Context(), 0)) != len(want) {
		t.Fatal("the tables differ")
	}
	for name := range want {
		for _, wait := range []adminv1.Wait{adminv1.Wait_WAIT_UNSPECIFIED, adminv1.Wait_WAIT_LOCAL, adminv1.Wait_WAIT_ALL} {
			n := startClustered(t)
			n.apply(t, cart+vms)
			n.peers.unconfirmed = []Unconfirmed{{Node: "bbbbbbbb", Host: "gw-2", Why: "no answer"}}
			ctx, cancel := context.WithCancel(t.Context())
			told, err := n.writes(ctx, wait)[name]()
			if err != nil {
				t.Fatalf("%s, %s: %v", name, wait, err)
			}
			asked := n.peers.confirmed()
			cancel()
			if wait != adminv1.Wait_WAIT_ALL {
				if asked != "" || told.GetPeers() != nil {
					t.Errorf("%s, %s: the peers were asked for %q, the answer has %v", name, wait, asked, told.GetPeers())
				}
				continue
			}
			if first, _, _ := strings.Cut(asked, ";"); first != want[name] {
				t.Errorf("%s: the peers were asked for %q, want %q", name, asked, want[name])
			}
			wantMessage(t, told.GetPeers(), `{"confirmed": 1, "unconfirmed": [{"node": "bbbbbbbb", "host": "gw-2", "why": "no answer"}]}`)
			if got := n.peers.said(); got != "" {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

// Who repeats a command until all have confirmed it asks of what has not changed, too.
func TestWriteOfTheSameWaitsForThePeers(t *testing.T) {
	n := startClustered(t)
	n.apply(t, cart)
	resp, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: cartRoute, Wait: adminv1.Wait_WAIT_ALL}))
	if err != nil || len(resp.Msg.GetChanges()) != 0 || resp.Msg.GetPeers().GetConfirmed() != 2 {
		t.Errorf("got %v, %v", resp, err)
	}
	if got := n.peers.confirmed(); got != "GRPCRoute default/cart" {
		t.Errorf("the peers were asked for %q", got)
	}
}

func TestWaitIsForNothingWhereNothingIsWritten(t *testing.T) {
	n := startClustered(t)
	n.apply(t, cart)
	resp, err := n.resources.Disable(t.Context(), connect.NewRequest(&adminv1.DisableRequest{
		Route: ref("", "cart"), DryRun: true, Wait: adminv1.Wait_WAIT_ALL,
	}))
	if err != nil || resp.Msg.GetPeers() != nil {
		t.Errorf("dry run: %v, %v", resp, err)
	}
	var copied bytes.Buffer
	if err := n.store.Backup(&copied); err != nil {
		t.Fatal(err)
	}
	stream := n.node.Restore(t.Context())
	if err := stream.Send(&adminv1.RestoreRequest{Chunk: copied.Bytes(), Wait: adminv1.Wait_WAIT_ALL}); err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.CloseAndReceive(); err != nil || resp.Msg.GetPeers() != nil {
		t.Errorf("restore of what is there: %v, %v", resp, err)
	}
	before := n.store.Snapshot().Seq()
	for name, call := range n.writes(t.Context(), 7) {
		if name == "Register" || name == "Keep" || name == "Deregister" || name == "Restore" || name == "Rollback" {
			continue // what comes before them is written
		}
		_, err := call()
		wantCode(t, name, err, connect.CodeInvalidArgument, "WAIT_ALL")
	}
	if n.store.Snapshot().Seq() != before {
		t.Error("something was written all the same")
	}
	if got := n.peers.confirmed(); got != "" {
		t.Errorf("the peers were asked for %q", got)
	}
}

// Without peers to wait for, all is as local.
func TestWaitForAllOfNoCluster(t *testing.T) {
	n := startNode(t)
	resp, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: cart, Wait: adminv1.Wait_WAIT_ALL}))
	if err != nil || resp.Msg.GetPeers() == nil || len(resp.Msg.GetPeers().GetUnconfirmed()) != 0 || resp.Msg.GetPeers().GetConfirmed() != 0 {
		t.Errorf("got %v, %v", resp, err)
	}
}

// The wait for peers ends when the door closes: the change is kept, and the answer says who
// has not confirmed it.
func TestWaitForPeersEndsWithTheDoor(t *testing.T) {
	n := startClustered(t)
	n.peers.patient = true
	n.peers.unconfirmed = []Unconfirmed{{Node: "bbbbbbbb", Why: "interrupted"}}
	type answer struct {
		resp *connect.Response[adminv1.WriteResponse]
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		resp, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: cart, Wait: adminv1.Wait_WAIT_ALL}))
		answered <- answer{resp, err}
	}()
	for n.store.Snapshot().Seq() < 3 {
		time.Sleep(time.Millisecond) // allow:sleep, a poll; the test's own deadline ends it
	}
	began := time.Now()
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	a := <-answered
	if a.err != nil || len(a.resp.Msg.GetPeers().GetUnconfirmed()) != 1 {
		t.Errorf("got %v, %v", a.resp, a.err)
	}
	if took := time.Since(began); took > confirmTime/2 {
		t.Errorf("the door closed in %s", took)
	}
}
