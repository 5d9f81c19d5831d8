package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sluice/demo"
)

// demoVersions and demoWeights are the canary split that the demo shows.
var (
	demoVersions = []string{"v1", "v2"}
	demoWeights  = []int{90, 10}
)

// maxDemoRate is what the demo's load can do beside everything else on a
// small machine; it is an example, not a benchmark.
const maxDemoRate = 2000

// demoOptions are the flags of the demo.
type demoOptions struct {
	listen, admin string
	nodes         int           // gateways; more than one are processes of their own
	rate          float64       // RPCs per second; zero means no load
	duration      time.Duration // zero means until it is interrupted
}

func demoCommand() *cobra.Command {
	var opts demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run an example: a service in two versions, a gateway, and a load",
		Long: `Run an example until it is interrupted: a gRPC service in two versions, a
gateway that gives 90 % of the RPCs to one and 10 % to the other, and a small
load. It uses the loopback interface only and leaves no file behind.

With --nodes 3 it is three gateways that know each other by gossip, each a
process of its own: a split is changed at one and obeyed by all, one is killed
(kill -9) and comes back, and no RPC fails.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.rate < 0 || opts.rate > maxDemoRate {
				return usageErrorf("--rate %g: want 0 to %d RPCs per second", opts.rate, maxDemoRate)
			}
			if opts.nodes < 1 || opts.nodes > maxDemoNodes {
				return usageErrorf("--nodes %d: want 1 to %d gateways", opts.nodes, maxDemoNodes)
			}
			if opts.duration < 0 {
				return usageErrorf("--duration %s: want no negative time", opts.duration)
			}
			// A terminal that closes, or a reader of the output that goes away,
			// must not leave files behind. The error of the write ends the demo then:
			// the signal comes of any pipe and connection, also to a gateway that is gone.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
			defer stop()
			unheard := make(chan os.Signal, 1)
			signal.Notify(unheard, syscall.SIGPIPE)
			defer signal.Stop(unheard)
			if opts.nodes > 1 {
				return runClusterDemo(ctx, opts, cmd.OutOrStdout())
			}
			return runDemo(ctx, opts, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&opts.listen, "listen", "127.0.0.1:8080", "`address` of the one port, of the first gateway")
	cmd.Flags().StringVar(&opts.admin, "admin", defaultAdmin, "`address` of health and metrics, of the first gateway")
	cmd.Flags().IntVar(&opts.nodes, "nodes", 1, "`number` of gateways")
	cmd.Flags().Float64Var(&opts.rate, "rate", 50, "`RPCs` per second of the load, 0 for none")
	cmd.Flags().DurationVar(&opts.duration, "duration", 0, "end after this `time`; 0 runs until Ctrl-C")
	return cmd
}

// runDemo builds the example from the bottom up and runs it until ctx is done
// or its time is over. It fails when an RPC of its load did.
func runDemo(ctx context.Context, opts demoOptions, stdout, stderr io.Writer) error {
	dir, err := os.MkdirTemp("", "sluice-demo-")
	if err != nil {
		return fmt.Errorf("%w; choose another directory with the variable TMPDIR", err)
	}
	defer os.RemoveAll(dir)

	backends, err := demo.NewBackends(demoVersions...)
	if err != nil {
		return err
	}
	defer backends.Close()

	file := filepath.Join(dir, "resources.yaml")
	if err := os.WriteFile(file, backends.Resources(demoWeights...), 0o600); err != nil {
		return err
	}
	cfg := &config{
		dataDir:   filepath.Join(dir, "data"),
		listen:    opts.listen,
		admin:     opts.admin,
		resources: []string{file},
		grace:     time.Second,
		logFormat: "text",
	}
	if err := cfg.validate(); err != nil {
		return usageError{err}
	}
	node, err := newNode(cfg, cfg.logger(stderr, slog.LevelWarn))
	if err != nil {
		return err
	}
	load, err := demo.NewLoad(opts.rate, reachable(node.gateway.Addr()))
	if err != nil {
		return err
	}
	if opts.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opts.duration)
		defer cancel()
	}
	if err := introduce(stdout, node, backends, cfg.dataDir); err != nil {
		return err
	}
	err = runParts(ctx, backends, node, load, stdout)
	if errors.Is(err, syscall.EPIPE) { // whoever read the output has seen enough
		return nil
	}
	if err != nil {
		return err
	}
	return conclude(stdout, load.Totals())
}

// runParts runs everything until ctx is done and ends it in the order of the
// RPCs: the load first, then the gateway, the backends last.
func runParts(ctx context.Context, backends *demo.Backends, node *node, load *demo.Load, stdout io.Writer) error {
	g, ctx := errgroup.WithContext(ctx)
	nodeCtx, endNode := context.WithCancel(context.WithoutCancel(ctx))
	defer endNode()
	backendsCtx, endBackends := context.WithCancel(context.WithoutCancel(ctx))
	defer endBackends()

	g.Go(func() error { return backends.Run(backendsCtx) })
	g.Go(func() error {
		defer endBackends()
		return node.Run(nodeCtx)
	})
	g.Go(func() error {
		defer endNode()
		return load.Run(ctx)
	})
	g.Go(func() error { return narrate(ctx, stdout, load) })
	return g.Wait()
}

// introduce says what is running where, and what to try.
func introduce(w io.Writer, node *node, backends *demo.Backends, dataDir string) error {
	target := pasted(node.gateway.Addr())
	text := "Sluice demo: one gRPC service in two versions behind one gateway.\n\n"
	text += fmt.Sprintf("  gateway   %s\n", node.gateway.Addr())
	text += fmt.Sprintf("  metrics   http://%s/metrics\n", node.door.Addr())
	for i, version := range demoVersions {
		text += fmt.Sprintf("  %-9s %s, %d %% of the RPCs\n", version, backends.Addr(version), demoWeights[i])
	}
	text += fmt.Sprintf(`
Try in another terminal:

  grpcurl -plaintext %[1]s list
  grpcurl -plaintext %[1]s describe shop.v1.Cart
  grpcurl -plaintext -d '{"id": "1"}' %[1]s shop.v1.Cart/Get
  curl http://%[1]s/v1/carts/1

  export SLUICE_DATA_DIR=%[2]s
  sluice split cart cart-v1=50 cart-v2=50
  sluice describe route cart
  sluice rollback route cart

Ctrl-C ends the demo and removes what it made.

`, target, dataDir)
	_, err := io.WriteString(w, text)
	return err
}

// narrate writes one line per second until ctx is done.
func narrate(ctx context.Context, w io.Writer, load *demo.Load) error {
	if _, err := fmt.Fprintf(w, "%6s %8s %6s %12s %12s %7s %9s\n", "time", "RPCs", "per s", "v1", "v2", "errors", "p99"); err != nil {
		return err
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var before uint64
	for second := 1; ; second++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		t := load.Totals()
		_, err := fmt.Fprintf(w, "%5ds %8d %6d %12s %12s %7d %9s\n", second, t.RPCs, t.RPCs-before,
			share(t, "v1"), share(t, "v2"), t.Errors, t.P99.Round(10*time.Microsecond))
		if err != nil {
			return err
		}
		before = t.RPCs
	}
}

// share says how much of the RPCs a version answered.
func share(t demo.Totals, version string) string {
	if t.RPCs == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(t.ByVersion[version])/float64(t.RPCs))
}

// conclude sums up, and returns an error when not every RPC was answered.
func conclude(w io.Writer, t demo.Totals) error {
	fmt.Fprintf(w, "\n%d RPCs: %d by v1, %d by v2, %d errors. Nothing is left behind.\n",
		t.RPCs, t.ByVersion["v1"], t.ByVersion["v2"], t.Errors)
	if t.Errors > 0 {
		return fmt.Errorf("demo: %d of %d RPCs failed, the last with: %w", t.Errors, t.RPCs, t.LastError)
	}
	return nil
}

// reachable returns an address that a client on this machine can dial.
func reachable(addr net.Addr) string { return reachableAt(addr.String()) }

func reachableAt(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// pasted returns the address as a person would type it.
func pasted(addr net.Addr) string {
	host, port, err := net.SplitHostPort(reachable(addr))
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsLoopback() {
		return "localhost:" + port
	}
	return addr.String()
}
