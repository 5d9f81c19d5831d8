package listen

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/h2"
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
			if !strings.Contains(g, "goroutinesLeft") && (strings.Contains(g, "sluice/") || strings.Contains(g, "cmux")) {
				left += g + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
		time.Sleep(10 * time.Millisecond) // allow:sleep, a poll
	}
	return left
}

// memory is a listener whose connections are pipes. It stands in for the
// network where time is made up.
type memory struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newMemory() *memory {
	return &memory{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case nc := <-m.conns:
		return nc, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

func (m *memory) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443} }

// dial returns the client's end of a new connection.
func (m *memory) dial(t *testing.T) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	select {
	case m.conns <- server:
	case <-m.closed:
		t.Fatal("the port is closed")
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// port is a listener that runs, with handlers that say what they were handed.
type port struct {
	*Listener
	log  *logged
	stop func() // ends it, and waits for its goroutines
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

// openPort opens a port that answers "http2" or "http1", and what it knows of
// the connection.
func openPort(t *testing.T, cfg Config) *port {
	t.Helper()
	if cfg.Address == "" && cfg.Listener == nil {
		cfg.Address = "127.0.0.1:0"
	}
	p := &port{log: new(logged)}
	var err error
	if p.Listener, err = New(cfg, slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		Handler:           http.HandlerFunc(answerHTTP1),
		ReadHeaderTimeout: 5 * time.Second,
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			info, _ := InfoOf(nc)
			return context.WithValue(ctx, infoKey{}, info)
		},
	}
	ended := make(chan error, 1)
	go func() {
		ended <- p.Run(ctx, Handlers{HTTP2: answerHTTP2, HTTP1: func(l net.Listener) { server.Serve(l) }})
	}()
	p.stop = sync.OnceFunc(func() {
		cancel()
		server.Close()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(p.stop)
	return p
}

type infoKey struct{}

func answerHTTP1(w http.ResponseWriter, r *http.Request) {
	info := r.Context().Value(infoKey{}).(Info)
	io.Copy(io.Discard, r.Body)
	io.WriteString(w, "http1 "+describe(info)+" "+r.RemoteAddr)
}

func answerHTTP2(ctx context.Context, t *h2.Transport, info Info) {
	defer t.Close()
	stop := context.AfterFunc(ctx, func() { t.Close() })
	defer stop()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(t, preface); err != nil || string(preface) != http2.ClientPreface {
		fmt.Fprintf(t, "no preface: %q, %v", preface, err)
		return
	}
	io.WriteString(t, "http2 "+describe(info))
	io.Copy(io.Discard, t)
}

func describe(info Info) string {
	if info.TLS == nil {
		return "clear from " + info.Remote.String() + " to " + info.Local.String()
	}
	return fmt.Sprintf("tls %q from %s", info.TLS.NegotiatedProtocol, info.Remote)
}

// count returns the value of a counter.
func (p *port) count(name string) int64 {
	for _, c := range p.Counters() {
		if c.Name == name {
			return c.Value()
		}
	}
	panic("no counter " + name)
}

// await waits until a counter has reached a value. The peer may know of its fate
// before the counter does.
func (p *port) await(t *testing.T, name string, want int64) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); p.count(name) != want; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%s is %d; want %d", name, p.count(name), want)
		}
	}
}

// dial opens a connection to the port.
func (p *port) dial(t *testing.T) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	return nc
}

// askHTTP2 sends the preface and returns the answer.
func askHTTP2(nc net.Conn) (string, error) {
	if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
		return "", err
	}
	return hear(nc)
}

// askHTTP1 sends a request and returns the answer.
func askHTTP1(nc net.Conn) (string, error) {
	if _, err := io.WriteString(nc, "PATCH / HTTP/1.1\r\nHost: gateway.test\r\n\r\n"); err != nil {
		return "", err
	}
	return hear(nc)
}

// hear returns the first that the peer says.
func hear(nc net.Conn) (string, error) {
	answer := make([]byte, 4096)
	n, err := nc.Read(answer)
	return string(answer[:n]), err
}

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	a := new(authority)
	a.key, a.pem = newCertificate(t, template, nil)
	block, _ := pem.Decode(a.pem)
	a.cert, _ = x509.ParseCertificate(block.Bytes)
	return a
}

// pool returns those who trust the authority.
func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue returns a certificate and its key as PEM.
func (a *authority) issue(t *testing.T, name string, until time.Time) (cert, key []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     until,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	private, cert := newCertificate(t, template, a)
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

func newCertificate(t *testing.T, template *x509.Certificate, by *authority) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// files are the certificate files of a port.
type files struct {
	dir string
	ca  *authority
}

// newFiles writes a certificate for gateway.test, and its key.
func newFiles(t *testing.T) *files {
	t.Helper()
	f := &files{dir: t.TempDir(), ca: newAuthority(t, "servers")}
	cert, key := f.ca.issue(t, "gateway.test", time.Now().Add(time.Hour))
	f.write(t, "cert.pem", cert)
	f.write(t, "key.pem", key)
	return f
}

func (f *files) path(name string) string { return filepath.Join(f.dir, name) }

func (f *files) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(f.path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// config returns a configuration that uses the files.
func (f *files) config() Config {
	return Config{TLSCert: f.path("cert.pem"), TLSKey: f.path("key.pem")}
}

// client returns the configuration of a client that trusts the server.
func (f *files) client(protocols ...string) *tls.Config {
	return &tls.Config{RootCAs: f.ca.pool(), ServerName: "gateway.test", NextProtos: protocols}
}
