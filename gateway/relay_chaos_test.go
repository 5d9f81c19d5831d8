package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// chaos is a backend that answers, fails, refuses, resets, goes away or says nothing, at
// random. An answer is the request's body.
type chaos struct {
	addr string
	work sync.WaitGroup
	acts atomic.Int64

	mu  sync.Mutex // guards rng
	rng *rand.Rand
}

func startChaos(t testing.TB, seed uint64) *chaos {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &chaos{addr: l.Addr().String(), rng: rand.New(rand.NewPCG(seed, 1))}
	c.work.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			c.work.Go(func() { (&chaosConn{c: c, nc: nc, bodies: make(map[uint32][]byte)}).serve() })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.work.Wait()
	})
	return c
}

func (c *chaos) roll(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.IntN(n)
}

// chaosConn is one connection to it.
type chaosConn struct {
	c      *chaos
	nc     net.Conn
	bodies map[uint32][]byte // of requests that have not ended; the reader's

	mu    sync.Mutex // guards the fields below, and writing
	fr    *http2.Framer
	enc   *hpack.Encoder
	block bytes.Buffer
}

func (c *chaosConn) serve() {
	defer c.nc.Close()
	if _, err := io.ReadFull(c.nc, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	c.fr = http2.NewFramer(c.nc, c.nc)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.block)
	c.locked(func() {
		c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		c.fr.WriteWindowUpdate(0, 1<<30)
	})
	for {
		f, err := c.fr.ReadFrame()
		if err != nil {
			return
		}
		id := f.Header().StreamID
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.locked(func() { c.fr.WriteSettingsAck() })
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.locked(func() { c.fr.WritePing(true, f.Data) })
			}
		case *http2.MetaHeadersFrame:
			if c.c.roll(100) < 5 {
				c.locked(func() { c.fr.WriteRSTStream(id, http2.ErrCodeRefusedStream) })
				continue
			}
			c.bodies[id] = []byte{}
			if f.StreamEnded() {
				c.act(id)
			}
		case *http2.DataFrame:
			if c.bodies[id] == nil {
				continue
			}
			c.bodies[id] = append(c.bodies[id], f.Data()...)
			if f.StreamEnded() {
				c.act(id)
			} else if c.c.roll(100) < 3 {
				delete(c.bodies, id)
				c.status(id, "14")
			}
		case *http2.RSTStreamFrame:
			delete(c.bodies, id)
		}
	}
}

func (c *chaosConn) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *chaosConn) headers(id uint32, end bool, pairs ...string) {
	c.locked(func() {
		c.block.Reset()
		for i := 0; i < len(pairs); i += 2 {
			c.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
		}
		c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndStream: end, EndHeaders: true})
	})
}

func (c *chaosConn) status(id uint32, code string) {
	c.headers(id, true, append(answerHead, "grpc-status", code)...)
}

func (c *chaosConn) reply(id uint32, body []byte, pause time.Duration) {
	c.c.work.Go(func() {
		paused(pause)
		c.headers(id, false, answerHead...)
		paused(pause / 2)
		c.locked(func() { c.fr.WriteData(id, false, body) })
		c.headers(id, true, "grpc-status", "0")
	})
}

// answerTo is the one message that answers a request: the beginning of what its messages
// say. It fits the window.
func answerTo(body []byte) []byte {
	var said []byte
	for len(body) >= 5 {
		n := 5 + int(binary.BigEndian.Uint32(body[1:]))
		if n > len(body) {
			break // the request was cut short
		}
		said = append(said, body[5:n]...)
		body = body[n:]
	}
	return message(excerpt(said))
}

func excerpt(p []byte) []byte { return p[:min(len(p), 9000)] }

// act answers a request that is complete.
func (c *chaosConn) act(id uint32) {
	c.c.acts.Add(1)
	body := answerTo(c.bodies[id])
	delete(c.bodies, id)
	short := time.Duration(c.c.roll(15)) * time.Millisecond
	switch n := c.c.roll(100); {
	case n < 50:
		c.reply(id, body, 0)
	case n < 60:
		c.reply(id, body, short)
	case n < 68:
		c.status(id, "14")
	case n < 70:
		c.headers(id, true, append(answerHead, "grpc-status", "14", "grpc-retry-pushback-ms", fmt.Sprint(c.c.roll(30)-3))...)
	case n < 77:
		c.c.work.Go(func() {
			c.headers(id, false, answerHead...)
			paused(short)
			c.headers(id, true, "grpc-status", "14")
		})
	case n < 81:
		c.locked(func() { c.fr.WriteRSTStream(id, http2.ErrCodeRefusedStream) })
	case n < 84:
		c.locked(func() { c.fr.WriteRSTStream(id, http2.ErrCodeInternal) })
	case n < 86:
		c.locked(func() { c.fr.WriteRSTStream(id, http2.ErrCodeCancel) })
	case n < 88:
		c.headers(id, true, ":status", "503", "content-type", "text/html")
	case n < 90:
		c.headers(id, false, answerHead...)
		c.locked(func() {
			c.fr.WriteData(id, false, body[:min(4, len(body))])
			c.fr.WriteRSTStream(id, http2.ErrCodeInternal)
		})
	case n < 93:
		c.headers(id, false, ":status", "103")
		c.reply(id, body, short)
	case n < 94:
		c.locked(func() { c.fr.WriteGoAway(id-min(id, 2), http2.ErrCodeNo, nil) })
	case n < 95:
		c.nc.Close()
	case n < 96:
		c.headers(id, true, answerHead...)
	} // else nothing at all
}

