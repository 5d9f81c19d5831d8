package h2

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Acceptor is the server's side of what a client asks for.
type Acceptor interface {
	// AcceptStream is told of each new stream, on the connection's reader: it must
	// not block. It calls s.Bind before anything else. end is true when the request
	// has no body. h is valid during the call.
	AcceptStream(s *Stream, h *Head, end bool, b *Batch)
}

// Monitor hears what a client connection's owner has to know, on the reader unless said
// otherwise, and without locks. Calls may come from several goroutines.
type Monitor interface {
	ConnReady(c *Conn)    // the peer's SETTINGS are known
	ConnDraining(c *Conn) // no stream can be opened any more; those that are open go on
	// ConnSilent says that c.Silent has changed. It comes on the reader, or on the
	// engine's sweep.
	ConnSilent(c *Conn)
}

// Sink takes the events of one stream, on its connection's reader unless said
// otherwise, one at a time and without locks. It must not block.
type Sink interface {
	// Header is an interim (1xx) or final response, or trailers (end is then true).
	Header(s *Stream, h *Head, end bool, b *Batch)
	// Data is payload, valid during the call. Its credit is owed to the sender until
	// somebody calls s.Credit, or a stream whose source is s has sent it.
	Data(s *Stream, p []byte, end bool, b *Batch)
	// Ended is the end of a stream that did not end by itself. It may come from any
	// goroutine, and comes at most once, but that DrainEnded, AgeEnded and Evicted may
	// come before: a sink that does not end the stream then hears of its end as well.
	Ended(s *Stream, e Ending, b *Batch)
}

// Conn is one HTTP/2 connection, to a client or to a backend.
type Conn struct {
	// Fixed at construction.
	eng      *Engine
	tr       *Transport
	side     Side
	acceptor Acceptor // downstream
	monitor  Monitor  // upstream
	window   int32    // initial stream window that we grant, bytes
	cap      uint32   // our own limit on open streams
	since    time.Time
	lifespan time.Duration // downstream: when it is old, from since; zero never
	done     chan struct{} // closed when Run has cleaned up

	// Owned by the reader.
	in       readBuffer
	dec      decoder
	scratch  *scratch // nil between wake-ups
	block    headerBlock
	batch    Batch
	now      time.Time // of this wake-up
	greeted  bool      // the preface has been read
	settled  bool      // the peer's first SETTINGS have arrived
	spoke    bool      // HEADERS or DATA have arrived since heard was told; upstream only
	highest  uint32    // the highest stream id that a client has used
	credit   int32     // of the connection window: received and not yet granted again
	headroom int32     // of the connection window: what the peer may still send
	guard    guard

	// Written under mu, read by anyone.
	open    atomic.Int32  // streams
	maxOpen atomic.Uint32 // how many there may be
	silent  atomic.Bool   // the backend has not answered the question whether it lives
	doubted atomic.Bool   // somebody has asked that, and nothing has come since; changes under mu

	mu       mutex // guards the fields below
	streams  map[uint32]*Stream
	finished *finished // ids of streams that came to their own end; upstream only
	torn     *finished // ids of streams that their peer has reset; upstream only
	forgiven forgiven  // ids that we closed while the peer could still send
	enc      encoder
	send     int32  // connection window towards the peer, bytes
	initial  int32  // the peer's initial stream window
	maxList  uint32 // the peer's limit on header lists, bytes; 0 = none told
	nextID   uint32
	ready    *Stream // ring of streams with DATA and window
	inBatch  *Batch
	crowd    int           // the most streams that the map has held
	out      []byte        // frames in the order that they will have on the wire
	box      *[]byte       // of the pool, where out goes back to
	credits  []credit      // whose DATA is in out
	control  int           // provoked replies in out and on their way
	ends     int           // of streams that we ended in out and on their way
	writing  bool          // somebody owns the socket's output
	seized   bool          // by the reader, at the end
	handed   chan struct{} // closed when the reader has what it seized
	passed   int64         // bytes of output that were given to who owns the socket
	unsent   int64         // of them, those that the socket has certainly not taken: set once it failed
	closing  bool          // nothing more will be written; the reader is on its way out
	why      Reason        // of the end; the first one stands
	blocked  bool          // the socket did not take everything; the writer goroutine is at it
	pace     pace          // at which the peer takes what waits
	tookAt   int64         // bytes that the socket had taken when pace was last looked at
	waiting  int           // bytes of DATA in stream queues
	drain    drainState
	leaving  Reason    // why we drain
	asked    time.Time // since when
	goneAway uint32    // the peer's GOAWAY: highest id that it answers; maxStreamID before
	gently   bool      // its GOAWAY named no error
	probe    *probe    // upstream only
	patient  int       // streams that nobody waits for
	asides   uint32    // how many of them there have been
	dataSent int       // DATA frames ever sent, for WINDOW_UPDATE's formula
	begun    bool      // our SETTINGS are on their way
	acked    bool
	idle     time.Time // since when there are no streams; zero while there are
}

