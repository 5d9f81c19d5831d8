package listen

import "sync/atomic"

// A fate is what became of a connection, or of an attempt to take one.
type fate uint8

const (
	accepted         fate = iota // let in
	handedHTTP2                  // handed over as HTTP/2
	handedHTTP1                  // handed over as HTTP/1
	overCap                      // closed, because MaxConnections are open
	acceptBackoff                // accept failed: descriptors or memory ran out
	sniffTimeout                 // silent, or nearly, for too long
	sniffClosed                  // gone before it said what it is
	unknownProtocol              // it said something that is no protocol of ours
	stopped                      // closed by us, when the port ended, before it said what it is
	handshakeTimeout             // TLS was not agreed on in time
	tlsHandshake                 // TLS could not be agreed on
	tlsRefused                   // TLS, where there is none
	clearRefused                 // clear text, where there is only TLS
	proxyHeader                  // a trusted peer's PROXY header is missing or wrong
	certificateError             // certificate files were read and could not be used
	numFates
)

var fateNames = [numFates]string{
	"accepted", "http2", "http1", "over_cap", "accept_backoff", "sniff_timeout", "sniff_closed",
	"unknown_protocol", "stopped", "handshake_timeout", "tls_handshake", "tls_refused", "clear_refused", "proxy_header", "certificate_error",
}

// Counter counts one kind of event at the port since the start.
type Counter struct {
	Name string // a word for a label
	n    atomic.Int64
}

// Value returns how often it has happened.
func (c *Counter) Value() int64 { return c.n.Load() }

// counters are one for each fate.
type counters [numFates]Counter

func newCounters() *counters {
	c := new(counters)
	for i := range c {
		c[i].Name = fateNames[i]
	}
	return c
}

func (c *counters) add(f fate) { c[f].n.Add(1) }

// Counters returns all counters of the port, those at zero too, always in the
// same order.
func (l *Listener) Counters() []*Counter {
	all := make([]*Counter, numFates)
	for i := range all {
		all[i] = &l.counters[i]
	}
	return all
}

// CertificateErrors returns how often certificate files were read and could not
// be used.
func (l *Listener) CertificateErrors() int64 { return l.counters[certificateError].Value() }
