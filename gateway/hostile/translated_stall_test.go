package hostile

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/gateway"
)

// reluctant connects with a receive buffer that holds next to nothing.
func (r *rig) reluctant(t testing.TB, s string) net.Conn {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return narrow(raw, 4096) }}
	nc, err := d.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if _, err := nc.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	return nc
}

// post is a request over HTTP/1 as it is on the wire.
func post(path, contentType, body string, more ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n%s",
		path, good, contentType, len(body), strings.Join(more, ""), body)
}

// Who asks for much and takes nothing is given up, in whatever protocol, and so is the
// RPC behind it; until then little waits.
func TestTranslatedReadersWhoTakeNothing(t *testing.T) {
	r := newTranslating(t, limits(func(c *gateway.Config) { c.Limits.StreamStall = 2 * time.Second }), "")
	much := "Blob-Bytes: 100000000\r\n"
	one := string(framed(0, nil))
	for _, test := range []struct{ name, request string }{
		{"gRPC-Web", post(blob, typeWeb, one, much)},
		{"gRPC-Web text", post(blob, typeText, "AAAAAAA=", much)},
		{"Connect", post(blob, typeStream, one, much)},
		{"NDJSON", "GET /v1/blob HTTP/1.1\r\nHost: " + good + "\r\n" + much + "\r\n"},
		{"events", "GET /v1/blob HTTP/1.1\r\nHost: " + good + "\r\nAccept: text/event-stream\r\n" + much + "\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := r.begin("readers of " + test.name)
			const n = 20
			for range n {
				r.reluctant(t, test.request)
			}
			if !eventually(patience, func() bool { return r.active("honest", r.honest.addr) >= n }) {
				t.Fatalf("the requests did not become RPCs: %v", r.left())
			}
			r.clean()
			tr.judge(cost{memory: 128 << 20, cpu: time.Second}) // a window each, and what the collector lets lie
		})
	}
}
