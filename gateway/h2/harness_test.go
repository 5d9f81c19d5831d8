package h2

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestMain refuses goroutines of this package that outlive the tests. Those in
// a synctest bubble are refused by synctest, test by test.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leftGoroutines(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines left behind:\n"+left)
		code = 1
	}
	os.Exit(code)
}

// leftGoroutines gives those that are on their way out a moment.
func leftGoroutines() string {
	for deadline := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
		left := ownGoroutines()
		if left == "" || time.Now().After(deadline) {
			return left
		}
	}
}

// ownGoroutines returns the stacks of all goroutines in this package but the
// caller's.
func ownGoroutines() string {
	buf := make([]byte, 1<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	return strings.Join(slices.DeleteFunc(stacks[1:], func(s string) bool {
		return !strings.Contains(s, "sluice/gateway/h2.") || strings.Contains(s, "testing.(*M).")
	}), "\n\n")
}

// inBubble runs a test with a clock that stands still while anything works.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// pass lets time pass in a bubble, where it costs none.
func pass(d time.Duration) { time.Sleep(d) }

// peer is the other end of a connection under test: it writes frames, legal or
// not, and says which ones it wants to read. x/net's Framer and hpack are the
// judges of what we send. It lives in a bubble.
type peer struct {
	t    testing.TB
	nc   *memoryConn
	eng  *Engine
	conn *Conn
	rec  *recorder

	in     bytes.Buffer // what we have read and not parsed
	frames *http2.Framer
	fields []hpack.HeaderField // of the header section that was read last
	out    *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder

	ran  chan struct{} // closed when err is set
	err  error         // of Conn.Run
	stop context.CancelFunc
}

// pipeRoom is how many bytes the connection holds in each direction: more than
// any test sends without reading, unless it narrows the pipe.
const pipeRoom = 64 << 20

// newServerPeer is a client of a server connection of ours, before its preface.
func newServerPeer(t testing.TB, l Limits) *peer {
	return newServerPeerOn(t, NewEngine(l), newRecorder())
}

func newServerPeerOn(t testing.TB, eng *Engine, rec *recorder) *peer {
	ours, theirs := newMemoryConns(pipeRoom)
	p := newPeer(t, eng, theirs, rec)
	p.run(eng.NewServer(NewTransport(ours, nil), p.rec, time.Now()))
	return p
}

// newClientPeer is a backend of a client connection of ours, before it has read
// anything.
func newClientPeer(t testing.TB, l Limits) *peer {
	return newClientPeerOn(t, NewEngine(l), newRecorder())
}

func newClientPeerOn(t testing.TB, eng *Engine, rec *recorder) *peer {
	ours, theirs := newMemoryConns(pipeRoom)
	p := newPeer(t, eng, theirs, rec)
	p.run(eng.NewClient(NewTransport(ours, nil), p.rec, 0))
	return p
}

func newPeer(t testing.TB, eng *Engine, nc *memoryConn, rec *recorder) *peer {
	p := &peer{t: t, nc: nc, eng: eng, rec: rec, ran: make(chan struct{})}
	p.frames = http2.NewFramer(nil, &p.in)
	p.frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.out = http2.NewFramer(nc, nil)
	p.out.AllowIllegalWrites = true
	p.enc = hpack.NewEncoder(&p.block)
	return p
}

// run starts the connection, and the engine unless it runs already.
func (p *peer) run(c *Conn) {
	p.conn = c
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	engine := make(chan struct{})
	go func() {
		defer close(engine)
		p.eng.Run(ctx)
	}()
	go func() {
		p.err = c.Run(ctx)
		close(p.ran)
	}()
	p.t.Cleanup(func() {
		p.nc.Close()
		<-p.ran
		cancel()
		<-engine
		p.checkNothingLeft()
	})
}

// checkNothingLeft is the invariant of every test: a connection that has ended
// holds nothing, and an engine without connections has all its budget back.
func (p *peer) checkNothingLeft() {
	p.t.Helper()
	type account struct {
		what string
		n    int64
	}
	accounts := []account{
		{"bytes waiting in the connection", int64(p.conn.waiting)},
		{"streams in the connection", int64(len(p.conn.streams))},
		{"open streams of the connection", int64(p.conn.OpenStreams())},
		{"bytes of output", int64(len(p.conn.out))},
	}
	if p.conn.ready != nil {
		p.t.Error("a stream is left in the ring")
	}
	if len(p.eng.Conns(Downstream))+len(p.eng.Conns(Upstream)) == 0 {
		accounts = append(accounts,
			account{"bytes granted beyond the initial window", p.eng.grown.Load()},
			account{"bytes queued in the engine", p.eng.queued.Load()})
		for _, side := range sides {
			counts := p.eng.Counts(side)
			accounts = append(accounts,
				account{"open streams in the counters", counts.Streams},
				account{"open connections in the counters", counts.Open})
		}
	}
	for _, left := range accounts {
		if left.n != 0 {
			p.t.Errorf("%d %s are left behind", left.n, left.what)
		}
	}
}

// pull reads what we have sent, until we send nothing more.
func (p *peer) pull() (ended bool) {
	for {
		synctest.Wait()
		b, ended := p.nc.in.take(-1)
		p.in.Write(b)
		if len(b) == 0 || ended {
			return ended
		}
	}
}

// next returns the next frame that we have sent, nil when there is none.
func (p *peer) next() debugFrame {
	p.t.Helper()
	if !wholeFrame(p.in.Bytes()) {
		p.pull()
	}
	if !wholeFrame(p.in.Bytes()) {
		if p.in.Len() > 0 {
			p.t.Fatalf("part of a frame was sent: %x", p.in.Bytes())
		}
		return nil
	}
	f, err := p.frames.ReadFrame()
	if err != nil {
		p.t.Fatalf("x/net's Framer refuses what was sent: %v, %v", err, p.frames.ErrorDetail())
	}
	if h, ok := f.(*http2.MetaHeadersFrame); ok {
		p.fields = h.Fields
	}
	return debugOf(f)
}

// wholeFrame reports whether b begins with a frame, all CONTINUATIONs included.
func wholeFrame(b []byte) bool {
	for len(b) >= frameHeaderLen {
		h := consumeFrameHeader(b)
		n := frameHeaderLen + int(h.length)
		if len(b) < n {
			return false
		}
		if h.typ != typeHeaders && h.typ != typeContinuation || h.flags&flagEndHeaders != 0 {
			return true
		}
		b = b[n:]
	}
	return false
}

// wantFrame expects these frames next, in this order.
func (p *peer) wantFrame(reason string, want ...debugFrame) {
	p.t.Helper()
	for _, w := range want {
		got := p.next()
		if got == nil {
			p.t.Fatalf("%s: nothing was sent; want %v%s", reason, w, p.ending())
		}
		if got.String() != w.String() {
			p.t.Fatalf("%s: got frame %v; want %v", reason, got, w)
		}
	}
}

// wantIdle expects that nothing was sent, and that the connection goes on.
func (p *peer) wantIdle(reason string) {
	p.t.Helper()
	if f := p.next(); f != nil {
		p.t.Fatalf("%s: got frame %v; want nothing", reason, f)
	}
	if p.ended() {
		p.t.Fatalf("%s: the connection ended%s", reason, p.ending())
	}
}

// wantClosed expects the end of the connection for one reason, and its error.
func (p *peer) wantClosed(reason string, why Reason) {
	p.t.Helper()
	if f := p.next(); f != nil {
		p.t.Fatalf("%s: got frame %v; want the end of the connection", reason, f)
	}
	p.wantEnded(reason, why)
}

// wantEnded is wantClosed for a peer that does not read.
func (p *peer) wantEnded(reason string, why Reason) {
	p.t.Helper()
	if !p.ended() {
		p.t.Fatalf("%s: the connection goes on", reason)
	}
	counts := p.eng.Counts(p.conn.side)
	if counts.Closed[why.String()] != 1 {
		p.t.Fatalf("%s: connections closed %v; want one for %q%s", reason, nonZero(counts.Closed), why, p.ending())
	}
}

// wantGoAway expects the connection to end by GOAWAY for one reason, which the
// counter names.
func (p *peer) wantGoAway(reason string, last uint32, code http2.ErrCode, why Reason) {
	p.t.Helper()
	p.wantFrame(reason, debugGoAway{last, code})
	p.nc.CloseWrite() // else the connection lingers
	p.wantClosed(reason, why)
}

// skipFrames drops what has been sent so far, and returns it.
func (p *peer) skipFrames() (skipped []debugFrame) {
	p.t.Helper()
	for f := p.next(); f != nil; f = p.next() {
		skipped = append(skipped, f)
	}
	return skipped
}

// skipUntil drops frames up to the one that is wanted.
func (p *peer) skipUntil(reason string, want debugFrame) (skipped []debugFrame) {
	p.t.Helper()
	for {
		f := p.next()
		if f == nil {
			p.t.Fatalf("%s: %v was not among the %d frames sent%s", reason, want, len(skipped), p.ending())
		}
		if f.String() == want.String() {
			return skipped
		}
		skipped = append(skipped, f)
	}
}

func (p *peer) ended() bool {
	synctest.Wait()
	select {
	case <-p.ran:
		return true
	default:
		return false
	}
}

func (p *peer) ending() string {
	if !p.ended() {
		return ""
	}
	return fmt.Sprintf("; the connection has ended: %v", p.err)
}

func nonZero(counts map[string]int64) map[string]int64 {
	out := make(map[string]int64)
	for name, n := range counts {
		if n != 0 {
			out[name] = n
		}
	}
	return out
}

// wantRejected expects the counter of streams turned away for that reason.
func (p *peer) wantRejected(why Reason, n int64) {
	p.t.Helper()
	synctest.Wait()
	counts := p.eng.Counts(p.conn.side)
	if got := counts.Rejected[why.String()]; got != n {
		p.t.Errorf("streams rejected %v; want %d for %q", nonZero(counts.Rejected), n, why)
	}
}

// What follows writes frames. Errors are left alone: where the connection has
// ended, the test sees that by what it expects next.

func (p *peer) writeRaw(b []byte) { p.nc.Write(b) }

func (p *peer) writePreface() { p.writeRaw([]byte(http2.ClientPreface)) }

func (p *peer) writeSettings(s ...http2.Setting) { p.out.WriteSettings(s...) }

func (p *peer) writeHeaders(id uint32, end bool, fields ...string) {
	p.out.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: p.encode(fields...),
	})
}

