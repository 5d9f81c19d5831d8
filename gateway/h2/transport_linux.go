package h2

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// transportUnsent is how much the kernel may hold of what was written and not
// yet sent. Beyond it the socket counts as full, so that what waits for a slow
// peer waits with us, where it can be scheduled.
const transportUnsent = 128 << 10

// transportPoll holds the calls that run on the descriptor, made once so that
// none of them allocates. The runtime's poller waits between two attempts of a
// call. It reports a change of state once, and forgets the report when the next
// call begins; so each call makes its attempt before it waits.
type transportPoll struct {
	tcp     bool
	read    func(fd uintptr) bool
	receive func(fd uintptr) bool
	write   func(fd uintptr) bool
	drain   func(fd uintptr) bool

	// Of write, owned by the writer. In TLS guarded by the output's mutex.
	p   []byte
	n   int
	err error

	// Of drain, owned by the writer.
	waited   bool
	drainErr error
	events   [1]unix.PollFd
}

// preparePoll reaches for the descriptor and sets the socket's options.
func (t *Transport) preparePoll() {
	conn, ok := t.nc.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	t.raw = raw
	t.poll.read = t.readAttempt
	t.poll.receive = t.receiveAttempt
	t.poll.write = t.writeAttempt
	t.poll.drain = t.drainAttempt
	// Sockets that are not of TCP refuse it, and work without.
	t.poll.tcp = t.setSocketOption(unix.TCP_NOTSENT_LOWAT, transportUnsent) == nil
}

// setUserTimeout ends the connection when bytes that were sent remain
// unacknowledged for d. Zero means the system's own patience.
func (t *Transport) setUserTimeout(d time.Duration) error {
	if t.raw == nil {
		return nil
	}
	return t.setSocketOption(unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}

func (t *Transport) setSocketOption(option, value int) error {
	var err error
	if ctlErr := t.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value)
	}); ctlErr != nil {
		return ctlErr
	}
	return os.NewSyscallError("setsockopt", err)
}

// fillPolled is fill on a descriptor.
func (t *Transport) fillPolled(b *readBuffer) error {
	in := &t.in
	in.into = b
	err := t.raw.Read(t.poll.read)
	n := in.n
	in.into, in.n = nil, 0
	if err != nil { // of the poller: no attempt has had a result
		return err
	}
	if err, in.err = in.err, nil; n > 0 {
		return nil // an error will come again
	}
	return err
}

// receivePolled is receive on a descriptor.
func (t *Transport) receivePolled(b *readBuffer, handle func() error, w *transportWatch) error {
	for t.tls == nil && len(t.in.unread) > 0 {
		t.in.took(b.add(t.in.unread))
		if err := handle(); err != nil {
			return err
		}
	}
	in := &t.in
	in.into, in.handle, in.watch = b, handle, w
	t.receiving.Store(receivingNow)
	var err error
	for err == nil {
		// A short read of a socket of another kind does not mean that it is empty.
		in.unsure = t.poll.tcp && w.runs()
		if err = t.raw.Read(t.poll.receive); err == nil {
			err = in.err
		}
	}
	in.into, in.handle, in.watch, in.unsure, in.err = nil, nil, nil, false, nil
	if !t.receiving.CompareAndSwap(receivingNow, receivingNot) {
		t.nc.Close()
		return net.ErrClosed
	}
	return err
}

// receiveAttempt reads what there is, has it handled, and returns false when it
// is time to wait. It returns true to be called again, too: the poller then
// looks whether the connection was closed meanwhile, or is late.
func (t *Transport) receiveAttempt(fd uintptr) bool {
	in := &t.in
	in.fd = int(fd)
	in.watched.awake()
	p := in.into.space()
	if len(p) == 0 {
		in.err = errTransportFull
		return true
	}
	n, err := t.readArrived(p)
	in.into.end += n
	if n > 0 {
		if in.err = in.handle(); in.err != nil {
			return true
		}
	}
	switch {
	case n == len(p):
		return true
	case err != nil && err != errTransportWait:
		if n == 0 {
			in.err = err
		}
		return true // with n > 0 it will come again
	case err == errTransportWait && !in.dry: // the socket said so
	case !in.unsure:
		return true
	case !in.watch.note(t):
		return true
	}
	in.into.park()
	return false
}

// readArrived reads once, or in TLS as long as there is something to open.
func (t *Transport) readArrived(p []byte) (int, error) {
	if t.tls != nil {
		return t.readOpened(p)
	}
	n, err := readDescriptor(t.in.fd, p)
	t.in.dry = err == nil && n < len(p)
	return n, err
}

// lookAt wakes the reader of a socket whose stream has ended. Nothing more can
// come of it; to shut down our end of that direction changes the socket's
// state, and that the poller reports.
func lookAt(fd uintptr) {
	var p [1]byte
	switch n, _, err := unix.Recvfrom(int(fd), p[:], unix.MSG_PEEK|unix.MSG_DONTWAIT); {
	case err == unix.EAGAIN || err == unix.EINTR || n > 0:
		// Open, or about to be read.
	default:
		unix.Shutdown(int(fd), unix.SHUT_RD)
	}
}

// readPolled reads from TLS on a descriptor, for those who can block.
func (t *Transport) readPolled(p []byte) (int, error) {
	in := &t.in
	in.p = p
	err := t.raw.Read(t.poll.read)
	n := in.n
	in.p, in.n = nil, 0
	if err != nil {
		return 0, err
	}
	if err, in.err = in.err, nil; n > 0 {
		return n, nil
	}
	return 0, err
}

