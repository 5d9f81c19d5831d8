// Package listen is the door of the one port: everything from accept to "this is
// HTTP/2, or HTTP/1, on that transport". It tells TLS, HTTP/2 and HTTP/1 apart
// by the first bytes of a connection, reads the PROXY header of a load balancer
// in front, agrees on TLS, and hands the connection over. What a request is, is
// decided later, for each request.
//
// Nothing that a peer says here is believed beyond what that takes, and no
// connection stays here longer than the deadlines allow, whatever it sends.
package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/soheilhy/cmux"

	"sluice/gateway/h2"
)

// Info is what is known of a connection when it is handed over.
type Info struct {
	// Remote is the client: the socket's other end, or whom a trusted proxy names.
	// Local is what the client connected to. IPv4 addresses are never in IPv6
	// form. Both are invalid when the socket is not one of TCP.
	Remote, Local netip.AddrPort
	// TLS is what the handshake agreed on, nil in clear text.
	TLS *tls.ConnectionState
	// AcceptedAt is when the connection was accepted, for the deadlines that run
	// from there.
	AcceptedAt time.Time
}

// Handlers take the connections. Each owns what it is given and closes it.
type Handlers struct {
	// HTTP2 converses on a connection whose first bytes are the client's preface,
	// or on which TLS agreed on h2. It runs in a goroutine of its own, which Run
	// waits for; ctx is Run's.
	HTTP2 func(ctx context.Context, t *h2.Transport, info Info)
	// HTTP1 serves the connections of a listener until that is closed, as
	// http.Server.Serve does. InfoOf tells more of each connection. The listener
	// sees to it that the first request header is complete within the handshake
	// deadline, if the server has any timeout for headers.
	HTTP1 func(net.Listener)
}

// Listener is the open port.
type Listener struct {
	// Fixed at construction.
	cfg      Config
	log      *slog.Logger
	gate     *gate
	certs    *certificates // nil without TLS
	http1    *http1Queue
	counters *counters

	handlers Handlers // fixed when Run begins
}

// New reads the certificates and opens the port; nothing runs yet.
func New(cfg Config, log *slog.Logger) (*Listener, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	l := &Listener{cfg: cfg, log: log, counters: newCounters()}
	if cfg.TLSCert != "" && !cfg.NoTLS {
		var err error
		if l.certs, err = newCertificates(&cfg); err != nil {
			return nil, err
		}
	}
	inner := cfg.Listener
	if inner == nil {
		var err error
		if inner, err = net.Listen(network(cfg.Address), cfg.Address); err != nil {
			return nil, err
		}
	}
	l.gate = newGate(inner, &cfg, l.counters, log)
	l.http1 = newHTTP1Queue(inner.Addr())
	return l, nil
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

// Addr returns the address that the port is open on.
func (l *Listener) Addr() net.Addr { return l.gate.Addr() }

// Open returns how many connections are open, handed over or not.
func (l *Listener) Open() int64 { return l.gate.open.Load() }

// StopAccepting closes the port. Connections that were accepted before are still
// told apart and handed over. It may be called at any time, and again.
func (l *Listener) StopAccepting() { l.gate.stop() }

// Run accepts connections and hands them over until ctx is done, or the port
// breaks, which is an error. When it returns, its goroutines have ended, the
// handlers' calls among them.
func (l *Listener) Run(ctx context.Context, handlers Handlers) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.handlers = handlers

	mux := cmux.New(l.gate)
	mux.SetReadTimeout(l.gate.limits.sniff)
	// What begins with none of these is no protocol of ours, or has shown nothing in
	// time. cmux closes it without a word, as RFC 9113 section 3.4 wants it of a
	// broken preface; why, is counted in conn.Close.
	inTLS, inHTTP2, inHTTP1 := mux.Match(cmux.TLS()), mux.Match(cmux.HTTP2()), mux.Match(beginsHTTP1)

	var wg sync.WaitGroup
	wg.Go(func() { l.each(ctx, inTLS, l.openTLS) })
	wg.Go(func() { l.each(ctx, inHTTP2, l.openHTTP2) })
	wg.Go(func() { l.each(ctx, inHTTP1, l.openHTTP1) })
	wg.Go(func() {
		defer l.http1.Close() // what comes now finds nobody
		handlers.HTTP1(l.http1)
	})
	if l.certs != nil {
		wg.Go(func() { l.watchCertificates(ctx) })
	}
	wg.Go(func() {
		<-ctx.Done()
		l.gate.stop()
		l.gate.closeSniffed()
		l.http1.Close()
	})

	mux.Serve() // ends when the gate does; its error says no more than that
	err := l.gate.failure()
	if err != nil {
		cancel()
	}
	wg.Wait()
	return err
}

