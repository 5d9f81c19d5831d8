package gateway

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"golang.org/x/net/http2"
)

// TestRelayCarriesMetadata compares what arrives with what was sent, byte by byte,
// in both directions.
func TestRelayCarriesMetadata(t *testing.T) {
	t.Parallel()
	everyByte := make([]byte, 256)
	for i := range everyByte {
		everyByte[i] = byte(i)
	}
	sent := metadata.MD{
		"plain":      {"one", "two", "three"},
		"empty":      {""},
		"spaced":     {"a, b;  c=\"d\""},
		"blob-bin":   {string(everyByte), "", "\x00\xff"},
		"grpc-trace": {"kept"},
		"long":       {strings.Repeat("x", 6000)},
	}
	reply := metadata.MD{"answer": {"1", "2"}, "answer-bin": {string(everyByte)}, "dashed-name_1.0": {"v"}}
	trailer := metadata.MD{"end": {"x"}, "end-bin": {string(everyByte), "\x01"}}
	var got metadata.MD
	b := startAnswering(t, map[string]answer{"Meta": func(_ *backend, st grpc.ServerStream) error {
		got, _ = metadata.FromIncomingContext(st.Context())
		st.SendHeader(reply)
		st.SetTrailer(trailer)
		return echo(nil, st)
	}})
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	var header, end metadata.MD
	ctx := metadata.NewOutgoingContext(shortly(t), sent)
	if _, err := invoke(ctx, dial(t, g.address()), "/shop.Cart/Meta", []byte("hi"), grpc.Header(&header), grpc.Trailer(&end)); err != nil {
		t.Fatal(err)
	}
	compare := func(what string, got, want metadata.MD) {
		for name, values := range want {
			if !slices.Equal(got[name], values) {
				t.Errorf("%s %s: got %q, want %q", what, name, got[name], values)
			}
		}
	}
	compare("request", got, sent)
	compare("response", header, reply)
	compare("trailers", end, trailer)
	if te := got["te"]; len(te) > 1 {
		t.Errorf("te is %q, want it once", te)
	}
}

// TestRelayCarriesTheStatus covers codes, messages that need escapes, and details.
func TestRelayCarriesTheStatus(t *testing.T) {
	t.Parallel()
	detail, err := proto.Marshal(wrapperspb.String("why"))
	if err != nil {
		t.Fatal(err)
	}
	for _, early := range []bool{true, false} {
		name := "trailers"
		if early {
			name = "trailers only"
		}
		t.Run(name, func(t *testing.T) {
			for code := codes.OK; code <= codes.Unauthenticated; code++ {
				want := status.FromProto(&spb.Status{Code: int32(code), Message: "100 % größer\n→ \x01"})
				if code != codes.OK {
					want, _ = want.WithDetails(wrapperspb.Bytes(detail), wrapperspb.String("again"))
				}
				b := startAnswering(t, map[string]answer{"Status": func(_ *backend, st grpc.ServerStream) error {
					if !early {
						m := []byte("first")
						st.SendMsg(&m)
					}
					return want.Err()
				}})
				g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
				st := stream(t, shortly(t), dial(t, g.address()), "/shop.Cart/Status")
				st.CloseSend()
				if !early {
					hear(t, st)
				}
				var m []byte
				err := st.RecvMsg(&m)
				if code == codes.OK {
					if err != io.EOF {
						t.Errorf("OK: got %v, want io.EOF", err)
					}
					continue
				}
				if got := status.Convert(err); !proto.Equal(got.Proto(), want.Proto()) {
					t.Errorf("%v: got %v, want %v", code, got.Proto(), want.Proto())
				}
				if got := g.metric(t, "sluice_rpc_ended_total", "code", wireName(code)); got != 1 {
					t.Errorf("%v RPCs counted as %v, want 1", got, code)
				}
				if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", "served"); got != 1 {
					t.Errorf("%v RPCs counted as served, want 1", got)
				}
				g.end(t)
				b.grpc.Stop()
			}
		})
	}
}

// wireName is a code as gRPC's documents spell it.
func wireName(c codes.Code) string {
	names := []string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
		"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
		"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
	return names[c]
}

