package h2

import (
	"net"
	"time"
)

// A peer may make us answer at the level of TLS, with key updates. This many
// answers are given freely, and one more for each MiB received: key updates are
// due every 2^24 records at the earliest (RFC 8446, section 5.5).
const transportFreeReplies = 32

// transportRecords is what crypto/tls takes for the connection below it.
//
// During the handshake it blocks, both ways. From then on a Read never waits:
// when nothing has arrived it says so by errTransportWait, which leaves the
// tls.Conn as it is, and the waiting is done where no buffer is held. And a
// Write never waits and is never short, because either would end the tls.Conn
// for good: it appends to the transport's output.
type transportRecords struct{ t *Transport }

func (r transportRecords) Read(p []byte) (int, error) {
	if !r.t.open.Load() || r.t.raw == nil {
		n, err := r.t.readSocket(p)
		r.t.in.bytes += int64(n)
		return n, err
	}
	if len(r.t.in.unread) > 0 {
		return r.t.readSocket(p)
	}
	return r.t.readSealed(p)
}

func (r transportRecords) Write(p []byte) (int, error) {
	t := r.t
	if !t.open.Load() {
		return t.nc.Write(p)
	}
	if !t.out.sealing.Load() {
		t.out.replies.Add(1)
	}
	if err := t.out.add(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close ends a handshake whose time is up.
func (r transportRecords) Close() error         { return r.t.nc.Close() }
func (r transportRecords) LocalAddr() net.Addr  { return r.t.nc.LocalAddr() }
func (r transportRecords) RemoteAddr() net.Addr { return r.t.nc.RemoteAddr() }

// Deadlines are set on the transport; those that crypto/tls sets around its last
// alert are for connections that block.
func (r transportRecords) SetDeadline(time.Time) error      { return nil }
func (r transportRecords) SetReadDeadline(time.Time) error  { return nil }
func (r transportRecords) SetWriteDeadline(time.Time) error { return nil }

// settleReplies sends what crypto/tls had to say while it read, and ends the
// connection of a peer that provokes it without measure. What the socket does
// not take now goes with the next write.
func (t *Transport) settleReplies() error {
	n := t.out.replies.Load()
	if n == 0 {
		return nil
	}
	if n > transportFreeReplies+t.in.bytes>>20 && removedLimit != "tls_replies" {
		return errTransportReplies
	}
	_, err := t.flush()
	return err
}
