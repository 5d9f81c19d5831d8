package upstream

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"

	"sluice/store"
)

// clientTLS reads what a backend's TLS needs and returns it with a digest: other
// files or another name make another endpoint, whose connections are new. Both
// are zero in clear text.
func clientTLS(b *store.Backend) (digest string, c *tls.Config, err error) {
	if b.Spec.Protocol != store.ProtocolTLS {
		return "", nil, nil
	}
	spec := b.Spec.TLS
	if spec == nil {
		spec = &store.BackendTLS{}
	}
	sum := sha256.New()
	c = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, ServerName: spec.ServerName}
	fmt.Fprintf(sum, "%q", spec.ServerName)
	ca := []byte(spec.CA)
	if spec.CAFile != "" {
		if ca, err = os.ReadFile(spec.CAFile); err != nil {
			return "", nil, fmt.Errorf("reading tls.caFile: %w", err)
		}
	}
	if len(ca) > 0 {
		sum.Write(ca)
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return "", nil, errors.New("reading tls.ca: no certificate in PEM form")
		}
	}
	if spec.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(spec.CertFile, spec.KeyFile)
		if err != nil {
			return "", nil, fmt.Errorf("reading tls.certFile %q: %w", spec.CertFile, err)
		}
		sum.Write(pair.Certificate[0])
		c.Certificates = []tls.Certificate{pair}
	}
	return hex.EncodeToString(sum.Sum(nil)[:12]), c, nil
}

// tlsFor fills in the name that the endpoint's own address gives.
func tlsFor(c *tls.Config, address string) *tls.Config {
	if c.ServerName != "" {
		return c
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	c = c.Clone()
	c.ServerName = host
	return c
}
