package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"sluice/gateway/schema"
	"sluice/gateway/web"
	"sluice/gateway/wire"
	"sluice/store"
)

// gridProto is the service of the grid: each method is reachable in every protocol.
const gridProto = `syntax = "proto3";
package grid;
import "google/api/annotations.proto";
service Grid {
  // Name answers with the name of the backend.
  rpc Name(Ask) returns (Told) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {get: "/v1/name"};
  }
  rpc Hang(Ask) returns (Told) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {get: "/v1/hang"};
  }
  rpc Fail(Ask) returns (Told) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {get: "/v1/fail"};
  }
  rpc Large(Ask) returns (Told) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {get: "/v1/large"};
  }
  // Try answers as the test wants, by how often the RPC was sent before.
  rpc Try(Ask) returns (Told) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {get: "/v1/try"};
  }
}
message Ask { string pad = 1; }
message Told { string name = 1; }
`

// gridSchema is a Schema object for every backend.
func gridSchema(t testing.TB) string {
	t.Helper()
	return schemaOf(t, gridProto)
}

// schemaOf is a Schema object of one file, for every backend.
func schemaOf(t testing.TB, source string) string {
	t.Helper()
	raw, err := proto.Marshal(compiled(t, source))
	if err != nil {
		t.Fatal(err)
	}
	return "apiVersion: sluice.dev/v1alpha1\nkind: Schema\nmetadata: {name: grid}\nspec: {descriptorSet: " + base64.StdEncoding.EncodeToString(raw) + "}\n"
}