// readAttempt reads what there is, and returns false when there is nothing.
func (t *Transport) readAttempt(fd uintptr) bool {
	in := &t.in
	in.fd = int(fd)
	p := in.p
	if in.into != nil {
		p = in.into.space()
	}
	in.n, in.err = t.readArrived(p)
	if in.into != nil {
		in.into.end += in.n
		if in.n == 0 {
			in.into.park()
		}
	}
	return in.err != errTransportWait || in.n > 0
}

// readOpened opens what has arrived, record by record. In fill it stops where a
// second look at a socket that was just emptied would be next; in receive that
// look is not taken.
func (t *Transport) readOpened(p []byte) (n int, err error) {
	in := &t.in
	if err := t.settleReplies(); err != nil {
		return 0, err
	}
	for in.dry = false; n < len(p) && err == nil; {
		var m int
		m, err = t.tls.Read(p[n:])
		n += m
		if !in.unsure && in.dry && len(in.sealed.buf) == 0 {
			break
		}
	}
	if replyErr := t.settleReplies(); n == 0 && replyErr != nil {
		return 0, replyErr
	}
	return n, err
}

// readSealed gives crypto/tls what has arrived.
func (t *Transport) readSealed(p []byte) (int, error) {
	in := &t.in
	if in.sealed.start == in.sealed.end {
		if in.dry && in.unsure {
			return 0, errTransportWait
		}
		space := in.sealed.space()
		n, err := readDescriptor(in.fd, space)
		if err != nil {
			in.sealed.release()
			return 0, err
		}
		in.sealed.end += n
		in.bytes += int64(n)
		in.dry = n < len(space)
	}
	n := copy(p, in.sealed.bytes())
	in.sealed.consume(n)
	if in.sealed.end == 0 {
		in.sealed.release()
	}
	return n, nil
}

// readDescriptor reads once, and fails with errTransportWait when nothing is
// there.
func readDescriptor(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		switch {
		case err == nil && n == 0:
			return 0, io.EOF
		case err == nil:
			return n, nil
		case err == syscall.EAGAIN:
			return 0, errTransportWait
		case err != syscall.EINTR:
			return 0, os.NewSyscallError("read", err)
		}
	}
}

// writePolled writes p as far as the socket takes it.
func (t *Transport) writePolled(p []byte) (n int, blocked bool, err error) {
	if len(p) == 0 {
		return 0, false, nil
	}
	w := &t.poll
	w.p, w.n, w.err = p, 0, nil
	err = t.raw.Write(w.write)
	w.p = nil
	if err == nil {
		err = w.err
	}
	return w.n, err == nil && w.n < len(p), err
}

// writeAttempt writes until the socket takes no more. It never waits.
func (t *Transport) writeAttempt(fd uintptr) bool {
	w := &t.poll
	for w.n < len(w.p) {
		n, err := syscall.Write(int(fd), w.p[w.n:])
		switch {
		case err == nil:
			w.n += n
			t.out.taken.Add(int64(n))
		case err == syscall.EAGAIN:
			return true
		case err != syscall.EINTR:
			w.err = os.NewSyscallError("write", err)
			return true
		}
	}
	return true
}

// flushPolled writes what waits as far as the socket takes it. The caller holds
// the output's mutex, and something waits.
func (t *Transport) flushPolled() (blocked bool, err error) {
	n, blocked, err := t.writePolled(t.out.pending[t.out.sent:])
	return blocked, t.out.wrote(n, err)
}

// wrote accounts for n more bytes that the socket took.
func (o *transportOutput) wrote(n int, err error) error {
	if o.sent += n; o.sent == len(o.pending) {
		o.drained()
	}
	return err
}

// drainPolled waits until the socket has taken what waits and takes more.
func (t *Transport) drainPolled() error {
	if t.tls == nil {
		t.poll.waited = false
		return t.raw.Write(t.poll.drain)
	}
	for t.beginPolling() {
		err := t.raw.Write(t.poll.drain)
		if err == nil {
			err = t.poll.drainErr
		}
		t.endPolling()
		if err != nil {
			return err
		}
	}
	return nil
}

// beginPolling announces that who is about to hold the descriptor's write side,
// waiting, flushes what others add meanwhile: they would block if they tried
// themselves. It returns false when nothing waits.
func (t *Transport) beginPolling() bool {
	t.out.mu.Lock()
	defer t.out.mu.Unlock()
	t.out.polling = t.out.pending != nil
	return t.out.polling
}

func (t *Transport) endPolling() {
	t.out.mu.Lock()
	defer t.out.mu.Unlock()
	t.out.polling = false
}

// drainAttempt returns false when the poller has to wait.
func (t *Transport) drainAttempt(fd uintptr) bool {
	if t.tls == nil {
		return t.drainAttemptClear(fd)
	}
	o, w := &t.out, &t.poll
	o.mu.Lock()
	defer o.mu.Unlock()
	w.drainErr = nil
	if o.pending == nil {
		return true
	}
	w.p, w.n, w.err = o.pending[o.sent:], 0, nil
	t.writeAttempt(fd)
	w.p = nil
	w.drainErr = o.wrote(w.n, w.err)
	return w.drainErr != nil || o.pending == nil
}

// drainAttemptClear asks the socket whether it takes bytes, once; after that the
// poller's word is enough.
func (t *Transport) drainAttemptClear(fd uintptr) bool {
	w := &t.poll
	if w.waited {
		return true
	}
	w.waited = true
	w.events[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}
	for {
		n, err := unix.Poll(w.events[:], 0)
		if err != unix.EINTR {
			return n != 0 || err != nil
		}
	}
}
