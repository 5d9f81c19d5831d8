package listen

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// served returns the name in the certificate that a new connection is shown.
func served(t *testing.T, nc net.Conn, f *files) string {
	t.Helper()
	cfg := f.client("h2")
	cfg.InsecureSkipVerify = true
	client := tls.Client(nc, cfg)
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	return client.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestListenerReloadsCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFiles(t)
		cfg := f.config()
		network := newMemory()
		cfg.Listener = network
		p := openPort(t, cfg)
		check := func(when, want string, wantErrors int64) {
			t.Helper()
			time.Sleep(certificateInterval + time.Millisecond)
			if got := served(t, network.dial(t), f); got != want {
				t.Errorf("%s: certificate of %q; want %q", when, got, want)
			}
			if got := p.CertificateErrors(); got != wantErrors {
				t.Errorf("%s: %d errors; want %d", when, got, wantErrors)
			}
		}
		check("at the start", "gateway.test", 0)

		cert, key := f.ca.issue(t, "second.test", time.Now().Add(time.Hour))
		f.write(t, "cert.pem", cert)
		check("with the certificate without its key", "gateway.test", 1)
		check("a second later", "gateway.test", 1) // the same files are not read twice
		f.write(t, "key.pem", key)
		check("with both", "second.test", 1)

		f.write(t, "cert.pem", cert[:len(cert)/2])
		check("with half a file", "second.test", 2)
		if err := os.Remove(f.path("cert.pem")); err != nil {
			t.Fatal(err)
		}
		check("without the file", "second.test", 3)
		f.write(t, "cert.pem", cert)
		check("with the file again", "second.test", 3)

		old, oldKey := f.ca.issue(t, "old.test", time.Now().Add(-time.Minute))
		f.write(t, "cert.pem", old)
		f.write(t, "key.pem", oldKey)
		check("with a certificate that has expired", "second.test", 4)
		if !strings.Contains(p.log.String(), "expired") {
			t.Errorf("the log does not say why:\n%s", p.log)
		}
		p.stop()
	})
}

func TestListenerReloadsWhenItIsTold(t *testing.T) {
	f := newFiles(t)
	p := openPort(t, f.config())
	until := time.Now().Add(30 * time.Minute)
	cert, key := f.ca.issue(t, "second.test", until)
	f.write(t, "cert.pem", cert)
	if err := p.Reload(); err == nil {
		t.Error("a certificate without its key was taken")
	}
	if p.CertificateErrors() == 0 {
		t.Error("the error was not counted")
	}
	f.write(t, "key.pem", key)
	if err := p.Reload(); err != nil {
		t.Error(err)
	}
	if got := served(t, p.dial(t), f); got != "second.test" {
		t.Errorf("certificate of %q", got)
	}
	if got := p.CertificateExpiry(); got.Sub(until).Abs() > time.Second {
		t.Errorf("expires %s; want %s", got, until)
	}
	if clear := openPort(t, Config{}); clear.Reload() != nil || !clear.CertificateExpiry().IsZero() {
		t.Error("without TLS there is something to reload, or to expire")
	}
}

func TestListenerRequiresCertificatesOfItsAuthorities(t *testing.T) {
	f := newFiles(t)
	clients, strangers := newAuthority(t, "clients"), newAuthority(t, "strangers")
	f.write(t, "clients.pem", clients.pem)
	cfg := f.config()
	cfg.TLSClientCA = f.path("clients.pem")
	p := openPort(t, cfg)
	tests := []struct {
		name string
		by   *authority // of the client's certificate
		wrap func(net.Conn) net.Conn
		max  uint16
		want bool
	}{
		{"known", clients, nil, 0, true},
		{"known, tls 1.2", clients, nil, tls.VersionTLS12, true},
		{"none", nil, nil, 0, false},
		{"none, tls 1.2", nil, nil, tls.VersionTLS12, false},
		{"stranger", strangers, nil, 0, false},
		{"known, in fragments", clients, fragment, 0, true},
		{"none, in fragments", nil, fragment, 0, false},
		{"none, in fragments, tls 1.2", nil, fragment, tls.VersionTLS12, false},
	}
	refused := int64(0)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			nc := p.dial(t)
			if test.wrap != nil {
				nc = test.wrap(nc)
			}
			client := f.client("h2")
			client.MaxVersion = test.max
			if test.by != nil {
				client.GetClientCertificate = certificateOf(t, test.by)
			}
			answer, err := askHTTP2(tls.Client(nc, client))
			if !test.want {
				refused++
				if _, told := errors.AsType[*net.OpError](err); !told || !strings.Contains(err.Error(), "remote error: tls: ") {
					t.Errorf("answer %q, %v; want to be told by an alert", answer, err)
				}
				return
			}
			if err != nil || !strings.HasPrefix(answer, "http2") {
				t.Errorf("answer %q, %v", answer, err)
			}
		})
	}
	p.await(t, "tls_handshake", refused)
	if _, err := askHTTP1(p.dial(t)); err != nil {
		t.Errorf("clear text is served beside it: %v", err)
	}
}

func certificateOf(t *testing.T, by *authority) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	t.Helper()
	cert, key := by.issue(t, "client", time.Now().Add(time.Hour))
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
}

// fragment cuts the first flight into records of one byte each, as an attacker
// does who hopes that somebody decides by the first record.
func fragment(nc net.Conn) net.Conn { return &fragments{Conn: nc} }

type fragments struct {
	net.Conn
	cut bool
}

func (f *fragments) Write(p []byte) (int, error) {
	if f.cut {
		return f.Conn.Write(p)
	}
	f.cut = true
	var out []byte
	for _, b := range p[5:] {
		out = append(out, p[0], p[1], p[2], 0, 1, b)
	}
	if _, err := f.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Nobody resumes a session by a certificate whose authority is gone.
func TestListenerRefusesTicketsOfARevokedAuthority(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			f := newFiles(t)
			before, after := newAuthority(t, "before"), newAuthority(t, "after")
			f.write(t, "clients.pem", before.pem)
			cfg := f.config()
			cfg.TLSClientCA = f.path("clients.pem")
			p := openPort(t, cfg)
			client := f.client("h2")
			client.MaxVersion = version
			client.GetClientCertificate = certificateOf(t, before)
			client.ClientSessionCache = tls.NewLRUClientSessionCache(1)

			ask := func() (resumed bool, err error) {
				nc := tls.Client(p.dial(t), client)
				_, err = askHTTP2(nc)
				return nc.ConnectionState().DidResume, err
			}
			if _, err := ask(); err != nil {
				t.Fatal(err)
			}
			if resumed, err := ask(); err != nil || !resumed {
				t.Fatalf("the ticket is worth nothing from the start: resumed %t, %v", resumed, err)
			}
			f.write(t, "clients.pem", after.pem)
			if err := p.Reload(); err != nil {
				t.Fatal(err)
			}
			if resumed, err := ask(); err == nil {
				t.Errorf("with the ticket of a revoked authority: resumed %t, served", resumed)
			}
		})
	}
}

func TestListenerSpeaksNothingOlderThanTLS12(t *testing.T) {
	f := newFiles(t)
	p := openPort(t, f.config())
	client := f.client("h2")
	client.MinVersion, client.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if answer, err := askHTTP2(tls.Client(p.dial(t), client)); err == nil {
		t.Errorf("tls 1.1: %q", answer)
	}
	client = f.client("h2")
	client.MaxVersion = tls.VersionTLS12
	client.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	if answer, err := askHTTP2(tls.Client(p.dial(t), client)); err == nil {
		t.Errorf("a suite that HTTP/2 forbids: %q", answer)
	}
}
