package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	shopv1 "sluice/demo/shop/v1"
)

const (
	// maxOpen bounds the RPCs of a load that are open at once. What would
	// start beyond it is left out: a stuck gateway must not fill the memory.
	maxOpen = 256

	// rpcTimeout is far above what an RPC over loopback takes.
	rpcTimeout = 5 * time.Second

	// tick is how often the load starts RPCs; several at a time when the
	// rate asks for it.
	tick = 10 * time.Millisecond

	// window is how many of the latest RPCs the quantiles look at.
	window = 1000
)

// Load calls the example service at a steady rate, the four kinds of RPC in
// turn, all over one connection: what is balanced is each RPC. With several gateways it
// is a client that knows their addresses: one connection to each, the RPCs in turn, and
// what breaks off because a gateway is gone is begun again at another.
type Load struct {
	conn  *grpc.ClientConn
	rate  float64 // RPCs per second
	tries int     // of one RPC; more than one with several gateways only
	open  chan struct{}

	mu       sync.Mutex // guards the fields below
	totals   Totals
	latest   [window]time.Duration // a ring
	recorded uint64                // durations ever written to latest
}

// Totals is what a load has seen so far.
type Totals struct {
	RPCs      uint64            // ended, with an error or without
	ByVersion map[string]uint64 // those that a version answered
	ByGateway map[string]uint64 // those that came back through a gateway, by its address
	Again     uint64            // tries beside the first
	Errors    uint64
	LastError error
	P99       time.Duration // over the latest 1000 RPCs
}

// maxTries is how often the RPC of a client with several gateways is begun: one of them
// may go, and one more in the same moment.
const maxTries = 3

// NewLoad prepares a load of rate RPCs per second on the gateways at these addresses
// (host:port) and connects to nothing yet.
func NewLoad(rate float64, targets ...string) (*Load, error) {
	addresses := manual.NewBuilderWithScheme("gateways")
	var state resolver.State
	for _, target := range targets {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: target})
	}
	addresses.InitialState(state)
	conn, err := grpc.NewClient("gateways:///demo", grpc.WithResolvers(addresses),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		return nil, fmt.Errorf("prepare demo load on %s: %w", strings.Join(targets, ", "), err)
	}
	l := &Load{
		conn:   conn,
		rate:   rate,
		tries:  1,
		open:   make(chan struct{}, maxOpen),
		totals: Totals{ByVersion: map[string]uint64{}, ByGateway: map[string]uint64{}},
	}
	if len(targets) > 1 {
		l.tries = maxTries
	}
	return l, nil
}

// Run starts RPCs until ctx is done, waits for those that are open, and
// closes the connection.
func (l *Load) Run(ctx context.Context) error {
	defer l.conn.Close()
	var open sync.WaitGroup
	defer open.Wait()

	// An RPC that has started is let finish: ending the load is no error.
	rpcCtx := context.WithoutCancel(ctx)
	client := shopv1.NewCartClient(l.conn)
	begin := time.Now()
	var started uint64
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		due := uint64(time.Since(begin).Seconds() * l.rate)
		for ; started < due; started++ {
			select {
			case l.open <- struct{}{}:
			default:
				continue
			}
			kind := kinds[started%uint64(len(kinds))]
			open.Go(func() {
				defer func() { <-l.open }()
				l.one(rpcCtx, client, kind)
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Totals returns what has been seen so far; the caller owns the result.
func (l *Load) Totals() Totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.totals
	t.ByVersion, t.ByGateway = maps.Clone(t.ByVersion), maps.Clone(t.ByGateway)
	t.P99 = quantile(l.latest[:min(l.recorded, window)], 0.99)
	return t
}

// call makes one RPC of one kind and returns the version that answered it.
type call func(context.Context, shopv1.CartClient, ...grpc.CallOption) (version string, err error)

var kinds = []call{get, fill, watch, scan}

func (l *Load) one(ctx context.Context, client shopv1.CartClient, kind call) {
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	begin := time.Now()
	var by peer.Peer
	for try := 1; ; try++ {
		version, err := kind(ctx, client, grpc.Peer(&by))
		if status.Code(err) == codes.Unavailable && try < l.tries {
			l.again()
			continue
		}
		l.record(version, by.Addr, err, time.Since(begin))
		return
	}
}

func (l *Load) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.totals.Again++
}

// record counts an RPC that has ended; gateway is nil when it found none.
func (l *Load) record(version string, gateway net.Addr, err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.totals.RPCs++
	if err != nil {
		l.totals.Errors++
		l.totals.LastError = err
	}
	if version != "" {
		l.totals.ByVersion[version]++
	}
	if gateway != nil {
		l.totals.ByGateway[gateway.String()]++
	}
	l.latest[l.recorded%window] = took
	l.recorded++
}

func get(ctx context.Context, client shopv1.CartClient, opts ...grpc.CallOption) (string, error) {
	reply, err := client.Get(ctx, &shopv1.GetRequest{Id: "1"}, opts...)
	return reply.GetServedBy(), err
}

func fill(ctx context.Context, client shopv1.CartClient, opts ...grpc.CallOption) (string, error) {
	stream, err := client.Fill(ctx, opts...)
	if err != nil {
		return "", err
	}
	for _, item := range shelf {
		// On io.EOF the reason is in the reply.
		if err := stream.Send(&shopv1.FillRequest{Item: item}); err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
	}
	reply, err := stream.CloseAndRecv()
	return reply.GetServedBy(), err
}

func watch(ctx context.Context, client shopv1.CartClient, opts ...grpc.CallOption) (string, error) {
	stream, err := client.Watch(ctx, &shopv1.WatchRequest{Id: "1"}, opts...)
	if err != nil {
		return "", err
	}
	return drain(stream.Recv)
}

func scan(ctx context.Context, client shopv1.CartClient, opts ...grpc.CallOption) (string, error) {
	stream, err := client.Scan(ctx, opts...)
	if err != nil {
		return "", err
	}
	for _, item := range shelf {
		if err := stream.Send(&shopv1.ScanRequest{Item: item}); err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return "", err
	}
	return drain(stream.Recv)
}

// drain reads a stream to its end and returns who served it.
func drain[M interface{ GetServedBy() string }](recv func() (M, error)) (version string, err error) {
	for {
		msg, err := recv()
		if errors.Is(err, io.EOF) {
			return version, nil
		}
		if err != nil {
			return version, err
		}
		version = msg.GetServedBy()
	}
}

// quantile returns the smallest value that at least the share q of values do
// not exceed, 0 when there are none.
func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}
