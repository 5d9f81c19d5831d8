package h2

import "sync"

const (
	// transportPortion is how much is sealed or copied before the socket gets
	// its turn.
	transportPortion = 64 << 10

	// transportPendingSize bounds what may wait for the socket: a portion, what
	// its records add to it (29 bytes for each 1 KiB at worst, in practice), and
	// some room for replies of TLS itself.
	transportPendingSize = 80 << 10
)

var transportPendingPool = sync.Pool{New: func() any { return new([transportPendingSize]byte) }}

// tryWrite writes as much of p as the socket takes, and never blocks. The first
// n bytes of p are taken: they need not be offered again. When blocked is true
// the socket takes no more for now, or bytes taken earlier still wait for it
// (also with n == len(p)): somebody has to call waitWrite before it is worth
// trying again. The caller sees to it that there is one call at a time, of this
// or of waitWrite.
//
// An offer of nothing only pushes what waits.
func (t *Transport) tryWrite(p []byte) (n int, blocked bool, err error) {
	if t.raw != nil && t.tls == nil {
		return t.writePolled(p)
	}
	for {
		blocked, err = t.flush()
		if blocked || err != nil || n == len(p) {
			return n, blocked, err
		}
		part := p[n:min(len(p), n+transportPortion)]
		if err := t.take(part); err != nil {
			return n, false, err
		}
		n += len(part)
	}
}

// waitWrite blocks until the socket takes bytes again, and everything that was
// taken by tryWrite before is with it. The write deadline and Close end it.
func (t *Transport) waitWrite() error {
	if err := t.drain(); err != nil {
		return err
	}
	if t.out.shut.Load() {
		return t.shutdown()
	}
	return nil
}

func (t *Transport) drain() error {
	if t.raw != nil {
		return t.drainPolled()
	}
	return t.drainBlocking()
}

// take makes the bytes ours: sealed in TLS, as they are in clear text. Nothing
// waits when it is called.
func (t *Transport) take(p []byte) error {
	if t.tls == nil {
		return t.out.add(p)
	}
	t.out.sealing.Store(true)
	_, err := t.tls.Write(p)
	t.out.sealing.Store(false)
	return err
}

// add appends to what waits. It takes all or nothing, and fails only when a
// flood of replies has left no room.
func (o *transportOutput) add(p []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pending == nil {
		o.pending = transportPendingPool.Get().(*[transportPendingSize]byte)[:0]
	}
	if len(o.pending)+len(p) > transportPendingSize {
		return errTransportReplies
	}
	o.pending = append(o.pending, p...)
	return nil
}

// flush offers what waits to the socket, without blocking.
func (t *Transport) flush() (blocked bool, err error) {
	t.out.mu.Lock()
	defer t.out.mu.Unlock()
	if t.raw == nil {
		return t.out.pending != nil || t.out.lent, nil
	}
	if t.out.pending == nil {
		return false, nil
	}
	if t.out.polling {
		return true, nil
	}
	return t.flushPolled()
}

// drainBlocking writes what waits, in clear view of nobody: the buffer is taken
// out, because a mutex must not be held while blocking.
func (t *Transport) drainBlocking() error {
	o := &t.out
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.pending != nil {
		p := o.pending
		o.pending, o.lent = nil, true
		o.mu.Unlock()
		err := t.writeBlocking(p)
		o.mu.Lock()
		o.lent = false
		transportPendingPool.Put((*[transportPendingSize]byte)(p[:transportPendingSize]))
		if err != nil {
			return err
		}
	}
	return nil
}

// writeBlocking writes p in pieces, so that it can be seen from outside how fast
// the peer takes them.
func (t *Transport) writeBlocking(p []byte) error {
	const piece = 4 << 10
	for len(p) > 0 {
		n, err := t.nc.Write(p[:min(len(p), piece)])
		t.out.taken.Add(int64(n))
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// drained gives the buffer back; the caller holds o.mu.
func (o *transportOutput) drained() {
	transportPendingPool.Put((*[transportPendingSize]byte)(o.pending[:transportPendingSize]))
	o.pending, o.sent = nil, 0
}
