package h2

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// headerBlock is a header section on its way: HEADERS without END_HEADERS, and the
// CONTINUATION frames after it. Nothing is kept of a block that fits its frame.
type headerBlock struct {
	id     uint32 // 0 = none on its way
	flags  uint8  // of the HEADERS frame
	frames int    // CONTINUATIONs so far
	buf    []byte
	self   bool // the HEADERS frame made its stream depend on itself
}

// scratch is where a reader decodes header sections. It has one for as long as a
// wake-up lasts.
type scratch struct {
	fields []Field
	head   Head
}

var scratches = sync.Pool{New: func() any { return &scratch{fields: make([]Field, 0, 32)} }}

// dropScratch is called when the input is drained.
func (c *Conn) dropScratch() {
	if c.scratch != nil {
		scratches.Put(c.scratch)
		c.scratch = nil
	}
}

// handleHeaders starts a header section. RFC 9113 section 6.2.
func (c *Conn) handleHeaders(h frameHeader, p []byte) error {
	if h.id == 0 {
		return protocolError("HEADERS on stream 0")
	}
	p, _, ok := unpad(h, p)
	if !ok {
		return protocolError("padding of HEADERS longer than its frame")
	}
	self := false
	if h.flags&flagPriority != 0 {
		if len(p) < 5 {
			return &connError{http2.ErrCodeFrameSize, ReasonFrameSize, "HEADERS too short for its priority"}
		}
		self = consumeUint31(p) == h.id
		p = p[5:]
	}
	if h.flags&flagEndHeaders == 0 {
		c.block = headerBlock{id: h.id, flags: h.flags, buf: append([]byte(nil), p...), self: self}
		c.limitRead(c.now.Add(c.eng.limits.Preface))
		if len(p) == 0 {
			return c.guard.empty(c)
		}
		return nil
	}
	return c.section(h.id, h.flags&flagEndStream != 0, p, self)
}

// handleContinuation goes on with one. Its size is bounded by the number of
// frames, before anything is decoded (CVE-2023-45288).
func (c *Conn) handleContinuation(h frameHeader, p []byte) error {
	if c.block.id == 0 {
		return protocolError("CONTINUATION without HEADERS")
	}
	c.block.frames++
	if limit := c.eng.limits.Continuations; c.block.frames > limit {
		return excess(ReasonContinuations, "header block of more than %d CONTINUATION frames", limit)
	}
	if len(p) == 0 {
		if err := c.guard.empty(c); err != nil {
			return err
		}
	}
	c.block.buf = append(c.block.buf, p...)
	if h.flags&flagEndHeaders == 0 {
		return nil
	}
	b := c.block
	c.block = headerBlock{}
	c.limitRead(noDeadline)
	return c.section(b.id, b.flags&flagEndStream != 0, b.buf, b.self)
}

// limitRead bounds how long a header section may take to become complete: nothing
// else can arrive meanwhile.
func (c *Conn) limitRead(until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == ReasonNone { // else the end has a deadline of its own
		c.tr.SetReadDeadline(until)
	}
}

// overdue turns the deadline of a header section into what the peer is told.
func (c *Conn) overdue(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.block.id == 0 || c.why != ReasonNone || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return excess(ReasonContinuations, "header block not complete within %v", c.eng.limits.Preface)
}

// section decodes a complete header section, whatever becomes of its stream,
// because the compression state is the connection's.
func (c *Conn) section(id uint32, end bool, block []byte, self bool) error {
	l := &c.eng.limits
	if c.scratch == nil {
		c.scratch = scratches.Get().(*scratch)
	}
	fields, large, err := c.dec.decode(c.scratch.fields[:0], block, headerBound{l.HeaderBytes, l.HeaderFields})
	c.scratch.fields = fields[:0]
	switch {
	case err == errHeaderBomb:
		return excess(ReasonHeaderBomb, "%v", err)
	case err != nil:
		return &connError{http2.ErrCodeCompression, ReasonCompression, err.Error()}
	}
	if c.side == Upstream {
		return c.responseSection(id, end, fields, large)
	}
	return c.requestSection(id, end, fields, large, self)
}

// requestSection opens a stream, or ends its request with trailers.
func (c *Conn) requestSection(id uint32, end bool, fields []Field, large, self bool) error {
	if id%2 == 0 {
		return protocolError("client opened even stream %d", id)
	}
	if id <= c.highest {
		return c.requestTrailers(id, end, fields, large)
	}
	c.highest = id
	if self {
		return c.refuse(id, http2.ErrCodeProtocol, ReasonMalformed, true)
	}
	h := &c.scratch.head
	if err := h.readRequest(fields); err != nil && !large {
		return c.refuse(id, http2.ErrCodeProtocol, ReasonMalformed, true)
	}
	if h.Large = large; large {
		c.eng.stats[c.side].rejected[ReasonHeaders].Add(1)
	}
	if end && h.ContentLength > 0 {
		return c.refuse(id, http2.ErrCodeProtocol, ReasonMalformed, true)
	}
	s := &Stream{
		c: c, id: id, declared: h.ContentLength, answered: true,
		state: stateOpen, recv: c.window, window: c.window, opened: c.now,
	}
	if end {
		s.state |= statePeerEnd
	}
	c.mu.Lock()
	switch {
	case id > c.drain.last():
		c.forgiven.add(id)
		c.mu.Unlock()
		c.eng.stats[c.side].rejected[ReasonDraining].Add(1)
		return nil // above our GOAWAY: the client knows that nobody looks at it
	case len(c.streams) >= int(c.maxOpen.Load()) || c.ends >= 2*int(c.maxOpen.Load()):
		// A client that reads has at most as many open, by its own count, as it may:
		// so many ends may be on their way, and as many again were read while the
		// socket was at the rest of them.
		c.mu.Unlock()
		return c.refuse(id, http2.ErrCodeRefusedStream, ReasonConcurrency, false)
	}
	s.send = c.initial
	c.insert(s)
	c.mu.Unlock()
	c.guard.opened()
	c.acceptor.AcceptStream(s, h, end, &c.batch)
	return nil
}

