package h2

import (
	"errors"
	"time"

	"golang.org/x/net/http2"
)

// Stream is one stream of a [Conn]. It may be part of a larger struct: whoever
// opens one brings the memory.
type Stream struct {
	c  *Conn
	id uint32

	// Owned by the connection's reader.
	declared    int64 // content-length, -1 when there is none
	received    int64 // DATA so far
	interim     int   // 1xx responses so far
	interimSize int   // of their sections, bytes
	answered    bool  // the final response, or the request, has arrived
	bodyless    bool  // the response has no content, being one to HEAD
	opened      time.Time
	at          int64 // where its HEADERS begin in the connection's output; upstream only

	// Guarded by c.mu.
	sink   Sink
	source Creditor // who sent what we send on; nil = nobody wants to know
	state  streamState
	send   int32 // what the peer lets us send, bytes
	recv   int32 // what we let the peer send
	window int32 // what recv returns to
	owed   int32 // taken by the far side and not yet granted again
	q      queue
	tail   []Field // trailers behind q
	next   *Stream // in the ring c.ready
	prev   *Stream
	pace   pace // at which q moves
}

// streamState says which halves are still open, RFC 9113 section 5.1.
type streamState uint8

const (
	stateOpen     streamState = 1 << iota // in c.streams
	statePeerEnd                          // the peer has sent END_STREAM
	stateEndQueue                         // END_STREAM goes behind q
	stateEnded                            // we have sent END_STREAM
	stateTold                             // the sink has heard of the end
	stateReady                            // in the ring
	stateReplied                          // we have sent the final response header
	statePatient                          // counted in c.patient
)

// Creditor is told when bytes that it has sent on have been taken by the far
// socket. drained means that nothing more of them waits.
type Creditor interface {
	Credit(n int32, drained bool, b *Batch)
}

type credit struct {
	to      Creditor
	n       int32
	drained bool
}

// Errors of Open: the stream never left, so another connection may be tried.
var (
	ErrNoSlot    = errors.New("connection has no free stream")
	ErrGoingAway = errors.New("connection takes no new streams")
	ErrBusy      = errors.New("connection is busy")
	ErrStuck     = errors.New("backend does not read")
)

// Bind makes k the stream's sink. An acceptor calls it first of all.
func (s *Stream) Bind(k Sink) {
	s.c.mu.Lock()
	s.sink = k
	s.c.mu.Unlock()
}

// SetSource says who gets credit for what this stream sends.
func (s *Stream) SetSource(src Creditor) {
	s.c.mu.Lock()
	s.source = src
	s.c.mu.Unlock()
}

// Conn returns the stream's connection.
func (s *Stream) Conn() *Conn { return s.c }

// ID returns the stream's number on its connection.
func (s *Stream) ID() uint32 { return s.id }

// Opening is what opens a stream towards a backend.
type Opening struct {
	Fields []Field // pseudo-fields first
	// Deadline is sent as the grpc-timeout that remains when the frame is encoded; a
	// zero one is not sent.
	Deadline time.Time
	End      bool
	// Patient says that nobody waits for an answer: the backend's silence on the stream
	// says nothing of its health.
	Patient bool
	Sink    Sink
	Source  Creditor
}

func (o *Opening) method() string {
	for i := range o.Fields {
		if f := &o.Fields[i]; f.kind == kindMethod {
			return f.Value
		} else if !f.kind.pseudo() {
			break
		}
	}
	return ""
}

// Open opens s on a connection to a backend. Slot, stream number and compression
// state are settled together, under the output mutex.
func (c *Conn) Open(s *Stream, o *Opening, b *Batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.openLocked(s, o, b)
}

// TryOpen is Open where nobody else is at work on the connection, and ErrBusy
// where somebody is: another connection may do as well.
func (c *Conn) TryOpen(s *Stream, o *Opening, b *Batch) error {
	if !c.mu.TryLock() {
		return ErrBusy
	}
	defer c.mu.Unlock()
	return c.openLocked(s, o, b)
}

func (c *Conn) openLocked(s *Stream, o *Opening, b *Batch) error {
	switch {
	case c.closing || c.why != ReasonNone || c.goneAway != maxStreamID || c.drain != drainNone:
		return ErrGoingAway
	case c.nextID > retireID:
		c.leave(ReasonRetired, time.Now(), b)
		return ErrGoingAway
	case len(c.streams) >= int(c.maxOpen.Load()):
		return ErrNoSlot
	case c.blocked && len(c.out) > c.eng.limits.StuckOutput:
		return ErrStuck
	}
	*s = Stream{
		c: c, id: c.nextID, sink: o.Sink, source: o.Source, declared: -1,
		state: stateOpen, send: c.initial, recv: c.window, window: c.window,
		bodyless: o.method() == "HEAD",
	}
	c.nextID += 2
	c.insert(s)
	s.at = c.passed + int64(len(c.out))
	c.encodeOpening(s, o)
	if o.Patient {
		s.state |= statePatient
		c.patient++
		c.asides++
	} else {
		c.probe.streamOpened(c)
	}
	if o.End {
		c.ended(s)
	}
	b.touch(c)
	return nil
}

