package gateway

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const waitProto = `syntax = "proto3";
package shop;
service Cart { rpc Wait(Ask) returns (stream Ask); rpc Try(Ask) returns (Ask); }
message Ask { string name = 1; }
`

// A stream that was open before its endpoint was ejected ends well while an RPC tries that
// endpoint: this says nothing of how it is now.
func TestEjectionEndsByTheRPCThatTries(t *testing.T) {
	t.Parallel()
	var mode atomic.Int32 // of the bad one: 0 fails, 1 waits for the verdict
	var old, tries atomic.Int32
	let, verdict := make(chan struct{}), make(chan struct{})
	wait := func(_ *backend, st grpc.ServerStream) error {
		old.Add(1)
		select {
		case <-let:
			return nil
		case <-st.Context().Done():
			return st.Context().Err()
		}
	}
	bad := startAnswering(t, map[string]answer{"Wait": wait, "Try": func(_ *backend, st grpc.ServerStream) error {
		if mode.Load() == 0 {
			return status.Error(codes.Unavailable, "no disk")
		}
		tries.Add(1)
		select {
		case <-verdict:
			return status.Error(codes.Unavailable, "no disk yet")
		case <-st.Context().Done():
			return st.Context().Err()
		}
	}})
	good := startAnswering(t, map[string]answer{"Wait": wait, "Try": echo})
	const spec = "loadBalancing: {policy: RoundRobin}\noutlierDetection: {consecutiveErrors: 2, ejectFor: 300ms, maxEjectFor: 300ms}"
	g := startGateway(t, Config{}, schemaOf(t, waitProto), backendWith("a", spec, bad.addr, good.addr), routeTo("all", "a"))
	cc := dial(t, g.address())
	streams := []grpc.ClientStream{}
	for range 2 {
		st, err := cc.NewStream(shortly(t), bidi, "/shop.Cart/Wait")
		if err != nil {
			t.Fatal(err)
		}
		if err := st.CloseSend(); err != nil {
			t.Fatal(err)
		}
		streams = append(streams, st)
	}
	await(t, "a stream on each", func() bool { return old.Load() == 2 })
	state := func() string { return observed(g, "default/a")[bad.addr].State }
	await(t, "the bad one to be ejected", func() bool {
		invoke(shortly(t), cc, "/shop.Cart/Try", nil)
		return state() == "ejected"
	})
	mode.Store(1)
	ended := make(chan error, 100)
	await(t, "an RPC to try it", func() bool {
		go func() {
			_, err := invoke(shortly(t), cc, "/shop.Cart/Try", nil)
			select {
			case ended <- err:
			default:
			}
		}()
		return tries.Load() == 1
	})
	<-time.After(longWork) // from then on it is looked whether it is a stream
	close(let)
	for _, st := range streams {
		var reply []byte
		if err := st.RecvMsg(&reply); err == nil || !strings.Contains(err.Error(), "EOF") {
			t.Errorf("a stream of before ended by %v", err)
		}
	}
	await(t, "the streams of before to be over", func() bool { return observed(g, "default/a")[bad.addr].Active == 1 })
	if s := state(); s != "ejected" {
		t.Errorf("it is %s by a stream of before", s)
	}
	close(verdict)
	await(t, "the RPC that tried to be over", func() bool { return observed(g, "default/a")[bad.addr].Active == 0 })
	if e := observed(g, "default/a")[bad.addr]; e.State != "ejected" || !strings.Contains(e.Why, "the RPC that tried it failed") {
		t.Errorf("it is %s: %s", e.State, e.Why)
	}
}
