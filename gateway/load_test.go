package gateway

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"

	"sluice/gateway/h2"
)

// TestGatewayKeepsSlowReadersApart has 10 clients of 100 streams each stop reading,
// while all 1,000 streams share one connection to the backend with the probes: in an
// open loop of 200 RPC/s whose backend takes 20 ms. Each part is a process.
func TestGatewayKeepsSlowReadersApart(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	// Twice the same, of which one stays as it is: what else runs on this machine
	// slows both down. It never speeds one up, so the best of three counts.
	var gateways [2]*process
	for i := range gateways {
		b := startProcess(t, "backend", order{})
		gateways[i] = startProcess(t, "gateway", order{
			Apply:  backendWith("a", "connection: {maxStreams: 2000, maxConnections: 1}", b.addr) + "\n---\n" + routeTo("a", "a"),
			Limits: &h2.Limits{MaxConcurrentStreams: 200},
		})
	}
	g := gateways[0]
	within := func(what string, percent time.Duration) {
		t.Helper()
		for try := 1; ; try++ {
			beside, alone := probe(t, g.addr, gateways[1].addr)
			limit := max(alone*percent/100, alone+10*time.Millisecond)
			t.Logf("the probes' p99 is %v %s, %v alone", beside, what, alone)
			if beside <= limit {
				return
			}
			if try == 3 {
				t.Errorf("the probes' p99 is %v %s, %v alone, want %v at most", beside, what, alone, limit)
				return
			}
		}
	}

	var stalled []*peer
	for range 10 {
		// The first window of each stream is all that it takes, and the connection's
		// is 64 KiB: 656 bytes a stream.
		c := connect(t, g.addr, manners{noCredit: true, noReader: true, settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1 << 20}}})
		for i := range 100 {
			id := uint32(2*i + 1)
			c.request(id, "/shop.Cart/Source")
			c.data(id, message([]byte("1000 10000")), true)
		}
		stalled = append(stalled, c)
	}
	var open, before, after float64
	defer func() { t.Logf("%v streams were open, %v and then %v bytes had come", open, before, after) }()
	await(t, "1,000 streams to stand still", func() bool {
		open = g.metric("sluice_stream_open", "side", "upstream")
		before = g.metric("sluice_bytes_total", "side", "upstream", "direction", "in")
		<-time.After(100 * time.Millisecond)
		after = g.metric("sluice_bytes_total", "side", "upstream", "direction", "in")
		return open == 1000 && before == after && after > 1000*16<<10 // each has sent its first window
	})
	queued := g.metric("sluice_stream_queued_bytes")
	if queued > 1000*64<<10 {
		t.Errorf("%v bytes wait in 1,000 streams, want no more than their windows", queued)
	}
	within("beside 1,000 stalled streams", 150)

	bulk := connect(t, g.addr, manners{window: 1 << 20, settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1 << 20}}})
	bulk.request(1, "/shop.Cart/Source")
	bulk.data(1, message([]byte("1000000 100000")), true)
	within("beside a bulk stream, too", 300)
	bulk.close()

	if got := g.metric("sluice_stream_open", "side", "upstream"); got < 1000 {
		t.Errorf("%v streams are open, want the stalled ones beside the probes to the end", got)
	}
	if got := g.metric("sluice_conn_open", "side", "upstream"); got != 1 {
		t.Errorf("%v connections to the backend, want all on one", got)
	}
	for _, c := range stalled {
		c.close()
	}
	await(t, "the streams to end", func() bool { return g.metric("sluice_stream_open") == 0 })
}

// probe makes 200 RPC/s to each of two gateways for a second and a half, whether or
// not they are answered, and returns the 99th percentile of how long they took.
func probe(t *testing.T, addrs ...string) (first, second time.Duration) {
	t.Helper()
	const rate, count = 200, 300
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var conns [2]*grpc.ClientConn
	var took [2][]time.Duration
	for i, addr := range addrs {
		conns[i] = dial(t, addr)
		defer conns[i].Close()
		if _, err := invoke(ctx, conns[i], "/shop.Cart/Slow", nil); err != nil {
			t.Fatal(err)
		}
		took[i] = make([]time.Duration, count)
	}
	var wg sync.WaitGroup
	start := time.Now()
	for n := range count {
		due := start.Add(time.Duration(n) * time.Second / rate)
		<-time.After(time.Until(due))
		for i := range conns {
			wg.Go(func() {
				if _, err := invoke(ctx, conns[i], "/shop.Cart/Slow", nil); err != nil {
					t.Errorf("probe: %v", err)
				}
				took[i][n] = time.Since(due) // what came late was late
			})
		}
	}
	wg.Wait()
	for i := range took {
		slices.Sort(took[i])
	}
	return took[0][count*99/100], took[1][count*99/100]
}

