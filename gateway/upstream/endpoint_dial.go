package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
)

const (
	// Reconnecting starts at backoffMin and doubles to backoffMax, each time
	// multiplied by a random factor of 0.5 to 1, so that gateways that lost the same
	// backend do not come back together.
	backoffMin = 100 * time.Millisecond
	backoffMax = 10 * time.Second
	// askAgain is how soon an endpoint that had refused is asked again when a stream
	// has nowhere else to go.
	askAgain = 10 * time.Millisecond
)

var (
	errFlapping = errors.New("connections end as soon as they are made")
	// errSpent is the same of one that takes connections, and answers nothing on them.
	errSpent  = errors.New("connections end before an RPC is answered")
	errItself = errors.New("the endpoint is this gateway itself, and RPCs would go round for ever: give the backend the address of a server, and this one to none")
)

// ask has an endpoint that is down dialled soon, if it may be back: whoever starts
// again refuses at first, and answers a moment later, and whoever hangs up takes the
// next connection. Of one that does not answer, or not as it should, that is not to be
// hoped. The caller holds mu.
func (e *Endpoint) ask() bool {
	if !errors.Is(e.down, syscall.ECONNREFUSED) && !errors.Is(e.down, syscall.ECONNRESET) && e.down != errSpent {
		return false
	}
	if e.hurry != nil {
		close(e.hurry)
		e.hurry = nil
	}
	return true
}

// connect starts a dialling goroutine. The caller holds mu.
func (e *Endpoint) connect() {
	if e.retired || e.pool.ctx.Err() != nil {
		return
	}
	if e.ctx == nil {
		e.ctx, e.cancel = context.WithCancel(e.pool.ctx)
	}
	e.dialling++
	var wait time.Duration
	if e.flaps > 1 && len(*e.live.Load()) == 0 {
		wait = min(backoffMin<<min(e.flaps-2, 10), backoffMax)
		if e.down = errFlapping; e.spent {
			e.down = errSpent
		}
	}
	e.pool.work.Go(func() { e.dialUntilUp(wait) })
}

// dialUntilUp tries until the endpoint answers or is no longer wanted, for the
// first time after wait. Streams that wait are told of the first failure: another
// endpoint may do.
func (e *Endpoint) dialUntilUp(wait time.Duration) {
	for ; ; wait = min(max(2*wait, backoffMin), backoffMax) {
		if wait > 0 {
			e.pause(wait)
		}
		if e.settle(e.dialOnce(e.ctx)) {
			return
		}
	}
}

// pause waits for a half to the whole of d, for no longer than askAgain once
// somebody asks, or until no dial is wanted.
func (e *Endpoint) pause(d time.Duration) {
	d = time.Duration(float64(d) * (0.5 + rand.Float64()/2))
	hurry := make(chan struct{})
	e.mu.Lock()
	if len(e.waiters) > 0 { // somebody has asked already
		d = min(d, askAgain)
	} else {
		e.hurry = hurry
	}
	e.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	for waiting := true; waiting; {
		select {
		case <-e.ctx.Done():
			waiting = false
		case <-timer.C:
			waiting = false
		case <-hurry:
			hurry = nil
			timer.Reset(min(d, askAgain))
		}
	}
	e.mu.Lock()
	e.hurry = nil
	e.mu.Unlock()
}

// settle notes how a dial went and wakes who waited for it: as many as a
// connection takes, or all when there is none. It reports whether this goroutine
// is done: only one goes on trying an endpoint that is down.
func (e *Endpoint) settle(err error) (done bool) {
	var news *line
	e.mu.Lock()
	live := len(*e.live.Load()) > 0
	done = err == nil || e.ctx.Err() != nil || e.dialling > 1 || !e.left.IsZero()
	if done {
		e.dialling--
	}
	if err != nil {
		e.failures.Add(1)
		e.missed = e.missed || !live
		if e.down == nil && e.left.IsZero() && !e.retired {
			news = e.unreached(err)
		}
	}
	n := len(e.waiters)
	if err == nil && e.dialling > 0 {
		n = min(n, e.perConn)
	}
	if err == nil || !live {
		e.down = err
	}
	woken := e.waiters[:n:n]
	e.waiters = e.waiters[n:]
	if err == nil && !live && e.dialling == 0 && e.left.IsZero() {
		e.connect() // it was lost before we came to look
	}
	e.mark(balance.Down, !live) // within the lock, so that no older verdict comes after a newer
	e.mu.Unlock()
	e.pool.write(news)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrDown, err)
	}
	for _, w := range woken {
		w.Resume(err)
	}
	return done
}

// connection is a new one to the endpoint. Where it has led is looked at only now: names
// change what they mean, and an address has many spellings.
func (e *Endpoint) connection(ctx context.Context) (net.Conn, error) {
	nc, err := e.pool.dial(ctx, e.id.address)
	if err != nil {
		return nil, err
	}
	if at, ok := nc.RemoteAddr().(*net.TCPAddr); ok && e.pool.isOwn(at.AddrPort()) {
		nc.Close()
		return nil, fmt.Errorf("%q leads to %s: %w", e.id.address, at, errItself)
	}
	return nc, nil
}

// dialOnce connects, agrees on TLS and waits for the peer's SETTINGS, all within
// the connect timeout. The connection then serves in a goroutine of its own.
func (e *Endpoint) dialOnce(ctx context.Context) error {
	e.dials.Add(1)
	e.mu.Lock()
	set := e.settings
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, set.timeout)
	defer cancel()
	t, err := e.transport(ctx, set)
	if err != nil {
		return err
	}
	return e.serve(ctx, t, set)
}

// transport connects, and agrees on TLS.
func (e *Endpoint) transport(ctx context.Context, set settings) (*h2.Transport, error) {
	nc, err := e.connection(ctx)
	if err != nil {
		return nil, err
	}
	if set.tls == nil {
		return h2.NewTransport(nc, nil), nil
	}
	t := h2.NewClientTLS(nc, tlsFor(set.tls, e.id.address))
	if err := t.Handshake(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("tls with %q: %w", e.id.address, err)
	}
	if got := t.TLS().NegotiatedProtocol; got != "h2" {
		nc.Close()
		return nil, fmt.Errorf("tls with %q: alpn gave %q, want \"h2\"", e.id.address, got)
	}
	return t, nil
}

// serve runs a connection and waits until it can take streams.
func (e *Endpoint) serve(ctx context.Context, t *h2.Transport, set settings) error {
	m := &monitor{e: e, ready: make(chan struct{})}
	c := e.pool.eng.NewClient(t, m, set.maxStreams)
	run := e.pool.ctx
	e.mu.Lock()
	if e.retired {
		e.mu.Unlock()
		t.Close()
		return ErrRetired
	}
	e.conns = append(e.conns, c)
	unprobed := e.unprobed
	e.mu.Unlock()
	if unprobed {
		c.NeverProbe()
	}
	ended := make(chan error, 1)
	e.pool.work.Go(func() {
		err := c.Run(run)
		ended <- err
		e.lost(c, err)
	})
	select {
	case <-m.ready:
		return nil
	case err := <-ended:
		if err == nil {
			err = io.EOF
		}
		return fmt.Errorf("http/2 with %q: connection ended before SETTINGS: %w", e.id.address, err)
	case <-ctx.Done():
		t.Close()
		return fmt.Errorf("http/2 with %q: no SETTINGS within %v", e.id.address, set.timeout)
	}
}
