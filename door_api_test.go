package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/admin"
	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// nothingRouted has everything in force and routes nothing.
type nothingRouted struct{ store *store.Store }

func (g nothingRouted) Observed(store.ID) []admin.ObservedRule { return nil }

func (g nothingRouted) Explain(string, string, [][2]string) admin.Explanation {
	return admin.Explanation{}
}

func (g nothingRouted) Programmed() (uint64, map[store.ID]error) {
	return g.store.Snapshot().Seq(), nil
}

func (g nothingRouted) WaitProgrammed(context.Context, uint64) error { return nil }

func (g nothingRouted) Addr() string { return "127.0.0.1:8080" }

func (g nothingRouted) Endpoints(string) []admin.ObservedEndpoint { return nil }

func (g nothingRouted) Rebalance(string, int) (int, error) { return 0, nil }

func (g nothingRouted) Schemas(context.Context, bool) []admin.SchemaSource { return nil }

func (g nothingRouted) Methods(context.Context, admin.MethodsOf) ([]admin.Method, []admin.SchemaSource, error) {
	return nil, nil, nil
}

func (g nothingRouted) OpenAPI(context.Context, store.ID) ([]byte, error) {
	return nil, admin.ErrUnknownMethods
}

// apiNode is the operator's door as the program has it, over a store of its own.
type apiNode struct {
	addr, socket string
	token        string // of an administrator
	store        *store.Store
}

// openAPI runs one until the test ends.
func openAPI(t *testing.T) *apiNode {
	t.Helper()
	return openAPIAt(t, t.TempDir(), "127.0.0.1:0")
}

func openAPIAt(t *testing.T, dir, listen string) *apiNode {
	t.Helper()
	st, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	door, err := admin.New(admin.Config{Listen: listen, DataDir: dir},
		admin.Parts{Store: st, Gateway: nothingRouted{st}, Port: newDoor(log)}, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- door.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, st.Close()); err != nil {
			t.Error(err)
		}
	})
	n := &apiNode{addr: door.Addr().String(), socket: admin.SocketPath(dir), store: st}
	access := adminv1.NewAccessServiceClient(n.bySocket(t, 1), "http://localhost")
	resp, err := access.CreateToken(t.Context(), connect.NewRequest(&adminv1.CreateTokenRequest{Name: "test", Role: adminv1.Role_ROLE_ADMIN}))
	if err != nil {
		t.Fatal(err)
	}
	n.token = resp.Msg.GetSecret()
	return n
}

// bySocket is a client of the socket, in one version of HTTP.
func (n *apiNode) bySocket(t *testing.T, major int) *http.Client {
	return doorClient(t, major, nil, func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", n.socket)
	})
}

// dial is a client of grpc-go, at the port or the socket.
func (n *apiNode) dial(t *testing.T, target string) (*grpc.ClientConn, context.Context) {
	t.Helper()
	cc, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	if strings.HasPrefix(target, "unix:") {
		return cc, t.Context()
	}
	return cc, metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+n.token)
}

// apply declares a backend in JSON, by the port, as curl would.
func (n *apiNode) apply(t *testing.T, client *http.Client, name string) error {
	body, err := json.Marshal(map[string]string{"text": fmt.Sprintf(
		"apiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: %s}\nspec: {endpoints: [{address: \"127.0.0.1:1\"}]}\n", name)})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.addr+adminv1.ResourceServiceApplyProcedure, strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+n.token)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return err
}

// tokenOf signs what a Connect client sends.
type tokenOf struct {
	http.RoundTripper
	token string
}

func (s tokenOf) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+s.token)
	return s.RoundTripper.RoundTrip(r)
}

