package hostile

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"sluice/gateway"
)

func TestA07TinyData(t *testing.T) {
	n := pick(20, 300)
	floods(t, nodeConfig{},
		flood{name: "data of a byte", piece: script{}.times(6000, script{}.data(1, false, []byte{0})), pieces: n, answered: true, reason: "tiny_data", cost: cut},
		flood{name: "data of a byte with padding", piece: script{}.times(3000, script{}.frame(http2.FrameData, http2.FlagDataPadded, 1, 9, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0)), pieces: n, answered: true, reason: "tiny_data", cost: cut},
	)
}

// Frames that hold a gRPC prefix and little more are allowed at an honest pace.
func TestA07SmallData(t *testing.T) {
	if raced {
		t.Skip("the race detector is slower than the allowance refills")
	}
	r := newRig(t, nodeConfig{})
	tr := r.begin("data of 5 bytes")
	p := r.dial(manners{})
	p.open(false, grpcHead(good, echo))
	p.flood(script{}.times(4000, script{}.data(1, false, []byte{0, 0, 0, 0, 0})), pick(300, 3000))
	tr.farewell(p, calm)
	tr.expect(closed("downstream", "small_data"), 1)
	tr.judge(cost{cpu: time.Minute})
}

// However small the frames, what waits for a stalled backend is no larger than the
// window, twice: once to send and once to send again.
func TestA07SmallDataToAStalledBackend(t *testing.T) {
	backend := settle(t)
	r := newRig(t, nodeConfig{}, backend)
	backend.become(manners{settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}}, nil)
	tr := r.begin("small data to a stalled backend")
	p := r.dial(manners{})
	const window = 64 << 10
	for range maxAtOnce {
		id := p.open(false, grpcHead(evil, hold))
		p.flood(script{}.times(655, script{}.data(id, false, make([]byte, 100))), 1)
	}
	p.write(script{}.ping())
	if !p.await(patience, func() bool { return p.acks > 0 }) {
		t.Errorf("connection ended: %v", tr.ended())
	}
	now := tr.read(t, "collected")
	if grown := now.Heap - tr.figures.Heap; grown > maxAtOnce*2*window+1<<20 {
		t.Errorf("heap grew by %d bytes, limit %d", grown, maxAtOnce*2*window)
	} else {
		t.Logf("heap grew by %.1f MiB for %.1f MiB of window", float64(grown)/(1<<20), float64(maxAtOnce*window)/(1<<20))
	}
	p.close()
	tr.judge(cost{memory: 32 << 20, cpu: time.Second})
}

// wide is a client that has promised to take everything.
func wide(m manners) manners {
	m.settings = append(m.settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxID})
	return m
}

// widen opens the connection's window as far as it goes.
func (p *peer) widen() { p.write(script{}.windowUpdate(0, maxID-65535)) }

// clog asks for more than the sockets hold, and takes none of it. It returns when
// the gateway is stuck.
func (r *rig) clog(streams int, bytes string) *peer {
	r.t.Helper()
	p := r.dial(wide(manners{deaf: true, receive: 4096}))
	p.widen()
	for range streams {
		p.open(true, grpcHead(good, blob, "blob-bytes", bytes))
	}
	if !eventually(patience, func() bool { return r.counters(r.t)["sluice_stream_queued_bytes"] > 0 }) {
		r.t.Error("nothing waits for a client that does not read")
	}
	return p
}

// Replies that wait for a client that does not read are counted together, whatever
// asked for them.
func TestA02RepliesThatWait(t *testing.T) {
	r := newRig(t, nodeConfig{})
	tr := r.begin("replies that wait")
	p := r.clog(1, "20000000")
	for range 6 {
		p.flood(script{}.times(100, script{}.ping()).times(100, script{}.settings()), 1)
	}
	tr.expect(closed("downstream", "queued_control"), 1)
	p.close()
	tr.judge(cost{})
}