// each serves every connection that cmux has found to be of one kind, in a
// goroutine of its own, and waits for them.
//
// open makes a transport of a connection, or nil when it has come to its end. An
// HTTP/2 connection stays in this goroutine for as long as it lives, so the calls
// down to where it waits for its peer are few and small: a stack that once was
// larger shrinks to 4 KiB only while less than a quarter of 8 KiB is in use.
func (l *Listener) each(ctx context.Context, kind net.Listener, open func(context.Context, *conn, []byte) *h2.Transport) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		nc, err := kind.Accept()
		if err != nil {
			return // cmux has ended
		}
		c := nc.(*cmux.MuxConn).Conn.(*conn)
		unread := c.pass()
		wg.Go(func() {
			t := open(ctx, c, unread)
			if t != nil && !l.handHTTP1(ctx, c, t) {
				l.handlers.HTTP2(ctx, t, c.info)
			}
		})
	}
}

// openHTTP2 takes a connection that begins with the preface.
func (l *Listener) openHTTP2(_ context.Context, c *conn, unread []byte) *h2.Transport {
	if l.cfg.NoClearText {
		l.refuse(c, clearRefused, refusalHTTP2)
		return nil
	}
	c.http2 = true
	return h2.NewTransport(c, unread)
}

// openHTTP1 takes a connection that begins with a request line.
func (l *Listener) openHTTP1(_ context.Context, c *conn, unread []byte) *h2.Transport {
	if l.cfg.NoClearText {
		l.refuse(c, clearRefused, refusalHTTP1)
		return nil
	}
	return h2.NewTransport(c, unread)
}

// openTLS takes a connection that begins with a TLS handshake. Whether the peer
// may enter is decided by what the handshake has come to.
func (l *Listener) openTLS(ctx context.Context, c *conn, unread []byte) *h2.Transport {
	if l.certs == nil {
		l.refuse(c, tlsRefused, refusalTLS)
		return nil
	}
	t := h2.NewServerTLS(c, unread, l.certs.current.Load().config)
	if err := l.handshake(ctx, c, t); err != nil {
		t.Close()
		return nil
	}
	c.info.TLS = t.TLS()
	c.http2 = c.info.TLS.NegotiatedProtocol == "h2"
	return t
}

// handshake agrees on TLS within the connection's deadline.
func (l *Listener) handshake(ctx context.Context, c *conn, t *h2.Transport) error {
	ctx, cancel := context.WithDeadline(ctx, c.deadline)
	defer cancel()
	err := t.Handshake(ctx)
	switch {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		l.counters.add(handshakeTimeout)
	case ctx.Err() == nil:
		l.counters.add(tlsHandshake)
		l.log.Debug("tls refused", "remote", c.info.Remote, "err", err)
		part(c) // the alert that says why is on its way
	}
	return err
}

// handHTTP1 hands a connection of HTTP/1 over, still under its deadline. Of one
// of HTTP/2 it lifts the deadline, and returns false.
func (l *Listener) handHTTP1(ctx context.Context, c *conn, t *h2.Transport) bool {
	if c.http2 {
		c.SetReadDeadline(time.Time{})
		l.counters.add(handedHTTP2)
		return false
	}
	c.SetReadDeadline(c.deadline)
	if l.http1.offer(ctx, &http1Conn{Transport: t, info: c.info, stall: l.gate.limits.stall, deadline: c.deadline}) {
		l.counters.add(handedHTTP1)
	} else {
		t.Close()
	}
	return true
}

// refuse tells the peer in its own protocol that it is not served, and closes.
func (l *Listener) refuse(c *conn, why fate, answer string) {
	l.counters.add(why)
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(refusalTime))
	if _, err := io.WriteString(c, answer); err == nil {
		part(c)
	}
}
