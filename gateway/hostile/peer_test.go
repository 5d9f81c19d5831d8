package hostile

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// manners are what a peer does unasked. The zero value reads everything, answers
// SETTINGS and PING, and gives no window back.
type manners struct {
	settings []http2.Setting
	deaf     bool   // never reads
	mute     bool   // answers nothing
	generous bool   // gives back every byte of window that DATA takes
	receive  int    // SO_RCVBUF, bytes; 0 = the system's
	first    script // in place of preface and SETTINGS

	tls *tls.Config

	// head, end and gone are called by the reader when a stream's headers have come,
	// and when the other side has ended its half, or reset the stream.
	head, end, gone func(p *peer, id uint32)
}

// peer is one end of a connection that speaks raw frames: a client of the
// gateway's, or a backend.
type peer struct {
	nc     net.Conn
	manner manners

	writing sync.Mutex // one writer at a time
	sent    atomic.Int64

	mu      sync.Mutex // guards the fields below
	changed chan struct{}
	streams map[uint32]*answer
	order   []uint32 // streams as the other side opened them, or answered
	frames  map[http2.FrameType]int
	acks    int // of PINGs
	resets  int
	goAway  *http2.ErrCode
	detail  string // of GOAWAY
	over    bool   // nothing more can be read
	next    uint32 // stream id, of a client

	// Owned by the reader.
	dec   *hpack.Decoder
	block []byte
	flags http2.Flags
}

// answer is what the other side has sent on one stream.
type answer struct {
	head, tail []hpack.HeaderField
	interim    int
	size       int // bytes of DATA
	data       []byte
	ended      bool
	wasReset   bool
	code       http2.ErrCode // of the reset
	lost       bool          // the connection ended first
	took       time.Duration

	granted, used int // window given to us beyond the first, and DATA sent in it
}

// keptData is how much DATA of a stream a peer remembers, bytes.
const keptData = 64 << 10

// status is the grpc-status, "" when there is none.
func (a *answer) status() string { return a.get("grpc-status") }

func (a *answer) get(name string) string {
	for _, list := range [][]hpack.HeaderField{a.tail, a.head} {
		for _, f := range list {
			if f.Name == name {
				return f.Value
			}
		}
	}
	return ""
}

func (a *answer) all(name string) (values []string) {
	for _, f := range slices.Concat(a.head, a.tail) {
		if f.Name == name {
			values = append(values, f.Value)
		}
	}
	return values
}

// String says in a word how the stream ended.
func (a *answer) String() string {
	switch {
	case a.lost:
		return "connection lost"
	case a.wasReset:
		return "reset " + a.code.String()
	case !a.ended:
		return "open"
	case a.status() != "":
		return "status " + a.status()
	}
	return "http " + a.get(":status")
}

// dial connects to the gateway's port.
func dial(t testing.TB, addr string, m manners) *peer {
	t.Helper()
	p, err := dialPeer(addr, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

func dialPeer(addr string, m manners) (*peer, error) {
	d := net.Dialer{Timeout: 5 * time.Second, Control: func(_, _ string, raw syscall.RawConn) error { return narrow(raw, m.receive) }}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if m.tls != nil {
		nc = tls.Client(nc, m.tls)
	}
	p := newPeer(nc, m)
	p.next = 1
	first := m.first
	if first == nil {
		first = script{}.preface().settings(m.settings...)
	}
	p.write(first)
	if !m.deaf {
		go p.listen()
	}
	return p, nil
}

func narrow(raw syscall.RawConn, receive int) error {
	if receive == 0 {
		return nil
	}
	var err error
	ctl := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receive)
	})
	return errors.Join(ctl, err)
}

func newPeer(nc net.Conn, m manners) *peer {
	return &peer{
		nc: nc, manner: m, dec: hpack.NewDecoder(4096, nil),
		changed: make(chan struct{}), streams: make(map[uint32]*answer), frames: make(map[http2.FrameType]int),
	}
}

func (p *peer) close() { p.nc.Close() }

// write sends frames. An error means that the gateway has closed.
func (p *peer) write(s script) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
	n, err := p.nc.Write(s)
	p.sent.Add(int64(n))
	return err
}

// flood sends a piece up to n times, and stops when the gateway has had enough. It
// reports whether that was so.
func (p *peer) flood(piece script, n int) (cut bool) {
	for range n {
		if p.write(piece) != nil {
			return true
		}
	}
	return false
}