// So are answers that the gateway, or a backend, makes to requests of a client
// that reads none of them.
func TestA02AnswersThatWait(t *testing.T) {
	r := newRig(t, nodeConfig{})
	for _, test := range []struct {
		name string
		head []byte
		rare bool // left out of short runs
	}{
		{"of no route", grpcHead("nobody.test", echo), false},
		{"of a bad path", grpcHead(good, "/a/b/c"), true},
		{"of a bad timeout", grpcHead(good, echo, "grpc-timeout", "soon"), true},
		{"of a handler", block(":method", "GET", ":scheme", "http", ":authority", good, ":path", "/"), false},
		{"of too much metadata", append(grpcHead(good, echo), bomb(150, "x", "1")...), true},
		{"of a backend", append(grpcHead(good, echo), bomb(80, "echo-large", strings.Repeat("v", 100))...), false},
	} {
		if test.rare && !*long {
			continue
		}
		tr := r.begin("answers " + test.name)
		p := r.dial(wide(manners{deaf: true, receive: 4096}))
		p.widen()
		id, cutOff := uint32(1), false
		for range pick(100, 1000) {
			var s script
			for range 1000 {
				s = s.headers(id, true, test.head)
				id += 2
			}
			if cutOff = p.write(s) != nil; cutOff {
				break
			}
		}
		if !cutOff {
			t.Errorf("%s: %d requests were taken and none was read", tr.name, id/2)
		}
		t.Logf("%s: cut off after %d requests", tr.name, id/2)
		// The bystander's backend is the one that answers, on the attacker's processor.
		tr.weigh(cost{memory: 16 << 20, late: 2 * time.Second})
		p.close()
		tr.recover()
	}
}

func TestA17WindowToAndFro(t *testing.T) {
	r := newRig(t, nodeConfig{})
	tr := r.begin("initial window to and fro, 100 streams waiting")
	p := r.dial(manners{settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1}}})
	for range maxAtOnce {
		p.open(true, grpcHead(good, blob, "blob-bytes", "1000000"))
	}
	p.await(patience, func() bool { return p.frames[http2.FrameData] >= maxAtOnce })
	piece := script{}.settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535}).
		settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	p.flood(script{}.times(100, piece), pick(100, 1000))
	tr.farewell(p, calm)
	tr.expectEither(closed("downstream", "settings"), closed("downstream", "queued_control"), 1)
	tr.judge(cost{cpu: 200 * time.Millisecond})
}

// Who takes less than 100 B/s of what waits is not waited for.
func TestA17Dribble(t *testing.T) {
	cfg := limits(func(c *gateway.Config) { c.Limits.RateWindow = pick(2*time.Second, time.Minute) })
	backend := settle(t)
	r := newRig(t, cfg, backend)

	tr := r.begin("clients that hardly read")
	silent := r.clog(10, "20000000")
	slow := r.clog(10, "20000000")
	stop := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				slow.nc.SetReadDeadline(time.Now().Add(time.Millisecond))
				slow.nc.Read(make([]byte, 1))
			}
		}
	})

	// And a backend that does the same to an upload.
	backend.become(wide(manners{deaf: true, receive: 4096}), func(p *peer) { p.write(script{}.settingsAck()); p.widen() })
	caller := r.dial(manners{generous: true})
	uploaded := make(chan answer, 1)
	work.Go(func() {
		id := caller.open(false, grpcHead(evil, hold))
		for n := 0; n < 1000 && caller.snapshot(id).wasReset == false; n++ {
			if !caller.send(id, message(16000)) {
				break
			}
		}
		uploaded <- caller.result(id, pick(patience, 2*time.Minute))
	})
	wait := pick(patience, 2*time.Minute)
	if !eventually(wait, func() bool {
		return tr.counters(t)[closed("downstream", "min_rate")]-tr.counted[closed("downstream", "min_rate")] >= 2
	}) {
		t.Errorf("clients that hardly read: %v, want two min_rate", tr.ended())
	}
	if !eventually(wait, func() bool {
		return tr.counters(t)[closed("upstream", "min_rate")]-tr.counted[closed("upstream", "min_rate")] >= 1
	}) {
		t.Errorf("backend that hardly reads: %v, want one min_rate", tr.ended())
	}
	if a := <-uploaded; a.status() != "14" {
		t.Errorf("the caller of the backend got %v, want status 14", &a)
	}
	close(stop)
	work.Wait()
	silent.close()
	slow.close()
	caller.close()
	backend.leave()
	tr.judge(cost{cpu: time.Second})
}

// send writes DATA as far as the stream's window goes, and waits for more. It is
// false when the stream has ended.
func (p *peer) send(id uint32, b []byte) bool {
	ok := p.await(patience, func() bool {
		a := p.at(id)
		return p.over || a.ended || a.wasReset || a.used+len(b) <= 65535+a.granted
	})
	p.mu.Lock()
	a := *p.at(id)
	p.at(id).used += len(b)
	p.mu.Unlock()
	if !ok || a.ended || a.wasReset {
		return false
	}
	return p.write(script{}.data(id, false, b)) == nil
}