// compiled are the descriptors of one file.
func compiled(t testing.TB, source string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	set, err := schema.CompileSources(t.Context(), func(path string) (io.ReadCloser, error) {
		if path != "grid.proto" {
			return nil, fs.ErrNotExist
		}
		return io.NopCloser(strings.NewReader(source)), nil
	}, []string{"."}, []string{"grid.proto"})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// told is the message of a backend.
func told(name string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
}

var gridAnswers = map[string]answer{
	"Name": func(b *backend, st grpc.ServerStream) error {
		var m []byte
		if err := st.RecvMsg(&m); err != nil {
			return err
		}
		m = told(b.name)
		return st.SendMsg(&m)
	},
	"Fail": func(b *backend, st grpc.ServerStream) error {
		var m []byte
		if err := st.RecvMsg(&m); err != nil {
			return err
		}
		st.SetTrailer(metadata.Pairs("x-tail", "1"))
		return status.Error(codes.FailedPrecondition, "the cart is full: 100 %")
	},
	"Large": func(b *backend, st grpc.ServerStream) error {
		var m []byte
		if err := st.RecvMsg(&m); err != nil {
			return err
		}
		m = told(strings.Repeat("x", 5<<20))
		return st.SendMsg(&m)
	},
}

// startGrid is a backend of the grid.
func startGrid(t testing.TB, name string) *backend {
	t.Helper()
	b := startAnswering(t, gridAnswers)
	b.name = name
	return b
}

// ending is what a caller of the grid has got.
type gridEnd struct {
	name    string
	code    wire.Code
	message string
}

// gridAsk is one RPC of the grid.
type gridAsk struct {
	method  string // Name
	header  map[string]string
	timeout time.Duration
}

// gridCaller makes RPCs in one protocol.
type gridCaller struct {
	name string
	// translated tells that messages are, so that their size is limited.
	translated bool
	call       func(ctx context.Context, a gridAsk) (gridEnd, error)
}

// gridCallers are the protocols, each over connections of its own.
func gridCallers(t testing.TB, g *node) []gridCaller {
	t.Helper()
	cc := dial(t, g.address(), grpc.WithAuthority("shop.example.com"))
	clients := make(map[int]*http.Client)
	for _, version := range []int{1, 2} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(version == 1)
		protocols.SetUnencryptedHTTP2(version == 2)
		clients[version] = &http.Client{Transport: &http.Transport{Protocols: protocols, MaxIdleConnsPerHost: 10, DisableCompression: true}}
		t.Cleanup(clients[version].CloseIdleConnections)
	}
	do := func(ctx context.Context, version int, method, path string, body []byte, header map[string]string) (*http.Response, []byte, error) {
		r, err := http.NewRequestWithContext(ctx, method, "http://"+g.address()+path, bytes.NewReader(body))
		if err != nil {
			return nil, nil, err
		}
		r.Host = "shop.example.com"
		for k, v := range header {
			r.Header.Set(k, v)
		}
		resp, err := clients[version].Do(r)
		if err != nil {
			return nil, nil, err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		return resp, got, err
	}
	merged := func(a gridAsk, more ...string) map[string]string {
		h := make(map[string]string)
		for k, v := range a.header {
			h[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = more[i+1]
		}
		return h
	}
	native := func(ctx context.Context, a gridAsk) (gridEnd, error) {
		var pairs []string
		for k, v := range a.header {
			pairs = append(pairs, k, v)
		}
		if a.timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, a.timeout)
			defer cancel()
		}
		reply, err := invoke(metadata.AppendToOutgoingContext(ctx, pairs...), cc, "/grid.Grid/"+a.method, nil)
		if err != nil {
			st, _ := status.FromError(err)
			return gridEnd{code: wire.Code(st.Code()), message: st.Message()}, nil
		}
		return gridEnd{name: nameIn(reply)}, nil
	}
	webBy := func(version int, form string) func(context.Context, gridAsk) (gridEnd, error) {
		return func(ctx context.Context, a gridAsk) (gridEnd, error) {
			body := message(nil)
			if form == "web-text" {
				body = web.AppendText(nil, body)
			}
			h := merged(a, "Content-Type", "application/grpc-"+form+"+proto", "X-Grpc-Web", "1")
			if a.timeout > 0 {
				h["Grpc-Timeout"] = fmt.Sprintf("%dm", a.timeout.Milliseconds())
			}
			resp, got, err := do(ctx, version, "POST", "/grid.Grid/"+a.method, body, h)
			if err != nil {
				return gridEnd{}, err
			}
			return webEnd(resp, got)
		}
	}
	connectBy := func(version int, codec string, get bool) func(context.Context, gridAsk) (gridEnd, error) {
		return func(ctx context.Context, a gridAsk) (gridEnd, error) {
			h := merged(a, "Connect-Protocol-Version", "1")
			if a.timeout > 0 {
				h["Connect-Timeout-Ms"] = fmt.Sprint(a.timeout.Milliseconds())
			}
			method, path, body := "POST", "/grid.Grid/"+a.method, []byte(nil)
			if codec == "json" {
				body = []byte("{}")
			}
			if get {
				q := url.Values{"connect": {"v1"}, "encoding": {codec}, "message": {string(body)}}
				method, path, body = "GET", path+"?"+q.Encode(), nil
				delete(h, "Connect-Protocol-Version")
			} else {
				h["Content-Type"] = "application/" + codec
			}
			resp, got, err := do(ctx, version, method, path, body, h)
			if err != nil {
				return gridEnd{}, err
			}
			return connectEnd(resp, got, codec)
		}
	}
	restBy := func(version int, byPath bool) func(context.Context, gridAsk) (gridEnd, error) {
		return func(ctx context.Context, a gridAsk) (gridEnd, error) {
			h := merged(a)
			if a.timeout > 0 {
				h["X-Server-Timeout"] = fmt.Sprint(a.timeout.Seconds())
			}
			var resp *http.Response
			var got []byte
			var err error
			if byPath {
				resp, got, err = do(ctx, version, "GET", "/v1/"+strings.ToLower(a.method), nil, h)
			} else {
				h["Content-Type"] = "application/json"
				resp, got, err = do(ctx, version, "POST", "/grid.Grid/"+a.method, []byte("{}"), h)
			}
			if err != nil {
				return gridEnd{}, err
			}
			return restEnd(resp, got)
		}
	}
	return []gridCaller{
		{"native gRPC", false, native},
		{"gRPC-Web HTTP/1", false, webBy(1, "web")},
		{"gRPC-Web text HTTP/1", false, webBy(1, "web-text")},
		{"gRPC-Web HTTP/2", false, webBy(2, "web")},
		{"gRPC-Web text HTTP/2", false, webBy(2, "web-text")},
		{"Connect proto HTTP/1", true, connectBy(1, "proto", false)},
		{"Connect JSON HTTP/2", true, connectBy(2, "json", false)},
		{"Connect GET HTTP/1", true, connectBy(1, "json", true)},
		{"REST HTTP/1", true, restBy(1, true)},
		{"REST HTTP/2", true, restBy(2, true)},
		{"JSON by the method's path", true, restBy(1, false)},
	}
}

func nameIn(m []byte) string {
	if len(m) == 0 {
		return ""
	}
	_, n := protowire.ConsumeVarint(m)
	name, _ := protowire.ConsumeString(m[n:])
	return name
}

