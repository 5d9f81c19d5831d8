package h2

import (
	"time"

	"golang.org/x/net/http2"
)

// readLoop parses frames as they arrive, and flushes what they led to whenever
// the input is drained or a buffer of 64 KiB has been worked off.
func (c *Conn) readLoop() error {
	for {
		if err := c.tr.fill(&c.in); err != nil {
			return c.overdue(err)
		}
		c.now = time.Now()
		err := c.parse()
		c.heard()
		c.dropScratch()
		c.batch.Flush()
		if err != nil {
			return err
		}
	}
}

// parse handles every complete frame in the input.
func (c *Conn) parse() error {
	p := c.in.bytes()
	size := len(p)
	defer func() { c.eng.stats[c.side].bytesIn.Add(int64(size - len(p))) }()
	if !c.greeted {
		n, err := checkPreface(p)
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		c.greeted = true
		c.in.consume(n)
		p = p[n:]
	}
	if !c.settled && c.side == Upstream {
		if speaks := otherProtocol(p); speaks != "" {
			return protocolError("the backend speaks %s, not HTTP/2", speaks)
		}
	}
	for len(p) >= frameHeaderLen {
		h := consumeFrameHeader(p)
		if h.length > minMaxFrameSize {
			return &connError{http2.ErrCodeFrameSize, ReasonFrameSize, "frame larger than 16384 bytes"}
		}
		n := frameHeaderLen + int(h.length)
		if len(p) < n {
			break
		}
		if err := c.handleFrame(h, p[frameHeaderLen:n]); err != nil {
			return err
		}
		c.in.consume(n)
		p = p[n:]
	}
	return nil
}

// otherProtocol names what begins like p and is often found where HTTP/2 was meant to
// be. No SETTINGS frame begins like any of it.
func otherProtocol(p []byte) string {
	for beginning, name := range map[string]string{"HTTP/1.": "HTTP/1", "\x15\x03": "TLS", "\x16\x03": "TLS"} {
		if len(p) >= frameHeaderLen && string(p[:len(beginning)]) == beginning {
			return name
		}
	}
	return ""
}

// checkPreface returns the length of the client's preface once it is complete, 0
// while it may still become one.
func checkPreface(p []byte) (int, error) {
	n := min(len(p), len(http2.ClientPreface))
	if string(p[:n]) != http2.ClientPreface[:n] {
		return 0, protocolError("not the HTTP/2 preface")
	}
	if n < len(http2.ClientPreface) {
		return 0, nil
	}
	return n, nil
}

// handleFrame dispatches by type. What it returns ends the connection; faults of
// a single stream are answered on the way.
func (c *Conn) handleFrame(h frameHeader, p []byte) error {
	if !c.settled && (h.typ != typeSettings || h.flags&flagAck != 0) {
		return protocolError("first frame is of type %d with flags %#x, want SETTINGS", h.typ, h.flags)
	}
	if c.block.id != 0 && (h.typ != typeContinuation || h.id != c.block.id) {
		return protocolError("frame of type %d inside the header block of stream %d", h.typ, c.block.id)
	}
	switch h.typ {
	case typeData:
		c.spoke = true
		return c.handleData(h, p)
	case typeHeaders:
		c.spoke = true
		return c.handleHeaders(h, p)
	case typePriority:
		return c.handlePriority(h, p)
	case typeRSTStream:
		return c.handleRSTStream(h, p)
	case typeSettings:
		return c.handleSettings(h, p)
	case typePushPromise:
		return protocolError("PUSH_PROMISE, which nobody asked for")
	case typePing:
		return c.handlePing(h, p)
	case typeGoAway:
		return c.handleGoAway(h, p)
	case typeWindowUpdate:
		return c.handleWindowUpdate(h, p)
	case typeContinuation:
		return c.handleContinuation(h, p)
	}
	return c.guard.unknown(c)
}

