package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/h2"
	"sluice/store"
)

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := new(authority)
	der, key := certify(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	a.key = key
	a.cert, _ = x509.ParseCertificate(der)
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

func certify(t *testing.T, template *x509.Certificate, by *authority) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// issue returns a pair for a name and for 127.0.0.1, and its files.
func (a *authority) issue(t *testing.T, name string, ips ...net.IP) (pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	der, key := certify(t, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		DNSNames: []string{name}, IPAddresses: ips,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a)
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cert, private := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
	for file, data := range map[string][]byte{certFile: cert, keyFile: private} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if pair, err = tls.X509KeyPair(cert, private); err != nil {
		t.Fatal(err)
	}
	return pair, certFile, keyFile
}

// secure is a backend in TLS that shakes hands, says SETTINGS and reads. It tells
// of each handshake.
func secure(t *testing.T, cfg *tls.Config) (addr string, hellos chan tls.ConnectionState) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hellos = make(chan tls.ConnectionState, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(20 * time.Second))
				tc := tls.Server(nc, cfg)
				if tc.Handshake() != nil {
					return
				}
				hellos <- tc.ConnectionState()
				http2.NewFramer(tc, tc).WriteSettings()
				io.Copy(io.Discard, tc)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String(), hellos
}

// TestEndpointSpeaksTLS as its Backend says, and tells why it could not.
func TestEndpointSpeaksTLS(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	loopback := net.IPv4(127, 0, 0, 1)
	byName, _, _ := ours.issue(t, "cart.internal")
	byAddress, _, _ := ours.issue(t, "cart.internal", loopback)
	_, clientCert, clientKey := ours.issue(t, "gateway")
	_, strangerCert, strangerKey := others.issue(t, "stranger")
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, []byte(ours.pem), 0o600); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ours.cert)
	server := func(pair tls.Certificate, protos ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: protos}
	}
	mutual := server(byAddress, "h2")
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, pool
	old := server(byAddress, "h2")
	old.MaxVersion = tls.VersionTLS11
	tests := []struct {
		name   string
		server *tls.Config
		spec   *store.BackendTLS
		sni    string
		client string // the name in the client's certificate
		want   string // of the error; empty when it works
	}{
		{name: "CA and name", server: server(byName, "h2"), spec: &store.BackendTLS{CA: ours.pem, ServerName: "cart.internal"}, sni: "cart.internal"},
		{name: "CA from a file", server: server(byName, "h2"), spec: &store.BackendTLS{CAFile: caFile, ServerName: "cart.internal"}, sni: "cart.internal"},
		{name: "name of the address", server: server(byAddress, "h2"), spec: &store.BackendTLS{CA: ours.pem}},
		{name: "client certificate", server: mutual, spec: &store.BackendTLS{CA: ours.pem, CertFile: clientCert, KeyFile: clientKey}, client: "gateway"},
		{name: "wrong name", server: server(byName, "h2"), spec: &store.BackendTLS{CA: ours.pem, ServerName: "stock.internal"}, want: "certificate is valid for cart.internal, not stock.internal"},
		{name: "wrong address", server: server(byName, "h2"), spec: &store.BackendTLS{CA: ours.pem}, want: "cannot validate certificate for 127.0.0.1"},
		{name: "wrong CA", server: server(byName, "h2"), spec: &store.BackendTLS{CA: others.pem, ServerName: "cart.internal"}, want: "certificate signed by unknown authority"},
		{name: "no CA", server: server(byAddress, "h2"), want: "certificate signed by unknown authority"},
		{name: "no h2", server: server(byAddress, "http/1.1"), spec: &store.BackendTLS{CA: ours.pem}, want: "no application protocol"},
		{name: "no ALPN", server: server(byAddress), spec: &store.BackendTLS{CA: ours.pem}, want: `alpn gave "", want "h2"`},
		{name: "old TLS", server: old, spec: &store.BackendTLS{CA: ours.pem}, want: "protocol version not supported"},
		// TLS 1.3: the handshake is over for us before the server has looked.
		{name: "client certificate of a stranger", server: mutual, spec: &store.BackendTLS{CA: ours.pem, CertFile: strangerCert, KeyFile: strangerKey}, want: "connection ended before SETTINGS: remote error: tls: unknown certificate authority"},
		{name: "no client certificate", server: mutual, spec: &store.BackendTLS{CA: ours.pem}, want: "connection ended before SETTINGS: remote error: tls: certificate required"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			addr, hellos := secure(t, test.server)
			log := new(logged)
			p := NewPool(h2.NewEngine(h2.Limits{}), slog.New(slog.NewTextHandler(log, nil)))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				p.Run(ctx)
			}()
			defer func() {
				cancel()
				<-done
			}()
			b := to("x", addr)
			b.Spec.Protocol, b.Spec.TLS = store.ProtocolTLS, test.spec
			p.Commit(p.Prepare(&store.Set{Backends: []*store.Backend{b}}))()
			if err := p.Problem("default/x"); err != nil {
				t.Fatal(err)
			}
			e := p.Backend("default/x").Endpoints[0]
			c := call(e)
			settled := func() bool {
				opened, parked, err := c.state()
				return opened || !parked && err != nil
			}
			for deadline := time.Now().Add(20 * time.Second); !settled(); <-time.After(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the stream is parked still")
				}
			}
			opened, _, err := c.state()
			if test.want != "" {
				if opened || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), addr) {
					t.Errorf("opened %v, error %v, want %q in it and the address", opened, err, test.want)
				}
				if !strings.Contains(log.String(), "endpoint not reached") || !strings.Contains(log.String(), addr) {
					t.Errorf("the log says nothing of it: %s", log)
				}
				return
			}
			if !opened {
				t.Fatalf("not opened: %v", err)
			}
			hello := <-hellos
			if hello.ServerName != test.sni || hello.NegotiatedProtocol != "h2" || hello.Version < tls.VersionTLS12 {
				t.Errorf("SNI %q, ALPN %q, version %x", hello.ServerName, hello.NegotiatedProtocol, hello.Version)
			}
			var client string
			if len(hello.PeerCertificates) > 0 {
				client = hello.PeerCertificates[0].Subject.CommonName
			}
			if client != test.client {
				t.Errorf("the client's certificate names %q, want %q", client, test.client)
			}
		})
	}
}

// TestReadTLSTellsSettingsApart: other files or another name make another
// endpoint, the same ones do not.
func TestReadTLSTellsSettingsApart(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	_, certFile, keyFile := a.issue(t, "gateway")
	_, otherCert, otherKey := a.issue(t, "gateway")
	specs := []*store.BackendTLS{
		nil,
		{CA: a.pem},
		{CA: b.pem},
		{CA: a.pem, ServerName: "x"},
		{ServerName: "x"},
		{CA: a.pem, CertFile: certFile, KeyFile: keyFile},
		{CA: a.pem, CertFile: otherCert, KeyFile: otherKey},
	}
	seen := map[string]int{"": -1} // of clear text
	for i, spec := range specs {
		backend := to("x", "a:1")
		backend.Spec.Protocol, backend.Spec.TLS = store.ProtocolTLS, spec
		secured, err := readTLS(backend, make(files))
		if err != nil {
			t.Fatal(err)
		}
		digest := secured.digest
		if j, ok := seen[digest]; ok {
			t.Errorf("settings %d and %d have the same digest", i, j)
		}
		seen[digest] = i
		if again, _ := readTLS(backend, make(files)); again.digest != digest {
			t.Errorf("settings %d have two digests", i)
		}
	}
}