// outputHigh is how much output is gathered before DATA stays in its stream's
// queue, bytes. Twice a reader's batch, so that what one wake-up reads is
// copied once.
const outputHigh = 2 * readBufferSize

// NewServer returns the connection of a client that was accepted at since.
func (e *Engine) NewServer(t *Transport, a Acceptor, since time.Time) *Conn {
	c := e.newConn(t, Downstream, e.limits.Window, since)
	c.acceptor = a
	c.maxOpen.Store(e.limits.MaxConcurrentStreams)
	c.lifespan = e.limits.Lifespan()
	return c
}

// upstreamWindow is the first window of a backend's responses, bytes: backends
// are near, so that a longer response loses a round trip of microseconds, and
// thousands of clients that stop reading cost 16 KiB each.
const upstreamWindow = 16 << 10

// userTimeout is how long bytes may stay unacknowledged before the kernel gives a
// backend's connection up (TCP_USER_TIMEOUT).
const userTimeout = 20 * time.Second

// NewClient returns a connection to a backend. maxStreams caps what the backend
// allows; zero means the engine's limit.
func (e *Engine) NewClient(t *Transport, m Monitor, maxStreams uint32) *Conn {
	c := e.newConn(t, Upstream, min(upstreamWindow, e.limits.Window), time.Now())
	c.monitor = m
	c.probe, c.finished, c.torn = new(probe), new(finished), new(finished)
	c.greeted = true
	c.nextID = 1
	if maxStreams == 0 {
		maxStreams = e.limits.MaxUpstreamStreams
	}
	c.cap = maxStreams
	c.maxOpen.Store(maxStreams)
	t.setUserTimeout(userTimeout)
	return c
}

func (e *Engine) newConn(t *Transport, side Side, window int32, since time.Time) *Conn {
	return &Conn{
		eng: e, tr: t, side: side, window: window, since: since,
		done:     make(chan struct{}),
		dec:      newDecoder(),
		enc:      newEncoder(),
		headroom: e.limits.ConnWindow,
		send:     defaultWindow,
		initial:  defaultWindow,
		goneAway: maxStreamID,
	}
}

// defaultWindow is what both windows are before anything was said, RFC 9113
// section 6.9.2, bytes.
const defaultWindow = 65535

// Transport returns the connection's byte side.
func (c *Conn) Transport() *Transport { return c.tr }

// Done is closed when the connection has ended and all its sinks know.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Run speaks HTTP/2 with the peer until the connection ends or ctx is done. When
// it returns, its goroutines have ended, the transport is closed and every open
// stream's sink has heard of it. The error is nil after an orderly end.
func (c *Conn) Run(ctx context.Context) error {
	if !c.eng.register(c) {
		close(c.done)
		return c.tr.Close()
	}
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { c.abort(ReasonClosed) })
		defer stop()
	}

	c.greet()
	c.tr.SetReadDeadline(c.since.Add(c.eng.limits.Preface))
	err := c.readLoop()
	why := c.farewell(err)
	c.tr.Close()
	c.seize()
	c.in.release()
	c.loseStreams()
	c.eng.unregister(c, why)
	close(c.done)
	if errors.Is(err, io.EOF) || why == ReasonDrained || why == ReasonRetired || why == ReasonClosed || why == ReasonIdle || why == ReasonAged {
		return nil
	}
	return err
}

// greet sends the preface (a client), SETTINGS, and the connection's window.
func (c *Conn) greet() {
	l := &c.eng.limits
	settings := []http2.Setting{
		{ID: http2.SettingInitialWindowSize, Val: uint32(c.window)},
		{ID: http2.SettingMaxHeaderListSize, Val: uint32(l.HeaderBytes)},
	}
	c.mu.Lock()
	if c.side == Upstream {
		c.out = append(c.buffer(), http2.ClientPreface...)
		settings = append(settings, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	} else {
		settings = append(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: l.MaxConcurrentStreams})
	}
	c.out = appendSettings(c.buffer(), settings...)
	if l.ConnWindow > defaultWindow {
		c.out = appendWindowUpdate(c.out, 0, uint32(l.ConnWindow-defaultWindow))
	}
	c.batch.touch(c)
	c.begun = true
	if c.leaving != ReasonNone {
		c.leave(c.leaving, c.asked, &c.batch)
	}
	c.mu.Unlock()
	c.batch.Flush()
}

