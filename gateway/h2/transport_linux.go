package h2

import (
	"io"
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
	read  func(fd uintptr) bool
	write func(fd uintptr) bool
	drain func(fd uintptr) bool

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
	t.poll.write = t.writeAttempt
	t.poll.drain = t.drainAttempt
	// Sockets that are not of TCP refuse it, and work without.
	t.setSocketOption(unix.TCP_NOTSENT_LOWAT, transportUnsent)
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
	if t.tls != nil {
		in.n, in.err = t.readOpened(p)
	} else {
		in.n, in.err = readDescriptor(in.fd, p)
	}
	if in.into != nil {
		in.into.end += in.n
		if in.n == 0 {
			in.into.park()
		}
	}
	return in.err != errTransportWait || in.n > 0
}

// readOpened opens what has arrived, record by record, as long as it takes no
// second look at a socket that was just emptied. Waiting after a short read
// would be another matter: the end of the stream may have come along with it,
// and is only told to who reads again.
func (t *Transport) readOpened(p []byte) (n int, err error) {
	in := &t.in
	for in.dry = false; n < len(p); {
		var m int
		m, err = t.tls.Read(p[n:])
		n += m
		if replyErr := t.settleReplies(); replyErr != nil {
			return n, replyErr
		}
		if err != nil || in.dry && len(in.sealed.buf) == 0 {
			break
		}
	}
	return n, err
}

// readSealed gives crypto/tls what has arrived.
func (t *Transport) readSealed(p []byte) (int, error) {
	in := &t.in
	if in.sealed.start == in.sealed.end {
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
