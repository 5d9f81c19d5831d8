package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sluice/admin"
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
	if err := n.invite(); err != nil { // a full disk, say: traffic has no part in it
		log.Error("no set-up link made", "error", err)
	}
	return n.Run(ctx)
}

// watchInterval is half of the longest time that an operator, having saved a
// file, waits for the change to be in force.
const watchInterval = 500 * time.Millisecond

// node is one running gateway with its operator's door.
type node struct {
	// Fixed at construction.
	cfg    *config
	log    *slog.Logger
	began  time.Time      // when newNode was called
	hangup chan os.Signal // SIGHUP, from the beginning: unheard, it would end the process

	// The parts, from the bottom up; fixed when newNode returns.
	gateway   gatewayPart
	store     *store.Store
	applier   *applier
	resources *resources
	leases    *store.Leases
	door      *admin.Admin
	peers     *peers // nil when the node is alone; hollow until its cluster is open
}

// newNode checks everything and opens all listeners, so that a fault ends the
// program before the first client is taken; it serves nothing yet. The parts
// are built from the bottom up.
func newNode(cfg *config, log *slog.Logger) (*node, error) {
	n := &node{cfg: cfg, log: log, began: time.Now(), hangup: make(chan os.Signal, 1), peers: newPeers(cfg)}
	signal.Notify(n.hangup, syscall.SIGHUP)
	for _, open := range []func() error{
		n.openGateway, // the one port
		n.openStore,   // what the operator asked for
		n.openFiles,   // what of it stands in files
		n.openLeases,  // the processes that announce themselves
		n.openDoor,    // the operator's door
		n.openCluster, // the other gateways
	} {
		if err := open(); err != nil {
			return nil, errors.Join(err, n.close())
		}
	}
	return n, nil
}

// close gives up what a node that never ran has opened, and others may want.
func (n *node) close() error {
	if n.store == nil {
		return nil
	}
	return n.store.Close()
}

// Run serves until ctx is done or a part fails, and returns when all parts have ended.
// They end in the order in which they are missed: the peers are told first, the gateway
// drains, the peers are told goodbye, and the door closes last, since readiness and
// metrics must answer while streams drain.
func (n *node) Run(ctx context.Context) error {
	defer signal.Stop(n.hangup)

	serving, drain := context.WithCancel(context.WithoutCancel(ctx))
	defer drain()
	among, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	open, closeDoor := context.WithCancel(context.WithoutCancel(ctx))
	defer closeDoor()

	// Every goroutine of the node belongs to one of these.
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.watch(ctx) })
	g.Go(func() error { return n.store.Run(open) })
	g.Go(func() error { return n.applier.Run(open) })
	g.Go(func() error { return n.leases.Run(open) })
	g.Go(func() error { return n.door.Run(open) })
	g.Go(func() error {
		defer closeDoor()
		return n.peers.Run(among)
	})
	g.Go(func() error { return n.observe(among) })
	g.Go(func() error { return n.redeclare(among) })
	g.Go(func() error {
		defer leave()
		return n.gateway.Run(serving)
	})
	n.log.Info("serving", "listen", n.gateway.Addr().String(), "admin", n.door.Addr().String(),
		"took", time.Since(n.began).Round(time.Microsecond))

	<-ctx.Done()
	told := time.Now()
	n.peers.sayEnding()
	drain()
	err := errors.Join(g.Wait(), n.store.Close())
	n.log.Info("ended", "took", time.Since(told).Round(time.Millisecond))
	return err
}

// watch keeps the resources in step with their files, and reads everything
// again when the process is told to.
func (n *node) watch(ctx context.Context) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			n.resources.poll()
		case <-n.hangup:
			n.resources.reload()
			if err := n.gateway.ReloadCertificates(); err != nil {
				n.log.Error("certificates refused, last good ones kept", "error", err)
			}
		}
	}
}
