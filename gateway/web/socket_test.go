package web

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sluice/gateway/wire"
)

// serveSockets runs a server for WebSockets, and sees at the end that none is left.
func serveSockets(t *testing.T, upstream http.HandlerFunc, o Options) (*Handler, *httptest.Server) {
	t.Helper()
	h := NewHandler(upstream, o)
	server := httptest.NewServer(h)
	t.Cleanup(func() {
		server.Close()
		over, cancel := context.WithCancel(context.Background())
		cancel()
		h.Drain(over)
		if n := len(h.sockets.open); n > 0 {
			t.Errorf("%d WebSockets are left", n)
		}
	})
	return h, server
}

// page is a page's end of a WebSocket.
type page struct {
	t    *testing.T
	conn *websocket.Conn
	ctx  context.Context
	in   []byte // received and not read
}

func openSocket(t *testing.T, server *httptest.Server, fields http.Header) *page {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, server.URL+"/shop.v1.Cart/Watch", &websocket.DialOptions{
		Subprotocols: []string{socketProtocol}, HTTPHeader: fields,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	conn.SetReadLimit(-1)
	return &page{t: t, conn: conn, ctx: ctx}
}

const socketHeader = "content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n"

func (p *page) send(kind websocket.MessageType, msg string) {
	p.t.Helper()
	if err := p.conn.Write(p.ctx, kind, []byte(msg)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *page) header(fields string) { p.send(websocket.MessageBinary, fields) }
func (p *page) data(body string)     { p.send(websocket.MessageBinary, "\x00"+body) }
func (p *page) end()                 { p.send(websocket.MessageBinary, "\x01") }

// frame reads a frame of the response, across messages. Fields have a message of their
// own, for the sake of the client whose framing this is.
func (p *page) frame() (flags byte, payload string) {
	p.t.Helper()
	for {
		if pre, ok := wire.ParsePrefix(p.in); ok && len(p.in) >= wire.PrefixLen+int(pre.Length) {
			payload = string(p.in[wire.PrefixLen : wire.PrefixLen+int(pre.Length)])
			p.in = p.in[wire.PrefixLen+int(pre.Length):]
			return pre.Flags, payload
		}
		_, msg, err := p.conn.Read(p.ctx)
		if err != nil {
			p.t.Fatalf("read a frame, %q there: %v", p.in, err)
		}
		if pre, ok := wire.ParsePrefix(msg); ok && pre.Flags == wire.FlagWebTrailers && (len(p.in) > 0 || len(msg) != wire.PrefixLen+int(pre.Length)) {
			p.t.Errorf("fields share a message: %q", msg)
		}
		p.in = append(p.in, msg...)
	}
}

// expect reads a message of the response.
func (p *page) expect(want string) {
	p.t.Helper()
	if flags, got := p.frame(); flags != 0 || got != want {
		p.t.Fatalf("frame 0x%02x %q, want message %q", flags, got, want)
	}
}

// fields reads a header or trailers.
func (p *page) fields() http.Header {
	p.t.Helper()
	flags, payload := p.frame()
	if flags != wire.FlagWebTrailers {
		p.t.Fatalf("frame 0x%02x %q, want fields", flags, payload)
	}
	return readFields(p.t, []byte(payload))
}

// over reads the end of the connection.
func (p *page) over(want websocket.StatusCode) {
	p.t.Helper()
	_, msg, err := p.conn.Read(p.ctx)
	if websocket.CloseStatus(err) != want || len(p.in) > 0 {
		p.t.Errorf("%q and %v, want the end with status %d", append(p.in, msg...), err, want)
	}
}

func TestSocketStreamsBothWays(t *testing.T) {
	_, server := serveSockets(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" || r.ProtoMajor != 2 || r.URL.Path != "/shop.v1.Cart/Watch" || r.Header.Get("Content-Type") != "application/grpc+proto" {
			t.Errorf("upstream saw %s %s, HTTP/%d, %q", r.Method, r.URL, r.ProtoMajor, r.Header)
		}
		if r.Header.Get("Grpc-Accept-Encoding") != "identity" || r.Header.Get("X-Tenant") != "a" || r.Header.Get("Content-Length") != "" {
			t.Errorf("upstream saw %q", r.Header)
		}
		w.Header().Set("X-End", "in the header")
		echo(w, r)
	}, Options{})
	p := openSocket(t, server, nil)
	p.header(socketHeader + "X-Tenant: a\r\nContent-Length: 7\r\n")
	p.data(message(0, "one"))
	if h := p.fields(); h.Get("X-Served-By") != "cart-v1" || h.Get("Grpc-Status") != "" {
		t.Errorf("header %q", h)
	}
	p.expect("one")
	large := strings.Repeat("0123456789", 200_000)
	p.data(message(0, "two") + message(0, "three")[:4])
	p.expect("two")
	p.data(message(0, "three")[4:])
	p.expect("three")
	p.data(message(0, large))
	p.expect(large)
	p.end()
	if h := p.fields(); h.Get("Grpc-Status") != "0" || !slices.Equal(h["X-End"], []string{"1", "2"}) || h.Get("X-Served-By") != "" {
		t.Errorf("trailers %q", h)
	}
	p.over(websocket.StatusNormalClosure)
}