// The windows are open and the socket is not read: what waits is bounded by what
// the backends may send.
func TestA18SlowReader(t *testing.T) {
	r := newRig(t, nodeConfig{})
	tr := r.begin("100 streams of 100 MiB, none read")
	p := r.clog(maxAtOnce, "104857600")
	<-time.After(pick(500*time.Millisecond, 30*time.Second))
	tr.weigh(cost{memory: 16 << 20, cpu: time.Minute})
	p.close()
	tr.recover()
}

// The same from a backend: what clients may send is all that waits for it.
func TestA18SlowBackend(t *testing.T) {
	backend := settle(t)
	r := newRig(t, nodeConfig{}, backend)
	tr := r.begin("uploads to a backend that does not read")
	backend.become(wide(manners{deaf: true, receive: 4096}), func(p *peer) { p.write(script{}.settingsAck()); p.widen() })
	for range 10 {
		p := r.dial(manners{})
		defer p.close()
		for range maxAtOnce {
			id := p.open(false, grpcHead(evil, hold))
			p.write(script{}.data(id, false, make([]byte, 32<<10)))
		}
	}
	<-time.After(pick(time.Second, 30*time.Second))
	// 1,000 streams of 32 KiB, once to send, once to send again.
	tr.weigh(cost{memory: 96 << 20, cpu: time.Minute})
	backend.leave()
}

// Requests that are given up have no window and no place among the streams: they
// must not pile up either before a backend that does not read.
func TestA18RequestsToAStuckBackend(t *testing.T) {
	backend := settle(t)
	r := newRig(t, nodeConfig{}, backend)
	tr := r.begin("requests with deadlines to a backend that does not read")
	backend.become(manners{deaf: true, receive: 4096}, func(p *peer) { p.write(script{}.settingsAck()) })
	p := r.dial(manners{})
	large := strings.Repeat("v", 1400) // too long for a table on its way
	head := field(grpcHead(evil, hold, "grpc-timeout", "1m"), remembered, "x-large", large)
	again := grpcHead(evil, hold, "grpc-timeout", "1m")
	for range 10 {
		head, again = append(head, 0x80|62), append(again, 0x80|62)
	}
	p.open(true, head)
	n := 1
	for end := time.Now().Add(pick(2*time.Second, 30*time.Second)); time.Now().Before(end); n++ {
		id := p.open(true, again)
		if n%50 == 0 {
			p.result(id, patience)
		}
	}
	t.Logf("%s: %d requests of %d bytes", tr.name, n, len(again))
	tr.weigh(cost{cpu: time.Minute})
	p.close()
	backend.leave()
	tr.recover()
}

// Windows grow as long as the far side keeps up and the process has room for it, all
// streams together.
func TestA18WindowsGrowWithinTheBudget(t *testing.T) {
	const budget = 2 << 20
	r := newRigHere(t, limits(func(c *gateway.Config) { c.Limits.WindowBudget = budget }))
	p := r.dial(manners{generous: true})
	ids := make([]uint32, 20)
	for i := range ids {
		ids[i] = p.open(false, grpcHead(good, echo))
	}
	for range 100 {
		for _, id := range ids {
			if !p.send(id, message(16000)) {
				t.Fatalf("an upload ended: %v", p.snapshot(id))
			}
		}
	}
	grown := 0
	for _, id := range ids {
		a := p.snapshot(id)
		grown += max(0, a.granted-a.used)
	}
	if grown > budget || grown == 0 {
		t.Errorf("windows grew by %d bytes together, want some and at most %d", grown, budget)
	}
	t.Logf("windows grew by %d bytes together, limit %d", grown, budget)
}

// Beyond its budget for what waits the process ends the streams that hold most.
func TestA18QueuesWithinTheBudget(t *testing.T) {
	const budget = 2 << 20
	r := newRig(t, limits(func(c *gateway.Config) { c.Limits.QueueBudget = budget }))
	tr := r.begin("more waits than there is room for")
	for range 5 {
		p := r.dial(manners{settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}})
		defer p.close()
		for range maxAtOnce {
			p.open(true, grpcHead(good, blob, "blob-bytes", "65536"))
		}
	}
	tr.expect(rejected("downstream", "overload"), 1)
	if !eventually(patience, func() bool { return tr.counters(t)["sluice_stream_queued_bytes"] <= budget }) {
		t.Errorf("%v bytes wait, limit %d", tr.counters(t)["sluice_stream_queued_bytes"], budget)
	}
	tr.weigh(cost{memory: 32 << 20, cpu: time.Minute})
}

