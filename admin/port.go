package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Port is an open address at which requests are answered.
type Port interface {
	// Addr is where it is.
	Addr() net.Addr
	// Run answers by h until ctx ends or the listener fails, which is an error.
	// Answers under way then have the grace of the configuration; what is left is
	// cut. It can run once.
	Run(ctx context.Context, h http.Handler) error
	// Close shuts a port that is not running; Run closes it itself.
	Close() error
}

// PortConfig is how a port is to serve a listener.
type PortConfig struct {
	// Listener is open already, and the port's own from now on.
	Listener net.Listener
	// TLSCert and TLSKey are PEM files; without them there is no TLS.
	TLSCert, TLSKey string
	// NoClearText refuses everything that is not TLS.
	NoClearText bool
	// Grace bounds how long answers under way may take once Run's context has
	// ended.
	Grace time.Duration
	// Limits of each connection.
	MaxConns       int           // open connections; one more is closed at once
	MaxHeaderBytes int           // of a request's header
	HeaderTimeout  time.Duration // to send the header in
	IdleTimeout    time.Duration // between two requests
}

// plainPort speaks HTTP/1 in clear text, and nothing else: what the door is when
// nobody hands it better.
type plainPort struct {
	listener net.Listener
	grace    time.Duration
	server   *http.Server
}

func newPlainPort(cfg PortConfig, log *slog.Logger) *plainPort {
	return &plainPort{
		listener: newCappedListener(cfg.Listener, int64(cfg.MaxConns)),
		grace:    cfg.Grace,
		server: &http.Server{
			Protocols:                    onlyHTTP1(),
			ReadHeaderTimeout:            cfg.HeaderTimeout,
			IdleTimeout:                  cfg.IdleTimeout,
			MaxHeaderBytes:               cfg.MaxHeaderBytes,
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

func (p *plainPort) Addr() net.Addr { return p.listener.Addr() }
func (p *plainPort) Close() error   { return p.listener.Close() }

func (p *plainPort) Run(ctx context.Context, h http.Handler) error {
	p.server.Handler = h
	served := make(chan error, 1)
	go func() { served <- p.server.Serve(p.listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	p.shutdown()
	<-served // http.ErrServerClosed, as asked
	return nil
}

// shutdown waits for the answers under way, within the grace. It has a context of
// its own: that of Run has ended.
func (p *plainPort) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), p.grace)
	defer cancel()
	if errors.Is(p.server.Shutdown(ctx), context.DeadlineExceeded) {
		p.server.Close()
	}
}