func TestRelayModifiesHeaders(t *testing.T) {
	t.Parallel()
	const filters = `filters:
- type: RequestHeaderModifier
  requestHeaderModifier:
    set: [{name: X-Set, value: new}]
    add: [{name: x-add, value: more}]
    remove: [x-gone]
- type: ResponseHeaderModifier
  responseHeaderModifier:
    set: [{name: x-back, value: rewritten}]
    add: [{name: x-extra, value: "1"}]
    remove: [x-secret]
`
	var got metadata.MD
	b := startAnswering(t, map[string]answer{"Meta": func(_ *backend, st grpc.ServerStream) error {
		got, _ = metadata.FromIncomingContext(st.Context())
		st.SendHeader(metadata.Pairs("x-back", "original", "x-secret", "s", "x-kept", "k", "x-extra", "0"))
		st.SetTrailer(metadata.Pairs("x-secret", "of the trailers"))
		return echo(nil, st)
	}})
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeWith("a", filters, "a"))
	ctx := metadata.AppendToOutgoingContext(shortly(t), "x-set", "old", "x-set", "older", "x-add", "first", "x-gone", "1", "x-other", "o")
	var header, trailer metadata.MD
	if _, err := invoke(ctx, dial(t, g.address()), "/shop.Cart/Meta", nil, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{"x-set": {"new"}, "x-add": {"first", "more"}, "x-gone": nil, "x-other": {"o"}} {
		if !slices.Equal(got[name], want) {
			t.Errorf("request %s: got %q, want %q", name, got[name], want)
		}
	}
	for name, want := range map[string][]string{"x-back": {"rewritten"}, "x-extra": {"0", "1"}, "x-secret": nil, "x-kept": {"k"}} {
		if !slices.Equal(header[name], want) {
			t.Errorf("response %s: got %q, want %q", name, header[name], want)
		}
	}
	if want := []string{"of the trailers"}; !slices.Equal(trailer["x-secret"], want) {
		t.Errorf("trailers x-secret: got %q, want %q: the modifier is for headers", trailer["x-secret"], want)
	}
}

func TestRelayStreamsBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	st := stream(t, shortly(t), dial(t, g.address()), "/shop.Cart/Echo")
	for i := range 500 {
		m := pattern(i, i*7)
		say(t, st, m)
		if got := hear(t, st); !bytes.Equal(got, m) {
			t.Fatalf("message %d came back as another one of %d bytes", i, len(got))
		}
	}
	st.CloseSend()
	var m []byte
	if err := st.RecvMsg(&m); err != io.EOF {
		t.Errorf("after half-close: %v, want io.EOF", err)
	}
}

// TestRelayCarriesTheHalfClose has the backend speak only after the caller has
// finished, and the caller hear it.
func TestRelayCarriesTheHalfClose(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	st := stream(t, shortly(t), dial(t, g.address()), "/shop.Cart/Sink")
	var want digest
	for i := range 20 {
		m := pattern(i, 1000)
		want.add(m)
		say(t, st, m)
	}
	await(t, "the backend to have the stream", func() bool { return b.open.Load() == 1 })
	st.CloseSend()
	if got := hear(t, st); !bytes.Equal(got, want.bytes()) {
		t.Errorf("the backend got %x, want %x", got, want.bytes())
	}
}

// TestRelayPassesHeadersBeforeAnyMessage: some servers shake hands by header.
func TestRelayPassesHeadersBeforeAnyMessage(t *testing.T) {
	t.Parallel()
	b := startAnswering(t, map[string]answer{"Shake": func(b *backend, st grpc.ServerStream) error {
		st.SendHeader(metadata.Pairs("x-hand", "shaken"))
		return hang(b, st)
	}})
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	ctx, cancel := context.WithCancel(shortly(t))
	defer cancel()
	st := stream(t, ctx, dial(t, g.address()), "/shop.Cart/Shake")
	md, err := st.Header()
	if err != nil || !slices.Equal(md["x-hand"], []string{"shaken"}) {
		t.Errorf("header: %v, %v", md, err)
	}
}

