package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
)

// The limits of the door. It is small, because few should come: probes, scrapers,
// operators and their pages.
const (
	maxConns       = 128 + maxKeeps  // open connections; one more is closed at once
	maxHeaderBytes = 16 << 10        // of a request's header, to which net/http adds 4 KiB
	headerTimeout  = 5 * time.Second // to send the header in
	idleTimeout    = time.Minute     // between two requests: longer than scrapers take
	answerTimeout  = 30 * time.Second
	peerSilence    = 30 * time.Second // without a word that what was sent has come
	profileTimeout = 10 * time.Minute // instead, for a profile, which lasts as long as was asked for
)

// Admin is the operator's door, open from New and answering while it runs.
type Admin struct {
	cfg     Config
	log     *slog.Logger
	port    Port
	socket  Port // nil without a data directory
	handler http.Handler
	api     *api    // nil without a store
	access  *Access // likewise
}

// New checks cfg and listens; nobody is answered before Run.
func New(cfg Config, parts Parts, log *slog.Logger) (*Admin, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{Control: boundSilence}).Listen(context.Background(), network(cfg.listen()), cfg.listen())
	if err != nil {
		return nil, fmt.Errorf("open admin port: %w", err)
	}
	a, err := newAdmin(cfg, parts, log, listener)
	if err != nil {
		listener.Close()
		return nil, err
	}
	return a, nil
}

// network is what an address asks for: net's "tcp" takes 0.0.0.0 for every IPv6
// address, too.
func network(address string) string {
	host, _, _ := net.SplitHostPort(address)
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		return "tcp4"
	}
	return "tcp"
}

func newAdmin(cfg Config, parts Parts, log *slog.Logger, listener net.Listener) (*Admin, error) {
	if parts.Port == nil {
		parts.Port = func(cfg PortConfig) (Port, error) { return newPlainPort(cfg, log), nil }
	}
	a := &Admin{cfg: cfg, log: log}
	var err error
	ports := cfg.port(listener)
	if ports.TLSCert, ports.TLSKey, err = cfg.certificate(parts, log); err != nil {
		return nil, err
	}
	if parts.Store == nil {
		a.handler = newRouter(cfg, parts, nil, log)
	} else if err = a.openAPI(parts, listener.Addr(), ports.TLSCert != ""); err != nil {
		return nil, err
	}
	ports.NoClearText = ports.TLSCert != "" && NeedsTLS(cfg.listen())
	if a.port, err = parts.Port(ports); err != nil {
		return nil, fmt.Errorf("open admin port: %w", err)
	}
	if a.api == nil || cfg.DataDir == "" {
		return a, nil
	}
	if err := a.openSocket(parts); err != nil {
		a.port.Close()
		return nil, err
	}
	return a, nil
}

// openAPI puts the API beside what anybody may ask, and its guard before both.
func (a *Admin) openAPI(parts Parts, addr net.Addr, tls bool) error {
	var err error
	a.access, err = NewAccess(AccessConfig{
		Records: RecordsOf(parts.Store), Hosts: a.cfg.Hosts, TLS: tls, Addr: addr,
		PasswordFile: a.cfg.PasswordFile, Log: a.log,
	})
	if err != nil {
		return err
	}
	if a.api, err = newAPI(a.cfg, parts, a.access, addr, a.log); err != nil {
		return err
	}
	a.handler = a.access.Guard(newRouter(a.cfg, parts, a.api, a.log))
	return nil
}

// certificate is what the port proves itself with: the operator's, or, where others
// than this machine's own can come by and sign in, one that the node makes itself.
func (c Config) certificate(parts Parts, log *slog.Logger) (cert, key string, err error) {
	if c.TLSCert != "" || parts.Store == nil || c.DataDir == "" || !NeedsTLS(c.listen()) {
		return c.TLSCert, c.TLSKey, nil
	}
	own, err := SelfSigned(c.DataDir, c.Hosts, time.Now())
	if err != nil {
		return "", "", err
	}
	if own.Kept != nil {
		log.Error("admin certificate not made again; the one that is there is served until it ends", "file", own.CertFile, "error", own.Kept)
	}
	log.Info("admin certificate is the node's own", "file", own.CertFile, "sha256", own.Fingerprint, "made", own.Made)
	return own.CertFile, own.KeyFile, nil
}

// Access knows who may do what. It is nil where there is no store.
func (a *Admin) Access() *Access { return a.access }

func (a *Admin) openSocket(parts Parts) error {
	listener, err := listenSocket(a.cfg.DataDir)
	if err != nil {
		return err
	}
	if a.socket, err = parts.Port(a.cfg.port(listener)); err != nil {
		listener.Close()
		return fmt.Errorf("open socket %s: %w", listener.path, err)
	}
	return nil
}

// port is what the door asks of any port.
func (c Config) port(listener net.Listener) PortConfig {
	return PortConfig{
		Listener: listener, Grace: c.shutdownGrace(),
		MaxConns: maxConns, MaxHeaderBytes: maxHeaderBytes,
		HeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
	}
}

// Addr is where the door is.
func (a *Admin) Addr() net.Addr { return a.port.Addr() }

// Close shuts a door that is not running; Run closes it itself.
func (a *Admin) Close() error {
	if a.socket != nil {
		a.socket.Close()
	}
	return a.port.Close()
}

// Run answers until ctx ends or a listener fails. Answers under way then have
// the grace of the configuration; what is left is cut, and ends soon after Run
// has returned. It can run once.
func (a *Admin) Run(ctx context.Context) error {
	a.log.Info("admin opened", "addr", a.Addr().String(), "pprof", a.cfg.Pprof)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(ctx, a.port, a.handler) })
	if a.socket != nil {
		g.Go(func() error { return serve(ctx, a.socket, fromSocket(a.handler)) })
	}
	if a.api != nil {
		g.Go(func() error { return a.api.Run(ctx) })
	}
	<-ctx.Done()
	began := time.Now()
	err := g.Wait()
	a.log.Info("admin closed", "waited", time.Since(began))
	return err
}

func serve(ctx context.Context, port Port, h http.Handler) error {
	if err := port.Run(ctx, h); err != nil {
		return fmt.Errorf("serve admin on %s: %w", port.Addr(), err)
	}
	return nil
}
