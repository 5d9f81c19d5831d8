package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/store"
)

// TestMain refuses goroutines of ours that outlive the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := goroutinesLeft(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines are left:\n\n"+left)
		code = 1
	}
	os.Exit(code)
}

func goroutinesLeft() (left string) {
	for range 200 {
		left = ""
		all := make([]byte, 1<<20)
		for _, g := range strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n") {
			if !strings.Contains(g, "goroutinesLeft") && strings.Contains(g, "sluice/") {
				left += g + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
		<-time.After(10 * time.Millisecond)
	}
	return left
}

// logged is what was logged.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// world is a pool and the backends that it can reach, all in memory.
type world struct {
	*Pool
	t      *testing.T
	log    *logged
	engine *h2.Engine
	stop   func() // ends the pool, and waits for it

	mu    sync.Mutex       // guards the fields below
	hosts map[string]*host // by address
	tried map[string][]time.Time
}

// newWorld runs a pool until the test ends, or the bubble.
func newWorld(t *testing.T, limits h2.Limits) *world {
	w := &world{t: t, log: new(logged), engine: h2.NewEngine(limits), hosts: make(map[string]*host), tried: make(map[string][]time.Time)}
	w.Pool = NewPool(w.engine, slog.New(slog.NewTextHandler(w.log, nil)))
	w.Pool.dial = w.reach
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { w.engine.Run(ctx) })
	wg.Go(func() { w.Pool.Run(ctx) })
	w.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(func() {
		w.stop()
		for _, h := range w.hosts {
			h.close()
		}
	})
	return w
}

// host is what is at an address.
type host struct {
	manners manners
	refuse  error // of the dial
	mute    bool  // the dial goes on for ever
	peers   []*peer
}

// manners are how a backend behaves by itself.
type manners struct {
	settings []http2.Setting
	silent   bool   // sends no SETTINGS
	says     string // instead of SETTINGS
	hangUp   bool   // closes right after SETTINGS
	noPong   bool
	answer   func(p *peer, id uint32, path string) // to a request; nil says nothing
}

// host puts a backend at an address.
func (w *world) host(address string, m manners) *host {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := &host{manners: m}
	w.hosts[address] = h
	return h
}

func (w *world) reach(ctx context.Context, address string) (net.Conn, error) {
	w.mu.Lock()
	w.tried[address] = append(w.tried[address], time.Now())
	h := w.hosts[address]
	if h == nil || h.refuse != nil {
		err := errors.New("nobody there")
		if h != nil {
			err = h.refuse
		}
		w.mu.Unlock()
		return nil, err
	}
	if h.mute {
		w.mu.Unlock()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	near, far := net.Pipe()
	p := newPeer(far, h.manners)
	h.peers = append(h.peers, p)
	w.mu.Unlock()
	go p.serve()
	return near, nil
}

// set changes a host; w.mu guards hosts.
func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) dials(address string) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.tried[address])
}

// peer returns the n-th connection that a host took.
func (w *world) peer(h *host, n int) *peer {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if n >= len(h.peers) {
		w.t.Fatalf("the backend has had %d connections, want %d", len(h.peers), n+1)
	}
	return h.peers[n]
}

func (h *host) close() {
	for _, p := range h.peers {
		p.nc.Close()
		<-p.done
	}
}

// peer is the backend's end of one connection.
type peer struct {
	nc      net.Conn
	manners manners
	done    chan struct{}

	wmu   sync.Mutex // guards writing
	fr    *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder

	mu     sync.Mutex // guards the fields below
	frames []string
	ended  bool
}

func newPeer(nc net.Conn, m manners) *peer {
	p := &peer{nc: nc, manners: m, fr: http2.NewFramer(nc, nc), done: make(chan struct{})}
	p.enc = hpack.NewEncoder(&p.block)
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return p
}

func (p *peer) serve() {
	defer close(p.done)
	defer func() {
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
	}()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(p.nc, preface); err != nil || string(preface) != http2.ClientPreface {
		p.note(fmt.Sprintf("preface %q, %v", preface, err))
		return
	}
	// The pipe holds nothing: whoever writes waits for the other to read, which the
	// gateway's end always does.
	defer p.nc.Close()
	if p.manners.says != "" {
		p.write(func() { io.WriteString(p.nc, p.manners.says) })
	} else if !p.manners.silent {
		p.write(func() { p.fr.WriteSettings(p.manners.settings...) })
	}
	if p.manners.hangUp {
		return
	}
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() && !p.manners.silent {
				p.write(func() { p.fr.WriteSettingsAck() })
			}
			continue
		case *http2.WindowUpdateFrame:
			continue
		case *http2.PingFrame:
			if !f.IsAck() && !p.manners.noPong {
				p.write(func() { p.fr.WritePing(true, f.Data) })
			}
			p.note("PING")
		case *http2.GoAwayFrame:
			p.note("GOAWAY")
		case *http2.RSTStreamFrame:
			p.note(fmt.Sprintf("RST_STREAM %d %v", f.StreamID, f.ErrCode))
		case *http2.MetaHeadersFrame:
			p.note(fmt.Sprintf("HEADERS %d", f.StreamID))
			if p.manners.answer != nil {
				p.manners.answer(p, f.StreamID, f.PseudoValue("path"))
			}
		case *http2.DataFrame:
			p.note(fmt.Sprintf("DATA %d", f.StreamID))
		}
	}
}

func (p *peer) note(frame string) {
	p.mu.Lock()
	p.frames = append(p.frames, frame)
	p.mu.Unlock()
}

// got returns the frames that came since it was last called, SETTINGS and
// WINDOW_UPDATE left out.
func (p *peer) got() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := strings.Join(p.frames, ", ")
	p.frames = nil
	return list
}