// handleData passes payload to the stream's sink. RFC 9113 section 6.1.
func (c *Conn) handleData(h frameHeader, p []byte) error {
	if h.id == 0 {
		return protocolError("DATA on stream 0")
	}
	payload, padding, ok := unpad(h, p)
	if !ok {
		return protocolError("padding of DATA longer than its frame")
	}
	if err := c.receive(int32(h.length)); err != nil {
		return err
	}
	end := h.flags&flagEndStream != 0
	if err := c.guard.data(c, len(payload), end); err != nil {
		return err
	}
	c.mu.Lock()
	s := c.streams[h.id]
	if s == nil || s.state&statePeerEnd != 0 {
		c.mu.Unlock()
		return c.strayData(h, s)
	}
	s.recv -= int32(h.length)
	if s.recv < 0 {
		c.mu.Unlock()
		return c.violate(s, http2.ErrCodeFlowControl, "DATA beyond the stream's window")
	}
	fits := s.answered && c.lengthFits(s, len(payload), end)
	if end && fits {
		s.state |= statePeerEnd
		if s.state&stateEnded != 0 {
			c.drop(s)
		}
	}
	k := s.sink
	c.mu.Unlock()
	switch {
	case !s.answered:
		return c.violate(s, http2.ErrCodeProtocol, "DATA before HEADERS")
	case !fits:
		return c.violate(s, http2.ErrCodeProtocol, "DATA differs from content-length")
	}
	s.received += int64(len(payload))
	if padding > 0 {
		s.Credit(int32(padding), false, &c.batch)
	}
	if k != nil && (len(payload) > 0 || end) {
		k.Data(s, payload, end, &c.batch)
	}
	return nil
}

// lengthFits reports whether n more bytes keep the declared content-length.
func (c *Conn) lengthFits(s *Stream, n int, end bool) bool {
	if s.declared < 0 {
		return true
	}
	total := s.received + int64(n)
	return total < s.declared && !end || total == s.declared
}

// receive takes n bytes from the connection's window and grants them again at
// once: a stalled stream must not stop the others, so only streams press back.
func (c *Conn) receive(n int32) error {
	c.headroom -= n
	if c.headroom < 0 {
		return &connError{http2.ErrCodeFlowControl, ReasonFlowControl, "DATA beyond the connection's window"}
	}
	c.credit += n
	if c.credit < c.eng.limits.ConnWindow/4 {
		return nil
	}
	c.mu.Lock()
	c.out = appendWindowUpdate(c.buffer(), 0, uint32(c.credit))
	c.batch.touch(c)
	c.mu.Unlock()
	c.headroom += c.credit
	c.credit = 0
	return nil
}

// strayData is DATA on a stream that is not open: late, because we ended the
// stream while it was on its way, or wrong.
func (c *Conn) strayData(h frameHeader, s *Stream) error {
	if s != nil {
		return c.violate(s, http2.ErrCodeStreamClosed, "DATA after END_STREAM")
	}
	if c.neverOpened(h.id) {
		return protocolError("DATA on idle stream %d", h.id)
	}
	return c.strayFrame(h.id)
}

// strayFrame answers a frame of a stream that is closed: ignored when we closed it
// under the peer, STREAM_CLOSED else. RFC 9113 section 5.1. A backend is held to it
// only where the stream certainly came to its own end: its connection serves
// others, whose RPCs a late frame must not cost.
func (c *Conn) strayFrame(id uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.forgiven.has(id):
		return nil
	case c.side == Upstream && c.finished.has(id):
		return &connError{http2.ErrCodeStreamClosed, ReasonProtocol, "frame on a stream that has ended"}
	case c.side == Upstream && c.torn.has(id):
		return c.rejectClosed(id)
	case c.side == Upstream:
		// One that we have reset, longer ago than we remember: there may be as many
		// as streams were open, and an answer to each would be a flood of ours.
		return c.guard.unknown(c)
	}
	if err := c.guard.violation(c); err != nil {
		return err
	}
	return c.rejectClosed(id)
}

// rejectClosed answers STREAM_CLOSED, once for each stream. The caller holds mu.
func (c *Conn) rejectClosed(id uint32) error {
	c.forgiven.add(id)
	c.out = appendRSTStream(c.buffer(), id, http2.ErrCodeStreamClosed)
	c.batch.touch(c)
	return c.provoke()
}

// neverOpened reports whether no stream of that number has been opened yet.
func (c *Conn) neverOpened(id uint32) bool {
	if c.side == Upstream {
		c.mu.Lock()
		defer c.mu.Unlock()
		return id%2 == 0 || id >= c.nextID
	}
	return id%2 == 0 || id > c.highest
}

