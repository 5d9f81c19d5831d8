// Package gateway is the one port: it accepts, classifies, routes, picks, relays
// and accounts for every RPC.
//
// One RPC goes one way: listen tells what a connection is, h2 what its streams
// are; a session classifies each stream; the table finds its rule and target; the
// target's backend picks an endpoint; the endpoint opens a stream on a live
// connection, or the RPC is parked until there is one; from then on frames are
// passed from stream to stream until the RPC ends, once, in one row of outcomes.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"sluice/gateway/h2"
	"sluice/gateway/listen"
	"sluice/gateway/observe"
	"sluice/gateway/policy"
	"sluice/gateway/rest"
	"sluice/gateway/route"
	"sluice/gateway/upstream"
	"sluice/gateway/web"
	"sluice/store"
)

// Config says how the one port behaves. The zero value of a field is valid.
type Config struct {
	// Listen is the port: where, certificates, PROXY protocol.
	Listen listen.Config
	// TrustedProxies are the peers whose x-forwarded-* fields are believed.
	TrustedProxies []netip.Prefix
	// TrustedHops is how many proxies stand in a row in front of the gateway: so
	// many entries of x-forwarded-for, from the right, are believed and kept. Zero
	// means one for a peer in TrustedProxies, else none.
	TrustedHops int
	// Grace is how long streams may go on after the gateway was told to stop. Zero
	// means 30s; negative means not at all.
	Grace time.Duration
	// DrainDelay is how long connections are still accepted after that, for load
	// balancers that have yet to notice. Zero means not at all.
	DrainDelay time.Duration
	// Zone is where this gateway is, by the word that endpoints use. Empty prefers no
	// endpoint.
	Zone string
	// MaxConnectionAge is when a client is asked to open another connection, within a tenth
	// of it. Zero means never.
	MaxConnectionAge time.Duration
	// MaxConnectionAgeGrace is how long the streams of such a connection may go on. Zero
	// means as long as they like.
	MaxConnectionAgeGrace time.Duration
	// Limits of the HTTP/2 engine.
	Limits h2.Limits
	// Handler answers what is not native gRPC in place of the gateway; nil for all but
	// the suites that judge the way to a handler.
	Handler http.Handler

	// RelayAll sends every HTTP/2 request through the relay, HandleAll through the
	// handler: for the suites that judge one of the two.
	RelayAll, HandleAll bool
}

func (c *Config) grace() time.Duration {
	if c.Grace == 0 {
		return 30 * time.Second
	}
	return max(c.Grace, 0)
}

// Gateway is one running port.
type Gateway struct {
	cfg       Config
	log       *slog.Logger
	engine    *h2.Engine
	pool      *upstream.Pool
	own       *ownAddresses
	metrics   *observe.Metrics
	memory    *policy.Memory
	share     policy.Share // of limits that the cluster has as a whole
	listener  *listen.Listener
	handler   http.Handler // of what the relay does not take
	seam      *h2.Seam
	web       *web.Handler
	rest      *rest.Server
	connect   rest.Connect
	schemas   schemas
	described atomic.Pointer[descriptions]
	nowhere   target // of RPCs that found no route
	relayAll  bool
	handleAll bool

	conns    sync.WaitGroup // the conversations with clients
	table    atomic.Pointer[table]
	draining atomic.Bool

	visits  visits  // HTTP/1 requests that are being answered
	tunnels tunnels // of those, WebSockets

	moving moving // rebalances that are under way

	relayed, handled atomic.Int64 // RPCs and requests by path
	relayedWeb       atomic.Int64 // of relayed, those that speak gRPC-Web
	spoken           [numProtocols]atomic.Int64
	moved            atomic.Int64 // RPCs that were sent elsewhere
	kept             atomic.Int64 // bytes of request DATA kept for a second try
	ended            [numOutcomes]atomic.Int64

	applying sync.Mutex // one Apply at a time; guards the fields below
	compiler *compiler
	set      *store.Set // in force; nil before the first
	problems Problems   // of set
}

