package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// client is one HTTP/2 connection to a proxy, for one RPC at a time. It exists
// because h2load does not look at trailers, and because ten thousand idle
// connections want a client that is nothing but a connection.
type client struct {
	nc   net.Conn
	fr   *http2.Framer
	next uint32 // stream id of the next RPC

	enc    *hpack.Encoder
	fields bytes.Buffer // what enc writes to
}

// clientTimeout bounds each step of a client: dial, handshake, RPC, ping. It
// is long because ten thousand of them may share one busy core.
const clientTimeout = 30 * time.Second

// dial connects, and returns when both sides have acknowledged each other's
// SETTINGS. trust is nil for a connection in clear.
func dial(addr string, trust *tls.Config) (*client, error) {
	nc, err := net.DialTimeout("tcp", addr, clientTimeout)
	if err != nil {
		return nil, err
	}
	if trust != nil {
		nc = tls.Client(nc, trust)
	}
	c := &client{nc: nc, fr: http2.NewFramer(nc, nc), next: 1}
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.fields)
	if err := c.greet(); err != nil {
		nc.Close()
		return nil, fmt.Errorf("greet %s: %w", addr, err)
	}
	return c, nil
}

func (c *client) greet() error {
	c.nc.SetDeadline(time.Now().Add(clientTimeout))
	if _, err := io.WriteString(c.nc, http2.ClientPreface); err != nil {
		return err
	}
	if err := c.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}); err != nil {
		return err
	}
	for theirs, ours := false, false; !theirs || !ours; {
		f, err := c.read()
		if err != nil {
			return err
		}
		if s, ok := f.(*http2.SettingsFrame); ok {
			ours = ours || s.IsAck()
			theirs = theirs || !s.IsAck()
		}
	}
	return nil
}

// read returns the next frame, having answered SETTINGS and PING itself.
func (c *client) read() (http2.Frame, error) {
	f, err := c.fr.ReadFrame()
	if err != nil {
		return nil, err
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			err = c.fr.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			err = c.fr.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		err = fmt.Errorf("GOAWAY %v %q", f.ErrCode, f.DebugData())
	}
	return f, err
}

// reply is the whole answer to one RPC.
type reply struct {
	header, trailer map[string]string
	body            []byte
}

// call makes one unary RPC.
func (c *client) call(authority, path string, fields [][2]string, body []byte) (*reply, error) {
	c.nc.SetDeadline(time.Now().Add(clientTimeout))
	id := c.next
	c.next += 2
	if err := c.send(id, authority, path, fields, body); err != nil {
		return nil, fmt.Errorf("send RPC: %w", err)
	}
	r := &reply{}
	for {
		f, err := c.read()
		if err != nil {
			return nil, fmt.Errorf("read reply: %w", err)
		}
		if f.Header().StreamID != id {
			continue
		}
		end, err := c.take(r, f)
		if err != nil || end {
			return r, err
		}
	}
}

func (c *client) send(id uint32, authority, path string, fields [][2]string, body []byte) error {
	c.fields.Reset()
	pseudo := [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", authority}}
	for _, f := range append(pseudo, fields...) {
		if err := c.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return err
		}
	}
	err := c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.fields.Bytes(), EndHeaders: true})
	return errors.Join(err, c.fr.WriteData(id, true, body))
}

// take adds a frame to the reply and says whether it was the last.
func (c *client) take(r *reply, f http2.Frame) (end bool, err error) {
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return f.StreamEnded(), r.addFields(f)
	case *http2.DataFrame:
		r.body = append(r.body, f.Data()...)
		if n := uint32(f.Length); n > 0 {
			err = c.fr.WriteWindowUpdate(0, n)
			if !f.StreamEnded() {
				err = errors.Join(err, c.fr.WriteWindowUpdate(f.StreamID, n))
			}
		}
		return f.StreamEnded(), err
	case *http2.RSTStreamFrame:
		return true, fmt.Errorf("stream reset: %v", f.ErrCode)
	}
	return false, nil
}

// addFields takes the header, or the trailer once there is a header. A reply
// that ends with its header (Trailers-Only) has the same fields as both.
func (r *reply) addFields(f *http2.MetaHeadersFrame) error {
	m := map[string]string{}
	for _, h := range f.Fields {
		m[h.Name] = h.Value
	}
	status := m[":status"]
	switch {
	case r.header == nil && len(status) == 3 && status[0] == '1':
		return nil // an interim response
	case r.header == nil:
		r.header = m
	case status != "":
		return errors.New("second header")
	}
	if f.StreamEnded() {
		r.trailer = m
	}
	return nil
}

// status is the reply's grpc-status, or -1 without one.
func (r *reply) status() int {
	code, err := strconv.Atoi(r.trailer["grpc-status"])
	if err != nil {
		return -1
	}
	return code
}

// ping proves that the connection lives.
func (c *client) ping() error {
	c.nc.SetDeadline(time.Now().Add(clientTimeout))
	if err := c.fr.WritePing(false, [8]byte{'b', 'e', 'n', 'c', 'h'}); err != nil {
		return err
	}
	for {
		f, err := c.read()
		if err != nil {
			return err
		}
		if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
			return nil
		}
	}
}

// close resets the connection, so that thousands of them do not leave their
// ports in TIME_WAIT for the next run.
func (c *client) close() {
	nc := c.nc
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if t, ok := nc.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	nc.Close()
}
