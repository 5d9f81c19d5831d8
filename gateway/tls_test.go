package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"sluice/gateway/listen"
)

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its own certificate
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool(), file: filepath.Join(t.TempDir(), "ca.pem")}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	a.pool.AddCert(a.cert)
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

// issue returns a pair for 127.0.0.1 and a name, and the pair's files.
func (a *authority) issue(t testing.TB, name string) (pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "EC PRIVATE KEY", private)
	if pair, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	return pair, certFile, keyFile
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func secured(cfg *tls.Config) grpc.DialOption {
	return grpc.WithTransportCredentials(credentials.NewTLS(cfg))
}

// TestGatewayServesTLSAndClearTextOnOnePort, with messages of every size.
func TestGatewayServesTLSAndClearTextOnOnePort(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	_, cert, key := ca.issue(t, "shop.example.com")
	b := startBackend(t, "a")
	g := startGateway(t, Config{Listen: listen.Config{Address: "127.0.0.1:0", TLSCert: cert, TLSKey: key}}, backendAt("a", b.addr), routeTo("a", "a"))
	for name, cc := range map[string]*grpc.ClientConn{
		"clear": dial(t, g.address()),
		"tls":   dial(t, g.address(), secured(&tls.Config{RootCAs: ca.pool, ServerName: "shop.example.com"})),
	} {
		for i, size := range []int{0, 1, 100, 16 << 10, 1 << 20, 3<<20 + 7} {
			m := pattern(i, size)
			if got := mustCall(t, cc, "/shop.Cart/Echo", m); string(got) != string(m) {
				t.Errorf("%s: a message of %d bytes came back as one of %d", name, size, len(got))
			}
		}
		each(200, 20, func(i int) {
			if _, err := invoke(shortly(t), cc, "/shop.Cart/Echo", pattern(i, 5000)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	if got := g.metric(t, "sluice_rpc_ended_total", "code", "OK"); got != 412 {
		t.Errorf("%v RPCs ended well, want 412", got)
	}
}

// TestGatewayWantsClientCertificates when it is given an authority for them.
func TestGatewayWantsClientCertificates(t *testing.T) {
	t.Parallel()
	servers, clients := newAuthority(t), newAuthority(t)
	_, cert, key := servers.issue(t, "shop.example.com")
	known, _, _ := clients.issue(t, "client")
	stranger, _, _ := servers.issue(t, "stranger")
	b := startBackend(t, "a")
	g := startGateway(t, Config{Listen: listen.Config{Address: "127.0.0.1:0", TLSCert: cert, TLSKey: key, TLSClientCA: clients.file, NoClearText: true}},
		backendAt("a", b.addr), routeTo("a", "a"))
	tests := []struct {
		name string
		cfg  *tls.Config
		want codes.Code
	}{
		{"known", &tls.Config{RootCAs: servers.pool, Certificates: []tls.Certificate{known}}, codes.OK},
		{"none", &tls.Config{RootCAs: servers.pool}, codes.Unavailable},
		{"a stranger's", &tls.Config{RootCAs: servers.pool, Certificates: []tls.Certificate{stranger}}, codes.Unavailable},
	}
	for _, test := range tests {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := invoke(ctx, dial(t, g.address(), secured(test.cfg)), "/shop.Cart/Who", nil)
		cancel()
		wantStatus(t, test.name, err, test.want, "")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience/4)
	defer cancel()
	// The client may go on trying, as it does where nobody answers.
	if _, err := invoke(ctx, dial(t, g.address()), "/shop.Cart/Who", nil); err == nil {
		t.Error("clear text is served")
	}
	if got := b.served.Load(); got != 1 {
		t.Errorf("the backend got %d RPCs, want 1", got)
	}
}

// TestGatewayReachesBackendsInTLS, and tells the caller no more of a failure than
// that there is one; the log has the reason.
func TestGatewayReachesBackendsInTLS(t *testing.T) {
	t.Parallel()
	ca, others := newAuthority(t), newAuthority(t)
	pair, _, _ := ca.issue(t, "cart.internal")
	_, clientCert, clientKey := ca.issue(t, "gateway")
	b := startBackend(t, "a", grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool,
	})))
	settings := func(caFile, name string) string {
		return fmt.Sprintf("protocol: tls\ntls: {caFile: %s, serverName: %s, certFile: %s, keyFile: %s}", caFile, name, clientCert, clientKey)
	}
	g := startGateway(t, Config{}, backendWith("a", settings(ca.file, "cart.internal"), b.addr), routeTo("a", "a"))
	cc := dial(t, g.address())
	each(100, 10, func(i int) {
		m := pattern(i, 30_000)
		if got, err := invoke(shortly(t), cc, "/shop.Cart/Echo", m); err != nil || string(got) != string(m) {
			t.Errorf("echo of %d bytes: %d bytes, %v", len(m), len(got), err)
		}
	})
	for reason, spec := range map[string]string{
		"certificate signed by unknown authority": settings(others.file, "cart.internal"),
		"not stock.internal":                      settings(ca.file, "stock.internal"),
	} {
		g.apply(t, backendWith("a", spec, b.addr), routeTo("a", "a"))
		_, err := invoke(shortly(t), cc, "/shop.Cart/Who", nil)
		wantStatus(t, reason, err, codes.Unavailable, "sluice: no endpoint of the backend can be reached")
		if !strings.Contains(g.log.String(), reason) {
			t.Errorf("the log does not say %q:\n%s", reason, g.log)
		}
	}
}

// TestGatewayFollowsTheFilesOfBackends: nobody has to apply anything when they
// change, and who does not wait can have them read at once.
func TestGatewayFollowsTheFilesOfBackends(t *testing.T) {
	t.Parallel()
	ca, others := newAuthority(t), newAuthority(t)
	pair, _, _ := ca.issue(t, "cart.internal")
	b := startBackend(t, "a", grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	file := filepath.Join(t.TempDir(), "ca.pem")
	put := func(a *authority) {
		t.Helper()
		writePEM(t, file+".new", "CERTIFICATE", a.cert.Raw)
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	g := startGateway(t, Config{})
	resources := parse(t, backendWith("a", fmt.Sprintf("protocol: tls\ntls: {caFile: %s, serverName: cart.internal}", file), b.addr), routeTo("a", "a"))
	if err := g.Apply(resources); err == nil || len(g.Problems()) != 1 {
		t.Fatalf("without the file: %v", err)
	}
	cc := dial(t, g.address())
	_, err := invoke(shortly(t), cc, "/shop.Cart/Who", nil)
	wantStatus(t, "without the file", err, codes.Unavailable, "sluice: the backend's TLS files cannot be used")

	put(ca)
	await(t, "the file to be seen", func() bool { return len(g.Problems()) == 0 })
	mustCall(t, cc, "/shop.Cart/Who", nil)
	if !strings.Contains(g.log.String(), "backend is as declared again") {
		t.Errorf("the log does not tell:\n%s", g.log)
	}

	put(others)
	if err := g.ReloadCertificates(); err != nil {
		t.Error(err)
	}
	_, err = invoke(shortly(t), cc, "/shop.Cart/Who", nil)
	wantStatus(t, "another authority", err, codes.Unavailable, "sluice: no endpoint of the backend can be reached")

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := g.ReloadCertificates(); err == nil || !strings.Contains(err.Error(), `backend "default/a": reading tls.caFile`) {
		t.Errorf("without the file again: %v", err)
	}
	if len(g.Problems()) != 1 || g.pool.Backend("default/a").Problem != nil {
		t.Errorf("problems %v, want one, with the last good file in force", g.Problems())
	}
}
