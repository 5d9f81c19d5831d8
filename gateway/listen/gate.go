package listen

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// gate is the listener under cmux, which sees of it only connections, and one
// error at the end: cmux would spin on any other. It backs off when
// descriptors run out, turns away what is too much, and knows the connections
// that have not said yet what they are.
type gate struct {
	// Fixed at construction.
	inner    net.Listener
	limits   limits
	trusts   func(netip.Addr) bool // whose PROXY header is due; nil where none is
	counters *counters
	log      *slog.Logger
	stopped  chan struct{} // closed by stop

	open atomic.Int64 // connections that are not closed

	mu       sync.Mutex // guards the fields below
	empty    sync.Cond  // sniffing has become empty
	stopping bool
	sniffing map[*conn]struct{} // with cmux, or on their way from it to us
	err      error              // why accepting ended, when nobody asked for it
}

func newGate(inner net.Listener, cfg *Config, counters *counters, log *slog.Logger) *gate {
	g := &gate{
		inner:    inner,
		limits:   limitsOf(cfg, removedLimit),
		counters: counters,
		log:      log,
		stopped:  make(chan struct{}),
		sniffing: make(map[*conn]struct{}),
	}
	g.empty.L = &g.mu
	if cfg.ProxyProtocol {
		g.trusts = trustOf(cfg.TrustedProxies)
	}
	return g
}

// Addr returns the address that is listened on.
func (g *gate) Addr() net.Addr { return g.inner.Addr() }

// failure returns why accepting ended when nobody had asked for it.
func (g *gate) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// Close stops accepting. It is cmux that calls it.
func (g *gate) Close() error {
	g.stop()
	return nil
}

// Accept returns the next connection that may enter. When accepting has been
// stopped it fails, but not before the connections that entered are told apart:
// cmux drops those that it still holds then.
func (g *gate) Accept() (net.Conn, error) {
	var wait time.Duration
	for {
		nc, err := g.inner.Accept()
		switch {
		case err == nil && g.open.Load() >= g.limits.connections:
			g.counters.add(overCap)
			refuse(nc)
		case err == nil:
			return g.enter(nc), nil
		case g.ended(err):
			return nil, net.ErrClosed
		default:
			g.counters.add(acceptBackoff)
			if wait == 0 {
				g.log.Warn("accepting paused", "addr", g.Addr(), "err", err)
			}
			wait = min(max(2*wait, g.limits.backoff), maxBackoff)
			g.pause(wait)
			continue
		}
		wait = 0
	}
}

// enter registers a new connection.
func (g *gate) enter(nc net.Conn) *conn {
	g.counters.add(accepted)
	g.open.Add(1)
	now := time.Now()
	c := &conn{
		Conn:     nc,
		gate:     g,
		deadline: now.Add(g.limits.handshake),
		info: Info{
			Remote:     addrPortOf(nc.RemoteAddr()),
			Local:      addrPortOf(nc.LocalAddr()),
			AcceptedAt: now,
		},
	}
	c.proxyDue = g.trusts != nil && g.trusts(c.info.Remote.Addr())
	g.mu.Lock()
	g.sniffing[c] = struct{}{}
	g.mu.Unlock()
	return c
}

// sniffed notes that a connection has left cmux.
func (g *gate) sniffed(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sniffing, c)
	if len(g.sniffing) == 0 {
		g.empty.Broadcast()
	}
}

// ended reports whether accepting is over, and then waits for the connections
// that cmux holds.
func (g *gate) ended(err error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stopping && !errors.Is(err, net.ErrClosed) {
		return false
	}
	if !g.stopping {
		g.err = err
	}
	for len(g.sniffing) > 0 {
		g.empty.Wait()
	}
	return true
}

// stop closes the port.
func (g *gate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stopping {
		g.stopping = true
		close(g.stopped)
		g.inner.Close()
	}
}

// closeSniffed closes the connections that have not said what they are.
func (g *gate) closeSniffed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.sniffing {
		c.dropped.Store(true)
		c.Conn.Close() // cmux then finds nothing in it, and closes it in form
	}
}

// pause waits, unless accepting is stopped.
func (g *gate) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.stopped:
	}
}

// refuse closes a connection so that no trace of it remains in the kernel, and
// its peer knows at once.
func refuse(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	nc.Close()
}

// addrPortOf returns a TCP address as a value, IPv4 never in IPv6 form.
func addrPortOf(addr net.Addr) netip.AddrPort {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return unmapped(tcp.AddrPort())
}

func unmapped(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