func (p *peer) encode(fields ...string) []byte {
	p.block.Reset()
	for _, f := range splitFields(fields...) {
		p.enc.WriteField(f)
	}
	return bytes.Clone(p.block.Bytes())
}

// writeRequest opens a stream with what every request has.
func (p *peer) writeRequest(id uint32, end bool, more ...string) {
	p.writeHeaders(id, end, append(requestLines(), more...)...)
}

func requestLines() []string {
	return []string{":method: POST", ":scheme: http", ":path: /shop.v1.Cart/Get", ":authority: shop.example.com"}
}

func (p *peer) writeResponse(id uint32, end bool, more ...string) {
	p.writeHeaders(id, end, append([]string{":status: 200"}, more...)...)
}

func (p *peer) writeData(id uint32, data string, end bool) { p.out.WriteData(id, end, []byte(data)) }

func (p *peer) writeReset(id uint32, code http2.ErrCode) { p.out.WriteRSTStream(id, code) }

func (p *peer) writeWindowUpdate(id, n uint32) { p.out.WriteWindowUpdate(id, n) }

func (p *peer) writePing(data string) {
	var b [8]byte
	copy(b[:], data)
	p.out.WritePing(false, b)
}

func (p *peer) writePingAck(data string) {
	var b [8]byte
	copy(b[:], data)
	p.out.WritePing(true, b)
}

