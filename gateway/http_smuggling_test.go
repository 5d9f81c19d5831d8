package gateway

import (
	"bufio"
	"bytes"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// gullible is a backend that keeps every byte it gets, so that they can be read again
// in all the ways in which servers are known to read them.
type gullible struct {
	*rawServer
	mu   sync.Mutex // guards the field below
	seen []*bytes.Buffer

	// As of the last check.
	routed int
	read   map[reading]int
}

// reading is one way to read.
type reading struct {
	prefer      preference
	underscores bool // stand for dashes
}

func newGullible(t testing.TB) *gullible {
	b := &gullible{read: make(map[reading]int)}
	b.rawServer = rawBackend(t, func(c *rawConn) {
		kept := new(bytes.Buffer)
		b.mu.Lock()
		b.seen = append(b.seen, kept)
		b.mu.Unlock()
		in := bufio.NewReader(io.TeeReader(c.Conn, &locked{b, kept}))
		for readRequest(in, preferChunked, false) != "" {
			c.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	return b
}

// locked writes under the backend's mutex.
type locked struct {
	b  *gullible
	to *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	return l.to.Write(p)
}

// preference is what a server believes of a request that says both.
type preference int

const (
	preferChunked preference = iota
	preferLength
	preferFirst // of several lengths
)

// readRequest reads one request as a careless server does, and returns its first line;
// empty at the end.
func readRequest(in *bufio.Reader, prefer preference, underscores bool) string {
	first, length, chunked := "", -1, false
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return ""
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			if first == "" {
				continue // some servers skip empty lines before a request
			}
			break
		}
		if first == "" {
			first = line
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if underscores {
			name = strings.ReplaceAll(name, "_", "-")
		}
		switch name {
		case "content-length":
			if n, err := strconv.Atoi(strings.TrimLeft(value, "+")); err == nil && (prefer != preferFirst || length < 0) {
				length = n
			}
		case "transfer-encoding":
			chunked = chunked || strings.Contains(strings.ToLower(value), "chunked")
		}
	}
	switch {
	case chunked && (prefer != preferLength || length < 0):
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return first
			}
			size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(size, "0x")), 16, 32)
			if err != nil || n == 0 {
				break
			}
			io.CopyN(io.Discard, in, n)
			in.ReadString('\n')
		}
		for {
			line, err := in.ReadString('\n')
			if err != nil || strings.TrimRight(line, "\r\n") == "" {
				break
			}
		}
	case length > 0:
		io.CopyN(io.Discard, in, int64(length))
	}
	return first
}

// requests are the first lines of all that the backend could have taken for a request,
// read in one way.
func (b *gullible) requests(prefer preference, underscores bool) (lines []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, kept := range b.seen {
		in := bufio.NewReader(bytes.NewReader(kept.Bytes()))
		for line := readRequest(in, prefer, underscores); line != ""; line = readRequest(in, prefer, underscores) {
			lines = append(lines, line)
		}
	}
	return lines
}

// check compares what the backend could have read since the last check with what the
// gateway has routed.
func (b *gullible) check(t *testing.T, g *node, name string) {
	t.Helper()
	await(t, "nothing to be open", func() bool { return g.metric(t, "sluice_rpc_open") == 0 })
	routed := int(g.metric(t, "sluice_rpc_started_total", "backend", "default/a"))
	for _, prefer := range []preference{preferChunked, preferLength, preferFirst} {
		for _, underscores := range []bool{false, true} {
			how := reading{prefer, underscores}
			lines := b.requests(prefer, underscores)
			if len(lines)-b.read[how] > routed-b.routed {
				t.Errorf("%s: %d requests were routed, and read as %v there are %d more, of %q", name, routed-b.routed, how, len(lines)-b.read[how], lines)
			}
			b.read[how] = len(lines)
		}
	}
	b.routed = routed
}

const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\nX: "