func webEnd(resp *http.Response, body []byte) (gridEnd, error) {
	if resp.StatusCode != 200 {
		return gridEnd{}, fmt.Errorf("HTTP %d %q", resp.StatusCode, body)
	}
	if strings.Contains(resp.Header.Get("Content-Type"), "text") {
		raw, err := new(web.TextDecoder).Append(nil, body)
		if err != nil {
			return gridEnd{}, err
		}
		body = raw
	}
	var end gridEnd
	trailers := resp.Header
	for len(body) >= 5 {
		n := binary.BigEndian.Uint32(body[1:])
		part := body[5 : 5+n]
		if body[0] == 0x80 {
			trailers = make(http.Header)
			for line := range strings.SplitSeq(string(part), "\r\n") {
				if k, v, ok := strings.Cut(line, ":"); ok {
					trailers.Add(k, strings.TrimSpace(v))
				}
			}
		} else {
			end.name = nameIn(part)
		}
		body = body[5+n:]
	}
	code, ok := wire.ParseStatus(trailers.Get("Grpc-Status"))
	if !ok {
		return end, fmt.Errorf("no grpc-status in %v", trailers)
	}
	end.code, end.message = code, wire.DecodeMessage(trailers.Get("Grpc-Message"))
	return end, nil
}

func connectEnd(resp *http.Response, body []byte, codec string) (gridEnd, error) {
	if resp.StatusCode == 200 {
		if codec == "proto" {
			return gridEnd{name: nameIn(body)}, nil
		}
		var m struct{ Name string }
		err := json.Unmarshal(body, &m)
		return gridEnd{name: m.Name}, err
	}
	var e struct{ Code, Message string }
	if err := json.Unmarshal(body, &e); err != nil {
		return gridEnd{}, fmt.Errorf("HTTP %d %q: %w", resp.StatusCode, body, err)
	}
	for c := range wire.Code(wire.NumCodes) {
		word := strings.ToLower(c.String())
		if c == wire.Canceled {
			word = "canceled"
		}
		if word == e.Code {
			return gridEnd{code: c, message: e.Message}, nil
		}
	}
	return gridEnd{}, fmt.Errorf("unknown code %q", e.Code)
}

func restEnd(resp *http.Response, body []byte) (gridEnd, error) {
	var m struct {
		Name, Message string
		Code          int
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return gridEnd{}, fmt.Errorf("HTTP %d %q: %w", resp.StatusCode, body, err)
	}
	if (resp.StatusCode == 200) != (m.Code == 0) {
		return gridEnd{}, fmt.Errorf("HTTP %d with code %d", resp.StatusCode, m.Code)
	}
	return gridEnd{name: m.Name, code: wire.Code(m.Code), message: m.Message}, nil
}

// onGrid runs a test in every protocol, one after another.
func onGrid(t *testing.T, g *node, test func(t *testing.T, c gridCaller)) {
	t.Helper()
	for _, c := range gridCallers(t, g) {
		t.Run(c.name, func(t *testing.T) { test(t, c) })
	}
}

func (c gridCaller) must(t *testing.T, a gridAsk) gridEnd {
	t.Helper()
	end, err := c.call(shortly(t), a)
	if err != nil {
		t.Fatalf("%s: %v", a.method, err)
	}
	return end
}

// TestGridSplitsExactly: 9,000 of 10,000 are 9,000, whoever calls.
func TestGridSplitsExactly(t *testing.T) {
	t.Parallel()
	stable, canary := startGrid(t, "stable"), startGrid(t, "canary")
	g := startGateway(t, Config{}, gridSchema(t), backendAt("stable", stable.addr), backendAt("canary", canary.addr), routeTo("r", "stable=90", "canary=10"))
	calls := 10_000
	if raceEnabled {
		calls = 1_000
	}
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		var mu sync.Mutex
		got := make(map[string]int)
		var work sync.WaitGroup
		for range 10 {
			work.Go(func() {
				for range calls / 10 {
					end, err := c.call(shortly(t), gridAsk{method: "Name"})
					if err != nil || end.code != wire.OK {
						t.Errorf("%v, %v", end, err)
						return
					}
					mu.Lock()
					got[end.name]++
					mu.Unlock()
				}
			})
		}
		work.Wait()
		if got["stable"] != calls*9/10 || got["canary"] != calls/10 {
			t.Errorf("got %v of %d", got, calls)
		}
	})
}