// 2,000 streams of 64 KB that nobody takes, as in FAULTS 1.1a: 16 KiB of each wait,
// and, where the sockets took the first of them, what those streams' windows grew
// by until they were full.
func TestStalledStreamsOfManyClients(t *testing.T) {
	clients := 20
	if raced {
		clients = 3
	}
	for _, test := range []struct {
		name   string
		m      manners
		memory int64
	}{
		{"no credit", manners{settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}}, 42e6},
		{"TCP not read", wide(manners{deaf: true, receive: 4096}), 64e6},
	} {
		r := newRig(t, nodeConfig{})
		tr := r.begin("2,000 streams of 64 KB, " + test.name)
		for range clients {
			p := r.dial(test.m)
			defer p.close()
			if test.m.deaf {
				p.widen()
			}
			for range maxAtOnce {
				p.open(true, grpcHead(good, blob, "blob-bytes", "65536"))
			}
		}
		if !eventually(patience, func() bool { return tr.counters(t)["sluice_stream_queued_bytes"] > float64(clients<<20) }) {
			t.Errorf("%s: too little waits: %v bytes", tr.name, tr.counters(t)["sluice_stream_queued_bytes"])
		}
		stalled := time.Now()
		<-time.After(pick(time.Second, 30*time.Second))
		c := r.counters(t)
		now := tr.read(t, "figures")
		t.Logf("%s: %v streams open, %.1f MB wait; %.1f MB more memory, at most %.1f MB; bystander: %v", tr.name,
			c[`sluice_stream_open{side="downstream"}`], c["sluice_stream_queued_bytes"]/1e6,
			float64(now.Memory-tr.figures.Memory)/1e6, float64(now.Peak-tr.figures.Memory)/1e6, r.probe.between(stalled, time.Now()))
		tr.weigh(cost{memory: test.memory, cpu: time.Minute})
	}
}

// Both hops have small sockets and all of them are full, in both directions: what
// each side waits for is sent by the other, so nothing may wait for ever.
func TestA24MutualBackpressure(t *testing.T) {
	narrowed := func(_, _ string, raw syscall.RawConn) error {
		var err error
		ctl := raw.Control(func(fd uintptr) {
			for _, option := range []int{syscall.SO_SNDBUF, syscall.SO_RCVBUF} {
				if e := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, option, 64<<10); e != nil {
					err = e
				}
			}
		})
		if ctl != nil {
			return ctl
		}
		return err
	}
	lc := net.ListenConfig{Control: narrowed}
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, honest: startHonest(t, l)}
	r.start(nodeConfig{}, nil, startApart)
	dialer := net.Dialer{Control: narrowed}
	const conns = 6
	rpcs := 512
	if raced {
		rpcs = 64
	}
	var clients []*grpc.ClientConn
	for range conns {
		cc, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(good),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) }))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		clients = append(clients, cc)
	}
	ctx, cancel := context.WithTimeout(t.Context(), pick(2*time.Second, time.Minute))
	defer cancel()
	var messages, stalls atomic.Int64
	var worst atomic.Int64
	var work sync.WaitGroup
	body := make([]byte, 20_000)
	rand.Read(body)
	for i := range rpcs {
		work.Go(func() {
			s, err := clients[i%conns].NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, echo, grpc.ForceCodec(bytesCodec{}))
			if err != nil {
				return
			}
			var last atomic.Int64
			last.Store(time.Now().UnixNano())
			work.Go(func() {
				for s.SendMsg(&body) == nil {
				}
			})
			for {
				var m []byte
				if err := s.RecvMsg(&m); err != nil {
					// The gateway may find a moment before us that the time is over.
					if err != io.EOF && ctx.Err() == nil && status.Code(err) != codes.DeadlineExceeded {
						t.Errorf("stream %d: %v", i, err)
					}
					return
				}
				now := time.Now().UnixNano()
				gap := now - last.Swap(now)
				worst.Store(max(worst.Load(), gap))
				if gap > int64(pick(2*time.Second, 3*time.Second)) {
					stalls.Add(1)
				}
				messages.Add(1)
			}
		})
	}
	work.Wait()
	t.Logf("%d messages of 20 KB both ways on %d streams, the longest wait of one stream %v", messages.Load(), rpcs, time.Duration(worst.Load()))
	if stalls.Load() > 0 || messages.Load() < int64(rpcs) {
		t.Errorf("%d stalls, %d messages, want 0 and at least one each", stalls.Load(), messages.Load())
	}
}