// TestSmugglingOverHTTP1: however a request lies about where it ends, the backend reads
// as many as the gateway has routed.
func TestSmugglingOverHTTP1(t *testing.T) {
	t.Parallel()
	post := func(head, body string) string { return "POST / HTTP/1.1\r\nHost: a\r\n" + head + "\r\n\r\n" + body }
	inChunk := "2e\r\n" + smuggled + "1234567890\r\n0\r\n\r\n"
	requests := map[string]string{
		"length and chunks":               post("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\n"+smuggled),
		"chunks and length":               post("Transfer-Encoding: chunked\r\nContent-Length: 4", inChunk),
		"chunks, then identity":           post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: 4", inChunk),
		"identity":                        post("Transfer-Encoding: identity\r\nContent-Length: 4", inChunk),
		"chunks as a list":                post("Transfer-Encoding: identity, chunked\r\nContent-Length: 4", inChunk),
		"gzip, chunked":                   post("Transfer-Encoding: gzip, chunked", inChunk),
		"xchunked":                        post("Transfer-Encoding: xchunked\r\nContent-Length: 4", inChunk),
		"a blank before the colon":        post("Transfer-Encoding : chunked\r\nContent-Length: 4", inChunk),
		"a tab before the value":          post("Transfer-Encoding:\tchunked\r\nContent-Length: 4", inChunk),
		"a vertical tab":                  post("Transfer-Encoding: \x0bchunked\r\nContent-Length: 4", inChunk),
		"a blank before the name":         post("X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 4", inChunk),
		"a fold before the value":         post("Transfer-Encoding:\r\n chunked\r\nContent-Length: 4", inChunk),
		"a bare line feed":                post("X: y\nTransfer-Encoding: chunked\r\nContent-Length: 4", inChunk),
		"a bare carriage return":          post("X: y\rTransfer-Encoding: chunked\r\nContent-Length: 4", inChunk),
		"a zero byte":                     post("Transfer-Encoding: chunked\x00\r\nContent-Length: 4", inChunk),
		"an underscore":                   post("Transfer_Encoding: chunked\r\nContent-Length: 4", "1234"),
		"an underscore in the length":     post("Content_Length: 4\r\nTransfer-Encoding: chunked", inChunk),
		"upper case":                      post("TRANSFER-ENCODING: CHUNKED\r\nCONTENT-LENGTH: 4", inChunk),
		"two lengths":                     post("Content-Length: 4\r\nContent-Length: 60", smuggled),
		"two equal lengths":               post("Content-Length: 4\r\nContent-Length: 4", "1234"+smuggled),
		"a list of lengths":               post("Content-Length: 4, 60", smuggled),
		"a list of equal lengths":         post("Content-Length: 4, 4", "1234"),
		"a length with a sign":            post("Content-Length: +4", "1234"+smuggled),
		"a negative length":               post("Content-Length: -4", "1234"+smuggled),
		"a hexadecimal length":            post("Content-Length: 0x4", "1234"+smuggled),
		"a length with a blank":           post("Content-Length: 4 4", "1234"+smuggled),
		"a length beyond numbers":         post("Content-Length: 99999999999999999999", "1234"+smuggled),
		"a length with a fold":            post("Content-Length: 4\r\n 4", "1234"+smuggled),
		"no length":                       post("X: y", smuggled),
		"GET with a body":                 "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\n" + smuggled,
		"HEAD with a body":                "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\n" + smuggled,
		"an extension of a chunk":         post("Transfer-Encoding: chunked", "4;a=\"\r\n\"\r\n1234\r\n0\r\n\r\n"+smuggled),
		"an extension with a line feed":   post("Transfer-Encoding: chunked", "4;a\n1234\r\n0\r\n\r\n"+smuggled),
		"a chunk's size without return":   post("Transfer-Encoding: chunked", "4\n1234\n0\n\n"+smuggled),
		"a chunk's size with 0x":          post("Transfer-Encoding: chunked", "0x4\r\n1234\r\n0\r\n\r\n"+smuggled),
		"a chunk's size with a sign":      post("Transfer-Encoding: chunked", "+4\r\n1234\r\n0\r\n\r\n"+smuggled),
		"a chunk's size beyond numbers":   post("Transfer-Encoding: chunked", "10000000000000004\r\n1234\r\n0\r\n\r\n"+smuggled),
		"a chunk longer than it says":     post("Transfer-Encoding: chunked", "2\r\n1234\r\n0\r\n\r\n"+smuggled),
		"a chunk shorter than it says":    post("Transfer-Encoding: chunked", "40\r\n1234\r\n0\r\n\r\n"+smuggled),
		"a long extension":                post("Transfer-Encoding: chunked", "4;"+strings.Repeat("x", 100_000)+"\r\n1234\r\n0\r\n\r\n"),
		"trailers that frame":             post("Transfer-Encoding: chunked\r\nTrailer: Content-Length, X-T", "4\r\n1234\r\n0\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\nX-T: "+"1\r\n\r\n"),
		"a request as a trailer":          post("Transfer-Encoding: chunked", "0\r\n"+smuggled+"\r\n\r\n"),
		"chunks in HTTP/1.0":              "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + inChunk,
		"two versions":                    "GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
		"a line feed in the target":       "GET /\nHost: a HTTP/1.1\r\nHost: a\r\n\r\n",
		"the absolute form":               "GET http://a/x HTTP/1.1\r\nHost: b\r\n\r\n",
		"two hosts":                       "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"a length named as a hop":         post("Connection: Content-Length\r\nContent-Length: 37", smuggled),
		"chunks named as a hop":           post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", inChunk),
		"an upgrade that is refused":      "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\n\r\n" + smuggled + "1\r\n\r\n",
		"an upgrade with a body":          "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 37\r\n\r\n" + smuggled,
		"an upgrade to h2c":               "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"a continuation without a body":   post("Expect: 100-continue\r\nContent-Length: 37", smuggled),
		"an expectation that is no such":  post("Expect: 100-continued\r\nContent-Length: 37", smuggled),
		"a length that does not come":     post("Content-Length: 5000", smuggled),
		"two requests, as they should be": post("Content-Length: 2", "hi") + smuggled + "1\r\n\r\n",
	}
	b := newGullible(t)
	g := startGateway(t, Config{}, http1At("a", b.addr), everything("a"))
	for name, bytes := range requests {
		c := dialRaw(t, g.address())
		c.SetDeadline(time.Now().Add(500 * time.Millisecond))
		c.write(bytes)
		c.readHead()
		if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
		io.Copy(io.Discard, c)
		c.Close()
		b.check(t, g, name)
	}
	if routed := g.metric(t, "sluice_rpc_started_total", "backend", "default/a"); routed < 10 {
		t.Errorf("only %v of %d were routed: the test tests nothing", routed, len(requests))
	}
}