func TestSocketHasAStatusWithoutMessagesInTheHeader(t *testing.T) {
	for name, upstream := range map[string]http.HandlerFunc{
		"nothing written": echo,
		"header written": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Grpc-Status", "5")
			w.WriteHeader(200)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, server := serveSockets(t, upstream, Options{})
			p := openSocket(t, server, nil)
			p.header(socketHeader + "x-want-status: 5\r\n")
			p.end()
			if h := p.fields(); h.Get("Grpc-Status") != "5" {
				t.Errorf("header %q", h)
			}
			p.over(websocket.StatusNormalClosure)
		})
	}
}

func TestSocketEndsWhileItsRequestIsRead(t *testing.T) {
	_, server := serveSockets(t, endEarly, Options{})
	p := openSocket(t, server, nil)
	p.header(socketHeader)
	p.data(message(0, "one"))
	p.fields()
	if h := p.fields(); h.Get("Grpc-Status") != "8" {
		t.Errorf("trailers %q", h)
	}
	p.over(websocket.StatusNormalClosure)
}

func TestSocketRefusesWhatARequestCannotHold(t *testing.T) {
	for _, tc := range []struct {
		name, header string
		send         func(p *page)
		want         string
	}{
		{"trailers", socketHeader, func(p *page) { p.data(message(0x80, "x: y\r\n")) }, "trailers (flags 0x80)"},
		{"the end in a message", socketHeader, func(p *page) { p.data(message(0, "one")[:6]); p.end() }, "2 bytes before"},
		{"a message of text", socketHeader, func(p *page) { p.send(websocket.MessageText, "\x00abc") }, "a message of text"},
		{"an empty message", socketHeader, func(p *page) { p.send(websocket.MessageBinary, "") }, "without a byte"},
		{"an unknown kind", socketHeader, func(p *page) { p.send(websocket.MessageBinary, "\x02abc") }, "begins with 0x02"},
		{"an end with more in it", socketHeader, func(p *page) { p.send(websocket.MessageBinary, "\x01abc") }, "more than the byte 0x01"},
		{"text", "content-type: application/grpc-web-text\r\n", func(*page) {}, "application/grpc-web only"},
		{"no content-type", "x-a: b\r\n", func(*page) {}, "application/grpc-web only"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, server := serveSockets(t, echo, Options{})
			p := openSocket(t, server, nil)
			p.header(tc.header)
			tc.send(p)
			if h := p.fields(); h.Get("Grpc-Status") != "3" || !strings.Contains(wire.DecodeMessage(h.Get("Grpc-Message")), tc.want) {
				t.Errorf("header %q", h)
			}
			p.over(websocket.StatusNormalClosure)
		})
	}
}

func TestSocketRefusesAHeaderThatIsNone(t *testing.T) {
	for _, tc := range []struct {
		name string
		kind websocket.MessageType
		head string
		want websocket.StatusCode
	}{
		{"no fields", websocket.MessageBinary, "\x00\x01\x02", websocket.StatusPolicyViolation},
		{"text", websocket.MessageText, socketHeader, websocket.StatusPolicyViolation},
		{"a name with a blank", websocket.MessageBinary, "a b: c\r\n", websocket.StatusPolicyViolation},
		{"a value with nul", websocket.MessageBinary, "a: b\x00c\r\n", websocket.StatusPolicyViolation},
		{"257 fields", websocket.MessageBinary, strings.Repeat("a:\r\n", 257), websocket.StatusPolicyViolation},
		{"too many bytes", websocket.MessageBinary, "a: " + strings.Repeat("b", maxSocketHeader), websocket.StatusMessageTooBig},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, server := serveSockets(t, func(http.ResponseWriter, *http.Request) { t.Error("an RPC began") }, Options{})
			p := openSocket(t, server, nil)
			p.send(tc.kind, tc.head)
			p.over(tc.want)
		})
	}
}

