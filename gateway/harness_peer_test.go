package gateway

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// event is one frame that a peer has received.
type event struct {
	typ    http2.FrameType
	id     uint32
	end    bool // END_STREAM
	ack    bool
	fields []hpack.HeaderField
	data   []byte
	code   http2.ErrCode // of RST_STREAM and GOAWAY
	last   uint32        // of GOAWAY
	debug  string
	inc    uint32 // of WINDOW_UPDATE
	closed bool   // the connection has ended; no frame
	at     time.Time
}

func (e event) String() string {
	switch {
	case e.closed:
		return "end of connection"
	case e.typ == http2.FrameHeaders:
		return fmt.Sprintf("HEADERS stream=%d end=%v %v", e.id, e.end, e.fields)
	case e.typ == http2.FrameData:
		return fmt.Sprintf("DATA stream=%d end=%v bytes=%d", e.id, e.end, len(e.data))
	case e.typ == http2.FrameRSTStream:
		return fmt.Sprintf("RST_STREAM stream=%d %v", e.id, e.code)
	case e.typ == http2.FrameGoAway:
		return fmt.Sprintf("GOAWAY last=%d %v %q", e.last, e.code, e.debug)
	}
	return fmt.Sprintf("%v stream=%d ack=%v", e.typ, e.id, e.ack)
}

func (e event) get(name string) string {
	for _, f := range e.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func (e event) all(name string) (values []string) {
	for _, f := range e.fields {
		if f.Name == name {
			values = append(values, f.Value)
		}
	}
	return values
}

// manners say what a peer does by itself.
type manners struct {
	settings []http2.Setting
	noPong   bool // leaves PINGs unanswered
	noCredit bool // grants no window beyond the first
	noReader bool // reads nothing at all
	window   uint32
}

// peer speaks frames, as a client of the gateway or as a backend.
type peer struct {
	t      testing.TB
	nc     net.Conn
	server bool
	m      manners

	wmu   sync.Mutex    // guards the fields below, and writing
	cork  *bytes.Buffer // what is written while it is there waits in it
	fr    *http2.Framer
	enc   *hpack.Encoder
	block bytes.Buffer

	mu      sync.Mutex // guards the fields below
	events  []event    // not yet awaited
	changed chan struct{}
	done    chan struct{}
}

// connect opens a connection to the gateway and greets it.
func connect(t testing.TB, addr string, m manners) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return greet(t, nc, m)
}

// greet is the client's half of the preface.
func greet(t testing.TB, nc net.Conn, m manners) *peer {
	t.Helper()
	p := newPeer(t, nc, m)
	if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	p.open()
	return p
}

func newPeer(t testing.TB, nc net.Conn, m manners) *peer {
	p := &peer{t: t, nc: nc, m: m, changed: make(chan struct{}), done: make(chan struct{})}
	p.fr = http2.NewFramer(corked{p}, nc)
	p.enc = hpack.NewEncoder(&p.block)
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.fr.MaxHeaderListSize = 1 << 20
	p.fr.AllowIllegalWrites = true
	return p
}

// corked writes to the peer's connection, or keeps what is written.
type corked struct{ *peer }

func (c corked) Write(b []byte) (int, error) {
	if c.cork != nil {
		return c.cork.Write(b)
	}
	return c.nc.Write(b)
}

// atOnce sends what f writes in one write, and does what is left to do before
// anybody can have read it.
func (p *peer) atOnce(f, then func()) {
	p.wmu.Lock()
	p.cork = new(bytes.Buffer)
	p.wmu.Unlock()
	f()
	p.wmu.Lock()
	defer p.wmu.Unlock()
	p.nc.Write(p.cork.Bytes())
	p.cork = nil
	then()
}

// open sends SETTINGS and begins to read.
func (p *peer) open() {
	p.wmu.Lock()
	p.fr.WriteSettings(p.m.settings...)
	if p.m.window > 0 {
		p.fr.WriteWindowUpdate(0, p.m.window)
	}
	p.wmu.Unlock()
	p.t.Cleanup(p.close)
	if p.m.noReader {
		// What it does not read it acknowledges all the same, or it would be ended for
		// its silence before a slow machine has come to what the test looks at.
		p.write(func() { p.fr.WriteSettingsAck() })
		close(p.done)
		return
	}
	go p.read()
}

func (p *peer) close() {
	p.nc.Close()
	<-p.done
}