// violate resets a stream whose peer broke a rule, and counts it: resets that a
// peer forces on us are as good as its own (CVE-2025-8671).
func (c *Conn) violate(s *Stream, code http2.ErrCode, detail string) error {
	c.eng.stats[c.side].rejected[ReasonMalformed].Add(1)
	if err := c.guard.violation(c); err != nil {
		return err
	}
	c.mu.Lock()
	var err error
	if s.state&stateOpen != 0 {
		c.reset(s, code, &c.batch)
		c.forgiven.add(s.id)
		err = c.provoke()
	} else if code == http2.ErrCodeStreamClosed {
		err = c.rejectClosed(s.id) // it came to its end a moment ago
	}
	c.mu.Unlock()
	s.tell(Ending{How: Violation, Code: code}, &c.batch)
	return err
}

// handlePriority counts and ignores: RFC 9113 section 5.3.2 deprecates it.
func (c *Conn) handlePriority(h frameHeader, p []byte) error {
	switch {
	case h.id == 0:
		return protocolError("PRIORITY on stream 0")
	case len(p) != 5:
		return c.rejectFrame(h.id, http2.ErrCodeFrameSize, "PRIORITY of other than 5 bytes")
	case consumeUint31(p) == h.id:
		return c.rejectFrame(h.id, http2.ErrCodeProtocol, "stream that depends on itself")
	}
	return c.guard.priority(c)
}

// rejectFrame is a fault of one stream that may not be open.
func (c *Conn) rejectFrame(id uint32, code http2.ErrCode, detail string) error {
	c.mu.Lock()
	s := c.streams[id]
	c.mu.Unlock()
	if s != nil {
		return c.violate(s, code, detail)
	}
	if err := c.guard.violation(c); err != nil {
		return err
	}
	if c.neverOpened(id) {
		// RST_STREAM must not be sent on an idle stream.
		return &connError{code, ReasonProtocol, detail}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = appendRSTStream(c.buffer(), id, code)
	c.batch.touch(c)
	return c.provoke()
}

// handleRSTStream ends a stream as its peer wishes. RFC 9113 section 6.4.
func (c *Conn) handleRSTStream(h frameHeader, p []byte) error {
	switch {
	case h.id == 0:
		return protocolError("RST_STREAM on stream 0")
	case len(p) != 4:
		return &connError{http2.ErrCodeFrameSize, ReasonFrameSize, "RST_STREAM of other than 4 bytes"}
	case c.neverOpened(h.id):
		return protocolError("RST_STREAM on idle stream %d", h.id)
	}
	code := http2.ErrCode(consumeUint32(p))
	c.mu.Lock()
	s := c.streams[h.id]
	if s == nil {
		c.mu.Unlock()
		return c.guard.strayReset(c)
	}
	replied := s.state&stateReplied != 0
	c.drop(s)
	if c.torn != nil {
		c.torn.add(s.id)
	}
	c.mu.Unlock()
	refused := c.side == Upstream && code == http2.ErrCodeRefusedStream && !s.answered
	s.tell(Ending{How: PeerReset, Code: code, Unprocessed: refused}, &c.batch)
	return c.guard.reset(c, s, replied)
}

// handleWindowUpdate lets us send more. RFC 9113 section 6.9.
func (c *Conn) handleWindowUpdate(h frameHeader, p []byte) error {
	if len(p) != 4 {
		return &connError{http2.ErrCodeFrameSize, ReasonFrameSize, "WINDOW_UPDATE of other than 4 bytes"}
	}
	n := int32(consumeUint31(p))
	if err := c.guard.windowUpdate(c); err != nil {
		return err
	}
	if h.id == 0 {
		return c.widenConn(n)
	}
	if c.neverOpened(h.id) {
		return protocolError("WINDOW_UPDATE on idle stream %d", h.id)
	}
	c.mu.Lock()
	s := c.streams[h.id]
	if s == nil {
		c.mu.Unlock()
		return nil // late, and harmless
	}
	if n > 0 && s.send <= maxWindow-n {
		s.send += n
		c.enqueue(s)
		c.batch.touch(c)
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	if n == 0 {
		return c.violate(s, http2.ErrCodeProtocol, "WINDOW_UPDATE of 0")
	}
	return c.violate(s, http2.ErrCodeFlowControl, "stream window beyond 2^31-1")
}

func (c *Conn) widenConn(n int32) error {
	if n == 0 {
		return protocolError("WINDOW_UPDATE of 0 on the connection")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.send > maxWindow-n {
		return &connError{http2.ErrCodeFlowControl, ReasonFlowControl, "connection window beyond 2^31-1"}
	}
	c.send += n
	c.batch.touch(c)
	return nil
}