func TestSocketLooksAtTheOrigin(t *testing.T) {
	policy := CompileCORS(CORSPolicy{AllowOrigins: []string{"https://shop.example.com"}})
	for _, tc := range []struct {
		name   string
		origin string
		want   int
	}{
		{"the policy's", "https://shop.example.com", 101},
		{"another", "https://evil.com.shop.example.com", 403},
		{"null", "null", 403},
		{"none", "", 101},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, server := serveSockets(t, echo, Options{CORS: func(*http.Request) *CORS { return policy }})
			conn, resp := upgradeRaw(t, server, tc.origin)
			conn.Close()
			if resp.StatusCode != tc.want {
				t.Errorf("status %d, want %d", resp.StatusCode, tc.want)
			}
		})
	}
}

// upgradeRaw opens a WebSocket without a library.
func upgradeRaw(t *testing.T, server *httptest.Server, origin string) (net.Conn, *http.Response) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if origin != "" {
		origin = "Origin: " + origin + "\r\n"
	}
	fmt.Fprintf(conn, "GET /shop.v1.Cart/Watch HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: other, grpc-websockets\r\nSec-WebSocket-Extensions: permessage-deflate\r\n%s\r\n", origin)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == 101 && (resp.Header.Get("Sec-Websocket-Extensions") != "" || resp.Header.Get("Sec-Websocket-Protocol") != socketProtocol) {
		t.Errorf("the upgrade agreed on %q", resp.Header)
	}
	return conn, resp
}

// rawFrame is a frame of RFC 6455 from a client, masked with zeros.
func rawFrame(opcode byte, payload string) string {
	head := []byte{0x80 | opcode, 0x80 | 127}
	head = binary.BigEndian.AppendUint64(head, uint64(len(payload)))
	return string(append(head, 0, 0, 0, 0)) + payload
}

// A peer may answer a ping twice, or one that was never sent.
func TestSocketWithstandsHostileFrames(t *testing.T) {
	for name, frames := range map[string]string{
		"pongs":              strings.Repeat("\x8a\x81\x00\x00\x00\x001", 100),
		"an unmasked frame":  "\x82\x01a",
		"reserved bits":      "\xf2\x81\x00\x00\x00\x00a",
		"an unknown opcode":  "\x83\x80\x00\x00\x00\x00",
		"a large control":    rawFrame(9, strings.Repeat("x", 200)),
		"a promise of 2^62":  "\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00abc",
		"a negative length":  "\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"a lone piece":       "\x80\x81\x00\x00\x00\x00a",
		"a flood of pings":   strings.Repeat("\x89\x80\x00\x00\x00\x00", 1000),
		"nothing but noise":  rand.Text() + rand.Text(),
		"a close, cut short": "\x88\x81\x00\x00\x00\x00a",
	} {
		t.Run(name, func(t *testing.T) {
			gone := make(chan struct{})
			_, server := serveSockets(t, func(w http.ResponseWriter, r *http.Request) {
				echo(w, r)
				close(gone)
			}, Options{Ping: 10 * time.Millisecond})
			conn, _ := upgradeRaw(t, server, "")
			io.WriteString(conn, rawFrame(2, socketHeader)+frames)
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
			select {
			case <-gone:
			case <-time.After(10 * time.Second):
				t.Error("the RPC goes on")
			}
		})
	}
}

// A request that breaks off is none that is complete.
func TestSocketTellsUpstreamThatItsClientWent(t *testing.T) {
	for name, leave := range map[string]func(p *page){
		"cut":               func(p *page) { p.conn.CloseNow() },
		"closed":            func(p *page) { p.conn.Close(websocket.StatusGoingAway, "") },
		"after its request": func(p *page) { p.end(); p.conn.CloseNow() },
	} {
		t.Run(name, func(t *testing.T) {
			result := make(chan error, 1)
			_, server := serveSockets(t, func(_ http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				if err == nil {
					<-r.Context().Done()
				}
				result <- context.Cause(r.Context())
			}, Options{})
			p := openSocket(t, server, nil)
			p.header(socketHeader)
			p.data(message(0, "one"))
			leave(p)
			if st, ok := (<-result).(*wire.Status); !ok || st.Code != wire.Canceled {
				t.Errorf("%v, want CANCELLED", st)
			}
		})
	}
}