// over reports whether the connection has ended.
func (p *peer) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

func (p *peer) write(f func()) {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	f()
}

// reply ends a stream well.
func (p *peer) reply(id uint32) { p.header(id, true, ":status", "200", "grpc-status", "0") }

// header sends a header section of names and values.
func (p *peer) header(id uint32, end bool, fields ...string) {
	p.write(func() {
		p.block.Reset()
		for i := 0; i < len(fields); i += 2 {
			p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block.Bytes(), EndHeaders: true, EndStream: end})
	})
}

// data sends payload.
func (p *peer) data(id uint32, payload string) {
	p.write(func() { p.fr.WriteData(id, false, []byte(payload)) })
}

func (p *peer) goAway(last uint32, code http2.ErrCode, debug string) {
	p.write(func() { p.fr.WriteGoAway(last, code, []byte(debug)) })
}

// caller opens one stream, and waits where it must.
type caller struct {
	h2.Stream
	e       *Endpoint
	request []h2.Field
	message []byte // sent along, unless it is nil

	mu      sync.Mutex // guards the fields below
	opened  bool
	parked  bool
	err     error // why it was not opened
	resumed int
	ending  *h2.Ending
	done    bool
}

var request = []h2.Field{
	h2.IndexedField(":method", "POST"), h2.IndexedField(":scheme", "http"),
	h2.IndexedField(":authority", "backend"), h2.IndexedField(":path", "/a.B/C"),
}

// call opens a stream at e, as the relay does.
func call(e *Endpoint) *caller {
	c := &caller{e: e, request: request}
	c.try()
	return c
}

// requestTo is a request for a method.
func requestTo(path string) []h2.Field {
	return []h2.Field{
		h2.IndexedField(":method", "POST"), h2.IndexedField(":scheme", "http"),
		h2.IndexedField(":authority", "backend"), h2.IndexedField(":path", path),
		h2.IndexedField("content-type", "application/grpc"), h2.IndexedField("te", "trailers"),
	}
}

func (c *caller) try() {
	message := c.message
	var b h2.Batch
	err := c.e.Open(&c.Stream, &h2.Opening{Fields: c.request, End: message == nil, Sink: c}, &b)
	if err == nil && message != nil {
		c.SendData(message, true, &b)
	}
	b.Flush()
	if err == ErrConnecting {
		c.mu.Lock()
		c.parked = true
		c.mu.Unlock()
		if err = c.e.Wait(c); err == nil {
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parked = false
	c.opened, c.err = err == nil, err
}

// Resume implements Waiter.
func (c *caller) Resume(err error) {
	c.mu.Lock()
	c.resumed++
	c.parked = false
	c.err = err
	c.mu.Unlock()
	if err == nil {
		c.try()
	}
}

// over reports whether the answer has come to its end.
func (c *caller) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done
}

// state is what became of it.
func (c *caller) state() (opened, parked bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened, c.parked, c.err
}

// wantOpen fails the test unless the stream is open, or was.
func (c *caller) wantOpen(t *testing.T) {
	t.Helper()
	if opened, parked, err := c.state(); !opened {
		t.Fatalf("the stream is not open: parked %v, error %v", parked, err)
	}
}

func (c *caller) wantError(t *testing.T, want error) {
	t.Helper()
	if opened, parked, err := c.state(); opened || parked || !errors.Is(err, want) {
		t.Fatalf("opened %v, parked %v, error %v, want %v", opened, parked, err, want)
	}
}

func (c *caller) wantParked(t *testing.T) {
	t.Helper()
	if opened, parked, err := c.state(); !parked {
		t.Fatalf("the stream is not parked: opened %v, error %v", opened, err)
	}
}

// reset gives the stream up.
func (c *caller) reset() {
	var b h2.Batch
	c.Reset(http2.ErrCodeCancel, &b)
	b.Flush()
}

func (c *caller) Header(_ *h2.Stream, _ *h2.Head, end bool, _ *h2.Batch) {
	c.mu.Lock()
	c.done = c.done || end
	c.mu.Unlock()
}

func (c *caller) Data(_ *h2.Stream, _ []byte, end bool, _ *h2.Batch) {
	c.mu.Lock()
	c.done = c.done || end
	c.mu.Unlock()
}

func (c *caller) Ended(_ *h2.Stream, e h2.Ending, _ *h2.Batch) {
	c.mu.Lock()
	c.ending = &e
	c.mu.Unlock()
}

func (c *caller) end() *h2.Ending {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending
}

// to is a Backend of addresses.
func to(name string, addresses ...string) *store.Backend {
	b := &store.Backend{Meta: store.Meta{Namespace: "default", Name: name}}
	for _, a := range addresses {
		b.Spec.Endpoints = append(b.Spec.Endpoints, store.Endpoint{Address: a, Weight: 1})
	}
	b.Spec.SetDefaults()
	return b
}

// put makes the backends those of the pool and returns the endpoints of the first.
func (w *world) put(backends ...*store.Backend) []*Endpoint {
	w.t.Helper()
	w.Commit(w.Prepare(&store.Set{Backends: backends}))()
	for _, err := range w.Problems() {
		w.t.Fatal(err)
	}
	if len(backends) == 0 {
		return nil
	}
	b := w.Backend(backends[0].Key())
	var list []*Endpoint
	var avoid balance.Mask
	for range b.Endpoints { // each can be picked
		e, i := b.Pick(balance.Request{Avoid: avoid})
		if e == nil {
			break
		}
		e.Release()
		avoid = avoid.With(i)
	}
	return append(list, b.Endpoints...)
}