// TestRelayPassesTheBackendsFrames compares the shape of a response, frame by
// frame.
func TestRelayPassesTheBackendsFrames(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	client.data(1, message([]byte("request")), true)
	p := s.accept(t)
	id := p.awaitRequest().id
	if got := p.awaitData(id); !got.end || !bytes.Equal(got.data, message([]byte("request"))) {
		t.Errorf("the backend got %v %q", got, got.data)
	}

	p.headers(id, false, ":status", "103", "link", "</style>")
	if got := client.awaitHeaders(1); got.get(":status") != "103" || got.get("link") != "</style>" || got.end {
		t.Errorf("interim response: %v", got)
	}
	p.headers(id, false, ":status", "100")
	if got := client.awaitHeaders(1); got.get(":status") != "100" {
		t.Errorf("second interim response: %v", got)
	}
	p.headers(id, false, ":status", "200", "content-type", "application/grpc+proto", "x-a", "1", "x-a", "2")
	if got := client.awaitHeaders(1); got.get(":status") != "200" || got.get("content-type") != "application/grpc+proto" || !slices.Equal(got.all("x-a"), []string{"1", "2"}) {
		t.Errorf("response: %v", got)
	}
	p.data(id, message([]byte("part")), false)
	if got := client.awaitData(1); !bytes.Equal(got.data, message([]byte("part"))) || got.end {
		t.Errorf("data: %v %q", got, got.data)
	}
	p.headers(id, true, "grpc-status", "0", "grpc-message", "%C3%B6", "x-t-bin", "AAE=")
	if got := client.awaitHeaders(1); !got.end || got.get("grpc-status") != "0" || got.get("grpc-message") != "%C3%B6" || got.get("x-t-bin") != "AAE=" {
		t.Errorf("trailers: %v", got)
	}

	client.request(3, "/shop.Cart/Get")
	id = p.awaitRequest().id
	p.headers(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "7", "grpc-message", "no")
	if got := client.awaitHeaders(3); !got.end || got.get("grpc-status") != "7" || got.get(":status") != "200" {
		t.Errorf("trailers-only: %v, want one HEADERS frame with END_STREAM", got)
	}
	if got := client.awaitReset(3); got.code != http2.ErrCodeNo {
		t.Errorf("after the response to an unfinished request: %v, want NO_ERROR", got)
	}
	if got := p.awaitReset(id); got.code != http2.ErrCodeCancel {
		t.Errorf("the backend of an unfinished request got %v, want CANCEL", got)
	}
	if got := client.seen(ofType(http2.FrameRSTStream, 1)); got != nil {
		t.Errorf("the finished stream was reset: %v", got)
	}
}

// TestRelaySendsWhatServersExpect looks at the fields of a request.
func TestRelaySendsWhatServersExpect(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.headers(1, true,
		":method", "POST", ":scheme", "http", ":path", "/shop.Cart/Get",
		"host", "by-host.example.com", "content-type", "application/grpc", "x-a", "1") // neither :authority nor te
	p := s.accept(t)
	got := p.awaitRequest()
	for name, want := range map[string][]string{
		":method": {"POST"}, ":scheme": {"http"}, ":path": {"/shop.Cart/Get"}, ":authority": {"by-host.example.com"},
		"te": {"trailers"}, "host": nil, "x-a": {"1"}, "content-type": {"application/grpc"},
		"x-forwarded-host": {"by-host.example.com"}, "x-forwarded-proto": {"http"}, "x-forwarded-for": {"127.0.0.1"},
		"grpc-timeout": nil,
	} {
		if !slices.Equal(got.all(name), want) {
			t.Errorf("%s: got %q, want %q", name, got.all(name), want)
		}
	}
	for i, f := range got.fields {
		if strings.HasPrefix(f.Name, ":") && i > 3 {
			t.Errorf("pseudo-field %s is number %d, behind regular ones", f.Name, i)
		}
	}
	if !got.end {
		t.Error("a request without a body was not ended by its HEADERS")
	}
	p.reply(got.id, nil)
	if got := client.awaitHeaders(1); got.get(":status") != "200" {
		t.Errorf("response: %v", got)
	}
}

func TestRelayCarriesTrailersOfRequests(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	for i, when := range []string{"while the backend is being dialled", "on a live connection"} {
		id := uint32(2*i + 1)
		client.request(id, "/shop.Cart/Get")
		client.data(id, message([]byte("m")), false)
		client.headers(id, true, "x-sum", "42")
		var p *peer
		if i == 0 {
			p = s.accept(t)
			s.peers <- p
		} else {
			p = s.accept(t)
		}
		up := p.awaitRequest().id
		if got := p.awaitData(up); got.end || !bytes.Equal(got.data, message([]byte("m"))) {
			t.Errorf("%s: data %v", when, got)
		}
		if got := p.awaitHeaders(up); got.get("x-sum") != "42" || !got.end {
			t.Errorf("%s: trailers %v", when, got)
		}
		p.reply(up, nil)
		client.await("end", func(e event) bool { return e.id == id && e.end })
	}
}

