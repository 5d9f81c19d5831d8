package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// How long a certificate of the node's own lasts, and when it is replaced at a start.
// Browsers accept no more than 398 days of one that they are told to trust.
const (
	selfSignedLifetime = 397 * 24 * time.Hour
	selfSignedRenewal  = 30 * 24 * time.Hour
)

// NeedsTLS says whether a port at that address can be reached from elsewhere. A name
// other than localhost may stand for any address.
func NeedsTLS(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	return err != nil || !isLoopback(host)
}

// Certificate is that of the admin port, in PEM files.
type Certificate struct {
	CertFile, KeyFile string
	Fingerprint       string // SHA-256 of the certificate, as browsers show it
	Made              bool   // just now: clients do not know it yet
	Kept              error  // why one that ends soon was not replaced; nil when it need not be
}

// SelfSigned returns the certificate that the node made for itself in dir, and makes
// one when there is none that is good for a while and for all the hosts. Where that
// fails, on a full disk say, one that is still good today will do. Hosts are names
// and addresses beside those of this machine.
func SelfSigned(dir string, hosts []string, now time.Time) (*Certificate, error) {
	return selfSigned(dir, hosts, now, writeBeside)
}

func selfSigned(dir string, hosts []string, now time.Time, write func(name string, text []byte) (string, error)) (*Certificate, error) {
	c := &Certificate{CertFile: filepath.Join(dir, "admin.crt"), KeyFile: filepath.Join(dir, "admin.key")}
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	// A pair that cannot be read is made again, too: it is the node's own.
	if err != nil || !goodFor(pair.Leaf, hosts, now) || now.Add(selfSignedRenewal).After(pair.Leaf.NotAfter) {
		made, makeErr := makeCertificate(c, hosts, now, write)
		switch {
		case makeErr == nil:
			pair, c.Made = made, true
		case err == nil && goodFor(pair.Leaf, hosts, now):
			c.Kept = makeErr
		default:
			return nil, fmt.Errorf("make certificate of the admin port: %w", makeErr)
		}
	}
	c.Fingerprint = fingerprint(pair.Leaf)
	return c, nil
}

// goodFor says whether a certificate can be served at a time.
func goodFor(leaf *x509.Certificate, hosts []string, at time.Time) bool {
	if at.Before(leaf.NotBefore) || at.After(leaf.NotAfter) {
		return false
	}
	return !slices.ContainsFunc(hosts, func(host string) bool { return leaf.VerifyHostname(host) != nil })
}

func makeCertificate(c *Certificate, hosts []string, now time.Time, write func(name string, text []byte) (string, error)) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := selfSignedTemplate(hosts, now)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	// Both are written before one is replaced, so that a full disk leaves the old pair
	// as it is. Then the key first: a pair of which only that is there is made again.
	newKey, err := write(c.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	if err != nil {
		return tls.Certificate{}, err
	}
	defer os.Remove(newKey) // fails once it is renamed
	newCert, err := write(c.CertFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if err != nil {
		return tls.Certificate{}, err
	}
	defer os.Remove(newCert)
	if err := os.Rename(newKey, c.KeyFile); err != nil {
		return tls.Certificate{}, err
	}
	if err := os.Rename(newCert, c.CertFile); err != nil {
		return tls.Certificate{}, err
	}
	return tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
}

func selfSignedTemplate(hosts []string, now time.Time) *x509.Certificate {
	t := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(random(16)),
		Subject:               pkix.Name{CommonName: "sluice on " + machineName()},
		NotBefore:             now.Add(-time.Hour), // clocks differ
		NotAfter:              now.Add(selfSignedLifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, host := range append([]string{"localhost", machineName()}, hosts...) {
		addHost(t, host)
	}
	for _, ip := range interfaceAddresses() {
		addHost(t, ip.String())
	}
	return t
}

// addHost adds a name or an address, once.
func addHost(t *x509.Certificate, host string) {
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	switch {
	case err != nil && host != "" && !slices.Contains(t.DNSNames, host):
		t.DNSNames = append(t.DNSNames, host)
	case err == nil && !ip.IsUnspecified():
		t.IPAddresses = append(t.IPAddresses, ip.AsSlice())
	}
}

// writeBeside writes a file that only the owner reads, for name to be replaced by.
func writeBeside(name string, text []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// fingerprint is what a person compares with what the browser shows.
func fingerprint(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.Raw)
	hexed := strings.ToUpper(hex.EncodeToString(sum[:]))
	pairs := make([]string, 0, len(sum))
	for i := 0; i < len(hexed); i += 2 {
		pairs = append(pairs, hexed[i:i+2])
	}
	return strings.Join(pairs, ":")
}
