package h2

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// transportKinds are the ways to make two transports that talk to each other.
var transportKinds = []struct {
	name string
	tls  bool
	pipe bool // in memory, out of the poller's reach
}{
	{name: "clear"},
	{name: "tls", tls: true},
	{name: "clear pipe", pipe: true},
	{name: "tls pipe", tls: true, pipe: true},
}

// transportSockets returns the two ends of a TCP connection over loopback. The
// kernel holds little of what a narrow one carries; its segments are those of a
// real network, because the large ones of loopback do not fit.
func transportSockets(t testing.TB, narrow bool) (client, server *net.TCPConn) {
	t.Helper()
	var dialer net.Dialer
	var config net.ListenConfig
	if narrow {
		dialer.Control, config.Control = transportNarrow, transportNarrow
	}
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := dialer.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func transportNarrow(_, _ string, raw syscall.RawConn) error {
	var errs []error
	err := raw.Control(func(fd uintptr) {
		errs = append(errs,
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400),
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 8<<10),
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 8<<10))
	})
	return errors.Join(append(errs, err)...)
}

// transportConfigs returns the TLS configurations of a server, and of a client
// that trusts it.
func transportConfigs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"gateway.test"},
		NotAfter:     time.Now().Add(time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	server = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	client = &tls.Config{RootCAs: pool, ServerName: "gateway.test", NextProtos: []string{"h2"}}
	return server, client
}

// transportEnds makes two transports that talk to each other, past the handshake.
func transportEnds(t testing.TB, inTLS, pipe, narrow bool) (client, server *Transport) {
	t.Helper()
	var a, b net.Conn
	if pipe {
		a, b = net.Pipe()
	} else {
		a, b = transportSockets(t, narrow)
	}
	if !inTLS {
		return NewTransport(a, nil), NewTransport(b, nil)
	}
	serverConfig, clientConfig := transportConfigs(t)
	client, server = NewClientTLS(a, clientConfig), NewServerTLS(b, nil, serverConfig)
	transportHandshake(t, server, func() error { return client.Handshake(t.Context()) })
	return client, server
}

// transportHandshake runs the handshakes of both ends.
func transportHandshake(t testing.TB, server *Transport, client func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- server.Handshake(ctx) }()
	if err := client(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// transportWriteAll is a writer as the engine has one: it tries, and waits when
// that blocks.
func transportWriteAll(t *Transport, p []byte) error {
	for {
		n, blocked, err := t.tryWrite(p)
		p = p[n:]
		if err == nil && blocked {
			err = t.waitWrite()
		}
		if err != nil || len(p) == 0 {
			return err
		}
	}
}

// transportSend sends total bytes, which are numbers of eight bytes that count
// up, in pieces of any size up to 200 KiB.
func transportSend(t *Transport, total int) error {
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	var p []byte
	for next := uint64(0); total > 0; {
		for len(p) < 200<<10 {
			p = binary.BigEndian.AppendUint64(p, next)
			next++
		}
		n := min(1+rng.IntN(200<<10), total)
		if err := transportWriteAll(t, p[:n]); err != nil {
			return fmt.Errorf("sending, %d bytes left: %w", total, err)
		}
		p = p[:copy(p, p[n:])]
		total -= n
	}
	return nil
}

// transportRead is a reader as the engine has one: it fills b, and has handle
// look at it, until one of the two fails.
func transportRead(t *Transport, b *readBuffer, handle func() error) error {
	for {
		if err := t.fill(b); err != nil {
			return err
		}
		if err := handle(); err != nil {
			return err
		}
	}
}

// transportReceive reads what transportSend sends, calling between after each
// fill. It consumes whole numbers only, so that remainders lie about.
func transportReceive(t *Transport, total int, between func()) error {
	var b readBuffer
	defer b.release()
	for next, got := uint64(0), 0; got < total; between() {
		if err := t.fill(&b); err != nil {
			return fmt.Errorf("receiving, %d of %d bytes: %w", got, total, err)
		}
		for len(b.bytes()) >= 8 {
			if n := binary.BigEndian.Uint64(b.bytes()); n != next {
				return fmt.Errorf("number %d arrived where %d was due", n, next)
			}
			b.consume(8)
			got += 8
			next++
		}
	}
	return nil
}

// transportAwait waits until a condition of the kernel's making holds.
func transportAwait(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !holds(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 5s", what)
		}
	}
}

// keyUpdater is the sending half of a TLS 1.3 client of its own making, which
// can do what crypto/tls never does: update its keys, in records of any cut.
type keyUpdater struct {
	nc     net.Conn
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// newKeyUpdater opens TLS to the server by crypto/tls, and goes on from there
// by itself.
func newKeyUpdater(t *testing.T, nc net.Conn, server *Transport, cfg *tls.Config) *keyUpdater {
	t.Helper()
	var log strings.Builder
	cfg = cfg.Clone()
	cfg.KeyLogWriter = &log
	cfg.MinVersion = tls.VersionTLS13
	conn := tls.Client(nc, cfg)
	transportHandshake(t, server, conn.Handshake)
	if conn.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Fatalf("cipher suite %x; want AES-128-GCM, as every processor with instructions for it has", conn.ConnectionState().CipherSuite)
	}
	u := &keyUpdater{nc: nc}
	for line := range strings.Lines(log.String()) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			u.secret, _ = hex.DecodeString(f[2])
		}
	}
	u.rekey(t)
	return u
}

// rekey derives key and nonce from the secret (RFC 8446, section 7.3).
func (u *keyUpdater) rekey(t *testing.T) {
	block, err := aes.NewCipher(u.expand(t, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	if u.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	u.iv, u.seq = u.expand(t, "iv", 12), 0
}

func (u *keyUpdater) expand(t *testing.T, label string, length int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(info, byte(len("tls13 "+label)))
	info = append(info, "tls13 "+label...)
	info = append(info, 0)
	out, err := hkdf.Expand(sha256.New, u.secret, string(info), length)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// record seals one record (RFC 8446, section 5.2).
func (u *keyUpdater) record(kind byte, data []byte) []byte {
	inner := append(append([]byte(nil), data...), kind)
	head := []byte{23, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[3:], uint16(len(inner)+u.aead.Overhead()))
	nonce := append([]byte(nil), u.iv...)
	for i := range 8 {
		nonce[4+i] ^= byte(u.seq >> (56 - 8*i))
	}
	u.seq++
	return u.aead.Seal(head, nonce, inner, head)
}

// update asks for an update of the server's keys and updates its own, in records
// of cut bytes each.
func (u *keyUpdater) update(t *testing.T, cut int) (records [][]byte) {
	message := []byte{24, 0, 0, 1, 1} // key_update, update_requested
	for len(message) > 0 {
		n := min(cut, len(message))
		records = append(records, u.record(22, message[:n]))
		message = message[n:]
	}
	u.secret = u.expand(t, "traffic upd", 32)
	u.rekey(t)
	return records
}

// data is one record of application data.
func (u *keyUpdater) data(p string) []byte { return u.record(23, []byte(p)) }