// TestGridMatchesMetadata: a rule that asks for metadata is met in every protocol, and
// so is a sticky key.
func TestGridMatchesMetadata(t *testing.T) {
	t.Parallel()
	stable, canary := startGrid(t, "stable"), startGrid(t, "canary")
	g := startGateway(t, Config{})
	set := parse(t, gridSchema(t), backendAt("stable", stable.addr), backendAt("canary", canary.addr),
		routeWith("b", "matches: [{headers: [{name: x-canary, value: always}]}]", "canary"),
		routeTo("a", "stable=50", "canary=50"))
	for _, r := range set.GRPCRoutes {
		if r.Name == "a" {
			r.Spec.Rules[0].Steering = store.Steering{
				Sticky: "x-user", Pins: []store.Pin{{Header: "x-pin", Value: "1", Backend: "default/canary"}},
				Sides: []store.Side{{End: 1 << 31, Backend: "default/stable"}, {End: 1 << 32, Backend: "default/canary"}},
			}
		}
	}
	if err := g.Apply(set); err != nil {
		t.Fatal(err)
	}
	byUser := make(map[string]string)
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		if end := c.must(t, gridAsk{method: "Name", header: map[string]string{"x-canary": "always"}}); end.name != "canary" {
			t.Errorf("x-canary led to %v", end)
		}
		if end := c.must(t, gridAsk{method: "Name", header: map[string]string{"x-pin": "1"}}); end.name != "canary" {
			t.Errorf("the pin led to %v", end)
		}
		for i := range 20 {
			user := fmt.Sprint("user", i)
			end := c.must(t, gridAsk{method: "Name", header: map[string]string{"x-user": user}})
			if was := byUser[user]; was != "" && was != end.name {
				t.Errorf("%s was at %s and is at %s", user, was, end.name)
			}
			byUser[user] = end.name
		}
	})
}

// TestGridEndsAtTheDeadline: each protocol has its own way to ask for one.
func TestGridEndsAtTheDeadline(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	g := startGateway(t, Config{}, gridSchema(t), backendAt("a", b.addr), routeTo("r", "a"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		begin := time.Now()
		end := c.must(t, gridAsk{method: "Hang", timeout: 100 * time.Millisecond})
		if took := time.Since(begin); end.code != wire.DeadlineExceeded || took < 90*time.Millisecond || took > 5*time.Second {
			t.Errorf("%v after %v", end, took)
		}
	})
	await(t, "the backend to be told", func() bool { return b.open.Load() == 0 })
}

// TestGridTellsErrorsInFull: the backend's own, and the gateway's.
func TestGridTellsErrorsInFull(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	g := startGateway(t, Config{}, gridSchema(t), backendAt("a", b.addr), backendAt("down", "127.0.0.1:1"),
		routeTo("r", "a"), routeWith("down", "matches: [{headers: [{name: x-down, value: \"1\"}]}]", "down"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		if end := c.must(t, gridAsk{method: "Fail"}); end.code != wire.FailedPrecondition || end.message != "the cart is full: 100 %" {
			t.Errorf("the backend's error came as %v", end)
		}
		if end := c.must(t, gridAsk{method: "Name", header: map[string]string{"x-down": "1"}}); end.code != wire.Unavailable || !strings.HasPrefix(end.message, "sluice: ") {
			t.Errorf("a backend that is down came as %v", end)
		}
	})
}

// TestGridLimitsWhatIsTranslated, and nothing else.
func TestGridLimitsWhatIsTranslated(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	g := startGateway(t, Config{}, gridSchema(t), backendAt("a", b.addr), routeTo("r", "a"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		end := c.must(t, gridAsk{method: "Large"})
		if !c.translated && (end.code != wire.OK || len(end.name) != 5<<20) {
			t.Errorf("a large message that is passed on came as %v %q", end.code, end.message)
		}
		if c.translated && (end.code != wire.ResourceExhausted || !strings.Contains(end.message, "4194304")) {
			t.Errorf("a large message came as %v %q", end.code, end.message)
		}
	})
}

// TestGridCancels: a caller that goes away is gone for the backend too.
func TestGridCancels(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	g := startGateway(t, Config{}, gridSchema(t), backendAt("a", b.addr), routeTo("r", "a"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() {
			if end, err := c.call(ctx, gridAsk{method: "Hang"}); !errors.Is(err, context.Canceled) && end.code != wire.Canceled {
				t.Errorf("%v, %v", end, err)
			}
		})
		await(t, "the RPC to arrive", func() bool { return b.open.Load() == 1 })
		cancel()
		work.Wait()
		await(t, "the backend to hear of it", func() bool { return b.open.Load() == 0 })
	})
}
