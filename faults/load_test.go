package faults

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// load is callers who begin RPCs at a steady rate, whatever becomes of those before.
type load struct {
	rate     int           // RPCs a second, of all callers together
	conns    int           // callers, each on a connection of its own
	deadline time.Duration // of each RPC
	size     int           // bytes of each answer, beside the nonce
}

// The load of a scenario that says nothing else.
const (
	defaultConns    = 200
	shortConns      = 20
	defaultDeadline = 5 * time.Second
	maxOpen         = 50_000 // RPCs at once; a load that reaches it is invalid
)

func connsOf() int {
	if long {
		return defaultConns
	}
	return shortConns
}

// running is a load that is going on.
type running struct {
	t       *testing.T
	load    load
	clients []*client
	begin   time.Time
	ends    chan struct{}
	paced   sync.WaitGroup
	open    atomic.Int64
	rpcs    sync.WaitGroup
	left    int // RPCs that were not begun because maxOpen were; after paced
}

// client is one caller.
type client struct {
	conn   *grpc.ClientConn
	stub   pb.TestServiceClient
	resent atomic.Int64 // tries that grpc-go made by itself

	mu   sync.Mutex
	rpcs []rpc
}

// rpc is what one RPC came to. Times count from the load's begin.
type rpc struct {
	due  time.Duration // when it was to begin
	took time.Duration // from due to its end
	code codes.Code
	by   string // the backend's name, when the code is OK
	fault
}

// fault is what is wrong with an RPC beside its code.
type fault struct {
	wrong bool   // somebody else's answer, or a torn one
	text  string // the error's
}

// newClients opens connections, all of them ready: of each client one to the gateway, or
// one to each of several, which take turns.
func newClients(t *testing.T, addresses []string, n int) []*client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	clients := make([]*client, n)
	for i := range clients {
		c := &client{}
		target, options := targetOf(addresses)
		conn, err := grpc.NewClient(target, append(options,
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0),
			grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithStatsHandler(retryCounter{&c.resent}))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.Connect()
		c.conn, c.stub = conn, pb.NewTestServiceClient(conn)
		clients[i] = c
	}
	for _, c := range clients {
		for s := c.conn.GetState(); s != connectivity.Ready; s = c.conn.GetState() {
			if !c.conn.WaitForStateChange(ctx, s) {
				t.Fatalf("a connection to the gateway is %v after %v", s, patience)
			}
		}
	}
	return clients
}

// targetOf is how a client finds the gateways.
func targetOf(addresses []string) (target string, options []grpc.DialOption) {
	if len(addresses) == 1 {
		return "passthrough:///" + addresses[0], nil
	}
	known := manual.NewBuilderWithScheme("gateways")
	var state resolver.State
	for _, address := range addresses {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
	}
	known.InitialState(state)
	return "gateways:///", []grpc.DialOption{
		grpc.WithResolvers(known), grpc.WithAuthority("gateways"), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
	}
}

// retryCounter counts what a client would hide: streams that the gateway refused and
// that grpc-go sent again.
type retryCounter struct{ resent *atomic.Int64 }

func (r retryCounter) HandleRPC(_ context.Context, s stats.RPCStats) {
	if begin, ok := s.(*stats.Begin); ok && begin.IsTransparentRetryAttempt {
		r.resent.Add(1)
	}
}

func (retryCounter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (retryCounter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (retryCounter) HandleConn(context.Context, stats.ConnStats)                       {}

// begin opens the connections and starts the load; callers of several gateways go to
// each in turn, as far as they reach it.
func (l load) begin(t *testing.T, gateways ...*gateway) *running {
	t.Helper()
	var addresses []string
	for _, g := range gateways {
		addresses = append(addresses, g.address)
	}
	if l.conns == 0 {
		l.conns = connsOf()
	}
	if l.deadline == 0 {
		l.deadline = defaultDeadline
	}
	r := &running{t: t, load: l, clients: newClients(t, addresses, l.conns), ends: make(chan struct{})}
	r.begin = time.Now()
	r.paced.Go(r.pace)
	t.Cleanup(func() { r.stop() })
	return r
}

// pace begins the RPCs that are due, each millisecond.
func (r *running) pace() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-r.ends:
			return
		case <-tick.C:
		}
		for due := int(time.Since(r.begin).Seconds() * float64(r.load.rate)); n < due; n++ {
			if r.open.Load() >= maxOpen {
				r.left++
				continue
			}
			r.open.Add(1)
			c, number, at := r.clients[n%len(r.clients)], uint64(n), time.Duration(float64(n)/float64(r.load.rate)*1e9)
			r.rpcs.Go(func() {
				defer r.open.Add(-1)
				c.call(r, number, at)
			})
		}
	}
}

func (c *client) call(r *running, number uint64, due time.Duration) {
	ctx, cancel := context.WithDeadline(context.Background(), r.begin.Add(due+r.load.deadline))
	defer cancel()
	nonce := newNonce(number)
	response, err := c.stub.UnaryCall(ctx, &pb.SimpleRequest{Payload: &pb.Payload{Body: nonce}, ResponseSize: int32(r.load.size)})
	done := rpc{due: due, took: time.Since(r.begin) - due, code: status.Code(err), by: response.GetServerId()}
	switch {
	case err != nil:
		done.text = err.Error()
	case !bytes.Equal(response.GetPayload().GetBody(), answerTo(nonce, r.load.size)):
		done.wrong, done.text = true, fmt.Sprintf("answer of %d bytes to another request", len(response.GetPayload().GetBody()))
	}
	c.mu.Lock()
	c.rpcs = append(c.rpcs, done)
	c.mu.Unlock()
}

// newNonce is 16 bytes that no other RPC has.
func newNonce(number uint64) []byte {
	nonce := binary.BigEndian.AppendUint64(nil, number)
	return binary.BigEndian.AppendUint64(nonce, rand.Uint64())
}

// now is the time on the load's clock.
func (r *running) now() time.Duration { return time.Since(r.begin) }

// reach lets the load go on until it has begun so many RPCs; in a short run it returns
// at once.
func (r *running) reach(rpcs int) {
	if long {
		wait(time.Duration(float64(rpcs)/float64(r.load.rate)*float64(time.Second)) - r.now())
	}
}

// stop ends the load, waits for what is open, and returns all that callers saw.
func (r *running) stop() *seen {
	select {
	case <-r.ends:
	default:
		close(r.ends)
	}
	r.paced.Wait()
	lasted := r.now()
	r.rpcs.Wait()
	s := r.soFar()
	s.lasted, s.left = lasted, r.left
	return s
}

// soFar is what callers have seen until now.
func (r *running) soFar() *seen {
	s := &seen{rate: r.load.rate, lasted: r.now()}
	for _, c := range r.clients {
		c.mu.Lock()
		s.rpcs = append(s.rpcs, c.rpcs...)
		c.mu.Unlock()
		s.resent += int(c.resent.Load())
	}
	return s
}

// awaitRPC waits until the backend of that name has answered an RPC that was due after
// the time, and returns when that was.
func (r *running) awaitRPC(name string, after, within time.Duration) time.Duration {
	r.t.Helper()
	var at time.Duration
	eventually(r.t, within, name+" answers", func() bool {
		for _, c := range r.clients {
			if due, ok := c.latest(name); ok && due >= after {
				at = due
				return true
			}
		}
		return false
	})
	return at
}

// latest is when the last RPC was due of which that backend is known to have answered.
func (c *client) latest(name string) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.rpcs) - 1; i >= 0; i-- {
		if c.rpcs[i].by == name {
			return c.rpcs[i].due, true
		}
	}
	return 0, false
}