func TestRelayPassesTheCancelOn(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	var fastest time.Duration = time.Hour
	for i := range 5 {
		id := uint32(2*i + 1)
		client.request(id, "/shop.Cart/Get")
		if i == 0 {
			s.peers <- s.accept(t)
		}
		p := s.accept(t)
		s.peers <- p
		up := p.awaitRequest().id
		if i%2 == 1 { // in mid-response
			p.headers(up, false, ":status", "200", "content-type", "application/grpc")
			client.awaitHeaders(id)
		}
		start := time.Now()
		client.reset(id, http2.ErrCodeCancel)
		got := p.awaitReset(up)
		if got.code != http2.ErrCodeCancel {
			t.Errorf("the backend got %v, want CANCEL", got)
		}
		fastest = min(fastest, got.at.Sub(start))
	}
	if fastest > 50*time.Millisecond {
		t.Errorf("the fastest of 5 cancels took %v, want 50 ms at most", fastest)
	}
	await(t, "the outcomes", func() bool {
		return g.metric(t, "sluice_rpc_outcome_total", "outcome", "cancelled") == 5 && g.metric(t, "sluice_rpc_open") == 0
	})
}

func TestRelayCancelsWhenTheCallersConnectionEnds(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	for id := uint32(1); id < 100; id += 2 {
		client.request(id, "/shop.Cart/Hang")
	}
	await(t, "50 streams at the backend", func() bool { return b.open.Load() == 50 })
	client.abort()
	await(t, "the backend to be free", func() bool { return b.open.Load() == 0 })
	if got := b.cancelled.Load(); got != 50 {
		t.Errorf("%d of 50 handlers were cancelled", got)
	}
	if got := g.metric(t, "sluice_rpc_ended_total", "code", "CANCELLED"); got != 50 {
		t.Errorf("%v RPCs ended as CANCELLED, want 50", got)
	}
}

// TestRelayMovesLargeMessages sends 64 MiB each way, in messages of 4 MiB, and
// wants no more than the windows to be in memory.
func TestRelayMovesLargeMessages(t *testing.T) {
	const size, count = 4 << 20, 16
	b := startAnswering(t, map[string]answer{"Both": func(_ *backend, st grpc.ServerStream) error {
		return echo(nil, st)
	}})
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	cc := dial(t, g.address())
	st := stream(t, shortly(t), cc, "/shop.Cart/Both")
	one := pattern(1, size)
	var queued atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range count {
			if st.SendMsg(&one) != nil {
				return
			}
		}
		st.CloseSend()
	}()
	for i := range count {
		got := hear(t, st)
		if !bytes.Equal(got, one) {
			t.Fatalf("message %d is damaged", i)
		}
		queued.Store(max(queued.Load(), g.engine.Queued()))
	}
	<-done
	if q := queued.Load(); q > 4<<20 {
		t.Errorf("%d bytes were queued, want 4 MiB at most", q)
	}
	if in, out := g.metric(t, "sluice_bytes_total", "side", "downstream", "direction", "in"), g.metric(t, "sluice_bytes_total", "side", "upstream", "direction", "out"); in < size*count || out < size*count {
		t.Errorf("bytes in %v and out %v, want %d at least", in, out, size*count)
	}
}

// TestRelayHoldsWindowsAndNoMore lets a caller stop reading in the midst of 64 MiB.
func TestRelayHoldsWindowsAndNoMore(t *testing.T) {
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	const streams = 20
	client := connect(t, g.address(), manners{noCredit: true})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range streams {
		id := uint32(2*i + 1)
		client.request(id, "/shop.Cart/Source")
		client.data(id, message([]byte("16 4194304")), true)
	}
	await(t, "all streams to stand still", func() bool {
		at := b.served.Load()
		before := g.metric(t, "sluice_bytes_total", "side", "upstream", "direction", "in")
		<-time.After(50 * time.Millisecond)
		return at == streams && before == g.metric(t, "sluice_bytes_total", "side", "upstream", "direction", "in") && before > 0
	})
	if q := g.metric(t, "sluice_stream_queued_bytes"); q > streams*(64<<10) {
		t.Errorf("%v bytes wait in %d streams that nobody reads", q, streams)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("queued %v, heap grew by %d KiB (backend included)", g.engine.Queued(), (int64(after.HeapAlloc)-int64(before.HeapAlloc))>>10)
	client.close()
	await(t, "nothing to be queued", func() bool { return g.engine.Queued() == 0 && b.open.Load() == 0 })
}

// An RPC is one piece of memory, and the largest that it takes: eight bytes more may cost
// the next size class, and the collector a tenth more of each RPC.
func TestRPCFitsItsSizeClass(t *testing.T) {
	const class = 1408
	if size := unsafe.Sizeof(rpc{}); size > class {
		t.Errorf("an rpc has %d bytes, want %d at most: rare state belongs into its care", size, class)
	}
}