// abort ends the connection at once: whoever reads or writes it fails.
func (c *Conn) abort(why Reason) {
	c.mu.Lock()
	if c.why == ReasonNone {
		c.why = why
	}
	c.closing = true
	c.mu.Unlock()
	c.tr.Close()
}

// farewell finds the reason of the end. A peer that broke a rule gets a GOAWAY,
// and a moment to read it.
func (c *Conn) farewell(err error) Reason {
	var ce *connError
	errors.As(err, &ce)
	c.mu.Lock()
	if c.why == ReasonNone {
		c.why = reasonOf(err, ce)
	}
	if ce == nil || c.closing {
		c.closing = true
		defer c.mu.Unlock()
		return c.why
	}
	c.out = appendGoAway(c.buffer(), min(c.highest, c.drain.last()), ce.code, ce.detail)
	c.dropQueues()
	c.batch.touch(c)
	c.mu.Unlock()
	c.tr.SetWriteDeadline(time.Now().Add(c.eng.limits.Linger))
	c.batch.Flush()
	c.seize()
	c.loseStreams()
	if c.side == Downstream || c.settled {
		c.linger() // whoever waits for a connection is told at once that this is none
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	return c.why
}

func reasonOf(err error, ce *connError) Reason {
	var ne net.Error
	switch {
	case ce != nil:
		return ce.reason
	case errors.Is(err, io.EOF):
		return ReasonClosed
	case errors.Is(err, errTransportReplies):
		return ReasonTLSReplies
	case errors.As(err, &ne) && ne.Timeout():
		return ReasonPreface // the only read deadline there is
	}
	return ReasonIO
}

// lingerBytes is how much of what a peer still sends is read after our GOAWAY, so
// that closing does not destroy it on the way (RFC 9112 section 9.6 has the reason).
const lingerBytes = 256 << 10

func (c *Conn) linger() {
	c.tr.closeWrite()
	c.tr.SetReadDeadline(time.Now().Add(c.eng.limits.Linger))
	for n := 0; n < lingerBytes; {
		c.in.release()
		if c.tr.fill(&c.in) != nil {
			return
		}
		n += len(c.in.bytes())
	}
}

// dropQueues forgets all DATA that waits. The caller holds mu.
func (c *Conn) dropQueues() {
	for _, s := range c.streams {
		c.unready(s)
		c.wait(-s.q.drop())
	}
}

// seize makes the reader the owner of the socket's output, for good: when it
// returns nobody writes any more, and what the socket has taken is known.
func (c *Conn) seize() {
	c.mu.Lock()
	if c.seized || !c.writing {
		c.seized, c.writing = true, true
		c.mu.Unlock()
		return
	}
	c.seized = true
	c.handed = make(chan struct{})
	c.mu.Unlock()
	<-c.handed
}

// loseStreams tells every sink that its connection is gone. Streams whose HEADERS
// the socket has not begun to take were never looked at. Nobody writes any more.
func (c *Conn) loseStreams() {
	c.mu.Lock()
	c.closing = true
	sent := c.passed - c.unsent
	var lost []*Stream
	for _, s := range c.streams {
		lost = append(lost, s)
	}
	for _, s := range lost {
		c.remove(s)
	}
	c.out, c.credits = nil, nil
	c.mu.Unlock()
	if c.monitor != nil {
		c.monitor.ConnDraining(c)
	}
	var b Batch
	for _, s := range lost {
		s.tell(Ending{How: ConnectionLost, Unprocessed: c.side == Upstream && s.at >= sent}, &b)
	}
	b.Flush()
}

// Full reports whether every stream that may be open is. The answer may be old
// when it arrives; Open decides.
func (c *Conn) Full() bool { return uint32(c.open.Load()) >= c.maxOpen.Load() }

// MaxStreams returns how many streams may be open at once.
func (c *Conn) MaxStreams() int { return int(c.maxOpen.Load()) }

// OpenStreams returns how many streams are open.
func (c *Conn) OpenStreams() int { return int(c.open.Load()) }
