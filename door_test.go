package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/admin"
)

// openPort runs a port of the operator's door until the test ends, or stop is called.
func openPort(t *testing.T, cfg admin.PortConfig, h http.HandlerFunc) (addr string, stop func() error) {
	t.Helper()
	if cfg.Listener == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listener = l
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 100
	}
	cfg.MaxHeaderBytes, cfg.HeaderTimeout, cfg.IdleTimeout = 16<<10, 5*time.Second, time.Minute
	port, err := newDoor(slog.New(slog.DiscardHandler))(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- port.Run(ctx, h); close(ended) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return port.Addr().String(), func() error {
		cancel()
		return <-ended
	}
}

// doorClient speaks one version of HTTP.
func doorClient(t *testing.T, major int, roots *x509.CertPool, dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(major == 1)
	protocols.SetHTTP2(major == 2)
	protocols.SetUnencryptedHTTP2(major == 2)
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: dial}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func answer(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.Proto + " " + string(text), err
}

func TestDoorSpeaksBothVersionsWithAndWithoutTLS(t *testing.T) {
	dir := t.TempDir()
	writeCertificates(t, dir)
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	say := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "tls=%v addr=%v", r.TLS != nil, strings.HasPrefix(r.RemoteAddr, "127.0.0.1:"))
	}
	cert := admin.PortConfig{TLSCert: filepath.Join(dir, "server.pem"), TLSKey: filepath.Join(dir, "server.key")}
	strict := cert
	strict.NoClearText = true
	for _, tc := range []struct {
		name, scheme string
		cfg          admin.PortConfig
		major        int
		want         string // empty: no answer of the handler
	}{
		{"HTTP/1", "http", admin.PortConfig{}, 1, "HTTP/1.1 tls=false addr=true"},
		{"HTTP/2", "http", admin.PortConfig{}, 2, "HTTP/2.0 tls=false addr=true"},
		{"HTTP/1, TLS", "https", cert, 1, "HTTP/1.1 tls=true addr=true"},
		{"HTTP/2, TLS", "https", cert, 2, "HTTP/2.0 tls=true addr=true"},
		{"HTTP/1 beside TLS", "http", cert, 1, "HTTP/1.1 tls=false addr=true"},
		{"TLS only, HTTP/2", "https", strict, 2, "HTTP/2.0 tls=true addr=true"},
		{"clear text where TLS is needed", "http", strict, 1, ""},
		{"HTTP/2 in clear text where TLS is needed", "http", strict, 2, ""},
		{"TLS where there is none", "https", admin.PortConfig{}, 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr, _ := openPort(t, tc.cfg, say)
			got, err := answer(doorClient(t, tc.major, roots, nil), tc.scheme+"://"+addr+"/")
			switch {
			case tc.want != "" && (err != nil || got != tc.want):
				t.Errorf("got %q, error %v, want %q", got, err, tc.want)
			case tc.want == "" && err == nil && strings.Contains(got, "addr="):
				t.Errorf("the handler answered: %q", got)
			}
		})
	}
}

// namedListener gives each connection's peer a name, as the socket of admin does.
type namedListener struct{ *net.UnixListener }

type namedConn struct{ *net.UnixConn }

func (l namedListener) Accept() (net.Conn, error) {
	conn, err := l.AcceptUnix()
	return namedConn{conn}, err
}

func (namedConn) RemoteAddr() net.Addr { return &net.UnixAddr{Name: "uid 7 pid 8", Net: "unix"} }

func TestDoorHandsOnTheNameOfASocketsPeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	openPort(t, admin.PortConfig{Listener: namedListener{l}}, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.RemoteAddr)
	})
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	for major, want := range map[int]string{1: "HTTP/1.1 uid 7 pid 8", 2: "HTTP/2.0 uid 7 pid 8"} {
		if got, err := answer(doorClient(t, major, nil, dial), "http://socket/"); err != nil || got != want {
			t.Errorf("got %q, error %v, want %q", got, err, want)
		}
	}
}

func TestDoorGivesAnswersUnderWayTheGrace(t *testing.T) {
	for _, tc := range []struct {
		name  string
		major int
		grace time.Duration
		done  bool // the answer comes in time
	}{
		{"HTTP/1 within the grace", 1, time.Minute, true},
		{"HTTP/2 within the grace", 2, time.Minute, true},
		{"HTTP/1 beyond the grace", 1, 50 * time.Millisecond, false},
		{"HTTP/2 beyond the grace", 2, 50 * time.Millisecond, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			begun, goOn := make(chan struct{}), make(chan struct{})
			addr, stop := openPort(t, admin.PortConfig{Grace: tc.grace}, func(w http.ResponseWriter, r *http.Request) {
				close(begun)
				select {
				case <-goOn:
					io.WriteString(w, "done")
				case <-r.Context().Done():
				}
			})
			got := make(chan string, 1)
			go func() {
				text, err := answer(doorClient(t, tc.major, nil, nil), "http://"+addr+"/")
				if err != nil {
					text = "error"
				}
				got <- text
			}()
			<-begun
			ended := make(chan error, 1)
			go func() { ended <- stop() }()
			if tc.done {
				for { // the port is closed before the answer is there
					conn, err := net.Dial("tcp", addr)
					if err != nil {
						break
					}
					conn.Close()
				}
				close(goOn)
			}
			if err := <-ended; err != nil {
				t.Errorf("Run returned %v", err)
			}
			if text := <-got; strings.HasSuffix(text, "done") != tc.done {
				t.Errorf("the client got %q", text)
			}
		})
	}
}

func TestDoorReturnsWhenItsListenerFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port, err := newDoor(slog.New(slog.DiscardHandler))(admin.PortConfig{Listener: l, MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := port.Run(t.Context(), http.NotFoundHandler()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run returned %v", err)
	}
}

func TestDoorClosesConnectionsBeyondItsLimit(t *testing.T) {
	addr, _ := openPort(t, admin.PortConfig{MaxConns: 1}, func(w http.ResponseWriter, r *http.Request) {})
	first := doorClient(t, 2, nil, nil)
	if _, err := answer(first, "http://"+addr+"/"); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", addr)
	if errors.Is(err, syscall.ECONNRESET) {
		return // so soon
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one connection too many reads %d bytes, error %v", n, err)
	}
}