// retireID is the stream id beyond which a connection is replaced: half of what
// there is, 15 hours at 20,000 RPC/s.
const retireID = 1 << 30

// SendHeader sends a response header section, or trailers when end is true, which
// go behind DATA that waits. An informational one that comes after the final one is
// dropped. The fields are copied where they must wait.
func (s *Stream) SendHeader(f []Field, end bool, b *Batch) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.writable() {
		return
	}
	if s.q.size > 0 {
		if end {
			s.tail = append([]Field(nil), f...)
			s.state |= stateEndQueue
		}
		return
	}
	if interim := len(f) > 0 && f[0].kind == kindStatus && f[0].Value[0] == '1'; !interim {
		s.state |= stateReplied
	} else if s.state&stateReplied != 0 {
		return
	}
	c.encode(s.id, f, end)
	if end {
		c.ended(s)
	}
	b.touch(c)
}

// SendData sends payload, which is copied. What does not fit the windows waits,
// and credit for it with it.
func (s *Stream) SendData(p []byte, end bool, b *Batch) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.writable() {
		return
	}
	n := int32(len(p))
	if s.q.size == 0 && n <= minMaxFrameSize && (n == 0 || c.ready == nil && n <= s.send && n <= c.send && len(c.out) < outputHigh) {
		c.out = appendData(c.buffer(), s.id, p, end)
		c.sent(s, n, end)
		if end {
			c.ended(s)
		}
		b.touch(c)
		return
	}
	s.q.push(p)
	c.wait(int(n))
	if end {
		s.state |= stateEndQueue
	}
	c.enqueue(s)
	b.touch(c)
}

// writable reports whether anything may still be sent. The caller holds mu.
func (s *Stream) writable() bool {
	return s.state&(stateOpen|stateEnded|stateEndQueue) == stateOpen && !s.c.closing
}

// Reset ends the stream by RST_STREAM. The sink hears nothing of it.
func (s *Stream) Reset(code http2.ErrCode, b *Batch) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset(s, code, b)
}

// Credit grants the peer as much again as the far side has taken. RFC 9113
// section 5.2: backpressure passes from the far socket to the sender.
func (s *Stream) Credit(n int32, drained bool, b *Batch) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.state&(stateOpen|statePeerEnd) != stateOpen {
		return
	}
	s.owed += n
	if s.owed < s.window/2 || c.closing {
		return
	}
	grant := s.owed
	s.owed = 0
	if drained {
		grant += s.grow()
	}
	s.recv += grant
	c.out = appendWindowUpdate(c.buffer(), s.id, uint32(grant))
	b.touch(c)
}

// grow enlarges the window of a stream whose far side keeps up: four times, up to
// the limit, and while the process has budget for it. The caller holds mu.
func (s *Stream) grow() int32 {
	e := s.c.eng
	more := min(3*s.window, e.limits.MaxWindow-s.window)
	if more <= 0 {
		return 0
	}
	if e.grown.Add(int64(more)) > e.limits.WindowBudget {
		e.grown.Add(-int64(more))
		return 0
	}
	s.window += more
	return more
}

// Pending returns how many bytes of DATA wait for the peer.
func (s *Stream) Pending() int {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.q.size
}

// end resets the stream for a reason of ours and tells the sink. A response that
// has to end politely is the sink's to write: it is told first.
func (s *Stream) end(b *Batch, how How, why Reason) {
	s.c.eng.stats[s.c.side].rejected[why].Add(1)
	code := http2.ErrCodeCancel
	if how == Overloaded {
		code = http2.ErrCodeEnhanceYourCalm
	}
	s.tell(Ending{How: how, Code: code}, b)
	s.Reset(code, b)
}

// tell passes an ending to the sink, once.
func (s *Stream) tell(e Ending, b *Batch) {
	s.c.mu.Lock()
	k := s.sink
	told := s.state&stateTold != 0
	s.state |= stateTold
	s.c.mu.Unlock()
	if k != nil && !told {
		k.Ended(s, e, b)
	}
}
