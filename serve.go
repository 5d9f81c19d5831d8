package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sluice/admin"
	"sluice/gateway"
	"sluice/gateway/listen"
	"sluice/store"
)

func serveCommand() *cobra.Command {
	var cfg config
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway until SIGTERM or SIGINT, then let open streams finish for --grace.
SIGHUP reads the resources and the certificates again; files that change are
read again without it.

Each flag has an environment variable (--tls-cert: SLUICE_TLS_CERT) and a key
in the configuration file (tls-cert). A flag wins over the environment, the
environment over the file.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := resolve(cmd.Flags(), os.Getenv); err != nil {
				return usageError{err}
			}
			if err := cfg.validate(); err != nil {
				return usageError{err}
			}
			stderr := cmd.ErrOrStderr()
			return refused(serve(cmd.Context(), &cfg, cfg.logger(stderr, slog.LevelInfo)), stderr)
		},
	}
	cmd.Flags().String("config", defaultConfigFile, "configuration `file` (YAML)")
	cfg.addFlags(cmd.Flags())
	return cmd
}

// mutexSample is one in how many waits for a lock a profile holds, where profiles
// are served.
const mutexSample = 100

// serve assembles a node and runs it until ctx is done or a part fails.
func serve(ctx context.Context, cfg *config, log *slog.Logger) error {
	tuneMemory()
	if cfg.pprof {
		runtime.SetMutexProfileFraction(mutexSample)
	}
	n, err := newNode(cfg, log)
	if err != nil {
		return err
	}
	return n.Run(ctx)
}

// gatewayPart is what the node needs of the gateway.
type gatewayPart interface {
	// Apply puts a set in force, whole or not at all.
	Apply(*store.Set) error
	// ReloadCertificates reads the files of the one port's TLS again, and
	// keeps the last good ones when that fails.
	ReloadCertificates() error
	// Run serves until ctx is done, then drains.
	Run(context.Context) error
	Addr() net.Addr
	// Ready is nil when new RPCs are welcome, and else says why not.
	Ready() error
	Metrics() http.Handler
}

// newGateway opens the one port and serves nothing yet.
var newGateway = func(cfg *config, log *slog.Logger) (gatewayPart, error) {
	return gateway.New(gateway.Config{
		Listen: listen.Config{
			Address: cfg.listen,
			TLSCert: cfg.tlsCert, TLSKey: cfg.tlsKey, TLSClientCA: cfg.tlsClientCA,
			ProxyProtocol: cfg.proxyProtocol, TrustedProxies: cfg.trusted(),
		},
		TrustedProxies: cfg.trusted(),
		TrustedHops:    cfg.trustedHops,
		Grace:          cfg.graceOrNone(),
		DrainDelay:     cfg.drainDelay,
		Handler:        testHandler(),
		RelayAll:       os.Getenv("SLUICE_TEST_RELAY_ALL") == "1",
		HandleAll:      os.Getenv("SLUICE_TEST_HANDLER") == "1",
	}, log)
}

// testHandler is what h2spec judges the seam by: it reads a request to its end and
// answers 200. Without the switch that asks for it there is none.
func testHandler() http.Handler {
	if os.Getenv("SLUICE_TEST_HANDLER") != "1" {
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		// The suite's next frame has to find the stream open.
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Millisecond):
		}
		if err == nil {
			io.WriteString(w, "read to the end\n")
		}
	})
}

// watchInterval is half of the longest time that an operator, having saved a
// file, waits for the change to be in force.
const watchInterval = 500 * time.Millisecond

// node is one running gateway with its operator's door.
type node struct {
	gateway   gatewayPart
	door      *admin.Admin
	resources *resources
	log       *slog.Logger
	began     time.Time // when newNode was called
}

// newNode checks everything and opens all listeners, so that a fault ends the
// program before the first client is taken; it serves nothing yet. The parts
// are built from the bottom up.
func newNode(cfg *config, log *slog.Logger) (*node, error) {
	began := time.Now()

	// What the node keeps from one start to the next.
	if err := os.MkdirAll(cfg.dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("%w; choose another data directory with --data-dir", err)
	}

	// The one port: RPCs in, RPCs out, by a table compiled from resources.
	gw, err := newGateway(cfg, log.With("part", "gateway"))
	if err != nil {
		return nil, explainListen(err, "--listen", cfg.listen)
	}

	// What the operator wrote, kept in step with the files.
	res := &resources{
		paths:   cfg.resources,
		options: store.LoadOptions{AllowUnresolved: cfg.allowUnresolved},
		apply:   gw.Apply,
		log:     log.With("part", "resources"),
	}
	if err := res.load(); err != nil {
		return nil, err
	}

	// The operator's door: health, metrics, profiles.
	door, err := admin.New(
		admin.Config{Listen: cfg.admin, Pprof: cfg.pprof},
		admin.Parts{Ready: gw.Ready, Metrics: gw.Metrics(), Version: version},
		log.With("part", "admin"))
	if err != nil {
		return nil, explainListen(err, "--admin", cfg.admin)
	}
	return &node{gateway: gw, door: door, resources: res, log: log, began: began}, nil
}

// Run serves until ctx is done or a part fails, and returns when all parts
// have ended. The door outlives the gateway: readiness and metrics must
// answer while streams drain.
func (n *node) Run(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	doorCtx, closeDoor := context.WithCancel(context.WithoutCancel(ctx))
	defer closeDoor()

	// Every goroutine of the node belongs to one of these.
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.watch(ctx, hangup) })
	g.Go(func() error { return n.door.Run(doorCtx) })
	g.Go(func() error {
		defer closeDoor()
		return n.gateway.Run(ctx)
	})
	n.log.Info("serving", "listen", n.gateway.Addr().String(), "admin", n.door.Addr().String(),
		"took", time.Since(n.began).Round(time.Microsecond))

	<-ctx.Done()
	told := time.Now()
	err := g.Wait()
	n.log.Info("ended", "took", time.Since(told).Round(time.Millisecond))
	return err
}

// watch keeps the resources in step with their files, and reads everything
// again when the process is told to.
func (n *node) watch(ctx context.Context, hangup <-chan os.Signal) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			n.resources.poll()
		case <-hangup:
			n.resources.reload()
			if err := n.gateway.ReloadCertificates(); err != nil {
				n.log.Error("certificates refused, last good ones kept", "error", err)
			}
		}
	}
}
