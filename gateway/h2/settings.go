package h2

import (
	"golang.org/x/net/http2"
)

// maxSettings is how many parameters one SETTINGS frame may hold: six are defined.
const maxSettings = 100

// handleSettings obeys the peer's parameters. RFC 9113 section 6.5.
func (c *Conn) handleSettings(h frameHeader, p []byte) error {
	ack := h.flags&flagAck != 0
	switch {
	case h.id != 0:
		return protocolError("SETTINGS on stream %d", h.id)
	case ack && len(p) != 0, len(p)%6 != 0:
		return &connError{http2.ErrCodeFrameSize, ReasonFrameSize, "SETTINGS of wrong length"}
	case ack:
		c.mu.Lock()
		c.acked = true
		c.mu.Unlock()
		return c.guard.settings(c)
	case len(p) > 6*maxSettings:
		return excess(ReasonSettings, "SETTINGS with %d parameters, limit %d", len(p)/6, maxSettings)
	}
	if err := c.guard.settings(c); err != nil {
		return err
	}
	for ; len(p) > 0; p = p[6:] {
		s := http2.Setting{ID: http2.SettingID(uint16(p[0])<<8 | uint16(p[1])), Val: consumeUint32(p[2:])}
		if err := c.apply(s); err != nil {
			return err
		}
	}
	return c.settledNow()
}

// settledNow acknowledges, and on the first SETTINGS lets the conversation begin.
func (c *Conn) settledNow() error {
	c.mu.Lock()
	c.out = appendSettingsAck(c.buffer())
	c.batch.touch(c)
	err := c.provoke()
	c.mu.Unlock()
	if err != nil || c.settled {
		return err
	}
	c.settled = true
	c.limitRead(noDeadline) // unless the end is near, and has a deadline of its own
	if c.monitor != nil {
		c.monitor.ConnReady(c)
	}
	return nil
}

// apply obeys one parameter. x/net's Framer leaves Valid to us (CVE-2026-33814).
func (c *Conn) apply(s http2.Setting) error {
	if s.Valid() != nil {
		if s.ID == http2.SettingInitialWindowSize {
			return &connError{http2.ErrCodeFlowControl, ReasonFlowControl, s.String()}
		}
		return protocolError("%v", s)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s.ID {
	case http2.SettingHeaderTableSize:
		c.enc.setMax(s.Val)
	case http2.SettingEnablePush:
		if c.side == Upstream && s.Val != 0 {
			return protocolError("server enabled push")
		}
	case http2.SettingMaxConcurrentStreams:
		if c.side == Upstream {
			c.maxOpen.Store(min(s.Val, c.cap))
		}
	case http2.SettingInitialWindowSize:
		return c.shiftWindows(int32(s.Val))
	case http2.SettingMaxHeaderListSize:
		c.maxList = s.Val
	}
	return nil
}

// shiftWindows changes every stream's window by as much as the initial one
// changed; a window may become negative. RFC 9113 section 6.9.2. The caller holds
// mu.
func (c *Conn) shiftWindows(initial int32) error {
	delta := int64(initial) - int64(c.initial)
	if delta == 0 {
		return nil
	}
	c.initial = initial
	for _, s := range c.streams {
		if int64(s.send)+delta > maxWindow {
			return &connError{http2.ErrCodeFlowControl, ReasonFlowControl, "initial window lifts a stream beyond 2^31-1"}
		}
		s.send += int32(delta)
		if s.send <= 0 {
			c.unready(s)
		}
		c.enqueue(s)
	}
	c.batch.touch(c)
	return nil
}