// open sends a request and returns its stream's id.
func (p *peer) open(end bool, head []byte) (id uint32) {
	p.mu.Lock()
	id = p.next
	p.next += 2
	p.streams[id] = &answer{lost: p.over}
	p.mu.Unlock()
	p.write(script{}.headers(id, end, head))
	return id
}

// call sends a whole request and waits for its answer.
func (p *peer) call(head, body []byte) answer {
	start := time.Now()
	p.writing.Lock() // the order of ids is that of the bytes
	p.mu.Lock()
	id := p.next
	p.next += 2
	p.streams[id] = &answer{lost: p.over}
	p.mu.Unlock()
	p.nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
	p.nc.Write(script{}.headers(id, false, head).data(id, true, body))
	p.writing.Unlock()
	a := p.result(id, patience)
	a.took = time.Since(start)
	p.mu.Lock()
	delete(p.streams, id)
	p.mu.Unlock()
	return a
}

// patience is how long a test waits for what should come at once.
const patience = 10 * time.Second

// result waits for the end of a stream and returns what has come.
func (p *peer) result(id uint32, wait time.Duration) answer {
	p.await(wait, func() bool {
		a := p.streams[id]
		return a != nil && (a.ended || a.wasReset || a.lost)
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.streams[id]; a != nil {
		return *a
	}
	return answer{lost: p.over}
}

// await waits until a condition holds that is about the fields under mu.
func (p *peer) await(wait time.Duration, holds func() bool) bool {
	end := time.NewTimer(wait)
	defer end.Stop()
	for {
		p.mu.Lock()
		ok, changed := holds(), p.changed
		p.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-end.C:
			return false
		}
	}
}

// ended waits for the end of the connection.
func (p *peer) ended(wait time.Duration) bool {
	return p.await(wait, func() bool { return p.over })
}

// stream waits for the n-th stream of the other side, the first being 0.
func (p *peer) stream(n int) (id uint32, ok bool) {
	ok = p.await(patience, func() bool { return len(p.order) > n || p.over })
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.order) <= n {
		return 0, false
	}
	return p.order[n], ok
}

// snapshot copies the answer on a stream as it is now.
func (p *peer) snapshot(id uint32) answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.streams[id]; a != nil {
		return *a
	}
	return answer{}
}

// count returns how many frames of a type have come.
func (p *peer) count(typ http2.FrameType) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frames[typ]
}

// farewell is the code of the gateway's GOAWAY and the words in it, "" when there
// was none.
func (p *peer) farewell() (code, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.goAway == nil {
		return "", ""
	}
	return p.goAway.String(), p.detail
}

// listen reads until the connection ends.
func (p *peer) listen() {
	fr := http2.NewFramer(io.Discard, p.nc)
	fr.SetMaxReadFrameSize(1 << 24)
	fr.AllowIllegalReads = true
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			break
		}
		p.take(f)
	}
	p.mu.Lock()
	p.over = true
	for _, a := range p.streams {
		a.lost = !a.ended && !a.wasReset
	}
	p.notify()
	p.mu.Unlock()
}

// notify wakes who waits. The caller holds mu.
func (p *peer) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// take notes a frame, and answers it as manners ask.
func (p *peer) take(f http2.Frame) {
	h := f.Header()
	p.mu.Lock()
	p.frames[h.Type]++
	reply, event := p.note(f)
	p.notify()
	p.mu.Unlock()
	if reply != nil && !p.manner.mute {
		p.write(reply)
	}
	if event != nil {
		event(p, h.StreamID)
	}
}

// note keeps what a frame says. The caller holds mu.
func (p *peer) note(f http2.Frame) (reply script, event func(*peer, uint32)) {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			reply = script{}.settingsAck()
		}
	case *http2.PingFrame:
		if f.IsAck() {
			p.acks++
		} else {
			reply = script{}.frame(http2.FramePing, ack, 0, f.Data[:]...)
		}
	case *http2.GoAwayFrame:
		p.goAway, p.detail = &f.ErrCode, string(f.DebugData())
	case *http2.RSTStreamFrame:
		p.resets++
		a := p.at(f.StreamID)
		a.wasReset, a.code = !a.ended, f.ErrCode
		event = p.manner.gone
	case *http2.WindowUpdateFrame:
		if f.StreamID != 0 {
			p.at(f.StreamID).granted += int(f.Increment)
		}
	case *http2.DataFrame:
		return p.noteData(f)
	case *http2.HeadersFrame:
		p.block, p.flags = append(p.block[:0], f.HeaderBlockFragment()...), f.Flags
		if f.HeadersEnded() {
			event = p.noteBlock(f.StreamID)
		}
	case *http2.ContinuationFrame:
		p.block = append(p.block, f.HeaderBlockFragment()...)
		if f.HeadersEnded() {
			event = p.noteBlock(f.StreamID)
		}
	}
	return reply, event
}

