package gateway

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frugalBackend answers every request with the same bytes, and allocates nothing
// for it.
type frugalBackend struct {
	addr   string
	frames atomic.Int64 // of DATA in each answer, beside the first
	served atomic.Int64 // requests
}

func startFrugalBackend(t testing.TB) *frugalBackend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &frugalBackend{addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				b.serve(nc)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return b
}

func (b *frugalBackend) serve(nc net.Conn) {
	buf := make([]byte, 256<<10)
	if _, err := io.ReadFull(nc, buf[:len(http2.ClientPreface)]); err != nil {
		return
	}
	hello := append(frame(http2.FrameSettings, 0, 0, nil), frame(http2.FrameSettings, http2.FlagSettingsAck, 0, nil)...)
	nc.Write(append(hello, frame(http2.FrameWindowUpdate, 0, 0, []byte{0x40, 0, 0, 0})...))
	a := &frugalAnswer{nc: nc, data: frame(http2.FrameData, 0, 1, message(make([]byte, 100))), out: make([]byte, 0, 64<<10), connWindow: 65535}
	enc := newFrugalEncoder()
	head, tail := []string{":status", "200", "content-type", "application/grpc"}, []string{"grpc-status", "0", "grpc-message", ""}
	a.head, a.tail = enc.section(false, head...), enc.section(true, tail...)
	a.nextHead, a.nextTail = enc.section(false, head...), enc.section(true, tail...)
	for end := 0; ; {
		n, err := nc.Read(buf[end:])
		if err != nil {
			return
		}
		end += n
		p := buf[:end]
		for len(p) >= 9 {
			size := 9 + (int(p[0])<<16 | int(p[1])<<8 | int(p[2]))
			if len(p) < size {
				break
			}
			id := binary.BigEndian.Uint32(p[5:])
			switch typ := http2.FrameType(p[3]); {
			case typ == http2.FrameWindowUpdate && id == 0:
				a.connWindow += int(binary.BigEndian.Uint32(p[9:]))
			case typ == http2.FrameWindowUpdate:
				a.window += int(binary.BigEndian.Uint32(p[9:]))
			case typ == http2.FrameSettings && p[4] == 0:
				for q := p[9:size]; len(q) > 0; q = q[6:] {
					if http2.SettingID(binary.BigEndian.Uint16(q)) == http2.SettingInitialWindowSize {
						a.initial = int(binary.BigEndian.Uint32(q[2:]))
					}
				}
			case typ == http2.FrameData && p[4]&1 != 0:
				b.served.Add(1)
				a.begin(id, int(b.frames.Load())+1)
				a.pump()
			}
			p = p[size:]
		}
		end = copy(buf, p)
		a.pump()
	}
}

// frugalAnswer is what is being sent on one connection, one stream at a time.
type frugalAnswer struct {
	nc                          net.Conn
	head, data, tail, out       []byte
	nextHead, nextTail          []byte // from the second answer on
	initial, window, connWindow int
	left                        int // frames of DATA
}

func (a *frugalAnswer) begin(id uint32, frames int) {
	for _, f := range [...][]byte{a.head, a.data, a.tail} {
		setID(f, id)
	}
	a.out = append(a.out[:0], a.head...)
	a.left, a.window = frames, a.initial
}

// pump sends what the windows let through.
func (a *frugalAnswer) pump() {
	const size = 105
	if a.left == 0 {
		return
	}
	for a.left > 0 && a.window >= size && a.connWindow >= size {
		if len(a.out) > 16<<10 {
			a.nc.Write(a.out)
			a.out = a.out[:0]
		}
		a.out = append(a.out, a.data...)
		a.left--
		a.window -= size
		a.connWindow -= size
	}
	if a.left == 0 {
		a.out = append(a.out, a.tail...)
		a.head, a.tail = a.nextHead, a.nextTail
	}
	a.nc.Write(a.out)
	a.out = a.out[:0]
}

