package h2

import (
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/wire"
)

// Output buffers come from a pool and go back when the socket has taken them, so
// that an idle connection holds none. One that grew beyond outputKeep is left to
// the collector.
const outputKeep = 2 * outputHigh

var outputs = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// buffer returns the output to append to. The caller holds mu.
func (c *Conn) buffer() []byte {
	if c.out == nil {
		c.box = outputs.Get().(*[]byte)
		c.out = (*c.box)[:0]
	}
	return c.out
}

// freeOutput gives a buffer back in the box that it came in, so that nothing is
// allocated for either.
func freeOutput(b []byte, box *[]byte) {
	if box != nil && cap(b) <= outputKeep {
		*box = b[:0]
		outputs.Put(box)
	}
}

// smallTable is how many streams a map holds in its first, smallest table.
const smallTable = 8

// insert makes s one of the open streams. The caller holds mu.
func (c *Conn) insert(s *Stream) {
	if c.streams == nil {
		c.streams = make(map[uint32]*Stream)
	}
	c.streams[s.id] = s
	c.crowd = max(c.crowd, len(c.streams))
	c.open.Add(1)
	c.idle = time.Time{}
	c.eng.stats[c.side].streams.Add(1)
}

// drop is remove on the reader, whose flush will see whether a connection that
// drains has had its last stream. The caller holds mu.
func (c *Conn) drop(s *Stream) {
	c.remove(s)
	if len(c.streams) == 0 && (c.drain != drainNone || c.goneAway != maxStreamID) {
		c.batch.touch(c)
	}
}

// remove forgets s and what waits in it. The caller holds mu.
func (c *Conn) remove(s *Stream) {
	if s.state&stateOpen == 0 {
		return
	}
	s.state &^= stateOpen
	if c.finished != nil && s.state&(statePeerEnd|stateEnded) == statePeerEnd|stateEnded {
		c.finished.add(s.id)
	}
	delete(c.streams, s.id)
	c.open.Add(-1)
	if s.state&statePatient != 0 {
		c.patient--
	}
	c.unready(s)
	c.wait(-s.q.drop())
	s.tail = nil
	if more := s.window - c.window; more > 0 {
		c.eng.grown.Add(-int64(more))
	}
	c.eng.stats[c.side].streams.Add(-1)
	if len(c.streams) == 0 && c.crowd > smallTable {
		c.streams, c.crowd = nil, 0 // an idle connection keeps no large table
	}
}

// reset ends s by RST_STREAM. The caller holds mu.
func (c *Conn) reset(s *Stream, code http2.ErrCode, b *Batch) {
	if s.state&stateOpen == 0 {
		return
	}
	if s.state&statePeerEnd == 0 {
		c.forgiven.add(s.id)
	}
	if !c.closing {
		c.out = appendRSTStream(c.buffer(), s.id, code)
		b.touch(c)
	}
	c.remove(s)
}

// ended notes that END_STREAM has been appended. The caller holds mu.
func (c *Conn) ended(s *Stream) {
	s.state |= stateEnded
	c.ends++
	switch {
	case s.state&statePeerEnd != 0:
		c.remove(s)
	case c.side == Downstream:
		// The response is complete before the request: RFC 9113 section 8.1 lets us
		// ask the client to stop.
		c.out = appendRSTStream(c.out, s.id, http2.ErrCodeNo)
		c.forgiven.add(s.id)
		c.remove(s)
	}
}

// encode appends a header section. The caller holds mu.
func (c *Conn) encode(id uint32, fields []Field, end bool) {
	start := c.beginHeaders()
	for i := range fields {
		c.out = c.enc.field(c.out, &fields[i])
	}
	c.out = finishHeaders(c.out, start, id, end, minMaxFrameSize)
}