// abort closes the connection by RST.
func (p *peer) abort() {
	p.nc.(*net.TCPConn).SetLinger(0)
	p.nc.Close()
	<-p.done
}

func (p *peer) read() {
	defer close(p.done)
	for {
		f, err := p.fr.ReadFrame()
		e := event{at: time.Now()}
		if err != nil {
			e.closed, e.debug = true, err.Error()
			p.add(e)
			return
		}
		e.typ, e.id = f.Header().Type, f.Header().StreamID
		p.take(f, &e)
		p.add(e)
	}
}

// take reads a frame and does what manners ask.
func (p *peer) take(f http2.Frame, e *event) {
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		e.end, e.fields = f.StreamEnded(), slices.Clone(f.Fields)
	case *http2.DataFrame:
		e.end, e.data = f.StreamEnded(), bytes.Clone(f.Data())
		if n := f.Header().Length; n > 0 && !p.m.noCredit {
			p.write(func() {
				p.fr.WriteWindowUpdate(0, n)
				if !e.end {
					p.fr.WriteWindowUpdate(e.id, n)
				}
			})
		}
	case *http2.SettingsFrame:
		if e.ack = f.IsAck(); !e.ack {
			p.write(func() { p.fr.WriteSettingsAck() })
		}
	case *http2.PingFrame:
		e.ack, e.data = f.IsAck(), bytes.Clone(f.Data[:])
		if !e.ack && !p.m.noPong {
			p.write(func() { p.fr.WritePing(true, f.Data) })
		}
	case *http2.RSTStreamFrame:
		e.code = f.ErrCode
	case *http2.GoAwayFrame:
		e.code, e.last, e.debug = f.ErrCode, f.LastStreamID, string(f.DebugData())
	case *http2.WindowUpdateFrame:
		e.inc = f.Increment
	}
}

func (p *peer) add(e event) {
	p.mu.Lock()
	p.events = append(p.events, e)
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
}

// write runs f, which writes frames, and ignores that the other side has gone.
func (p *peer) write(f func()) {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	f()
}

// await takes the first event that matches out of those that have come.
func (p *peer) await(what string, match func(event) bool) event {
	p.t.Helper()
	e, ok := p.within(patience, match)
	if !ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.t.Fatalf("no %s within %v; the last of %d others are %v", what, patience, len(p.events), p.events[max(0, len(p.events)-20):])
	}
	return e
}

func (p *peer) within(d time.Duration, match func(event) bool) (event, bool) {
	deadline := time.After(d)
	for {
		p.mu.Lock()
		for i, e := range p.events {
			if match(e) {
				p.events = slices.Delete(p.events, i, i+1)
				p.mu.Unlock()
				return e, true
			}
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			return event{}, false
		}
	}
}

// gather takes n events that match, and forgets those that do not. It is for many.
func (p *peer) gather(what string, n int, match func(event) bool) (list []event) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		for i, e := range p.events {
			if len(list) == n {
				p.events = p.events[i:]
				p.mu.Unlock()
				return list
			}
			if match(e) {
				list = append(list, e)
			}
		}
		p.events = nil
		changed := p.changed
		p.mu.Unlock()
		if len(list) == n {
			return list
		}
		select {
		case <-changed:
		case <-deadline:
			p.t.Fatalf("%d of %d %s within %v", len(list), n, what, patience)
		}
	}
}

// seen returns those events that have come, were not awaited, and match.
func (p *peer) seen(match func(event) bool) (list []event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if match(e) {
			list = append(list, e)
		}
	}
	return list
}

func ofType(typ http2.FrameType, id uint32) func(event) bool {
	return func(e event) bool { return !e.closed && e.typ == typ && e.id == id }
}

func (p *peer) awaitHeaders(id uint32) event {
	p.t.Helper()
	return p.await(fmt.Sprintf("HEADERS on stream %d", id), ofType(http2.FrameHeaders, id))
}

func (p *peer) awaitData(id uint32) event {
	p.t.Helper()
	return p.await(fmt.Sprintf("DATA on stream %d", id), ofType(http2.FrameData, id))
}

func (p *peer) awaitReset(id uint32) event {
	p.t.Helper()
	return p.await(fmt.Sprintf("RST_STREAM on stream %d", id), ofType(http2.FrameRSTStream, id))
}

func (p *peer) awaitGoAway() event {
	p.t.Helper()
	return p.await("GOAWAY", ofType(http2.FrameGoAway, 0))
}

func (p *peer) awaitEnd() event {
	p.t.Helper()
	return p.await("end of connection", func(e event) bool { return e.closed })
}