// TestGatewayHoldsSilentStreamsCheaply opens 10,000 streams that say nothing, and
// looks at the memory while they are open and after they have ended.
func TestGatewayHoldsSilentStreamsCheaply(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const conns, each = 100, 100
	s := startScript(t, manners{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 100_000}}})
	g := startProcess(t, "gateway", order{
		Apply: backendWith("a", "connection: {maxStreams: 100000}", s.addr) + "\n---\n" + routeTo("a", "a"),
	})
	var clients []*peer
	for range conns {
		c := connect(t, g.addr, manners{})
		c.request(1, "/shop.Cart/Get") // each connection has been used
		clients = append(clients, c)
	}
	p := s.accept(t)
	for range conns {
		p.headers(p.awaitRequest().id, true, append(answerHead, "grpc-status", "0")...)
	}
	for _, c := range clients {
		c.await("end", func(e event) bool { return e.end })
	}
	next := uint32(3)
	fill := func() (ids []uint32) {
		for _, c := range clients {
			for i := range uint32(each) {
				c.request(next+2*i, "/shop.Cart/Watch", "x-tenant", fmt.Sprint(i), "user-agent", "grpc-go/1.85.0", "grpc-accept-encoding", "gzip")
			}
		}
		for _, e := range p.gather("requests", conns*each, func(e event) bool { return e.get(":path") != "" }) {
			ids = append(ids, e.id)
		}
		for _, id := range ids[:len(ids)/2] { // half of them have begun to answer
			p.headers(id, false, answerHead...)
		}
		await(t, "the answers", func() bool {
			return g.metric("sluice_stream_open", "side", "upstream") == conns*each && g.metric("sluice_stream_open", "side", "downstream") == conns*each
		})
		return ids
	}
	empty := func(ids []uint32) {
		for i, c := range clients {
			for j := range uint32(each) {
				if i%2 == 0 {
					c.reset(next+2*j, http2.ErrCodeCancel)
				}
			}
		}
		await(t, "the resets", func() bool { return g.metric("sluice_stream_open", "side", "downstream") == conns*each/2 })
		for i, id := range ids { // those that were reset are none of the gateway's any more
			if i < len(ids)/2 {
				p.headers(id, true, "grpc-status", "0")
			} else {
				p.headers(id, true, append(answerHead, "grpc-status", "0")...)
			}
		}
		await(t, "the streams to end", func() bool { return g.metric("sluice_stream_open") == 0 && g.metric("sluice_rpc_open") == 0 })
		next += 2 * each
	}
	// Once beforehand: what fills HPACK's tables is the connections' and not the streams'.
	empty(fill())
	before := g.ask(order{Memory: true})
	ids := fill()
	open := g.ask(order{Memory: true})
	per := (int64(open.Heap) - int64(before.Heap)) / (conns * each)
	if per > 4<<10 {
		t.Errorf("an open silent stream takes %d bytes, both hops, want 4 KiB at most", per)
	}
	if more := open.Goroutines - before.Goroutines; more > 10 {
		t.Errorf("%d goroutines more for %d streams", more, conns*each)
	}

	empty(ids)
	// What is left is in pools and free lists, which a collection or two empty: it
	// need not take the minute that it may.
	var after report
	back := func() bool {
		after = g.ask(order{Memory: true})
		return after.Heap <= before.Heap*11/10 && after.Goroutines <= before.Goroutines+2
	}
	deadline := time.Now().Add(patience)
	for !back() && time.Now().Before(deadline) {
		<-time.After(100 * time.Millisecond)
	}
	t.Logf("%d bytes a stream; heap and stacks %d KiB before, %d KiB with the streams, %d KiB after; goroutines %d, %d, %d",
		per, before.Heap>>10, open.Heap>>10, after.Heap>>10, before.Goroutines, open.Goroutines, after.Goroutines)
	if after.Heap > before.Heap*11/10 {
		t.Errorf("%d KiB are in use after the streams, %d before", after.Heap>>10, before.Heap>>10)
	}
	if after.Goroutines > before.Goroutines*11/10 {
		t.Errorf("%d goroutines after the streams, %d before", after.Goroutines, before.Goroutines)
	}
}