// New opens the port. It serves nothing before Run, and without a route before
// the first Apply.
func New(cfg Config, log *slog.Logger) (*Gateway, error) {
	cfg.Limits.MaxAge, cfg.Limits.AgeGrace = cfg.MaxConnectionAge, cfg.MaxConnectionAgeGrace
	engine := h2.NewEngine(cfg.Limits)
	if cfg.Listen.WriteStall == 0 {
		cfg.Listen.WriteStall = engine.Limits().StreamStall
	}
	l, err := listen.New(cfg.Listen, log)
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		cfg: cfg, log: log, listener: l,
		engine:  engine,
		metrics: observe.New(), memory: policy.NewMemory(), handler: cfg.Handler,
		relayAll: cfg.RelayAll, handleAll: cfg.HandleAll,
	}
	if g.handler == nil {
		g.handler = g
	}
	g.web = web.NewHandler(http.HandlerFunc(g.serveGRPC), web.Options{CORS: g.corsOfWeb})
	g.rest = rest.NewServer(rest.Options{Log: log})
	g.seam = h2.NewSeam(g.handler, log)
	g.pool = upstream.NewPool(g.engine, log)
	g.own = newOwnAddresses(l.Addr())
	g.pool.Own = g.own.has
	g.pool.Zone = cfg.Zone
	g.nowhere = target{series: g.metrics.Use(observe.Key{})}
	g.newSchemas()
	g.moving = newMoving()
	g.compiler = newCompiler(g.metrics, &g.share)
	g.table.Store(&table{routes: route.Compile(&store.Set{}, nil)})
	g.register()
	return g, nil
}

// Addr returns the address of the port.
func (g *Gateway) Addr() net.Addr { return g.listener.Addr() }

// Metrics answers Prometheus.
func (g *Gateway) Metrics() http.Handler { return g.metrics.Handler() }

// ShowMetrics adds what another part of the program tells of itself to what Metrics
// answers.
func (g *Gateway) ShowMetrics(of prometheus.Collector) { g.metrics.Show(of) }

var errDraining = errors.New("draining")

// Ready is nil when new RPCs are welcome.
func (g *Gateway) Ready() error {
	if g.draining.Load() {
		return errDraining
	}
	return nil
}

// Run serves until ctx is done, then drains: it says so by Ready, accepts for
// DrainDelay more, asks every client to go elsewhere, and gives open streams the
// grace. It returns when every goroutine of the gateway has ended.
func (g *Gateway) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	eg, _ := errgroup.WithContext(work)
	failed, fail := context.WithCancelCause(ctx)
	eg.Go(func() error { return g.engine.Run(work) })
	eg.Go(func() error { return g.pool.Run(work) })
	eg.Go(func() error { return g.metrics.Run(work) })
	eg.Go(func() error { return g.follow(work) })
	eg.Go(func() error { return g.memory.Run(work) })
	eg.Go(func() error { return g.schemas.registry.Run(work) })
	eg.Go(func() error { return g.evict(work) })
	http1 := g.newHTTP1()
	accepting, refuse := context.WithCancel(work)
	eg.Go(func() error {
		err := g.listener.Run(accepting, listen.Handlers{HTTP2: g.serveHTTP2, HTTP1: func(l net.Listener) { http1.Serve(l) }})
		fail(err)
		return err
	})
	<-failed.Done()
	if ctx.Err() != nil {
		g.drain(http1)
	}
	refuse()
	g.engine.Abort(h2.Downstream)
	stop()
	http1.end(h2.ErrShutDown)
	http1.Close()
	err := eg.Wait()
	g.conns.Wait()
	g.seam.Wait()
	g.visits.wait(context.Background())
	return err
}

// serveHTTP2 takes a client's connection over. The conversation gets a goroutine of
// its own, which Run waits for: its stack is shallow where it waits, so that an
// idle connection costs 2 KiB of it and not 8.
func (g *Gateway) serveHTTP2(_ context.Context, t *h2.Transport, info listen.Info) {
	c := g.engine.NewServer(t, g.newSession(info.Remote, t.TLS()), info.AcceptedAt)
	g.conns.Add(1)
	go g.converse(c)
}

// converse outlives the listener during the drain. It has no context: for ten
// thousand connections they would be a megabyte, and all are aborted together.
func (g *Gateway) converse(c *h2.Conn) {
	defer g.conns.Done()
	if err := c.Run(context.Background()); err != nil {
		g.noteEnd(c, err)
	}
}

//go:noinline
func (g *Gateway) noteEnd(c *h2.Conn, err error) {
	g.log.Debug("connection ended", "conn", c.String(), "error", err)
}