// awaitBytes gathers n bytes of DATA of a stream.
func (p *peer) awaitBytes(id uint32, n int) (all []byte) {
	p.t.Helper()
	for len(all) < n {
		all = append(all, p.awaitData(id).data...)
	}
	return all
}

// opening is the header of a request as grpc clients send it; pairs change fields
// or add some.
func opening(path string, pairs ...string) []string {
	h := []string{
		":method", "POST", ":scheme", "http", ":path", path, ":authority", "shop.example.com",
		"content-type", "application/grpc", "te", "trailers",
	}
	for i := 0; i < len(pairs); i += 2 {
		at := -1
		for j := 0; j < len(h); j += 2 {
			if h[j] == pairs[i] && strings.HasPrefix(h[j], ":") || h[j] == pairs[i] && pairs[i] == "content-type" {
				at = j
			}
		}
		if at >= 0 {
			h[at+1] = pairs[i+1]
		} else {
			h = append(h, pairs[i], pairs[i+1])
		}
	}
	return h
}

// headers sends a header section of name-value pairs.
func (p *peer) headers(id uint32, end bool, pairs ...string) {
	p.write(func() {
		p.block.Reset()
		for i := 0; i < len(pairs); i += 2 {
			p.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
		}
		rest := p.block.Bytes()
		first := rest[:min(len(rest), 16000)]
		rest = rest[len(first):]
		p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(rest) == 0})
		for len(rest) > 0 {
			part := rest[:min(len(rest), 16000)]
			rest = rest[len(part):]
			p.fr.WriteContinuation(id, len(rest) == 0, part)
		}
	})
}

// request opens a stream of gRPC without ending it.
func (p *peer) request(id uint32, path string, pairs ...string) {
	p.headers(id, false, opening(path, pairs...)...)
}

// data sends payload in frames of 16 KiB, whatever the windows are.
func (p *peer) data(id uint32, payload []byte, end bool) {
	p.write(func() {
		for len(payload) > 16<<10 {
			p.fr.WriteData(id, false, payload[:16<<10])
			payload = payload[16<<10:]
		}
		p.fr.WriteData(id, end, payload)
	})
}

func (p *peer) reset(id uint32, code http2.ErrCode) {
	p.write(func() { p.fr.WriteRSTStream(id, code) })
}

func (p *peer) goAway(last uint32, code http2.ErrCode, debug string) {
	p.write(func() { p.fr.WriteGoAway(last, code, []byte(debug)) })
}

// reply answers a request of gRPC in full.
func (p *peer) reply(id uint32, payload []byte) {
	p.headers(id, false, ":status", "200", "content-type", "application/grpc")
	p.data(id, message(payload), false)
	p.headers(id, true, "grpc-status", "0")
}

// message puts gRPC's prefix before a payload.
func message(payload []byte) []byte {
	b := make([]byte, 5, 5+len(payload))
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	return append(b, payload...)
}

// scripted is a backend whose connections a test speaks frames on.
type scripted struct {
	addr  string
	peers chan *peer
}

// startScript listens until the test ends. Every connection is greeted with m.
func startScript(t testing.TB, m manners) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return scriptOn(t, l, m)
}

func scriptOn(t testing.TB, l net.Listener, m manners) *scripted {
	t.Helper()
	s := &scripted{addr: l.Addr().String(), peers: make(chan *peer, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.take(t, nc, m)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return s
}

func (s *scripted) take(t testing.TB, nc net.Conn, m manners) {
	preface := make([]byte, len(http2.ClientPreface))
	nc.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(nc, preface); err != nil {
		nc.Close() // a dial that was given up
		return
	}
	if string(preface) != http2.ClientPreface {
		t.Errorf("the gateway's preface is %q", preface)
		nc.Close()
		return
	}
	nc.SetReadDeadline(time.Time{})
	p := newPeer(t, nc, m)
	p.server = true
	p.open()
	s.peers <- p
}

// accept returns the next connection.
func (s *scripted) accept(t testing.TB) *peer {
	t.Helper()
	select {
	case p := <-s.peers:
		return p
	case <-time.After(patience):
		t.Fatalf("no connection to the backend within %v", patience)
		return nil
	}
}

// awaitRequest returns the next request that a backend gets.
func (p *peer) awaitRequest() event {
	p.t.Helper()
	return p.await("request", func(e event) bool { return !e.closed && e.typ == http2.FrameHeaders && e.get(":path") != "" })
}
