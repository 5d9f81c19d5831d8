package gateway

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestHandlerRefusesInTheCallersWords: what leads nowhere gets an answer that its
// caller can read, at once, also while its body is still to come.
func TestHandlerRefusesInTheCallersWords(t *testing.T) {
	t.Parallel()
	const why = "sluice: native gRPC is a POST over HTTP/2"
	g := startGateway(t, Config{})
	tests := []struct {
		name, method, content string
		proto                 int // 1 or 2; 0 is both
		status                string
		header                map[string]string
		body                  string // what it contains
	}{
		{name: "a browser", method: "GET", status: "404", header: map[string]string{"content-type": "application/json"}},
		{name: "a form", method: "POST", content: "application/x-www-form-urlencoded", status: "404", header: map[string]string{"content-type": "application/json"}},
		{name: "JSON", method: "POST", content: "application/json", status: "404", header: map[string]string{"content-type": "application/json"}},
		{name: "gRPC-Web", method: "POST", content: "application/grpc-web+proto", proto: 1, status: "200", header: map[string]string{"content-type": "application/grpc-web+proto", "grpc-status": "12", "grpc-message": "sluice: no route serves this authority"}},
		{name: "gRPC in HTTP/1", method: "POST", content: "application/grpc", proto: 1, status: "505", header: map[string]string{"grpc-status": "13", "grpc-message": why + "; gRPC needs HTTP/2"}},
		{name: "gRPC by GET", method: "GET", content: "application/grpc", proto: 2, status: "405", header: map[string]string{"allow": "POST", "grpc-status": "13"}},
	}
	asked := 0
	for _, test := range tests {
		if test.proto != 2 {
			asked++
			t.Run(test.name+" HTTP/1", func(t *testing.T) {
				nc, err := net.Dial("tcp", g.address())
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(patience))
				fmt.Fprintf(nc, "%s /shop.Cart/Get HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\nhalf", test.method, test.content)
				resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				if fmt.Sprint(resp.StatusCode) != test.status || !strings.Contains(string(body), test.body) {
					t.Errorf("got %d %q, want %s %q", resp.StatusCode, body, test.status, test.body)
				}
				for name, want := range test.header {
					if got := resp.Header.Get(name); got != want {
						t.Errorf("%s: got %q, want %q", name, got, want)
					}
				}
			})
		}
		if test.proto != 1 {
			asked++
			t.Run(test.name+" HTTP/2", func(t *testing.T) {
				client := connect(t, g.address(), manners{})
				pairs := []string{":method", test.method, ":scheme", "http", ":path", "/shop.Cart/Get", ":authority", "a"}
				if test.content != "" {
					pairs = append(pairs, "content-type", test.content)
				}
				client.headers(1, false, pairs...)
				head := client.awaitHeaders(1)
				if head.get(":status") != test.status {
					t.Errorf("got %v, want status %s", head, test.status)
				}
				for name, want := range test.header {
					if got := head.get(name); got != want {
						t.Errorf("%s: got %q, want %q", name, got, want)
					}
				}
				var body []byte
				if !head.end {
					for e := client.awaitData(1); ; e = client.awaitData(1) {
						if body = append(body, e.data...); e.end {
							break
						}
					}
				}
				if !strings.Contains(string(body), test.body) {
					t.Errorf("body %q, want %q", body, test.body)
				}
				if e := client.awaitReset(1); e.code != http2.ErrCodeNo {
					t.Errorf("an unfinished request was ended by %v, want NO_ERROR", e)
				}
			})
		}
	}
	if got := g.metric(t, "sluice_rpc_path_total", "path", "handler"); got != float64(asked) {
		t.Errorf("%v requests took the handler's path, want %d", got, asked)
	}
}

// TestHandlerServesConfiguredHandler: whoever is given is asked, in both versions.
func TestHandlerServesTheConfiguredOne(t *testing.T) {
	t.Parallel()
	g := startGateway(t, Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Proto, r.URL.Path, body)
	})})
	for _, version := range []int{1, 2} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(version == 1)
		protocols.SetUnencryptedHTTP2(version == 2)
		client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
		resp, err := client.Post("http://"+g.address()+"/x", "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		client.CloseIdleConnections()
		if want := fmt.Sprintf("HTTP/%d", version); !strings.HasPrefix(string(body), want) || !strings.HasSuffix(string(body), " /x hello") {
			t.Errorf("HTTP/%d: got %q", version, body)
		}
	}
}

// TestHandlerOffersNoHTTP2InNetHTTP: the engine is the only one that speaks it.
func TestHandlerOffersNoHTTP2InNetHTTP(t *testing.T) {
	t.Parallel()
	g := startGateway(t, Config{})
	s := g.newHTTP1()
	if s.Protocols.HTTP2() || s.Protocols.UnencryptedHTTP2() || len(s.TLSNextProto) != 0 || s.TLSNextProto == nil {
		t.Error("net/http would speak HTTP/2")
	}
	var _ map[string]func(*http.Server, *tls.Conn, http.Handler) = s.TLSNextProto
}