func (c *Conn) beginHeaders() (start int) {
	start = len(c.buffer())
	c.out = append(c.out, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	c.out = c.enc.begin(c.out)
	return start
}

// encodeOpening appends a request, with grpc-timeout right after the pseudo-fields
// as gRPC's PROTOCOL-HTTP2 asks. The caller holds mu.
func (c *Conn) encodeOpening(s *Stream, o *Opening) {
	start := c.beginHeaders()
	pending := !o.Deadline.IsZero()
	for i := range o.Fields {
		f := &o.Fields[i]
		if pending && !f.kind.pseudo() {
			pending = false
			c.encodeTimeout(o.Deadline)
		}
		c.out = c.enc.field(c.out, f)
	}
	if pending {
		c.encodeTimeout(o.Deadline)
	}
	c.out = finishHeaders(c.out, start, s.id, o.End, minMaxFrameSize)
}

func (c *Conn) encodeTimeout(deadline time.Time) {
	var buf [10]byte
	v := wire.AppendTimeout(buf[:0], time.Until(deadline))
	c.out = append(c.out, 0x00) // literal without indexing, new name: RFC 7541 section 6.2.2
	c.out = appendString(c.out, "grpc-timeout", false)
	c.out = appendInt(c.out, 0x00, 7, uint32(len(v)))
	c.out = append(c.out, v...)
}

// sent accounts for DATA that has been appended. The caller holds mu.
func (c *Conn) sent(s *Stream, n int32, end bool) {
	s.send -= n
	c.send -= n
	c.dataSent++
	if s.source == nil || n == 0 {
		return
	}
	if last := len(c.credits) - 1; last >= 0 && c.credits[last].to == s.source {
		c.credits[last].n += n
		c.credits[last].drained = s.q.size == 0
		return
	}
	c.credits = append(c.credits, credit{s.source, n, s.q.size == 0})
}

func (c *Conn) wait(n int) {
	c.waiting += n
	c.eng.queued.Add(int64(n))
}

// enqueue puts s in the ring when it has something to send and may send it. The
// caller holds mu.
func (c *Conn) enqueue(s *Stream) {
	if s.state&stateReady != 0 || s.q.size == 0 || s.send <= 0 {
		return
	}
	s.state |= stateReady
	if c.ready == nil {
		c.ready = s
		s.next, s.prev = s, s
		return
	}
	s.next, s.prev = c.ready, c.ready.prev
	s.prev.next, s.next.prev = s, s
}

func (c *Conn) unready(s *Stream) {
	if s.state&stateReady == 0 {
		return
	}
	s.state &^= stateReady
	if s.next == s {
		c.ready = nil
	} else {
		s.prev.next, s.next.prev = s.next, s.prev
		if c.ready == s {
			c.ready = s.next
		}
	}
	s.next, s.prev = nil, nil
}

// schedule moves waiting DATA into the output, a frame of each stream in turn, so
// that no stream waits for more than one frame of each other. The caller holds mu.
func (c *Conn) schedule() {
	for c.ready != nil && c.send > 0 && len(c.out) < outputHigh {
		s := c.ready
		n := min(int32(min(s.q.size, minMaxFrameSize)), s.send, c.send)
		last := int(n) == s.q.size
		end := last && s.state&stateEndQueue != 0 && s.tail == nil
		c.out = appendFrameHeader(c.buffer(), int(n), typeData, endFlag(end), s.id)
		c.out = s.q.pop(c.out, int(n))
		c.wait(-int(n))
		s.pace.moved += int64(n)
		c.sent(s, n, end)
		c.ready = s.next
		if last || s.send <= 0 {
			c.unready(s)
		}
		if last {
			c.finishQueue(s)
		}
	}
}

func endFlag(end bool) uint8 {
	if end {
		return flagEndStream
	}
	return 0
}

// finishQueue sends what stood behind the last byte of the queue. The caller
// holds mu.
func (c *Conn) finishQueue(s *Stream) {
	s.pace = pace{}
	if s.state&stateEndQueue == 0 {
		return
	}
	if s.tail != nil {
		c.encode(s.id, s.tail, true)
		s.tail = nil
	}
	c.ended(s)
}

// flush offers the output to the socket, unless somebody else is at it, who will
// then see to what has been appended meanwhile.
func (c *Conn) flush(b *Batch) {
	c.mu.Lock()
	c.inBatch = nil
	if c.writing || c.closing {
		c.mu.Unlock()
		return
	}
	c.writing = true
	for {
		p, ok := c.takeOutput()
		if !ok {
			c.handBack()
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		n, blocked, err := c.tr.tryWrite(p.bytes)
		if err != nil || blocked {
			c.handOver(p, n, err)
			return
		}
		c.taken(p, b)
		c.mu.Lock()
		c.ends -= p.ends
	}
}

// handBack gives the socket's output up, to the reader if that waits for it. The
// caller holds mu and owns the socket.
func (c *Conn) handBack() {
	if c.seized {
		close(c.handed) // and writing stays true
		return
	}
	c.writing = false
}

// parcel is output on its way to the socket, with what is owed for it.
type parcel struct {
	bytes   []byte
	box     *[]byte
	credits []credit
	control int
	ends    int
}

// takeOutput makes the output the caller's, who has the socket. The caller holds
// mu; writing is true.
func (c *Conn) takeOutput() (p parcel, ok bool) {
	c.schedule()
	if len(c.out) == 0 {
		if c.out != nil {
			freeOutput(c.out, c.box)
			c.out, c.box = nil, nil
		}
		c.finishDrain()
		return p, false
	}
	p = parcel{c.out, c.box, c.credits, c.control, c.ends}
	c.passed += int64(len(c.out))
	c.out, c.box, c.credits = nil, nil, nil
	return p, true
}

// taken settles a parcel that the socket has taken whole.
func (c *Conn) taken(p parcel, b *Batch) {
	c.eng.stats[c.side].bytesOut.Add(int64(len(p.bytes)))
	freeOutput(p.bytes, p.box)
	if p.control > 0 {
		c.mu.Lock()
		c.control -= p.control
		c.mu.Unlock()
	}
	for _, cr := range p.credits {
		cr.to.Credit(cr.n, cr.drained, b)
	}
	if p.credits != nil {
		clear(p.credits)
		c.keepCredits(p.credits[:0])
	}
}

// keepCredits leaves the list's memory for the next parcel.
func (c *Conn) keepCredits(list []credit) {
	c.mu.Lock()
	if c.credits == nil && cap(list) <= 64 && len(c.streams) > 0 {
		c.credits = list
	}
	c.mu.Unlock()
}

// handOver leaves the rest of a parcel to a writer goroutine, which owns the
// socket until everything is out.
func (c *Conn) handOver(p parcel, n int, err error) {
	if err != nil {
		c.writeFailed(p, n)
		return
	}
	c.mu.Lock()
	c.blocked = true
	c.pace.begin(time.Now())
	c.tookAt = c.tr.out.taken.Load()
	c.mu.Unlock()
	go c.writeLoop(p, n)
}

// writeFailed ends the connection when the socket has taken n bytes of p and will
// take no more. What a backend said before it closed its end is still to be read.
func (c *Conn) writeFailed(p parcel, n int) {
	c.mu.Lock()
	c.unsent = int64(len(p.bytes) - n)
	if c.why == ReasonNone {
		c.why = ReasonIO
	}
	c.closing = true
	c.handBack()
	c.mu.Unlock()
	if c.side == Downstream || c.tr.SetReadDeadline(time.Now().Add(c.eng.limits.Linger)) != nil {
		c.tr.Close()
	}
}

// writeLoop writes until nothing is pending, blocking where the socket does.
func (c *Conn) writeLoop(p parcel, n int) {
	var b Batch
	for {
		m, blocked, err := c.tr.tryWrite(p.bytes[n:])
		n += m
		if err == nil && blocked {
			err = c.tr.waitWrite()
		}
		if err != nil {
			c.writeFailed(p, n)
			return
		}
		if blocked {
			continue
		}
		c.taken(p, &b)
		b.Flush()
		c.mu.Lock()
		c.ends -= p.ends
		var more bool
		if p, more = c.takeOutput(); !more {
			c.blocked = false
			c.pace = pace{}
			c.handBack()
		}
		c.mu.Unlock()
		if !more {
			return
		}
		n = 0
	}
}

// provoke counts a reply that the peer made us send, and ends the connection when
// too many of them wait. The caller holds mu.
func (c *Conn) provoke() error {
	c.control++
	if c.control > c.eng.limits.QueuedControl {
		return excess(ReasonQueuedControl, "%d replies wait that the peer does not read, limit %d", c.control, c.eng.limits.QueuedControl)
	}
	return nil
}

// String identifies the connection in logs.
func (c *Conn) String() string {
	return c.side.String() + " " + c.tr.RemoteAddr().String()
}

func (s *Stream) String() string {
	return c2s(s.c) + " stream " + strconv.Itoa(int(s.id))
}

func c2s(c *Conn) string {
	if c == nil {
		return "no connection"
	}
	return c.String()
}