func (p *peer) writeGoAway(last uint32, code http2.ErrCode, debug string) {
	p.out.WriteGoAway(last, code, []byte(debug))
}

// writeFrame writes a frame that Framer has no words for.
func (p *peer) writeFrame(typ, flags uint8, id uint32, payload []byte) {
	p.writeRaw(append(appendFrameHeader(nil, len(payload), typ, flags, id), payload...))
}

// greet does what both sides do first, and reads our half of it.
func (p *peer) greet(settings ...http2.Setting) {
	p.t.Helper()
	if p.conn.side == Downstream {
		p.writePreface()
	} else {
		p.wantPreface()
	}
	p.writeSettings(settings...)
	p.out.WriteSettingsAck()
	p.wantFrame("both sides begin with SETTINGS", p.wantSettings())
	if n := p.eng.limits.ConnWindow - defaultWindow; n > 0 {
		p.wantFrame("the connection's window is larger than the default", debugWindowUpdate{0, uint32(n)})
	}
	p.wantFrame("SETTINGS are acknowledged", debugSettingsAck{})
	if p.conn.side == Upstream {
		p.rec.want(p.t, "the first SETTINGS make a connection ready", "ready")
	}
}

func (p *peer) wantSettings() debugSettings {
	l := &p.eng.limits
	if p.conn.side == Downstream {
		return debugSettings{fmt.Sprintf("INITIAL_WINDOW_SIZE=%d MAX_HEADER_LIST_SIZE=%d MAX_CONCURRENT_STREAMS=%d", p.conn.window, l.HeaderBytes, l.MaxConcurrentStreams)}
	}
	return debugSettings{fmt.Sprintf("INITIAL_WINDOW_SIZE=%d MAX_HEADER_LIST_SIZE=%d ENABLE_PUSH=0", p.conn.window, l.HeaderBytes)}
}

