package hostile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs the certificates of one test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	der  []byte
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	a.der, a.key = sign(t, name, nil)
	var err error
	if a.cert, err = x509.ParseCertificate(a.der); err != nil {
		t.Fatal(err)
	}
	return a
}

// sign makes a certificate, signed by the authority or by itself.
func sign(t testing.TB, name string, by *authority) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: by == nil, BasicConstraintsValid: true,
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// leaf is a certificate that the authority has signed.
func (a *authority) leaf(name string) tls.Certificate {
	a.t.Helper()
	der, key := sign(a.t, name, a)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// files writes a certificate and its key in PEM form.
func (a *authority) files(dir, name string) (cert, key string) {
	a.t.Helper()
	leaf := a.leaf(name)
	encoded, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	writePEM(a.t, cert, "CERTIFICATE", leaf.Certificate[0])
	writePEM(a.t, key, "PRIVATE KEY", encoded)
	return cert, key
}

// file writes the authority's own certificate.
func (a *authority) file(path string) string {
	a.t.Helper()
	writePEM(a.t, path, "CERTIFICATE", a.der)
	return path
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// secured adds TLS to a configuration and returns what its clients need.
func secured(t testing.TB, cfg *nodeConfig) *tls.Config {
	t.Helper()
	ca := newAuthority(t, "ca")
	cfg.Gateway.Listen.TLSCert, cfg.Gateway.Listen.TLSKey = ca.files(t.TempDir(), good)
	return &tls.Config{RootCAs: ca.pool(), ServerName: good, NextProtos: []string{"h2"}}
}
