package hostile

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// socketUpgrade opens a WebSocket that carries an RPC, and socketHeader is its first
// message: masked with zeros, as it stands.
const socketUpgrade = "GET " + chat + " HTTP/1.1\r\nHost: " + good + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: grpc-websockets\r\n\r\n"

var socketHeader = socketMessage("content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n\r\n")

// socketMessage is a binary message of a WebSocket's client (RFC 6455, section 5.2).
func socketMessage(s string) string {
	return string([]byte{0x82, 0x80 | byte(len(s)), 0, 0, 0, 0}) + s
}

// beginnings are requests that stop at every place where one can.
func beginnings() map[string]string {
	whole := func(path, contentType string, n int, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", path, good, contentType, n, body)
	}
	open := func(path, contentType, chunk string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", path, good, contentType, len(chunk), chunk)
	}
	one := string(framed(0, note("x")))
	return map[string]string{
		"gRPC-Web, no byte of the body":     whole(echo, typeWeb, 100, ""),
		"gRPC-Web, part of a prefix":        whole(echo, typeWeb, 100, one[:3]),
		"gRPC-Web, part of a large body":    whole(echo, typeWeb, 1<<20, one),
		"gRPC-Web, chunked":                 open(echo, typeWeb, one),
		"gRPC-Web text, part of a quantum":  whole(echo, typeText, 100, "AAAAA"),
		"gRPC-Web, at work":                 whole(hold, typeWeb, len(one), one),
		"Connect, part of the body":         whole(echo, typeConnect, 100, "\x0a"),
		"Connect, at work":                  whole(hold, typeConnect, 3, "\x0a\x01x"),
		"Connect stream, part of a message": open(chat, typeStream, one[:6]),
		"Connect stream, between messages":  open(chat, typeStream, one),
		"REST, part of the body":            whole("/v1/echo", typeJSON, 100, `{"pad"`),
		"REST, chunked":                     open("/v1/echo", typeJSON, `{"pad"`),
		"REST, at work":                     whole("/v1/hold", typeJSON, 2, "{}"),
		"REST stream, part of a value":      open("/v1/chat", "application/x-ndjson", `{"pad":"`),
		"REST stream, between values":       open("/v1/chat", "application/x-ndjson", "{}\n"),
		"a WebSocket without a header":      socketUpgrade,
		"a WebSocket, part of its header":   socketUpgrade + socketHeader[:9],
		"a WebSocket, between messages":     socketUpgrade + socketHeader + socketMessage("\x00"+one),
		"a WebSocket, part of a message":    socketUpgrade + socketHeader + socketMessage("\x00" + one)[:10],
	}
}

// Callers by the hundred who stop in the middle cost little while they stay, and are
// forgotten when they go: no RPC, stream or goroutine is left of them.
func TestTranslatedCallersWhoStop(t *testing.T) {
	r := newTranslating(t, nodeConfig{}, "")
	tr := r.begin("callers who stop")
	n := 0
	var conns []io.Closer
	for _, request := range beginnings() {
		for i := range 12 {
			nc := r.raw(t, request)
			n++
			if i%2 == 0 { // half of them go at once
				nc.Close()
			} else {
				conns = append(conns, nc)
			}
		}
	}
	<-time.After(500 * time.Millisecond) // meanwhile the bystander is served
	tr.weigh(cost{memory: 48 << 20, cpu: time.Second})
	if left := r.left(); len(left) == 0 {
		t.Error("nobody stopped in the middle of anything")
	}
	for _, nc := range conns {
		nc.Close()
	}
	t.Logf("%d callers", n)
	r.clean()
	tr.recover()
}

// The same over HTTP/2, where a caller gives up a stream and stays.
func TestTranslatedCallersWhoGiveUp(t *testing.T) {
	r := newTranslating(t, nodeConfig{}, "")
	tr := r.begin("callers who give up")
	c := caller(t, 2)
	one := string(framed(0, note("x")))
	for _, q := range []wrongRequest{
		{contentType: typeWeb, path: hold, body: []byte(one)},
		{contentType: typeText, path: hold, body: []byte("AAAAAAA=")},
		{contentType: typeConnect, path: hold, body: note("x")},
		{contentType: typeJSON, path: hold, body: []byte("{}")},
		{contentType: typeJSON, path: "/v1/hold", body: []byte("{}")},
		{contentType: typeStream, path: chat, body: []byte(one)},
		{contentType: typeWeb, path: chat, body: []byte(one)},
		{contentType: "application/x-ndjson", path: "/v1/chat", body: []byte("{}\n")},
		{verb: http.MethodGet, path: "/v1/blob", header: []string{"Blob-Bytes", "100000000"}},
		{contentType: typeStream, path: blob, body: []byte(one), header: []string{"Blob-Bytes", "100000000"}},
		{contentType: typeWeb, path: blob, body: []byte(one), header: []string{"Blob-Bytes", "100000000"}},
	} {
		for i := range 8 {
			question := q.ask()
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+5*i)*time.Millisecond)
			if strings.HasSuffix(strings.ToLower(q.path), "chat") { // whose end never comes
				in, out := io.Pipe()
				go out.Write(q.body)
				context.AfterFunc(ctx, func() { out.CloseWithError(ctx.Err()) })
				question.body = in
			}
			resp, err := c.Do(r.request(t, question).WithContext(ctx))
			if err == nil {
				_, err = io.CopyN(io.Discard, resp.Body, 1<<20) // some go in the middle of an answer
				resp.Body.Close()
			}
			cancel()
			if err == nil && !strings.HasSuffix(strings.ToLower(q.path), "blob") {
				t.Errorf("%s %s: answered in full", q.contentType, q.path)
			}
		}
	}
	r.clean()
	if n := r.honest.active.Load(); n != 0 {
		t.Errorf("the backend still works on %d RPCs", n)
	}
	c.CloseIdleConnections()
	tr.judge(cost{memory: 64 << 20, cpu: 2 * time.Second})
}

// A byte now and then, on two hundred connections of every kind.
func TestTranslatedSlowBodies(t *testing.T) {
	r := newTranslating(t, nodeConfig{}, "")
	tr := r.begin("slow bodies")
	var slow []io.WriteCloser
	for range 40 {
		for _, head := range []string{
			"POST " + echo + " HTTP/1.1\r\nHost: " + good + "\r\nContent-Type: " + typeWeb + "\r\nContent-Length: 10000\r\n\r\n\x00\x00\x00\x27\x0b",
			"POST " + echo + " HTTP/1.1\r\nHost: " + good + "\r\nContent-Type: " + typeText + "\r\nContent-Length: 10000\r\n\r\nAAAAAAA=",
			"POST " + echo + " HTTP/1.1\r\nHost: " + good + "\r\nContent-Type: " + typeConnect + "\r\nContent-Length: 10000\r\n\r\n",
			"POST /v1/echo HTTP/1.1\r\nHost: " + good + "\r\nContent-Type: " + typeJSON + "\r\nContent-Length: 10000\r\n\r\n{\"pad\":\"",
			"POST /v1/chat HTTP/1.1\r\nHost: " + good + "\r\nContent-Type: application/x-ndjson\r\nContent-Length: 10000\r\n\r\n{\"pad\":\"",
		} {
			slow = append(slow, r.raw(t, head))
		}
	}
	for range pick(6, 60) {
		for _, nc := range slow {
			io.WriteString(nc, "A")
		}
		<-time.After(pick(250*time.Millisecond, time.Second))
	}
	tr.weigh(cost{memory: 32 << 20, cpu: time.Second})
	for _, nc := range slow {
		nc.Close()
	}
	r.clean()
	tr.recover()
}
