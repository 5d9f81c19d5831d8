package listen

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"
)

// Config says where to listen and for what. The zero value of a field is valid,
// and a Config must not be changed once New has it.
type Config struct {
	// Address to listen on, host:port. Not used with Listener.
	Address string
	// Listener was opened by somebody else, the service manager say. It is ours
	// from now on.
	Listener net.Listener

	// TLSCert and TLSKey are PEM files, both or neither; without them there is no
	// TLS. TLSClientCA is a PEM file of the authorities that clients' certificates
	// must come from; without it clients need none. All three are read again when
	// they change.
	TLSCert, TLSKey, TLSClientCA string

	// NoTLS refuses TLS, NoClearText refuses everything else. By default both
	// are served, as far as there is a certificate.
	NoTLS, NoClearText bool

	// SniffTimeout bounds how long a new connection may keep its protocol secret,
	// PROXY header included. Zero means 3s.
	SniffTimeout time.Duration
	// HandshakeDeadline bounds the time from accept to the end of the TLS
	// handshake, or of the first HTTP/1 header. Zero means 5s.
	HandshakeDeadline time.Duration
	// WriteStall ends a connection of HTTP/1 whose client takes nothing of what is
	// written to it. Zero means 5 min.
	WriteStall time.Duration

	// ProxyProtocol expects a PROXY header, of version 1 or 2, at the beginning of
	// each connection from TrustedProxies; none listed means every peer. From
	// anybody else such a header is not a header.
	ProxyProtocol  bool
	TrustedProxies []netip.Prefix

	// MaxConnections that are open at once; beyond it new ones are closed. Zero
	// means what the limit on open files allows, less a reserve; negative means no
	// bound.
	MaxConnections int
}

// validate reports everything that is wrong with the configuration.
func (c *Config) validate() error {
	var errs []error
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("tls: a certificate and its key come together"))
	}
	if c.TLSClientCA != "" && c.TLSCert == "" {
		errs = append(errs, errors.New("tls: authorities for clients, and no certificate of our own"))
	}
	if c.NoClearText && (c.NoTLS || c.TLSCert == "") {
		errs = append(errs, errors.New("neither clear text nor TLS is left to serve"))
	}
	if c.SniffTimeout < 0 {
		errs = append(errs, fmt.Errorf("sniff timeout %s: want more than 0s", c.SniffTimeout))
	}
	if c.WriteStall < 0 {
		errs = append(errs, fmt.Errorf("write stall %s: want more than 0s", c.WriteStall))
	}
	if c.HandshakeDeadline < 0 {
		errs = append(errs, fmt.Errorf("handshake deadline %s: want more than 0s", c.HandshakeDeadline))
	}
	return errors.Join(errs...)
}

// removedLimit names one limit, as in limitsOf, that New leaves out. Only a test
// binary sets it, by -ldflags "-X sluice/gateway/listen.removedLimit=NAME", to
// see which tests then go red.
var removedLimit string

// limits bound what a connection may take before it is known.
type limits struct {
	sniff       time.Duration // for the first bytes
	handshake   time.Duration // from accept to the end of the handshake
	stall       time.Duration // of a client of HTTP/1 that takes nothing
	connections int64         // open at once
	backoff     time.Duration // the first wait after an accept that failed
	proxyLength int           // of a PROXY header of version 2, behind its 16 fixed bytes
}

// Defaults of the limits. The handshake's is the time in which silent
// connections are gone (FAULTS A21). The longest PROXY header that is defined
// names two Unix sockets (216 bytes) and carries a few TLVs.
const (
	defaultSniff       = 3 * time.Second
	defaultHandshake   = 5 * time.Second
	defaultStall       = 5 * time.Minute
	defaultBackoff     = 5 * time.Millisecond
	maxBackoff         = time.Second
	defaultProxyLength = 536
)

// limitsOf returns the limits that the configuration asks for, without the one
// that is to be removed.
func limitsOf(cfg *Config, removed string) limits {
	l := limits{
		sniff:       defaultSniff,
		handshake:   defaultHandshake,
		stall:       defaultStall,
		connections: int64(cfg.MaxConnections),
		backoff:     defaultBackoff,
		proxyLength: defaultProxyLength,
	}
	if cfg.SniffTimeout > 0 {
		l.sniff = cfg.SniffTimeout
	}
	if cfg.WriteStall > 0 {
		l.stall = cfg.WriteStall
	}
	if cfg.HandshakeDeadline > 0 {
		l.handshake = cfg.HandshakeDeadline
	}
	switch {
	case l.connections == 0:
		l.connections = descriptorsForConnections()
	case l.connections < 0:
		l.connections = math.MaxInt64
	}
	switch removed {
	case "sniff_timeout":
		l.sniff = 24 * time.Hour
	case "handshake_deadline":
		l.handshake = 24 * time.Hour
	case "write_stall":
		l.stall = 24 * time.Hour
	case "max_connections":
		l.connections = math.MaxInt64
	case "accept_backoff":
		l.backoff = 0
	case "proxy_length":
		l.proxyLength = math.MaxUint16
	}
	return l
}
