package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/admin"
	"sluice/gateway/h2"
	"sluice/gateway/listen"
)

// What one client of the operator's door may take, beside what admin says. It
// serves few, so that all of it together stays small.
const (
	doorStreams = 64          // open requests of one connection: a page watches while it asks
	doorBudget  = 32 << 20    // bytes: of windows beyond the first, and of answers that wait
	doorStall   = time.Minute // for a client to take what waits for it
)

// newDoor returns what makes the ports of the operator's door: HTTP/2 by the engine
// of the one port and its seam, HTTP/1 by net/http, both in clear text or TLS.
func newDoor(log *slog.Logger) func(admin.PortConfig) (admin.Port, error) {
	return func(cfg admin.PortConfig) (admin.Port, error) {
		l, err := listen.New(listen.Config{
			Listener: cfg.Listener, TLSCert: cfg.TLSCert, TLSKey: cfg.TLSKey, NoClearText: cfg.NoClearText,
			HandshakeDeadline: cfg.HeaderTimeout, MaxConnections: cfg.MaxConns,
		}, log)
		if err != nil {
			return nil, err
		}
		return &doorPort{
			cfg: cfg, log: log, listener: l,
			engine: h2.NewEngine(h2.Limits{
				MaxConcurrentStreams: doorStreams, HeaderBytes: cfg.MaxHeaderBytes,
				WindowBudget: doorBudget, QueueBudget: doorBudget,
				StreamStall: doorStall, Idle: cfg.IdleTimeout,
			}),
		}, nil
	}
}

// doorPort is one port of the operator's door.
type doorPort struct {
	cfg      admin.PortConfig
	log      *slog.Logger
	listener *listen.Listener
	engine   *h2.Engine
	seam     *h2.Seam       // fixed when Run begins
	conns    sync.WaitGroup // the conversations in HTTP/2
}

// Addr returns the address of the port.
func (p *doorPort) Addr() net.Addr { return p.listener.Addr() }

// Close shuts a port that does not run.
func (p *doorPort) Close() error {
	p.listener.StopAccepting()
	return nil
}

// Run serves until ctx is done, then lets requests under way come to their end
// within the grace. When it returns, its goroutines have ended.
func (p *doorPort) Run(ctx context.Context, h http.Handler) error {
	p.seam = h2.NewSeam(h, p.log)
	http1 := p.newHTTP1(h)
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	accepting, refuse := context.WithCancel(work)
	defer refuse()
	failed, fail := context.WithCancelCause(ctx)

	var g errgroup.Group
	g.Go(func() error { return p.engine.Run(work) })
	g.Go(func() error {
		err := p.listener.Run(accepting, listen.Handlers{HTTP2: p.serveHTTP2, HTTP1: func(l net.Listener) { http1.Serve(l) }})
		fail(err)
		return err
	})
	<-failed.Done()
	if ctx.Err() != nil {
		p.drain(http1)
	}
	refuse()
	p.engine.Abort(h2.Downstream)
	stop()
	http1.Close()
	err := g.Wait()
	p.conns.Wait()
	p.seam.Wait()
	return err
}

// newHTTP1 serves what is not HTTP/2. net/http's own HTTP/2 stays off: the engine is
// the only one that speaks it.
func (p *doorPort) newHTTP1(h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.TLS, _ = r.Context().Value(doorTLS{}).(*tls.ConnectionState)
			h.ServeHTTP(w, r)
		}),
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			info, _ := listen.InfoOf(nc)
			return context.WithValue(ctx, doorTLS{}, info.TLS)
		},
		Protocols:                    protocols,
		ReadHeaderTimeout:            p.cfg.HeaderTimeout,
		IdleTimeout:                  p.cfg.IdleTimeout,
		MaxHeaderBytes:               p.cfg.MaxHeaderBytes,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" gets the answer that every OPTIONS gets
		TLSNextProto:                 map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:                     slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
}

// doorTLS is where the context of an HTTP/1 request has what TLS agreed on; net/http
// looks for it only where it was itself that opened it.
type doorTLS struct{}

// serveHTTP2 takes a client's connection over.
func (p *doorPort) serveHTTP2(_ context.Context, t *h2.Transport, info listen.Info) {
	peer := h2.Peer{RemoteAddr: t.RemoteAddr().String(), TLS: t.TLS()}
	c := p.engine.NewServer(t, &doorSession{p.seam, peer}, info.AcceptedAt)
	p.conns.Go(func() {
		if err := c.Run(context.Background()); err != nil {
			p.log.Debug("connection ended", "conn", c.String(), "error", err)
		}
	})
}

// doorSession sends every stream of a connection through the seam.
type doorSession struct {
	seam *h2.Seam
	peer h2.Peer
}

func (s *doorSession) AcceptStream(st *h2.Stream, h *h2.Head, end bool, b *h2.Batch) {
	s.seam.Serve(st, h, end, s.peer, b)
}

// drain lets what is open come to its end within the grace.
func (p *doorPort) drain(http1 *http.Server) {
	p.listener.StopAccepting()
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.Grace)
	defer cancel()
	var closing sync.WaitGroup
	closing.Go(func() { http1.Shutdown(ctx) })
	p.engine.AwaitDrained(ctx, h2.Downstream)
	closing.Wait()
}
