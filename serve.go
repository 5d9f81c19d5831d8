package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
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
	"sluice/gateway/schema"
	"sluice/store"
	"sluice/store/disk"
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

// invite says, while there is no administrator, how the first one is made. The
// command line on this machine needs none.
func (n *node) invite() error {
	access := n.door.Access()
	needed, err := access.NeedsSetUp()
	if err != nil || !needed {
		return err
	}
	link, err := access.SetUpLink()
	if err != nil {
		return err
	}
	for _, url := range link.URLs {
		n.log.Info("no administrator yet: open this link once, or run sluice admin create NAME", "link", url, "expires", link.Expires.UTC().Format(time.RFC3339))
	}
	if link.Hint != "" {
		n.log.Info("from another machine", "first", link.Hint)
	}
	return nil
}

// gatewayPart is what the node needs of the gateway.
type gatewayPart interface {
	// Apply puts a set in force. What of it cannot be is the error, of type
	// gateway.Problems, and all else is.
	Apply(*store.Set) error
	// Check is what Apply would refuse of the changed objects of a set.
	Check(set *store.Set, changed []store.ID) store.Faults
	// Problems are what cannot be in force as it is declared, at this moment.
	Problems() gateway.Problems
	// Explain says which rule an RPC would meet, and why.
	Explain(authority, path string, headers [][2]string) gateway.Explanation
	// Observed is what was seen of the rules of a route in the last minute.
	Observed(route store.ID) []gateway.ObservedRule
	// Endpoints are those of a backend, "namespace/name", and how each is.
	Endpoints(backend string) []gateway.ObservedEndpoint
	// Rebalance ends that share of the long streams of those endpoints of a backend that
	// have more than their part.
	Rebalance(backend string, percent int) (moved int, err error)
	// OwnAddresses are where the gateway is reached: no process may register there. OwnPort
	// adds a port.
	OwnAddresses() []netip.AddrPort
	OwnPort(net.Addr)
	// SchemaView is what is known of the methods of backends; LearnSchemas asks those
	// that have not told yet, and tells whether something new is known.
	SchemaView() *schema.View
	LearnSchemas(ctx context.Context, backends []string) bool
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

		MaxConnectionAge:      cfg.maxConnectionAge,
		MaxConnectionAgeGrace: cfg.maxConnectionAgeGrace,

		Zone:      cfg.zone,
		Handler:   testHandler(),
		RelayAll:  os.Getenv("SLUICE_TEST_RELAY_ALL") == "1",
		HandleAll: os.Getenv("SLUICE_TEST_HANDLER") == "1",
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
	store     *store.Store
	applier   *applier
	leases    *store.Leases
	door      *admin.Admin
	resources *resources
	log       *slog.Logger
	began     time.Time      // when newNode was called
	hangup    chan os.Signal // SIGHUP, from the beginning: unheard, it would end the process
}

// newNode checks everything and opens all listeners, so that a fault ends the
// program before the first client is taken; it serves nothing yet. The parts
// are built from the bottom up.
func newNode(cfg *config, log *slog.Logger) (*node, error) {
	began := time.Now()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)

	// The one port: RPCs in, RPCs out, by a table compiled from what the store holds.
	gw, err := newGateway(cfg, log.With("part", "gateway"))
	if err != nil {
		return nil, explainListen(err, "--listen", cfg.listen)
	}

	// What the operator asked for, kept from one start to the next.
	kept, err := openStore(cfg, gw, log.With("part", "store"))
	if err != nil {
		return nil, err
	}
	n := &node{gateway: gw, store: kept, log: log, began: began, hangup: hangup}
	n.applier = newApplier(kept, gw, log.With("part", "applier"))

	// What of it stands in files, kept in step with them.
	n.resources = &resources{
		paths:   cfg.resources,
		options: store.LoadOptions{AllowUnresolved: true}, // the store looks at all there is
		apply:   n.syncFiles,
		log:     log.With("part", "resources"),
		now:     time.Now,
	}
	if err := n.resources.load(); errors.Is(err, store.ErrFull) {
		n.resources.reject(err) // what was kept is served, and the files are tried again
	} else if err != nil {
		return nil, errors.Join(err, kept.Close())
	}
	n.applier.catchUp() // also when nothing has changed since the last time

	// The processes that announce themselves, and when they are not heard of any more.
	n.leases = store.NewLeases(kept, store.LeaseOptions{OwnAddresses: gw.OwnAddresses, Log: log.With("part", "leases")})

	// The operator's door: the admin API, health, metrics, profiles.
	n.door, err = admin.New(
		admin.Config{
			Listen: cfg.admin, Pprof: cfg.pprof, DataDir: cfg.dataDir, Hosts: cfg.adminHosts,
			TLSCert: cfg.adminTLSCert, TLSKey: cfg.adminTLSKey, PasswordFile: cfg.adminPassword,
		},
		admin.Parts{
			Ready: gw.Ready, Metrics: gw.Metrics(), Version: version,
			Store: kept, Gateway: n.applier, Leases: n.leases, Problems: n.resources.Problems, Port: newDoor(log.With("part", "admin")),
		},
		log.With("part", "admin"))
	if err != nil {
		return nil, errors.Join(explainListen(err, "--admin", cfg.admin), kept.Close())
	}
	gw.OwnPort(n.door.Addr()) // what only this machine may reach is published by no endpoint
	return n, nil
}

// openStore opens what the node keeps, and says so when it is not as it was left.
func openStore(cfg *config, gw gatewayPart, log *slog.Logger) (*store.Store, error) {
	if err := os.MkdirAll(cfg.dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("%w; choose another data directory with --data-dir", err)
	}
	kept, err := store.Open(store.Options{
		Dir: cfg.dataDir, Verify: disk.InChild(verifyCommand), Check: gw.Check,
		AllowUnresolved: cfg.allowUnresolved, Log: log,
	})
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		var cause *fs.PathError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return nil, fmt.Errorf("open store in %q: %w; choose another data directory with --data-dir", cfg.dataDir, err)
	}
	if err != nil {
		return nil, err
	}
	if found := kept.Recovery(); found != "" {
		log.Error("store recovered", "found", found)
	}
	return kept, nil
}

// syncFiles makes what files declare part of the store, and puts it in force.
func (n *node) syncFiles(set *store.Set) error {
	result, err := n.store.SyncFiles(context.Background(), set, store.Author{Actor: "files", Via: "file"})
	if err != nil {
		return err
	}
	for _, warning := range result.Warnings {
		n.resources.log.Warn(warning)
	}
	n.applier.catchUp()
	return nil
}

// Run serves until ctx is done or a part fails, and returns when all parts
// have ended. The door outlives the gateway: readiness and metrics must
// answer while streams drain.
func (n *node) Run(ctx context.Context) error {
	defer signal.Stop(n.hangup)

	doorCtx, closeDoor := context.WithCancel(context.WithoutCancel(ctx))
	defer closeDoor()

	// Every goroutine of the node belongs to one of these.
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.watch(ctx) })
	g.Go(func() error { return n.store.Run(doorCtx) })
	g.Go(func() error { return n.applier.Run(doorCtx) })
	g.Go(func() error { return n.leases.Run(doorCtx) })
	g.Go(func() error { return n.door.Run(doorCtx) })
	g.Go(func() error {
		defer closeDoor()
		return n.gateway.Run(ctx)
	})
	n.log.Info("serving", "listen", n.gateway.Addr().String(), "admin", n.door.Addr().String(),
		"took", time.Since(n.began).Round(time.Microsecond))

	<-ctx.Done()
	told := time.Now()
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
