package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

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
// turn, all over one connection: what is balanced is each RPC.
type Load struct {
	conn *grpc.ClientConn
	rate float64 // RPCs per second
	open chan struct{}

	mu       sync.Mutex // guards the fields below
	totals   Totals
	latest   [window]time.Duration // a ring
	recorded uint64                // durations ever written to latest
}

// Totals is what a load has seen so far.
type Totals struct {
	RPCs      uint64            // ended, with an error or without
	ByVersion map[string]uint64 // those that a version answered
	Errors    uint64
	LastError error
	P99       time.Duration // over the latest 1000 RPCs
}

// NewLoad prepares a load of rate RPCs per second on target (host:port) and
// connects to nothing yet.
func NewLoad(target string, rate float64) (*Load, error) {
	conn, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("prepare demo load on %s: %w", target, err)
	}
	return &Load{
		conn:   conn,
		rate:   rate,
		open:   make(chan struct{}, maxOpen),
		totals: Totals{ByVersion: map[string]uint64{}},
	}, nil
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
	t.ByVersion = maps.Clone(t.ByVersion)
	t.P99 = quantile(l.latest[:min(l.recorded, window)], 0.99)
	return t
}

// call makes one RPC of one kind and returns the version that answered it.
type call func(context.Context, shopv1.CartClient) (version string, err error)

var kinds = []call{get, fill, watch, scan}

func (l *Load) one(ctx context.Context, client shopv1.CartClient, kind call) {
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	begin := time.Now()
	version, err := kind(ctx, client)
	l.record(version, err, time.Since(begin))
}

func (l *Load) record(version string, err error, took time.Duration) {
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
	l.latest[l.recorded%window] = took
	l.recorded++
}

func get(ctx context.Context, client shopv1.CartClient) (string, error) {
	reply, err := client.Get(ctx, &shopv1.GetRequest{Id: "1"})
	return reply.GetServedBy(), err
}

func fill(ctx context.Context, client shopv1.CartClient) (string, error) {
	stream, err := client.Fill(ctx)
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

func watch(ctx context.Context, client shopv1.CartClient) (string, error) {
	stream, err := client.Watch(ctx, &shopv1.WatchRequest{Id: "1"})
	if err != nil {
		return "", err
	}
	return drain(stream.Recv)
}

func scan(ctx context.Context, client shopv1.CartClient) (string, error) {
	stream, err := client.Scan(ctx)
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