// at returns the answer on a stream, which begins with the first frame on it. The
// caller holds mu.
func (p *peer) at(id uint32) *answer {
	a := p.streams[id]
	if a == nil {
		a = &answer{}
		p.streams[id] = a
	}
	return a
}

func (p *peer) noteData(f *http2.DataFrame) (reply script, event func(*peer, uint32)) {
	a := p.at(f.StreamID)
	a.size += len(f.Data())
	if room := keptData - len(a.data); room > 0 {
		a.data = append(a.data, f.Data()[:min(room, len(f.Data()))]...)
	}
	if f.StreamEnded() {
		a.ended = true
		event = p.manner.end
	}
	if n := f.Header().Length; p.manner.generous && n > 0 {
		reply = script{}.windowUpdate(0, n).windowUpdate(f.StreamID, n)
	}
	return reply, event
}

// noteBlock decodes a header section, and judges nothing.
func (p *peer) noteBlock(id uint32) (event func(*peer, uint32)) {
	fields, err := p.dec.DecodeFull(p.block)
	if err != nil {
		fields = []hpack.HeaderField{{Name: "undecodable", Value: err.Error()}}
	}
	a := p.at(id)
	status := ""
	if len(fields) > 0 && fields[0].Name == ":status" {
		status = fields[0].Value
	}
	switch n, _ := strconv.Atoi(status); {
	case status != "" && n < 200:
		a.interim++
		return nil
	case a.head == nil:
		a.head = fields
		p.order = append(p.order, id)
		event = p.manner.head
	default:
		a.tail = fields
	}
	if p.flags.Has(endStream) {
		a.ended = true
		if p.manner.end != nil {
			return both(event, p.manner.end)
		}
	}
	return event
}

func both(f, g func(*peer, uint32)) func(*peer, uint32) {
	if f == nil {
		return g
	}
	return func(p *peer, id uint32) { f(p, id); g(p, id) }
}

// village is a raw backend: it listens, and treats every connection alike.
type village struct {
	l         net.Listener
	authority string        // by which the gateway routes here
	done      chan struct{} // closed when the test is over

	mu    sync.Mutex // guards the fields below
	m     manners
	run   func(p *peer)
	peers []*peer
}

// settle starts a raw backend, whose connections do nothing before become.
func settle(t testing.TB) *village {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &village{l: l, done: make(chan struct{})}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { v.serve(nc) })
		}
	})
	t.Cleanup(func() { close(v.done); v.leave(); work.Wait() })
	return v
}

// become says how the connections behave that are accepted from now on; what each
// one does of its own is said by run, which may be nil.
func (v *village) become(m manners, run func(p *peer)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.m, v.run = m, run
}

// leave closes the backend for good.
func (v *village) leave() {
	v.l.Close()
	v.closeAll()
}

func (v *village) addr() string { return v.l.Addr().String() }

// accepted is how many connections there have been.
func (v *village) accepted() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.peers)
}

// last is the connection that was accepted last.
func (v *village) last() *peer {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.peers[len(v.peers)-1]
}

func (v *village) closeAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range v.peers {
		p.close()
	}
}

func (v *village) serve(nc net.Conn) {
	defer nc.Close()
	v.mu.Lock()
	m, run := v.m, v.run
	p := newPeer(nc, m)
	v.peers = append(v.peers, p)
	v.mu.Unlock()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(nc, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	first := m.first
	if first == nil {
		first = script{}.settings(m.settings...)
	}
	p.write(first)
	if m.deaf {
		if run != nil {
			run(p)
		}
		<-v.done
		return
	}
	done := make(chan struct{})
	go func() { defer close(done); p.listen() }()
	if run != nil {
		run(p)
	}
	<-done
}

// answerHead is the header block that begins an honest response.
func answerHead(more ...string) []byte {
	return append(block(":status", "200", "content-type", "application/grpc"), block(more...)...)
}

// answerTail is the header block of honest trailers.
func answerTail(more ...string) []byte { return append(block("grpc-status", "0"), block(more...)...) }

// printable shortens what a message shows of a peer's bytes.
func printable(s string) string {
	return strconv.Quote(s[:min(len(s), 60)]) + strings.Repeat("…", min(1, max(0, len(s)-60)))
}
