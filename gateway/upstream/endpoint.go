package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
)

const (
	// defaultMaxConns bounds the connections to one endpoint. With 100 streams on
	// each, as many servers allow, that is 25,600 RPCs at once.
	defaultMaxConns = 256
	// maxWaiting bounds the streams that wait for a connection to one endpoint: 40
	// clients with all of their 100 streams, who arrive before the first dial is done.
	maxWaiting = 4000
	// streamsGuess is how many streams a connection will take, as long as none has
	// told: what many servers allow.
	streamsGuess = 100
	// Reconnecting starts at backoffMin and doubles to backoffMax, each time
	// multiplied by a random factor of 0.5 to 1, so that gateways that lost the same
	// backend do not come back together.
	backoffMin = 100 * time.Millisecond
	backoffMax = 10 * time.Second
	// askAgain is how soon an endpoint that had refused is asked again when a stream
	// has nowhere else to go.
	askAgain = 10 * time.Millisecond
	// steady is how long a connection lives of an endpoint that is well. One that
	// loses them earlier and unused, again and again, is dialled no faster than one
	// that does not answer.
	steady = time.Second
)

// Why an endpoint could not take a stream. In each case the stream never left.
var (
	ErrConnecting = errors.New("no connection yet")
	ErrDown       = errors.New("endpoint cannot be reached")
	ErrFull       = errors.New("every connection is at its limit of streams")
	ErrRetired    = errors.New("endpoint was removed")
	ErrCrowded    = fmt.Errorf("more than %d streams wait for a connection", maxWaiting)
)

var errFlapping = errors.New("connections end as soon as they are made")

// Waiter is a parked stream. Resume is called once, from any goroutine, when the
// endpoint has a connection (err is nil) or could not get one.
type Waiter interface{ Resume(err error) }

// Endpoint is one address of a backend and the connections to it.
type Endpoint struct {
	balance.Node

	pool *Pool
	id   identity
	http *http1 // nil when the endpoint speaks HTTP/2

	live atomic.Pointer[[]*h2.Conn] // those that take streams; replaced whole

	mu       sync.Mutex // guards the fields below
	settings settings
	conns    []*h2.Conn // live, and draining ones
	dialling int        // goroutines at it
	down     error      // the last dial's, until one succeeds
	perConn  int        // streams that the last connection could take
	upSince  time.Time  // of the last connection
	flaps    int        // times in a row that it did not live to be steady
	unprobed bool       // the backend has complained of pings
	left     time.Time  // when the table forgot the endpoint; zero while it has it
	retired  bool
	waiters  []Waiter
	hurry    chan struct{} // ends the pause between two dials; nil unless there is one

	ctx    context.Context // of the dials; nil before the first, ends when the endpoint retires
	cancel context.CancelFunc

	dials, failures atomic.Int64
}

func newEndpoint(p *Pool, id identity) *Endpoint {
	e := &Endpoint{pool: p, id: id, perConn: streamsGuess}
	e.live.Store(new([]*h2.Conn))
	if id.http1 {
		e.http = new(http1)
	}
	return e
}

// Address returns host:port.
func (e *Endpoint) Address() string { return e.id.address }

// Backend returns the key of the backend that the endpoint belongs to.
func (e *Endpoint) Backend() string { return e.id.backend }

// Connections returns how many connections take streams now, or are open when each
// takes one request at a time.
func (e *Endpoint) Connections() int {
	if e.http != nil {
		return int(e.http.open.Load())
	}
	return len(*e.live.Load())
}

// Dials returns how often a connection was tried, and how often in vain.
func (e *Endpoint) Dials() (tried, failed int64) { return e.dials.Load(), e.failures.Load() }

// whyDown is what the last dial failed of, nil when it has not.
func (e *Endpoint) whyDown() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.down
}

// adopt puts settings in force.
func (e *Endpoint) adopt(s settings) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.settings = s
	e.SetWeight(s.weight)
	if e.http != nil {
		e.adoptHTTP1(s)
	}
	if e.left.IsZero() {
		return
	}
	e.left = time.Time{}
	if e.dialling == 0 { // nobody would find out that it is back
		e.down = nil
		e.SetUsable(true)
	}
}

// leave notes that no table mentions the endpoint any more.
func (e *Endpoint) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.left.IsZero() {
		e.left = time.Now()
	}
}

