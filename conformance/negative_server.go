package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"
)

// negativeServer answers UnaryCall of grpc.testing.TestService over HTTP/2 in
// clear, and does on the way what its case says.
type negativeServer struct {
	c negativeCase
	l net.Listener

	mu     sync.Mutex // guards the fields below
	conns  map[net.Conn]bool
	used   int // connections that carried a call
	pings  int // sent and not yet acknowledged
	faults []error
}

func startNegative(c negativeCase) (*negativeServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &negativeServer{c: c, l: l, conns: map[net.Conn]bool{}}
	go s.accept()
	return s, nil
}

func (s *negativeServer) accept() {
	for {
		nc, err := s.l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[nc] = true
		s.mu.Unlock()
		go s.serve(nc)
	}
}

func (s *negativeServer) stop() {
	s.l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for nc := range s.conns {
		nc.Close()
	}
}

// verdict is what the server has to say of its client; acknowledgements may
// still be on their way for as long as patience lasts.
func (s *negativeServer) verdict(patience time.Duration) error {
	for end := time.Now().Add(patience); s.unanswered() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	faults := s.faults
	if s.pings > 0 {
		faults = append(faults, fmt.Errorf("%d PINGs not acknowledged", s.pings))
	}
	if s.c.goaway && s.used < 2 {
		faults = append(faults, fmt.Errorf("%d connections carried the calls, expected 2", s.used))
	}
	return errors.Join(faults...)
}

func (s *negativeServer) unanswered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pings
}

func (s *negativeServer) fault(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, err)
}

// negativeConn is one connection. Its reader starts a goroutine for each answer.
type negativeConn struct {
	s *negativeServer

	mu      sync.Mutex // guards the fields below and every write
	fr      *http2.Framer
	grown   *sync.Cond // windows grew, or the connection ended
	ended   bool
	window  int64 // what the peer lets us send on the connection
	initial int64 // ... on a new stream
	acked   bool  // the peer knows our SETTINGS
	streams map[uint32]*negativeStream
}

type negativeStream struct {
	id     uint32
	window int64
	body   bytes.Buffer // of the request; owned by the reader
}

func (s *negativeServer) serve(nc net.Conn) {
	defer nc.Close()
	c := &negativeConn{
		s: s, fr: http2.NewFramer(nc, nc),
		window: 65535, initial: 65535, // RFC 9113 section 6.9.2
		streams: map[uint32]*negativeStream{},
	}
	c.grown = sync.NewCond(&c.mu)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(nc, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	var settings []http2.Setting
	if s.c.maxStreams > 0 {
		settings = append(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: s.c.maxStreams})
	}
	c.write(func() error { return c.fr.WriteSettings(settings...) })
	c.read()

	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.grown.Broadcast()
}

// write sends one or more frames that belong together. A connection that
// breaks is noticed by the reader.
func (c *negativeConn) write(send func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	send()
}

func (c *negativeConn) read() {
	calls := 0
	for {
		frame, err := c.fr.ReadFrame()
		if err != nil {
			return
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			c.settings(f)
		case *http2.PingFrame:
			c.ping(f)
		case *http2.WindowUpdateFrame:
			c.grow(f.StreamID, int64(f.Increment))
		case *http2.MetaHeadersFrame:
			if calls++; calls == 1 {
				c.s.mu.Lock()
				c.s.used++
				c.s.mu.Unlock()
			}
			c.open(f.StreamID)
		case *http2.DataFrame:
			c.data(f)
		case *http2.RSTStreamFrame:
			c.close(f.StreamID)
		}
	}
}

func (c *negativeConn) settings(f *http2.SettingsFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.IsAck() {
		c.acked = true
		return
	}
	if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
		for _, st := range c.streams {
			st.window += int64(v) - c.initial
		}
		c.initial = int64(v)
		c.grown.Broadcast()
	}
	c.fr.WriteSettingsAck()
}

func (c *negativeConn) ping(f *http2.PingFrame) {
	if !f.IsAck() {
		c.write(func() error { return c.fr.WritePing(true, f.Data) })
		return
	}
	c.s.mu.Lock()
	c.s.pings--
	c.s.mu.Unlock()
}

func (c *negativeConn) grow(id uint32, by int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == 0 {
		c.window += by
	} else if st := c.streams[id]; st != nil {
		st.window += by
	}
	c.grown.Broadcast()
}

