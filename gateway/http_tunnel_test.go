package gateway

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"sluice/gateway/listen"
)

const socketRequest = "GET /chat?room=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// socketBackend agrees to every WebSocket and returns what it gets.
func socketBackend(t testing.TB) *rawServer {
	return rawBackend(t, func(c *rawConn) {
		head := c.readHead()
		if !strings.Contains(head, "Upgrade: websocket\r\n") || !strings.Contains(head, "Connection: Upgrade\r\n") || !strings.HasPrefix(head, "GET /chat?room=1 ") {
			c.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		c.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nKeep-Alive: 5\r\n\r\nfirst")
		io.Copy(c.Conn, c)
	})
}

func TestTunnelPassesAWebSocketThrough(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	s := socketBackend(t)
	_, cert, key := authority.issue(t, "localhost")
	g := startGateway(t, Config{Listen: listen.Config{Address: "127.0.0.1:0", TLSCert: cert, TLSKey: key}}, http1At("a", s.addr),
		everythingWith("a", "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Out, value: rule}]}}]"))
	for name, dial := range map[string]func() (net.Conn, error){
		"clear": func() (net.Conn, error) { return net.Dial("tcp", g.address()) },
		"tls": func() (net.Conn, error) {
			return tls.Dial("tcp", g.address(), &tls.Config{RootCAs: authority.pool, ServerName: "localhost", NextProtos: []string{"http/1.1"}})
		},
	} {
		nc, err := dial()
		if err != nil {
			t.Fatal(name, err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(patience))
		c := &rawConn{nc, bufio.NewReader(nc)}
		c.write(socketRequest + "early")
		head := c.readHead()
		for _, want := range []string{"HTTP/1.1 101 ", "Connection: Upgrade\r\n", "Upgrade: websocket\r\n", "Sec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", "X-Out: rule\r\n"} {
			if !strings.Contains(head, want) {
				t.Errorf("%s: %q lacks %q", name, head, want)
			}
		}
		if strings.Contains(head, "Keep-Alive") {
			t.Errorf("%s: %q", name, head)
		}
		c.expect(t, "firstearly")
		for i := range 100 {
			frame := fmt.Sprintf("\x82\x7e frame %d", i)
			c.write(frame)
			c.expect(t, frame)
		}
		if open := g.metric(t, "sluice_tunnel_open"); open != 1 {
			t.Errorf("%s: %v tunnels open", name, open)
		}
		nc.Close()
		await(t, "the tunnel to end", func() bool {
			return g.metric(t, "sluice_tunnel_open") == 0 && g.metric(t, "sluice_rpc_open") == 0
		})
	}
	if in, out := g.metric(t, "sluice_tunnel_bytes_total", "direction", "in"), g.metric(t, "sluice_tunnel_bytes_total", "direction", "out"); in < 1000 || out < in {
		t.Errorf("%v bytes in, %v out", in, out)
	}
	if got := g.metric(t, "sluice_rpc_ended_total", "backend", "default/a", "code", "OK"); got != 2 {
		t.Errorf("%v counted, want 2", got)
	}
}

// TestTunnelEndsWithEitherSide: and what was said before is heard.
func TestTunnelEndsWithEitherSide(t *testing.T) {
	t.Parallel()
	last := make(chan string, 1)
	s := rawBackend(t, func(c *rawConn) {
		c.readHead()
		c.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		line, _ := c.ReadString('\n')
		if line == "bye\n" {
			c.write("see you\n")
			return
		}
		rest, _ := io.ReadAll(c)
		last <- line + string(rest)
	})
	g := startGateway(t, Config{}, http1At("a", s.addr), everything("a"))
	c := dialRaw(t, g.address())
	c.write(socketRequest)
	c.readHead()
	c.write("bye\n")
	if rest, err := io.ReadAll(c); string(rest) != "see you\n" || err != nil {
		t.Errorf("the backend's end: %q, %v", rest, err)
	}
	c = dialRaw(t, g.address())
	c.write(socketRequest)
	c.readHead()
	c.write("one\ntwo\n")
	c.Conn.(*net.TCPConn).CloseWrite()
	if got := <-last; got != "one\ntwo\n" {
		t.Errorf("the client's end: %q", got)
	}
	await(t, "the tunnels to end", func() bool { return g.metric(t, "sluice_tunnel_open") == 0 })
}

// TestTunnelIsForWebSocketsOnly: nothing else is switched to, and nobody switches
// unasked.
func TestTunnelIsForWebSocketsOnly(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	s := rawBackend(t, func(c *rawConn) {
		head := c.readHead()
		asked <- head
		if strings.HasPrefix(head, "GET /switch ") {
			c.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
			c.readHead()
			return
		}
		c.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	g := startGateway(t, Config{}, http1At("a", s.addr), backendWith("h2", "accepts: [GRPC, HTTP]", s.addr),
		httpRoute("r", "{matches: [{path: {value: /h2}}], backendRefs: ["+ref("h2", 1)+"]}, {backendRefs: ["+ref("a", 1)+"]}"))
	for _, tt := range []struct {
		name, request, status string
		upgraded              bool // the backend is asked
	}{
		{"h2c", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", "200", false},
		{"two protocols", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n", "200", false},
		{"a list", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", "200", false},
		{"not asked for by the connection", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "200", false},
		{"with a body", "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi", "200", false},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "200", false},
		{"refused by the backend", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "200", true},
		{"answered with another protocol", "GET /switch HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "502", true},
		{"answered unasked", "GET /switch HTTP/1.1\r\nHost: a\r\n\r\n", "502", false},
		{"over HTTP/2", "GET /h2 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "501", false},
	} {
		c := dialRaw(t, g.address())
		c.write(tt.request)
		if head := c.readHead(); !strings.Contains(head, " "+tt.status+" ") {
			t.Errorf("%s: got %q, want %s", tt.name, head, tt.status)
		}
		if tt.status == "501" {
			continue
		}
		if head := <-asked; strings.Contains(head, "Upgrade") != tt.upgraded {
			t.Errorf("%s: the backend got %q", tt.name, head)
		}
	}
	c := dialRaw(t, g.address())
	c.write("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n")
	if head := c.readHead(); !strings.HasPrefix(head, "HTTP/1.1 4") && !strings.HasPrefix(head, "HTTP/1.1 501 ") {
		t.Errorf("CONNECT: got %q", head)
	}
}

// TestTunnelHasTheGraceOfADrain: it goes on until that is over, and then ends.
func TestTunnelHasTheGraceOfADrain(t *testing.T) {
	t.Parallel()
	g := startGateway(t, Config{Grace: 300 * time.Millisecond}, http1At("a", socketBackend(t).addr), everything("a"))
	c := dialRaw(t, g.address())
	c.write(socketRequest)
	c.readHead()
	c.expect(t, "first")
	g.cancel()
	await(t, "the drain to begin", func() bool { return g.Ready() != nil })
	c.write("still here")
	c.expect(t, "still here")
	if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil {
		t.Errorf("after the grace: %q, %v", rest, err)
	}
	g.end(t)
	if got := g.Gateway.ended[draining].Load(); got != 1 {
		t.Errorf("%d ended by the drain, want 1", got)
	}
}

// expect reads exactly this.
func (c *rawConn) expect(t testing.TB, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); string(got) != want {
		t.Fatalf("got %q, %v; want %q", got[:n], err, want)
	}
}