// unwanted reports whether the endpoint has left for so long that no RPC can be on
// its way to it.
func (e *Endpoint) unwanted(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiters) > 0 && !e.left.IsZero() {
		e.left = now
	}
	return !e.left.IsZero() && now.Sub(e.left) >= linger
}

// Open opens a stream on the first connection that has room. The fewer
// connections carry the load, the more frames share a system call; only where
// another reader is at work on a connection the next one is asked first.
func (e *Endpoint) Open(s *h2.Stream, o *h2.Opening, b *h2.Batch) error {
	for {
		seen := e.live.Load()
		if err := e.openOn(*seen, s, o, b); err != errNoRoom {
			return err
		}
		if err := e.want(seen); err != errNoRoom {
			return err
		}
	}
}

// errNoRoom is between Open and its parts: no connection of those seen has room.
var errNoRoom = errors.New("no connection has room")

func (e *Endpoint) openOn(conns []*h2.Conn, s *h2.Stream, o *h2.Opening, b *h2.Batch) error {
	busy, stuck := false, false
	for _, c := range conns {
		if c.Full() {
			continue
		}
		err := c.TryOpen(s, o, b)
		if err == nil {
			return nil
		}
		busy = busy || err == h2.ErrBusy
		stuck = stuck || err == h2.ErrStuck
		if err == h2.ErrGoingAway {
			e.forget(c)
		}
	}
	if busy {
		for _, c := range conns {
			if !c.Full() && c.Open(s, o, b) == nil {
				return nil
			}
		}
	}
	if stuck {
		return ErrFull // a further connection would lead to the same process
	}
	return errNoRoom
}

// forget stops offering streams to a connection that takes none any more.
func (e *Endpoint) forget(c *h2.Conn) {
	gentle, used := c.Parting()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drop(c, gentle, used)
}

// want sees to it that enough is being dialled for those who wait and one more,
// and says what a stream can expect. The answer is errNoRoom when there are other
// connections by now than were seen: a dial that ended meanwhile is not repeated.
func (e *Endpoint) want(seen *[]*h2.Conn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.live.Load() != seen {
		return errNoRoom
	}
	limit := e.settings.maxConns
	if limit == 0 {
		limit = defaultMaxConns
	}
	// Connections that drain are not counted: each ends with its last stream, and
	// new streams cannot wait for that.
	open := len(*e.live.Load()) + e.dialling
	switch {
	case e.retired || e.pool.ctx.Err() != nil:
		return ErrRetired
	case e.dialling > 0 && e.down != nil:
		if !e.ask() {
			return fmt.Errorf("%w: %w", ErrDown, e.down)
		}
		return ErrConnecting
	case e.dialling == 0 && open >= limit:
		return ErrFull
	}
	if e.dialling*e.perConn <= len(e.waiters) && open < limit {
		e.connect()
		if e.down != nil {
			return fmt.Errorf("%w: %w", ErrDown, e.down)
		}
	}
	return ErrConnecting
}

// Wait parks w until a dial that is going on has ended.
func (e *Endpoint) Wait(w Waiter) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.retired:
		return ErrRetired
	case e.dialling > 0 && e.down != nil && !e.ask():
		return fmt.Errorf("%w: %w", ErrDown, e.down)
	case e.dialling == 0:
		// The dial ended between Open and Wait: there is something new to try.
		e.pool.work.Go(func() { w.Resume(nil) })
		return nil
	case len(e.waiters) >= maxWaiting:
		return ErrCrowded
	}
	e.waiters = append(e.waiters, w)
	return nil
}

