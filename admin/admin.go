package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// The limits of the door. It is small, because few should come: probes, scrapers,
// an operator.
const (
	maxConns       = 128             // open connections; one more is closed at once
	maxHeaderBytes = 16 << 10        // of a request's header, to which net/http adds 4 KiB
	headerTimeout  = 5 * time.Second // to send the header in
	idleTimeout    = time.Minute     // between two requests: longer than scrapers take
	answerTimeout  = 30 * time.Second
	profileTimeout = 10 * time.Minute // instead, for a profile, which lasts as long as was asked for
)

// Admin is the operator's door, open from New and answering while it runs.
type Admin struct {
	cfg      Config
	log      *slog.Logger
	listener net.Listener
	server   *http.Server
}

// New checks cfg and listens; nobody is answered before Run.
func New(cfg Config, parts Parts, log *slog.Logger) (*Admin, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", cfg.listen())
	if err != nil {
		return nil, fmt.Errorf("open admin port: %w", err)
	}
	return newAdmin(cfg, parts, log, listener), nil
}

func newAdmin(cfg Config, parts Parts, log *slog.Logger, listener net.Listener) *Admin {
	return &Admin{
		cfg:      cfg,
		log:      log,
		listener: newCappedListener(listener, maxConns),
		server: &http.Server{
			Handler:                      newRouter(cfg, parts, log),
			Protocols:                    onlyHTTP1(),
			ReadHeaderTimeout:            headerTimeout,
			IdleTimeout:                  idleTimeout,
			MaxHeaderBytes:               maxHeaderBytes,
			DisableGeneralOptionsHandler: true, // "OPTIONS *" gets the answer that every OPTIONS gets
			ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
	}
}

// onlyHTTP1 switches net/http's HTTP/2 off: what we do not need of it cannot be
// attacked.
func onlyHTTP1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// Addr is where the door is.
func (a *Admin) Addr() net.Addr { return a.listener.Addr() }

// Close shuts a door that is not running; Run closes it itself.
func (a *Admin) Close() error { return a.listener.Close() }

// Run answers until ctx ends or the listener fails. Answers under way then have
// the grace of the configuration; what is left is cut, and ends soon after Run
// has returned. It can run once.
func (a *Admin) Run(ctx context.Context) error {
	a.log.Info("admin opened", "addr", a.Addr().String(), "pprof", a.cfg.Pprof)
	served := make(chan error, 1)
	go func() { served <- a.server.Serve(a.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve admin on %s: %w", a.Addr(), err)
	case <-ctx.Done():
	}
	a.shutdown()
	<-served // http.ErrServerClosed, as asked
	return nil
}

// shutdown waits for the answers under way, within the grace. It has a context of
// its own: that of Run has ended.
func (a *Admin) shutdown() {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.shutdownGrace())
	defer cancel()
	err := a.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		a.server.Close()
	}
	a.log.Info("admin closed", "waited", time.Since(began), "cut", err != nil)
}