// TestRelayKeepsItsBooksInChaos: whatever backends do and callers give up, each RPC ends
// once, a good answer is the answer to its own request, and nothing is left of any.
func TestRelayKeepsItsBooksInChaos(t *testing.T) {
	const proto = `syntax = "proto3";
package shop;
service Cart { rpc Get(Ask) returns (Ask) { option idempotency_level = NO_SIDE_EFFECTS; } }
message Ask {}
`
	policies := []struct{ name, spec, method string }{
		{"retries", "retry: {attempts: 3, codes: [UNAVAILABLE, INTERNAL, CANCELLED], perTryTimeout: 40ms, backoff: {base: 2ms, max: 10ms}}" + unlimited, "/shop.Cart/Unknown"},
		{"retries of unary methods", "retry: {attempts: 2, codes: [UNAVAILABLE], backoff: {base: 1ms, max: 5ms}}\ntimeouts: {request: 300ms, default: 250ms}" + unlimited, "/shop.Cart/Get"},
		{"hedges", "hedging: {attempts: 2, delay: 5ms}" + unlimited, "/shop.Cart/Get"},
		{"defaults", "timeouts: {default: 200ms, streamIdle: 20ms, streamMaxAge: 100ms}", "/shop.Cart/Get"},
		{"streams", "timeouts: {request: 100ms, streamIdle: 8ms, streamMaxAge: 20ms}\nretry: {attempts: 1, codes: [UNAVAILABLE]}", "/shop.Cart/Unknown"},
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rpcs, longest := 600, 400
	if raceEnabled {
		rpcs, longest = 250, 2000
	}
	for i, policy := range policies {
		t.Run(policy.name, func(t *testing.T) {
			t.Parallel()
			var backends []*chaos
			var addrs []string
			for j := range 4 {
				c := startChaos(t, seed+uint64(10*i+j))
				backends, addrs = append(backends, c), append(addrs, c.addr)
			}
			g := startTreated(t, Config{}, policy.spec, schemaOf(t, proto), backendWith("a", "outlierDetection: {ejectFor: 100ms, maxEjectFor: 100ms}", addrs...), routeTo("r", "a"))
			conns := []*grpc.ClientConn{dial(t, g.address()), dial(t, g.address())}
			var good, bad atomic.Int64
			each(rpcs, 16, func(n int) {
				rng := rand.New(rand.NewPCG(seed, uint64(n)))
				body := pattern(n, []int{20, 2000, 40_000, 90_000}[rng.IntN(4)])
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(5+rng.IntN(longest))*time.Millisecond)
				defer cancel()
				if rng.IntN(10) == 0 {
					time.AfterFunc(time.Duration(rng.IntN(30))*time.Millisecond, cancel)
				}
				var got []byte
				var err error
				switch rng.IntN(4) {
				case 0:
					got, err = callByWeb(ctx, g.address(), policy.method, body)
				case 1:
					got, err = streamOnce(ctx, conns[n%2], policy.method, body, rng)
				default:
					got, err = invoke(ctx, conns[n%2], policy.method, body)
				}
				if err != nil {
					bad.Add(1)
					if status.Code(err) == codes.Internal && bytes.Contains([]byte(err.Error()), []byte("broke the protocol")) {
						t.Errorf("RPC %d: %v", n, err)
					}
					return
				}
				good.Add(1)
				if !bytes.Equal(got, excerpt(body)) {
					t.Errorf("RPC %d got %d bytes of another's, or fewer than its %d", n, len(got), len(body))
				}
			})
			var acts int64
			for _, c := range backends {
				acts += c.acts.Load()
			}
			t.Logf("%d good, %d bad, %d requests at backends", good.Load(), bad.Load(), acts)
			if good.Load() < int64(rpcs)/20 {
				t.Errorf("%d of %d RPCs ended well: nothing was tested", good.Load(), rpcs)
			}
			await(t, "nothing to be left", func() bool {
				m := g.scrape(t)
				return sample(t, m, "sluice_rpc_started_total") == sample(t, m, "sluice_rpc_ended_total") &&
					sample(t, m, "sluice_rpc_open") == 0 && sample(t, m, "sluice_endpoint_active") == 0 &&
					sample(t, m, "sluice_rpc_kept_bytes") == 0 && sample(t, m, "sluice_stream_queued_bytes") == 0
			})
		})
	}
}

// callByWeb makes an RPC by gRPC-Web over HTTP/1.
func callByWeb(ctx context.Context, addr, method string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, "POST", "http://"+addr+method, bytes.NewReader(message(body)))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/grpc-web+proto")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	n := len(message(excerpt(body)))
	if len(all) < n || !bytes.Contains(all[n:], []byte("grpc-status: 0")) && !bytes.Contains(all[n:], []byte("grpc-status:0")) {
		return nil, fmt.Errorf("not answered: %d bytes, %v", len(all), resp.Header)
	}
	return all[5:n], nil
}

// streamOnce makes the same RPC as a stream of two halves.
func streamOnce(ctx context.Context, cc *grpc.ClientConn, method string, body []byte, rng *rand.Rand) (got []byte, err error) {
	st, err := cc.NewStream(ctx, bidi, method)
	if err != nil {
		return nil, err
	}
	cut := rng.IntN(len(body))
	for _, part := range [][]byte{body[:cut], body[cut:]} {
		if err := st.SendMsg(&part); err != nil && err != io.EOF {
			return nil, err
		}
		paused(time.Duration(rng.IntN(10)) * time.Millisecond)
	}
	if err := st.CloseSend(); err != nil {
		return nil, err
	}
	for {
		var m []byte
		switch err := st.RecvMsg(&m); err {
		case nil:
			got = append(got, m...)
		case io.EOF:
			return got, nil
		default:
			return nil, err
		}
	}
}