// frugalEncoder makes the HEADERS frames of one connection. A section that was made
// before is all in the table, and its bytes are good for every later one.
type frugalEncoder struct {
	enc   *hpack.Encoder
	block bytes.Buffer
}

func newFrugalEncoder() *frugalEncoder {
	e := new(frugalEncoder)
	e.enc = hpack.NewEncoder(&e.block)
	return e
}

func (e *frugalEncoder) section(end bool, pairs ...string) []byte {
	flags := http2.FlagHeadersEndHeaders
	if end {
		flags |= http2.FlagHeadersEndStream
	}
	e.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		// A timeout changes from RPC to RPC: clients do not index it.
		e.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1], Sensitive: pairs[i] == "grpc-timeout"})
	}
	return frame(http2.FrameHeaders, flags, 1, bytes.Clone(e.block.Bytes()))
}

func frame(typ http2.FrameType, flags http2.Flags, id uint32, payload []byte) []byte {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), byte(typ), byte(flags), byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}
	return append(b, payload...)
}

// setID rewrites the stream of every frame in b.
func setID(b []byte, id uint32) {
	for len(b) >= 9 {
		binary.BigEndian.PutUint32(b[5:], id)
		b = b[9+(int(b[0])<<16|int(b[1])<<8|int(b[2])):]
	}
}

// frugalCaller makes RPCs whose frames are made once and sent again and again: header
// sections are what gRPC's clients send from the second RPC on, all of it in HPACK's
// table but the timeout.
type frugalCaller struct {
	t        testing.TB
	nc       net.Conn
	request  []byte // HEADERS and DATA
	out, in  []byte
	received int // bytes in in
	nextID   uint32
	bytes    int // of DATA, so far
}

func newFrugalCaller(t testing.TB, addr string) *frugalCaller {
	t.Helper()
	p := connect(t, addr, manners{noReader: true, window: 1 << 30, settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1 << 30}}})
	p.write(func() { p.fr.WriteSettingsAck() })
	f := &frugalCaller{t: t, nc: p.nc, out: make([]byte, 0, 64<<10), in: make([]byte, 256<<10), nextID: 1}
	enc := newFrugalEncoder()
	head := opening("/shop.Cart/Get", "grpc-timeout", "60S", "user-agent", "grpc-go/1.85.0", "grpc-accept-encoding", "gzip", "authorization", "Bearer abcdef")
	data := frame(http2.FrameData, http2.FlagDataEndStream, 1, message(make([]byte, 100)))
	f.request = append(enc.section(false, head...), data...)
	f.run(1, 1)
	f.request = append(enc.section(false, head...), data...)
	return f
}

// run makes n RPCs, some at a time.
func (f *frugalCaller) run(n, atATime int) {
	for n > 0 {
		batch := min(n, atATime)
		n -= batch
		f.out = f.out[:0]
		for range batch {
			setID(f.request, f.nextID)
			f.nextID += 2
			f.out = append(f.out, f.request...)
		}
		if _, err := f.nc.Write(f.out); err != nil {
			f.t.Error(err)
			return
		}
		for range batch {
			if !f.awaitEnd() {
				return
			}
		}
	}
}

// awaitEnd reads until a frame has END_STREAM.
func (f *frugalCaller) awaitEnd() bool {
	for {
		b := f.in[:f.received]
		for len(b) >= 9 {
			n := 9 + (int(b[0])<<16 | int(b[1])<<8 | int(b[2]))
			if len(b) < n {
				break
			}
			if b[3] == byte(http2.FrameData) {
				f.bytes += n - 9
			}
			end := (b[3] == byte(http2.FrameHeaders) || b[3] == byte(http2.FrameData)) && b[4]&1 != 0
			b = b[n:]
			if end {
				f.received = copy(f.in, b)
				return true
			}
		}
		f.received = copy(f.in, b)
		f.nc.SetReadDeadline(time.Now().Add(3 * patience))
		n, err := f.nc.Read(f.in[f.received:])
		if err != nil {
			f.t.Error(err)
			return false
		}
		f.received += n
	}
}