// TestSmugglingOverHTTP2: fields of HTTP/2 that would mean more in HTTP/1.
func TestSmugglingOverHTTP2(t *testing.T) {
	t.Parallel()
	b := newGullible(t)
	g := startGateway(t, Config{}, http1At("a", b.addr), everything("a"))
	for _, tt := range []struct {
		name   string
		pairs  []string // beside, or in place of, those of a good request
		body   string
		tail   []string // trailers
		passes bool
		either bool // the backend may have answered before the rest has come
	}{
		{name: "a good one", body: "0\r\n\r\n" + smuggled, passes: true},
		{name: "a length that is too small", pairs: []string{"content-length", "4"}, body: "1234" + smuggled},
		{name: "a length that is too large", pairs: []string{"content-length", "400"}, body: smuggled},
		{name: "a body that was said to be empty", pairs: []string{"content-length", "0"}, body: smuggled, either: true},
		{name: "two lengths", pairs: []string{"content-length", "4", "content-length", "37"}, body: smuggled},
		{name: "a list of lengths", pairs: []string{"content-length", "4, 37"}, body: smuggled},
		{name: "a length with a sign", pairs: []string{"content-length", "+37"}, body: smuggled},
		{name: "chunks", pairs: []string{"transfer-encoding", "chunked"}, body: "0\r\n\r\n" + smuggled},
		{name: "chunks with a length", pairs: []string{"transfer-encoding", "chunked", "content-length", "42"}, body: "0\r\n\r\n" + smuggled},
		{name: "te", pairs: []string{"te", "chunked"}, body: "0\r\n\r\n" + smuggled},
		{name: "connection", pairs: []string{"connection", "transfer-encoding"}},
		{name: "upgrade", pairs: []string{"upgrade", "websocket"}},
		{name: "an underscore", pairs: []string{"transfer_encoding", "chunked"}, body: "0\r\n\r\n" + smuggled, passes: true},
		{name: "a line break in a value", pairs: []string{"x", "y\r\ntransfer-encoding: chunked"}, body: "0\r\n\r\n" + smuggled},
		{name: "a line feed in a value", pairs: []string{"x", "y\n\n" + smuggled}},
		{name: "a return in a value", pairs: []string{"x", "y\r\rtransfer-encoding: chunked"}},
		{name: "a line break in a name", pairs: []string{"x: y\r\ntransfer-encoding", "chunked"}, body: "0\r\n\r\n" + smuggled},
		{name: "a colon in a name", pairs: []string{"transfer-encoding:", "chunked"}, body: "0\r\n\r\n" + smuggled},
		{name: "a blank in a name", pairs: []string{"transfer-encoding ", "chunked"}, body: "0\r\n\r\n" + smuggled},
		{name: "a path with a request", pairs: []string{":path", "/ HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled}},
		{name: "a path with a blank", pairs: []string{":path", "/ HTTP/1.1"}},
		{name: "a path without a slash", pairs: []string{":path", "http://b/"}},
		{name: "a method with a request", pairs: []string{":method", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET"}},
		{name: "a method with a blank", pairs: []string{":method", "GET /smuggled HTTP/1.1"}},
		{name: "an authority with a field", pairs: []string{":authority", "a\r\ntransfer-encoding: chunked"}},
		{name: "another host", pairs: []string{"host", "b"}},
		{name: "CONNECT", pairs: []string{":method", "CONNECT"}},
		{name: "trailers that frame", body: "body", tail: []string{"content-length", "37"}, either: true},
		{name: "trailers with a break", body: "body", tail: []string{"x", "y\r\n\r\n" + smuggled}, either: true},
	} {
		client := connect(t, g.address(), manners{})
		good := []string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a"}
		var rest []string
		for i := 0; i < len(tt.pairs); i += 2 {
			if at := indexOfPair(good, tt.pairs[i]); at >= 0 {
				good[at+1] = tt.pairs[i+1]
				continue
			}
			rest = append(rest, tt.pairs[i], tt.pairs[i+1])
		}
		before := g.metric(t, "sluice_rpc_ended_total", "backend", "default/a", "code", "OK")
		client.headers(1, tt.body == "", append(good, rest...)...)
		if tt.body != "" {
			client.data(1, []byte(tt.body), tt.tail == nil)
		}
		if tt.tail != nil {
			client.headers(1, true, tt.tail...)
		}
		client.await("an end", func(e event) bool {
			return e.id == 1 && e.end || e.id == 1 && e.typ.String() == "RST_STREAM" || e.typ.String() == "GOAWAY"
		})
		b.check(t, g, tt.name)
		if after := g.metric(t, "sluice_rpc_ended_total", "backend", "default/a", "code", "OK"); !tt.either && tt.passes != (after > before) {
			t.Errorf("%s: passed %v, want %v", tt.name, after > before, tt.passes)
		}
		client.close()
	}
}

func indexOfPair(pairs []string, name string) int {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] == name {
			return i
		}
	}
	return -1
}