// TestGatewayAllocatesLittle counts what one unary RPC and one frame of DATA cost,
// between a caller and a backend that allocate nothing themselves.
func TestGatewayAllocatesLittle(t *testing.T) {
	b, f := startFrugal(t)
	const rpcs = 2000
	f.run(rpcs, 1)
	perRPC := allocations(func() { f.run(rpcs, 1) }) / rpcs
	const frames = 20_000
	b.frames.Store(frames)
	f.run(1, 1)
	before := f.bytes
	perFrame := allocations(func() { f.run(1, 1) }) / frames
	if got := f.bytes - before; got != 105*(frames+1) {
		t.Errorf("%d bytes of DATA came, want %d", got, 105*(frames+1))
	}
	t.Logf("%.2f allocations per unary RPC, %.4f per DATA frame, over both hops", perRPC, perFrame)
	if perRPC > maxAllocsPerRPC {
		t.Errorf("a unary RPC allocates %.2f times, want %d at most", perRPC, maxAllocsPerRPC)
	}
	if perFrame > 0.05 {
		t.Errorf("a DATA frame allocates %.4f times, want none", perFrame)
	}
}

// maxAllocsPerRPC is for a unary RPC, over both hops.
const maxAllocsPerRPC = 15

// allocations counts those of f, in the whole process.
func allocations(f func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs - before.Mallocs)
}

// startFrugal runs a gateway between a caller and a backend that allocate nothing.
func startFrugal(t testing.TB) (*frugalBackend, *frugalCaller) {
	t.Helper()
	b := startFrugalBackend(t)
	// More small frames a second than a backend may send by default.
	g := startGateway(t, Config{Limits: h2.Limits{SmallData: 1 << 30}}, backendAt("a", b.addr), routeTo("a", "a"))
	return b, newFrugalCaller(t, g.address())
}

// BenchmarkGatewayUnaryAmongRoutes is what an RPC costs beside other routes: the same
// whatever their number.
func BenchmarkGatewayUnaryAmongRoutes(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			backend := startFrugalBackend(b)
			g := startGateway(b, Config{})
			set, own := manyRoutes(n), parse(b, backendAt("a", backend.addr), routeTo("a", "a"))
			set.Backends, set.GRPCRoutes = append(set.Backends, own.Backends...), append(set.GRPCRoutes, own.GRPCRoutes...)
			if err := g.Apply(set); err != nil {
				b.Fatal(err)
			}
			f := newFrugalCaller(b, g.address())
			f.run(1000, 20)
			b.ResetTimer()
			f.run(b.N, 20)
		})
	}
}

func BenchmarkGatewayUnary(b *testing.B) {
	_, f := startFrugal(b)
	f.run(100, 1)
	b.ReportAllocs()
	b.ResetTimer()
	perRPC := allocations(func() { f.run(b.N, 1) }) / float64(b.N)
	b.StopTimer()
	b.ReportMetric(perRPC, "allocs/rpc")
	if b.N >= 1000 && perRPC > maxAllocsPerRPC {
		b.Errorf("a unary RPC allocates %.2f times, want %d at most", perRPC, maxAllocsPerRPC)
	}
}

func BenchmarkGatewayDataFrame(b *testing.B) {
	backend, f := startFrugal(b)
	f.run(100, 1)
	backend.frames.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	perFrame := allocations(func() { f.run(1, 1) }) / float64(b.N)
	b.StopTimer()
	if b.N >= 10_000 && perFrame > 0.05 {
		b.Errorf("a DATA frame allocates %.4f times, want none", perFrame)
	}
}
