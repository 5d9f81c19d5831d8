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

// security is how the endpoints of a backend are spoken to: zero in clear text.
type security struct {
	// digest is of all that is in config: other files or another name make another
	// endpoint, whose connections are new.
	digest string
	config *tls.Config
}

// SettingError is a setting of a backend that cannot be put in force.
type SettingError struct {
	Field string // below spec
	Err   error
}

// Error is "reading FIELD: cause".
func (e *SettingError) Error() string { return "reading " + e.Field + ": " + e.Err.Error() }

// Unwrap is the cause.
func (e *SettingError) Unwrap() error { return e.Err }

// Check reads what a backend needs beside its declaration, and says why it could
// not be put in force.
func Check(spec *store.Backend) *SettingError {
	_, err := readTLS(spec, make(files))
	return err
}

// namesFiles tells whether a backend is more than its declaration.
func namesFiles(spec *store.Backend) bool {
	t := spec.Spec.TLS
	return spec.Spec.Protocol == store.ProtocolTLS && t != nil && (t.CAFile != "" || t.CertFile != "")
}

// readTLS reads what a backend's TLS needs.
func readTLS(spec *store.Backend, f files) (security, *SettingError) {
	if spec.Spec.Protocol != store.ProtocolTLS {
		return security{}, nil
	}
	t := spec.Spec.TLS
	if t == nil {
		t = &store.BackendTLS{}
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, ServerName: t.ServerName}
	ca, fault := f.authorities(t, c)
	if fault != nil {
		return security{}, fault
	}
	pair, fault := f.certificate(t, c)
	if fault != nil {
		return security{}, fault
	}
	sum := sha256.New()
	for _, part := range [][]byte{[]byte(t.ServerName), ca, pair} {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return security{hex.EncodeToString(sum.Sum(nil)[:12]), c}, nil
}

// authorities sets by whom a backend's certificate is to be signed, and returns
// what that was read from.
func (f files) authorities(t *store.BackendTLS, c *tls.Config) ([]byte, *SettingError) {
	field, text := "tls.ca", []byte(t.CA)
	if t.CAFile != "" {
		var err error
		if field, text, err = f.read("tls.caFile", t.CAFile); err != nil {
			return nil, &SettingError{field, err}
		}
	}
	if len(text) == 0 {
		return nil, nil
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(text) {
		return nil, &SettingError{field, errors.New("no certificate in PEM form")}
	}
	return text, nil
}

// certificate sets what we show the backend, and returns what that was read from.
func (f files) certificate(t *store.BackendTLS, c *tls.Config) ([]byte, *SettingError) {
	if t.CertFile == "" {
		return nil, nil
	}
	field, cert, err := f.read("tls.certFile", t.CertFile)
	var key []byte
	if err == nil {
		field, key, err = f.read("tls.keyFile", t.KeyFile)
	}
	if err != nil {
		return nil, &SettingError{field, err}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, &SettingError{"tls.certFile", fmt.Errorf("%q with key %q: %w", t.CertFile, t.KeyFile, err)}
	}
	c.Certificates = []tls.Certificate{pair}
	return append(append([]byte(nil), cert...), key...), nil
}

// files are what has been read for one plan, each file once.
type files map[string]content

type content struct {
	data []byte
	err  error
}

// read returns the content of a file, and which field has named it.
func (f files) read(field, name string) (string, []byte, error) {
	c, done := f[name]
	if !done {
		c.data, c.err = os.ReadFile(name)
		f[name] = c
	}
	return field, c.data, c.err
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
