package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	adminv1 "sluice/admin/v1"
	"sluice/demo"
)

// maxDemoNodes is how many gateways a small machine has room for beside a load.
const maxDemoNodes = 5

// clusterDemo is an example of several gateways that know each other: two versions of a
// service, a client that knows all gateways, and a story of a split and a crash.
type clusterDemo struct {
	// Fixed at construction.
	opts     demoOptions
	dir      string
	gateways []*demoGateway
	backends *demo.Backends

	load *demo.Load // fixed when the gateways have started
	out  *lines
}

// lines is a writer of several goroutines, each Write a piece of its own.
type lines struct {
	mu sync.Mutex // held while one writes
	w  io.Writer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// runClusterDemo builds the example from the bottom up and runs it until ctx is done or
// its time is over. It fails when an RPC of its load did.
func runClusterDemo(ctx context.Context, opts demoOptions, stdout io.Writer) error {
	dir, err := os.MkdirTemp("", "sluice-demo-")
	if err != nil {
		return fmt.Errorf("%w; choose another directory with the variable TMPDIR", err)
	}
	defer os.RemoveAll(dir)
	d := &clusterDemo{opts: opts, dir: dir, out: &lines{w: stdout}}
	if d.backends, err = demo.NewBackends(demoVersions...); err != nil {
		return err
	}
	listen, admin := opts.listen, opts.admin
	for i := range opts.nodes {
		d.gateways = append(d.gateways, newDemoGateway(dir, i+1, listen, admin))
		listen, admin = "127.0.0.1:0", "127.0.0.1:0" // only the first has ports of its own
	}
	if opts.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opts.duration)
		defer cancel()
	}
	err = d.run(ctx)
	if errors.Is(err, syscall.EPIPE) { // whoever read the output has seen enough
		return nil
	}
	if err != nil || d.load == nil { // or it was ended before it began
		return err
	}
	return d.conclude()
}

// run runs everything until ctx is done and ends it in the order of the RPCs: the load
// first, then the gateways, the backends last.
func (d *clusterDemo) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	backendsCtx, endBackends := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return d.backends.Run(backendsCtx) })
	g.Go(func() error {
		defer endBackends()
		return errors.Join(d.serve(ctx), d.end())
	})
	return g.Wait()
}

// serve starts the gateways, has them agree on where the service is, and lets the load
// and the story run until ctx is done.
func (d *clusterDemo) serve(ctx context.Context) error {
	if err := d.start(ctx); err != nil {
		return d.unlessOver(ctx, err)
	}
	var addresses []string
	for _, g := range d.gateways {
		addresses = append(addresses, g.address())
	}
	var err error
	if d.load, err = demo.NewLoad(d.opts.rate, addresses...); err != nil {
		return err
	}
	if err := d.introduce(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.load.Run(ctx) })
	g.Go(func() error { return d.narrate(ctx) })
	g.Go(func() error { return d.unlessOver(ctx, d.tell(ctx)) })
	return g.Wait()
}

// unlessOver leaves out an error that came of the end.
func (d *clusterDemo) unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// start starts the gateways, all but the first joining it, and declares the service at
// the first: it is done when all obey.
func (d *clusterDemo) start(ctx context.Context) error {
	first := d.gateways[0]
	if err := first.start(ctx); err != nil {
		return err
	}
	gossip, err := first.gossip(ctx)
	if err != nil {
		return err
	}
	for _, g := range d.gateways[1:] {
		if err := g.start(ctx, gossip); err != nil {
			return err
		}
	}
	if err := d.awaitAgreement(ctx); err != nil {
		return err
	}
	_, err = first.resources.Apply(ctx, connect.NewRequest(&adminv1.ApplyRequest{
		Text: string(d.backends.Resources(100, 0)), Reason: "the demo begins", Wait: adminv1.Wait_WAIT_ALL,
	}))
	return err
}

// end lets the gateways that run come to their end.
func (d *clusterDemo) end() error {
	var g errgroup.Group
	for _, gateway := range d.gateways {
		g.Go(gateway.end)
	}
	return g.Wait()
}