// ask has an endpoint that is down dialled soon, if it may be back: whoever starts
// again refuses at first, and answers a moment later. Of one that does not answer, or
// not as it should, that is not to be hoped. The caller holds mu.
func (e *Endpoint) ask() bool {
	if !errors.Is(e.down, syscall.ECONNREFUSED) && !errors.Is(e.down, syscall.ECONNRESET) {
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
		e.down = errFlapping
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
	e.mu.Lock()
	done = err == nil || e.ctx.Err() != nil || e.dialling > 1 || !e.left.IsZero()
	if done {
		e.dialling--
	}
	if err != nil {
		e.failures.Add(1)
		if e.down == nil && e.left.IsZero() && !e.retired {
			e.pool.log.Warn("endpoint not reached", "backend", e.id.backend, "addr", e.id.address, "error", err)
		}
	}
	live := len(*e.live.Load()) > 0
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
	e.SetUsable(live) // within the lock, so that no older verdict comes after a newer
	e.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrDown, err)
	}
	for _, w := range woken {
		w.Resume(err)
	}
	return done
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
	nc, err := e.pool.dial(ctx, e.id.address)
	if err != nil {
		return err
	}
	t := h2.NewTransport(nc, nil)
	if set.tls != nil {
		t = h2.NewClientTLS(nc, tlsFor(set.tls, e.id.address))
		if err := t.Handshake(ctx); err != nil {
			nc.Close()
			return fmt.Errorf("tls with %q: %w", e.id.address, err)
		}
		if got := t.TLS().NegotiatedProtocol; got != "h2" {
			nc.Close()
			return fmt.Errorf("tls with %q: alpn gave %q, want \"h2\"", e.id.address, got)
		}
	}
	return e.serve(ctx, t, set)
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

// monitor hears of one connection.
type monitor struct {
	e     *Endpoint
	ready chan struct{}
	once  sync.Once
}

// ConnReady makes the connection one that takes streams.
func (m *monitor) ConnReady(c *h2.Conn) {
	m.e.mu.Lock()
	if !m.e.retired {
		m.e.perConn = max(1, c.MaxStreams())
		m.e.upSince = time.Now()
		m.e.setLive(append(append([]*h2.Conn(nil), *m.e.live.Load()...), c))
	}
	m.e.mu.Unlock()
	if told := m.e.pool.Connected; told != nil {
		told(m.e.id.backend)
	}
	m.once.Do(func() { close(m.ready) })
}

// ConnDraining takes it out again. What is open on it goes on.
func (m *monitor) ConnDraining(c *h2.Conn) {
	e := m.e
	unwelcome := c.ProbesUnwelcome()
	gentle, used := c.Parting()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unprobed = e.unprobed || unwelcome
	e.drop(c, gentle, used)
}

func (e *Endpoint) setLive(list []*h2.Conn) { e.live.Store(&list) }

// drop takes c from the live ones. An endpoint that has no other is dialled again
// at once, and stands back until it answers; one that let go of us while there was
// nothing to do, only when it is wanted. The caller holds mu.
func (e *Endpoint) drop(c *h2.Conn, gentle, used bool) {
	var rest []*h2.Conn
	was := *e.live.Load()
	for _, other := range was {
		if other != c {
			rest = append(rest, other)
		}
	}
	if len(rest) == len(was) {
		return
	}
	e.setLive(rest)
	if len(rest) > 0 || e.retired {
		return
	}
	if e.flaps++; used || time.Since(e.upSince) >= steady {
		e.flaps = 0
	}
	if gentle && c.OpenStreams() == 0 && e.dialling == 0 && e.flaps == 0 {
		return
	}
	e.SetUsable(false)
	if e.dialling == 0 && e.left.IsZero() {
		e.connect()
	}
}

// lost forgets a connection that has ended.
func (e *Endpoint) lost(c *h2.Conn, err error) {
	var op *net.OpError
	if err != nil && !errors.As(err, &op) {
		e.pool.log.Info("connection to backend ended", "backend", e.id.backend, "addr", e.id.address, "error", err)
	}
	gentle, used := c.Parting()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drop(c, gentle, used)
	for i, other := range e.conns {
		if other == c {
			e.conns = append(e.conns[:i:i], e.conns[i+1:]...)
			break
		}
	}
}

// retire ends an endpoint that no table mentions any more: no new streams, no
// further dial, and each connection closes when its last stream has ended.
func (e *Endpoint) retire() {
	e.mu.Lock()
	e.retired = true
	if e.cancel != nil {
		e.cancel()
	}
	conns := append([]*h2.Conn(nil), e.conns...)
	e.setLive(nil)
	e.mu.Unlock()
	if e.http != nil {
		if t := e.http.transport.Load(); t != nil {
			t.CloseIdleConnections()
		}
	}
	var b h2.Batch
	for _, c := range conns {
		c.Drain(&b)
	}
	b.Flush()
}
