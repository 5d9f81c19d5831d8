package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Transport is the byte side of one connection, in clear text or in TLS.
//
// It has two faces, of which a connection uses one. To the frame engine of this
// package it offers fill for its only reader, and tryWrite and waitWrite for
// whoever owns the output at that moment: a reader there never blocks on a
// write, and a connection that waits for its peer holds no buffer. To everybody
// else it is a blocking [net.Conn], which net/http can serve HTTP/1 on.
//
// A TLS transport must have finished [Transport.Handshake] before anything else
// is read from it or written to it.
type Transport struct {
	// Fixed at construction.
	nc   net.Conn
	raw  syscall.RawConn // nil where the descriptor is out of reach: all I/O then blocks
	tls  *tls.Conn       // nil in clear text
	poll transportPoll   // the descriptor's prepared calls

	// Set by Handshake, before the reader and the writers begin.
	open  atomic.Bool
	state *tls.ConnectionState

	in transportInput // owned by the reader

	out transportOutput

	readMu    sync.Mutex // serialises Read
	writeMu   sync.Mutex // serialises Write
	closeOnce sync.Once
	closeErr  error
}

// NewTransport returns the transport of a clear text connection. The unread
// bytes were taken from nc already and are delivered first.
func NewTransport(nc net.Conn, unread []byte) *Transport {
	t := newTransport(nc, unread)
	t.open.Store(true)
	return t
}

// NewServerTLS returns the transport of a connection whose peer opens TLS on it.
// The unread bytes were taken from nc already: the beginning of a ClientHello.
func NewServerTLS(nc net.Conn, unread []byte, cfg *tls.Config) *Transport {
	t := newTransport(nc, unread)
	t.tls = tls.Server(transportRecords{t}, cfg)
	return t
}

// NewClientTLS returns the transport of a connection on which we open TLS.
func NewClientTLS(nc net.Conn, cfg *tls.Config) *Transport {
	t := newTransport(nc, nil)
	t.tls = tls.Client(transportRecords{t}, cfg)
	return t
}

func newTransport(nc net.Conn, unread []byte) *Transport {
	t := &Transport{nc: nc}
	t.in.unread = unread
	t.preparePoll()
	return t
}

// Handshake agrees on TLS, in blocking reads and writes until ctx is done; the
// connection is then closed. In clear text there is nothing to agree on.
func (t *Transport) Handshake(ctx context.Context) error {
	if t.open.Load() {
		return nil
	}
	if err := t.tls.HandshakeContext(ctx); err != nil {
		return err
	}
	state := t.tls.ConnectionState()
	t.state = &state
	t.open.Store(true)
	return nil
}

// TLS returns what the handshake agreed on, nil in clear text.
func (t *Transport) TLS() *tls.ConnectionState { return t.state }

// Read reads what has arrived, blocking until something has. It is not to be
// mixed with fill.
func (t *Transport) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	t.readMu.Lock()
	defer t.readMu.Unlock()
	return t.read(p)
}

// Write writes all of p, blocking until the socket, and with TLS nothing
// between us and it, has taken it.
func (t *Transport) Write(p []byte) (int, error) {
	if t.tls == nil {
		return t.nc.Write(p)
	}
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	total := 0
	for {
		n, blocked, err := t.tryWrite(p[total:])
		total += n
		if err == nil && blocked {
			err = t.waitWrite()
		}
		if err != nil || total == len(p) {
			return total, err
		}
	}
}

// Close closes the connection, and ends whatever waits in it. Further calls
// return what the first one did. It sends what TLS has to say at the end when
// the socket takes it at once, and never blocks for it.
func (t *Transport) Close() error {
	t.closeOnce.Do(func() {
		if t.tls != nil && t.open.Load() {
			t.tls.CloseWrite() // a truncated end is the peer's to notice
			t.flush()
		}
		t.closeErr = t.nc.Close()
	})
	return t.closeErr
}

// closeWrite tells the peer that nothing more will come: close_notify in TLS,
// then FIN. What waits for the socket goes before it; if that blocks, waitWrite
// ends with the FIN.
func (t *Transport) closeWrite() error {
	if t.tls != nil {
		if err := t.tls.CloseWrite(); err != nil {
			return err
		}
	}
	t.out.shut.Store(true)
	blocked, err := t.flush()
	if blocked || err != nil {
		return err
	}
	return t.shutdown()
}

// shutdown sends FIN, on connections that can.
func (t *Transport) shutdown() error {
	if half, ok := t.nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// LocalAddr returns the address that the peer connected to.
func (t *Transport) LocalAddr() net.Addr { return t.nc.LocalAddr() }

// RemoteAddr returns the address of the socket's other end.
func (t *Transport) RemoteAddr() net.Addr { return t.nc.RemoteAddr() }

// SetDeadline sets the read and the write deadline.
func (t *Transport) SetDeadline(at time.Time) error { return t.nc.SetDeadline(at) }

// SetReadDeadline ends fill and Read at the given time; zero means never.
func (t *Transport) SetReadDeadline(at time.Time) error { return t.nc.SetReadDeadline(at) }

// SetWriteDeadline ends tryWrite, waitWrite and Write at the given time; zero
// means never.
func (t *Transport) SetWriteDeadline(at time.Time) error { return t.nc.SetWriteDeadline(at) }

// errTransportWait is how a read of ours says that nothing has arrived yet. It
// is temporary, because crypto/tls keeps a partial record, and stays usable,
// only across errors that say so.
var errTransportWait net.Error = transportWait{}

type transportWait struct{}

func (transportWait) Error() string   { return "read would block" }
func (transportWait) Timeout() bool   { return true }
func (transportWait) Temporary() bool { return true }

// errTransportReplies ends a TLS connection whose peer provoked more answers
// below HTTP/2 (key updates) than anybody needs.
var errTransportReplies = errors.New("tls peer provoked too many replies")

// errTransportFull is a fault of the caller of fill: it must consume a whole
// frame before the buffer is full, and no frame that it accepts is that large.
var errTransportFull = errors.New("read buffer is full")

// transportOutput is what has been taken from the writers and waits for the
// socket: sealed records in TLS, copies where the descriptor is out of reach. In
// clear text on a descriptor nothing ever waits here.
type transportOutput struct {
	sealing atomic.Bool  // tls.Conn.Write is at work: its records are not replies
	shut    atomic.Bool  // FIN is due when nothing waits any more
	replies atomic.Int64 // records that crypto/tls wrote while reading
	taken   atomic.Int64 // bytes that the socket has taken

	mu      sync.Mutex // guards the fields below; never held while blocking
	pending []byte     // pooled, nil when nothing waits
	sent    int        // of pending, what the socket has taken
	lent    bool       // waitWrite writes another buffer that comes before pending
	polling bool       // waitWrite is in the poller, and flushes when it wakes
}
