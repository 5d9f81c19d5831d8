package gateway

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/reflect/protodesc"

	"sluice/gateway/listen"
	"sluice/store"
)

// TestGatewaySpeaksEveryProtocolOnOneConnection: native gRPC, gRPC-Web, Connect and REST
// at once, in one TLS connection of one client.
func TestGatewaySpeaksEveryProtocolOnOneConnection(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	_, cert, key := ca.issue(t, "shop.example.com")
	b := startGrid(t, "a")
	g := startGateway(t, Config{Listen: listen.Config{Address: "127.0.0.1:0", TLSCert: cert, TLSKey: key}}, gridSchema(t), backendAt("a", b.addr), routeTo("r", "a"))
	client := &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: ca.pool, ServerName: "shop.example.com"},
	}}
	defer client.CloseIdleConnections()
	ask := func(method, path, content string, body []byte) (*http.Response, []byte) {
		r, err := http.NewRequestWithContext(shortly(t), method, "https://"+g.address()+path, bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return nil, nil
		}
		r.Header.Set("Te", "trailers")
		if content != "" {
			r.Header.Set("Content-Type", content)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Errorf("%s: %v", content, err)
			return nil, nil
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Errorf("%s: %v", content, err)
		}
		return resp, got
	}
	ask("GET", "/v1/name", "", nil) // so that there is a connection
	var work sync.WaitGroup
	for range 20 {
		work.Go(func() {
			resp, body := ask("POST", "/grid.Grid/Name", "application/grpc", message(nil))
			if resp == nil || resp.Trailer.Get("Grpc-Status") != "0" || !bytes.Equal(body, message(told("a"))) {
				t.Errorf("native: %v %q", resp, body)
			}
		})
		work.Go(func() {
			if resp, body := ask("POST", "/grid.Grid/Name", "application/grpc-web+proto", message(nil)); resp == nil || !bytes.Contains(body, []byte("grpc-status: 0")) {
				t.Errorf("gRPC-Web: %v %q", resp, body)
			}
		})
		work.Go(func() {
			if resp, body := ask("POST", "/grid.Grid/Name", "application/proto", nil); resp == nil || !bytes.Equal(body, told("a")) {
				t.Errorf("Connect: %v %q", resp, body)
			}
		})
		work.Go(func() {
			if resp, body := ask("GET", "/v1/name", "", nil); resp == nil || string(body) != `{"name":"a"}` {
				t.Errorf("REST: %v %q", resp, body)
			}
		})
	}
	work.Wait()
	if got := g.metric(t, "sluice_conn_opened_total", "side", "downstream"); got != 1 {
		t.Errorf("%v connections, want 1", got)
	}
	for protocol, want := range map[string]float64{"grpc": 20, "grpc-web": 20, "connect": 20, "rest": 21} {
		if got := g.metric(t, "sluice_request_total", "protocol", protocol); got != want {
			t.Errorf("%v requests were %s, want %v", got, protocol, want)
		}
	}
}

// steps is a service whose stream the test steps through.
const stepsProto = `syntax = "proto3";
package grid;
import "google/api/annotations.proto";
service Steps {
  rpc Step(Ask) returns (stream Told) { option (google.api.http) = {get: "/v1/step"}; }
  rpc Flood(Ask) returns (stream Told) { option (google.api.http) = {get: "/v1/flood"}; }
}
message Ask { string pad = 1; }
message Told { string name = 1; }
`

// streamForms are the forms in which a stream of messages reaches a caller of HTTP.
var streamForms = []struct {
	name, method, path, content, accept string
	body                                []byte
}{
	{"NDJSON", "GET", "/v1/", "", "", nil},
	{"server-sent events", "GET", "/v1/", "", "text/event-stream", nil},
	{"JSON array", "GET", "/v1/", "", "application/json", nil},
	{"gRPC-Web", "POST", "/grid.Steps/", "application/grpc-web+proto", "", message(nil)},
	{"gRPC-Web text", "POST", "/grid.Steps/", "application/grpc-web-text", "", []byte("AAAAAAA=")},
	{"Connect", "POST", "/grid.Steps/", "application/connect+proto", "", message(nil)},
}

func askStream(t *testing.T, g *node, version, form int, method string) *http.Response {
	t.Helper()
	f := streamForms[form]
	protocols := new(http.Protocols)
	protocols.SetHTTP1(version == 1)
	protocols.SetUnencryptedHTTP2(version == 2)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols, DisableCompression: true}}
	t.Cleanup(client.CloseIdleConnections)
	path := f.path + method
	if f.method == "GET" {
		path = strings.ToLower(path)
	}
	r, err := http.NewRequestWithContext(t.Context(), f.method, "http://"+g.address()+path, bytes.NewReader(f.body))
	if err != nil {
		t.Fatal(err)
	}
	if f.content != "" {
		r.Header.Set("Content-Type", f.content)
	}
	if f.accept != "" {
		r.Header.Set("Accept", f.accept)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// TestStreamsArriveMessageByMessage: the first message is with the caller before the
// second has left the backend, in every form.
func TestStreamsArriveMessageByMessage(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	b := startAnswering(t, map[string]answer{"Step": func(_ *backend, st grpc.ServerStream) error {
		for name := range next {
			if name == "" {
				return nil
			}
			m := told(name)
			if err := st.SendMsg(&m); err != nil {
				return err
			}
		}
		return nil
	}})
	g := startGateway(t, Config{}, schemaOf(t, stepsProto), backendAt("a", b.addr), routeTo("r", "a"))
	for form := range streamForms {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s HTTP/%d", streamForms[form].name, version), func(t *testing.T) {
				go func() { next <- "first" }() // the response's header may wait for it
				resp := askStream(t, g, version, form, "Step")
				got := ""
				buf := make([]byte, 1000)
				for _, name := range []string{"first", "second"} {
					if name == "second" {
						next <- name
					}
					want := name
					if strings.Contains(streamForms[form].name, "text") {
						want = "" // it is in base64: that something came is enough
						got = ""
					}
					for !strings.Contains(got, want) || got == "" {
						n, err := resp.Body.Read(buf)
						if got += string(buf[:n]); err != nil {
							t.Fatalf("after %q: %v", got, err)
						}
					}
				}
				next <- ""
				io.Copy(io.Discard, resp.Body)
			})
		}
	}
}

