package upstream

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"syscall"

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
// not be put in force. What the backend needs as before has been read already: a file
// that has gone since is no reason not to drain it.
func (p *Pool) Check(spec *store.Backend) *SettingError {
	p.mu.Lock()
	before := p.known[spec.Key()]
	p.mu.Unlock()
	if before != nil && before.backend.Problem == nil && sameTLS(before.secured, spec) {
		return nil
	}
	_, err := readTLS(spec, make(files))
	return err
}

// namesFiles tells whether a backend is more than its declaration.
func namesFiles(spec *store.Backend) bool {
	t := spec.Spec.TLS
	return usesTLS(spec) && t != nil && (t.CAFile != "" || t.CertFile != "")
}

// sameTLS tells whether two declarations want the same of TLS.
func sameTLS(a, b *store.Backend) bool {
	return a.Spec.Protocol == b.Spec.Protocol && reflect.DeepEqual(a.Spec.TLS, b.Spec.TLS)
}

// readTLS reads what a backend's TLS needs, and makes of it what a dial takes.
func readTLS(spec *store.Backend, f files) (security, *SettingError) {
	t, fault := f.gather(spec)
	if fault != nil || t == nil {
		return security{}, fault
	}
	return t.security()
}

// tlsTexts are what a backend's TLS is made of, not parsed yet.
type tlsTexts struct {
	spec          *store.BackendTLS
	ca, cert, key []byte
	caField       string
	alpn          string
	digest        string
}

// gather reads the texts of a backend's TLS; nil means clear text.
func (f files) gather(spec *store.Backend) (*tlsTexts, *SettingError) {
	if !usesTLS(spec) {
		return nil, nil
	}
	t := &tlsTexts{spec: spec.Spec.TLS, alpn: "h2"}
	if spec.Spec.Protocol == store.ProtocolHTTP1 {
		t.alpn = alpnHTTP1
	}
	if t.spec == nil {
		t.spec = &store.BackendTLS{}
	}
	t.caField, t.ca = "tls.ca", []byte(t.spec.CA)
	for _, file := range []struct {
		field, name string
		text        *[]byte
	}{{"tls.caFile", t.spec.CAFile, &t.ca}, {"tls.certFile", t.spec.CertFile, &t.cert}, {"tls.keyFile", t.spec.KeyFile, &t.key}} {
		if file.name == "" {
			continue
		}
		text, err := f.read(file.name)
		if err != nil {
			return nil, &SettingError{file.field, err}
		}
		*file.text = text
	}
	if t.spec.CAFile != "" {
		t.caField = "tls.caFile"
	}
	sum := sha256.New()
	for _, part := range [][]byte{[]byte(t.spec.ServerName), t.ca, t.cert, t.key} {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	t.digest = hex.EncodeToString(sum.Sum(nil)[:12])
	return t, nil
}

// sum is the digest, "" of clear text.
func (t *tlsTexts) sum() string {
	if t == nil {
		return ""
	}
	return t.digest
}

// security parses the texts.
func (t *tlsTexts) security() (security, *SettingError) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{t.alpn}, ServerName: t.spec.ServerName}
	if t.spec.CA != "" || t.spec.CAFile != "" { // else the system's
		pool, err := parseAuthorities(t.ca)
		if err != nil {
			return security{}, &SettingError{t.caField, err}
		}
		c.RootCAs = pool
	}
	if t.spec.CertFile != "" {
		pair, err := tls.X509KeyPair(t.cert, t.key)
		if err != nil {
			return security{}, &SettingError{"tls.certFile", fmt.Errorf("%q with key %q: %w", t.spec.CertFile, t.spec.KeyFile, err)}
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return security{t.digest, c}, nil
}

// parseAuthorities takes a bundle as a whole or not at all: a file that is empty or
// half written must not change by whom backends are trusted to be signed.
func parseAuthorities(text []byte) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		pool.AddCert(certificate)
		n++
	}
	switch {
	case bytes.Contains(text, []byte("-----BEGIN")):
		return nil, errors.New("cut short, or not in PEM form")
	case n == 0:
		return nil, errors.New("no certificate in PEM form")
	}
	return pool, nil
}

// files are what has been read for one plan, each file once.
type files map[string]content

type content struct {
	data []byte
	err  error
}

// maxFile bounds a certificate's or key's file, in bytes: the bundle of an operating
// system has a quarter of it.
const maxFile = 1 << 20

// read returns the content of a file.
func (f files) read(name string) ([]byte, error) {
	c, done := f[name]
	if !done {
		c.data, c.err = readRegular(name)
		f[name] = c
	}
	return c.data, c.err
}

// readRegular reads what is a file in the plain sense, and waits for nobody: what an
// operator names may be a pipe or a device by mistake.
func readRegular(name string) ([]byte, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %q: it is no regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("read %q: more than %d bytes", name, maxFile)
	}
	return data, err
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