// open starts a stream, and takes note of one more than was allowed.
func (c *negativeConn) open(id uint32) {
	c.mu.Lock()
	c.streams[id] = &negativeStream{id: id, window: c.initial}
	if limit := c.s.c.maxStreams; limit > 0 && c.acked && len(c.streams) > int(limit) {
		c.s.fault(fmt.Errorf("%d streams at once, MAX_CONCURRENT_STREAMS is %d", len(c.streams), limit))
	}
	c.mu.Unlock()
	c.sendPing()
	c.write(func() error {
		return c.headers(id, false, ":status", "200", "content-type", "application/grpc")
	})
	c.sendPing()
	if c.s.c.rst == rstAfterHeader {
		c.reset(id)
	}
}

// data gives credit back at once and answers when the request is whole.
func (c *negativeConn) data(f *http2.DataFrame) {
	n := f.Length
	c.mu.Lock()
	st := c.streams[f.StreamID]
	if n > 0 {
		c.fr.WriteWindowUpdate(0, n)
	}
	if n > 0 && st != nil && !f.StreamEnded() {
		c.fr.WriteWindowUpdate(f.StreamID, n)
	}
	c.mu.Unlock()
	if st == nil {
		return
	}
	st.body.Write(f.Data())
	if f.StreamEnded() {
		go c.answer(st)
	}
}

func (c *negativeConn) close(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, id)
	c.grown.Broadcast()
}

func (c *negativeConn) reset(id uint32) {
	c.write(func() error { return c.fr.WriteRSTStream(id, http2.ErrCodeNo) })
	c.close(id)
}

func (c *negativeConn) sendPing() {
	if !c.s.c.ping {
		return
	}
	c.s.mu.Lock()
	c.s.pings++
	c.s.mu.Unlock()
	c.write(func() error { return c.fr.WritePing(false, [8]byte{}) })
}

// answer sends the message that was asked for, as the case wants it sent.
func (c *negativeConn) answer(st *negativeStream) {
	kase := c.s.c
	msg := answerFor(st.body.Bytes())
	if kase.rst == rstDuringData {
		msg = msg[:len(msg)/2]
	}
	c.sendPing()
	if !c.send(st, msg) {
		return
	}
	c.sendPing()
	if kase.rst != rstNever {
		c.reset(st.id)
		return
	}
	// The stream is off our books before the peer can know that it is over.
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, st.id)
	c.headers(st.id, true, "grpc-status", "0")
	if kase.goaway {
		c.fr.WriteGoAway(st.id, http2.ErrCodeNo, nil)
	}
}

// send writes msg in frames of the case's size, each no larger than what the
// windows have left. It reports false when the stream or the connection ended.
func (c *negativeConn) send(st *negativeStream, msg []byte) bool {
	chunk, padding := 16384, 0
	if c.s.c.chunk > 0 {
		chunk = c.s.c.chunk
	}
	if c.s.c.pad > 0 {
		padding = c.s.c.pad + 1 // RFC 9113 section 6.1: the length of the padding counts too
	}
	pad := make([]byte, c.s.c.pad)
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(msg) > 0 {
		for !c.ended && c.streams[st.id] != nil && min(c.window, st.window) <= int64(padding) {
			c.grown.Wait()
		}
		if c.ended || c.streams[st.id] == nil {
			return false
		}
		n := min(len(msg), chunk, int(min(c.window, st.window))-padding)
		if padding == 0 {
			c.fr.WriteData(st.id, false, msg[:n])
		} else {
			c.fr.WriteDataPadded(st.id, false, msg[:n], pad)
		}
		msg = msg[n:]
		c.window -= int64(n + padding)
		st.window -= int64(n + padding)
	}
	return true
}

// headers is called with the mutex held. The fields are never indexed, so an
// encoder's table need not be kept.
func (c *negativeConn) headers(id uint32, end bool, fields ...string) error {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true})
	}
	return c.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end,
	})
}

// answerFor builds the prefixed SimpleResponse that a prefixed SimpleRequest
// asks for: a payload of response_size zeros.
func answerFor(request []byte) []byte {
	const (
		fieldResponseSize = 2 // of SimpleRequest
		fieldPayload      = 1 // of SimpleResponse
		fieldBody         = 2 // of Payload
	)
	if len(request) < 5 {
		return nil
	}
	size := varintField(request[5:], fieldResponseSize)
	payload := protowire.AppendTag(nil, fieldBody, protowire.BytesType)
	payload = protowire.AppendBytes(payload, make([]byte, size))
	msg := protowire.AppendTag(nil, fieldPayload, protowire.BytesType)
	msg = protowire.AppendBytes(msg, payload)
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg))), msg...)
}
