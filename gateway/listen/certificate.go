package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// certificates are the server's certificate and the clients' authorities, from
// files that may change. What was good last stays in use until something better
// is there.
type certificates struct {
	cert, key, clientCA string // files

	current atomic.Pointer[certificateSet]

	mu   sync.Mutex // one reload at a time; guards seen
	seen string     // what the files looked like when they were last read
}

// certificateSet is what one reading of the files gave. Each set has TLS session
// tickets of its own, because a fresh tls.Config makes fresh keys for them: a
// ticket that an earlier set gave out is worth nothing, so that nobody resumes
// a session by a client certificate whose authority is gone.
type certificateSet struct {
	config *tls.Config
	expiry time.Time
}

// newCertificates reads the files for the first time.
func newCertificates(cfg *Config) (*certificates, error) {
	c := &certificates{cert: cfg.TLSCert, key: cfg.TLSKey, clientCA: cfg.TLSClientCA}
	if _, err := c.reload(true); err != nil {
		return nil, err
	}
	return c, nil
}

// reload reads the files, when they have changed or always, and uses what they
// hold. It reports whether it has read them.
func (c *certificates) reload(always bool) (read bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Looked at before they are read: a change in between is seen next time.
	looks := c.look()
	if looks == c.seen && !always {
		return false, nil
	}
	c.seen = looks
	set, err := c.load()
	if err != nil {
		return true, err
	}
	c.current.Store(set)
	return true, nil
}

// look describes the files so that a change shows.
func (c *certificates) look() string {
	looks := ""
	for _, file := range []string{c.cert, c.key, c.clientCA} {
		if file == "" {
			continue
		}
		if info, err := os.Stat(file); err != nil {
			looks += "absent "
		} else {
			looks += fmt.Sprintf("%d %d ", info.ModTime().UnixNano(), info.Size())
		}
	}
	return looks
}

func (c *certificates) load() (*certificateSet, error) {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %q with key %q: %w", c.cert, c.key, err)
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("load certificate %q: expired %s", c.cert, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	config := serverConfig(pair)
	if c.clientCA != "" {
		if config.ClientCAs, err = loadAuthorities(c.clientCA); err != nil {
			return nil, err
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return &certificateSet{config: config, expiry: pair.Leaf.NotAfter}, nil
}

// serverConfig returns how we speak TLS. Of TLS 1.2 only the suites that HTTP/2
// allows (RFC 9113, section 9.2.2) are left; every client of the last ten years
// has one of them.
func serverConfig(pair tls.Certificate) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2", "http/1.1"},
		MinVersion:   tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
}

func loadAuthorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("load client authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load client authorities %q: no certificate in it", file)
	}
	return pool, nil
}

// certificateInterval is how often the files are looked at.
const certificateInterval = time.Second

// watchCertificates reads the files again when they have changed, until ctx is
// done.
func (l *Listener) watchCertificates(ctx context.Context) {
	ticker := time.NewTicker(certificateInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch read, err := l.certs.reload(false); {
		case err != nil:
			l.counters.add(certificateError)
			l.log.Error("kept the certificate in use", "expires", l.CertificateExpiry(), "err", err)
		case read:
			l.log.Info("certificate reloaded", "file", l.certs.cert, "expires", l.CertificateExpiry())
		}
	}
}

// Reload reads the certificate files again at once. When they cannot be used,
// those in use stay.
func (l *Listener) Reload() error {
	if l.certs == nil {
		return nil
	}
	_, err := l.certs.reload(true)
	if err != nil {
		l.counters.add(certificateError)
	}
	return err
}

// CertificateExpiry returns when the certificate in use expires, zero without
// TLS.
func (l *Listener) CertificateExpiry() time.Time {
	if l.certs == nil {
		return time.Time{}
	}
	return l.certs.current.Load().expiry
}