// One port, one engine: a Watch in gRPC and one in gRPC-Web see what curl applies,
// by both versions of HTTP and by the socket.
func TestDoorServesTheAPIInEveryProtocolAtOnce(t *testing.T) {
	const each = 20
	n := openAPI(t)
	var watchers, writers sync.WaitGroup

	for _, target := range []string{n.addr, "unix:" + n.socket} {
		cc, ctx := n.dial(t, target)
		stream, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, adminv1.ResourceServiceWatchProcedure)
		if err == nil {
			err = errors.Join(stream.SendMsg(&adminv1.WatchRequest{Initial: true}), stream.CloseSend())
		}
		if err != nil {
			t.Fatal(err)
		}
		watchers.Go(func() {
			for seq := uint64(0); seq < 2*each; {
				m := new(adminv1.WatchResponse)
				if err := stream.RecvMsg(m); err != nil {
					t.Errorf("%s: %v after %d", target, err, seq)
					return
				}
				if m.GetKind() == adminv1.WatchResponse_KIND_CHANGE && m.GetSequence() != seq+1 {
					t.Errorf("%s: change %d after %d", target, m.GetSequence(), seq)
				}
				seq = m.GetSequence()
			}
		})
	}
	for _, major := range []int{1, 2} {
		client := doorClient(t, major, nil, nil)
		client.Transport = tokenOf{client.Transport, n.token}
		web := adminv1.NewResourceServiceClient(client, "http://"+n.addr, connect.WithGRPCWeb())
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		stream, err := web.Watch(ctx, connect.NewRequest(&adminv1.WatchRequest{Initial: true}))
		if err != nil {
			t.Fatal(err)
		}
		watchers.Go(func() {
			seq := uint64(0)
			for seq < 2*each && stream.Receive() {
				seq = stream.Msg().GetSequence()
			}
			if seq < 2*each {
				t.Errorf("gRPC-Web over HTTP/%d: %v after %d", major, stream.Err(), seq)
			}
		})
		writers.Go(func() {
			for i := range each {
				if err := n.apply(t, client, fmt.Sprintf("b%d-%d", major, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	watchers.Wait()
	if got := n.store.Snapshot().Len("Backend"); got != 2*each {
		t.Errorf("%d backends, want %d", got, 2*each)
	}
}

// 50 MB are refused by the engine's path, too, and the next request is answered.
func TestDoorRefusesLargeBodies(t *testing.T) {
	n := openAPI(t)
	text := strings.Repeat("#", 50<<20)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	cc, ctx := n.dial(t, n.addr)
	err := cc.Invoke(ctx, adminv1.ResourceServiceApplyProcedure, &adminv1.ApplyRequest{Text: text}, new(adminv1.WriteResponse))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("gRPC: %v", err)
	}
	for _, major := range []int{1, 2} {
		client := doorClient(t, major, nil, nil)
		client.Transport = tokenOf{client.Transport, n.token}
		api := adminv1.NewResourceServiceClient(client, "http://"+n.addr, connect.WithProtoJSON())
		if _, err := api.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: text})); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("JSON over HTTP/%d: %v", major, err)
		}
		if err := n.apply(t, client, "small"); err != nil {
			t.Errorf("after that, over HTTP/%d: %v", major, err)
		}
	}
	if err := cc.Invoke(ctx, adminv1.NodeServiceStatusProcedure, &adminv1.StatusRequest{}, new(adminv1.StatusResponse)); err != nil {
		t.Errorf("after that, in gRPC: %v", err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 100<<20 {
		t.Errorf("%d MiB more are in use than before", grown>>20)
	}
}

// A stranger gets nothing but what is open to all, and the body of what he sends is
// not read.
func TestDoorAsksStrangersToSignIn(t *testing.T) {
	n := openAPI(t)
	cc, err := grpc.NewClient(n.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	for _, call := range []struct {
		procedure string
		req       any
	}{
		{adminv1.ResourceServiceGetProcedure, &adminv1.GetRequest{}},
		{adminv1.ResourceServiceApplyProcedure, &adminv1.ApplyRequest{Text: strings.Repeat("#", 8<<20)}},
		{adminv1.NodeServiceStatusProcedure, &adminv1.StatusRequest{}},
	} {
		err := cc.Invoke(t.Context(), call.procedure, call.req, new(adminv1.WriteResponse))
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", call.procedure, err)
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/sluice.admin.v1.Nothing/At/All": 404} {
		resp, err := http.Get("http://" + n.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
	}
}

// A port that others can reach speaks TLS alone, with a certificate that the node has
// made itself.
func TestDoorSpeaksTLSAloneOffLoopback(t *testing.T) {
	dir := t.TempDir()
	n := openAPIAt(t, dir, "0.0.0.0:0")
	_, port, err := net.SplitHostPort(n.addr)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "admin.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for _, major := range []int{1, 2} {
		client := doorClient(t, major, roots, nil)
		client.Transport = tokenOf{client.Transport, n.token}
		node := adminv1.NewNodeServiceClient(client, "https://localhost:"+port)
		if _, err := node.Status(t.Context(), connect.NewRequest(&adminv1.StatusRequest{})); err != nil {
			t.Errorf("HTTP/%d in TLS: %v", major, err)
		}
		other := doorClient(t, major, roots, nil) // which has no connection of TLS to use again
		other.Transport = tokenOf{other.Transport, n.token}
		clear := adminv1.NewNodeServiceClient(other, "http://localhost:"+port)
		if _, err := clear.Status(t.Context(), connect.NewRequest(&adminv1.StatusRequest{})); err == nil {
			t.Errorf("HTTP/%d in clear text was answered", major)
		}
	}
}