// refuse resets a stream that was never opened. A violation counts towards the
// limit on resets; too many streams at once are counted as replies only.
func (c *Conn) refuse(id uint32, code http2.ErrCode, why Reason, violation bool) error {
	c.eng.stats[c.side].rejected[why].Add(1)
	if !violation {
		c.guard.refused()
	} else {
		c.guard.opened()
		if err := c.guard.violation(c); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgiven.add(id)
	c.out = appendRSTStream(c.buffer(), id, code)
	c.batch.touch(c)
	return c.provoke()
}

func (c *Conn) requestTrailers(id uint32, end bool, fields []Field, large bool) error {
	c.mu.Lock()
	s := c.streams[id]
	late := s == nil && c.forgiven.has(id)
	closed := s != nil && s.state&statePeerEnd != 0
	c.mu.Unlock()
	switch {
	case late:
		return nil
	case s == nil:
		return &connError{http2.ErrCodeStreamClosed, ReasonProtocol, "HEADERS on a closed stream"}
	case closed:
		return c.violate(s, http2.ErrCodeStreamClosed, "HEADERS after END_STREAM")
	case !end:
		return c.violate(s, http2.ErrCodeProtocol, "second HEADERS without END_STREAM")
	}
	return c.trailers(s, fields, large)
}

// trailers ends the peer's half of s.
func (c *Conn) trailers(s *Stream, fields []Field, large bool) error {
	h := &c.scratch.head
	if err := h.readTrailers(fields); err != nil && !large {
		return c.violate(s, http2.ErrCodeProtocol, "malformed trailers")
	}
	if large {
		return c.headersLarge(s)
	}
	if !c.lengthFits(s, 0, true) {
		return c.violate(s, http2.ErrCodeProtocol, "DATA differs from content-length")
	}
	if k := c.peerEnded(s); k != nil {
		k.Header(s, h, true, &c.batch)
	}
	return nil
}

// peerEnded notes the peer's END_STREAM and returns the sink to tell.
func (c *Conn) peerEnded(s *Stream) Sink {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.state |= statePeerEnd
	if s.state&stateEnded != 0 {
		c.drop(s)
	}
	return s.sink
}

func (c *Conn) headersLarge(s *Stream) error {
	c.eng.stats[c.side].rejected[ReasonHeaders].Add(1)
	s.tell(Ending{How: HeadersLarge, Code: http2.ErrCodeEnhanceYourCalm}, &c.batch)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset(s, http2.ErrCodeCancel, &c.batch)
	return nil
}

// responseSection is a 1xx or final response, or the trailers of one.
func (c *Conn) responseSection(id uint32, end bool, fields []Field, large bool) error {
	if c.neverOpened(id) {
		return protocolError("HEADERS on idle stream %d", id)
	}
	c.mu.Lock()
	s := c.streams[id]
	closed := s != nil && s.state&statePeerEnd != 0
	c.mu.Unlock()
	switch {
	case s == nil:
		return c.strayFrame(id)
	case closed:
		return c.violate(s, http2.ErrCodeStreamClosed, "HEADERS after END_STREAM")
	case s.answered && !end:
		return c.violate(s, http2.ErrCodeProtocol, "second final response")
	case s.answered:
		return c.trailers(s, fields, large)
	}
	h := &c.scratch.head
	if err := h.readResponse(fields); err != nil && !large {
		return c.violate(s, http2.ErrCodeProtocol, "malformed response")
	}
	if large {
		return c.headersLarge(s)
	}
	if h.Status < 200 {
		return c.interim(s, h, end)
	}
	s.answered = true
	s.declared = h.ContentLength
	if s.bodyless || h.Status == 304 {
		s.declared = 0 // what is declared is what GET would bring
	}
	if end && !c.lengthFits(s, 0, true) {
		return c.violate(s, http2.ErrCodeProtocol, "no DATA against content-length")
	}
	k := s.sink
	if end {
		k = c.peerEnded(s)
	}
	k.Header(s, h, end, &c.batch)
	return nil
}

func (c *Conn) interim(s *Stream, h *Head, end bool) error {
	s.interim++
	for i := range h.Fields {
		s.interimSize += int(h.Fields[i].size())
	}
	// What is passed on has no window: all of it together may be as large as one
	// section.
	if limit := c.eng.limits.Informational; s.interim > limit || s.interimSize > max(limit, c.eng.limits.HeaderBytes) {
		return excess(ReasonInformational, "more than %d informational responses on one stream, or %d bytes of them", limit, c.eng.limits.HeaderBytes)
	}
	if end {
		return c.violate(s, http2.ErrCodeProtocol, "informational response with END_STREAM")
	}
	s.sink.Header(s, h, false, &c.batch)
	return nil
}
