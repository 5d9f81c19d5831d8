package cli

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// socketName is the socket of a server in its data directory.
const socketName = "admin.sock"

// maxSocketPath is the longest path of a Unix socket in bytes: sun_path has 108
// with its closing zero.
const maxSocketPath = 107

// target is a server and how to speak to it.
type target struct {
	name        string // for messages: the URL, or the path of the socket
	url         string // what requests begin with
	socket      string // set when it is spoken to by its socket
	isDefault   bool   // nothing was said: it is the server of this machine
	context     string // the name of the context that it is from, if any
	token       string
	caFile      string
	fingerprint string // SHA-256 of the one certificate that is believed, in hex
}

// target finds out which server is meant: of --server, --data-dir, --context and
// their variables, the current context, and the server of this machine, the first
// that is there. A flag goes before any variable.
func (p *program) target(dataDirGiven bool, stdin io.Reader) (*target, error) {
	at, err := p.place(dataDirGiven)
	if err != nil {
		return nil, err
	}
	at.caFile = cmp.Or(p.caFile, p.Getenv("SLUICE_CA_FILE"), at.caFile)
	switch {
	case p.tokenFile != "":
		if at.token, err = readSecret("token", p.tokenFile, stdin); err != nil {
			return nil, err
		}
	case at.socket == "" && at.context == "":
		// A token of the environment is for the server that was named by its URL: a
		// socket needs none, and a context has its own.
		at.token = p.envToken()
	}
	return at, at.check()
}

// targets is target for a command that goes to another server when one does not answer:
// --server and SLUICE_SERVER may then have several URLs, with commas between them. The
// token is for all of them.
func (p *program) targets(dataDirGiven bool, stdin io.Reader) ([]*target, error) {
	servers, origin := p.server, "--server"
	if servers == "" && !dataDirGiven && p.context == "" {
		servers, origin = p.Getenv("SLUICE_SERVER"), "SLUICE_SERVER"
	}
	urls := strings.Split(servers, ",")
	if len(urls) == 1 {
		at, err := p.target(dataDirGiven, stdin)
		return []*target{at}, err
	}
	token, err := p.token(stdin)
	if err != nil {
		return nil, err
	}
	var all []*target
	for _, url := range urls {
		at, err := parseServer(origin, strings.TrimSpace(url))
		if err != nil {
			return nil, err
		}
		if at.socket == "" || p.tokenFile != "" {
			at.token = token
		}
		at.caFile = cmp.Or(p.caFile, p.Getenv("SLUICE_CA_FILE"))
		if err := at.check(); err != nil {
			return nil, err
		}
		all = append(all, at)
	}
	return all, nil
}

func (p *program) place(dataDirGiven bool) (*target, error) {
	switch {
	case p.server != "":
		return parseServer("--server", p.server)
	case dataDirGiven:
		return socketIn(p.dataDir), nil
	case p.context != "":
		return p.targetOfContext(p.context)
	}
	if server := p.Getenv("SLUICE_SERVER"); server != "" {
		return parseServer("SLUICE_SERVER", server)
	}
	if name := p.Getenv("SLUICE_CONTEXT"); name != "" {
		return p.targetOfContext(name)
	}
	known, err := p.contexts()
	if err != nil {
		return nil, err
	}
	if known.Current != "" {
		return p.targetOfContext(known.Current)
	}
	if dir := p.Getenv("SLUICE_DATA_DIR"); dir != "" {
		return socketIn(dir), nil
	}
	at := socketIn(p.DataDir)
	at.isDefault = true
	return at, nil
}

func socketIn(dataDir string) *target {
	path := filepath.Join(dataDir, socketName)
	return &target{name: path, socket: path, url: "http://localhost"}
}

// parseServer reads the address of a server, which origin gave.
func parseServer(origin, server string) (*target, error) {
	if path, ok := strings.CutPrefix(server, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		return &target{name: path, socket: path, url: "http://localhost"}, nil
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" && u.Path != "/" {
		return nil, usageErrorf("%s %q: want a URL such as https://gateway.example.com:8081, or unix:/path/to/admin.sock", origin, server)
	}
	return &target{name: server, url: u.Scheme + "://" + u.Host}, nil
}

// check refuses what cannot work, or should not.
func (t *target) check() error {
	if len(t.socket) > maxSocketPath {
		return usageErrorf("socket path %q of %d bytes, limit %d: give the server a shorter --data-dir, or use --server with its URL",
			t.socket, len(t.socket), maxSocketPath)
	}
	if u, err := url.Parse(t.url); t.token != "" && t.socket == "" && err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return usageErrorf("server %q: the token would cross the network in clear text; use https", t.name)
	}
	return nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// token is what --token-file or the environment says; empty means neither.
func (p *program) token(stdin io.Reader) (string, error) {
	if p.tokenFile == "" {
		return p.envToken(), nil
	}
	return readSecret("token", p.tokenFile, stdin)
}

func (p *program) envToken() string { return strings.TrimSpace(p.Getenv("SLUICE_TOKEN")) }

// tls is how the server's certificate is judged: by its fingerprint, by the
// authorities of a file, or by those of the system.
func (t *target) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.caFile != "" {
		pem, err := os.ReadFile(t.caFile)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read authorities from %s: no certificate in PEM", t.caFile)
		}
		return config, nil
	}
	if t.fingerprint != "" {
		// One certificate, known by its digest, needs neither a name nor an authority.
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(state tls.ConnectionState) error {
			if got := fingerprint(state.PeerCertificates[0]); got != t.fingerprint {
				return &fingerprintError{got: got, want: t.fingerprint}
			}
			return nil
		}
	}
	return config, nil
}

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// shownFingerprint is how servers, browsers and openssl show one.
func shownFingerprint(clean string) string {
	pairs := slices.Collect(slices.Chunk([]byte(strings.ToUpper(clean)), 2))
	return string(bytes.Join(pairs, []byte(":")))
}

// parseFingerprint reads a SHA-256 as openssl and others print it.
func parseFingerprint(s string) (string, error) {
	clean := strings.ToLower(strings.ReplaceAll(s, ":", ""))
	for _, prefix := range []string{"sha256", "sha-256", "sha256 fingerprint="} {
		clean = strings.TrimPrefix(clean, prefix)
	}
	if raw, err := hex.DecodeString(clean); err != nil || len(raw) != sha256.Size {
		return "", usageErrorf("--fingerprint %q: want the SHA-256 of the certificate, 64 hexadecimal digits", s)
	}
	return clean, nil
}

// fingerprintError is a certificate that is not the one we know.
type fingerprintError struct{ got, want string }

func (e *fingerprintError) Error() string {
	return fmt.Sprintf("the certificate has the fingerprint %s, want %s", shownFingerprint(e.got), shownFingerprint(e.want))
}

// unknownCertificate returns the leaf that no authority of ours has signed, if that
// is what err is about.
func unknownCertificate(err error) (*x509.Certificate, bool) {
	var failed *tls.CertificateVerificationError
	if !errors.As(err, &failed) || len(failed.UnverifiedCertificates) == 0 {
		return nil, false
	}
	return failed.UnverifiedCertificates[0], true
}

// hostOf is the host of a target's URL, without its port.
func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL
	}
	host, _, err := net.SplitHostPort(u.Host)
	if err != nil {
		return u.Host
	}
	return host
}