func (p *peer) wantPreface() {
	p.t.Helper()
	p.pull()
	if got := string(p.in.Next(len(http2.ClientPreface))); got != http2.ClientPreface {
		p.t.Fatalf("a client begins with the preface; got %q", got)
	}
}

// greetedServer is newServerPeer after the greeting.
func greetedServer(t testing.TB, l Limits, settings ...http2.Setting) *peer {
	t.Helper()
	p := newServerPeer(t, l)
	p.greet(settings...)
	return p
}

func greetedClient(t testing.TB, l Limits, settings ...http2.Setting) *peer {
	t.Helper()
	p := newClientPeer(t, l)
	p.greet(settings...)
	return p
}

// stream returns what AcceptStream was given under that number.
func (p *peer) stream(id uint32) *Stream {
	p.t.Helper()
	synctest.Wait()
	s := p.rec.stream(id)
	if s == nil {
		p.t.Fatalf("stream %d was not accepted%s", id, p.ending())
	}
	return s
}

// request opens a stream as a client does and returns our side of it.
func (p *peer) request(id uint32, end bool, more ...string) *Stream {
	p.t.Helper()
	p.writeRequest(id, end, more...)
	s := p.stream(id)
	p.rec.skip()
	return s
}

// open opens a stream towards a backend.
func (p *peer) open(end bool, fields ...string) *Stream {
	p.t.Helper()
	s, err := p.tryOpen(end, fields...)
	if err != nil {
		p.t.Fatalf("opening a stream: %v%s", err, p.ending())
	}
	return s
}

func (p *peer) tryOpen(end bool, fields ...string) (*Stream, error) {
	s := new(Stream)
	var b Batch
	err := p.conn.Open(s, &Opening{Fields: engineFields(fields...), End: end, Sink: p.rec}, &b)
	b.Flush()
	return s, err
}

// opened is open, with the frame that says so.
func (p *peer) opened(end bool) *Stream {
	p.t.Helper()
	s := p.open(end, requestLines()...)
	p.wantFrame("a stream is opened", debugHeaders{s.ID(), strings.Join(requestLines(), ", "), end})
	return s
}

func sendHeader(s *Stream, end bool, fields ...string) {
	var b Batch
	s.SendHeader(engineFields(fields...), end, &b)
	b.Flush()
}