// TestStreamsNeedConstantMemory: much more goes through than is ever held.
func TestStreamsNeedConstantMemory(t *testing.T) {
	const size, each = 1 << 30, 64 << 10
	total := size
	if raceEnabled {
		total = size / 16
	}
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(100 << 20)) // the collector is not to lag behind
	m := told(strings.Repeat("x", each))
	b := startAnswering(t, map[string]answer{"Flood": func(_ *backend, st grpc.ServerStream) error {
		for range total / each {
			if err := st.SendMsg(&m); err != nil {
				return err
			}
		}
		return nil
	}})
	g := startGateway(t, Config{}, schemaOf(t, stepsProto), backendAt("a", b.addr), routeTo("r", "a"))
	for form, f := range streamForms {
		if f.name != "NDJSON" && f.name != "gRPC-Web" {
			continue
		}
		resp := askStream(t, g, 1, form, "Flood")
		var peak uint64
		var n int64
		buf := make([]byte, 1<<20)
		for i := 0; ; i++ {
			read, err := resp.Body.Read(buf)
			n += int64(read)
			if i%500 == 0 {
				var s runtime.MemStats
				runtime.ReadMemStats(&s)
				peak = max(peak, s.HeapInuse)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: after %d bytes: %v", f.name, n, err)
			}
		}
		if n < int64(total) {
			t.Errorf("%s: %d bytes arrived of %d", f.name, n, total)
		}
		if peak > 128<<20 {
			t.Errorf("%s: %d MiB of heap for a stream of %d MiB", f.name, peak>>20, total>>20)
		}
		t.Logf("%s: %d MiB, peak of heap %d MiB, client and backend included", f.name, n>>20, peak>>20)
	}
}

// TestGatewayTellsOfRoutesThatSaySo: reflection and OpenAPI, for the routes that may be
// described, and for no others.
func TestGatewayTellsOfRoutesThatSaySo(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	g := startGateway(t, Config{})
	set := parse(t, gridSchema(t), backendAt("a", b.addr), routeTo("r", "a"))
	if err := g.Apply(set); err != nil {
		t.Fatal(err)
	}
	cc, err := grpc.NewClient("passthrough:///"+g.address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	services := func() (list []string) {
		st, err := grpc_reflection_v1.NewServerReflectionClient(cc).ServerReflectionInfo(shortly(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil {
			t.Fatal(err)
		}
		answer, err := st.Recv()
		if err != nil {
			return nil
		}
		for _, s := range answer.GetListServicesResponse().GetService() {
			list = append(list, s.Name)
		}
		st.CloseSend()
		return list
	}
	document := func() (status int, paths map[string]any) {
		resp, err := http.Get("http://" + g.address() + "/openapi.json")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var doc struct{ Paths map[string]any }
		json.NewDecoder(resp.Body).Decode(&doc)
		return resp.StatusCode, doc.Paths
	}
	if got := services(); got != nil {
		t.Errorf("a route that does not say so tells of %v", got)
	}
	if status, _ := document(); status != http.StatusNotFound {
		t.Errorf("a route that does not say so is described: %d", status)
	}
	told := parse(t, gridSchema(t), backendAt("a", b.addr), routeTo("r", "a"))
	told.GRPCRoutes[0].Spec.Rules[0].Treatment.Expose = store.Expose{Reflection: true, OpenAPI: true}
	if err := g.Apply(told); err != nil {
		t.Fatal(err)
	}
	if status, paths := document(); status != http.StatusOK || paths["/v1/name"] == nil {
		t.Errorf("%d, %v", status, paths)
	}
	if got := services(); !slices.Contains(got, "grid.Grid") {
		t.Errorf("reflection tells of %v", got)
	}
}

// gridOnly is what a server of the grid says that it serves.
type gridOnly struct{}

func (gridOnly) GetServiceInfo() map[string]grpc.ServiceInfo {
	return map[string]grpc.ServiceInfo{"grid.Grid": {}}
}

// TestPreflightsLearn: the first request of a page is a preflight, before anybody has
// told of the paths.
func TestPreflightsLearn(t *testing.T) {
	t.Parallel()
	files, err := protodesc.NewFiles(compiled(t, gridProto))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	grpc_reflection_v1.RegisterServerReflectionServer(server, reflection.NewServerV1(reflection.ServerOptions{Services: gridOnly{}, DescriptorResolver: files}))
	go server.Serve(l)
	defer server.Stop()
	g := startGateway(t, Config{})
	set := parse(t, backendAt("a", l.Addr().String()), routeTo("r", "a"))
	set.GRPCRoutes[0].Spec.Rules[0].Treatment.CORS = &store.CORS{AllowOrigins: []string{"https://shop.example.com"}}
	if err := g.Apply(set); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodOptions, "http://"+g.address()+"/v1/name", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", "https://shop.example.com")
	r.Header.Set("Access-Control-Request-Method", "GET")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Access-Control-Allow-Origin"); resp.StatusCode != http.StatusNoContent || got != "https://shop.example.com" {
		t.Errorf("HTTP %d, allowed is %q", resp.StatusCode, got)
	}
	http.DefaultClient.CloseIdleConnections()
}