// A client that does not answer pings is given up, but not for what upstream does not
// read.
func TestSocketPingsItsClient(t *testing.T) {
	ended := make(chan struct{})
	_, server := serveSockets(t, func(w http.ResponseWriter, r *http.Request) {
		echo(w, r)
		close(ended)
	}, Options{Ping: 20 * time.Millisecond})
	conn, _ := upgradeRaw(t, server, "")
	io.WriteString(conn, rawFrame(2, socketHeader))
	head := make([]byte, 3)
	if _, err := io.ReadFull(conn, head); err != nil || head[0] != 0x89 {
		t.Errorf("%x, %v; want a ping", head, err)
	}
	<-ended
}

func TestSocketWaitsForUpstreamThatDoesNotRead(t *testing.T) {
	const pings = 5
	_, server := serveSockets(t, func(w http.ResponseWriter, r *http.Request) {
		readMessage(r.Body)
		for range pings { // none of them can be answered
			select {
			case <-r.Context().Done():
				t.Error("given up")
			case <-time.After(20 * time.Millisecond):
			}
		}
		echo(w, r)
	}, Options{Ping: 10 * time.Millisecond})
	p := openSocket(t, server, nil)
	p.header(socketHeader)
	p.data(message(0, "one"))
	p.data(message(0, "two"))
	p.fields()
	p.expect("two")
	p.end()
	if h := p.fields(); h.Get("Grpc-Status") != "0" {
		t.Errorf("trailers %q", h)
	}
}

func TestSocketsAreBounded(t *testing.T) {
	_, server := serveSockets(t, echo, Options{MaxSockets: 2})
	first := openSocket(t, server, nil)
	openSocket(t, server, nil)
	if _, resp := upgradeRaw(t, server, ""); resp.StatusCode != 503 {
		t.Errorf("a third one: status %d", resp.StatusCode)
	}
	first.header(socketHeader)
	first.end()
	first.fields()
	first.over(websocket.StatusNormalClosure)
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, resp := upgradeRaw(t, server, "")
		if resp.StatusCode == 101 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after one has ended: status %d", resp.StatusCode)
		}
	}
}

func TestDrainEndsSocketsWithAStatus(t *testing.T) {
	h, server := serveSockets(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "1")
	}, Options{})
	p := openSocket(t, server, nil)
	p.header(socketHeader)
	p.fields()
	silent := openSocket(t, server, nil) // has not sent its header
	grace, over := context.WithCancel(context.Background())
	drained := make(chan struct{})
	go func() {
		h.Drain(grace)
		close(drained)
	}()
	for draining := false; !draining; {
		h.sockets.mu.Lock()
		draining = h.sockets.draining
		h.sockets.mu.Unlock()
	}
	if _, resp := upgradeRaw(t, server, ""); resp.StatusCode != 503 {
		t.Errorf("a new one while draining: status %d", resp.StatusCode)
	}
	over()
	if f := p.fields(); f.Get("Grpc-Status") != "14" || !strings.Contains(f.Get("Grpc-Message"), "sluice: shutting down") {
		t.Errorf("trailers %q", f)
	}
	p.over(websocket.StatusNormalClosure)
	<-drained
	if _, _, err := silent.conn.Read(silent.ctx); err == nil || silent.ctx.Err() != nil {
		t.Errorf("the silent one: %v", err)
	}
}

// What a page sends as a header is read within bounds, and becomes fields of HTTP or
// nothing.
func FuzzSocketHeader(f *testing.F) {
	f.Add([]byte(socketHeader))
	f.Add([]byte("a: b\r\n c\r\na:\r\n"))
	f.Add([]byte(strings.Repeat("a:\n", 300)))
	f.Add([]byte("content-type: application/grpc-web\r\n\r\nx: y"))
	f.Fuzz(func(t *testing.T, head []byte) {
		header, err := parseHeader(head)
		if err != nil {
			return
		}
		fields := 0
		for name, values := range header {
			if name == "" || strings.ContainsAny(name, "\r\n:\x00") || strings.ContainsAny(strings.Join(values, ""), "\r\n\x00\x7f") {
				t.Fatalf("field %q: %q", name, values)
			}
			fields += len(values)
		}
		if fields > maxSocketFields+1 {
			t.Fatalf("%d fields", fields)
		}
	})
}