func sendData(s *Stream, data string, end bool) {
	var b Batch
	s.SendData([]byte(data), end, &b)
	b.Flush()
}

func reset(s *Stream, code http2.ErrCode) {
	var b Batch
	s.Reset(code, &b)
	b.Flush()
}

func giveCredit(s *Stream, n int32, drained bool) {
	var b Batch
	s.Credit(n, drained, &b)
	b.Flush()
}

// recorder is acceptor, monitor and sink of a connection under test: it writes
// down what it hears.
type recorder struct {
	mu       sync.Mutex // guards the fields below
	events   []string
	streams  map[uint32]*Stream
	received map[uint32]*bytes.Buffer // DATA by stream, when quiet
	quiet    bool                     // DATA is no event
	credit   bool                     // DATA is given back as window at once
	onOpen   func(s *Stream, h *Head, b *Batch)
}

func newRecorder() *recorder {
	return &recorder{streams: make(map[uint32]*Stream), received: make(map[uint32]*bytes.Buffer)}
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	r.events = append(r.events, fmt.Sprintf(format, args...))
	r.mu.Unlock()
}

func (r *recorder) AcceptStream(s *Stream, h *Head, end bool, b *Batch) {
	s.Bind(r)
	r.mu.Lock()
	r.streams[s.ID()] = s
	onOpen := r.onOpen
	r.mu.Unlock()
	large := ""
	if h.Large {
		large = " large"
	}
	r.note("open %d %s %s%s%s", s.ID(), h.Method, h.Path, large, debugEnd(end))
	if onOpen != nil {
		onOpen(s, h, b)
	}
}

func (r *recorder) Header(s *Stream, h *Head, end bool, b *Batch) {
	r.note("header %d [%s]%s", s.ID(), joinFields(plainFields(h.Fields)), debugEnd(end))
}

func (r *recorder) Data(s *Stream, p []byte, end bool, b *Batch) {
	r.mu.Lock()
	quiet, credit := r.quiet, r.credit
	if quiet {
		if r.received[s.ID()] == nil {
			r.received[s.ID()] = new(bytes.Buffer)
		}
		r.received[s.ID()].Write(p)
	}
	r.mu.Unlock()
	if !quiet {
		r.note("data %d %s%s", s.ID(), abridge(string(p)), debugEnd(end))
	}
	if credit {
		s.Credit(int32(len(p)), true, b)
	}
}

func (r *recorder) Ended(s *Stream, e Ending, b *Batch) {
	unprocessed := ""
	if e.Unprocessed {
		unprocessed = " unprocessed"
	}
	r.note("ended %d %v %v%s", s.ID(), e.How, e.Code, unprocessed)
}

func (r *recorder) ConnReady(*Conn)    { r.note("ready") }
func (r *recorder) ConnDraining(*Conn) { r.note("draining") }

func (r *recorder) ConnSilent(c *Conn) {
	if c.Silent() {
		r.note("silent")
	} else {
		r.note("heard again")
	}
}

func (r *recorder) stream(id uint32) *Stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.streams[id]
}

// skip forgets what was heard so far.
func (r *recorder) skip() {
	synctest.Wait()
	r.mu.Lock()
	r.events = nil
	r.mu.Unlock()
}

// wantUnordered is want for events that come in any order.
func (r *recorder) wantUnordered(t testing.TB, reason string, want ...string) {
	t.Helper()
	synctest.Wait()
	r.mu.Lock()
	slices.Sort(r.events)
	r.mu.Unlock()
	slices.Sort(want)
	r.want(t, reason, want...)
}

// want expects exactly these events since the last call.
func (r *recorder) want(t testing.TB, reason string, want ...string) {
	t.Helper()
	synctest.Wait()
	r.mu.Lock()
	got := r.events
	r.events = nil
	r.mu.Unlock()
	if !slices.Equal(got, want) {
		t.Errorf("%s: heard\n\t%s\nwant\n\t%s", reason, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}
