package gateway

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/listen"
)

// certify returns the files of a certificate for example.com, and the
// configuration of a client that trusts it.
func certify(t *testing.T) (cert, key string, client *tls.Config) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pair := s.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		name = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return write("cert.pem", "CERTIFICATE", pair.Certificate[0]), write("key.pem", "PRIVATE KEY", der),
		&tls.Config{RootCAs: roots, ServerName: "example.com"}
}

// http1Caller is a client of HTTP/1 on one connection.
type http1Caller struct {
	net.Conn
	in *bufio.Reader
}

// callHTTP1 connects, says first what is to be said ahead of TLS, and opens TLS
// when there is a configuration for it.
func callHTTP1(t *testing.T, addr, first string, cfg *tls.Config) *http1Caller {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(nc, first); err != nil {
		t.Fatal(err)
	}
	if cfg != nil {
		nc = tls.Client(nc, cfg)
	}
	return &http1Caller{nc, bufio.NewReader(nc)}
}

// ask sends a request, in so many words, and returns the answer with its body.
func (c *http1Caller) ask(request string) (*http.Response, string, error) {
	if _, err := io.WriteString(c, request); err != nil {
		return nil, "", err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

const getHTTP1 = "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"

func TestHTTP1TellsTheHandlerWhoAsks(t *testing.T) {
	t.Parallel()
	cert, key, trusting := certify(t)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.RemoteAddr)
		if r.TLS != nil {
			fmt.Fprintf(w, " by TLS to %s", r.TLS.ServerName)
		}
	})
	tests := []struct {
		name   string
		header string // of PROXY
		tls    *tls.Config
		want   string // "" is the socket's own end
		secure bool
	}{
		{name: "clear"},
		{name: "TLS", tls: trusting, secure: true},
		{name: "clear, behind a proxy", header: "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n", want: "192.0.2.7:4711"},
		{name: "TLS, behind a proxy", header: "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n", tls: trusting, want: "192.0.2.7:4711", secure: true},
		{name: "IPv6, behind a proxy", header: "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", want: "[2001:db8::7]:4711"},
		{name: "a proxy that speaks for itself", header: "PROXY UNKNOWN\r\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := startGateway(t, Config{Handler: handler, Listen: listen.Config{TLSCert: cert, TLSKey: key, ProxyProtocol: test.header != ""}})
			c := callHTTP1(t, g.address(), test.header, test.tls)
			want := test.want
			if want == "" {
				want = c.LocalAddr().String()
			}
			if test.secure {
				want += " by TLS to example.com"
			}
			for range 2 { // each request of a connection
				if _, got, err := c.ask(getHTTP1); got != want || err != nil {
					t.Errorf("got %q, %v, want %q", got, err, want)
				}
			}
		})
	}
}

// TestHTTP1RefusesThePrefaceOfHTTP2: a client that speaks HTTP/2 on TLS without
// having agreed on it is told so.
func TestHTTP1RefusesThePrefaceOfHTTP2(t *testing.T) {
	t.Parallel()
	cert, key, trusting := certify(t)
	g := startGateway(t, Config{Listen: listen.Config{TLSCert: cert, TLSKey: key}})
	for _, request := range []string{
		http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"PRI / HTTP/1.1\r\nHost: example.com\r\n\r\n",
	} {
		c := callHTTP1(t, g.address(), "", trusting)
		resp, body, err := c.ask(request)
		if err != nil {
			t.Errorf("%q: %v", request, err)
			continue
		}
		if resp.StatusCode != http.StatusBadRequest || !resp.Close || !strings.Contains(body, "ALPN") {
			t.Errorf("%q: got %d, %v, %q, want 400, Connection: close and a word of ALPN", request, resp.StatusCode, resp.Header, body)
		}
		if _, err := c.in.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("%q: after the answer: %v, want the end", request, err)
		}
	}
	if got := g.metric(t, "sluice_rpc_path_total", "path", "handler"); got != 0 {
		t.Errorf("%v prefaces took the handler's path", got)
	}
}

// TestHTTP1LogsWhatNetHTTPSays: about clients for those who look for it, and about
// a handler that panics for everybody.
func TestHTTP1LogsWhatNetHTTPSays(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    string // "" is no line of either level
	}{
		{"a second status", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
			w.WriteHeader(http.StatusOK)
		}, `level=DEBUG msg="http: superfluous response.WriteHeader`},
		{"a panic", func(http.ResponseWriter, *http.Request) { panic("oh no") }, `level=ERROR msg="handler panicked" method=GET path=/ panic="oh no"`},
		{"an abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := startGateway(t, Config{Handler: test.handler})
			_, _, err := callHTTP1(t, g.address(), "", nil).ask(getHTTP1)
			if panics := test.name != "a second status"; panics != (err != nil) {
				t.Errorf("the answer: %v", err)
			}
			if got := g.log.String(); !strings.Contains(got, test.want) || test.want == "" && strings.Contains(got, "panic") {
				t.Errorf("got the log %q, want %q", got, test.want)
			}
		})
	}
}

// What is left of a request that was answered early must never be read as the next one.
func TestHTTP1NeverReadsTheRestOfARequestAsAnother(t *testing.T) {
	g := startGateway(t, Config{})
	c := callHTTP1(t, g.address(), "", nil)
	resp, _, err := c.ask("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("HTTP %d, want 404", resp.StatusCode)
	}
	// Longer than the gateway waits for the rest.
	c.SetReadDeadline(time.Now().Add(2 * lateBody))
	if _, err := c.in.ReadByte(); err == io.EOF {
		return
	}
	c.SetReadDeadline(time.Now().Add(patience))
	resp, _, err = c.ask("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
	if err == nil {
		t.Errorf("the rest of a request was answered as a request: HTTP %d", resp.StatusCode)
	}
}

func TestHTTP1KeepsTheConnectionWhenTheRequestIsWhole(t *testing.T) {
	g := startGateway(t, Config{})
	c := callHTTP1(t, g.address(), "", nil)
	for i := range 3 {
		for _, body := range []string{"Content-Length: 5\r\n\r\nwhole", "Transfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"} {
			resp, _, err := c.ask("POST /nowhere HTTP/1.1\r\nHost: a\r\n" + body)
			if err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
			if resp.StatusCode != http.StatusNotFound || resp.Close {
				t.Errorf("request %d: HTTP %d, close %t", i, resp.StatusCode, resp.Close)
			}
		}
	}
}
