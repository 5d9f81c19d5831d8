package upstream

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
)

const (
	// streamsGuess is how many streams a connection will take, as long as none has
	// told: what many servers allow.
	streamsGuess = 100
	// steady is how long a connection lives of an endpoint that is well. One that
	// loses them earlier, and has answered nothing, again and again, is dialled no faster
	// than one that cannot be reached.
	steady = time.Second
)

// Waiter is a parked stream. Resume is called once, from any goroutine, when the
// endpoint has a connection (err is nil) or could not get one.
type Waiter interface{ Resume(err error) }

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
		if c.Full() || busy && c.Silent() { // rather wait a moment than for ever
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
		m.e.answered, _, _ = m.e.tally.totals()
		m.e.setLive(append(append([]*h2.Conn(nil), *m.e.live.Load()...), c))
		if m.e.hushed {
			m.e.listen()
		}
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

// ConnSilent has others preferred while a connection does not answer.
func (m *monitor) ConnSilent(*h2.Conn) {
	m.e.mu.Lock()
	m.e.listen()
	m.e.mu.Unlock()
}

// listen sees whether the endpoint hangs: a connection is silent, and no other has been
// heard since it was asked. New streams go to those that are heard. The caller holds mu.
func (e *Endpoint) listen() {
	var heard, asked time.Time
	var list, silent []*h2.Conn
	for _, c := range *e.live.Load() {
		lastHeard, lastAsked := c.LastHeard()
		if c.Silent() {
			silent = append(silent, c)
			asked = later(asked, lastAsked)
		} else {
			list = append(list, c)
			heard = later(heard, lastHeard)
		}
	}
	e.hushed = len(silent) > 0
	if e.hushed && len(list) > 0 {
		e.setLive(append(list, silent...))
	}
	stalled := e.hushed && !heard.After(asked)
	e.relief.note(stalled, time.Now())
	e.mark(balance.Stalled, stalled)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
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
	e.health.unwatch(c)
	if e.hushed {
		e.listen()
	}
	if len(rest) > 0 || e.retired {
		return
	}
	now := time.Now()
	if e.flaps++; now.Sub(e.upSince) >= steady || used && (gentle || e.hasAnswered()) {
		e.flaps = 0
	}
	e.spent = used
	if gentle && c.OpenStreams() == 0 && e.dialling == 0 && e.flaps == 0 {
		return
	}
	if e.parted = (time.Time{}); gentle {
		e.parted = now
	}
	e.mark(balance.Down, true)
	if e.dialling == 0 && e.left.IsZero() {
		e.connect()
	}
}

// hasAnswered tells whether an RPC has ended well since the last connection was made. The
// caller holds mu.
func (e *Endpoint) hasAnswered() bool {
	succeeded, _, _ := e.tally.totals()
	return succeeded > e.answered
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
